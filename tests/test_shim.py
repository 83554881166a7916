"""System calls that move one byte, are interrupted, would have to wait or find no buffer, all the time (shim.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT
from shimmed import HERE, compile_shim, environment

#: Frames of all kinds of sizes, by every call there is; each child does them all and checks every byte.
SCRIPT = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from scripted import LIMIT, Task, noise
from sockframe import FramedSocket, FrameSelector, LengthPrefix, Lines

whole = int(sys.argv[2])  # the largest payload
passing = sys.argv[3] == "passing"
sizes = [size for size in (0, 1, 3, 127, 128, 2043, 2044, 2045, 5000, 16380, 16385, 65532, 65537, 200_000, 1 << 20)
         if size <= whole]

def again(call, *args, **how):
    # ENOBUFS and ENOMEM come out, and the same call goes on; a frame that was taken is finished by flush().
    while True:
        try:
            return call(*args, **how)
        except OSError as error:
            if not passing or error.errno not in (12, 105):
                raise

def send(conn, payload, timeout):
    while True:
        try:
            conn.send(payload, timeout=timeout)
            return
        except OSError as error:
            if not passing or error.errno not in (12, 105):
                raise
            if conn.unsent:
                again(conn.flush, timeout=timeout)
                return

def send_all(conn, payloads, timeout):
    for payload in payloads:
        send(conn, payload, timeout)
    if not passing:
        conn.send_many(payloads, timeout=timeout)
        conn.send_many(iter(payloads), timeout=timeout)

def receive_all(conn, count, timeout):
    frames, target, turn = [], bytearray(whole), 0
    while len(frames) < count:
        turn += 1
        if turn % 3 == 0:
            size = again(conn.recv_into, target, timeout=timeout)
            frames.append(bytes(target[:size]))
        elif turn % 3 == 1:
            frames.append(again(conn.recv, timeout=timeout))
        else:
            frames += again(conn.recv_many, count - len(frames), timeout=timeout)
    return frames

payloads = [noise(size) for size in sizes]
rounds = 1 if passing else 3
for framing, timeout in ((LengthPrefix(), None), (LengthPrefix(), 600.0), (Lines(), None)):
    left, right = (FramedSocket(sock, framing) for sock in socket.socketpair())
    with left, right:
        task = Task(send_all, left, payloads, timeout)
        assert receive_all(right, len(payloads) * rounds, timeout) == payloads * rounds
        task.result()
if not passing:
    near, far = (FramedSocket(sock, LengthPrefix()) for sock in socket.socketpair())
    with near, far, FrameSelector() as selector:
        selector.register(far)
        task = Task(near.send_many, payloads)
        frames = []
        while len(frames) < len(payloads):
            for _, more in selector.select(LIMIT):
                frames += more
        assert frames == payloads
        task.result()
        far.setblocking(False)
        try:
            far.recv()
        except BlockingIOError:
            pass
        else:
            raise AssertionError("nothing was sent")
assert os.environ["LD_PRELOAD"]
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the shim."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs LD_PRELOAD as on Linux")
    if shutil.which("cc") is None:
        assert os.environ.get("SOCKFRAME_CORE") == "0", "where the core was built, there is a C compiler"
        pytest.skip("needs a C compiler: cc")
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize(("calls", "polls", "largest"), [
    ("1", "0", 2_045),
    ("E1E0", "E0", 16_385),
    ("A9A", "0RE", 16_385),
    ("7AE3EA1A0", "RE00", 65_537),
    ("0A00E05", "R0", 1 << 20),
], ids=["one byte a call", "interrupted", "never ready", "mixed", "mostly whole"])
def test_every_byte_passes(wing: Any, shim: Path, calls: str, polls: str, largest: int) -> None:
    """S7, S1, S3, S4, S6: short counts, EINTR, EAGAIN after k bytes and readiness that was none change no frame."""
    run(wing, shim, calls, polls, largest, "exact")


@pytest.mark.parametrize("calls", ["05B3N", "1BN"])
def test_a_kernel_without_memory_is_an_error_and_nothing_is_lost(wing: Any, shim: Path, calls: str) -> None:
    """S9: the error comes out, what was moved is accounted for, and the next call goes on."""
    run(wing, shim, calls, "0", 5000, "passing")


@pytest.mark.parametrize("what", ["receive", "send", "select", "messages", "serve", "loop"])
def test_one_fault_of_each_kind_at_every_call(wing: Any, shim: Path, what: str) -> None:
    """S1, S3, S4, S5, S7, S9, S15: EINTR, EAGAIN, short counts, ENOBUFS, ENOMEM, ECONNRESET, ETIMEDOUT, EPIPE and
    EMFILE, each at the first call, the second, and so on to the last, of exchanges over all that receives and sends."""
    shimmed(wing, shim, "--every-index", "--only", what)


def test_faults_at_random(wing: Any, shim: Path) -> None:
    """S15: by schedules that are written out where one fails; more of them are `python -m tests.shimmed`."""
    shimmed(wing, shim, "--seed", "1", "--rounds", "5", "--seconds", "1e9")


def shimmed(wing: Any, shim: Path, *arguments: str) -> None:
    """Run exchanges of shimmed.py in a process that has the shim."""
    done = subprocess.run([sys.executable, "-W", "error", str(HERE / "shimmed.py"), *arguments], text=True,
                          env=environment(shim, wing.name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=LIMIT * 12, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]


def run(wing: Any, shim: Path, calls: str, polls: str, largest: int, how: str) -> None:
    """Let all kinds of frames pass in a process that has the shim."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, str(HERE), str(largest), how], text=True,
                          env={**environment(shim, wing.name), "SHIM": calls, "SHIM_POLL": polls},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT * 12, check=False)
    assert done.returncode == 0, done.stdout
