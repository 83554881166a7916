# The connection's C side, for the room that receives from many at once.

from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint8_t, uint64_t

from .batch cimport FrameBatch
from .codec cimport Decoder, Plan, begin_section, end_section, section, sf_scan, sf_wrapped


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


cdef struct Turn:
    unsigned long owner        # the thread that reads, or writes; 0: nobody
    PyThread_type_lock lock    # held by it, where another thread has ever waited for it

cdef unsigned long GONE  # holds a turn: a thread that stayed behind at a fork


cdef class Connection:
    # What has a turn in its comment is for the thread that has it, and for no other; of `decoder` all. Others may ask how
    # large the tail is, and how much is here. The rest is shared: see `section`.
    cdef readonly object sock
    cdef readonly object _methods    # what serves a socket that is no plain one
    cdef readonly object _watcher    # the selector that it is registered with
    cdef Plan plan
    cdef Decoder decoder             # which has the framing that was given, too
    cdef list rest                   # to read: frames that the end of the stream made
    cdef PyObject *partial           # to read: a large payload on its way, a bytes object
    cdef Py_ssize_t have, payload    # of which so many bytes are here, of so many
    cdef bytes tail                  # to write: what a frame sent in part leaves to be sent,
    cdef Py_ssize_t tail_at          # from here on
    cdef Turn reading, writing
    cdef tuple turns                 # locks instead of those, where the socket's own methods may switch greenlets
    cdef int forks                   # that this process was away from the first, when it was last used
    cdef int using                   # calls that are at work with the socket
    cdef bint shut, last, made

    cdef int check_open(self) except -1
    cdef int64_t deadline(self, object timeout) except? -1
    cdef int after_fork(self) except -1
    cdef int give_up(self, Turn *turn, unsigned long me, bint stayed) except -1
    cdef bint is_mine(self, Turn *turn, unsigned long me) except -1
    cdef int take_turn(self, object turn, int64_t deadline) except -1
    cdef int enter(self, Turn *turn, int64_t deadline) except -1
    cdef bint try_turn(self, Turn *turn) noexcept
    cdef int await_turn(self, Turn *turn, int64_t deadline) except -1
    cdef void leave(self, Turn *turn) noexcept
    cdef int begin_use(self) except -1
    cdef int end_use(self) except -1
    cdef bint leave_socket(self) noexcept
    cdef Py_ssize_t receive_at(self, uint8_t *target, Py_ssize_t size, int64_t deadline) except -1
    cdef int absorb_kept(self) except -1
    cdef bint fill(self, int64_t deadline) except -1
    cdef int use(self, Plan plan) except -1
    cdef int end(self) except -1
    cdef bytes frame_here(self, Plan plan)
    cdef bytes receive_frame(self, Plan plan, int64_t deadline)
    cdef list receive_frames(self, Py_ssize_t limit, int64_t deadline)
    cdef FrameBatch receive_batch(self, int64_t deadline)
    cdef object receive_frame_into(self, uint8_t *target, Py_ssize_t room, Plan plan, int64_t deadline)
    cdef bint known(self, sf_scan *scan) except -1
    cdef bint straight(self, sf_scan *scan, Py_ssize_t least) noexcept
    cdef int receive_straight(self, sf_scan *scan, uint8_t *target, int64_t deadline) except -1
    cdef int take_back(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef bint begin_large(self) except -1
    cdef bytes receive_large(self, int64_t deadline)
    cdef int fold(self) except -1
    cdef int transmit(self, sf_outgoing *outgoing, int64_t deadline) except -1
    cdef int hand_over(self, bytes data, Py_ssize_t at, sf_outgoing *outgoing, int64_t deadline) except -1
    cdef int push(self, iovec *pieces, size_t count, bint taken, bint last, int64_t deadline) except -1
    cdef int send_tail(self, int64_t deadline) except -1
    cdef void keep(self, bytes tail) noexcept
    cdef int send_frame(self, Py_buffer *view, int64_t deadline) except -1
    cdef int check_payloads(self, tuple payloads, Plan plan) except -1
    cdef int send_frames(self, object source, tuple whole, Plan plan, int64_t deadline) except -1
    cdef int send_batch(self, object source, tuple whole, Plan plan, Py_ssize_t *pulled, uint8_t *buffer, bint taken,
                        int64_t deadline) except -1
    cdef tuple send_answers(self, tuple given, object handler, int64_t turn)
    cdef int take_rest(self, tuple whole, Py_ssize_t at, Plan plan) except -1


cdef inline Plan plan_in(Connection conn):
    """Return the framing that the connection has now, compiled."""
    cdef section here
    cdef Plan plan
    begin_section(&here, conn)
    plan = conn.plan
    end_section(&here)
    return plan


cdef inline bint has_tail(Connection conn) noexcept:
    """Say whether something is left to be sent."""
    cdef section here
    cdef bint kept
    begin_section(&here, conn)
    kept = conn.tail is not None
    end_section(&here)
    return kept
