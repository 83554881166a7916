"""What every kind of work is made of: payloads, the bytes that they are on the wire, and what runs them."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

#: Bytes that a stream is fed and received by, and what fits into the caches.
PIECE = 65536

HEADER = struct.Struct(">I")

KIB, MIB = 1024, 1 << 20

#: The sizes of payloads; and of each, how many make a stream.
SIZES = {"16 B": (16, 40_000), "64 B": (64, 40_000), "1 KiB": (KIB, 16_000), "16 KiB": (16 * KIB, 1_000),
         "1 MiB": (MIB, 16), "16 MiB": (16 * MIB, 2)}

FORMATS = ("length", "CRLF")


class UnfitError(Exception):
    """A contender can't do a work, or not in reasonable time: its text says why."""


@dataclass(frozen=True)
class Work:
    """A stream of `count` payloads of `size` bytes, behind a 4-byte length or before CRLF."""

    name: str
    crlf: bool
    size: int
    count: int

    @property
    def bytes_a_frame(self) -> int:
        """The size of a payload: what MB/s are counted by."""
        return self.size

    def payloads(self) -> list[bytes]:
        """Return the payloads, the same in every process: letters, every payload a different one."""
        return numbered(self.name, self.size, self.count)

    def stream(self) -> bytes:
        """Return the payloads as they lie on the wire."""
        if self.crlf:
            return b"".join([payload + b"\r\n" for payload in self.payloads()])
        return b"".join([HEADER.pack(self.size) + payload for payload in self.payloads()])

    def pieces(self) -> list[bytes]:
        """Return the stream as it is fed."""
        stream = self.stream()
        return [stream[start:start + PIECE] for start in range(0, len(stream), PIECE)]

    def framing(self) -> Any:
        """Return sockframe's framing for it, which lets all its payloads through."""
        from sockframe import Delimiter, LengthPrefix

        limit = max(8 * MIB, self.size)
        return Delimiter(b"\r\n", max_length=limit) if self.crlf else LengthPrefix(4, max_length=limit)


def numbered(seed: str, size: int, count: int) -> list[bytes]:
    """Return `count` payloads of letters, each begun by its number."""
    source = random.Random(seed)
    some = bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz", k=min(size, KIB)))
    letters = (some * (size // len(some) + 1))[:size]
    return [(b"%d " % number + letters)[:size] for number in range(count)]


def works(sizes: dict[str, tuple[int, int]] = SIZES) -> dict[str, Work]:
    """Return a work for each format and size, by name; nobody writes lines of 16 MiB."""
    made = [Work(f"{name} {label}", name == "CRLF", size, count) for name in FORMATS
            for label, (size, count) in sizes.items() if name == "length" or size <= MIB]
    return {work.name: work for work in made}


@dataclass
class Run:
    """How a contender does a work: `check` once, for its payloads; `timed` as often as it is told, for the time.

    `check` gives the payloads in lists, as they come. What counts is processor time, which other programs on the
    machine distort least: that of this process, or what `clock` tells. `figure` is there where no time is measured,
    but this number.
    """

    check: Callable[[], Iterator[list[bytes]]]
    timed: Callable[[int], object]
    clock: Callable[[], float] | None = None
    figure: Callable[[], float] | None = None


def drained(run: Callable[[], Iterator[Any]]) -> Run:
    """Return the `Run` of a generator function that gives the payloads of a stream, piece by piece."""
    def timed(times: int) -> None:
        for _ in range(times):
            deque(run(), maxlen=0)  # which drops each list before it asks for the next

    return Run(run, timed)


def batches(run: Callable[[], Iterator[Any]]) -> Run:
    """Return the `Run` of a generator function that gives batches: they are made lists only to be checked."""
    return Run(lambda: (batch.tolist() for batch in run()), drained(run).timed)


Contender = Callable[[Work], Run]


def packed(work: Work) -> bytes:
    """Return a work's payloads in msgpack's format."""
    from msgpack import packb

    return b"".join(map(packb, work.payloads()))


def pieces_of(receive: Callable[[int], bytes]) -> Iterator[bytes]:
    """Return an iterator over what `receive` gives until the end of the stream."""
    return iter(partial(receive, PIECE), b"")
