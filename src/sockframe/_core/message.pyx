# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""MessageConnection: messages as multiprocessing sends them, over a descriptor."""

import os
from operator import index

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from .codec cimport begin_section, end_section, grow_bytes, hold, new_bytes, section
from .descriptors cimport iovec, sf_await_writable, sf_read, sf_write

from .. import errors, transport

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    Py_ssize_t PyBytes_Size(PyObject *value)
    void Py_CLEAR(PyObject *value)

cdef enum:
    FIRST = 65536     # bytes set aside for a payload, before any have come
    BAD = -1          # instead of a length

cdef int forks = 1    # this process's number, from the first


def count_fork():
    """This process is a fork."""
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)


cdef inline int enter(MessageConnection conn, int *number) except -1:
    """Refuse a call from inside another one; return the number of the process that was left in the midst of one."""
    cdef section here
    cdef int before
    begin_section(&here, conn)
    before = number[0]
    number[0] = forks
    end_section(&here)
    if before == forks:
        raise errors.reentry_error(type(conn).__name__)
    return before


cdef inline void leave(MessageConnection conn, int *number) noexcept:
    """A call is over."""
    cdef section here
    begin_section(&here, conn)
    number[0] = 0
    end_section(&here)


cdef inline int descriptor_of(MessageConnection conn) except? -1:
    """Return the descriptor, unless it was closed meanwhile."""
    cdef section here
    begin_section(&here, conn)
    handle = conn._handle
    end_section(&here)
    if handle is None:
        conn._check_closed()
    return handle


