# The connection's C side, for the room that receives from many at once.

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t

from .batch cimport FrameBatch
from .codec cimport Decoder, Plan, sf_scan
from .sender cimport Sender


cdef class Connection(Sender):
    # All of this is for the thread that has the turn to read, and for no other; but others may ask how much is here.
    cdef Decoder decoder             # which has the framing that was given, too
    cdef list rest                   # frames that the end of the stream made
    cdef PyObject *partial           # a large payload on its way, a bytes object
    cdef Py_ssize_t have, payload    # of which so many bytes are here, of so many

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
