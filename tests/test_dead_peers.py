"""Peers that vanish without a word: a network of this test's own (network_namespaces(7)) is taken away under them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT

#: What every script below begins with: a network of its own with nothing but its loopback, which can go up and down.
START = """
import ctypes, fcntl, os, socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from scripted import LIMIT, OwnMethods, Task
from sockframe import FramedSocket, FrameSelector, LengthPrefix

CLONE_NEWUSER, CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x10000000, 0x40000000, 0x8914, 1
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)):
    print("no network namespace:", os.strerror(ctypes.get_errno()))
    sys.exit(77)

def loopback(flags):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))

def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other = listener.accept()[0]
    if sys.argv[2] == "own":
        one = OwnMethods(fileno=one.detach())
    return FramedSocket(one, LengthPrefix()), FramedSocket(other, LengthPrefix())

def fails(expected, call, **how):
    try:
        call(**how)
    except Exception as error:
        assert expected(error), repr(error)
        return
    raise AssertionError(f"{call} raised nothing")

def is_dead(error):
    return isinstance(error, ConnectionError) and not isinstance(error, TimeoutError) and error.errno == 110

loopback(IFF_UP)
conn, peer = connected()
"""


@pytest.fixture(params=["plain", "own"])
def run(wing: Any, request: pytest.FixtureRequest) -> Any:
    """Run a script in a network of its own; where there is none to be had, skip it, or fail (SOCKFRAME_PEERS=1)."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs network namespaces, which Linux has")

    def run_script(script: str) -> None:
        command = [sys.executable, "-W", "error", "-c", START + script, str(Path(__file__).parent), request.param]
        for sudo in ([], ["sudo", "-n", "--preserve-env=SOCKFRAME_CORE"]) if shutil.which("sudo") else ([],):
            done = subprocess.run([*sudo, *command], text=True, timeout=LIMIT * 6, check=False,
                                  env={**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"},
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 77:
                break
        if done.returncode == 77 and os.environ.get("SOCKFRAME_PEERS") != "1":
            pytest.skip(f"needs a network namespace of its own: {done.stdout.strip()}")
        assert done.returncode == 0, done.stdout

    return run_script


def test_keepalive_ends_a_receive_from_a_dead_peer(run: Any) -> None:
    """P1, M4: with a ConnectionError, as no retry is of use; a deadline before that is a TimeoutError."""
    run("""
conn.keepalive(1, 1, 2, user_timeout=2)
loopback(0)
for receive in (conn.recv, conn.recv_many, conn.recv_batch, lambda **how: conn.recv_into(bytearray(9), **how)):
    fails(lambda error: isinstance(error, TimeoutError) and str(error) == "timed out", receive, timeout=0.01)
fails(is_dead, conn.recv, timeout=LIMIT)
for timeout in (None, 0):  # the kernel tells it once; then, as of every socket that has failed, the stream has ended
    fails(lambda error: isinstance(error, EOFError), conn.recv, timeout=timeout)
conn.close()
peer.close()
""")


def test_the_user_timeout_ends_a_send_to_a_dead_peer(run: Any) -> None:
    """P1, M4: sending goes on for as long as the kernel has room, and then as long as the user timeout."""
    run("""
conn.keepalive(60, 60, 9, user_timeout=1.5)
loopback(0)
fails(is_dead, lambda: [conn.send(bytes(100_000), timeout=LIMIT) for _ in range(1000)])
fails(lambda error: isinstance(error, ConnectionError) and not isinstance(error, TimeoutError),
      lambda: conn.send(b"more", timeout=LIMIT))
conn.close()
peer.close()
""")


def test_a_selector_tells_of_a_dead_peer(run: Any) -> None:
    """P1, M4: as of a connection that failed; the others go on."""
    run("""
conn.keepalive(1, 1, 1, user_timeout=1)
alive, near = (FramedSocket(sock, LengthPrefix()) for sock in socket.socketpair())
with FrameSelector() as selector:
    selector.register(conn, "dead")
    selector.register(alive, "alive")
    loopback(0)
    near.send(b"x")
    results = dict((key.data, frames) for _ in range(2) for key, frames in selector.select(LIMIT))
    assert results["alive"] == [b"x"]
    assert is_dead(results["dead"]), results
for one in (conn, peer, alive, near):
    one.close()
""")


def test_without_keepalive_the_deadline_is_all_there_is(run: Any) -> None:
    """P1: a send to a dead peer is taken by the kernel, and what comes back to life delivers it."""
    run("""
loopback(0)
conn.send(b"into the void", timeout=LIMIT)
fails(lambda error: isinstance(error, TimeoutError) and str(error) == "timed out", conn.recv, timeout=0.05)
loopback(IFF_UP)
assert peer.recv(timeout=LIMIT) == b"into the void"
peer.send(b"back")
assert conn.recv(timeout=LIMIT) == b"back"
conn.close()
peer.close()
""")
