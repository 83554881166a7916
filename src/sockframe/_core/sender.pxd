# The sender's C side, for the connection and for the room that receives from many at once.

from libc.stdint cimport int64_t, uint8_t

from .codec cimport Plan, begin_section, end_section, section, sf_wrapped
from .descriptors cimport iovec, sf_outgoing
from .endpoint cimport Endpoint


cdef class Sender(Endpoint):
    # The tail and `last` are for the thread that has the turn to write, and for no other; but others may ask how large the
    # tail is. The plan is shared: see `section`.
    cdef Plan plan
    cdef bytes tail                  # what a frame sent in part leaves to be sent,
    cdef Py_ssize_t tail_at          # from here on
    cdef bint last                   # that was the last frame of the stream

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


cdef inline Plan plan_in(Sender sender):
    """Return the framing that the connection has now, compiled."""
    cdef section here
    cdef Plan plan
    begin_section(&here, sender)
    plan = sender.plan
    end_section(&here)
    return plan


cdef inline bint has_tail(Sender sender) noexcept:
    """Say whether something is left to be sent."""
    cdef section here
    cdef bint kept
    begin_section(&here, sender)
    kept = sender.tail is not None
    end_section(&here)
    return kept
