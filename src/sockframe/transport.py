"""What both wings ask of any socket: is it a plain one, its timeout as a deadline, to receive and send
through its own methods, and which event to wait for.

A deadline is a time of `time.monotonic_ns()`, `NEVER` or `AT_ONCE`, as in csrc/descriptors.h.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import sys
import threading
from _socket import socket as _SOCKET
from contextlib import suppress
from itertools import starmap
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic_ns
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors
from .polling import LOOK, POLLIN, POLLOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

NEVER = 2**63 - 1
AT_ONCE = 0

_LONGEST_MS = 2**31 - 1  # that poll() and settimeout() take

# Where there is no poll() (Windows), every socket is served through its own methods, and one that waits is not woken by
# shutdown(): it looks by itself whether it was.
_poll: Any = getattr(select, "poll", None)
_LOOK = None if _poll is not None else LOOK

DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))  # no enum, which is slow to join
NOSIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))


class _Unset:
    """The default of `timeout`: the socket's own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()

class FrameKey(NamedTuple):
    """A connection that is registered with a selector, and what the user gave with it."""

    conn: Any
    data: Any = None


_DIRECT = ("recv", "recv_into", "send", "sendmsg", "fileno", "gettimeout")


def is_plain(sock: Any) -> bool:
    """Say whether system calls on the descriptor do the same as the socket's own methods: not so for
    TLS, for a class that overrides one of them, or for a patched one."""
    if _poll is None or not isinstance(sock, _SOCKET):
        return False
    for name in _DIRECT:  # noqa: SIM110 (a generator's function is one more thing that there may be no memory for)
        if getattr(type(sock), name, None) is not getattr(_SOCKET, name, None):
            return False
    return True


def deadline_after(timeout: Any) -> int:
    """Return the deadline `timeout` seconds from now; None is never, 0 is at once."""
    if timeout is None:
        return NEVER
    if not math.isfinite(timeout) or timeout < 0:
        raise ValueError(f"timeout must be None, or seconds from 0 on, not {timeout}")
    if timeout == 0:
        return AT_ONCE
    return monotonic_ns() + int(min(float(timeout), 3e9) * 1e9)


def seconds_left(deadline: int) -> float | None:
    """Return the timeout of what is left until a deadline; one that has passed leaves next to nothing, but not 0."""
    if deadline == NEVER:
        return None
    return max(1, deadline - monotonic_ns()) / 1e9 if deadline else 0.0


def socket_timeout(sock: Any) -> Any:
    """Return the timeout of a socket in seconds; None, for ever, where it has none to tell."""
    gettimeout = getattr(sock, "gettimeout", None)
    return None if gettimeout is None else gettimeout()


def is_tls(sock: Any) -> bool:
    """Say whether a socket carries TLS."""
    return hasattr(sock, "pending")


def serving(sock: Any, descriptors: bool = True) -> Any:
    """Return what serves a socket through its own methods; None for a plain one, where descriptors can be used."""
    return None if descriptors and is_plain(sock) else sock if isinstance(sock, Serving) else Methods(sock)


def socket_pending(sock: Any) -> int:
    """Return the number of bytes that a TLS socket has decrypted and not yet given away."""
    pending = getattr(sock, "pending", None)
    return int(pending()) if callable(pending) else 0


def is_own_error(error: Exception) -> bool:
    """Say whether an exception tells that a connection has ended or failed. Any other one, of a signal handler
    or a framing of the user's, is not the connection's: a handler's TimeoutError has no errno."""
    return isinstance(error, errors.FramingError) or (isinstance(error, OSError) and error.errno is not None)


def passed_error(deadline: int, what: str) -> OSError:
    """Make the error of a deadline that has passed."""
    return errors.blocking_error(what) if deadline == AT_ONCE else errors.timeout_error()


