"""Receiving over TCP: another process pours the stream, and a contender receives until it ends.

Each run is a connection of its own, on which the stream comes as often as was asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import floor, loops
from .processes import other_end, pin
from .streams import Contender, Run, UnfitError, Work, packed, pieces_of, works

WORKS = works()
QUICK = ("length 64 B",)

Consume = Callable[[socket.socket], Iterator[Any]]


def pour(crlf: str, size: str, count: str, name: str, peer: str) -> None:
    """Serve streams in this process, on the last core that it may use: each client says how often it wants it."""
    pin(slice(-1, None))
    work = Work(name, bool(int(crlf)), int(size), int(count))
    stream = packed(work) if peer == "msgpack" else work.stream()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock = listener.accept()[0]
            with sock:
                for _ in range(int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")):
                    sock.sendall(stream)


def over_tcp(work: Work, check: Consume, timed: Callable[[socket.socket], object] | None = None,
             peer: str = "") -> Run:
    """Return the `Run` of what receives from a socket until the end: `check` gives lists, as does what is timed."""
    _, port = other_end("from bench import receive; receive.pour(*sys.argv[1:])", int(work.crlf), work.size, work.count,
                        work.name, peer)
    pin(slice(None, -1))

    def connected(times: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", int(port)))
        sock.sendall(times.to_bytes(8, "big"))
        return sock

    def time(times: int) -> None:
        with connected(times) as sock:
            if timed:
                timed(sock)
            else:
                deque(check(sock), maxlen=0)

    def checked() -> Iterator[Any]:
        with connected(1) as sock:
            yield from check(sock)

    return Run(checked, time)


# ---- sockframe, on the wing in use ----

def framed(work: Work) -> Callable[[socket.socket], Any]:
    """Return what makes sockframe's connection over a socket."""
    from sockframe import FramedSocket

    return partial(FramedSocket, framing=work.framing())


def until_end(receive: Callable[[], Any]) -> Iterator[Any]:
    """Yield what a call gives until the end of the stream."""
    from sockframe import EndOfStream

    try:
        while True:
            yield receive()
    except EndOfStream:
        pass


def recv_many(work: Work) -> Run:
    """Return `FramedSocket.recv_many`."""
    made = framed(work)
    return over_tcp(work, lambda sock: until_end(made(sock).recv_many))


def recv_batch(work: Work) -> Run:
    """Return `FramedSocket.recv_batch`."""
    made = framed(work)
    return over_tcp(work, lambda sock: (batch.tolist() for batch in until_end(made(sock).recv_batch)),
                    lambda sock: deque(until_end(made(sock).recv_batch), maxlen=0))


def iteration(work: Work) -> Run:
    """Return `for payload in conn`."""
    made = framed(work)

    def timed(sock: socket.socket) -> None:
        for _ in made(sock):
            pass

    return over_tcp(work, lambda sock: ([payload] for payload in made(sock)), timed)


def recv(work: Work) -> Run:
    """Return `FramedSocket.recv`."""
    from sockframe import EndOfStream

    made = framed(work)

    def timed(sock: socket.socket) -> None:
        receive = made(sock).recv
        try:
            while True:
                receive()
        except EndOfStream:
            pass

    return over_tcp(work, lambda sock: ([payload] for payload in until_end(made(sock).recv)), timed)


def on_loop(run: Callable[[Any], Any], consume: Callable[[Any, Any], Any], work: Work) -> Run:
    """Return `sockframe.aio`, on the loop that `run` runs: `consume` takes a stream and where payloads go."""
    from sockframe import aio

    made = framed(work)

    async def receive(sock: socket.socket, frames: Any) -> None:
        async with await aio.attach(made(sock.dup())) as stream:
            await consume(stream, frames)

    def check(sock: socket.socket) -> Iterator[list[bytes]]:
        frames: list[bytes] = []
        run(receive(sock, frames))
        yield frames

    return over_tcp(work, check, lambda sock: run(receive(sock, deque(maxlen=1))))


async def loop_iteration(stream: Any, frames: Any) -> None:
    """Receive by `async for`; only what is checked is kept."""
    if isinstance(frames, deque):
        async for _ in stream:
            pass
    async for payload in stream:
        frames.append(payload)


async def loop_recv_many(stream: Any, frames: Any) -> None:
    """Receive by `recv_many`."""
    from sockframe import EndOfStream

    try:
        while True:
            frames.extend(await stream.recv_many())
    except EndOfStream:
        pass


def loop_on_uvloop(consume: Callable[[Any, Any], Any], work: Work) -> Run:
    """Return `sockframe.aio` on uvloop."""
    import uvloop

    return on_loop(uvloop.run, consume, work)


# ---- the peers ----

def bare(work: Work) -> Run:
    """Return a bare loop of `recv_into` that fills one buffer of a frame's size, or 64 KiB; nothing is decoded."""
    around = 2 if work.crlf else 4
    buffer = memoryview(bytearray(max(work.size + around, 65536)))

    def timed(sock: socket.socket) -> None:
        filled = 0
        while got := sock.recv_into(buffer[filled:]):
            filled = (filled + got) % len(buffer)

    def check(sock: socket.socket) -> Iterator[list[bytes]]:
        stream, whole, before = b"".join(pieces_of(sock.recv)), work.size + around, 0 if work.crlf else around
        yield [stream[start + before:start + before + work.size] for start in range(0, len(stream), whole)]

    return over_tcp(work, check, timed)


def in_c(mode: int, work: Work) -> Run:
    """Return C's receiver."""
    receive, kept = floor.library().floor_receive, floor.Kept(work)

    def run(mode: int, sock: socket.socket) -> int:
        count: int = receive(sock.fileno(), work.crlf, mode, *kept.room)
        if count < 0:
            raise ValueError("C found no whole stream")
        return count

    return over_tcp(work, lambda sock: kept.payloads(run(floor.KEEPS, sock)), partial(run, mode))


