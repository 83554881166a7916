# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Connection: whole frames over a stream socket."""

import os
import threading
from operator import index
from selectors import EVENT_READ, EVENT_WRITE
from socket import SHUT_RD
from time import monotonic_ns

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.pythread cimport (NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
                               PyThread_get_thread_ident, PyThread_release_lock, PyThread_type_lock)
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from .batch cimport FrameBatch, batch_of
from .codec cimport (SF_FAULT, SF_FRAME, SF_LONG, SF_NEED, SMALL, Decoder, Plan, begin_section, end_section,
                     frame_size, grow_bytes, hold, join_frame, new_bytes, payload_of, place_frame, plan_of, release,
                     section, sf_scan, sf_unstuff, sf_wrapped, wrap_bytes, wrap_payload)

from .. import errors, transport
from ..transport import UNSET

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *PyBytes_AsString(PyObject *value)
    int _PyBytes_Resize(PyObject **value, Py_ssize_t size) except -1
    PyObject **PySequence_Fast_ITEMS(object sequence)
    void Py_CLEAR(PyObject *value)
    void Py_DECREF(PyObject *value)
    void Py_XDECREF(PyObject *value)
    Py_ssize_t PY_SSIZE_T_MAX
    int PY_LOCK_ACQUIRED, PY_LOCK_INTR
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil

cdef enum:
    RECEIVE = 65536      # bytes asked of a receive
    LARGE = 65536        # missing payload bytes that are worth a receive straight into place
    GATHER = 65536       # bytes of small frames for one send
    SINGLE = 2048        # so is a payload sent alone, up to this size of frame
    BATCH = 1024         # frames for one send
    SIGNAL_FRAMES = 4096 # frames between two looks for a signal
    LOOK = 64            # answers between two looks at the clock, at most
    MANY = 1 << 20       # bytes of frames that recv_many() returns, about

END = object()                         # of an iterator

cdef int forks = 0                     # between this process and the first
forkers = []                           # the thread that forked, each time: it alone went on
GONE = <unsigned long>-1


def count_fork():
    """This process is a fork."""
    global forks
    forks += 1
    forkers.append(PyThread_get_thread_ident())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)


cdef inline int64_t clock() except? -1:
    """Return the time, by the clock of deadlines."""
    if SF_DESCRIPTORS:
        return sf_now()
    return monotonic_ns()


cdef object sock_of(Connection conn):
    """Return the socket, which start_tls() may replace."""
    cdef section here
    begin_section(&here, conn)
    sock = conn.sock
    end_section(&here)
    return sock


cdef object methods_of(Connection conn):
    """Return what serves the socket, likewise."""
    cdef section here
    begin_section(&here, conn)
    methods = conn._methods
    end_section(&here)
    return methods


cdef object watcher_of(Connection conn):
    """Return the selector that is to be told."""
    cdef section here
    begin_section(&here, conn)
    watcher = conn._watcher
    end_section(&here)
    return watcher


