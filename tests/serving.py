"""A server of frames in a process of its own, which must end in order: its log, and clients for it."""

from __future__ import annotations

import logging
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT

import sockframe.server
from sockframe import FramedSocket, Framing, LengthPrefix, connect

FRAMING = LengthPrefix(4)
MODES = list(sockframe.server.MODES)
LOCAL = ("127.0.0.1", 0)


class Running:
    """A server that runs in another process."""

    def __init__(self, server: Any, log: Path) -> None:
        self.address = server.address
        self.framing = server.framing
        self.pid = 0
        self.log = log

    def connect(self) -> FramedSocket:
        """Return a new client."""
        return connect(self.address, self.framing, timeout=LIMIT)

    def stop(self) -> None:
        """Ask it to stop gracefully."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has ended, in order: see run()."""
        if not self.pid:
            return
        end = time.monotonic() + 3 * LIMIT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.pid = 0
                pytest.fail(f"the server has not ended\n{self.log.read_text()}")
            time.sleep(0.005)
        self.pid = 0
        assert status == 0, f"the server's status is {status}\n{self.log.read_text()}"

    def says(self, *texts: str) -> str:
        """Wait until the log holds each text, and return it."""
        end = time.monotonic() + LIMIT
        while not all(text in (log := self.log.read_text()) for text in texts):
            assert time.monotonic() < end, f"no {texts} in:\n{log}"
            time.sleep(0.005)
        return log


def of_wing(wing: Any) -> Any:
    """Return the Server over a wing's classes."""
    return type("Server", (sockframe.server.Server,), {"FramedSocket": wing.FramedSocket,
                                                       "FrameSelector": wing.FrameSelector})


def descriptors() -> int:
    """Return the number of descriptors that are open in this process."""
    return len(os.listdir("/dev/fd"))


def run(server: Any, log: Path, spare: int | None, lifetime: int) -> None:
    """Serve until a signal comes; at last nothing may be left: no child, no thread, no descriptor."""
    signal.alarm(lifetime)  # the test is gone
    logging.basicConfig(level=logging.DEBUG, filename=log, format="%(levelname)s %(message)s", force=True)
    # As it would be in a fresh process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if spare is not None:
        free = sorted(set(range(4096)) - {int(name) for name in os.listdir("/dev/fd")})
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    before = descriptors() - 5
    with server, sockframe.server.signals(server):
        server.serve_forever()
    assert server.connections == 0, server.connections
    assert descriptors() == before, os.listdir("/dev/fd")
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(LIMIT)  # it has done its work, and needs the processor once more to end
    assert threading.active_count() == 1, threading.enumerate()
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError("a child is left")


@contextmanager
def serving(wing: Any, handler: Callable[[bytes], Any], *, address: Any = LOCAL, framing: Framing = FRAMING,
            spare: int | None = None, then: Callable[[Any], object] = id, lifetime: int = int(10 * LIMIT),
            **options: Any) -> Iterator[Running]:
    """Run a server in a process of its own, and stop it at the end, or after the `lifetime` in seconds; `spare` is
    how many files it may open, and `then` is called with the server once it is made."""
    assert threading.active_count() == 1, threading.enumerate()  # as fork wants it
    server = of_wing(wing)(handler, address, framing, **options)
    then(server)
    with tempfile.NamedTemporaryFile("r+", prefix="server-", suffix=".log") as log:
        running = Running(server, Path(log.name))
        sys.stdout.flush()
        sys.stderr.flush()
        running.pid = os.fork()
        if not running.pid:
            status = 1
            try:
                run(server, running.log, spare, lifetime)
                status = 0
            except BaseException:
                logging.exception("the server broke off")
            finally:
                os._exit(status)
        for sock in (server.listener, server.bell, server._rope, server.alarm, server._signal):
            sock.close()
        try:
            yield running
        finally:
            if running.pid:
                running.stop()
                running.wait()


class Counter:
    """A number that processes share."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)

    def add(self) -> int:
        """Count one more, and return how many there are."""
        number = self.value + 1
        self.memory[:] = struct.pack("q", number)
        return number

    @property
    def value(self) -> int:
        return int(struct.unpack("q", self.memory)[0])
