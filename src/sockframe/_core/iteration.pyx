# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""AsyncFrames: `async for` over frames, of which one that is here already costs no coroutine."""

cimport cython
from cpython.object cimport PyObject

from .codec cimport Decoder, begin_section, end_section, section

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    PySendResult PyIter_Send(object iterator, object value, PyObject **result) except PYGEN_ERROR
    PyObject *PyExc_StopIteration
    void PyErr_SetObject(PyObject *kind, object value)
    void Py_INCREF(object value)
    void Py_DECREF(object value)

    ctypedef PySendResult (*sendfunc)(PyObject *self, PyObject *value, PyObject **result) except? PYGEN_ERROR
    ctypedef PyObject *(*iternextfunc)(PyObject *self) except? NULL

    ctypedef struct PyAsyncMethods:
        sendfunc am_send

    ctypedef struct PyTypeObject:
        PyAsyncMethods *tp_as_async
        iternextfunc tp_iternext


@cython.final
cdef class AsyncFrames:
    """What `async for` takes the frames of a stream from: `AsyncFrames(wait)`.

    The Decoder `ready`, where there is one, is asked for the next frame at once. `wait()` returns a coroutine that
    waits for it, and raises `StopAsyncIteration` at the end of the stream.
    """

    cdef public Decoder ready
    cdef object wait

    def __init__(self, wait):
        self.wait = wait

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef NextFrame following = NextFrame.__new__(NextFrame)
        following.frames = self
        return following


@cython.final
@cython.freelist(8)
cdef class NextFrame:
    """What `__anext__` returns: it takes the next frame when it is awaited, and no sooner."""

    cdef AsyncFrames frames  # None once it has been awaited
    cdef object waiting      # the coroutine that waits for the frame

    def __await__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on, as a coroutine does."""
        cdef PyObject *result = NULL
        cdef PySendResult status = advance(self, value, &result)
        cdef object found = <object>result
        Py_DECREF(found)
        if status == PYGEN_RETURN:
            raise StopIteration(found)
        return found

    def throw(self, *error):
        """Raise an exception where it waits."""
        waiting = self.begin()
        try:
            return waiting.throw(*error)
        except BaseException:
            self.wait_for(None)
            raise

    def close(self):
        """Take no frame any more."""
        cdef section here
        self.take_frames()
        begin_section(&here, self)
        waiting = self.waiting
        end_section(&here)
        if waiting is not None:
            waiting.close()

    cdef AsyncFrames take_frames(self):
        """Return what to take a frame from, once."""
        cdef section here
        cdef AsyncFrames frames
        begin_section(&here, self)
        frames = self.frames
        self.frames = None
        end_section(&here)
        return frames

    cdef object begin(self):
        """Return the coroutine that waits for the frame."""
        cdef section here
        cdef AsyncFrames frames = self.take_frames()
        if frames is not None:
            waiting = frames.wait()
            self.wait_for(waiting)
            return waiting
        begin_section(&here, self)
        waiting = self.waiting
        end_section(&here)
        if waiting is None:
            raise RuntimeError("cannot reuse already awaited __anext__()")
        return waiting

    cdef void wait_for(self, object waiting) noexcept:
        """Have this coroutine wait for the frame, or none any more."""
        cdef section here
        begin_section(&here, self)
        self.waiting = waiting
        end_section(&here)


cdef PySendResult advance(NextFrame self, object value, PyObject **result) except PYGEN_ERROR:
    """Take the frame where it is here, or go on waiting for it."""
    cdef AsyncFrames frames = self.take_frames()  # also where there is a fault
    cdef Decoder ready
    cdef bytes frame
    cdef section here
    cdef PySendResult status
    if frames is not None:
        begin_section(&here, frames)
        ready = frames.ready
        end_section(&here)
        if ready is not None:
            frame = ready.next_now()
            if frame is not None:
                Py_INCREF(frame)
                result[0] = <PyObject *>frame
                return PYGEN_RETURN
        begin_section(&here, self)
        self.frames = frames
        end_section(&here)
    waiting = self.begin()
    try:
        status = PyIter_Send(waiting, value, result)
    except BaseException:
        self.wait_for(None)
        raise
    if status == PYGEN_RETURN:
        self.wait_for(None)
    return status


cdef PySendResult send_slot(PyObject *self, PyObject *value, PyObject **result) except? PYGEN_ERROR:
    """`am_send`, by which Python 3.10 and 3.11 await and all tasks begin."""
    result[0] = NULL
    return advance(<NextFrame>self, <object>value, result)


cdef PyObject *iternext_slot(PyObject *self) except? NULL:
    """`tp_iternext`, by which later ones await."""
    cdef PyObject *result = NULL
    cdef object end = StopIteration()  # made before a frame is taken: where there is no memory for it, none is lost
    if advance(<NextFrame>self, None, &result) == PYGEN_NEXT:
        return result
    end.value = <object>result
    Py_DECREF(<object>result)
    PyErr_SetObject(PyExc_StopIteration, end)
    return NULL


# The slots are C's: Cython would give the StopIteration that carries each frame a traceback of its own.
(<PyTypeObject *>NextFrame).tp_iternext = iternext_slot
(<PyTypeObject *>NextFrame).tp_as_async.am_send = send_slot
