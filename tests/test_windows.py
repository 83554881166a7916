"""What Windows has not: every module is imported, and every way of I/O works, without the names and modules of POSIX.

On Linux they are taken away before sockframe is imported; what runs on Windows itself, tests/matrix says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT

#: Take POSIX away, behind what the standard library makes of it.
BEFORE = """
import asyncio, multiprocessing.connection, multiprocessing.reduction, os, select, signal, socket, socketserver, ssl
import subprocess, sys, tempfile, threading, time

GONE = {
    os: "fork forkpty register_at_fork writev readv sendfile set_blocking get_blocking getuid geteuid killpg getpgid "
        "setsid sched_getaffinity wait4 mkfifo pipe2",
    select: "epoll poll kqueue EPOLLIN EPOLLOUT POLLIN POLLOUT POLLERR POLLHUP",
    signal: "SIGALRM SIGHUP SIGKILL SIGCHLD SIGPIPE SIGUSR1 setitimer alarm pthread_sigmask pthread_kill",
    socket: "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SO_REUSEPORT",
    socketserver: "ForkingMixIn UnixStreamServer",
    multiprocessing.reduction: "DupFd",
}
for owner, names in GONE.items():
    for name in names.split():
        vars(owner).pop(name, None)

def pair_of_sockets(*_):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]

socket.socketpair = pair_of_sockets
for name in ("fcntl", "resource", "termios", "pwd", "grp", "posix_ipc"):
    sys.modules[name] = None
"""

EVERY_MODULE = """
import pathlib, importlib
import sockframe
folder = pathlib.Path(sockframe.__file__).parent
for path in sorted(folder.rglob("*.py")):
    name = ".".join(("sockframe", *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
    if path.stem != "__main__" and not name.startswith("sockframe._core"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in ("twisted", "click", "rich"):
                raise
print(len([name for name in sys.modules if name.startswith("sockframe")]))
"""

EXCHANGE = """
from sockframe import FramedSocket, LengthPrefix

class Impatient:
    def settimeout(self, timeout):
        pass

    def gettimeout(self):
        return None

    def recv(self, size):
        raise TimeoutError("at once")

    send = recv

conn = FramedSocket(Impatient(), LengthPrefix())
for call in conn.recv, lambda: conn.send(b"x"):
    try:
        call()
        raise AssertionError
    except TimeoutError:
        pass

near, far = (FramedSocket(sock, LengthPrefix()) for sock in socket.socketpair())
large = bytes(range(256)) * 5000
with near, far:
    near.send(b"one")
    near.send_many([b"two", b"", b"three"])
    assert far.recv() == b"one" and far.recv_many() == [b"two", b"", b"three"]
    sender = threading.Thread(target=near.send, args=(large,))
    sender.start()
    target = bytearray(len(large))
    assert far.recv_into(target) == len(large) and target == large
    sender.join()
    for timeout, kind in (0, BlockingIOError), (0.01, TimeoutError):
        try:
            far.recv(timeout=timeout)
            raise AssertionError(kind)
        except kind:
            pass
    near.setblocking(False)
    near.send(large)
    assert near.gettimeout() == 0
    sender = threading.Thread(target=near.flush, kwargs={"timeout": 10})
    sender.start()
    assert far.recv(timeout=10) == large
    sender.join()
    near.shutdown(socket.SHUT_WR)
    assert list(far) == []

    # Who waits is woken.
    ended = []
    def wait():
        try:
            near.recv(timeout=None)
        except OSError as error:
            ended.append(error.errno)
    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)  # by when it waits; a call that comes later finds it closed
    near.close()
    waiting.join(10)
    assert ended == [9], ended
"""

SELECTOR = """
from sockframe import EndOfStream, FramedSocket, FrameSelector, LengthPrefix

assert FrameSelector()._epoll is None
pairs = [[FramedSocket(sock, LengthPrefix()) for sock in socket.socketpair()] for _ in range(5)]
with FrameSelector() as selector:
    assert selector.select(0.01) == []
    for number, (_, ours) in enumerate(pairs):
        selector.register(ours, number)
    for number, (theirs, _) in enumerate(pairs):
        theirs.send(b"%d" % number)
    got = []
    while len(got) < 5:
        got += [(key.data, frames) for key, frames in selector.select(5)]
    assert sorted(got) == [(number, [b"%d" % number]) for number in range(5)]

    # What another thread changes while select() waits is seen: a tail that it leaves, and what it closes.
    theirs, ours = pairs[0]
    def change():
        time.sleep(0.2)  # by when select() waits; what comes sooner it sees as well
        ours.send(bytes(4 << 20), timeout=0)
        assert ours.unsent
        assert len(theirs.recv(timeout=10)) == 4 << 20
        theirs.send(b"it came")
        pairs[1][1].close()
    thread = threading.Thread(target=change)
    thread.start()
    got = {}
    while len(got) < 2:
        got.update((key.data, frames) for key, frames in selector.select())
    thread.join()
    assert got[0] == [b"it came"] and got[1].errno == 9, got

    # A socket that was closed behind our back hurts no other.
    pairs[2][1].sock.close()
    pairs[3][0].send(b"still")
    got = {}
    while len(got) < 2:
        got.update((key.data, frames) for key, frames in selector.select(5))
    assert got[3] == [b"still"] and isinstance(got[2], OSError), got
    pairs[4][0].close()
    ((key, error),) = selector.select(5)
    assert key.data == 4 and isinstance(error, EndOfStream)
"""

SERVERS = """
import sockframe
from sockframe import LengthPrefix
from sockframe.server import Server

for mode in ("threads", "select"):
    server = Server(bytes.upper, ("127.0.0.1", 0), LengthPrefix(), mode=mode)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with sockframe.connect(server.address, LengthPrefix(), timeout=10) as conn:
        conn.send_many([b"one", b"two"])
        assert [conn.recv(), conn.recv()] == [b"ONE", b"TWO"]
        server.stop()
        assert list(conn) == []
    thread.join()
for make in (lambda: Server(bytes, ("127.0.0.1", 0), LengthPrefix(), mode="processes"),
             lambda: Server(bytes, "no such path", LengthPrefix()),
             lambda: sockframe.connect("no such path", LengthPrefix())):
    try:
        make()
        raise AssertionError(make)
    except (ValueError, OSError) as error:
        assert isinstance(error, ValueError) or error.errno == __import__("errno").EAFNOSUPPORT, error
"""

ON_LOOP = """
from sockframe import LengthPrefix, aio

async def handler(stream):
    async for frame in stream:
        await stream.send(frame.upper())

async def main():
    server = await aio.serve(handler, ("127.0.0.1", 0), LengthPrefix())
    async with server:
        stream = await aio.connect(server.address, LengthPrefix())
        async with stream:
            await stream.send(b"one")
            assert await stream.recv() == b"ONE"

import selectors
loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
loop.run_until_complete(main())
loop.close()
"""

MESSAGES = """
import multiprocessing.connection as original
from sockframe.drop_in import multiprocessing as ours

assert all(getattr(ours, name) is getattr(original, name) for name in ours.__all__)
"""

SCRIPTS = {"every module": EVERY_MODULE, "an exchange": EXCHANGE, "a selector": SELECTOR, "servers": SERVERS,
           "an event loop": ON_LOOP, "multiprocessing": MESSAGES}


@pytest.mark.parametrize("what", SCRIPTS)
def test_without_posix(wing: Any, what: str) -> None:
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"{BEFORE}{SCRIPTS[what]}"], text=True, check=False,
                          env=environment, timeout=LIMIT * 6, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stdout
