"""connect, attach, serve: how connections of an event loop come to be."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import errors
from .._wing import Connection
from ..framings import Framing
from ..sockets import check_context, tls_arguments
from ..transport import is_plain, is_tls
from .link import READ_LIMIT, WRITE_LIMIT
from .server import Handler, Server
from .stream import FramedStream, StreamLink

if TYPE_CHECKING:
    import ssl


async def connect(address: Any, framing: Framing, *, tls: ssl.SSLContext | bool | None = None,
                  server_hostname: str | None = None, read_limit: int = READ_LIMIT, write_limit: int = WRITE_LIMIT,
                  **options: Any) -> FramedStream:
    """Connect to `address` and return a `FramedStream`.

    `address` is a (host, port) pair for TCP, or the path of a Unix socket. With `tls`, an `ssl.SSLContext` or True
    for `ssl.create_default_context()`, all of it is under TLS; the server's certificate must name
    `server_hostname`: the host of the address, unless given; a path has none, so there it must be given. `read_limit`
    and `write_limit`, in bytes, are told of at `FramedStream`. `options` are those of `loop.create_connection`, such
    as `happy_eyeballs_delay`, `local_addr` and `ssl_handshake_timeout`, or of `loop.create_unix_connection`, where
    the loop has them. Raises what connecting and the handshake raise; for a deadline take `asyncio.timeout`.
    """
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    context, server_hostname = tls_arguments(address, tls, server_hostname)
    loop = asyncio.get_running_loop()
    link = StreamLink(framing, read_limit, write_limit)
    if context is not None:
        options.update(ssl=context, server_hostname=server_hostname)
    if is_path(address):
        await loop.create_unix_connection(lambda: link, os.fspath(address), **options)
    else:
        host, port = address
        await loop.create_connection(lambda: link, host, port, **options)
    return link.stream


async def attach(conn: Any, *, read_limit: int = READ_LIMIT, write_limit: int = WRITE_LIMIT) -> FramedStream:
    """Take over the connection of a `FramedSocket`, with its framing, and return a `FramedStream`.

    What it has not sent goes first, and what it has received comes first; the `FramedSocket` is detached. Being
    cancelled before, or what fails, leaves it as it was. `FramedSocket(sock, framing)` makes one of any connected
    socket. Raises `ValueError` under TLS, whose keys stay where they are, `TypeError` for a socket that is not the
    system's own, and `FramingError` inside an overlong frame that is passed over. `FramedStream.detach` is the way
    back.
    """
    if not isinstance(conn, Connection):
        raise TypeError(f"a FramedSocket is needed, not {type(conn).__name__}")
    if conn.closed:
        raise errors.closed_error()
    if is_tls(conn.sock):
        raise errors.no_handover_error()
    if not is_plain(conn.sock):
        raise TypeError(f"a socket of the system's own is needed, not {type(conn.sock).__name__}")
    loop = asyncio.get_running_loop()
    link = StreamLink(conn.framing, read_limit, write_limit)
    timeout = conn.sock.gettimeout()
    try:
        conn.sock.settimeout(0)
        while conn.unsent:
            with suppress(BlockingIOError):
                conn.flush()
            if conn.unsent:
                await writable(loop, conn.sock.fileno())
        sock, leftover = conn.detach()
    except BaseException:
        conn.sock.settimeout(timeout)
        raise
    try:
        link.decoder.feed(leftover)
        # uvloop has a transport of its own for each.
        unix = sock.family == getattr(socket, "AF_UNIX", None)
        await (loop.create_unix_connection if unix else loop.create_connection)(lambda: link, sock=sock)
    except BaseException:
        sock.close()
        raise
    return link.stream


async def serve(handler: Handler, address: Any, framing: Framing, *, tls: ssl.SSLContext | None = None,
                read_limit: int = READ_LIMIT, write_limit: int = WRITE_LIMIT, **options: Any) -> Server:
    """Listen at `address`, and run the coroutine `handler(stream)` in a task of its own for each connection.

    `address` is a (host, port) pair for TCP, or the path of a Unix socket; `tls` is an `ssl.SSLContext` of the
    server's side. When the handler returns, its connection is closed; what it raises costs that connection alone, and
    is told to the loop's exception handler, but for `EndOfStream`, which is the end of what is to do. A handler that
    is cancelled has its connection cut off. `options` are those of `loop.create_server`, such as `backlog` and
    `reuse_port`, or of `loop.create_unix_server`. Returns a `Server`, which is listening.
    """
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    if tls is not None:
        check_context(tls)
        options["ssl"] = tls
    loop = asyncio.get_running_loop()
    StreamLink(framing, read_limit, write_limit)  # what is wrong with the arguments is told here
    server = Server(handler)

    def link() -> StreamLink:
        return StreamLink(framing, read_limit, write_limit, server._begin)

    if is_path(address):
        server._listen(await loop.create_unix_server(link, os.fspath(address), **options))
    else:
        host, port = address
        server._listen(await loop.create_server(link, host, port, **options))
    return server


def is_path(address: Any) -> bool:
    """Say whether an address is that of a Unix socket."""
    return isinstance(address, (str, bytes, os.PathLike))


async def writable(loop: asyncio.AbstractEventLoop, number: int) -> None:
    """Wait until a socket can be written to."""
    ready = loop.create_future()
    loop.add_writer(number, give, ready)
    try:
        await ready
    finally:
        loop.remove_writer(number)


def give(ready: asyncio.Future[None]) -> None:
    """Let go on what waits."""
    if not ready.done():
        ready.set_result(None)