cdef class Connection:
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

    def __cinit__(self, *args, **keywords):
        self.shut = True  # until it is made
        self.forks = forks

    def __init__(self, sock, framing, *, received=b""):
        cdef Plan plan = plan_of(framing)
        transport.refuse_unfit(sock)
        methods = transport.serving(sock, SF_DESCRIPTORS)
        cdef Decoder decoder = Decoder(framing)
        decoder.feed(received)
        # Asked for anew each time: gevent puts locks for greenlets there.
        cdef tuple turns = None if methods is None else (threading.RLock(), threading.RLock())
        cdef section here
        begin_section(&here, self)
        cdef bint made = self.made
        if not made:
            self.sock = sock
            self._methods = methods
            self.turns = turns
            self.plan = plan
            self.decoder = decoder
            self.made = True
            self.shut = False
        end_section(&here)
        if made:
            raise errors.reentry_error(type(self).__name__)

    def __dealloc__(self):
        Py_CLEAR(self.partial)
        if self.reading.lock != NULL:
            PyThread_free_lock(self.reading.lock)
        if self.writing.lock != NULL:
            PyThread_free_lock(self.writing.lock)

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

    @property
    def closed(self):
        """Whether close() or detach() was called."""
        if self.forks != forks:
            self.after_fork()
        return self.shut

    @property
    def unsent(self):
        """The number of bytes that a frame sent in part leaves for the next send() or flush()."""
        cdef section here
        begin_section(&here, self)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.tail) - self.tail_at if self.tail is not None else 0
        end_section(&here)
        return size

    @property
    def recv_event(self):
        """What the next receive waits for: `selectors.EVENT_READ` (1); under TLS also `EVENT_WRITE` (2)."""
        methods = methods_of(self)
        return methods.recv_event if methods is not None else EVENT_READ

    @property
    def send_event(self):
        """What the next send or flush waits for: `selectors.EVENT_WRITE` (2); under TLS also `EVENT_READ` (1)."""
        methods = methods_of(self)
        return methods.send_event if methods is not None else EVENT_WRITE

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

    def close(self):
        """Close the connection; calls that wait in other threads end with `OSError` (EBADF)."""
        cdef section here
        cdef bint done = self.closed, last
        begin_section(&here, self)
        done = done or self.shut
        if not done:
            self.shut = True
            self.using += 1  # so that the socket is still there when those that wait are woken
        watcher = self._watcher
        end_section(&here)
        if done:
            return
        try:
            try:
                if watcher is not None:
                    watcher.forget(self)
                if self.using > 1:
                    methods = methods_of(self)
                    transport.wake(sock_of(self) if methods is None else methods)
            finally:
                last = self.leave_socket()
            if last:
                transport.close(sock_of(self))
        except OSError:
            raise
        except BaseException:
            self.shut = False  # to be closed again
            raise

    def detach(self):
        """Give up the socket: return it, and the bytes received that are not yet delivered as frames."""
        self.check_open()
        cdef int64_t deadline = self.deadline(UNSET)
        cdef section here
        self.enter(&self.reading, deadline)
        try:
            self.enter(&self.writing, deadline)
            try:
                self.send_tail(deadline)
                self.fold()
                self.absorb_kept()
                held = new_bytes(self.decoder.start(), self.decoder.end - self.decoder.begin)
                given = self.sock, b"".join((*(self.rest or ()), held))
                watcher = watcher_of(self)
                if watcher is not None:
                    watcher.forget(self)
                self.decoder.keep(NULL, 0)
                begin_section(&here, self)
                self.shut = True
                end_section(&here)
                return given
            finally:
                self.leave(&self.writing)
        finally:
            self.leave(&self.reading)

    def __reduce__(self):
        raise errors.no_copy_error(self)

    def _upgrade(self, wrap, leftover, timeout):
        """Go on over wrap(sock, received), and do its handshake; return how many bytes were carried or dropped."""
        self.check_open()
        cdef int64_t deadline = self.deadline(timeout)
        cdef Decoder decoder = self.decoder
        cdef Py_ssize_t count
        cdef section here
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
                begin_section(&here, self)
                self.sock = self._methods = sock
                end_section(&here)
                try:
                    self.begin_use()
                    try:
                        sock.handshake(deadline)
                    finally:
                        self.end_use()
                except BlockingIOError:
                    pass  # it goes on with the next call
                except BaseException:
                    self.close()
                    raise
                watcher = watcher_of(self)
                if watcher is not None:
                    watcher.upgraded(self)
                return count
            finally:
                self.leave(&self.writing)
        finally:
            self.leave(&self.reading)

    def _watch(self, watcher):
        """Tell `watcher` of tails and of closing, from now on; return who was told before."""
        cdef section here
        begin_section(&here, self)
        before, self._watcher = self._watcher, watcher
        end_section(&here)
        return before

    # ---- turns and deadlines ----

    cdef int check_open(self) except -1:
        """Refuse a call after close()."""
        if self.shut:
            raise errors.closed_error()
        if self.forks != forks:
            self.after_fork()
        return 0

    cdef int after_fork(self) except -1:
        """Forget the calls of the threads that stayed behind."""
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef bint stayed
        cdef section here
        begin_section(&here, self)
        try:
            if self.forks == forks:
                return 0
            # Another thread may have the number of one that stayed behind.
            stayed = all([one == me for one in forkers[self.forks:]])
            self.forks = forks
            self.give_up(&self.reading, me, stayed)
            self.give_up(&self.writing, me, stayed)
            self.using = 0
            if self._methods is not None:
                self._methods.after_fork()
        finally:
            end_section(&here)
        return 0

    cdef int give_up(self, Turn *turn, unsigned long me, bint stayed) except -1:
        """In a fork, nobody gives back the turn of a thread that stayed behind, nor a lock that it had just got."""
        if stayed and self.is_mine(turn, me):
            return 0
        if turn.owner:
            turn.owner = GONE
        if turn.lock != NULL:
            PyThread_free_lock(turn.lock)
            turn.lock = NULL
        return 0

    cdef bint is_mine(self, Turn *turn, unsigned long me) except -1:
        """Say whether the call comes from inside another one."""
        if self.turns is not None:
            return self.turns[turn == &self.writing]._is_owned()
        return turn.owner == me

    cdef int64_t deadline(self, object timeout) except? -1:
        """Return the time at which a call with this timeout ends."""
        cdef section here
        if timeout is UNSET:
            begin_section(&here, self)
            asked = self._methods if self._methods is not None else self.sock
            end_section(&here)
            timeout = asked.gettimeout()
        if timeout is None:
            return SF_NEVER
        if type(timeout) is int and not timeout:
            return SF_AT_ONCE
        return transport.deadline_after(timeout)

    cdef int enter(self, Turn *turn, int64_t deadline) except -1:
        """Wait for the turn to read or write; a call from inside another one is refused."""
        cdef unsigned long me = PyThread_get_thread_ident(), owner
        cdef section here
        cdef bint got
        begin_section(&here, self)
        owner = turn.owner
        got = self.turns is None and owner != me and owner != GONE and self.try_turn(turn)
        if got:
            turn.owner = me
        end_section(&here)
        if not got:
            if owner == GONE:
                raise errors.forked_error()
            if owner == me if self.turns is None else self.is_mine(turn, me):
                raise errors.reentry_error(type(self).__name__)
            if self.turns is not None:
                self.take_turn(self.turns[turn == &self.writing], deadline)
            else:
                self.await_turn(turn, deadline)
            begin_section(&here, self)
            turn.owner = me
            end_section(&here)
        if self.shut:
            self.leave(turn)
            raise errors.closed_error()
        return 0

    cdef bint try_turn(self, Turn *turn) noexcept:
        """Take a turn that nobody has, in a section. It has a lock from the first time on that a thread waited for it."""
        if turn.lock != NULL:
            return PyThread_acquire_lock(turn.lock, NOWAIT_LOCK)
        return not turn.owner

    cdef int await_turn(self, Turn *turn, int64_t deadline) except -1:
        """Wait for a turn that another thread has."""
        cdef int got
        cdef int64_t left
        cdef section here
        begin_section(&here, self)
        got = self.try_turn(turn)
        if got:
            turn.owner = PyThread_get_thread_ident()
        elif turn.lock == NULL:
            turn.lock = PyThread_allocate_lock()
            if turn.lock != NULL:
                PyThread_acquire_lock(turn.lock, NOWAIT_LOCK)  # for the thread that has the turn
        end_section(&here)
        if got:
            return 0
        if turn.lock == NULL:
            raise MemoryError
        while True:
            left = -1 if deadline == SF_NEVER else (deadline - clock()) // 1000 + 1 if deadline else 0
            if deadline != SF_NEVER and left <= 0:
                raise transport.passed_error(deadline, "another thread is at work")
            with nogil:
                got = PyThread_acquire_lock_timed(turn.lock, left, 1)
            if got == PY_LOCK_ACQUIRED:
                return 0
            if got == PY_LOCK_INTR:
                PyErr_CheckSignals()

    cdef int take_turn(self, object turn, int64_t deadline) except -1:
        """Wait for the turn at a socket whose methods may go on with another greenlet of this thread."""
        try:
            transport.take_turn(turn, deadline)
        except BaseException:
            if turn._is_owned():
                turn.release()
            raise
        return 0

    cdef void leave(self, Turn *turn) noexcept:
        """Give the turn to the next."""
        cdef section here
        begin_section(&here, self)
        turn.owner = 0
        if turn.lock != NULL:
            PyThread_release_lock(turn.lock)
        end_section(&here)
        if self.turns is not None:
            self.turns[turn == &self.writing].release()

    cdef int begin_use(self) except -1:
        """Return the descriptor, asked of the socket anew, for one system call; then `end_use`."""
        cdef int fd = -1
        cdef section here
        cdef bint shut
        self.check_open()
        begin_section(&here, self)
        shut = self.shut
        if not shut:
            self.using += 1  # from here on nobody closes the socket
        end_section(&here)
        if shut:
            raise errors.closed_error()
        if self._methods is not None:
            return 0
        try:
            fd = self.sock.fileno()
        finally:
            if fd < 0:
                self.end_use()
        if fd < 0:
            raise errors.closed_error()
        return fd

    cdef int end_use(self) except -1:
        """The system call is over; the last one to leave closes a closed connection's socket."""
        cdef bint last = self.leave_socket()
        if self.shut:
            if last:
                transport.close(sock_of(self))
            raise errors.closed_error()
        return 0

    cdef bint leave_socket(self) noexcept:
        """One use is over: say whether it was the last one, of a connection that is closed."""
        cdef section here
        cdef bint last
        begin_section(&here, self)
        if self.using:  # not so in a process that was forked meanwhile
            self.using -= 1
        last = self.shut and not self.using
        end_section(&here)
        return last

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


cdef bytes steal(PyObject *value):
    """Return the object that a pointer owns, and its reference with it."""
    cdef bytes owned = <bytes>value
    Py_DECREF(value)
    return owned
