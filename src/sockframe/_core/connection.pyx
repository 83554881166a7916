# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Connection: whole frames over a stream socket."""

from operator import index

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from .batch cimport FrameBatch, batch_of
from .codec cimport (SF_FAULT, SF_FRAME, SF_LONG, SF_NEED, SMALL, Decoder, Plan, begin_section, end_section,
                     grow_bytes, hold, new_bytes, plan_of, section, sf_scan, sf_unstuff)
from .descriptors cimport SF_DESCRIPTORS, sf_receive
from .endpoint cimport methods_of, turns_at
from .sender cimport Sender, plan_in

from .. import errors, transport
from ..transport import UNSET

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    void Py_CLEAR(PyObject *value)
    void Py_DECREF(PyObject *value)
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    RECEIVE = 65536  # bytes asked of a receive
    LARGE = 65536    # missing payload bytes that are worth a receive straight into place
    MANY = 1 << 20   # bytes of frames that recv_many() returns, about


cdef class Connection(Sender):
    """Sends and receives whole frames over a connected stream socket: `Connection(sock, framing, received=b"")`.

    `received` are bytes of the stream that were received already, such as what detach() returned.

    One reader and one writer at a time may be at work; other threads wait their turn, which counts
    against their deadlines. `timeout` is in seconds and for the whole call; None waits for ever, 0 does
    not wait; without it, the socket's own timeout is taken. What a timeout, a signal handler or a
    full socket interrupts goes on with the next call: nothing is lost.

    Greenlets take turns as threads do, where gevent has patched the socket. After os.fork() both processes
    have the one stream, as with any socket: one uses it, the other closes it, which does not shut it down.
    Where another thread was receiving at that moment, the child can't receive, and so for sending: its
    calls raise `OSError` (EDEADLK). Of what a subclass overrides, no other method makes use. Where a socket's
    own recv() or send() is in Python, as that of TLS, a handler that raises inside it hides what it had done.
    """

    def __init__(self, sock, framing, *, received=b""):
        cdef Plan plan = plan_of(framing)
        transport.refuse_unfit(sock)
        methods = transport.serving(sock, SF_DESCRIPTORS)
        cdef Decoder decoder = Decoder(framing)
        decoder.feed(received)
        cdef tuple turns = turns_at(methods)
        cdef section here
        begin_section(&here, self)
        cdef bint made = self.made
        if not made:
            self.plan = plan
            self.decoder = decoder
            self.take_socket(sock, methods, turns)
        end_section(&here)
        if made:
            raise errors.reentry_error(type(self).__name__)

    def __dealloc__(self):
        Py_CLEAR(self.partial)

    @property
    def framing(self):
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        cdef section here
        if not self.made:
            raise errors.closed_error()
        begin_section(&here, self)
        given = self.decoder.given
        end_section(&here)
        return given

    @framing.setter
    def framing(self, framing):
        self.check_open()
        cdef Plan plan = plan_of(framing)
        cdef section here
        begin_section(&here, self)
        self.plan = plan
        self.decoder.given = framing
        end_section(&here)

    def recv(self, framing=None, *, timeout=UNSET):
        """Return the next payload, as bytes; with `framing`, this one frame is read by it.

        Raises `EndOfStream` at a clean end, `IncompleteFrameError` where the stream ends inside a
        frame, `TimeoutError` or, on a non-blocking socket, `BlockingIOError` where no whole frame came.
        """
        self.check_open()
        cdef Plan plan = plan_in(self) if framing is None else plan_of(framing)
        cdef int64_t deadline
        cdef bytes frame
        if timeout is UNSET:
            frame = self.frame_here(plan)
            if frame is not None:
                return frame
        deadline = self.deadline(timeout)
        self.enter(&self.reading, deadline)
        try:
            return self.receive_frame(plan, deadline)
        finally:
            self.leave(&self.reading)

    def recv_into(self, buffer, framing=None, *, timeout=UNSET):
        """Receive the next payload into a writable buffer and return its size in bytes.

        Raises `BufferTooSmallError` where the buffer can't hold it: the frame stays the next one. What
        else is raised is as for recv(); the buffer's contents are then undefined.
        """
        self.check_open()
        cdef Plan plan = plan_in(self) if framing is None else plan_of(framing)
        cdef int64_t deadline = self.deadline(timeout)
        cdef Py_buffer view
        self.enter(&self.reading, deadline)
        try:
            hold(buffer, &view, "buffer", True)
            try:
                return self.receive_frame_into(<uint8_t *>view.buf, view.len, plan, deadline)
            finally:
                PyBuffer_Release(&view)
        finally:
            self.leave(&self.reading)

    def recv_many(self, limit=1024, *, timeout=UNSET):
        """Wait for one frame at least and return the payloads of all that are here, as a list of bytes.

        There are at most `limit`, of about 1 MiB in all. Raises what recv() raises.
        """
        self.check_open()
        most = index(limit)
        if most < 1:
            raise errors.limit_error(most)
        cdef int64_t deadline = self.deadline(timeout)
        self.enter(&self.reading, deadline)
        try:
            return self.receive_frames(min(most, <object>PY_SSIZE_T_MAX), deadline)
        finally:
            self.leave(&self.reading)

    def recv_batch(self, *, timeout=UNSET):
        """Wait for one frame at least and return all that are here, as a `FrameBatch`.

        They have about 1 MiB in all at most. Raises what recv() raises.
        """
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        self.enter(&self.reading, deadline)
        try:
            return self.receive_batch(deadline)
        finally:
            self.leave(&self.reading)

    def __iter__(self):
        return self

    def __next__(self):
        self.check_open()
        cdef int64_t deadline
        cdef Plan plan = plan_in(self)
        cdef bytes frame = self.frame_here(plan)
        if frame is not None:
            return frame
        deadline = self.deadline(UNSET)
        self.enter(&self.reading, deadline)
        try:
            return self.receive_frame(plan, deadline)
        except errors.EndOfStream:
            raise StopIteration from None
        finally:
            self.leave(&self.reading)

    def pending(self):
        """Return the number of bytes that are here and not yet delivered, which select() can't see: those
        held, and those that a TLS socket holds."""
        self.check_open()
        cdef section here
        cdef list rest = None
        begin_section(&here, self)
        # While another thread receives, as it was at its last system call, or nearly so; then there is no rest.
        cdef Py_ssize_t held = max(0, self.decoder.end - self.decoder.begin)
        if self.partial != NULL:
            held += self.have
        if not self.reading.owner or self.reading.owner == PyThread_get_thread_ident():
            rest = self.rest
        end_section(&here)
        methods = methods_of(self)
        if methods is not None:
            held += methods.kept()
        return held + sum(map(len, rest or ())) + transport.socket_pending(self.sock)

    def detach(self):
        """Give up the socket: return it, and the bytes received that are not yet delivered as frames.

        Raises `FramingError` inside an overlong frame that is passed over: its rest would be read as other frames.
        """
        self.check_open()
        cdef int64_t deadline = self.deadline(UNSET)
        self.enter(&self.reading, deadline)
        try:
            self.enter(&self.writing, deadline)
            try:
                self.send_tail(deadline)
                self.fold()
                self.absorb_kept()
                if self.decoder.long is not None:
                    raise errors.midway_error(self.decoder.position)
                held = new_bytes(self.decoder.start(), self.decoder.end - self.decoder.begin)
                given = self.sock, b"".join((*(self.rest or ()), held))
                self.give_away()
                self.decoder.keep(NULL, 0)
                return given
            finally:
                self.leave(&self.writing)
        finally:
            self.leave(&self.reading)

    def _upgrade(self, wrap, leftover, timeout):
        """Go on over wrap(sock, received), and do its handshake; return how many bytes were carried or dropped."""
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        cdef Decoder decoder = self.decoder
        cdef Py_ssize_t count
        self.enter(&self.reading, deadline)
        try:
            self.enter(&self.writing, deadline)
            try:
                self.send_tail(deadline)
                self.fold()
                self.absorb_kept()
                decoder.check()
                if decoder.ended:
                    raise errors.end_of_stream(decoder.at)
                count = decoder.end - decoder.begin
                if leftover == "error" and (count or decoder.long is not None):
                    raise errors.leftover_error(count)
                sock = wrap(self.sock, new_bytes(decoder.start(), count) if leftover == "carry" else b"")
                decoder.take_rest()
                if leftover != "discard":
                    decoder.at -= count
                self.change_socket(sock, deadline)
                return count
            finally:
                self.leave(&self.writing)
        finally:
            self.leave(&self.reading)

    # ---- receiving ----

    cdef Py_ssize_t receive_at(self, uint8_t *target, Py_ssize_t size, int64_t deadline) except -1:
        """Receive at most `size` bytes into `target`; 0 is the end of the stream."""
        cdef int64_t got
        cdef int fd
        cdef bytes data
        if self._methods is not None:
            self.begin_use()
            try:
                data = self._methods.receive(size, deadline)
            finally:
                self.end_use()
            memcpy(target, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return PyBytes_GET_SIZE(data)
        while True:
            fd = self.begin_use()
            with nogil:
                got = sf_receive(fd, target, size, deadline)
            self.end_use()
            if got >= 0:
                return got
            if got == -EAGAIN:
                raise transport.passed_error(deadline, "no whole frame has arrived")
            if got != -EINTR:
                raise errors.os_error(-got)
            PyErr_CheckSignals()

    cdef int absorb_kept(self) except -1:
        """Hold what an interrupted receive left with the socket's methods."""
        cdef bytes data
        if self._methods is not None:
            data = self._methods.take()
            self.decoder.append(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return 0

    cdef bint fill(self, int64_t deadline) except -1:
        """Receive more bytes into the decoder's store; False is the end of the stream."""
        cdef Decoder decoder = self.decoder
        cdef Py_ssize_t held = decoder.end - decoder.begin, wanted, got
        # Room grows with what is held, so that moving it stays linear, but not beyond a known frame.
        wanted = held
        if decoder.whole > <uint64_t>held:
            wanted = <Py_ssize_t>min(<uint64_t>held, decoder.whole - held)
        wanted = max(wanted, <Py_ssize_t>RECEIVE)
        if decoder.block is None or decoder.block.size - decoder.end < wanted // 4:
            decoder.make_room(wanted, held + wanted)
        try:
            got = self.receive_at(decoder.block.data + decoder.end, decoder.block.size - decoder.end, deadline)
        except BaseException:
            decoder.tidy()
            raise
        decoder.end += got
        return got != 0

    cdef int use(self, Plan plan) except -1:
        """Read the next frame by this framing."""
        if self.decoder.plan is not plan:
            self.fold()
            self.decoder.use(plan)
        return 0

    cdef int end(self) except -1:
        """The stream has ended: keep the frames that this makes, or raise that one is cut off."""
        self.rest = self.decoder.close(self._methods is not None and self._methods.ragged)
        return 0

    cdef bytes frame_here(self, Plan plan):
        """Return the next payload where it is here whole, and nobody is receiving; else None. That needs no deadline,
        and no turn: no Python code runs, nor a thread that wants one."""
        cdef section here
        begin_section(&here, self)
        try:
            if (self.reading.owner or self.turns is not None or self.partial != NULL or self.rest is not None
                    or self.decoder.plan is not plan):
                return None
            return self.decoder.take_whole_one()
        finally:
            end_section(&here)

    cdef bytes receive_frame(self, Plan plan, int64_t deadline):
        """Return the next payload."""
        cdef Decoder decoder = self.decoder
        cdef bytes frame
        self.use(plan)
        while True:
            if self.partial != NULL:
                frame = self.receive_large(deadline)
                if frame is not None:
                    return frame
            if self.rest:
                return self.rest.pop(0)
            decoder.check()
            frame = decoder.take()
            if frame is not None:
                return frame
            if decoder.ended:
                raise errors.end_of_stream(decoder.at)
            if not self.begin_large() and not self.fill(deadline):
                self.end()

    cdef list receive_frames(self, Py_ssize_t limit, int64_t deadline):
        """Return the next payloads."""
        cdef Decoder decoder = self.decoder
        cdef list frames
        self.use(plan_in(self))
        self.fold()
        while True:
            if self.rest:
                frames, self.rest = self.rest[:limit], self.rest[limit:]
                return frames
            decoder.check()
            frames = decoder.take_many(limit, MANY)
            if frames:
                return frames
            if decoder.ended:
                raise errors.end_of_stream(decoder.at)
            if not self.fill(deadline):
                self.end()

    cdef FrameBatch receive_batch(self, int64_t deadline):
        """Return the next payloads as a batch."""
        cdef Decoder decoder = self.decoder
        cdef FrameBatch batch
        self.use(plan_in(self))
        self.fold()
        while True:
            if self.rest:
                batch = batch_of(self.rest)
                self.rest = None
                return batch
            decoder.check()
            batch = decoder.take_batch(MANY, decoder.end - decoder.begin)
            if batch.found:
                return batch
            if decoder.ended:
                raise errors.end_of_stream(decoder.at)
            if not self.fill(deadline):
                self.end()

    cdef object receive_frame_into(self, uint8_t *target, Py_ssize_t room, Plan plan, int64_t deadline):
        """Receive the next payload to where the caller wants it; the answer is made before the frame is taken."""
        cdef Decoder decoder = self.decoder
        cdef sf_scan scan
        cdef Py_ssize_t size
        cdef bytes frame
        cdef object answer
        cdef bint stuffed
        cdef int status
        self.use(plan)
        self.fold()
        while True:
            if self.rest:
                frame = self.rest[0]
                size = PyBytes_GET_SIZE(frame)
                if size > room:
                    raise errors.too_small_error(size, room)
                answer = size
                memcpy(target, PyBytes_AS_STRING(frame), size)
                self.rest.pop(0)
                return answer
            decoder.check()
            status = SF_LONG if decoder.long is not None else decoder.look(&scan)
            if status == SF_FAULT:
                decoder.record(&scan, decoder.start(), decoder.end - decoder.begin, decoder.at)
                decoder.check()
            if status == SF_LONG:
                if decoder.long is None:
                    decoder.begin_long(&scan, decoder.start())
                frame = decoder.take()
                if frame is not None:
                    self.rest = [frame]
                    continue
            elif status == SF_FRAME or self.known(&scan):
                stuffed = status == SF_FRAME and scan.by != NULL
                size = scan.plain if stuffed else scan.stop - scan.start
                if size > room:
                    raise errors.too_small_error(size, room)
                answer = size
                if status == SF_FRAME:
                    if stuffed:
                        sf_unstuff(&scan, decoder.start(), target)
                    else:
                        memcpy(target, decoder.start() + scan.start, size)
                    decoder.skip(scan.size)
                    return answer
                if self.straight(&scan, SMALL):
                    self.receive_straight(&scan, target, deadline)
                    if not decoder.ended:
                        return answer
                    continue
            if decoder.ended:
                raise errors.end_of_stream(decoder.at)
            if not self.fill(deadline):
                self.end()

    cdef bint known(self, sf_scan *scan) except -1:
        """Say whether the unfinished frame's size is known; then `scan` tells where its payload lies."""
        cdef Decoder decoder = self.decoder
        if not decoder.whole:
            return False
        scan.ended = 0
        scan.resume = decoder.resume
        return decoder.run(decoder.start(), decoder.end - decoder.begin, scan) == SF_NEED

    cdef bint straight(self, sf_scan *scan, Py_ssize_t least) noexcept:
        """Say whether the rest of a known frame is all payload, of `least` bytes or more."""
        cdef uint64_t held = self.decoder.end - self.decoder.begin
        return scan.stop == scan.size and scan.start <= held and scan.size - held >= <uint64_t>least

    cdef int receive_straight(self, sf_scan *scan, uint8_t *target, int64_t deadline) except -1:
        """Receive the rest of a known frame into the caller's buffer; what is interrupted is held."""
        cdef Decoder decoder = self.decoder
        cdef Py_ssize_t size = scan.stop - scan.start, got
        cdef Py_ssize_t here = decoder.end - decoder.begin - <Py_ssize_t>scan.start, at = here
        try:
            while at < size:
                got = self.receive_at(target + at, size - at, deadline)
                if not got:
                    break
                at += got
        except BaseException:
            self.take_back(target + here, at - here)
            raise
        if at < size:
            self.take_back(target + here, at - here)
            self.end()
            return 0
        memcpy(target, decoder.start() + scan.start, here)
        decoder.skip(here + scan.start)
        decoder.at += at - here
        return 0

    cdef int take_back(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Hold bytes that were received elsewhere; without memory for them the stream is lost."""
        try:
            self.decoder.append(data, size)
        except MemoryError:
            self.close()
            raise
        return 0

    cdef bint begin_large(self) except -1:
        """Begin to receive a large payload straight into the bytes that will be returned."""
        cdef Decoder decoder = self.decoder
        cdef sf_scan scan
        cdef Py_ssize_t here, size, room
        cdef uint64_t held = decoder.end - decoder.begin
        if held > 2 * RECEIVE or decoder.whole < held + LARGE or not self.known(&scan):
            return False
        if not self.straight(&scan, LARGE):
            return False
        here = decoder.end - decoder.begin - <Py_ssize_t>scan.start
        size = scan.stop - scan.start
        room = min(size, max(2 * here, <Py_ssize_t>LARGE))
        self.partial = PyBytes_FromStringAndSize(NULL, room)
        memcpy(PyBytes_AsString(self.partial), decoder.start() + scan.start, here)
        try:
            decoder.keep_first(scan.start)
        except BaseException:
            Py_CLEAR(self.partial)
            raise
        self.have = here
        self.payload = size
        return True

    cdef bytes receive_large(self, int64_t deadline):
        """Go on with a large payload: return it, or None where the stream ended in it."""
        cdef Decoder decoder = self.decoder
        cdef Py_ssize_t room, got
        cdef PyObject *partial
        while self.have < self.payload:
            room = PyBytes_GET_SIZE(<object>self.partial)
            if self.have == room:
                room = min(self.payload, 2 * room)
                grow_bytes(&self.partial, room)
            got = self.receive_at(<uint8_t *>PyBytes_AsString(self.partial) + self.have, room - self.have, deadline)
            if not got:
                self.fold()
                self.end()
                return None
            self.have += got
        partial = self.partial
        self.partial = NULL
        decoder.at += self.have
        decoder.skip(decoder.end - decoder.begin)
        return steal(partial)

    cdef int fold(self) except -1:
        """Hold what is here of a large payload with all other bytes."""
        if self.partial != NULL:
            self.decoder.append(<const uint8_t *>PyBytes_AsString(self.partial), self.have)
            Py_CLEAR(self.partial)
        return 0


cdef bytes steal(PyObject *value):
    """Return the object that a pointer owns, and its reference with it."""
    cdef bytes owned = <bytes>value
    Py_DECREF(value)
    return owned
