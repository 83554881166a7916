"""A thousand peers that each announce a gibibyte and send a little of it: what that costs, by each way to receive."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripted import LIMIT

import sockframe
import sockframe.server
from sockframe import Decoder, FramedSocket, FrameSelector, LengthPrefix, aio
from sockframe.drop_in.multiprocessing import Connection

from .meter import resident, sample

FRAMING = LengthPrefix(max_length=1 << 31)
ANNOUNCED = struct.pack("!I", 1 << 30)
FRAME = b"\0\0\0\5hello"

#: What peers send behind their header, one after the other: next to nothing, or a little more.
SENT = {"4 bytes": (4,), "up to 100 KB": (0, 4, 100, 10_000, 100_000)}

#: Bytes for a thousand peers that are malloc()'s, of which each piece has 16 more than it gives away.
SLACK = 1 << 20

#: A receiver: given the receiving sockets it makes ready, and yields what receives all that is here, and what says
#: how many bytes its processes have resident and in addresses.
Receiver = Callable[[list[socket.socket]], Any]


def sizes(*processes: int) -> tuple[int, int]:
    """Return the resident memory and the address space of processes, in bytes."""
    chosen = processes or (os.getpid(),)
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[0]) for pid in chosen)
    return sum(map(resident, chosen)), pages * os.sysconf("SC_PAGE_SIZE")


def blocking(make: Callable[[socket.socket], Any], call: Callable[[Any], Any]) -> Receiver:
    """Receive from one connection after the other, without waiting."""
    @contextmanager
    def receiver(sockets: list[socket.socket]) -> Iterator[Any]:
        conns = [make(sock) for sock in sockets]

        def receive() -> None:
            for conn in conns:
                with suppress(BlockingIOError):
                    while True:
                        call(conn)

        yield receive, sizes
        for conn in conns:
            conn.close()

    return receiver


class Fed:
    """A decoder, and the socket whose bytes it gets."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = Decoder(FRAMING)
        self.close = sock.close

    def receive(self) -> None:
        room = self.decoder.get_buffer()
        count = self.sock.recv_into(room)
        room.release()
        self.decoder.buffer_updated(count)
        self.decoder.next_frame()


@contextmanager
def select(sockets: list[socket.socket]) -> Iterator[Any]:
    """Receive by a selector."""
    conns = [FramedSocket(sock, FRAMING) for sock in sockets]
    with FrameSelector() as selector:
        for conn in conns:
            selector.register(conn)
        yield lambda: selector.select(0), sizes
    for conn in conns:
        conn.close()


@contextmanager
def on_loop(sockets: list[socket.socket]) -> Iterator[Any]:
    """Receive by streams of an event loop, a task for each."""
    loop = asyncio.new_event_loop()

    async def receive(stream: Any) -> None:
        async for _ in stream:
            pass

    async def begin() -> list[Any]:
        return [asyncio.create_task(receive(await aio.attach(FramedSocket(sock, FRAMING)))) for sock in sockets]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    tasks = loop.run_until_complete(begin())
    yield lambda: loop.run_until_complete(asyncio.sleep(0.01)), sizes
    loop.run_until_complete(end())
    loop.close()


RECEIVERS: dict[str, Receiver] = {
    "recv": blocking(lambda sock: FramedSocket(sock, FRAMING), lambda conn: conn.recv()),
    "recv_many": blocking(lambda sock: FramedSocket(sock, FRAMING), lambda conn: conn.recv_many()),
    "recv_batch": blocking(lambda sock: FramedSocket(sock, FRAMING), lambda conn: conn.recv_batch()),
    "Decoder": blocking(Fed, Fed.receive),
    "multiprocessing": blocking(lambda sock: Connection(sock.detach()), lambda conn: conn.recv_bytes()),
    "FrameSelector": select,
    "event loop": on_loop,
}
SERVERS = [*(f"server: {mode}" for mode in sockframe.server.MODES), "server: event loop"]


def lie(peers: list[socket.socket], sent: tuple[int, ...], receive: Callable[[], Any]) -> int:
    """Announce, send a little, and wait until it is received; return what the law allows for it, in bytes."""
    law = SLACK
    for number, peer in enumerate(peers):
        data = ANNOUNCED + bytes(sent[number % len(sent)])
        peer.sendall(data)
        law += 2 * len(data) + (64 << 10)
    until_received(peers, receive)
    return law


def until_received(peers: list[socket.socket], receive: Callable[[], Any]) -> None:
    """Receive until nothing is on its way: unix(7) tells how much a peer has not yet read."""
    end = time.monotonic() + 6 * LIMIT
    while any(struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0\0\0\0"))[0] for peer in peers):
        assert time.monotonic() < end, "not all is received"
        receive()


def measure(name: str, sent: tuple[int, ...], count: int) -> dict[str, int]:
    """Have so many peers lie to a receiver; return how much its memory has grown by, and what the law allows."""
    if name in SERVERS:
        return measure_server(name.partition(": ")[2], sent, count)
    pairs = [socket.socketpair() for _ in range(count)]
    peers = [peer for _, peer in pairs]
    for ours, _ in pairs:
        ours.setblocking(False)
    with RECEIVERS[name]([ours for ours, _ in pairs]) as (receive, tell):
        for peer in peers:
            peer.sendall(FRAME)
        until_received(peers, receive)
        sample()
        before = tell()
        law = lie(peers, sent, receive)
        after = tell()
    for peer in peers:
        peer.close()
    return result(before, after, law)


def measure_server(mode: str, sent: tuple[int, ...], count: int) -> dict[str, int]:
    """Do the same to a server, which is a process of its own."""
    from conftest import load_wing  # both take long
    from serving import serving

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        with (serving_on_loop(path) if mode == "event loop" else serving(
                load_wing(sockframe.wing), bytes, address=path, framing=FRAMING, mode=mode, max_connections=count,
                backlog=count, grace=0.0)) as server:
            peers = []
            for _ in range(count):
                peer = socket.socket(socket.AF_UNIX)
                peer.settimeout(LIMIT)
                peer.connect(path)
                peer.sendall(FRAME)
                assert peer.recv(100) == FRAME
                peers.append(peer)
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            assert len(children) == (count if mode == "processes" else 0)
            processes = [server.pid, *map(int, children)]
            before = sizes(*processes)
            law = lie(peers, sent, lambda: time.sleep(0.01))
            after = sizes(*processes)
            for peer in peers:
                peer.close()
    return result(before, after, law)


class OnLoop:
    """A server on an event loop, in a process of its own."""

    def __init__(self, path: str) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        try:
            asyncio.run(self.serve(path))
        finally:
            os._exit(1)

    @staticmethod
    async def serve(path: str) -> None:
        async def answer(stream: Any) -> None:
            async for payload in stream:
                await stream.send(payload)

        async with await aio.serve(answer, path, FRAMING, backlog=4096) as server:
            await server.serve_forever()


@contextmanager
def serving_on_loop(path: str) -> Iterator[OnLoop]:
    """Run a server on an event loop."""
    server = OnLoop(path)
    try:
        end = time.monotonic() + LIMIT
        while True:
            with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
                probe.connect(path)
                break
            assert time.monotonic() < end, "it does not listen"
            time.sleep(0.01)
        yield server
    finally:
        os.kill(server.pid, 9)
        os.waitpid(server.pid, 0)


def result(before: tuple[int, int], after: tuple[int, int], law: int) -> dict[str, int]:
    """Return what there is to tell."""
    return {"resident": after[0] - before[0], "space": after[1] - before[1], "law": law}
