"""Endpoint: a stream socket, and who may use it now."""

from __future__ import annotations

import os
import threading
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors, transport
from ..transport import UNSET

if TYPE_CHECKING:
    from typing_extensions import Self

# A connection is open; or one thread is closing it; or it is closed, and the last use of its socket closes that; or
# it has left its socket.
OPEN, CLOSING, SHUT, LEFT = range(4)

_forks = 0                    # between this process and the first
_forkers: list[int] = []      # the thread that forked, each time: it alone went on
_sharing = threading.RLock()  # held while one thread sees and changes what others may, of a connection


def count_fork() -> None:
    """This process is a fork."""
    global _forks, _sharing
    _forks += 1
    _forkers.append(threading.get_native_id())
    _sharing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)


class _GoneTurn:
    """The turn of a thread that stayed behind at a fork; what it had begun is not known here."""

    def _is_owned(self) -> bool:
        return False

    def acquire(self, *how: Any) -> bool:
        raise errors.forked_error()


class Endpoint:
    """A connected stream socket, and who may use it now.

    One reader and one writer at a time have their turns at it, until their deadlines; closing it waits for neither, and
    the last one at work with the socket closes that. What stayed behind at a fork is forgotten.
    """

    __slots__ = ("_forks", "_methods", "_reading", "_receiving", "_sending", "_shut", "_watcher", "_writing", "sock")

    sock: Any
    _shut: int
    _forks: int
    _methods: Any
    _reading: Any
    _writing: Any
    _watcher: Any

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self._shut = LEFT     # until it is made
        self._forks = _forks  # that this process was away from the first, when it was last used
        self._methods = None  # what serves a socket that is no plain one
        # Asked for anew each time: gevent puts locks for greenlets there.
        self._reading, self._writing = threading.RLock(), threading.RLock()
        self._receiving = self._sending = False
        self._watcher = None  # the selector that it is registered with
        return self

    @property
    def closed(self) -> bool:
        """Whether close() or detach() was called."""
        if self._forks != _forks:
            self._after_fork()
        return self._shut > OPEN

    @property
    def recv_event(self) -> int:
        """What the next receive waits for: `selectors.EVENT_READ` (1); under TLS also `EVENT_WRITE` (2)."""
        return self._methods.recv_event if self._methods is not None else EVENT_READ

    @property
    def send_event(self) -> int:
        """What the next send or flush waits for: `selectors.EVENT_WRITE` (2); under TLS also `EVENT_READ` (1)."""
        return self._methods.send_event if self._methods is not None else EVENT_WRITE

    def close(self) -> None:
        """Close the connection; calls that wait in other threads end with `OSError` (EBADF)."""
        if self.closed:
            return
        mine = False
        try:
            with _sharing:
                if not self._shut:
                    mine, self._shut = True, CLOSING
            if not mine:
                return
            try:
                if self._watcher is not None:
                    self._watcher.forget(self)
                if self._receiving or self._sending:
                    transport.wake(self._methods or self.sock)
            finally:
                self._shut = SHUT
            self._close_socket()
        except OSError:
            raise
        except BaseException:
            if mine:
                self._shut = OPEN  # to be closed again
            raise

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def _watch(self, watcher: Any) -> Any:
        """Tell `watcher` of tails and of closing, from now on; return who was told before."""
        with _sharing:
            before, self._watcher = self._watcher, watcher
        return before

    # ---- the socket ----

    def _take_socket(self, sock: Any, methods: Any) -> None:
        """Be open, over this socket."""
        self.sock = sock
        self._methods = methods
        self._shut = OPEN

    def _change_socket(self, sock: Any, deadline: int) -> None:
        """Go on over another one, which serves itself, and do its handshake; by who has both turns."""
        self.sock = self._methods = sock
        try:
            self._receiving = True
            try:
                sock.handshake(deadline)
            finally:
                self._receiving = False
                self._end_use()
        except BlockingIOError:
            pass  # it goes on with the next call
        except BaseException:
            self.close()
            raise
        if self._watcher is not None:
            self._watcher.upgraded(self)

    def _give_away(self) -> None:
        """Be closed, and leave the socket as it is to somebody else; by who has both turns."""
        if self._watcher is not None:
            self._watcher.forget(self)
        self._shut = LEFT

    def _close_socket(self) -> None:
        """Close the socket of a closed connection, where nobody is at work with it and nobody else does."""
        with _sharing:
            mine = self._shut == SHUT and not self._receiving and not self._sending
            if mine:
                self._shut = LEFT
        if mine:
            transport.close(self.sock)

    # ---- turns and deadlines ----

    def _check_open(self) -> None:
        """Refuse a call after close()."""
        if self._shut:
            raise errors.closed_error()
        if self._forks != _forks:
            self._after_fork()

    def _after_fork(self) -> None:
        """Forget the calls of the threads that stayed behind."""
        with _sharing:
            if self._forks == _forks:
                return
            me = threading.get_native_id()
            stayed = all(one == me for one in _forkers[self._forks:])
            self._reading, self._writing = (
                turn if outlives_fork(turn, stayed) else _GoneTurn() for turn in (self._reading, self._writing))
            self._receiving = self._sending = False
            if self._methods is not None:
                self._methods.after_fork()
            self._forks = _forks

    def _deadline(self, timeout: Any) -> int:
        """Return the time at which a call with this timeout ends."""
        if timeout is UNSET:
            timeout = (self._methods or self.sock).gettimeout()
        return transport.deadline_after(timeout)

    def _enter(self, turn: Any, deadline: int) -> Any:
        """Wait for the turn to read or write, which the caller releases; a call from inside another one is refused.

        It is released by its own method in C, so that no signal handler's exception can come before that.
        """
        if turn._is_owned():
            raise errors.reentry_error(type(self).__name__)
        try:
            transport.take_turn(turn, deadline)
            self._check_open()
        except BaseException:
            if turn._is_owned():
                turn.release()
            raise
        return turn

    def _end_use(self) -> None:
        """A system call is over; the last one to leave closes a closed connection's socket."""
        if self._shut:
            self._close_socket()
            raise errors.closed_error()


def outlives_fork(turn: Any, stayed: bool) -> bool:
    """Say whether a turn is free, or that of this thread, if it is the one that forked: another may have the number of
    one that stayed behind, and the locks take it for that."""
    if isinstance(turn, _GoneTurn) or turn._is_owned():
        return stayed or isinstance(turn, _GoneTurn)
    return is_free(turn)


def is_free(turn: Any) -> bool:
    """Say whether nobody holds a lock."""
    if not turn.acquire(False):
        return False
    turn.release()
    return True