def refuse_wait(error: OSError) -> None:
    """Raise what a system call's method raised, but where it says that it would have to wait. What has a frame of its
    own is a signal handler's; the kernel's timeout is a dead peer."""
    if isinstance(error, TimeoutError) and error.errno is not None:
        raise errors.os_error(error.errno) from None
    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
        raise error


def wait_until(sock: Any, events: int, deadline: int) -> bool:
    """Wait until a plain socket can receive (POLLIN) or send (POLLOUT); False where the deadline passed."""
    descriptor = sock.fileno()
    if descriptor < 0:
        raise errors.closed_error()
    poller = _poll()
    poller.register(descriptor, events)
    while True:
        left = deadline - monotonic_ns() if deadline else 0
        if poller.poll(None if deadline == NEVER else min(max(0, math.ceil(left / 1e6)), _LONGEST_MS)):
            return True
        if left <= 0:
            return False


def message_range(offset: int, size: int | None, room: int) -> tuple[int, int]:
    """Return where in a buffer of `room` bytes a message lies, and its size, or raise what multiprocessing does."""
    if offset < 0:
        raise ValueError("offset is negative")
    if offset > room:
        raise ValueError("buffer length < offset")
    if size is None:
        return offset, room - offset
    if size < 0:
        raise ValueError("size is negative")
    if offset + size > room:
        raise ValueError("buffer length < offset + size")
    return offset, size


def take_turn(lock: Any, deadline: int) -> None:
    """Take a lock that other threads may have."""
    if not lock.acquire(False):
        left = -1.0 if deadline == NEVER else (deadline - monotonic_ns()) / 1e9 if deadline else 0.0
        if (deadline != NEVER and left <= 0) or not lock.acquire(True, left):
            raise passed_error(deadline, "another thread is at work")


class Serving:
    """Receives and sends for a connection, each call with its deadline: what serves a socket that is no plain one."""

    __slots__ = ("_keeps", "_woken", "ragged", "recv_event", "send_event", "sock")

    def __init__(self, sock: Any, keeps: bool) -> None:
        self.sock = sock
        self._keeps = keeps
        self._woken = False           # by close()
        self.ragged = False           # TLS has ended without saying so
        self.recv_event = EVENT_READ  # what the next receive waits for,
        self.send_event = EVENT_WRITE  # and the next send

    @property
    def keeps(self) -> bool:
        """Whether it keeps what it could not send: it must be given the same bytes again."""
        return self._keeps

    def after_fork(self) -> None:
        """Forget the calls of threads that this process doesn't have."""

    def wake(self) -> None:
        """Have calls at work come back, which shutdown() alone may not do."""
        self._woken = True

    def kept(self) -> int:
        """Return the number of bytes that an interrupted receive left for the next."""
        return 0

    def take(self) -> bytes:
        """Return these bytes, and keep them no more."""
        return b""

    if TYPE_CHECKING:
        def receive(self, size: int, deadline: int) -> bytes: ...
        def send(self, data: memoryview, deadline: int) -> int: ...
        def end(self, how: int, deadline: int) -> None: ...


class Direct(Serving):
    """A plain socket that does not block. An answer that a signal handler's exception keeps from the caller is that
    of the next call."""

    __slots__ = ("_received", "_sent")

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, False)
        self._received: list[bytes] = []
        self._sent: list[int] = []

    def receive(self, size: int, deadline: int) -> bytes:
        """Receive at most `size` bytes; b"" is the end of the stream."""
        self._ask("recv", self._received, (size, DONTWAIT), POLLIN, deadline)
        data, self._received = self._received[0], []
        return data

    def send(self, data: memoryview, deadline: int) -> int:
        """Send some of `data` and return how many bytes the socket took."""
        self._ask("send", self._sent, (data, NOSIGNAL | DONTWAIT), POLLOUT, deadline)
        sent, self._sent = self._sent[0], []
        return sent

    def _ask(self, name: str, answers: list[Any], arguments: tuple[Any, ...], event: int, deadline: int) -> None:
        """Wait for the answer of a method, which is put in its place within the same call in C."""
        method = getattr(self.sock, name)
        tried = False
        while not answers:
            if tried and not wait_until(self.sock, event, deadline):
                raise passed_error(deadline, _NOT_READY[name])
            try:
                answers.extend(starmap(method, (arguments,)))
            except (BlockingIOError, TimeoutError) as error:
                refuse_wait(error)
                tried = True


