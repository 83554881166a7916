"""A server without descriptors for new clients: those that are connected are served, nothing spins, and as soon as
there are some again it accepts again. The limit is taken from it, and given back, while it runs."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from commands import start
from scripted import LIMIT, noise
from serving import FRAMING, MODES, Counter, serving
from test_cli_serve import Served

from sockframe import FramedSocket, connect

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets another process's limits")

#: What a loop may do in a second without having to be called spinning: it looks again five times, and what it serves
#: wakes it too. A slow machine has it do less.
OFTEN = 50


@contextmanager
def exhausted(pid: int) -> Iterator[None]:
    """Leave a process no descriptor more than it has, while the block lasts."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(4096) if number not in numbers)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def knock(address: Any) -> socket.socket:
    """Connect, and send a frame, whether anybody accepts or not."""
    sock = socket.create_connection(address, timeout=LIMIT)
    sock.sendall(b"\0\0\0\5hello")
    return sock


def is_served(sock: socket.socket) -> None:
    """Check that the frame has been answered."""
    with FramedSocket(sock, FRAMING) as conn:
        assert conn.recv(timeout=LIMIT) == b"hello"


@pytest.mark.parametrize("mode", MODES)
def test_a_server_goes_on_without_descriptors(wing: Any, mode: str, alone: None) -> None:
    """S16: in all three modes; both what it accepts and how often it goes round are counted."""
    accepts, rounds = Counter(), Counter()

    def count(server: Any) -> None:
        for name, counter in (("accept", accepts), ("stopping", rounds)):
            setattr(server, name, counted(getattr(server, name), counter, server))

    def counted(function: Any, counter: Counter, server: Any) -> Callable[[], Any]:
        ours = [0]  # of the server itself: children have their own

        def call() -> Any:
            ours[0] = ours[0] or os.getpid()
            if ours[0] == os.getpid():
                counter.add()
            return function()

        return call

    with serving(wing, bytes, mode=mode, then=count) as server, server.connect() as one, server.connect() as other:
        for conn in (one, other):
            conn.send(b"in")
            assert conn.recv() == b"in"
        with exhausted(server.pid):
            waiting = [knock(server.address) for _ in range(5)]
            server.says("can't accept: ", "Too many open files (trying again)")
            begun, tries, loops = time.monotonic(), accepts.value, rounds.value
            served = 0
            while time.monotonic() < begun + 0.7:
                for conn in (one, other):
                    conn.send(noise(1000))
                    assert conn.recv() == noise(1000)
                    served += 1
                time.sleep(0.01)
            took = time.monotonic() - begun
            assert accepts.value - tries <= 2 + OFTEN / 5 * took, "it tries to accept over and over"
            assert rounds.value - loops <= 2 + served * (mode == "select") * 4 + OFTEN * took, "it spins"
            assert server.log.read_text().count("can't accept") == 1
        for sock in waiting:
            is_served(sock)
        one.send(b"still in")
        assert one.recv() == b"still in"


#: A server on an event loop, of which another process takes the descriptors.
ON_LOOP = """
import asyncio
from sockframe import LengthPrefix, aio
async def answer(stream):
    async for payload in stream:
        await stream.send(payload)
async def main():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with await aio.serve(answer, ("127.0.0.1", 0), LengthPrefix()) as server:
        print(server.address[1], flush=True)
        await server.serve_forever()
asyncio.run(main())
"""


def test_a_server_on_an_event_loop_goes_on_without_descriptors(wing: Any) -> None:
    """S16: it is asyncio that accepts, and tries again after a second; no call of ours is in its way."""
    with subprocess.Popen([sys.executable, "-c", ON_LOOP], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"}) as process:
        try:
            assert process.stdout is not None
            address = ("127.0.0.1", int(process.stdout.readline()))
            with connect(address, FRAMING, timeout=LIMIT) as conn:
                conn.send(b"in")
                assert conn.recv() == b"in"
                with exhausted(process.pid):
                    waiting = [knock(address) for _ in range(5)]
                    for number in range(50):
                        conn.send(noise(number))
                        assert conn.recv() == noise(number)
                        time.sleep(0.002)
                for sock in waiting:
                    is_served(sock)
        finally:
            process.kill()


@pytest.mark.parametrize("mode", MODES)
def test_the_command_goes_on_without_descriptors(wing: Any, mode: str) -> None:
    """S16: also where each payload goes to a command, for which there are none either: that costs its connection."""
    with start(wing, "serve", "127.0.0.1:0", "-f", "u32be", "--mode", mode, "--exec", "cat") as process:
        try:
            server = Served(process)
            conn, other = server.connect("u32be"), server.connect("u32be")
            for each in (conn, other):
                each.send(b"in")
                assert each.recv() == b"in"
            with exhausted(process.pid):
                waiting = knock(conn.getpeername())
                server.said("can't accept: ")
                if mode != "processes":  # where a child has a limit of its own
                    conn.send(b"no command can be run")
                    with pytest.raises((EOFError, ConnectionError)):
                        conn.recv()
            is_served(waiting)
            other.send(b"still in")
            assert other.recv() == b"still in"
            conn.close()
            other.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
