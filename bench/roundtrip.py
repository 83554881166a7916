"""An echo on one connection, a frame at a time: both ends are a contender's, on one and the same core.

What counts is the processor time of both processes, to be compared with a bare pair of `recv` and `sendall`, which
knows no frames: what is above it is what a contender takes for framing a request and its reply, twice.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from . import floor
from .processes import clock_of, other_end, pin
from .servers import HEADER, answer
from .streams import Run, Work

WORKS = {work.name: work for work in (Work("length 64 B", False, 64, 2000), Work("length 16 KiB", False, 16384, 500))}
QUICK = ("length 64 B",)

#: A way to send a payload, a way to receive one.
Ends = tuple[Callable[[bytes], Any], Callable[[], bytes]]


def framed(sock: socket.socket) -> Ends:
    """Return `FramedSocket`, on the wing in use."""
    from sockframe import FramedSocket, LengthPrefix

    conn = FramedSocket(sock, LengthPrefix(4))
    return conn.send, conn.recv


def bare(sock: socket.socket) -> Ends:
    """Return the socket itself: no frames, and right only while each `recv` brings one message."""
    return sock.sendall, partial(sock.recv, 65536)


def by_hand(sock: socket.socket) -> Ends:
    """Return the shortest right way in plain Python: as few calls as there can be, no errors, no limits."""
    pack, unpack, recv = HEADER.pack, HEADER.unpack_from, sock.recv

    def send(payload: bytes) -> None:
        sock.sendall(pack(len(payload)) + payload)

    def receive() -> bytes:
        data = recv(65536)
        while len(data) < 4 or len(data) < 4 + unpack(data)[0]:
            if not (more := recv(65536)):
                raise EOFError
            data += more
        return data[4:]

    return send, receive


def howto(sock: socket.socket) -> Ends:
    """Return the HOWTO's loops."""
    def send(payload: bytes) -> None:
        message = HEADER.pack(len(payload)) + payload
        total = 0
        while total < len(message):
            total += sock.send(message[total:])

    def exactly(length: int) -> bytes:
        chunks = []
        received = 0
        while received < length:
            chunk = sock.recv(min(length - received, 2048))
            if chunk == b"":
                raise EOFError
            chunks.append(chunk)
            received += len(chunk)
        return b"".join(chunks)

    return send, lambda: exactly(int.from_bytes(exactly(4), "big"))


def makefile(sock: socket.socket) -> Ends:
    """Return the buffered file that `socket.makefile` gives, flushed after each frame."""
    file = sock.makefile("rwb")

    def send(payload: bytes) -> None:
        file.write(HEADER.pack(len(payload)) + payload)
        file.flush()

    def receive() -> bytes:
        header = file.read(4)
        if not header:
            raise EOFError
        return file.read(int.from_bytes(header, "big"))

    return send, receive


def multiprocessing(module: str, sock: socket.socket) -> Ends:
    """Return the `Connection` of a module."""
    conn = importlib.import_module(module).Connection(sock.dup().detach())
    return conn.send_bytes, conn.recv_bytes


# ---- the two processes ----

def ask(ends: Ends, payload: bytes, times: int) -> bytes:
    """Send a payload and take the reply, so many times; return the last."""
    send, receive = ends
    reply = b""
    for _ in range(times):
        send(payload)
        reply = receive()
    return reply


def reply_to(ends: Ends) -> None:
    """Answer each payload with itself, to the end."""
    send, receive = ends
    with suppress(EOFError, ConnectionError):
        while payload := receive():
            send(payload)


def reply_streams(run: Callable[[Any], None], sock: socket.socket) -> None:
    """Answer by asyncio's streams."""
    async def serve() -> None:
        sock.setblocking(False)
        await answer(*await asyncio.open_connection(sock=sock))

    run(serve())


def ask_streams(run: Callable[[Any], Any], sock: socket.socket, payload: bytes, times: int) -> bytes:
    """Ask by asyncio's streams."""
    async def client() -> bytes:
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock.dup())
        reply = b""
        for _ in range(times):
            writer.write(HEADER.pack(len(payload)) + payload)
            await writer.drain()
            reply = await reader.readexactly(HEADER.unpack(await reader.readexactly(4))[0])
        writer.close()
        return reply

    return bytes(run(client()))


def reply_in_c(sock: socket.socket) -> None:
    """Answer in C."""
    floor.library().floor_reply(sock.fileno())


def ask_in_c(sock: socket.socket, payload: bytes, times: int) -> bytes:
    """Ask in C, which compares each reply with what it sent."""
    if floor.library().floor_ask(sock.fileno(), payload, len(payload), times):
        raise ConnectionError("C did not get back what it had sent")
    return payload


def sides(ends: Callable[[socket.socket], Ends]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what answers on a socket, and what asks."""
    return (lambda sock: reply_to(ends(sock))), (lambda sock, payload, times: ask(ends(sock), payload, times))


def loop_of(name: str) -> Callable[[Any], Any]:
    """Return what runs a coroutine: asyncio's or uvloop's."""
    if name == "asyncio":
        return asyncio.run
    import uvloop

    run: Callable[[Any], Any] = uvloop.run
    return run


def streams(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the sides of asyncio's streams."""
    return (lambda sock: reply_streams(loop_of(name), sock)), (lambda *args: ask_streams(loop_of(name), *args))


SIDES = {"core": sides(framed), "pure": sides(framed), "bare recv/sendall": sides(bare), "C": (reply_in_c, ask_in_c),
         "by hand": sides(by_hand), "multiprocessing": sides(partial(multiprocessing, "multiprocessing.connection")),
         "core, multiprocessing drop-in": sides(partial(multiprocessing, "sockframe.drop_in.multiprocessing")),
         "pure, multiprocessing drop-in": sides(partial(multiprocessing, "sockframe.drop_in.multiprocessing")),
         "makefile": sides(makefile),
         "StreamReader": streams("asyncio"), "uvloop, StreamReader": streams("uvloop"), "HOWTO": sides(howto)}


def serve(name: str) -> None:
    """Answer one client after the other in this process, on the last core that it may use."""
    pin(slice(-1, None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            sock = listener.accept()[0]
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                SIDES[name][0](sock)


def contender(name: str, work: Work) -> Run:
    """Return the round trips of a contender."""
    if name == "C":
        floor.library()
    if name.startswith("uvloop"):
        loop_of("uvloop")
    if name in ("core", "pure"):
        framed(socket.socket())
    process, port = other_end("from bench import roundtrip; roundtrip.serve(sys.argv[1])", name)
    pin(slice(-1, None))
    payloads = work.payloads()
    theirs = clock_of(process)

    def asked(payload: bytes, times: int) -> bytes:
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return bytes(SIDES[name][1](sock, payload, times))

    def check() -> Iterator[list[bytes]]:
        for payload in payloads[:20]:
            yield [asked(payload, 2)]
        yield payloads[20:]

    return Run(check, lambda times: asked(payloads[0], times * work.count),
               (lambda: time.process_time() + theirs()) if theirs else None)


CONTENDERS = {name: partial(contender, name) for name in SIDES}
