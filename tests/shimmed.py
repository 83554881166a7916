"""Exchanges that meet faults of the system (shim.c), in a process that has the shim: `python -m tests.shimmed` runs
them for as long as one likes, with schedules at random.

Whatever call fails, in whatever way, nothing is lost, doubled or mixed: the same call made again goes on, where the
fault is one that passes, and what ends a connection ends that one alone, behind whole frames.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pytest  # noqa: E402
from scripted import LIMIT, Task, noise  # noqa: E402

import sockframe  # noqa: E402
import sockframe.server  # noqa: E402
from sockframe import EndOfStream, FramedSocket, FrameSelector, IncompleteFrameError, LengthPrefix, aio  # noqa: E402
from sockframe.drop_in.multiprocessing import Connection  # noqa: E402

#: Letters of shim.c that change nothing, and those that are errors.
HARMLESS, ERRORS = "13EA", "BNRTP"
POLLS = "ERN"
#: Letters as they come at random, mostly those of a good day.
MIXTURE = "00000001234579EEAABNRTP"
NUMBERS = {errno.ENOBUFS, errno.ENOMEM, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE}

FRAMING = LengthPrefix()
PAYLOADS = [noise(size) for size in (5, 0, 1, 300, 70_000, 16_384, 2)]
WIRE = sockframe.Encoder(FRAMING).encode_many(PAYLOADS)
TIMEOUTS = (None, 600.0, 0)


class Shim:
    """The preloaded library, and its lists."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.name = self.calls = self.polls = ""
        self.asked: list[int] = []  # how many letters of each list

    def aim(self, fd: int = -1, port: int = 0) -> None:
        """Have the lists begin, for a socket or for all of a port."""
        self.asked = []
        self.library.shim_begin(self.calls.encode(), self.polls.encode(), fd, port)

    def rest(self) -> None:
        """Let calls do what they do."""
        self.asked = self.asked or [self.library.shim_calls(), self.library.shim_polls()]
        self.library.shim_begin(b"", b"", -1, -1)

    @property
    def harmless(self) -> bool:
        """Whether no error may come of the lists."""
        return not set(self.calls + self.polls) & set(ERRORS + "F")

    def again(self, call: Callable[..., Any], *args: Any, **how: Any) -> Any:
        """Make a call until it returns: only what is no error of the shim comes out."""
        while True:
            try:
                return call(*args, **how)
            except OSError as error:  # noqa: PERF203
                self.note(error)

    def note(self, error: Exception) -> None:
        """Pass over an error that the shim has made, and raise all others."""
        if isinstance(error, BlockingIOError):
            return
        if self.harmless or not isinstance(error, OSError) or error.errno not in NUMBERS:
            raise error
        assert not isinstance(error, TimeoutError), "the kernel's timeout is no deadline"


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two sockets with room for all."""
    one, other = socket.socketpair()
    for sock in (one, other):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return one, other


def filled() -> socket.socket:
    """Return a socket at which all frames are, and the end behind them."""
    one, other = pair()
    with one:
        one.setblocking(False)
        assert one.send(WIRE) == len(WIRE)
    return other


def emptied(sock: socket.socket) -> bytes:
    """Return all that comes to a socket until its end."""
    with sock:
        return b"".join(iter(lambda: sock.recv(1 << 20), b""))


# ---- exchanges: each has the shim aim at its socket, and checks what comes of it ----

def receive(shim: Shim, how: str, timeout: float | None) -> None:
    """Receive all in one way."""
    target = bytearray(100_000)
    ways: dict[str, Callable[[FramedSocket], list[bytes]]] = {
        "recv": lambda conn: [conn.recv(timeout=timeout)],
        "recv_many": lambda conn: conn.recv_many(3, timeout=timeout),
        "recv_batch": lambda conn: conn.recv_batch(timeout=timeout).tolist(),
        "recv_into": lambda conn: [bytes(target[:conn.recv_into(target, timeout=timeout)])],
    }
    with FramedSocket(filled(), FRAMING) as conn:
        shim.aim(conn.fileno())
        frames = []
        with suppress(EndOfStream):
            while True:
                frames += shim.again(ways[how], conn)
        assert frames == PAYLOADS


def send(shim: Shim, how: str, timeout: float | None) -> None:
    """Send all in one way; what was taken is finished, and what was not is sent again."""
    one, other = pair()
    with FramedSocket(one, FRAMING) as conn:
        shim.aim(conn.fileno())
        left: Any = iter(PAYLOADS) if how == "iterator" else list(PAYLOADS)
        done = False
        while not done:
            try:
                shim.again(conn.flush, timeout=timeout)  # behind which what is unsent tells what was taken
                if how == "send":
                    while left:
                        shim.again(conn.flush, timeout=timeout)
                        conn.send(left[0], timeout=timeout)
                        del left[0]
                else:
                    conn.send_many(left, timeout=timeout)
                done = True
            except OSError as error:  # noqa: PERF203
                shim.note(error)
                if conn.unsent:
                    shim.again(conn.flush, timeout=timeout)
                    assert conn.unsent == 0
                    done = how == "list"
                    if how == "send":
                        del left[0]
        shim.again(conn.flush, timeout=timeout)
    assert emptied(other) == WIRE


def select(shim: Shim, timeout: float | None) -> None:
    """Receive by a selector; what fails is no longer registered, goes on by itself, and hurts no other."""
    with FramedSocket(filled(), FRAMING) as conn, FramedSocket(filled(), FRAMING) as other, \
            FrameSelector() as selector:
        for each in (conn, other):
            each.settimeout(timeout)
            selector.register(each, [])
        shim.aim(conn.fileno())
        got: dict[Any, list[bytes]] = {conn: [], other: []}
        while len(selector):
            for key, frames in shim.again(selector.select, LIMIT):
                if not isinstance(frames, Exception):
                    got[key.conn] += frames
                elif not isinstance(frames, EndOfStream):
                    assert key.conn is conn
                    shim.note(frames)
                    with suppress(EndOfStream):
                        while True:
                            got[conn] += shim.again(conn.recv_many)
        assert got == {conn: PAYLOADS, other: PAYLOADS}


def select_and_flush(shim: Shim) -> None:
    """Let a selector send on what the peer had no room for."""
    one, other = socket.socketpair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with FramedSocket(one, FRAMING) as conn, FrameSelector(progress=True) as selector:
        conn.setblocking(False)
        conn.send_many(PAYLOADS)
        assert conn.unsent
        shim.aim(conn.fileno())
        selector.register(conn)
        task = Task(emptied, other)
        while conn.unsent:
            for _, found in shim.again(selector.select, LIMIT):
                if isinstance(found, Exception):
                    shim.note(found)
                    selector.register(conn)
        conn.close()
        assert task.result() == WIRE


def receive_messages(shim: Shim, blocking: bool, into: bool) -> None:
    """Receive the frames, which are multiprocessing's too, as its messages."""
    target = bytearray(100_000)
    with Connection(filled().detach()) as conn:
        os.set_blocking(conn.fileno(), blocking)
        shim.aim(conn.fileno())
        messages = []
        with suppress(EOFError):
            while True:
                if into:
                    messages.append(bytes(target[:shim.again(conn.recv_bytes_into, target)]))
                else:
                    messages.append(shim.again(conn.recv_bytes))
        assert messages == PAYLOADS