class Methods(Serving):
    """A socket that is served through its own methods.

    Its timeout is lent to the calls at work, one receive and one send: it is the shorter of theirs, and
    a call that it ends too early goes on. The last call gives the socket its own timeout back. An answer that a signal
    handler's exception keeps from the caller is that of the next call.
    """

    __slots__ = ("_begun", "_deadlines", "_failed", "_lock", "_now", "_own", "_received", "_sent", "_shaken")

    def __init__(self, sock: Any) -> None:
        # TLS (what has pending()) keeps a record of what it could not send, and must be given the same bytes again.
        super().__init__(sock, is_tls(sock))
        self._failed: OSError | None = None  # what broke TLS: a receive after it would read as an end
        self._shaken = False             # TLS has done its handshake
        self._lock = threading.RLock()
        self._received: Sequence[Any] = ()  # answers that are not yet given away
        self._sent: Sequence[Any] = ()
        self._deadlines: dict[int, int] = {}  # of the calls at work, by their numbers
        self._begun = 0                  # calls so far
        self._own: Any = None            # the socket's own timeout, while calls are at work,
        self._now: Any = None            # and the one that is lent

    def gettimeout(self) -> Any:
        """Return the socket's own timeout."""
        with self._lock:
            return self._own if self._deadlines else socket_timeout(self.sock)

    def settimeout(self, timeout: Any) -> None:
        """Set the socket's own timeout."""
        with self._lock:
            self.sock.settimeout(timeout)
            if self._deadlines:
                self._own = self._now = socket_timeout(self.sock)
                self._lend()

    def after_fork(self) -> None:
        """Forget the calls of threads that this process doesn't have."""
        self._lock = threading.RLock()
        if self._deadlines or self._now != self._own:
            self._deadlines.clear()
            self._now = UNSET  # it is not known what was set of it
            with suppress(OSError):
                self._lend()

    def receive(self, size: int, deadline: int) -> bytes:
        """Receive at most `size` bytes; b"" is the end of the stream."""
        if self.ragged:
            return b""
        fresh = not self._received or self._received[0] is None
        if fresh:
            answers: list[Any] = []
            self._received = answers
            if not self._shaken:
                self._shaken = not hasattr(self.sock, "version") or self.sock.version() is not None
            try:
                self._call("recv", answers, size, deadline)
            except OSError as error:
                if not self._is_end(error):
                    raise
                self.ragged = _is_cut(error)
                return b""
        data = self._received[0]
        if not isinstance(data, (bytes, bytearray, memoryview)):
            self._received = ()
            raise RuntimeError(f"recv({size}) returned {type(data).__name__}, not bytes")
        received = bytes(data)
        if fresh and len(received) > size:
            self._received = ()
            raise RuntimeError(f"recv({size}) returned {len(received)} bytes")
        # What an interrupted call left may be of a larger one.
        received, self._received = received[:size], [received[size:]] if len(received) > size else ()
        return received

    def send(self, data: memoryview, deadline: int) -> int:
        """Send some of `data` and return how many bytes the socket took."""
        if not self._sent or self._sent[0] is None:
            answers: list[Any] = []
            self._sent = answers
            self._call("send", answers, data, deadline)
            sent = answers[0]
            if isinstance(sent, bool) or not isinstance(sent, int) or not 0 <= sent <= len(data):
                self._sent = ()
                raise RuntimeError(f"send() of {len(data)} bytes returned {sent!r}")
            if not sent:
                self._sent = ()
                raise not_ready_error("send", deadline)
        taken: int = self._sent[0]
        self._sent = ()
        return taken

    @property
    def keeps(self) -> bool:
        """Whether it keeps what it could not send, or sent and did not tell: it must be given the same bytes again."""
        return self._keeps or bool(self._sent)

    def kept(self) -> int:
        """Return the number of bytes that an interrupted receive left for the next."""
        return sum(map(len, filter(None, self._received)))

    def take(self) -> bytes:
        """Return these bytes, and keep them no more."""
        received = b"".join(filter(None, self._received))
        self._received = ()
        return received

    def _call(self, name: str, answers: list[Any], argument: Any, deadline: int) -> None:
        """Have the method answer, no longer than until the deadline; its None, EAGAIN and TLS's wants become
        `BlockingIOError`, its timeout ours. The answer is put in its place within the same call in C."""
        method = getattr(self.sock, name)
        if self._failed is not None:
            raise self._failed.with_traceback(None)
        event = _EVENTS[name]
        setattr(self, event, EVENT_READ if name == "recv" else EVENT_WRITE)
        while not self._woken:
            begun = 0
            looks = False  # it has only come back to look whether it was woken
            since = 0
            try:
                with self._lock:
                    if not self._deadlines:
                        self._own = self._now = socket_timeout(self.sock)
                    self._begun = begun = self._begun + 1
                    self._deadlines[begun] = deadline
                    self._lend()
                    alone = len(self._deadlines) == 1
                since = monotonic_ns()
                answers.extend(map(method, (argument,)))
                if answers[0] is not None:
                    return
                answers.clear()
            except OSError as error:
                if answers or _is_handlers(error, method):
                    raise
                if isinstance(error, TimeoutError) and error.errno is not None:
                    raise errors.os_error(error.errno) from error
                if not _would_wait(error):
                    if name == "recv" and self._keeps and _is_tls_error(error) and not self._is_end(error):
                        self._failed = error
                    raise
                setattr(self, event, _WANTS.get(type(error).__name__, getattr(self, event)))
                if isinstance(error, TimeoutError):
                    now = monotonic_ns()  # one that came sooner is the socket's own
                    looks = _LOOK is not None and now - since > _LOOK * 5e8 and now < deadline
                    if alone and begun == self._begun and not looks:
                        raise passed_error(deadline, _NOT_READY[name]) from None
            finally:
                try:
                    self._give_back(begun)
                except BaseException:
                    self._give_back(begun)
                    raise
            if (alone and begun == self._begun and not looks) or monotonic_ns() >= deadline:
                raise not_ready_error(name, deadline)
        raise errors.closed_error()

    def _is_end(self, error: OSError) -> bool:
        """Say whether a receive tells of the end: the peer's TLS has ended, or its stream has without TLS's saying
        so. In the midst of a handshake there is no such end. Windows says so where receiving was shut down here."""
        return (type(error).__name__ == "SSLZeroReturnError" or error.errno == errno.ESHUTDOWN
                or (self._shaken and _is_cut(error)))

    def _give_back(self, begun: int) -> None:
        """End a call: the timeout is that of the others, or the socket's own."""
        with self._lock:
            self._deadlines.pop(begun, None)
            if not self._deadlines:
                self._deadlines = {}  # one that had entries keeps 200 bytes for more
            with suppress(OSError):
                self._lend()

    def _lend(self) -> None:
        """Set the timeout for the calls at work, or the socket's own."""
        left = self._own
        if self._deadlines:
            deadline = min(self._deadlines.values())
            left = None if deadline == NEVER else max(0, deadline - monotonic_ns()) / 1e9 if deadline else 0.0
            if left is not None and left * 1000 > _LONGEST_MS:
                left = None
            if _LOOK is not None:
                left = _LOOK if left is None else min(left, _LOOK)
        if left != self._now and hasattr(self.sock, "settimeout"):
            self.sock.settimeout(left)
            self._now = left


