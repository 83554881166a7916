"""Works of errors: all that a stream, a peer, a caller or a handler can do wrong, over and over."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scripted import LIMIT, Bracketed, Scripted, Task

import sockframe.server
from sockframe import (
    BufferTooSmallError,
    Cobs,
    Decoder,
    Delimiter,
    Encoder,
    EndOfStream,
    FramedSocket,
    FrameSelector,
    FrameTooLongError,
    FramingError,
    HeaderBlock,
    IncompleteFrameError,
    LengthPrefix,
    Lines,
    Tagged,
    Varint,
    aio,
)
from sockframe.drop_in.multiprocessing import Connection

from .connections import gone
from .frames import Do, on_loop

FRAMING = LengthPrefix(max_length=1000)

#: Framings, each with a stream that is bad.
BAD = [
    (FRAMING, b"\0\0\0\1a\0\1\0\0"), (Lines("crlf"), b"one\r\ntwo\n"), (Varint(), b"\1a" + b"\xff" * 6),
    (sockframe.framing("netstring"), b"1:a,1:ab"), (HeaderBlock(), b"Nothing: 1\r\n\r\n"), (Cobs(), b"\2a\0\5a\0"),
    (Bracketed(), b"<00001a>x"), (Tagged({b"a": 2}), b"a1b"), (Lines(max_length=3), b"one\nfour!!"),
    (sockframe.framing("postgres"), b"Q\0\0\0\1"),
]


class Wrong(Exception):
    """What callbacks raise."""


def expect(kinds: Any, call: Callable[..., Any], *args: Any, **how: Any) -> Any:
    """Make a call that must fail, and return the error."""
    try:
        call(*args, **how)
    except kinds as error:
        return error.with_traceback(None)
    raise AssertionError(f"{call} raised nothing")


@contextmanager
def decode() -> Iterator[Do]:
    """Streams that are malformed, too long, or cut off."""
    def do(count: int) -> None:
        for number in range(count):
            framing, stream = BAD[number // 4 % len(BAD)]
            decoder = Decoder(framing)
            if number % 4 == 0:
                with suppress(FramingError):
                    decoder.decode(stream)
                expect(FramingError, decoder.decode, b"more")
            elif number % 4 == 1:
                for at in range(len(stream)):
                    with suppress(FramingError):
                        decoder.feed(stream[at:at + 1])
                        while decoder.next_frame() is not None:
                            pass
                pickle.loads(pickle.dumps(expect(FramingError, decoder.next_frame)))
            elif number % 4 == 2:
                with suppress(FramingError):
                    decoder.decode_batch(stream)
                    decoder.next_batch()
            else:
                with suppress(FramingError):
                    decoder.decode(stream[:-1])
                    decoder.finish()
                    decoder.finish()

    yield do


@contextmanager
def encode() -> Iterator[Do]:
    """Payloads that can't be sent."""
    encoder, lines = Encoder(FRAMING), Encoder(Delimiter(b"ab"))

    def do(count: int) -> None:
        for _ in range(count // 5 + 1):
            expect(FrameTooLongError, encoder.encode, bytes(1001))
            expect(ValueError, lines.encode_many, [b"good", b"b ab d"])
            expect(TypeError, encoder.encode, "text")
            expect(BufferError, encoder.encode, memoryview(b"gaps")[::2])
            expect(BufferTooSmallError, encoder.encode_into, b"long", bytearray(3))

    yield do


@contextmanager
def calls() -> Iterator[Do]:
    """Calls that are wrong, too early, or in vain, on one connection that goes on."""
    left, right = (FramedSocket(sock, FRAMING) for sock in socket.socketpair())

    def do(count: int) -> None:
        for _ in range(count // 8 + 1):
            expect(BlockingIOError, right.recv, timeout=0)
            expect(TimeoutError, right.recv_many, timeout=1e-6)
            left.sock.sendall(b"\0\0\0\4")
            expect(BlockingIOError, right.recv_into, bytearray(9), timeout=0)
            left.sock.sendall(b"four")
            expect(BufferTooSmallError, right.recv_into, bytearray(3))
            assert right.recv() == b"four"
            expect(FrameTooLongError, left.send, bytes(1001))
            expect(FrameTooLongError, left.send_many, (b"good", bytes(1001)))
            expect(TypeError, left.send_many, ["text"])
            expect(Wrong, left.send_many, raising())
            assert right.recv() == b"one"

    with left, right:
        yield do


def raising() -> Iterator[bytes]:
    """Yield a payload, and raise."""
    yield b"one"
    raise Wrong


@contextmanager
def connections() -> Iterator[Do]:
    """Connections that fail: bad, cut off, reset, closed; and sockets that raise."""
    def do(count: int) -> None:
        for number in range(count // 3 + 1):
            framing, stream = BAD[number % len(BAD)]
            left, right = socket.socketpair()
            with FramedSocket(right, framing) as conn:
                left.sendall(stream)
                left.close()
                expect(FramingError, lambda conn=conn: [conn.recv() for _ in range(9)])
                expect((FramingError, ValueError, OSError), conn.send, b"a\0\0a")
            expect(OSError, conn.recv)
            sock = Scripted(b"\0\0\0\1a", events={2: [Wrong()], 5: [OSError(5, "broken")]})
            with FramedSocket(sock, FRAMING) as conn:
                expect(Wrong, conn.recv)
                assert conn.recv() == b"a"
                expect(OSError, conn.recv)

    yield do


@contextmanager
def select() -> Iterator[Do]:
    """Connections that fail under a selector."""
    with FrameSelector() as selector:
        def do(count: int) -> None:
            for number in range(count):
                framing, stream = BAD[number % len(BAD)]
                left, right = socket.socketpair()
                conn = FramedSocket(right, framing)
                with left, conn:
                    selector.register(conn)
                    left.sendall(stream)
                    left.shutdown(socket.SHUT_WR)
                    while len(selector):
                        selector.select(LIMIT)

        yield do


@contextmanager
def messages() -> Iterator[Do]:
    """Messages that are too long, cut off, or no messages."""
    def do(count: int) -> None:
        for _ in range(count // 4 + 1):
            left, right = socket.socketpair()
            with Connection(right.detach()) as conn:
                left.sendall(b"\0\0\0\4four" * 2 + b"\0\0\1\0half")
                left.close()
                expect(Exception, conn.recv_bytes_into, bytearray(3))
                expect(ValueError, conn.recv_bytes, -1)
                conn.recv_bytes()
                expect(OSError, conn.recv_bytes)
            expect(OSError, conn.send_bytes, b"")

    yield do


class OnLoop:
    """Streams of an event loop that fail, and calls that are cancelled."""

    async def __aenter__(self) -> Any:
        return self.do

    async def __aexit__(self, *_: object) -> None:
        pass

    async def do(self, count: int) -> None:
        for number in range(count // 3 + 1):
            framing, stream_bytes = BAD[number % len(BAD)]
            left, right = socket.socketpair()
            stream = await aio.attach(FramedSocket(right, framing))
            with left:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stream.recv(), 1e-6)
                left.sendall(stream_bytes)
                left.shutdown(socket.SHUT_WR)
                with suppress(FramingError):
                    while True:
                        await stream.recv()
            with suppress(ConnectionError, ValueError):
                await stream.send(b"ab\0\0")
                await stream.drain()
            stream.close()
            with suppress(ConnectionError):
                await stream.wait_closed()


def served(mode: str) -> Any:
    """Servers whose handler raises, or whose clients send nonsense: each costs its connection."""
    def handler(payload: bytes) -> Any:
        if payload == b"raise":
            raise Wrong
        return "no bytes" if payload == b"wrong" else payload

    @contextmanager
    def work() -> Iterator[Do]:
        logging.getLogger("sockframe").setLevel(logging.CRITICAL)
        with sockframe.server.Server(handler, ("127.0.0.1", 0), FRAMING, mode=mode) as server:
            task = Task(server.serve_forever)

            def do(count: int) -> None:
                for number in range(count):
                    with sockframe.connect(server.address, FRAMING, timeout=LIMIT) as conn:
                        if number % 3 == 2:
                            conn.sock.sendall(b"\xff\xff\xff\xff")
                        else:
                            conn.send((b"raise", b"wrong")[number % 3])
                        expect((EndOfStream, IncompleteFrameError, ConnectionError), conn.recv)
                gone(server)

            yield do
            server.stop()
            task.result()

    return work


WORKS = {"decode": decode, "encode": encode, "calls": calls, "connections": connections, "select": select,
         "messages": messages, "event loop": on_loop(OnLoop),
         **{f"server: {mode}": served(mode) for mode in ("threads", "select")}}