def send_messages(shim: Shim, blocking: bool) -> None:
    """Send them so: a message that was begun is finished by the next call, one that was not is sent again."""
    one, other = pair()
    with Connection(one.detach()) as conn:
        os.set_blocking(conn.fileno(), blocking)
        shim.aim(conn.fileno())
        for payload in PAYLOADS:
            done = False
            while not done:
                while conn._midway():
                    shim.again(conn.send_bytes, b"")  # which finishes the last one
                try:
                    conn.send_bytes(payload)
                    done = True
                except OSError as error:
                    shim.note(error)
                    done = conn._midway()
        shim.rest()
        conn.send_bytes(b"the last")
    messages = sockframe.Decoder(FRAMING).decode(emptied(other))
    assert [message for message in messages if message not in (b"", b"the last")] == [p for p in PAYLOADS if p]
    assert messages[-1] == b"the last"


def serve(shim: Shim, mode: str) -> None:
    """Have a server answer a client whose connection fails, and then another."""
    with sockframe.server.Server(bytes, ("127.0.0.1", 0), FRAMING, mode=mode) as server:
        task = Task(server.serve_forever)
        shim.aim(port=server.address[1])
        replies: list[bytes] = []
        try:
            with sockframe.connect(server.address, FRAMING, timeout=LIMIT) as conn:
                conn.send_many(PAYLOADS)
                conn.shutdown(socket.SHUT_WR)
                replies.extend(conn)
        except (OSError, IncompleteFrameError) as error:
            assert not shim.harmless and not isinstance(error, TimeoutError), error
        assert replies == (PAYLOADS if shim.harmless else PAYLOADS[:len(replies)])
        shim.rest()
        with sockframe.connect(server.address, FRAMING, timeout=LIMIT) as conn:
            conn.send_many(PAYLOADS)
            conn.shutdown(socket.SHUT_WR)
            assert list(conn) == PAYLOADS
        server.stop()
        task.result()