#: What tells what to wait for. A name that is made for each call would fill the interpreter's cache of attributes.
_EVENTS = {"recv": "recv_event", "send": "send_event"}

#: What a method that would have to wait says of the call.
_NOT_READY = {"recv": "no whole frame has arrived", "send": "the socket can take no more"}

#: What TLS waits for, by the name of the exception that says so: there may be no ssl module.
_WANTS = {"SSLWantReadError": EVENT_READ, "SSLWantWriteError": EVENT_WRITE}


def _would_wait(error: OSError) -> bool:
    """Say whether a socket's own method had to wait."""
    return isinstance(error, (BlockingIOError, TimeoutError)) or type(error).__name__ in _WANTS


def _is_handlers(error: OSError, method: Any) -> bool:
    """Say whether an exception comes from a signal handler inside a method in C, which alone has a frame of its own."""
    if not isinstance(method, BuiltinMethodType) or isinstance(method, MethodType):  # on PyPy both are one class
        return False
    return bool(error.__traceback__ and error.__traceback__.tb_next)


def _is_cut(error: OSError) -> bool:
    """Say whether an error tells that a stream has ended without TLS's saying so: it has a class of its own, but of
    OpenSSL 3 only from Python 3.10.11 and 3.11.3 on."""
    return (type(error).__name__ == "SSLEOFError"
            or (_is_tls_error(error) and getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"))


def _is_tls_error(error: OSError) -> bool:
    """Say whether TLS itself has failed, which it does for good."""
    return "ssl" in sys.modules and isinstance(error, sys.modules["ssl"].SSLError)


def not_ready_error(name: str, deadline: int) -> OSError:
    """Make the error of a socket whose own method says that it would have to wait."""
    if deadline and monotonic_ns() >= deadline:
        return errors.timeout_error()
    return errors.blocking_error(_NOT_READY[name])


def unix_socket() -> socket.socket:
    """Open a Unix socket; where there are none, as on Windows, raise what the system says of what it does not know."""
    if not hasattr(socket, "AF_UNIX"):
        raise errors.os_error(errno.EAFNOSUPPORT)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def refuse_unfit(sock: Any) -> None:
    """Refuse a socket that carries no stream: datagrams, or one that listens."""
    if not callable(getattr(sock, "recv", None)) or not callable(getattr(sock, "send", None)):
        raise TypeError(f"a stream socket is needed, not {type(sock).__name__}")
    if isinstance(sock, (_SOCKET, socket.socket)):  # gevent's is of another class
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if kind != socket.SOCK_STREAM:
            raise ValueError(f"a stream socket is needed, not one of type {kind}")
        if hasattr(socket, "SO_ACCEPTCONN") and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("a connected socket is needed, not one that listens")


def shut_down(sock: Any, how: int, deadline: int) -> None:
    """Shut down one half of a socket or both. That of TLS is told to the peer (close_notify) by what start_tls() makes;
    an `ssl.SSLSocket` would give up TLS and go on in the clear, and can't tell it without reading on."""
    if isinstance(sock, Serving):
        sock.end(how, deadline)
    elif isinstance(sock, _SOCKET) and is_tls(sock):
        if how == socket.SHUT_WR:
            raise errors.no_half_close_error(sock)
        _SOCKET.shutdown(sock, how)
    else:
        sock.shutdown(how)


def wake(sock: Any) -> None:
    """Shut a socket down, so that calls that wait for it in other threads return."""
    if isinstance(sock, Serving):
        sock.wake()
        sock = sock.sock
    shutdown = _SOCKET.shutdown if isinstance(sock, _SOCKET) else getattr(type(sock), "shutdown", None)
    if shutdown is not None:
        with suppress(OSError):
            shutdown(sock, socket.SHUT_RDWR)


def close(sock: Any) -> None:
    """Close a socket, if it is an object that can be closed."""
    if hasattr(sock, "close"):
        sock.close()
