"""Processes that are killed (SIGKILL) in the midst of a frame: the peer, as every receiver sees it, and ourselves."""

from __future__ import annotations

import asyncio
import os
import random
import select as system
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aio_ends import Ends, Runner, contexts, ends, passes, until
from message_ends import ours
from scripted import LIMIT, Task, noise, over_tcp
from serving import FRAMING, Counter
from stream_ends import ours as streams
from test_server import mode, serve, still_answers

from sockframe import EndOfStream, FramingError, IncompleteFrameError, aio, connect
from sockframe.aio import FrameProtocol

__all__ = ["contexts", "ends", "mode", "ours", "serve", "streams"]  # fixtures

FRAMES = [b"one", b"", noise(40_000)]
WHOLE = b"".join(struct.pack("!I", len(frame)) + frame for frame in FRAMES)
CUTS = {"header": b"\0\0", "announced": b"\0\0\1\0", "payload": b"\0\0\1\0half of it"}

SOCKETS = {"pair": socket.socketpair, "tcp": over_tcp}


class Process:
    """A forked process that does something with a socket, and then waits to be killed."""

    def __init__(self, work: Callable[[], object], *close: Any) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        try:
            signal.alarm(int(10 * LIMIT))
            for each in close:
                each.close()
            work()
            while True:
                signal.pause()
        finally:
            os._exit(1)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        assert os.waitpid(self.pid, 0)[1] == signal.SIGKILL


@pytest.fixture(params=SOCKETS)
def ends_of_a_peer(request: pytest.FixtureRequest) -> Callable[[bytes, bool], tuple[socket.socket, Process]]:
    """Return what connects to a process that sends some bytes; it leaves what was sent to it `unread`, or gets none."""
    def begin(data: bytes, unread: bool) -> tuple[socket.socket, Process]:
        here, there = SOCKETS[request.param]()
        if unread:
            here.sendall(b"never read")
        process = Process(lambda: there.sendall(data), here)
        there.close()
        return here, process

    return begin


def until_here(frames: list[bytes]) -> None:
    """Wait until all whole frames have been received."""
    end = time.monotonic() + LIMIT
    while len(frames) < len(FRAMES):
        assert time.monotonic() < end, "no frames"
        time.sleep(0.002)


def receivers(target: bytearray) -> dict[str, Callable[[Any, list[bytes]], object]]:
    """Return each way to receive frames until there are no more."""
    def again(receive: Callable[[Any], Any]) -> Callable[[Any, list[bytes]], None]:
        def run(conn: Any, frames: list[bytes]) -> None:
            while True:
                frames += receive(conn)
        return run

    return {
        "recv": again(lambda conn: [conn.recv()]), "recv_many": again(lambda conn: conn.recv_many(2)),
        "recv_batch": again(lambda conn: conn.recv_batch().tolist()),
        "recv_into": again(lambda conn: [bytes(target[:conn.recv_into(target)])]),
        "deadline": again(lambda conn: [conn.recv(timeout=2 * LIMIT)]),
        "iteration": lambda conn, frames: frames.extend(conn),
    }


