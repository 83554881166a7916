"""Works of frames: each way to encode, decode, send and receive them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scripted import LIMIT, OwnMethods, Task, noise

import sockframe.server
from sockframe import Decoder, Encoder, FramedSocket, FrameSelector, LengthPrefix, Lines, aio
from sockframe.drop_in import asyncio_streams
from sockframe.drop_in.multiprocessing import Connection

FRAMING = LengthPrefix()
MANY = [noise(size) for size in (0, 5, 64, 700, 64, 64, 17_000, 3, 1, 64)] * 10
WIRE = Encoder(FRAMING).encode_many(MANY)

Do = Callable[[int], Any]


def decode(way: str) -> Any:
    """Decode in one way."""
    @contextmanager
    def work() -> Iterator[Do]:
        decoder, lines = Decoder(FRAMING), Decoder(Lines())

        def do(count: int) -> None:
            for _ in range(count // len(MANY) + 1):
                for at in range(0, len(WIRE), 30_000):
                    give(decoder, WIRE[at:at + 30_000])
                give(lines, b"a line\r\nanother\n" * 10)

        yield do

    def give(decoder: Decoder, data: bytes) -> None:
        if way == "decode":
            decoder.decode(data)
        elif way == "batch":
            for view in decoder.decode_batch(data):
                bytes(view)
        elif way == "feed":
            decoder.feed(data)
            for _ in decoder:
                pass
        else:
            while data:
                room = decoder.get_buffer()
                size = min(len(room), len(data))
                room[:size] = data[:size]
                room.release()
                decoder.buffer_updated(size)
                data = data[size:]
                while decoder.next_frame() is not None:
                    pass

    return work


@contextmanager
def encode() -> Iterator[Do]:
    """Encode in each way."""
    encoder, target = Encoder(FRAMING), bytearray(20_000)

    def do(count: int) -> None:
        for _ in range(count // (3 * len(MANY)) + 1):
            encoder.encode_many(MANY)
            for payload in MANY:
                encoder.encode(payload)
                encoder.encode_into(payload, target)

    yield do


def exchange(way: str, sockets: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair) -> Any:
    """Send and receive in one way."""
    @contextmanager
    def work() -> Iterator[Do]:
        left, right = (FramedSocket(sock, FRAMING) for sock in sockets())
        target = bytearray(20_000)
        receive: dict[str, Callable[[], int]] = {
            "one": lambda: len([right.recv()]), "many": lambda: len(right.recv_many()),
            "batch": lambda: len(right.recv_batch().tolist()), "into": lambda: right.recv_into(target) >= 0,
            "next": lambda: len([next(right)])}

        def do(count: int) -> None:
            for _ in range(count // 20 + 1):
                if way == "many":
                    left.send_many(MANY[:10], timeout=LIMIT)
                    left.send_many(iter(MANY[:10]), timeout=LIMIT)
                else:
                    for payload in MANY[:20]:
                        left.send(payload)
                got = 0
                while got < 20:
                    got += receive[way]()

        with left, right:
            yield do

    return work


@contextmanager
def select() -> Iterator[Do]:
    """Receive by a selector from a hundred connections."""
    pairs = [tuple(FramedSocket(sock, FRAMING) for sock in socket.socketpair()) for _ in range(100)]
    with FrameSelector() as selector:
        for left, right in pairs:
            right.setblocking(False)
            selector.register(right, left)

        def do(count: int) -> None:
            for _ in range(count // 200 + 1):
                for left, _ in pairs:
                    left.send_many((b"one", b"two"))
                got = 0
                while got < 200:
                    got += sum(len(frames) for _, frames in selector.select(LIMIT))

        yield do
    for left, right in pairs:
        left.close()
        right.close()


@contextmanager
def messages() -> Iterator[Do]:
    """Send and receive multiprocessing's messages."""
    left, right = (Connection(sock.detach()) for sock in socket.socketpair())
    target = bytearray(20_000)

    def do(count: int) -> None:
        for _ in range(count // 20 + 1):
            for payload in MANY[:10]:
                left.send_bytes(payload)
                right.recv_bytes()
                left.send_bytes(payload)
                right.recv_bytes_into(target)

    with left, right:
        yield do


def on_loop(begin: Callable[[], Any]) -> Any:
    """Make a work of an async context manager's `do`, on a loop of its own."""
    @contextmanager
    def work() -> Iterator[Do]:
        loop = asyncio.new_event_loop()
        context = begin()
        do = loop.run_until_complete(context.__aenter__())
        yield lambda count: loop.run_until_complete(do(count))
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    return work


class Streams:
    """Frames between two streams of an event loop, one by one, many at once, and by iteration."""

    async def __aenter__(self) -> Any:
        self.left, self.right = [await aio.attach(FramedSocket(sock, FRAMING)) for sock in socket.socketpair()]
        return self.do

    async def __aexit__(self, *_: object) -> None:
        for stream in (self.left, self.right):
            stream.close()
            await stream.wait_closed()

    async def do(self, count: int) -> None:
        for _ in range(count // 30 + 1):
            await self.left.send_many(MANY[:10])
            got = 0
            while got < 10:
                got += len(await self.right.recv_many())
            for payload in MANY[:10]:
                await self.left.send(payload)
                await self.right.recv()
            await self.left.send_many(MANY[:10])
            got = 0
            async for _ in self.right:
                got += 1
                if got == 10:
                    break


class DropIn:
    """Lines and blocks through the drop-in for asyncio's streams."""

    async def __aenter__(self) -> Any:
        left, right = socket.socketpair()
        left.setblocking(False)
        self.reader, self.writer = await asyncio_streams.open_connection(sock=left)
        self.other, self.back = await asyncio_streams.open_connection(sock=right)
        return self.do

    async def __aexit__(self, *_: object) -> None:
        for writer in (self.writer, self.back):
            writer.close()
            await writer.wait_closed()

    async def do(self, count: int) -> None:
        for _ in range(count // 20 + 1):
            self.writer.write(b"a line\n" * 10 + bytes(1000))
            await self.writer.drain()
            for _ in range(10):
                await self.other.readline()
            for _ in range(10):
                await self.other.readexactly(100)


def served(mode: str) -> Any:
    """Have a server answer one connection."""
    @contextmanager
    def work() -> Iterator[Do]:
        with sockframe.server.Server(bytes, ("127.0.0.1", 0), FRAMING, mode=mode) as server:
            task = Task(server.serve_forever)
            with sockframe.connect(server.address, FRAMING, timeout=LIMIT) as conn:

                def do(count: int) -> None:
                    for _ in range(count // 20 + 1):
                        conn.send_many(MANY[:20])
                        got = 0
                        while got < 20:
                            got += len(conn.recv_many())

                yield do
            server.stop()
            task.result()

    return work


def own_methods() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are served through their methods."""
    one, other = socket.socketpair()
    return OwnMethods(fileno=one.detach()), OwnMethods(fileno=other.detach())


@contextmanager
def dumped() -> Iterator[Do]:
    """Show frames as `sockframe dump` does."""
    from sockframe.cli.records import Records, as_json, as_line

    records = Records(FRAMING)

    def do(count: int) -> None:
        with open(os.devnull, "w") as output:
            for _ in range(count // len(MANY) + 1):
                for record in records.feed(WIRE):
                    output.write(as_line(record, 16) + as_json(record, 16))

    yield do


WORKS = {
    **{f"decode: {way}": decode(way) for way in ("decode", "feed", "batch", "update")}, "encode": encode,
    **{f"receive: {way}": exchange(way) for way in ("one", "many", "batch", "into", "next")},
    "receive: through methods": exchange("many", own_methods), "select": select, "messages": messages,
    "event loop": on_loop(Streams), "event loop: drop-in": on_loop(DropIn),
    **{f"server: {mode}": served(mode) for mode in ("threads", "select")}, "dump": dumped,
}
