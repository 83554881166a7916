# A batch's C side, for the room that fills it.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t


cdef extern from "sockframe.h":
    ctypedef struct sf_span:
        uint64_t start, stop

cdef extern from *:
    """
    /* What a __getbuffer__ answers. Cython begins it with a reference to None in the view, which PyBuffer_FillInfo()
     * alone would forget to give back. */
    static inline int fill_view(Py_buffer *view, PyObject *owner, void *data, Py_ssize_t size, int readonly, int flags)
    {
        Py_CLEAR(view->obj);
        return PyBuffer_FillInfo(view, owner, data, size, readonly, flags);
    }
    """
    int fill_view(Py_buffer *view, object owner, void *data, Py_ssize_t size, int readonly, int flags) except -1

cdef class FrameBatch:
    cdef sf_span *place              # where the payloads lie,
    cdef Py_ssize_t found, room      # so many of them, of so many there is room for,
    cdef const uint8_t *base         # counted from here
    cdef object held                 # a view of that memory, once all are found
    cdef PyObject *side              # bytes that take what does not lie there as it is, then all payloads:
    cdef Py_ssize_t filled           # so many bytes of it

    cdef int reserve(self, Py_ssize_t room) except -1
    cdef int grow(self, Py_ssize_t expected) except -1
    cdef int add(self, const uint8_t *payload, Py_ssize_t size) except -1
    cdef void move(self, Py_ssize_t count, const uint8_t *start) noexcept
    cdef uint8_t *make(self, Py_ssize_t size) except NULL
    cdef int settle(self, object view) except -1
    cdef object payload(self, Py_ssize_t i)


cdef FrameBatch new_batch(const uint8_t *base)
cdef FrameBatch batch_of(list frames)
