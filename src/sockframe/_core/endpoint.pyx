# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True, cdivision=True, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""Endpoint: a stream socket, and who may use it now."""

import os
import threading
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic_ns

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
                               PyThread_get_thread_ident, PyThread_release_lock, PyThread_type_lock)
from libc.stdint cimport int64_t

from .codec cimport begin_section, end_section, section
from .descriptors cimport SF_AT_ONCE, SF_DESCRIPTORS, SF_NEVER, sf_now

from .. import errors, transport
from ..transport import UNSET

cdef extern from "Python.h":
    int PY_LOCK_ACQUIRED, PY_LOCK_INTR
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil

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


cdef int64_t clock() except? -1:
    """Return the time, by the clock of deadlines."""
    if SF_DESCRIPTORS:
        return sf_now()
    return monotonic_ns()


cdef tuple turns_at(object methods):
    """Return locks for the turns at a socket that these methods serve, or None."""
    # Asked for anew each time: gevent puts locks for greenlets there.
    return None if methods is None else (threading.RLock(), threading.RLock())


cdef object methods_of(Endpoint endpoint):
    """Return what serves the socket, which start_tls() may replace."""
    cdef section here
    begin_section(&here, endpoint)
    methods = endpoint._methods
    end_section(&here)
    return methods


cdef object served(Endpoint endpoint):
    """Return that, or the socket itself."""
    cdef section here
    begin_section(&here, endpoint)
    served = endpoint._methods if endpoint._methods is not None else endpoint.sock
    end_section(&here)
    return served


cdef object watcher_of(Endpoint endpoint):
    """Return the selector that is to be told."""
    cdef section here
    begin_section(&here, endpoint)
    watcher = endpoint._watcher
    end_section(&here)
    return watcher


cdef class Endpoint:
    """A connected stream socket, and who may use it now.

    One reader and one writer at a time have their turns at it, until their deadlines; closing it waits for neither, and
    the last one at work with the socket closes that. What stayed behind at a fork is forgotten.
    """

    def __cinit__(self, *args, **keywords):
        self.shut = True  # until it is made
        self.forks = forks

    def __dealloc__(self):
        if self.reading.lock != NULL:
            PyThread_free_lock(self.reading.lock)
        if self.writing.lock != NULL:
            PyThread_free_lock(self.writing.lock)

    @property
    def closed(self):
        """Whether close() or detach() was called."""
        if self.forks != forks:
            self.after_fork()
        return self.shut

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
                    transport.wake(served(self))
            finally:
                last = self.leave_socket()
            if last:
                self.close_socket()
        except OSError:
            raise
        except BaseException:
            self.shut = False  # to be closed again
            raise

    def __reduce__(self):
        raise errors.no_copy_error(self)

    def _watch(self, watcher):
        """Tell `watcher` of tails and of closing, from now on; return who was told before."""
        cdef section here
        begin_section(&here, self)
        before, self._watcher = self._watcher, watcher
        end_section(&here)
        return before

    # ---- the socket ----

    cdef void take_socket(self, object sock, object methods, tuple turns) noexcept:
        """Be open, over this socket; in a section."""
        self.sock = sock
        self._methods = methods
        self.turns = turns
        self.made = True
        self.shut = False

    cdef int change_socket(self, object sock, int64_t deadline) except -1:
        """Go on over another one, which serves itself, and do its handshake; by who has both turns."""
        cdef section here
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
        return 0

    cdef int give_away(self) except -1:
        """Be closed, and leave the socket as it is to somebody else; by who has both turns."""
        cdef section here
        watcher = watcher_of(self)
        if watcher is not None:
            watcher.forget(self)
        begin_section(&here, self)
        self.shut = True
        end_section(&here)
        return 0

    cdef int close_socket(self) except -1:
        """Close the socket itself, of a connection that is closed."""
        cdef section here
        begin_section(&here, self)
        sock = self.sock
        end_section(&here)
        transport.close(sock)
        return 0

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
        if timeout is UNSET:
            timeout = served(self).gettimeout()
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
        got = self.turns is None and try_turn(turn, me)
        end_section(&here)
        if not got:
            if owner == GONE:
                raise errors.forked_error()
            if owner == me if self.turns is None else self.is_mine(turn, me):
                raise errors.reentry_error(type(self).__name__)
            if self.turns is not None:
                self.take_turn(self.turns[turn == &self.writing], deadline)
            else:
                self.await_turn(turn, me, deadline)
            begin_section(&here, self)
            turn.owner = me
            end_section(&here)
        if self.shut:
            self.leave(turn)
            raise errors.closed_error()
        return 0

    cdef int await_turn(self, Turn *turn, unsigned long me, int64_t deadline) except -1:
        """Wait for a turn that another thread has."""
        cdef int got
        cdef int64_t left
        cdef section here
        begin_section(&here, self)
        got = try_turn(turn, me)
        if not got and turn.lock == NULL:
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
                self.close_socket()
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

