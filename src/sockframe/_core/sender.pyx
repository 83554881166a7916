# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Sender: whole frames to a stream socket."""

from socket import SHUT_RD

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t

from .codec cimport (SMALL, Plan, begin_section, end_section, frame_size, hold, join_frame, new_bytes, place_frame,
                     release, section, sf_wrapped, wrap_bytes, wrap_payload)
from .descriptors cimport SF_AT_ONCE, iovec, sf_advance, sf_outgoing, sf_send_all
from .endpoint cimport Endpoint, clock, watcher_of

from .. import errors, transport
from ..transport import UNSET

cdef extern from "Python.h":
    PyObject **PySequence_Fast_ITEMS(object sequence)
    void Py_XDECREF(PyObject *value)

cdef enum:
    GATHER = 65536        # bytes of small frames for one send
    SINGLE = 2048         # so is a payload sent alone, up to this size of frame
    BATCH = 1024          # frames for one send
    SIGNAL_FRAMES = 4096  # frames between two looks for a signal
    LOOK = 64             # answers between two looks at the clock, at most

END = object()  # of an iterator


cdef class Sender(Endpoint):
    """Sends whole frames over a connected stream socket.

    Of a frame that could be sent only in part it keeps the tail, which goes before all else.
    """

    @property
    def unsent(self):
        """The number of bytes that a frame sent in part leaves for the next send() or flush()."""
        cdef section here
        begin_section(&here, self)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.tail) - self.tail_at if self.tail is not None else 0
        end_section(&here)
        return size

    def send(self, payload, *, timeout=UNSET):
        """Send one payload as a frame.

        A payload that could not be received as the same bytes raises `ValueError` before any byte is
        sent. Where a timeout or a signal handler interrupts it, `unsent` tells: 0, nothing was taken;
        more, the frame was taken, and its tail goes first with the next send() or flush(); while an
        earlier tail can't be sent, nothing is taken: flush() that first. A non-blocking socket takes the
        whole frame or raises `BlockingIOError`, having taken nothing.

        That it returns says that the kernel has the frame, not the peer. Two peers that both send more than the
        kernel holds before they receive wait for each other: give a timeout, or receive in another thread.
        """
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        cdef Py_buffer view
        self.enter(&self.writing, deadline)
        try:
            hold(payload, &view, "payload", False)
            try:
                self.send_frame(&view, deadline)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.leave(&self.writing)

    def send_many(self, payloads, *, timeout=UNSET):
        """Send the payloads of an iterable as frames, many with one system call.

        Of a list or tuple all are checked first, and where one is bad none is sent; it is taken as a
        whole, as a payload is by send(). Any other iterable is pulled a bounded batch at a time, each
        checked as one; what was pulled is taken.
        """
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        cdef Plan plan
        self.enter(&self.writing, deadline)
        try:
            if isinstance(payloads, (list, tuple)):
                payloads = tuple(payloads)
                plan = plan_in(self)
                self.check_payloads(payloads, plan)
                self.send_frames(None, payloads, plan, deadline)
            else:
                self.send_frames(iter(payloads), None, None, deadline)
        finally:
            self.leave(&self.writing)

    def _answer(self, payloads, handler, int64_t turn):
        """Give each payload to `handler` and send its replies together, without waiting; return None, or how far
        that went: (payloads given, the reply to the last that is yet to be sent, what `handler` raised).

        It goes no further behind a reply that is neither None nor bytes, or can't be sent; where the socket takes no
        more, or had not taken all before; and after `turn` nanoseconds.
        """
        cdef tuple given = tuple(payloads)
        self.check_open()
        self.enter(&self.writing, SF_AT_ONCE)
        try:
            if self.tail is not None:
                return 0, None, None
            return self.send_answers(given, handler, turn)
        finally:
            self.leave(&self.writing)

    def flush(self, *, timeout=UNSET):
        """Send what an interrupted send() left unsent."""
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        self.enter(&self.writing, deadline)
        try:
            self.send_tail(deadline)
        finally:
            self.leave(&self.writing)

    def shutdown(self, how):
        """Shut down one half of the connection or both, as `socket.shutdown` does; what is unsent goes first."""
        self.check_open()
        cdef int64_t deadline = self.deadline(UNSET)
        self.enter(&self.writing, deadline)
        try:
            if how != SHUT_RD:
                self.send_tail(deadline)
            transport.shut_down(self.sock, how, deadline)
        finally:
            self.leave(&self.writing)

    # ---- sending ----

    cdef int transmit(self, sf_outgoing *outgoing, int64_t deadline) except -1:
        """Send all of it, or raise with `outgoing` saying what is left."""
        cdef int error, fd
        if self._methods is not None:
            return self.hand_over(remainder(outgoing), 0, outgoing, deadline)
        while True:
            fd = self.begin_use()
            with nogil:
                error = sf_send_all(fd, outgoing, deadline)
            self.end_use()
            if not error:
                return 0
            if error == -EAGAIN:
                raise transport.passed_error(deadline, "the socket can take no more")
            if error != -EINTR:
                raise errors.os_error(-error)
            PyErr_CheckSignals()

    cdef int hand_over(self, bytes data, Py_ssize_t at, sf_outgoing *outgoing, int64_t deadline) except -1:
        """Send the bytes from data[at] on through the socket's own methods."""
        cdef Py_ssize_t sent
        view = memoryview(data)
        while at < PyBytes_GET_SIZE(data):
            self.begin_use()
            try:
                sent = self._methods.send(view[at:], deadline)
            finally:
                self.end_use()
            at += sent
            sf_advance(outgoing, sent)
        return 0

    cdef int push(self, iovec *pieces, size_t count, bint taken, bint last, int64_t deadline) except -1:
        """Send frames, the `last` one of the stream or not. Once a byte of them was sent, or they are `taken`
        anyway, what can't be sent is kept as the tail, and that a non-blocking socket leaves one is no error."""
        cdef sf_outgoing outgoing
        cdef bint keeps
        outgoing.pieces = pieces
        outgoing.count = count
        outgoing.next = outgoing.sent = 0
        try:
            self.transmit(&outgoing, deadline)
        except BaseException as error:
            keeps = self._methods is not None and self._methods.keeps and not isinstance(error, ConnectionError)
            if not taken and not outgoing.sent and not keeps:
                raise
            try:
                self.keep(remainder(&outgoing))
            except MemoryError:
                self.close()  # a frame without its end must not be followed by another
                raise
            self.last = last
            watcher = watcher_of(self)
            if watcher is not None:
                watcher.want_write(self)
            if not isinstance(error, BlockingIOError):
                raise
            return 0
        self.last = last
        return 0

    cdef int send_tail(self, int64_t deadline) except -1:
        """Send what an interrupted send left."""
        cdef sf_outgoing outgoing
        cdef iovec piece
        cdef section here
        cdef bint done = False
        if self.tail is None:
            return 0
        piece.iov_base = PyBytes_AS_STRING(self.tail) + self.tail_at
        piece.iov_len = PyBytes_GET_SIZE(self.tail) - self.tail_at
        outgoing.pieces = &piece
        outgoing.count = 1
        outgoing.next = outgoing.sent = 0
        try:
            if self._methods is not None:
                self.hand_over(self.tail, self.tail_at, &outgoing, deadline)
            else:
                self.transmit(&outgoing, deadline)
            done = True
        finally:
            begin_section(&here, self)
            self.tail_at += outgoing.sent
            if done:
                self.tail = None
            end_section(&here)
        return 0

    cdef void keep(self, bytes tail) noexcept:
        """Have these bytes to be sent first."""
        cdef section here
        begin_section(&here, self)
        self.tail = tail
        self.tail_at = 0
        end_section(&here)

    cdef int send_frame(self, Py_buffer *view, int64_t deadline) except -1:
        """Send one frame."""
        cdef sf_wrapped wrapped
        cdef uint8_t small[SINGLE]
        cdef iovec pieces[3]
        wrapped.object = NULL
        try:
            wrap_payload(plan_in(self), view, &wrapped, self.last, -1)
            self.send_tail(deadline)
            if frame_size(&wrapped) <= SINGLE:
                pieces[0].iov_base = small
                pieces[0].iov_len = place_frame(small, &wrapped)
                self.push(pieces, 1, False, wrapped.last, deadline)
            else:
                enclose(pieces, &wrapped)
                self.push(pieces, 3, False, wrapped.last, deadline)
        finally:
            Py_XDECREF(<PyObject *>wrapped.object)
        return 0

    cdef int check_payloads(self, tuple payloads, Plan plan) except -1:
        """Raise the error of the first payload that can't be sent."""
        cdef sf_wrapped wrapped
        cdef Py_buffer view
        cdef Py_ssize_t i = 0, look = 0, count
        cdef bint last = self.last
        while i < len(payloads):
            if i >= look:
                look = i + SIGNAL_FRAMES
                PyErr_CheckSignals()
            if not last:
                i += wrap_bytes(plan, PySequence_Fast_ITEMS(payloads) + i, len(payloads) - i, 1, NULL, &count)
                if i == len(payloads):
                    return 0
            wrapped.object = NULL
            hold(payloads[i], &view, "payload", False)
            try:
                wrap_payload(plan, &view, &wrapped, last, i)
            finally:
                release(&view, &wrapped)
            last = wrapped.last
            i += 1
        return 0

    cdef int send_frames(self, object source, tuple whole, Plan plan, int64_t deadline) except -1:
        """Send the frames of an iterator's payloads, or of a `whole` tuple by this plan: after the first byte all is
        taken."""
        cdef uint8_t *buffer
        cdef Py_ssize_t at = 0, pulled = 0
        cdef bint begun = False
        self.send_tail(deadline)
        buffer = <uint8_t *>PyMem_Malloc(GATHER + SMALL + 8)
        if buffer == NULL:
            raise MemoryError
        try:
            while whole is None or at < len(whole):
                self.send_tail(deadline)
                PyErr_CheckSignals()
                self.send_batch(source, whole, plan, &pulled, buffer, whole is None or begun, deadline)
                if pulled == at:
                    return 0
                at = pulled
                begun = True
                if whole is not None and self.tail is not None:
                    self.take_rest(whole, at, plan)
                    return 0
            return 0
        except BaseException:
            if whole is not None and (begun or self.tail is not None) and not self.shut:
                self.take_rest(whole, at if self.tail is None else pulled, plan)
            raise
        finally:
            PyMem_Free(buffer)

    cdef int send_batch(self, object source, tuple whole, Plan plan, Py_ssize_t *pulled, uint8_t *buffer, bint taken,
                        int64_t deadline) except -1:
        """Send one batch: small frames gathered in `buffer`, up to a large one; `pulled` counts all that there were."""
        cdef sf_wrapped wrapped
        cdef iovec pieces[4]
        cdef Py_buffer view
        cdef Py_ssize_t gathered = 0, first = pulled[0], most, count, size
        cdef bint last = self.last
        cdef object item, end = END, broken = None
        cdef PyObject *one
        cdef PyObject **items
        while gathered < GATHER and pulled[0] - first < BATCH:
            if whole is not None:
                most = min(len(whole), first + BATCH) - pulled[0]
                if not most:
                    break
                items = PySequence_Fast_ITEMS(whole) + pulled[0]
                item = <object>items[0]
            else:
                try:
                    item = next(source, end)  # cheaper than StopIteration
                except BaseException as error:
                    broken = error
                    break
                if item is end:
                    break
                one = <PyObject *>item
                items = &one
                most = 1
                plan = plan_in(self)
            if not last:
                count = wrap_bytes(plan, items, most, GATHER - gathered, buffer + gathered, &size)
                pulled[0] += count
                gathered += size
                if count:
                    continue
            wrapped.object = NULL
            hold(item, &view, "payload", False)
            try:
                wrap_payload(plan, &view, &wrapped, last, pulled[0])
                pulled[0] += 1
                last = wrapped.last
                if frame_size(&wrapped) <= SMALL:
                    gathered += place_frame(buffer + gathered, &wrapped)
                    continue
                enclose(pieces + 1, &wrapped)
                pieces[0].iov_base = buffer
                pieces[0].iov_len = gathered
                self.push(pieces, 4, taken, last, deadline)
                return 0
            finally:
                release(&view, &wrapped)
        if pulled[0] != first:
            pieces[0].iov_base = buffer
            pieces[0].iov_len = gathered
            self.push(pieces, 1, taken, last, deadline)
        if broken is not None:
            raise broken
        return 0

    cdef tuple send_answers(self, tuple given, object handler, int64_t turn):
        """Do what _answer() says."""
        cdef sf_wrapped wrapped
        cdef iovec pieces[4]
        cdef Py_buffer view
        cdef Py_ssize_t at = 0, look = 1, few = 1, gathered = 0, count, size
        cdef bint last = self.last, calling = False, pushing = False
        cdef int64_t begun = clock(), now, end = begun + turn
        cdef object reply = None, failed = None
        cdef Plan plan
        cdef PyObject *one
        cdef uint8_t *buffer = <uint8_t *>PyMem_Malloc(GATHER + SMALL + 8)
        if buffer == NULL:
            raise MemoryError
        wrapped.object = NULL
        try:
            while at < len(given) and self.tail is None:
                if at == look:
                    # The clock is not asked for each payload: for the more of them at once, the faster the handler is.
                    now = clock()
                    if now >= end:
                        break
                    few = min(2 * few, LOOK) if now - begun < turn // 8 else 1
                    look += few
                    begun = now
                calling = True
                reply = handler(given[at])
                calling = False
                at += 1
                if reply is None:
                    continue
                if not PyBytes_CheckExact(reply):
                    break
                one = <PyObject *>reply
                count = 0
                plan = plan_in(self)
                if not last and wrap_bytes(plan, &one, 1, 1, buffer + gathered, &size):
                    gathered += size
                else:
                    hold(reply, &view, "reply", False)  # it is bytes: nothing to let go of
                    wrap_payload(plan, &view, &wrapped, last, -1)
                    last = wrapped.last
                    if frame_size(&wrapped) <= SMALL:
                        gathered += place_frame(buffer + gathered, &wrapped)
                    else:
                        enclose(pieces + 1, &wrapped)
                        count = 4
                if gathered >= GATHER and not count:
                    count = 1
                pushing = True
                if count:
                    pieces[0].iov_base = buffer
                    pieces[0].iov_len = gathered
                    gathered = 0
                    self.push(pieces, count, True, last, SF_AT_ONCE)
                pushing = False
                reply = None
                if wrapped.object != NULL:
                    Py_XDECREF(<PyObject *>wrapped.object)
                    wrapped.object = NULL
        except Exception as error:
            if pushing:
                raise
            if calling:
                at += 1
                failed = error
                reply = None
        finally:
            try:
                if gathered:
                    pieces[0].iov_base = buffer
                    pieces[0].iov_len = gathered
                    self.push(pieces, 1, True, last, SF_AT_ONCE)
            finally:
                Py_XDECREF(<PyObject *>wrapped.object)
                PyMem_Free(buffer)
        if at < len(given) or reply is not None or failed is not None:
            return at, reply, failed
        return None

    cdef int take_rest(self, tuple whole, Py_ssize_t at, Plan plan) except -1:
        """Put the frames of a list that are left, from `at` on, behind the tail."""
        cdef sf_wrapped wrapped
        cdef Py_buffer view
        cdef list parts = []
        try:
            if self.tail is not None:
                parts.append(self.tail[self.tail_at:])
            for item in whole[at:]:
                wrapped.object = NULL
                hold(item, &view, "payload", False)
                try:
                    wrap_payload(plan, &view, &wrapped, self.last, -1)
                    parts.append(join_frame(&wrapped))
                    self.last = wrapped.last
                finally:
                    release(&view, &wrapped)
            self.keep(b"".join(parts))
        except BaseException:
            self.close()  # a list is taken as a whole or not at all
            raise
        return 0


cdef void enclose(iovec *pieces, sf_wrapped *wrapped) noexcept:
    """Lay out a frame in three pieces, its payload where it is."""
    pieces[0].iov_base = wrapped.header
    pieces[0].iov_len = wrapped.header_size
    pieces[1].iov_base = <void *>wrapped.body
    pieces[1].iov_len = wrapped.body_size
    pieces[2].iov_base = wrapped.trailer
    pieces[2].iov_len = wrapped.trailer_size


cdef bytes remainder(sf_outgoing *outgoing):
    """Return what is left to be sent."""
    cdef size_t i
    cdef list parts = []
    for i in range(outgoing.next, outgoing.count):
        parts.append(new_bytes(<const uint8_t *>outgoing.pieces[i].iov_base, outgoing.pieces[i].iov_len))
    return b"".join(parts)