cdef class MessageConnection:
    """Sends and receives messages over a descriptor as multiprocessing's `Connection`, of which it is half.

    A message has a signed length of 4 bytes in front of it, big-endian, or -1 and an unsigned one of 8. The other half,
    which keeps `_handle`, `_readable` and `_writable` and refuses what they don't allow, is the original's base
    class. No byte behind a message is ever read: others may wait at the descriptor, or read on from there. Sending and
    receiving are for one thread at a time each; a second one, or a signal handler, gets a `RuntimeError`.
    """

    cdef public object _handle
    cdef public object _readable
    cdef public object _writable
    cdef uint8_t head[12]           # the header of the message on its way,
    cdef int headed                 # of which so many bytes are here,
    cdef PyObject *body             # and its payload: a bytes object,
    cdef Py_ssize_t filled          # of which so many bytes are here
    cdef bytes tail                 # what a message sent in part leaves to be sent,
    cdef Py_ssize_t tail_at         # from here on
    cdef int receiving, sending     # the number of the process that is at it, or 0

    def __dealloc__(self):
        Py_CLEAR(self.body)

    def send_bytes(self, buf, offset=0, size=None):
        """Send `size` bytes of a bytes-like object from `offset` on, or all that follow, as a message.

        What an exception interrupts in its midst is finished first by the next call. Raises `OSError`, and
        `ValueError` where the buffer has no such bytes. On a non-blocking descriptor that takes nothing, nothing was
        sent (`BlockingIOError`); of one that takes a part, the rest is waited for.
        """
        cdef Py_buffer view
        cdef Py_ssize_t start = 0, length
        self.check_writable()
        hold(buf, &view, "buf", False)
        try:
            length = view.len
            if size is not None or offset is not 0:
                start, length = transport.message_range(index(offset), None if size is None else index(size), view.len)
            self.send(<uint8_t *>view.buf + start, length)
        finally:
            PyBuffer_Release(&view)

    def recv_bytes(self, maxlength=None):
        """Return the next message, as bytes.

        Raises `EOFError` at the end of the stream, and `OSError` where that is in the midst of a message, for a length
        above `maxlength`, and for one that none can have. Of a message that an exception interrupts, nothing is lost.
        """
        cdef int64_t size
        cdef bytes message
        self.begin_receive()
        try:
            if maxlength is not None and maxlength < 0:
                raise ValueError("negative maxlength")
            size = self.length()
            if size == BAD or (maxlength is not None and size > maxlength):
                message = None
            else:
                message = self.payload(size)
        finally:
            leave(self, &self.receiving)
        if message is None:
            self._bad_message_length()
        return message

    def recv_bytes_into(self, buf, offset=0):
        """Receive the next message into a writable bytes-like object from `offset` on, and return its size in bytes.

        Where it does not fit, it is in the `multiprocessing.BufferTooShort` that is raised. What else is raised is as
        for recv_bytes(); the buffer's contents are then undefined.
        """
        cdef Py_buffer view
        cdef int64_t size
        cdef Py_ssize_t start
        cdef int around
        cdef bytes message
        cdef object answer
        self.check_readable()
        hold(buf, &view, "buf", True)
        try:
            start = transport.message_range(index(offset), None, view.len)[0]
            self.begin_receive()
            try:
                size = self.length()
                answer = size  # while nothing is lost where there is no memory for it
                if size != BAD and self.body == NULL and size <= view.len - start:
                    self.receive_at(<uint8_t *>view.buf + start, size)
                elif size != BAD:
                    around = self.headed
                    message = self.payload(size)
                    if size > view.len - start:
                        self.refuse(message, around)
                    memcpy(<uint8_t *>view.buf + start, PyBytes_AS_STRING(message), size)
            finally:
                leave(self, &self.receiving)
        finally:
            PyBuffer_Release(&view)
        if size == BAD:
            self._bad_message_length()
        return answer

    def _midway(self):
        """Say whether a message is sent or received in part."""
        return self.tail is not None or self.headed > 0

    def __reduce__(self):
        raise errors.no_copy_error(self)

    # ---- receiving ----

    cdef int check_readable(self) except -1:
        """Refuse to receive where that can't be."""
        cdef section here
        begin_section(&here, self)
        handle, able = self._handle, self._readable
        end_section(&here)
        if handle is None or not able:
            self._check_closed()
            self._check_readable()
        return 0

    cdef int begin_receive(self) except -1:
        """Refuse a call from inside another one."""
        self.check_readable()
        if enter(self, &self.receiving):
            self.forget()  # the message is that of a thread which stayed behind at a fork
        return 0

    cdef int forget(self) noexcept:
        """No message is on its way."""
        Py_CLEAR(self.body)
        self.headed = 0
        self.filled = 0
        return 0

    cdef Py_ssize_t take(self, void *target, Py_ssize_t size) except -1:
        """Read what is here of a message, at most `size` bytes; return how many."""
        cdef int64_t got
        cdef int fd
        while True:
            fd = descriptor_of(self)
            with nogil:
                got = sf_read(fd, target, size)
            if got > 0:
                return got
            if got == 0:
                raise errors.message_end_error(self.headed > 0)
            if got != -EINTR:
                raise errors.os_error(-got)
            PyErr_CheckSignals()

    cdef int64_t length(self) except? -2:
        """Receive the header; return the payload's length, or BAD."""
        cdef uint64_t size
        while self.headed < 4:
            self.headed += self.take(&self.head[self.headed], 4 - self.headed)
        size = self.big(0, 4)
        if size <= 0x7fffffff:
            return <int64_t>size
        if size != 0xffffffff:
            return BAD
        while self.headed < 12:
            self.headed += self.take(&self.head[self.headed], 12 - self.headed)
        size = self.big(4, 12)
        return BAD if size > <uint64_t>0x7fffffffffffffff else <int64_t>size

    cdef uint64_t big(self, int start, int stop) noexcept:
        """Return the number in these bytes of the header."""
        cdef uint64_t number = 0
        cdef int i
        for i in range(start, stop):
            number = number << 8 | self.head[i]
        return number

    cdef bytes payload(self, int64_t size):
        """Receive the payload: straight into what is returned, for which no more is set aside than twice what is here."""
        cdef bytes message
        cdef Py_ssize_t room
        if self.body == NULL:
            self.body = PyBytes_FromStringAndSize(NULL, min(size, FIRST))
        while self.filled < size:
            room = PyBytes_Size(self.body)
            if room == self.filled:
                room = min(size, max(2 * room, FIRST))
                grow_bytes(&self.body, room)
            self.filled += self.take(PyBytes_AsString(self.body) + self.filled, room - self.filled)
            if self.filled < size:
                PyErr_CheckSignals()
        message = <bytes>self.body
        self.forget()
        return message

    cdef int receive_at(self, uint8_t *target, Py_ssize_t size) except -1:
        """Receive the payload to where the caller wants it; what interrupts that leaves what is here as the payload."""
        cdef Py_ssize_t at = 0
        try:
            while at < size:
                at += self.take(target + at, size - at)
                if at < size:
                    PyErr_CheckSignals()
        except BaseException:
            if not at:
                raise
            try:
                self.body = PyBytes_FromStringAndSize(NULL, at)  # one that grows must be nobody else's
                memcpy(PyBytes_AsString(self.body), target, at)
                self.filled = at
            except MemoryError:
                self.close()  # the payload's beginning is lost
                raise
            raise
        self.forget()
        return 0

    cdef int refuse(self, bytes message, int around) except -1:
        """Raise that a message does not fit; where there is no memory for the exception that has it, it is the next."""
        try:
            error = errors.too_short_error(message)
        except MemoryError:
            Py_INCREF(message)
            self.body = <PyObject *>message
            self.headed = around
            self.filled = len(message)
            raise
        raise error

    # ---- sending ----

    cdef int check_writable(self) except -1:
        """Refuse to send where that can't be."""
        cdef section here
        begin_section(&here, self)
        handle, able = self._handle, self._writable
        end_section(&here)
        if handle is None or not able:
            self._check_closed()
            self._check_writable()
        return 0

    cdef int send(self, uint8_t *data, Py_ssize_t size) except -1:
        """Send a message, behind what one before it left."""
        cdef iovec pieces[2]
        cdef uint8_t header[12]
        cdef Py_ssize_t sent = 0, around = 12 if size > 0x7fffffff else 4
        cdef int i
        self.check_writable()
        if enter(self, &self.sending):
            self.tail = None  # it is that of a thread which stayed behind at a fork
        try:
            if self.tail is not None:
                pieces[0].iov_base = PyBytes_AS_STRING(self.tail) + self.tail_at
                pieces[0].iov_len = len(self.tail) - self.tail_at
                self.transmit(pieces, 1, &self.tail_at)
                self.tail = None
            for i in range(4):
                header[i] = 0xff if around == 12 else <uint8_t>(size >> (24 - 8 * i))
            for i in range(4, around):
                header[i] = <uint8_t>(size >> (88 - 8 * i))
            pieces[0].iov_base = header
            pieces[0].iov_len = around
            pieces[1].iov_base = data
            pieces[1].iov_len = size
            try:
                self.transmit(pieces, 2, &sent)
            except BaseException:
                if sent:
                    self.keep(header, around, data, size, sent)
                raise
        finally:
            leave(self, &self.sending)
        return 0

    cdef int transmit(self, iovec *pieces, int count, Py_ssize_t *sent) except -1:
        """Send these pieces, and add to `sent` what is sent of them."""
        cdef Py_ssize_t begun = sent[0]
        cdef int64_t wrote
        cdef int fd
        while count:
            fd = descriptor_of(self)
            with nogil:
                wrote = sf_write(fd, pieces, count)
            if wrote < 0:
                if wrote == -EAGAIN and sent[0] > begun:
                    with nogil:
                        sf_await_writable(fd)
                elif wrote != -EINTR:
                    raise errors.os_error(-wrote)
                PyErr_CheckSignals()
                continue
            sent[0] += wrote
            while count and <size_t>wrote >= pieces[0].iov_len:
                wrote -= pieces[0].iov_len
                pieces += 1
                count -= 1
            if count:
                pieces[0].iov_base = <uint8_t *>pieces[0].iov_base + wrote
                pieces[0].iov_len -= wrote
                PyErr_CheckSignals()
        return 0

    cdef int keep(self, uint8_t *header, Py_ssize_t around, uint8_t *data, Py_ssize_t size, Py_ssize_t sent) except -1:
        """Keep what a message that was begun leaves to be sent."""
        try:
            self.tail = (new_bytes(header, around) + new_bytes(data, size))[sent:] if sent < around else \
                new_bytes(data + sent - around, size + around - sent)
            self.tail_at = 0
        except MemoryError:
            self.close()  # a message without its end must not be followed by another
            raise
        return 0