def by_hand(work: Work) -> Run:
    """Return the best loop in plain Python."""
    return over_tcp(work, lambda sock: loops.by_hand(work, pieces_of(sock.recv)))


def howto(work: Work) -> Run:
    """Return the HOWTO's loop."""
    return over_tcp(work, lambda sock: loops.howto(work, sock.recv))


def makefile(work: Work) -> Run:
    """Return the buffered file that `socket.makefile` gives."""
    def lengths(sock: socket.socket) -> Iterator[list[bytes]]:
        with sock.makefile("rb") as file:
            while header := file.read(4):
                yield [file.read(int.from_bytes(header, "big"))]

    def lines(sock: socket.socket) -> Iterator[list[bytes]]:
        with sock.makefile("rb") as file:
            for line in file:
                yield [line[:-2]]

    return over_tcp(work, lines if work.crlf else lengths)


def streams(run: Callable[[Any], None], opener: str, work: Work) -> Run:
    """Return the `StreamReader` of the module `opener`, on the loop that `run` runs."""
    open_connection = importlib.import_module(opener).open_connection

    async def receive(sock: socket.socket, frames: Any) -> None:
        sock.setblocking(False)
        reader, writer = await open_connection(sock=sock.dup(), limit=max(65536, work.size + 2))
        try:
            await (loops.reader_lines if work.crlf else loops.reader_lengths)(reader, frames)
        except asyncio.IncompleteReadError:
            writer.close()

    def check(sock: socket.socket) -> Iterator[list[bytes]]:
        frames: list[bytes] = []
        run(receive(sock, frames))
        yield frames

    return over_tcp(work, check, lambda sock: run(receive(sock, deque(maxlen=1))))


def on_uvloop(opener: str, work: Work) -> Run:
    """Return the `StreamReader` of the module `opener` on uvloop."""
    import uvloop

    return streams(uvloop.run, opener, work)


def twisted(module: str, work: Work) -> Run:
    """Return the `Int32StringReceiver` or `LineReceiver` of a module on Twisted's reactor."""
    from .twisted_ends import Reactor, receiver

    def receive(sock: socket.socket, frames: Any) -> Any:
        protocol = receiver(work, module)
        protocol.frames = frames
        Reactor.run(sock, protocol)
        return frames

    return over_tcp(work, lambda sock: iter([receive(sock, [])]), lambda sock: receive(sock, deque(maxlen=1)))


def multiprocessing(module: str, work: Work) -> Run:
    """Return the `Connection.recv_bytes` of a module: multiprocessing's format has the same 4-byte length."""
    kind = importlib.import_module(module).Connection
    if work.crlf:
        raise UnfitError("multiprocessing has a format of its own, with lengths")

    def check(sock: socket.socket) -> Iterator[list[bytes]]:
        with kind(sock.detach(), writable=False) as conn:
            receive = conn.recv_bytes
            try:
                while True:
                    yield [receive()]
            except EOFError:
                pass

    return over_tcp(work, check)


def msgpack(work: Work) -> Run:
    """Return msgpack's `Unpacker`, fed from the socket, on its own format: each payload a bin object."""
    from msgpack import Unpacker

    if work.crlf:
        raise UnfitError("msgpack has a format of its own, with lengths")

    def check(sock: socket.socket) -> Iterator[list[bytes]]:
        unpacker = Unpacker(max_buffer_size=2 * work.size + (1 << 20))
        for piece in pieces_of(sock.recv):
            unpacker.feed(piece)
            yield list(unpacker)

    return over_tcp(work, check, peer="msgpack")


DROP_IN = "sockframe.drop_in.asyncio_streams"

CONTENDERS: dict[str, Contender] = {
    "core": recv_many, "core, batches": recv_batch, "core, iteration": iteration, "core, recv": recv, "pure": recv_many,
    "pure, batches": recv_batch, "pure, iteration": iteration, "pure, recv": recv,
    "core, multiprocessing drop-in": partial(multiprocessing, "sockframe.drop_in.multiprocessing"),
    "pure, multiprocessing drop-in": partial(multiprocessing, "sockframe.drop_in.multiprocessing"),
    "core, Twisted drop-in": partial(twisted, "sockframe.drop_in.twisted"),
    "pure, Twisted drop-in": partial(twisted, "sockframe.drop_in.twisted"),
    "core, StreamReader drop-in": partial(streams, asyncio.run, DROP_IN),
    "core, uvloop, StreamReader drop-in": partial(on_uvloop, DROP_IN),
    "pure, StreamReader drop-in": partial(streams, asyncio.run, DROP_IN),
    "core, aio": partial(on_loop, asyncio.run, loop_recv_many),
    "core, aio iteration": partial(on_loop, asyncio.run, loop_iteration),
    "core, aio on uvloop": partial(loop_on_uvloop, loop_recv_many),
    "core, aio iteration on uvloop": partial(loop_on_uvloop, loop_iteration),
    "pure, aio": partial(on_loop, asyncio.run, loop_recv_many),
    "pure, aio iteration": partial(on_loop, asyncio.run, loop_iteration),
    "C in place": partial(in_c, floor.IN_PLACE), "C, copied out": partial(in_c, floor.COPIES),
    "bare recv_into": bare, "by hand": by_hand, "msgpack (its own format)": msgpack, "makefile": makefile,
    "multiprocessing": partial(multiprocessing, "multiprocessing.connection"),
    "StreamReader": partial(streams, asyncio.run, "asyncio"),
    "uvloop, StreamReader": partial(on_uvloop, "asyncio"),
    "Twisted": partial(twisted, "twisted.protocols.basic"), "HOWTO": howto}