def receive_on_a_loop(shim: Shim) -> None:
    """Receive on an event loop: what had arrived comes before the error, which is the last."""
    async def run() -> list[bytes]:
        conn = FramedSocket(filled(), FRAMING)
        shim.aim(conn.fileno())
        frames: list[bytes] = []
        async with await aio.attach(conn) as stream:
            try:
                async for frame in stream:
                    frames.append(frame)  # noqa: PERF401
                assert frames == PAYLOADS
            except OSError as error:
                shim.note(error)
                with pytest.raises(type(error)):
                    await stream.recv()
        return frames

    frames = asyncio.run(run())
    assert frames == PAYLOADS[:len(frames)]


def send_on_a_loop(shim: Shim) -> None:
    """Send on an event loop: the peer has whole frames, and the beginning of one where the connection was lost."""
    async def run(one: socket.socket) -> None:
        conn = FramedSocket(one, FRAMING)
        shim.aim(conn.fileno())
        stream = await aio.attach(conn)
        try:
            for payload in PAYLOADS:
                await stream.send(payload)
            await stream.drain()
            stream.close()
            await stream.wait_closed()
        except ConnectionError:
            assert not shim.harmless
            stream.close()

    one, other = pair()
    asyncio.run(run(one))
    data = emptied(other)
    assert data == WIRE if shim.harmless else WIRE.startswith(data)


def exchanges() -> Iterator[tuple[str, Callable[[Shim], None]]]:
    """Yield each exchange with its name."""
    for timeout in TIMEOUTS:
        for how in ("recv", "recv_many", "recv_batch", "recv_into"):
            yield (f"receive: {how}, timeout={timeout}",
                   lambda shim, how=how, timeout=timeout: receive(shim, how, timeout))
        for how in ("send", "list", "iterator"):
            yield f"send: {how}, timeout={timeout}", lambda shim, how=how, timeout=timeout: send(shim, how, timeout)
        yield f"select: timeout={timeout}", lambda shim, timeout=timeout: select(shim, timeout)
    yield "select: flush", select_and_flush
    for blocking in (True, False):
        for into in (True, False):
            yield (f"messages: receive, blocking={blocking}, into={into}",
                   lambda shim, blocking=blocking, into=into: receive_messages(shim, blocking, into))
        yield f"messages: send, blocking={blocking}", lambda shim, blocking=blocking: send_messages(shim, blocking)
    for mode in ("select", "threads"):
        yield f"serve: {mode}", lambda shim, mode=mode: serve(shim, mode)
    yield "loop: receive", receive_on_a_loop
    yield "loop: send", send_on_a_loop


# ---- schedules ----

