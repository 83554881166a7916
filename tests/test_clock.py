"""A wall clock that jumps, forward and back: deadlines are those of the monotonic one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT
from shimmed import HERE, environment
from test_shim import shim

__all__ = ["shim"]  # a fixture

ROOT = HERE.parent

#: What is done while each look at the wall clock finds it a day later, or earlier: a deadline by it would pass at once,
#: or never come.
SCRIPT = """
import asyncio, ctypes, os, socket, sys, threading, time
sys.path.insert(0, sys.argv[1])
from scripted import LIMIT, OwnMethods, Task
import sockframe.server
from sockframe import EndOfStream, FramedSocket, FrameSelector, LengthPrefix, aio, connect
from sockframe.drop_in.multiprocessing import Connection

shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
assert abs(time.time() - time.time()) > 80_000, "the clock does not jump"
FRAMING = LengthPrefix()

def fails(call, *args, **how):
    try:
        call(*args, **how)
    except TimeoutError:
        return
    raise AssertionError(f"{call} has not timed out")

def pair(kind=socket.socket):
    return [FramedSocket(kind(fileno=sock.detach()), FRAMING) for sock in socket.socketpair()]

def later(call, *args):
    threading.Timer(0.05, call, args).start()

before = shim.shim_clock()
for kind in (socket.socket, OwnMethods):
    left, right = pair(kind)
    with left, right:
        for receive in (right.recv, right.recv_many, right.recv_batch,
                        lambda **how: right.recv_into(bytearray(9), **how)):
            fails(receive, timeout=0.02)               # in time, though the clock goes back
            task = Task(receive, timeout=LIMIT)        # and not before, though it goes on
            time.sleep(0.02)
            assert task.thread.is_alive()
            left.send(b"one")
            task.result()
        right.settimeout(0.02)
        fails(right.recv)
        fails(left.send, bytes(1 << 23), timeout=0.02)
        fails(left.flush, timeout=0.02)
left, right = pair()
with left, right, FrameSelector() as selector:
    selector.register(right)
    assert selector.select(0.02) == []
    task = Task(selector.select, LIMIT)
    time.sleep(0.02)
    assert task.thread.is_alive()
    left.send(b"one")
    assert [frames for _, frames in task.result()] == [[b"one"]]
one, other = (Connection(sock.detach()) for sock in socket.socketpair())
with one, other:
    assert not one.poll(0.02)
    other.send_bytes(b"one")
    assert one.poll(LIMIT)
assert shim.shim_clock() == before, "somebody has asked for the wall clock"

for mode in ("select", "threads"):
    with sockframe.server.Server(bytes, ("127.0.0.1", 0), FRAMING, mode=mode, idle_timeout=0.3) as server:
        task = Task(server.serve_forever)
        with connect(server.address, FRAMING, timeout=LIMIT) as conn:
            for number in range(3):
                conn.send(b"%d" % number)
                assert conn.recv() == b"%d" % number   # not idle, though days have passed
            try:
                conn.recv()
            except EndOfStream:
                pass
            else:
                raise AssertionError("it was not sent away")
        server.stop()
        task.result()

async def on_loop():
    one, other = socket.socketpair()
    stream = await aio.attach(FramedSocket(one, FRAMING))
    try:
        await asyncio.wait_for(stream.recv(), 0.02)
    except asyncio.TimeoutError:
        pass
    later(other.send, b"\\0\\0\\0\\3one")
    assert await asyncio.wait_for(stream.recv(), LIMIT) == b"one"
    stream.close()
    await stream.wait_closed()
    other.close()

asyncio.run(on_loop())
"""


@pytest.mark.parametrize("jump", ["86400", "-86400"])
def test_deadlines_go_by_the_monotonic_clock(wing: Any, shim: Path, jump: str) -> None:
    """M6, M9: in every call, selector, server and event loop; and nobody asks what time it is."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, str(HERE)], text=True, timeout=LIMIT * 6,
                          env={**environment(shim, wing.name), "SHIM_CLOCK": jump},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout


def test_no_source_asks_for_the_wall_clock() -> None:
    """M9."""
    wall = re.compile(r"CLOCK_REALTIME|gettimeofday|\btime\(NULL\)|\btime\.time\b|import .*\btime_ns\b|\bdatetime\b"
                      r"|from time import .*\b(time|time_ns)\b")
    files = [file for folder in ("csrc", "src") for kind in ("*.c", "*.h", "*.py", "*.pyx")
             for file in (ROOT / folder).rglob(kind)]
    assert len(files) > 40
    assert [str(file) for file in files if wall.search(file.read_text())] == []
