"""Echo servers under many connections: one process serves, on a core of its own, another is all clients.

Each connection keeps a number of frames in flight: it sends them at once, and again when all have come back. The
clients are the same for all, in C where there is a compiler: they compare whole flights, without decoding them. What
counts is the processor time that the server spends, in user mode and in the kernel: with clients fast enough for
it, it is what one core can serve; and other programs on the machine, which take time from both, don't distort it.
"""

from __future__ import annotations

import ctypes
import importlib
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from .processes import clock_of, other_end, pin
from .servers import SERVERS
from .streams import HEADER, KIB, Run, UnfitError, numbered


@dataclass(frozen=True)
class Work:
    """Frames to echo: `flights` times, on each of `connections`, `flight` payloads of `size` bytes.

    Beside them, `idle` connections have sent a frame once and are silent since.
    """

    name: str
    connections: int
    flight: int
    size: int
    flights: int
    idle: int = 0

    @property
    def count(self) -> int:
        """The number of frames."""
        return self.connections * self.flight * self.flights

    def one_flight(self) -> list[bytes]:
        """Return the payloads of a flight, the same in every process."""
        return numbered(self.name, self.size, self.flight)

    def payloads(self) -> list[bytes]:
        """Return all payloads: which connection is first does not matter."""
        return self.one_flight() * (self.connections * self.flights)


WORKS = {work.name: work for work in [
    Work("1 x 1, 64 B", 1, 1, 64, 2000),
    Work("100 x 1, 64 B", 100, 1, 64, 60),
    Work("100 x 16, 64 B", 100, 16, 64, 30),
    Work("1,000 x 4, 64 B", 1000, 4, 64, 6),
    Work("100 x 16 of 10,000, 64 B", 100, 16, 64, 30, idle=9900),
    Work("100 x 4, 16 KiB", 100, 4, 16 * KIB, 10),
]}
QUICK = ("100 x 16, 64 B",)


def run_server(name: str) -> None:
    """Serve in this process, on the last core that it may use; its port is printed."""
    pin(slice(-1, None))
    SERVERS[name](lambda port: print(port, flush=True))


#: What a server imports in a process of its own: asked for before it is started, so that a lack of it is told here.
NEEDS = {"C on epoll": "bench.floor", "uvloop, StreamReader": "uvloop", "Twisted": "twisted"}


def contender(name: str, work: Work) -> Run:
    """Return the flights to a server."""
    wing = name.partition(",")[0]
    importlib.import_module(f"sockframe._{wing}" if wing in ("core", "pure") else NEEDS.get(name, "bench"))
    if name.endswith("on uvloop"):
        importlib.import_module("uvloop")
    clients = Clients(work)
    process, port = other_end("from bench import echo; echo.run_server(sys.argv[1])", name)
    pin(slice(None, -1))
    clients.connect(int(port))

    def check() -> Iterator[list[bytes]]:
        clients.fly(1)
        yield work.payloads()

    return Run(check, clients.fly, clock_of(process))


class Clients:
    """All clients of a work, in C where there is a compiler. What comes back must be what was sent."""

    def __init__(self, work: Work) -> None:
        from . import floor

        self.work = work
        self.flight = b"".join([HEADER.pack(len(payload)) + payload for payload in work.one_flight()])
        self.every = work.connections + work.idle
        self.numbers = (ctypes.c_int * self.every)()
        try:
            self._library = floor.library()
        except ImportError:
            if work.idle:
                raise UnfitError("so many connections are made by a client in C alone") from None
            self._library = None
        self.fly: Callable[[int], None] = self._fly if self._library else self._fly_in_python

    def connect(self, port: int) -> None:
        """Connect them all."""
        if self._library:
            self._done(self._library.echo_connect(port, self.numbers, self.every, self.flight, len(self.flight)))
            return
        self._socks = {}
        for _ in range(self.every):
            sock = socket.create_connection(("127.0.0.1", port), 60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socks[sock.fileno()] = sock

    def _done(self, result: int) -> None:
        if result:
            raise ConnectionError("a client did not get back what it had sent")

    def _fly(self, times: int) -> None:
        self._done(self._library.echo_fly(self.numbers, self.work.connections, self.flight, len(self.flight),
                                          self.work.flights * times))

    def _fly_in_python(self, times: int) -> None:
        poller = select.poll()
        left = dict.fromkeys(self._socks, self.work.flights * times)
        here = dict.fromkeys(self._socks, b"")
        for number, sock in self._socks.items():
            poller.register(number, select.POLLIN)
            sock.sendall(self.flight)
        while left:
            for number, _ in poller.poll(60_000):
                here[number] += self._socks[number].recv(1 << 20)
                if len(here[number]) < len(self.flight):
                    self._done(not here[number])
                    continue
                self._done(here[number] != self.flight)
                here[number] = b""
                left[number] -= 1
                if left[number]:
                    self._socks[number].sendall(self.flight)
                else:
                    del left[number]


CONTENDERS = {name: partial(contender, name) for name in SERVERS}
