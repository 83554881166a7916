"""Memory a connection: what an idle one takes beyond its socket object, once a frame has gone each way.

Many connections are made in one process over sockets that are there already. What counts is by how much the process
grows in memory that it really has (its resident set), so that all is in it: C's own memory, tasks, buffers kept.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from .servers import HEADER, HandProtocol, answer
from .streams import Run, UnfitError, numbered

UNIT = "bytes a connection"


@dataclass(frozen=True)
class Work:
    """Idle connections: `count` of them, over each of which a payload of `size` bytes has gone there and back."""

    name: str
    size: int
    count: int

    def payloads(self) -> list[bytes]:
        """Return what has come back on each connection."""
        return numbered(self.name, self.size, 1) * self.count


WORKS = {work.name: work for work in (Work("idle after 64 B", 64, 4000), Work("idle after 256 KiB", 1 << 18, 1000))}
QUICK = ("idle after 64 B",)

#: Makes connections over sockets, each of which has a frame waiting, and lets each answer: returns what holds them.
Hold = Callable[[list[socket.socket]], object]


def resident() -> int:
    """Return the bytes that this process has in memory, what it could give back given back."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def connected(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """Return pairs of connected sockets, over TCP: not every peer takes others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return [(socket.create_connection(listener.getsockname()), listener.accept()[0]) for _ in range(count)]


def contender(hold: Callable[[Work], Hold], work: Work) -> Run:
    """Return what measures the connections that `hold` makes."""
    if sys.platform != "linux":
        raise UnfitError("memory is measured by Linux's /proc")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * work.count + 100:
        raise UnfitError(f"it needs ulimit -n {2 * work.count + 100}")
    make = hold(work)
    grown = []

    def check() -> Iterator[list[bytes]]:
        payload = work.payloads()[0]
        frame = HEADER.pack(len(payload)) + payload
        warm, *pairs = connected(work.count + 1)
        for near, far in [warm, *pairs]:
            for sock in (near, far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(frame))
            far.sendall(frame)
        first = make([warm[0]])
        room = bytearray(len(frame))
        came = [receive(warm[1], room)]
        nears = [near for near, _ in pairs]
        before = resident()
        held = make(nears)
        grown.append((resident() - before) / work.count)
        came = [receive(far, room) for _, far in pairs]
        yield came
        del first, held

    def receive(sock: socket.socket, room: bytearray) -> bytes:
        sock.settimeout(10)  # with which MSG_WAITALL does not wait
        view, here = memoryview(room), 0
        while here < len(room):
            got = sock.recv_into(view[here:])
            if not got:
                raise ConnectionError("a connection did not answer")
            here += got
        return bytes(room[4:])

    return Run(check, lambda times: None, figure=lambda: grown[-1])


# ---- who holds them ----

def bare(work: Work) -> Hold:
    """Return nothing but the sockets: what the others are compared with should be about 0."""
    def hold(socks: list[socket.socket]) -> object:
        room = bytearray(work.size + 4)
        for sock in socks:
            sock.sendall(room[:sock.recv_into(room, len(room), socket.MSG_WAITALL)])
        return None

    return hold


def framed(work: Work) -> Hold:
    """Return `FramedSocket`s."""
    from sockframe import FramedSocket, LengthPrefix

    framing = LengthPrefix(4)

    def hold(socks: list[socket.socket]) -> object:
        conns = [FramedSocket(sock, framing) for sock in socks]
        for conn in conns:
            conn.send(conn.recv())
        return conns

    return hold


def selected(work: Work) -> Hold:
    """Return `FramedSocket`s at a `FrameSelector`."""
    from sockframe import FramedSocket, FrameSelector, LengthPrefix

    framing, selector = LengthPrefix(4), FrameSelector()

    def hold(socks: list[socket.socket]) -> object:
        left = len(socks)
        for sock in socks:
            sock.setblocking(False)
            selector.register(FramedSocket(sock, framing))
        while left:
            for key, frames in selector.select():
                key.conn.send_many(frames)
                left -= len(frames)
        return selector

    return hold


def tasks(new_loop: Callable[[], Any], work: Work) -> Hold:
    """Return asyncio's streams, a task for each connection, which waits for the next frame."""
    loop = new_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of each task that the end of the process destroys

    async def serve(socks: list[socket.socket]) -> object:
        held = []
        for sock in socks:
            sock.setblocking(False)
            held.append(asyncio.ensure_future(answer(*await asyncio.open_connection(sock=sock, limit=1 << 20))))
        await asyncio.sleep(0.5)
        return held

    return lambda socks: loop.run_until_complete(serve(socks))


def uvloop_tasks(work: Work) -> Hold:
    """Return the same on uvloop."""
    import uvloop

    return tasks(uvloop.new_event_loop, work)


def protocols(work: Work) -> Hold:
    """Return hand-written protocols on asyncio."""
    loop = asyncio.new_event_loop()

    async def serve(socks: list[socket.socket]) -> object:
        held = []
        for sock in socks:
            sock.setblocking(False)
            held.append(await loop.create_connection(HandProtocol, sock=sock))
        await asyncio.sleep(0.5)
        return held

    return lambda socks: loop.run_until_complete(serve(socks))


def makefile(work: Work) -> Hold:
    """Return buffered files, one for each way."""
    def hold(socks: list[socket.socket]) -> object:
        files = [(sock.makefile("rb"), sock.makefile("wb")) for sock in socks]
        for reading, writing in files:
            header = reading.read(4)
            writing.write(header + reading.read(HEADER.unpack(header)[0]))
            writing.flush()
        return files

    return hold


def multiprocessing(work: Work) -> Hold:
    """Return multiprocessing's `Connection`s."""
    from multiprocessing.connection import Connection

    def hold(socks: list[socket.socket]) -> object:
        conns = [Connection(os.dup(sock.fileno())) for sock in socks]
        for conn in conns:
            conn.send_bytes(conn.recv_bytes())
        return conns

    return hold


def twisted(work: Work) -> Hold:
    """Return Twisted's `Int32StringReceiver`s."""
    from twisted.protocols.basic import Int32StringReceiver

    from .twisted_ends import Reactor, Strings

    def hold(socks: list[socket.socket]) -> object:
        from twisted.internet import reactor

        answered: list[int] = []

        class Echo(Strings, Int32StringReceiver):
            MAX_LENGTH = 1 << 20

            def stringReceived(self, string: bytes) -> None:
                self.sendString(string)
                answered.append(1)

        held = [Echo() for _ in socks]
        for sock, protocol in zip(socks, held, strict=True):
            Reactor.adopt(sock, protocol)
        while len(answered) < len(socks) or reactor.getWriters():  # type: ignore[attr-defined]
            reactor.iterate(0.1)  # type: ignore[attr-defined]
        return held

    return hold


CONTENDERS = {name: partial(contender, hold) for name, hold in {
    "core": framed, "core, FrameSelector": selected, "pure": framed, "pure, FrameSelector": selected,
    "bare sockets": bare, "multiprocessing": multiprocessing, "makefile": makefile, "Protocol": protocols,
    "StreamReader": partial(tasks, asyncio.new_event_loop), "uvloop, StreamReader": uvloop_tasks,
    "Twisted": twisted}.items()}