def is_told(error: Any, unread: bool) -> bool:
    """Say whether an error tells of a peer that was cut off: with bytes unread, the kernel resets the connection."""
    return isinstance(error, (IncompleteFrameError, ConnectionError) if unread else IncompleteFrameError)


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("how", receivers(bytearray()))
def test_a_killed_peer_is_told_of_behind_its_frames(wing: Any, ends_of_a_peer: Any, how: str, cut: str,
                                                    unread: bool) -> None:
    """P9: while the receiver waits for the rest of a frame."""
    sock, process = ends_of_a_peer(WHOLE + CUTS[cut], unread)
    with wing.FramedSocket(sock, FRAMING) as conn:
        frames: list[bytes] = []
        task = Task(receivers(bytearray(50_000))[how], conn, frames)
        until_here(frames)
        process.kill()
        with pytest.raises((FramingError, OSError)) as caught:
            task.result()
        assert is_told(caught.value, unread)
        assert frames == FRAMES


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("cut", ["header", "payload"])
def test_a_selector_tells_of_a_killed_peer(wing: Any, ends_of_a_peer: Any, cut: str, unread: bool) -> None:
    """P9: and the other connections go on."""
    sock, process = ends_of_a_peer(WHOLE + CUTS[cut], unread)
    alive, near = wing.pair(FRAMING)
    with alive, near, wing.FramedSocket(sock, FRAMING) as conn, wing.FrameSelector() as selector:
        selector.register(conn)
        selector.register(alive)
        got: dict[Any, list[Any]] = {conn: [], alive: []}
        while len(got[conn]) < len(FRAMES) or not got[alive]:
            if not got[alive]:
                near.send(b"alive")
            for key, found in selector.select(LIMIT):
                got[key.conn] += found
        process.kill()
        near.send(b"still alive")
        while len(selector) > 1 or got[alive][-1] != b"still alive":
            for key, found in selector.select(LIMIT):
                got[key.conn] += found if isinstance(found, list) else [found]
        assert got[conn][:-1] == FRAMES
        assert is_told(got[conn][-1], unread)


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_a_message_of_a_killed_process_is_an_error(ours: Any, ends_of_a_peer: Any, cut: str, unread: bool) -> None:
    """P9: for multiprocessing's connections too, where the original takes some of it for an end."""
    sock, process = ends_of_a_peer(WHOLE + CUTS[cut], unread)
    with ours.Connection(sock.detach()) as conn:
        assert [conn.recv_bytes() for _ in FRAMES] == FRAMES
        task = Task(conn.recv_bytes)
        process.kill()
        with pytest.raises(OSError) as caught:
            task.result()
        assert unread or str(caught.value) == "got end of file during message"


