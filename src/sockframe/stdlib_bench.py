"""The quick benchmark: every line of the standard library over loopback TCP, from process to process.

The input is every `.py` file below a directory, as bytes, split at each newline: a file with n
newlines is n + 1 lines, the last of them what follows the last newline, most often nothing. The
lines joined by newlines are the files joined by newlines, so the SHA-256 of what arrived, put
together again, must be the one computed straight from the files; with as many frames as there are
lines, no frame can have been merged or split either.

A sender reads and splits the files, then listens; a receiver in another process connects, starts
its clock at the first byte, keeps every frame and stops the clock at the end of the stream. Hashing
comes after.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._wing import wing
from .errors import EndOfStream
from .framings import Framing, LengthPrefix, Lines
from .sockets import FramedSocket

FRAMINGS: dict[str, Framing] = {"lines": Lines("lf"), "length prefix": LengthPrefix(4)}

#: Who carries the frames: the two wings by `send_many` and `recv_many`; asyncio's StreamReader, and
#: StreamWriter with 1,024 frames to a write; the loops of Python's Socket Programming HOWTO, one frame
#: at a time, by which the others are measured.
CONTENDERS = ("core", "pure", "asyncio", "HOWTO")
YARDSTICK = "HOWTO"

#: Seconds after which a transfer that hasn't ended is given up.
PATIENCE = 120.0

_SKIPPED = {"__pycache__", "site-packages", "dist-packages"}


class BenchError(Exception):
    """The benchmark can't run, or a transfer broke off."""


@dataclass(frozen=True)
class Source:
    """The input as the files hold it: counts, sizes in bytes, and what must arrive."""

    directory: str
    files: int
    lines: int
    payload: int
    longest: int
    sha256: str


@dataclass(frozen=True)
class Transfer:
    """What arrived of one contender's run, and how long it took."""

    framing: str
    contender: str
    seconds: float
    frames: int
    sha256: str
    intact: bool


def stdlib() -> str:
    """Return the directory of the running Python's standard library."""
    return sysconfig.get_path("stdlib")


def contents(directory: str) -> Iterator[bytes]:
    """Yield every `.py` file below `directory`, in the order of their names."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(".py") and os.path.isfile(path):
                with open(path, "rb") as file:
                    yield file.read()


def survey(directory: str) -> Source:
    """Read the input and say what must arrive. Raises `BenchError` where there is none."""
    digest = hashlib.sha256()
    files = lines = payload = longest = 0
    for text in contents(directory):
        digest.update(text + b"\n")
        files += 1
        lines += text.count(b"\n") + 1
        payload += len(text) - text.count(b"\n")
        longest = max(longest, *map(len, text.split(b"\n")), 0)
    if not files:
        raise BenchError(f"no .py file in {directory}")
    return Source(directory, files, lines, payload, longest, digest.hexdigest())


def unavailable(contender: str) -> str | None:
    """Say why a contender can't run here, or return None where it can."""
    if contender in ("core", "pure"):
        try:
            importlib.import_module(f"sockframe._{contender}")
        except ImportError as error:
            return str(error)
    return None


# sockframe


def _send_sockframe(sock: socket.socket, framing: str, lines: list[bytes]) -> None:
    with FramedSocket(sock, FRAMINGS[framing]) as connection:
        connection.send_many(lines)


def _receive_sockframe(sock: socket.socket, framing: str, frames: list[bytes], longest: int) -> None:
    with FramedSocket(sock, FRAMINGS[framing]) as connection:
        try:
            while True:
                frames += connection.recv_many()
        except EndOfStream:
            return


# asyncio's streams; 1,024 frames to a write, which is faster than a write a frame


def _send_asyncio(sock: socket.socket, framing: str, lines: list[bytes]) -> None:
    import asyncio  # here, for the other commands start faster without it; see _start()

    async def main() -> None:
        _, writer = await asyncio.open_connection(sock=sock)
        for start in range(0, len(lines), 1024):
            batch = lines[start:start + 1024]
            if framing == "lines":
                writer.write(b"".join([line + b"\n" for line in batch]))
            else:
                writer.write(b"".join([len(line).to_bytes(4, "big") + line for line in batch]))
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())


def _receive_asyncio(sock: socket.socket, framing: str, frames: list[bytes], longest: int) -> None:
    import asyncio

    async def main() -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=max(65536, longest + 1))
        try:
            if framing == "lines":
                while True:
                    frames.append((await reader.readuntil(b"\n"))[:-1])
            else:
                while True:
                    length = int.from_bytes(await reader.readexactly(4), "big")
                    frames.append(await reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())


# the HOWTO's loops


