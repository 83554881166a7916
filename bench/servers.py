"""Echo servers, each in a process of its own: 4-byte lengths, decoded and encoded frame by frame, one thread.

Each of `SERVERS` is a function that tells at which port it listens, and serves for ever. The handler is Python's but
for C's own server.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress

from .streams import HEADER

Tell = Callable[[int], None]
LOCAL = ("127.0.0.1", 0)
BACKLOG = 1024
MANY = 20_000


def handler(payload: bytes) -> bytes:
    """Answer with the payload itself."""
    return payload


def listen() -> socket.socket:
    """Return a listening socket."""
    return socket.create_server(LOCAL, backlog=BACKLOG)


def accepted(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that wait at a non-blocking listener, made non-blocking."""
    socks = []
    with suppress(BlockingIOError):
        while True:
            sock = listener.accept()[0]
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            socks.append(sock)
    return socks


def server(tell: Tell) -> None:
    """Serve by `sockframe.server`, on the wing in use."""
    from sockframe import LengthPrefix
    from sockframe.server import Server

    made = Server(handler, LOCAL, LengthPrefix(4), mode="select", max_connections=MANY, backlog=BACKLOG)
    tell(made.address[1])
    made.serve_forever()


def frame_selector(tell: Tell) -> None:
    """Serve by a loop over `sockframe.FrameSelector`, on the wing in use."""
    from sockframe import FramedSocket, FrameSelector, LengthPrefix

    framing = LengthPrefix(4)
    listener = listen()
    listener.setblocking(False)
    tell(listener.getsockname()[1])
    with FrameSelector() as selector:
        selector.watch(listener)
        while True:
            for key, frames in selector.select():
                conn = key.conn
                if conn is listener:
                    for sock in accepted(listener):
                        selector.register(FramedSocket(sock, framing))
                elif isinstance(frames, list):
                    conn.send_many([handler(frame) for frame in frames])
                else:
                    conn.close()


async def serve_framed(tell: Tell) -> None:
    """Serve by `sockframe.aio`, on the wing in use and the loop that runs."""
    from sockframe import LengthPrefix, aio

    async def answer(stream: aio.FramedStream) -> None:
        async for payload in stream:
            await stream.send(handler(payload))

    async with await aio.serve(answer, LOCAL, LengthPrefix(4), backlog=BACKLOG) as made:
        tell(made.address[1])
        await made.serve_forever()


def framed_streams(tell: Tell) -> None:
    """Serve by `sockframe.aio` on asyncio."""
    asyncio.run(serve_framed(tell))


def framed_streams_on_uvloop(tell: Tell) -> None:
    """Serve by `sockframe.aio` on uvloop."""
    import uvloop

    uvloop.run(serve_framed(tell))


async def serve_frame_protocol(tell: Tell) -> None:
    """Serve by `sockframe.aio.FrameProtocol`, on the loop that runs."""
    from sockframe import LengthPrefix
    from sockframe.aio import FrameProtocol

    class Echo(FrameProtocol):
        def frames_received(self, frames: list[bytes]) -> None:
            self.send_many([handler(frame) for frame in frames])

    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Echo(LengthPrefix(4)), *LOCAL, backlog=BACKLOG) as made:
        tell(made.sockets[0].getsockname()[1])
        await made.serve_forever()


def frame_protocol(tell: Tell) -> None:
    """Serve by the same on asyncio."""
    asyncio.run(serve_frame_protocol(tell))


