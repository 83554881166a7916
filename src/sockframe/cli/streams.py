"""What the commands read from and write to: files, pipes, terminals, connections."""

from __future__ import annotations

import errno
import io
import math
import os
import select
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..framings import Framing
from ..polling import POLLIN, poll
from ..sockets import FramedSocket, connect

#: The most bytes of one read.
CHUNK = 65536

#: Seconds between two looks at what can't be waited for: a file that grows, a time that another thread sets.
PAUSE = 0.2


def _standard(stream: Any, name: str) -> Any:
    """Return the bytes below a standard stream. Raises `OSError` where it was closed before we began."""
    if stream is None:
        raise OSError(errno.EBADF, "it is closed", name)
    return stream.buffer


class Pump:
    """Lets a socket have what a thread reads, for whoever can wait for sockets alone, as on Windows.

    What it holds is one read and what the socket holds. Nobody waits for the thread: a read may never end.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._error: OSError | None = None
        self._near, self._far = socket.socketpair()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        """Read all, until nobody takes it."""
        with self._far:
            try:
                while data := self._read():
                    self._far.sendall(data)
            except OSError as error:
                self._error = error  # of the read, or nobody is there to be told

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._near.fileno()

    def read(self) -> bytes:
        """Return the next bytes, when there are some; b"" at the end. Raises what the reading raised."""
        data = self._near.recv(CHUNK)
        if not data and self._error is not None:
            raise self._error
        return data

    def close(self) -> None:
        """Take no more of it."""
        self._near.close()


class Input:
    """A file, or the standard input ("-"), as bytes as they come."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        self._own = path != "-"
        self._stream: Any = open(path, "rb", 0) if self._own else _standard(sys.stdin, self.name)  # noqa: SIM115
        self._raw: Any = getattr(self._stream, "raw", self._stream)  # nothing is read ahead
        self._pump: Pump | None = None
        self._number: int | None = None
        with suppress(AttributeError, io.UnsupportedOperation):  # no real file stands behind it
            self._number = self._stream.fileno()
        status = os.fstat(self._number) if self._number is not None else None
        self.regular = status is not None and stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.regular and status else None

    @property
    def waits(self) -> bool:
        """Whether a read may have to wait for bytes."""
        return self._number is not None and not self.regular

    @property
    def lag(self) -> int:
        """The milliseconds after which what has come to it can be waited for."""
        return 0 if self._pump is None else math.ceil(PAUSE * 1000)

    def fileno(self) -> int:
        """Return the descriptor to wait for; only where `waits`."""
        assert self._number is not None
        if self._pump is None:
            if hasattr(select, "poll"):
                return self._number
            self._pump = Pump(self._next)
        return self._pump.fileno()

    def read(self) -> bytes:
        """Return the next bytes, at most 64 KiB, when there are some; b"" at the end. An `OSError` tells the file."""
        if self._number is None:
            return bytes(self._stream.read(CHUNK))
        try:
            return self._next() if self._pump is None else self._pump.read()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None

    def _next(self) -> bytes:
        """Return the next bytes of the file itself."""
        while (data := self._raw.read(CHUNK)) is None:  # whoever gave it to us has made it non-blocking
            poller = poll()
            poller.register(self._number, POLLIN)
            poller.poll()
        return bytes(data)

    def chunks(self, follow: bool = False) -> Iterator[bytes]:
        """Yield all bytes; with `follow` go on as the file grows. Raises `OSError` where it shrinks."""
        count = 0
        while True:
            data = self.read()
            count += len(data)
            if data:
                yield data
            elif not follow:
                return
            else:
                size = os.fstat(self._stream.fileno()).st_size
                if size < count:
                    raise OSError(f"{self.name} was cut to {size} bytes, {count} had been read")
                time.sleep(PAUSE)

    def close(self) -> None:
        """Close the file, unless a thread may be reading it; the standard input stays open."""
        if self._pump is not None:
            self._pump.close()
        elif self._own:
            self._stream.close()


class OutputError(Exception):
    """The standard output can't be written to."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Output:
    """The standard output, as bytes and as lines. Raises `OutputError`."""

    def __init__(self) -> None:
        self._stream: Any = None
        try:
            self._stream = _standard(sys.stdout, "standard output")
        except OSError as error:
            raise OutputError(error) from None
        self._encoding = getattr(sys.stdout, "encoding", None) or "ascii"

    def write(self, data: bytes) -> None:
        """Write some bytes."""
        try:
            self._stream.write(data)
        except OSError as error:
            raise OutputError(error) from None

    def line(self, text: str) -> None:
        """Write a line, with escapes for letters that the encoding lacks."""
        self.write(text.encode(self._encoding, "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Let all out that was written."""
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(error) from None


@contextmanager
def meter(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many bytes were done, of `total`, where stderr is a terminal and stdout is none.

    Gives the function that takes the number of bytes done since its last call.
    """
    console = Console(stderr=True)
    if not console.is_terminal or sys.stdout.isatty():
        yield lambda count: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def open_connection(address: tuple[str, int] | str, framing: Framing, timeout: float | None,
                    context: ssl.SSLContext | None) -> FramedSocket:
    """Connect to an address, over TLS where there is a context; a Unix socket's server has its path for a name."""
    name = address if context is not None and isinstance(address, str) else None
    return connect(address, framing, timeout=timeout, tls=context, server_hostname=name)