def at_every_index(shim: Shim, exchange: Callable[[Shim], None]) -> int:
    """Let one call fail, the first, the second and so on, in each way; return the number of exchanges."""
    count = 0
    for letter in [*HARMLESS, *ERRORS, "F"]:
        count += one_at_a_time(shim, exchange, lambda index, letter=letter: ("0" * index + letter, ""))
    for letter in POLLS:
        count += one_at_a_time(shim, exchange, lambda index, letter=letter: ("", "0" * index + letter))
    return count


def one_at_a_time(shim: Shim, exchange: Callable[[Shim], None], lists: Callable[[int], tuple[str, str]]) -> int:
    """Run an exchange with the lists for each index, until one lies behind its last call."""
    for index in range(1000):
        shim.calls, shim.polls = lists(index)
        run(shim, exchange)
        if index >= shim.asked[0 if shim.calls else 1]:
            return index + 1
    raise AssertionError("an exchange without an end")


def at_random(shim: Shim, exchange: Callable[[Shim], None], seed: int) -> None:
    """Let calls fail by a schedule of this seed."""
    choice = random.Random(seed)
    shim.calls = "".join(choice.choices(MIXTURE, k=choice.choice((10, 100, 1000))))
    if choice.random() < 0.3:
        shim.calls = "".join(letter for letter in shim.calls if letter not in ERRORS)
    shim.polls = "".join(choice.choices("0000" + POLLS, k=choice.choice((0, 10, 100))))
    run(shim, exchange)


def run(shim: Shim, exchange: Callable[[Shim], None]) -> None:
    """Run an exchange, and tell the lists where it fails."""
    try:
        exchange(shim)
        shim.rest()
    except BaseException:
        print(f"{shim.name}: failed on the {sockframe.wing} wing with SHIM={shim.calls!r}, SHIM_POLL={shim.polls!r}",
              flush=True)
        raise


def compile_shim(folder: Path) -> Path:
    """Compile the shim into a folder."""
    target = folder / "shim.so"
    subprocess.run([shutil.which("cc") or "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC",
                    "-o", str(target), str(HERE / "shim.c"), "-ldl"], check=True, timeout=LIMIT * 6)
    return target


def environment(shim: Path, wing: str) -> dict[str, str]:
    """Return the environment of a process with the shim."""
    return {**os.environ, "LD_PRELOAD": str(shim), "SOCKFRAME_CORE": "1" if wing == "core" else "0"}


def main() -> int:
    """Run exchanges with faults at each index, or at random with this seed and those behind it; 1 where one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.shimmed", description=main.__doc__)
    parser.add_argument("--only", default="", help="exchanges whose names begin so")
    parser.add_argument("--seconds", type=float, default=60, help="for each wing, at random (default: 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="the first (default: at random)")
    parser.add_argument("--rounds", type=int, default=1 << 30, help="seeds, at most")
    parser.add_argument("--every-index", action="store_true", help="one fault at a time, in place of schedules")
    options = parser.parse_args()
    if "shim" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as folder:
            shim = compile_shim(Path(folder))
            return max(subprocess.run([sys.executable, str(HERE / "shimmed.py"), *sys.argv[1:], "--seed",
                                       str(options.seed)], env=environment(shim, wing), check=False).returncode
                       for wing in (("core", "pure") if sockframe.wing == "core" else ("pure",)))
    logging.getLogger("sockframe.server").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    chosen = [(name, exchange) for name, exchange in exchanges() if name.startswith(options.only)]
    assert chosen, options.only
    loaded, begun, count, seed = Shim(), time.monotonic(), 0, options.seed
    if options.every_index:
        for name, exchange in chosen:
            loaded.name = name
            count += at_every_index(loaded, exchange)
    while not options.every_index and seed < options.seed + options.rounds and \
            time.monotonic() - begun < options.seconds:
        for name, exchange in chosen:
            loaded.name = f"{name}, seed {seed}"
            at_random(loaded, exchange, seed)
        count += len(chosen)
        seed += 1
    print(f"{sockframe.wing}: {count:,} exchanges, {time.monotonic() - begun:.1f} s" +
          ("" if options.every_index else f", seeds {options.seed} to {seed - 1}"), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