def by_hand(tell: Tell) -> None:
    """Serve by the best loop over `selectors` for just this framing: no errors, no limits."""
    selector = selectors.DefaultSelector()
    listener = listen()
    tell(listener.getsockname()[1])
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    unpack, pack = HEADER.unpack_from, HEADER.pack

    class Client:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.rest = b""
            self.unsent = b""

        def ready(self, events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self.send(self.unsent)
                return
            data = self.sock.recv(65536)
            if not data:
                selector.unregister(self.sock)
                self.sock.close()
                return
            if self.rest:
                data = self.rest + data
            replies = []
            start, last = 0, len(data) - 4
            while start <= last:
                stop = start + 4 + unpack(data, start)[0]
                if stop > last + 4:
                    break
                reply = handler(data[start + 4:stop])
                replies += (pack(len(reply)), reply)
                start = stop
            self.rest = data[start:]
            if replies:
                self.send(b"".join(replies))

        def send(self, data: bytes) -> None:
            sent = 0
            with suppress(BlockingIOError):
                sent = self.sock.send(data)
            waiting = bool(self.unsent)
            self.unsent = data[sent:]
            if waiting != bool(self.unsent):
                events = selectors.EVENT_WRITE if self.unsent else selectors.EVENT_READ
                selector.modify(self.sock, events, self.ready)

    while True:
        for key, events in selector.select():
            if key.data is not None:
                key.data(events)
                continue
            for sock in accepted(listener):
                selector.register(sock, selectors.EVENT_READ, Client(sock).ready)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a client of asyncio's streams, as their documentation has it."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length = HEADER.unpack(await reader.readexactly(4))[0]
            reply = handler(await reader.readexactly(length))
            writer.write(HEADER.pack(len(reply)) + reply)
            await writer.drain()
    writer.close()


async def serve_streams(tell: Tell) -> None:
    """Serve by asyncio's streams, on the loop that runs."""
    async with await asyncio.start_server(answer, *LOCAL, backlog=BACKLOG) as made:
        tell(made.sockets[0].getsockname()[1])
        await made.serve_forever()


def stream_reader(tell: Tell) -> None:
    """Serve by asyncio's `StreamReader` and `StreamWriter`."""
    asyncio.run(serve_streams(tell))


def uvloop(tell: Tell) -> None:
    """Serve by the same on uvloop."""
    import uvloop

    uvloop.run(serve_streams(tell))


class HandProtocol(asyncio.Protocol):
    """The best protocol for just this framing: no errors, no limits."""

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        replies = []
        start, last = 0, len(data) - 4
        while start <= last:
            stop = start + 4 + HEADER.unpack_from(data, start)[0]
            if stop > last + 4:
                break
            reply = handler(data[start + 4:stop])
            replies += (HEADER.pack(len(reply)), reply)
            start = stop
        self.rest = data[start:]
        if replies:
            self.write(b"".join(replies))


def protocol(tell: Tell) -> None:
    """Serve by a hand-written protocol on asyncio."""
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(HandProtocol, *LOCAL, backlog=BACKLOG) as made:
            tell(made.sockets[0].getsockname()[1])
            await made.serve_forever()

    asyncio.run(serve())


def twisted(tell: Tell) -> None:
    """Serve by Twisted's `Int32StringReceiver`."""
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory
    from twisted.protocols.basic import Int32StringReceiver

    class Echo(Int32StringReceiver):
        MAX_LENGTH = 1 << 20

        def connectionMade(self) -> None:
            self.transport.setTcpNoDelay(True)

        def stringReceived(self, string: bytes) -> None:
            self.sendString(handler(string))

    port = reactor.listenTCP(0, Factory.forProtocol(Echo), backlog=BACKLOG,  # type: ignore[attr-defined]
                             interface=LOCAL[0])
    tell(port.getHost().port)
    reactor.run()  # type: ignore[attr-defined]


def c_epoll(tell: Tell) -> None:
    """Serve by C alone."""
    from .floor import library

    serve = library().echo_serve
    listener = listen()
    tell(listener.getsockname()[1])
    serve(listener.fileno())


SERVERS: dict[str, Callable[[Tell], None]] = {
    "core": server, "core, FrameSelector": frame_selector, "pure": server, "pure, FrameSelector": frame_selector,
    "core, aio": framed_streams, "core, aio on uvloop": framed_streams_on_uvloop,
    "core, aio FrameProtocol": frame_protocol, "pure, aio": framed_streams,
    "C on epoll": c_epoll, "selectors": by_hand, "Protocol": protocol, "StreamReader": stream_reader,
    "uvloop, StreamReader": uvloop, "Twisted": twisted}
