"""Sockets that gevent has patched: a call that waits lets others run, and greenlets take turns as threads do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from scripted import LIMIT

#: What every script below begins with; gevent patches before the package is imported, or afterwards.
START = """
import sys
import gevent, gevent.monkey
if sys.argv[2] == "before":
    gevent.monkey.patch_all()
import sockframe
gevent.monkey.patch_all()
sys.path.insert(0, sys.argv[1])
import socket
from sockframe import FramedSocket, FrameSelector, LengthPrefix, transport

LIMIT = 20
left, right = socket.socketpair()
assert not transport.is_plain(left) and not transport.is_plain(right)
left, right = FramedSocket(left, LengthPrefix()), FramedSocket(right, LengthPrefix())

def spawn(function, *args, **keywords):
    def run():
        try:
            return function(*args, **keywords)
        except Exception as error:
            return error
    greenlet = gevent.spawn(run)
    gevent.sleep(0.01)  # until it waits
    return greenlet
"""


@pytest.fixture(params=["before", "afterwards"])
def run(wing: Any, request: pytest.FixtureRequest) -> Any:
    """Run a script in a process of its own, which gevent patches before the package is imported, or afterwards."""
    if importlib.util.find_spec("gevent") is None:
        assert sys.version_info >= (3, 14), "gevent belongs to the tests' dependencies here"
        pytest.skip("needs gevent, which the tests' dependencies have up to Python 3.13")

    def run_script(script: str) -> None:
        done = subprocess.run([sys.executable, "-c", START + script, str(Path(__file__).parent), request.param],
                              env={**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT * 6, check=False)
        assert done.returncode == 0, done.stdout

    return run_script


def test_a_greenlet_that_waits_lets_the_others_run(run: Any) -> None:
    """O1: none of its calls goes to the kernel behind gevent's back."""
    run("""
buffer = bytearray(9)
for receive in (right.recv, right.recv_many, lambda **how: right.recv_into(buffer, **how), lambda **_: next(right)):
    waiting = spawn(receive, timeout=LIMIT)
    left.send(b"a frame")  # this greenlet runs, though the other one waits
    assert waiting.get() in (b"a frame", [b"a frame"], 7)
big = bytes(8 << 20)
for send in (left.send, lambda payload: left.send_many([payload]), lambda payload: left.send_many(iter([payload]))):
    waiting = spawn(send, big)
    assert right.recv(timeout=LIMIT) == big
    assert waiting.get() is None
""")


def test_greenlets_take_turns(run: Any) -> None:
    """O1, K4, K5: two greenlets of a thread are no call from inside another one, frames stay whole, and turns count."""
    run("""
tasks = [spawn(right.recv, timeout=LIMIT) for _ in range(4)]
error = spawn(right.recv, timeout=0.02).get()
assert type(error) is TimeoutError and str(error) == "timed out", error
error = spawn(right.recv, timeout=0).get()
assert type(error) is BlockingIOError and "another thread is at work" in str(error), error
left.send_many([b"1", b"2", b"3", b"4"])
assert [task.get() for task in tasks] == [b"1", b"2", b"3", b"4"]

payloads = [b"%d" % number * 300_000 for number in range(6)]
tasks = [spawn(left.send, payload, timeout=LIMIT) for payload in payloads]
assert sorted(right.recv(timeout=LIMIT) for _ in payloads) == payloads
assert [task.get() for task in tasks] == [None] * 6

def inside():
    yield b"x"
    try:
        left.send(b"y")
    except RuntimeError as error:
        assert "already at work" in str(error)
    else:
        raise AssertionError("a call from inside another one")

left.send_many(inside())
assert right.recv() == b"x"
""")


def test_deadlines_and_close_reach_a_greenlet(run: Any) -> None:
    """O1, M1, K3: the deadline is for the whole call; whoever waits is woken by close()."""
    run("""
right.settimeout(0.02)
for how in ({}, {"timeout": 0.02}):
    error = spawn(right.recv, **how).get()
    assert type(error) is TimeoutError, error
left.sock.send(b"\\0\\0")
error = spawn(right.recv, timeout=0.02).get()
assert type(error) is TimeoutError, error
left.sock.send(b"\\0\\1x")
assert right.recv(timeout=LIMIT) == b"x"
assert right.gettimeout() == 0.02

tasks = [spawn(right.recv, timeout=None), spawn(right.recv_many, timeout=LIMIT),
         spawn(right.send, bytes(8 << 20), timeout=None)]
right.close()
for task in tasks:
    error = task.get()
    assert type(error) is OSError and error.errno == 9, error
assert right.sock.fileno() == -1
""")


def test_a_selector_waits_among_greenlets(run: Any) -> None:
    """O1, N1: it waits by what gevent has put in the place of poll, and sees what the connection holds."""
    run("""
left.send_many([b"one", b"two"])
assert right.recv() == b"one"
with FrameSelector() as selector:
    selector.register(right, "it")
    ((key, frames),) = selector.select(LIMIT)
    assert (key.data, frames) == ("it", [b"two"])
    waiting = spawn(selector.select, LIMIT)
    left.send(b"three")
    ((key, frames),) = waiting.get()
    assert (key.data, frames) == ("it", [b"three"])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    try:
        FramedSocket(datagrams, LengthPrefix())
    except ValueError as error:
        assert "a stream socket is needed" in str(error)
    else:
        raise AssertionError("datagrams are no stream")
""")


def test_greenlets_speak_tls(run: Any, tmp_path: Path) -> None:
    """O1, N5: a patched `ssl.SSLSocket`, and start_tls() over a patched socket: who waits lets the others run."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    run(f"FOLDER = {str(tmp_path)!r}" + """
import ssl
client = ssl.create_default_context(cafile=FOLDER + "/authority.pem")
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(FOLDER + "/server.pem")

def exchange(left, right):
    waiting = spawn(right.recv, timeout=LIMIT)
    left.send(b"a frame")  # this greenlet runs, though the other one waits
    assert waiting.get() == b"a frame"
    big = bytes(4 << 20)
    waiting = spawn(left.send, big)
    assert right.recv(timeout=LIMIT) == big
    assert waiting.get() is None
    error = spawn(right.recv, timeout=0.02).get()
    assert type(error) is TimeoutError, error
    tasks = [spawn(left.send, b"%d" % number * 300_000, timeout=LIMIT) for number in range(4)]
    assert sorted(right.recv(timeout=LIMIT) for _ in tasks) == [b"%d" % number * 300_000 for number in range(4)]
    with FrameSelector() as selector:
        selector.register(right)
        waiting = spawn(selector.select, LIMIT)
        left.send_many([b"one", b"two"])
        frames = waiting.get()[0][1]
        while len(frames) < 2:
            frames += selector.select(LIMIT)[0][1]
        assert frames == [b"one", b"two"]
    waiting = spawn(left.recv, timeout=LIMIT)
    left.close()
    error = waiting.get()
    assert isinstance(error, OSError), error

handshake = spawn(right.start_tls, server, server_side=True, timeout=LIMIT)
left.start_tls(client, server_hostname="localhost", timeout=LIMIT)
assert handshake.get() == 0
exchange(left, right)
right.close()

left, right = socket.socketpair()
handshake = spawn(server.wrap_socket, right, server_side=True)
left = FramedSocket(client.wrap_socket(left, server_hostname="localhost"), LengthPrefix())
right = FramedSocket(handshake.get(), LengthPrefix())
exchange(left, right)
right.close()
""")
