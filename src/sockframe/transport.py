"""What both wings ask of any socket: is it a plain one, its timeout as a deadline, and to receive and
send through its own methods.

A deadline is a time of `time.monotonic_ns()`, `NEVER` or `AT_ONCE`, as in csrc/io.h.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic_ns
from typing import Any

from . import errors

NEVER = 2**63 - 1
AT_ONCE = 0

# Where there is no poll() (Windows), every socket is served through its own methods.
_poll: Any = getattr(select, "poll", None)
POLLIN: int = getattr(select, "POLLIN", 1)
POLLOUT: int = getattr(select, "POLLOUT", 4)


class _Unset:
    """The default of `timeout`: the socket's own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()

_DIRECT = ("recv", "recv_into", "send", "sendmsg", "fileno", "gettimeout")
_SOCKET: Any = socket.socket.__base__


def is_plain(sock: Any) -> bool:
    """Say whether system calls on the descriptor do the same as the socket's own methods: not so for
    TLS, for a class that overrides one of them, or for a patched one."""
    return _poll is not None and isinstance(sock, _SOCKET) and all(
        getattr(type(sock), name, None) is getattr(_SOCKET, name, None) for name in _DIRECT)


def deadline_after(timeout: Any) -> int:
    """Return the deadline `timeout` seconds from now; None is never, 0 is at once."""
    if timeout is None:
        return NEVER
    if not math.isfinite(timeout) or timeout < 0:
        raise ValueError(f"timeout must be None, or seconds from 0 on, not {timeout}")
    if timeout == 0:
        return AT_ONCE
    return monotonic_ns() + int(min(float(timeout), 3e9) * 1e9)


def socket_timeout(sock: Any) -> Any:
    """Return the timeout of a socket in seconds; None, for ever, where it has none to tell."""
    gettimeout = getattr(sock, "gettimeout", None)
    return None if gettimeout is None else gettimeout()


def passed_error(deadline: int, what: str) -> OSError:
    """Make the error of a deadline that has passed."""
    return errors.blocking_error(what) if deadline == AT_ONCE else errors.timeout_error()


def wait_until(sock: Any, events: int, deadline: int) -> bool:
    """Wait until a plain socket can receive (POLLIN) or send (POLLOUT); False where the deadline passed."""
    descriptor = sock.fileno()
    if descriptor < 0:
        raise errors.closed_error()
    poller = _poll()
    poller.register(descriptor, events)
    while True:
        left = deadline - monotonic_ns() if deadline else 0
        if poller.poll(None if deadline == NEVER else max(0, math.ceil(left / 1e6))):
            return True
        if left <= 0:
            return False


@contextmanager
def limited(sock: Any, deadline: int) -> Iterator[None]:
    """Give a socket's own methods no longer than the deadline; its EAGAIN and TLS's wants become
    BlockingIOError, its timeout ours."""
    settimeout = getattr(sock, "settimeout", None)
    own = socket_timeout(sock)
    left: float | None = None
    if deadline != NEVER:
        left = max(0.0, (deadline - monotonic_ns()) / 1e9) if deadline else 0.0
    try:
        if settimeout is not None and own != left:
            settimeout(left)
        yield
    except (TimeoutError, BlockingIOError) as error:
        if isinstance(error, TimeoutError) and error.errno is not None:
            raise errors.os_error(error.errno) from error
        raise passed_error(deadline, "the socket is not ready") from None
    except OSError as error:
        if type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError"):
            raise passed_error(deadline, "the socket is not ready") from None
        raise
    finally:
        if settimeout is not None and own != left:
            settimeout(own)


def receive(sock: Any, size: int, deadline: int) -> bytes:
    """Receive at most `size` bytes through the socket's own recv(); b"" is the end of the stream."""
    with limited(sock, deadline):
        data = sock.recv(size)
    if data is None:
        raise passed_error(deadline, "recv() returned None")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise RuntimeError(f"recv({size}) returned {type(data).__name__}, not bytes")
    if len(data) > size:
        raise RuntimeError(f"recv({size}) returned {len(data)} bytes")
    return bytes(data)


def send(sock: Any, data: memoryview, deadline: int) -> int:
    """Send some of `data` through the socket's own send() and return how many bytes it took."""
    with limited(sock, deadline):
        sent = sock.send(data)
    if sent is None:
        raise passed_error(deadline, "send() returned None")
    if isinstance(sent, bool) or not isinstance(sent, int) or not 0 <= sent <= len(data):
        raise RuntimeError(f"send() of {len(data)} bytes returned {sent!r}")
    return sent


def refuse_unfit(sock: Any) -> None:
    """Refuse a socket that carries no stream: datagrams, or one that listens."""
    if not callable(getattr(sock, "recv", None)) or not callable(getattr(sock, "send", None)):
        raise TypeError(f"a stream socket is needed, not {type(sock).__name__}")
    if isinstance(sock, _SOCKET):
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if kind != socket.SOCK_STREAM:
            raise ValueError(f"a stream socket is needed, not one of type {kind}")
        if hasattr(socket, "SO_ACCEPTCONN") and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("a connected socket is needed, not one that listens")



def wake(sock: Any) -> None:
    """Shut a socket down, so that calls that wait for it in other threads return."""
    shutdown = _SOCKET.shutdown if isinstance(sock, _SOCKET) else getattr(type(sock), "shutdown", None)
    if shutdown is not None:
        with suppress(OSError):
            shutdown(sock, socket.SHUT_RDWR)
