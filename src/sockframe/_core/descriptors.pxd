# csrc/descriptors.h, for the rooms that receive and send over descriptors.

from libc.stdint cimport int64_t, uint64_t


cdef extern from "descriptors.h" nogil:
    const bint SF_DESCRIPTORS
    const int64_t SF_NEVER
    const int64_t SF_AT_ONCE

    struct iovec:
        void *iov_base
        size_t iov_len

    ctypedef struct sf_outgoing:
        iovec *pieces
        size_t count, next
        uint64_t sent

    int64_t sf_now()
    int64_t sf_receive(int fd, void *data, size_t size, int64_t deadline)
    int sf_send_all(int fd, sf_outgoing *outgoing, int64_t deadline)
    void sf_advance(sf_outgoing *outgoing, size_t size)

    int64_t sf_read(int fd, void *data, size_t size)
    int64_t sf_write(int fd, const iovec *pieces, int count)
    int sf_await_writable(int fd)