class Noting(FrameProtocol):
    """Notes what it is called with."""

    def __init__(self, frames: list[bytes], done: Any) -> None:
        super().__init__(FRAMING)
        self.frames = frames
        self.done = done

    def frames_received(self, frames: list[bytes]) -> None:
        self.frames += frames

    def fault_received(self, error: Exception) -> None:
        self.done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.done.done():
            self.done.set_exception(exc or EOFError())


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("cut", ["announced"])
@pytest.mark.parametrize("how", ["recv", "recv_many", "iteration", "protocol", "drop-in"])
def test_a_stream_of_an_event_loop_tells_of_a_killed_peer(ends: Ends, streams: Any, ends_of_a_peer: Any, how: str,
                                                         cut: str, unread: bool) -> None:
    """P9."""
    frames: list[bytes] = []

    async def receive(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if how == "protocol":
            done = loop.create_future()
            transport, _ = await loop.create_connection(lambda: Noting(frames, done), sock=sock)
            try:
                await done
            finally:
                transport.abort()
        if how == "drop-in":
            reader, writer = await streams.open_connection(sock=sock)
            try:
                while True:
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    frames.append(await reader.readexactly(size))
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
        stream = await aio.attach(ends.wing.FramedSocket(sock, FRAMING))
        try:
            while how == "recv":
                frames.append(await stream.recv())
            while how == "recv_many":
                frames.extend(await stream.recv_many(2))
            async for frame in stream:
                frames.append(frame)  # noqa: PERF401
        finally:
            stream.close()
            await stream.wait_closed()

    async def watch(sock: socket.socket, process: Process) -> Any:
        task = asyncio.ensure_future(receive(sock))
        await until(lambda: len(frames) == len(FRAMES))
        await passes(3)
        process.kill()
        await asyncio.wait([task])
        await passes(3)
        return task.exception()

    sock, process = ends_of_a_peer(WHOLE + CUTS[cut], unread)
    sock.setblocking(False)
    error = Runner("asyncio")(watch, sock, process)
    assert frames == FRAMES
    assert is_told(error, unread) or (how == "drop-in" and isinstance(error, asyncio.IncompleteReadError))


# ---- clients and servers ----

@pytest.mark.parametrize("cut", ["announced"])
def test_a_client_that_is_killed_costs_its_connection(serve: Any, cut: str) -> None:
    """P9: its frames have been handled, and the others are served."""
    handled = Counter()

    def handler(payload: bytes) -> bytes:
        handled.add()
        return b"x"

    with serve(handler) as server, server.connect() as other:
        def client() -> None:
            conn = connect(server.address, FRAMING, timeout=LIMIT)
            conn.sock.sendall(WHOLE + CUTS[cut])
            for _ in FRAMES:
                conn.recv()
            os.write(rope, b"!")
            signal.pause()

        bell, rope = os.pipe()
        process = Process(client, other)
        os.close(rope)
        assert os.read(bell, 1) == b"!"
        os.close(bell)
        process.kill()
        server.says("stream ended")
        other.send(b"hello")
        assert other.recv() == b"x"
        assert handled.value == len(FRAMES) + 1


def test_a_server_that_is_killed_in_its_reply(wing: Any, serve: Any, mode: str) -> None:
    """P10: the client has whole replies, and is told; where a process is one connection's, the others are served."""
    def handler(payload: bytes) -> Any:
        return (noise(100_000, number) for number in range(10_000)) if payload == b"many" else payload

    with serve(handler) as server, server.connect() as conn:
        conn.send(b"many")
        replies = [conn.recv()]
        pid = server.pid
        if mode == "processes":
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((EndOfStream, IncompleteFrameError, ConnectionError)):
            while True:
                replies.append(conn.recv())
        assert replies == [noise(100_000, number) for number in range(len(replies))]
        if mode == "processes":
            still_answers(server)
        else:
            assert os.waitpid(server.pid, 0)[1] == signal.SIGKILL
            server.pid = 0


# ---- ourselves ----

def payload(number: int) -> bytes:
    """Return one of the payloads that a process sends until it is killed."""
    return b"%d:" % number + noise((0, 10, 1000, 20_000, 200_000)[number % 5])


def senders(wing: Any, sock: socket.socket, connection: Any) -> dict[str, Callable[[], object]]:
    """Return each way to send frames for ever."""
    def numbers() -> Any:
        number = 0
        while True:
            yield number
            number += 1

    def one_by_one(send: Callable[[bytes], object]) -> None:
        for number in numbers():
            send(payload(number))

    def lists() -> None:
        with wing.FramedSocket(sock, FRAMING) as conn:
            for number in numbers():
                conn.send_many([payload(10 * number + each) for each in range(10)])

    def flushed() -> None:
        conn = wing.FramedSocket(sock, FRAMING)
        conn.setblocking(False)
        with wing.FrameSelector(progress=True) as selector:
            selector.register(conn)
            for number in numbers():
                system.select([], [conn], [])  # or a frame is not taken
                conn.send(payload(number))
                while conn.unsent:
                    selector.select(LIMIT)

    def on_loop() -> None:
        async def run() -> None:
            stream = await aio.attach(wing.FramedSocket(sock, FRAMING))
            for number in numbers():
                await stream.send(payload(number))
                await stream.drain()

        asyncio.run(run())

    return {
        "send": lambda: one_by_one(wing.FramedSocket(sock, FRAMING).send), "list": lists,
        "iterator": lambda: wing.FramedSocket(sock, FRAMING).send_many(map(payload, numbers())),
        "selector": flushed, "event loop": on_loop,
        "multiprocessing": lambda: one_by_one(connection(sock.detach()).send_bytes),
    }


@pytest.mark.parametrize("how", senders(None, None, None))  # type: ignore[arg-type]
def test_killed_while_we_send(wing: Any, ends: Ends, ours: Any, how: str) -> None:
    """P10: what the peer gets is whole frames, and at most one that is cut off, which it is told of."""
    choice = random.Random(7)
    for kind in SOCKETS.values():
        for least in (5, 70_000, choice.randrange(1_500_000)):
            here, there = kind()
            with here:
                process = Process(lambda there=there: senders(wing, there, ours.Connection)[how](), here)
                there.close()
                here.settimeout(LIMIT)
                decoder, frames, got = wing.Decoder(FRAMING), [], 0
                while got < least:
                    data = here.recv(min(100_000, least - got))
                    assert data, "it has ended by itself"
                    got += len(data)
                    frames += decoder.decode(data)
                process.kill()
                while data := here.recv(100_000):
                    got += len(data)
                    frames += decoder.decode(data)
            assert frames == [payload(number) for number in range(len(frames))]
            if decoder.buffered:
                with pytest.raises(IncompleteFrameError):
                    decoder.finish()
            else:
                assert decoder.finish() == []