class _HowtoSocket:
    """The class of the Socket Programming HOWTO with its two ways to tell messages apart.

    Its loops are kept: `send` until all is sent, `recv` of at most 2048 bytes into a list of chunks.
    A length takes two receive loops. Of lines, it takes what has come, finds the ends in it and
    sets aside what follows the last one; only new bytes are searched.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: bytes) -> None:
        total = 0
        while total < len(message):
            sent = self.sock.send(message[total:])
            if sent == 0:
                raise RuntimeError("socket connection broken")
            total += sent

    def receive(self, length: int) -> bytes:
        chunks = []
        received = 0
        while received < length:
            chunk = self.sock.recv(min(length - received, 2048))
            if chunk == b"":
                if received == 0:
                    break
                raise RuntimeError("socket connection broken")
            chunks.append(chunk)
            received += len(chunk)
        return b"".join(chunks)

    def messages(self) -> Iterator[bytes]:
        while True:
            header = self.receive(4)
            if header == b"":
                return
            length = int.from_bytes(header, "big")
            message = self.receive(length)
            if len(message) < length:
                raise RuntimeError("socket connection broken")
            yield message

    def lines(self) -> Iterator[bytes]:
        chunks: list[bytes] = []
        while True:
            chunk = self.sock.recv(2048)
            if chunk == b"":
                if chunks:
                    raise RuntimeError("socket connection broken")
                return
            start = 0
            end = chunk.find(b"\n")
            while end >= 0:
                chunks.append(chunk[start:end])
                yield b"".join(chunks)
                chunks = []
                start = end + 1
                end = chunk.find(b"\n", start)
            if start < len(chunk):
                chunks.append(chunk[start:])


def _send_howto(sock: socket.socket, framing: str, lines: list[bytes]) -> None:
    peer = _HowtoSocket(sock)
    if framing == "lines":
        for line in lines:
            peer.send(line + b"\n")
    else:
        for line in lines:
            peer.send(len(line).to_bytes(4, "big") + line)
    sock.close()


def _receive_howto(sock: socket.socket, framing: str, frames: list[bytes], longest: int) -> None:
    peer = _HowtoSocket(sock)
    for frame in peer.lines() if framing == "lines" else peer.messages():
        frames.append(frame)  # noqa: PERF402 (extend() would hide the frames from the progress bar)
    sock.close()


_SEND: dict[str, Callable[[socket.socket, str, list[bytes]], None]] = {
    "core": _send_sockframe, "pure": _send_sockframe, "asyncio": _send_asyncio, "HOWTO": _send_howto}
_RECEIVE: dict[str, Callable[[socket.socket, str, list[bytes], int], None]] = {
    "core": _receive_sockframe, "pure": _receive_sockframe, "asyncio": _receive_asyncio, "HOWTO": _receive_howto}


# the two processes of a transfer


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def sender(contender: str, framing: str, directory: str) -> None:
    """Prepare the lines, listen, say on which port, and send them to the first that connects."""
    lines = [line for text in contents(directory) for line in text.split(b"\n")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        _say(port=server.getsockname()[1], wing=wing)
        sock, _ = server.accept()
    with sock:
        _SEND[contender](sock, framing, lines)


def receiver(contender: str, framing: str, port: int, longest: int) -> None:
    """Receive all frames, saying now and then how many there are, and at the end what arrived."""
    frames: list[bytes] = []
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(0.25):
            _say(frames=len(frames))

    reporter = threading.Thread(target=report)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        reporter.start()
        try:
            select.select([sock], [], [])
            start = time.perf_counter()
            _RECEIVE[contender](sock, framing, frames, longest)
            seconds = time.perf_counter() - start
        finally:
            ended.set()
            reporter.join()
    digest = hashlib.sha256(b"\n".join(frames) + b"\n").hexdigest()
    _say(seconds=seconds, frames=len(frames), sha256=digest, wing=wing)


def _start(contender: str, role: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that imports what this one would, on the contender's wing."""
    # asyncio is imported by each of them, and before its clock starts.
    code = (f"import sys; sys.path[:] = {sys.path!r}; import asyncio; from sockframe import stdlib_bench; "
            f"stdlib_bench.{role}{(contender, *arguments)!r}")
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if contender == "core" else "0"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _listen(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def transfer(source: Source, framing: str, contender: str, progress: Callable[[int], None]) -> Transfer:
    """Carry the lines from one process to another and return what arrived, and how fast.

    `progress` is told the number of frames that have arrived, a few times a second. Raises
    `BenchError`, with the error of the process that failed.
    """
    processes: list[subprocess.Popen[str]] = []
    said: dict[str, Any] = {}

    def give_up() -> None:
        for process in processes:
            process.kill()

    watchdog = threading.Timer(PATIENCE, give_up)
    watchdog.start()
    try:
        processes.append(_start(contender, "sender", framing, source.directory))
        said = next(_listen(processes[0]), {})
        if "port" in said:
            processes.append(_start(contender, "receiver", framing, said["port"], source.longest))
            for said in _listen(processes[1]):
                progress(said["frames"])
    finally:
        watchdog.cancel()
        patience = 10 if "seconds" in said else 1
        last_words = [_end(process, patience) for process in reversed(processes)]
    if "seconds" not in said or processes[0].returncode:
        raise BenchError(f"{framing}, {contender}: {'; '.join(filter(None, last_words)) or 'it was killed'}")
    assert said["wing"] == ("core" if contender == "core" else "pure")
    intact = (said["frames"], said["sha256"]) == (source.lines, source.sha256)
    return Transfer(framing, contender, said["seconds"], said["frames"], said["sha256"], intact)


def _end(process: subprocess.Popen[str], patience: float) -> str:
    """End a process that has no more to do and return the last line of what it complained of."""
    try:
        complaint = process.communicate(timeout=patience)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        complaint = process.communicate()[1]
    return complaint.strip().rpartition("\n")[2]
