"""The soak's clients: processes full of threads, each with one connection after the other.

Every reply that arrives must be the right one in the right order, however the client goes on; a client that says
that it is done, by closing its half, must get all of them.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

from scripted import reset_when_closed

from sockframe import EndOfStream, FramedSocket, LengthPrefix, connect

FRAMING = LengthPrefix(4)
PATIENCE = 300.0                 # seconds that a client waits for a reply
WINDOW = 1 << 20                 # bytes of replies that a client lets wait for it
POOL = random.Random(1).randbytes(1 << 20)

#: What clients do in the end: say that they are done, close without a word, reset the connection, stop inside
#: a frame; and how often.
WAYS = {"half-close": 60, "close": 15, "reset": 15, "cut": 10}

#: What is counted.
NAMES = ("sessions", "completed", "frames sent", "bytes sent", "replies", "bytes received", "bytes missing",
         "bytes wrong", "failures")


class Counts:
    """Numbers that processes share: a row of them for each process, written by that one alone."""

    def __init__(self, rows: int) -> None:
        self.numbers = memoryview(mmap.mmap(-1, 8 * len(NAMES) * rows)).cast("q")
        self.lock = threading.Lock()
        self.row = 0

    def add(self, **numbers: int) -> None:
        """Add to the numbers of this process."""
        with self.lock:
            for name, number in numbers.items():
                self.numbers[self.row * len(NAMES) + NAMES.index(name.replace("_", " "))] += number

    def total(self) -> dict[str, int]:
        """Return the sums over all processes."""
        return {name: sum(self.numbers[at::len(NAMES)]) for at, name in enumerate(NAMES)}


def answer(payload: bytes) -> Any:
    """Answer as the server's handler: the first byte says how."""
    kind = payload[0] % 6 if payload else 1
    if kind == 0:
        return None
    if kind == 1:
        return payload
    if kind == 2:
        return bytearray(payload[::-1])
    if kind == 3:
        return [payload[:10], b"", payload]
    if kind == 4:
        return pieces(payload)
    return memoryview(payload)[: len(payload) // 2]


def pieces(payload: bytes) -> Iterator[bytes]:
    """Yield a payload in up to 100 pieces."""
    size = len(payload) // 100 + 1
    for start in range(0, len(payload), size):
        yield payload[start:start + size]


def replies_to(payload: bytes) -> list[bytes]:
    """Return the replies that must come."""
    reply = answer(payload)
    if reply is None:
        return []
    return [bytes(each) for each in reply] if isinstance(reply, (list, Iterator)) else [bytes(reply)]


def payload_of(choice: random.Random) -> bytes:
    """Return a payload of 0 to 400,000 bytes, mostly small ones."""
    size = min(int(choice.paretovariate(0.35)) - 1, choice.choice((100, 10_000, 400_000)))
    start = choice.randrange(len(POOL) - size)
    return POOL[start:start + size]


class Session:
    """One connection of a client."""

    def __init__(self, address: Any, choice: random.Random, counts: Counts) -> None:
        self.choice = choice
        self.counts = counts
        self.expected: deque[bytes] = deque()
        self.waiting = 0  # bytes of replies
        self.conn: FramedSocket = connect(address, FRAMING, timeout=PATIENCE)

    def run(self) -> None:
        """Send frames, receive replies, and end in one way or another."""
        choice = self.choice
        way = choice.choices(list(WAYS), list(WAYS.values()))[0]
        with self.conn as conn:
            for _ in range(choice.choice((0, 1, 10, 100))):
                self.send(payload_of(choice))
                while self.waiting > WINDOW:
                    self.receive(PATIENCE)
                if choice.random() < 0.01:
                    time.sleep(choice.random())
            if way == "half-close":
                while conn.unsent:
                    self.flush()
                conn.shutdown(socket.SHUT_WR)
                try:
                    while True:
                        self.receive(PATIENCE)
                except EndOfStream:
                    self.counts.add(bytes_missing=self.waiting, failures=bool(self.expected), completed=1)
            elif way == "cut":
                while conn.unsent:
                    self.flush()
                conn.sock.sendall((b"\0\0\1\0" + POOL[:250])[:choice.randrange(1, 250)])
            elif way == "reset":
                reset_when_closed(conn.sock)

    def send(self, payload: bytes) -> None:
        """Send a payload with a deadline that may be short, receiving where it passes."""
        taken = False
        while not taken:
            if self.conn.unsent:
                self.flush()
                continue
            try:
                self.conn.send(payload, timeout=self.patience())
                taken = True
            except (TimeoutError, BlockingIOError):
                taken = self.conn.unsent > 0
                if not taken:
                    self.receive(0.01)
        replies = replies_to(payload)
        self.expected.extend(replies)
        self.waiting += sum(map(len, replies))
        self.counts.add(frames_sent=1, bytes_sent=len(payload))

    def flush(self) -> None:
        """Send on, or receive where that is not possible."""
        try:
            self.conn.flush(timeout=self.patience())
        except (TimeoutError, BlockingIOError):
            self.receive(0.01)

    def patience(self) -> float:
        """Return some seconds."""
        return self.choice.choice((0, 0.0001, 0.01, 1))

    def receive(self, timeout: float) -> None:
        """Receive some replies and compare them."""
        if self.choice.random() < 0.5:
            timeout = min(timeout, self.patience())
        try:
            replies = self.conn.recv_many(timeout=timeout)
        except (TimeoutError, BlockingIOError):
            if timeout == PATIENCE:
                raise
            return
        for reply in replies:
            expected = self.expected.popleft() if self.expected else None
            self.waiting -= len(expected or b"")
            if reply != expected:
                self.counts.add(bytes_wrong=len(reply), failures=1)
        self.counts.add(replies=len(replies), bytes_received=sum(map(len, replies)))


def client(address: Any, seed: int, counts: Counts, until: float) -> None:
    """Have one session after the other, until the time is up."""
    choice = random.Random(seed)
    while time.monotonic() < until:
        try:
            Session(address, choice, counts).run()
        except Exception:
            counts.add(failures=1)
            traceback.print_exc()
        counts.add(sessions=1)


def start(address: Any, row: int, count: int, seed: int, counts: Counts, until: float) -> int:
    """Start a process with so many clients, and return its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        counts.row = row
        threads = [threading.Thread(target=client, args=(address, seed + number, counts, until))
                   for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
