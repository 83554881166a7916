# What the rooms of the core share: compiled framings, the store of a stream's bytes, the decoder.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "sockframe.h" nogil:
    enum:
        SF_FAULT
        SF_NEED
        SF_FRAME
        SF_NUMBERS
        SF_WRAP_LAST

    ctypedef struct sf_text:
        const uint8_t *data
        uint64_t size

    ctypedef struct sf_kind

    ctypedef struct sf_framing:
        const sf_kind *kind
        uint64_t max_length
        uint64_t number[11]
        const sf_text *text
        size_t texts
        const sf_framing **child
        size_t children

    ctypedef struct sf_span:
        uint64_t start, stop

    ctypedef size_t (*sf_frames)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans,
                                 size_t most, uint64_t *used)

    ctypedef struct sf_kind:
        const char *name
        sf_frames frames

    ctypedef struct sf_scan:
        int ended
        uint64_t resume, size, start, stop, need, number, limit, seen
        int fault

    ctypedef struct sf_wrapped:
        uint8_t header[256]
        uint8_t trailer[320]
        uint32_t header_size, trailer_size
        uint64_t replaced
        int last
        int fault
        uint64_t number, limit

    const sf_kind *sf_kind_named(const char *name)
    int sf_scan_frame(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
    int sf_wrap_frame(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)


cdef class Plan:
    """A framing compiled for csrc; shared by all that use the same framing object."""
    cdef sf_framing c
    cdef sf_text *texts
    cdef const sf_framing **children
    cdef tuple held


cdef class Block:
    """A piece of memory that views may hold on to."""
    cdef uint8_t *data
    cdef Py_ssize_t size, offset, exports


cdef class Encoder:
    cdef readonly object framing
    cdef Plan plan
    cdef bint made


cdef class Decoder:
    cdef object given
    cdef Plan plan
    cdef Block block
    cdef Py_ssize_t begin, end, lent
    cdef uint64_t resume, least, whole, at
    cdef tuple fault
    cdef bint busy, ended, made

    cdef int enter(self) except -1
    cdef int check(self) except -1
    cdef void use(self, Plan plan) noexcept
    cdef int look(self, sf_scan *scan, Py_ssize_t used) noexcept
    cdef void remember(self, sf_scan *scan) noexcept
    cdef int record(self, sf_scan *scan, const uint8_t *data, uint64_t position) except -1
    cdef const uint8_t *start(self) noexcept
    cdef int make_room(self, Py_ssize_t extra, Py_ssize_t size) except -1
    cdef int keep(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef int keep_first(self, Py_ssize_t size) except -1
    cdef void skip(self, Py_ssize_t size) noexcept
    cdef bytes take_rest(self)
    cdef void tidy(self) noexcept
    cdef int append(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef bytes take(self)
    cdef list take_many(self, Py_ssize_t limit, uint64_t room)
    cdef list decode_bytes(self, const uint8_t *data, Py_ssize_t size)
    cdef Py_ssize_t take_whole(self, list out, const uint8_t *data, Py_ssize_t size) except -1
    cdef list close(self)


cdef enum:
    SLACK = 65536  # bytes that an unfinished frame may hold beyond twice what arrived


cdef bytes new_bytes(const uint8_t *data, Py_ssize_t size)
cdef Plan plan_of(object framing)
cdef int hold(object value, Py_buffer *view, str what, bint writable) except -1
cdef bytes join_frame(sf_wrapped *wrapped, const uint8_t *payload, Py_ssize_t size)
cdef Py_ssize_t place_frame(uint8_t *target, sf_wrapped *wrapped, const uint8_t *payload, Py_ssize_t size) noexcept
