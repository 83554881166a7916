"""A shell command for each frame: the payload is its standard input, what it prints is the reply."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from .streams import CHUNK, PAUSE

#: Seconds by which a command is killed before the server's time is up: whoever waits for it may be killed then.
EARLY = 0.5


class ShellError(Exception):
    """A command gave no reply: it failed, took too long or printed too much."""


class Shell:
    """A handler that pipes payloads through a shell command, one process each: called by many threads at once.

    A command that does not end with 0, runs longer than `timeout` seconds or prints more than `limit` bytes
    raises `ShellError`; the latter two are killed with all that they started. No more than `limit` bytes are held.
    With `strip`, one newline at the end of what it prints is taken off. `stopping` may be set to what returns the
    time of time.monotonic() at which commands have to end, or None as long as there is no such time.
    """

    stopping: Callable[[], float | None] = staticmethod(lambda: None)

    def __init__(self, command: str, limit: int, timeout: float | None, strip: bool) -> None:
        self._command = command
        self._limit = limit
        self._timeout = math.inf if timeout is None else timeout
        self._strip = strip
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __call__(self, payload: bytes) -> bytes:
        """Return the reply to a payload."""
        end = monotonic() + self._timeout
        try:
            # In a session of its own: Ctrl-C stops the server, which lets commands finish.
            process = subprocess.Popen(self._command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       bufsize=0, start_new_session=True)
        except OSError as error:
            raise self._error(f"can't be started: {error.strerror}") from None
        with process:
            with self._lock:
                self._running.add(process)
            try:
                reply = self._pump(process, payload, end)
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        code = process.wait(self._left(end))
                        break
            except BaseException:
                _kill(process)
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
        if code:
            raise self._error(f"ended with {code}" if code > 0 else f"was ended by signal {-code}")
        return reply[:-1] if self._strip and reply.endswith(b"\n") else reply

    def kill(self) -> None:
        """Kill the commands that run."""
        with self._lock:
            for process in self._running:
                _kill(process)

    def _error(self, words: str) -> ShellError:
        return ShellError(f"{self._command!r} {words}")

    def _left(self, end: float) -> float:
        """Return the seconds to wait until the next look at the time."""
        now = monotonic()
        if now >= end:
            raise self._error(f"took longer than {self._timeout:g} s")
        stop = self.stopping()
        if stop is not None and now >= stop - EARLY:
            raise self._error("was still at work when the server ended")
        return min(PAUSE, end - now)

    def _pump(self, process: subprocess.Popen[bytes], payload: bytes, end: float) -> bytes:
        """Give a command its input and return what it prints, both at once."""
        source: Any = process.stdout
        target: Any = process.stdin
        os.set_blocking(target.fileno(), False)
        rest, size = memoryview(payload), 0
        pieces: list[bytes] = []
        while True:
            if not rest:
                target.close()
            poller = select.poll()
            poller.register(source.fileno(), select.POLLIN)
            if not target.closed:
                poller.register(target.fileno(), select.POLLOUT)
            found = dict(poller.poll(math.ceil(self._left(end) * 1000)))
            if not target.closed and target.fileno() in found:
                try:
                    rest = rest[os.write(target.fileno(), rest[:CHUNK]):]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    rest = rest[:0]  # it wants no more of it
            if source.fileno() in found:
                data = os.read(source.fileno(), CHUNK)
                if not data:
                    return b"".join(pieces)
                pieces.append(data)
                size += len(data)
                if size > self._limit + self._strip:
                    raise self._error(f"printed more than {self._limit} bytes")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command that was not yet waited for, and what it started."""
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
