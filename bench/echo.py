"""Echo servers under many connections: one process serves, on a core of its own, another is all clients.

Each connection keeps a number of frames in flight: it sends them at once, and again when all have come
back. A contender is a server that decodes and encodes frame by frame, with a handler in Python, in one
thread. The clients are the same for all: they compare whole flights, without decoding them. What counts is the
processor time that the server spends, in user mode and in the kernel: with clients fast enough for it, it is what
one core can serve; and other programs on the machine, which take time from both, don't distort it.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import random
import select
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

HEADER = struct.Struct(">I")

Run = Callable[[], Iterator[list[bytes]]]


@dataclass(frozen=True)
class Work:
    """Frames to echo: `flights` times, on each of `connections`, `flight` payloads of `size` bytes."""

    name: str
    connections: int
    flight: int
    size: int
    flights: int

    @property
    def count(self) -> int:
        """The number of frames."""
        return self.connections * self.flight * self.flights

    def one_flight(self) -> list[bytes]:
        """Return the payloads of a flight, the same in every process."""
        letters = bytes(random.Random(self.name).choices(b"abcdefghijklmnopqrstuvwxyz", k=self.size))
        return [(b"%d " % number + letters)[:self.size] for number in range(self.flight)]

    def payloads(self) -> list[bytes]:
        """Return all payloads: which connection is first does not matter."""
        return self.one_flight() * (self.connections * self.flights)


WORKS = {work.name: work for work in [
    Work("1 x 1, 64 B", 1, 1, 64, 4000),
    Work("100 x 1, 64 B", 100, 1, 64, 60),
    Work("100 x 16, 64 B", 100, 16, 64, 30),
    Work("100 x 4, 16 KiB", 100, 4, 16384, 10),
]}


def handler(payload: bytes) -> bytes:
    """Answer with the payload itself."""
    return payload


# ---- servers: each says at which port it listens, and serves for ever ----

Tell = Callable[[int], None]
LOCAL = ("127.0.0.1", 0)


def ours(tell: Tell) -> None:
    """Serve by `sockframe.server`, on the wing in use."""
    from sockframe import LengthPrefix
    from sockframe.server import Server

    server = Server(handler, LOCAL, LengthPrefix(4), mode="select")
    tell(server.address[1])
    server.serve_forever()


def by_hand(tell: Tell) -> None:
    """Serve by the best loop over `selectors` for just this framing: no errors, no limits."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(LOCAL)
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
            data = self.sock.recv(262144)
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
            with suppress(BlockingIOError):
                while True:
                    sock = listener.accept()[0]
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, Client(sock).ready)


def stream_reader(tell: Tell) -> None:
    """Serve by asyncio's `StreamReader` and `StreamWriter`, as their documentation has it."""
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = HEADER.unpack(await reader.readexactly(4))[0]
                reply = handler(await reader.readexactly(length))
                writer.write(HEADER.pack(len(reply)) + reply)
                await writer.drain()

    async def serve() -> None:
        server = await asyncio.start_server(answer, *LOCAL)
        tell(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


# ---- clients ----

def run_server(serve: str) -> None:
    """Serve in this process, on the last core that it may use; its port is printed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    globals()[serve](lambda port: print(port, flush=True))


def contender(serve: Callable[[Tell], None], wing: str = "") -> Callable[[Work], Run]:
    """Return the factory of a contender whose server is `serve`."""
    def make(work: Work) -> Run:
        if wing == "1":
            importlib.import_module("sockframe._core")  # or there is no such contender
        code = (f"import sys; sys.path[:] = {sys.path!r}; from bench import echo; echo.run_server({serve.__name__!r})")
        server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                                  env={**os.environ, "SOCKFRAME_CORE": wing})
        atexit.register(server.wait)
        atexit.register(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        if hasattr(os, "sched_setaffinity"):
            cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, cores - {max(cores)} or cores)
        run = fly(work, ("127.0.0.1", port))
        if sys.platform == "linux":
            # The processor time of another process, as clock_getcpuclockid(3) names it.
            run.clock = partial(time.clock_gettime, ~server.pid << 3 | 2)  # type: ignore[attr-defined]
        return run

    return make


def fly(work: Work, address: tuple[str, int]) -> Run:
    """Return what has all connections send their flights and takes them back."""
    payloads = work.one_flight()
    conns = {}
    poller = select.epoll()
    for _ in range(work.connections):
        sock = socket.create_connection(address, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conns[sock.fileno()] = sock
        poller.register(sock, select.EPOLLIN)
    flight = b"".join([HEADER.pack(len(payload)) + payload for payload in payloads])
    length = len(flight)

    def run() -> Iterator[list[bytes]]:
        left = dict.fromkeys(conns, work.flights)
        here = dict.fromkeys(conns, b"")
        for sock in conns.values():
            sock.sendall(flight)
        while left:
            for number, _ in poller.poll(60):
                sock = conns[number]
                data = sock.recv(1 << 20)
                if len(data) < length:
                    if not data:
                        raise ConnectionError("the server closed a connection")
                    data = here[number] + data
                    if len(data) < length:
                        here[number] = data
                        continue
                    here[number] = b""
                left[number] -= 1
                if left[number]:
                    sock.sendall(flight)
                else:
                    del left[number]
                yield payloads if data == flight else [data]

    return run


CONTENDERS = {"core": contender(ours, "1"), "pure": contender(ours, "0"), "selectors": contender(by_hand),
              "StreamReader": contender(stream_reader)}
