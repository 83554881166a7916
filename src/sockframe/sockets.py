"""FramedSocket and connect: what is opened and set once, over the wing's Connection."""

from __future__ import annotations

import errno
import os
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import errors
from ._wing import Connection
from .framings import Framing
from .transport import UNSET, deadline_after, is_tls, seconds_left, unix_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from typing_extensions import Self


_TCP_KEEPIDLE: int = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0x10))
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class SocketMethods:
    """What a framed connection has in common with the socket it is over."""

    __slots__ = ()

    if TYPE_CHECKING:
        sock: Any
        closed: bool
        _methods: Any

        def close(self) -> None: ...
        def _upgrade(self, wrap: Callable[[Any, bytes], Any], leftover: str, timeout: float | None) -> int: ...

    def _open_socket(self) -> Any:
        if self.closed:
            raise errors.closed_error()
        return self.sock

    def fileno(self) -> int:
        """Return the socket's descriptor, for select and its kin; -1 once closed."""
        return -1 if self.closed else int(self.sock.fileno())

    def settimeout(self, timeout: float | None) -> None:
        """Set the socket's timeout in seconds: the deadline of each call that is given none."""
        sock = self._open_socket()
        (self._methods or sock).settimeout(timeout)

    def gettimeout(self) -> float | None:
        """Return the socket's timeout in seconds; None is for ever."""
        sock = self._open_socket()
        timeout: float | None = (self._methods or sock).gettimeout()
        return timeout

    def setblocking(self, flag: bool) -> None:
        """Make the socket blocking, or non-blocking."""
        self.settimeout(None if flag else 0.0)

    def keepalive(self, idle: int, interval: int, count: int, user_timeout: float | None = None) -> None:
        """Find out that the peer of a TCP connection is gone, though it never said so (RFC 1122; tcp(7)).

        After `idle` seconds of silence (1 to 32767) the kernel probes it each `interval` seconds (1 to
        32767); after `count` probes (1 to 127) without an answer the connection fails. `user_timeout` is
        how many seconds data that was sent may wait to be acknowledged before it fails (RFC 5482). The
        calls that find it failed raise `ConnectionError`, not `TimeoutError`: trying again is of no use.
        """
        sock = self._open_socket()
        for name, value, most in (("idle", idle, 32767), ("interval", interval, 32767), ("count", count, 127)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be from 1 to {most}, not {value}")
        if user_timeout is not None and not 0 < user_timeout <= 2**31 / 1000:
            raise ValueError(f"user_timeout must be None, or seconds above 0, not {user_timeout}")
        # macOS calls the first one TCP_KEEPALIVE, and has no user timeout.
        options = [(_TCP_KEEPIDLE, idle), (socket.TCP_KEEPINTVL, interval), (socket.TCP_KEEPCNT, count)]
        if user_timeout is not None:
            if _TCP_USER_TIMEOUT is None:
                raise errors.os_error(errno.ENOPROTOOPT)
            options.append((_TCP_USER_TIMEOUT, max(1, int(user_timeout * 1000))))
        for option, value in options:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def getpeername(self) -> Any:
        """Return the address of the peer."""
        return self._open_socket().getpeername()

    def getsockname(self) -> Any:
        """Return the socket's own address."""
        return self._open_socket().getsockname()

    def start_tls(self, context: SSLContext, leftover: str = "error", *, server_side: bool = False,
                  server_hostname: str | None = None, timeout: float | None = UNSET) -> int:
        """Go on under TLS (RFC 8446), from here in the stream: STARTTLS.

        What is unsent goes first; then the handshake is done, all before the deadline. `context` is an
        `ssl.SSLContext`; a client gives the `server_hostname` that the server's certificate must name.
        `leftover` says what becomes of bytes that were received already: with "error" they are a
        `FramingError`, and nothing has changed; "carry" takes them for the beginning of the peer's TLS;
        "discard" drops them. A peer that speaks out of turn, or someone between, may have put them there
        to be taken for what came under TLS (RFC 3207, section 6). Returns how many were carried or
        discarded, in bytes. What the handshake raises (`ssl.SSLError`, `TimeoutError`, `ConnectionError`)
        closes the connection. A non-blocking one begins the handshake: its next calls, or its selector,
        go on with it. From then on `sock` is a `TLSSocket`, whose `ssl_object` tells of certificate and cipher.
        """
        sock = self._open_socket()
        check_context(context)
        if leftover not in ("error", "carry", "discard"):
            raise ValueError(f'leftover must be "error", "carry" or "discard", not {leftover!r}')
        if is_tls(sock):
            raise errors.tls_twice_error()
        from .tls import TLSSocket

        return self._upgrade(lambda sock, received: TLSSocket(
            sock, context, server_side=server_side, server_hostname=server_hostname, received=received),
            leftover, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else repr(self.sock)
        return f"<{type(self).__name__} {state}>"


class FramedSocket(SocketMethods, Connection):
    """Whole frames over a connected stream socket: `FramedSocket(sock, framing, received=b"")`.

    It owns the socket: closing it closes that. All that sends and receives is inherited from the
    wing's `Connection`. There `timeout` is in seconds and for the whole call, with the wait for one's turn; None
    waits for ever, 0 does not wait, and without it the socket's own timeout is taken. A call that it ends raises
    `TimeoutError`, or `BlockingIOError` where it is 0, has lost nothing, and is gone on with by the next one.
    """

    __slots__ = ()


def check_context(context: object) -> None:
    """Refuse what is no TLS context; there may be no ssl module."""
    if not hasattr(context, "wrap_bio"):
        raise TypeError(f"an ssl.SSLContext is needed, not {type(context).__name__}")


def open_socket(address: Any, timeout: float | None) -> socket.socket:
    """Connect a stream socket: to a (host, port) pair over TCP, to a path over a Unix socket."""
    if isinstance(address, (str, bytes, os.PathLike)):
        sock = unix_socket()
        try:
            sock.settimeout(timeout)
            sock.connect(os.fspath(address))
        except BaseException:
            sock.close()
            raise
        return sock
    host, port = address
    deadline = deadline_after(timeout)
    failure: OSError = errors.os_error(errno.EADDRNOTAVAIL)
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(seconds_left(deadline))  # of all that is tried, not of each
            sock.connect(place)
            sock.settimeout(timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def tls_arguments(address: Any, tls: SSLContext | bool | None,
                  server_hostname: str | None) -> tuple[SSLContext | None, str | None]:
    """Return the context and the server's name that a client is to use, as `connect` tells; None for no TLS."""
    if tls is True:
        import ssl

        tls = ssl.create_default_context()
    if tls:
        check_context(tls)
        if server_hostname is None:
            if isinstance(address, (str, bytes, os.PathLike)):
                raise ValueError("a path names no host for TLS: give server_hostname")
            server_hostname = address[0]
    elif server_hostname is not None:
        raise ValueError("server_hostname is for TLS: give tls, too")
    return tls or None, server_hostname


def connect(address: Any, framing: Framing, *, timeout: float | None = None, tls: SSLContext | bool | None = None,
            server_hostname: str | None = None) -> FramedSocket:
    """Connect to `address` and return a `FramedSocket`.

    `address` is a (host, port) pair for TCP, or the path of a Unix socket. `timeout` in seconds is for
    connecting, and stays the socket's own: the deadline of each later call that is given none. TCP
    connections send without delay (TCP_NODELAY): a frame is a message that is complete.

    With `tls`, an `ssl.SSLContext` or True for `ssl.create_default_context()`, all of it is under TLS; the
    timeout is then for connecting and the handshake together. The server's certificate must name
    `server_hostname`: the host of the address, unless given; a path has none, so there it must be given.
    Raises what connecting and `start_tls` raise.
    """
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    context, server_hostname = tls_arguments(address, tls, server_hostname)
    deadline = deadline_after(timeout)
    sock = open_socket(address, timeout)
    try:
        conn = FramedSocket(sock, framing)
        if context is not None:
            conn.start_tls(context, server_hostname=server_hostname, timeout=seconds_left(deadline))
    except BaseException:
        sock.close()
        raise
    return conn
