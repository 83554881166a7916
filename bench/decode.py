"""Decoding from memory: one stream in 64 KiB pieces, no socket, every contender's fastest way.

Every contender is a factory: given a `Work`, it returns a generator function that decodes the whole
stream and gives the payloads of each piece as a list, which whoever asked drops before the next.
"""

from __future__ import annotations

import asyncio
import io
import random
import struct
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from sockframe import Delimiter, LengthPrefix

PIECE = 65536


@dataclass(frozen=True)
class Work:
    """A stream to decode: `count` payloads of `size` bytes, behind a 4-byte length or before CRLF."""

    name: str
    crlf: bool
    size: int
    count: int

    def payloads(self) -> list[bytes]:
        """Return the payloads, the same in every process: letters, every payload a different one."""
        letters = bytes(random.Random(self.name).choices(b"abcdefghijklmnopqrstuvwxyz", k=self.size))
        return [(b"%d " % number + letters)[:self.size] for number in range(self.count)]

    def stream(self) -> bytes:
        """Return the payloads as they lie on the wire."""
        if self.crlf:
            return b"".join([payload + b"\r\n" for payload in self.payloads()])
        return b"".join([struct.pack(">I", self.size) + payload for payload in self.payloads()])

    def pieces(self) -> list[bytes]:
        """Return the stream as it is fed."""
        stream = self.stream()
        return [stream[start:start + PIECE] for start in range(0, len(stream), PIECE)]


def _works() -> dict[str, Work]:
    sizes = {"16 B": (16, 100_000), "64 B": (64, 100_000), "1 KiB": (1024, 16_000), "1 MiB": (1 << 20, 16)}
    return {work.name: work for crlf in (False, True) for label, (size, count) in sizes.items()
            for work in [Work(f"{'CRLF' if crlf else 'length'} {label}", crlf, size, count)]}


WORKS = _works()

Run = Callable[[], Iterator[list[bytes]]]


def _wing(decoder: Callable[[Any], Any], work: Work) -> Run:
    framing = Delimiter(b"\r\n") if work.crlf else LengthPrefix(4)
    pieces = work.pieces()

    def run() -> Iterator[list[bytes]]:
        decode = decoder(framing).decode
        for piece in pieces:
            yield decode(piece)

    return run


def core(work: Work) -> Run:
    """Return sockframe's `Decoder.decode` on the core."""
    from sockframe._core import Decoder

    return _wing(Decoder, work)


def pure(work: Work) -> Run:
    """Return sockframe's `Decoder.decode` on the pure wing."""
    from sockframe._pure import Decoder

    return _wing(Decoder, work)


def by_hand(work: Work) -> Run:
    """Return the best that plain Python does for just this stream: a piece at a time, no errors, no limits."""
    pieces = work.pieces()

    def lengths() -> Iterator[list[bytes]]:
        unpack = struct.Struct(">I").unpack_from
        held: list[bytes] = []
        missing = 4
        for piece in pieces:
            if len(piece) < missing:
                held.append(piece)
                missing -= len(piece)
                continue
            if held:
                held.append(piece)
                piece = b"".join(held)
                held = []
            frames: list[bytes] = []
            append = frames.append
            start = 0
            last = len(piece) - 4
            while start <= last:
                stop = start + 4 + unpack(piece, start)[0]
                if stop > last + 4:
                    missing = stop - last - 4
                    break
                append(piece[start + 4:stop])
                start = stop
            else:
                missing = start - last
            if start < last + 4:
                held.append(piece[start:])
            yield frames

    def lines() -> Iterator[list[bytes]]:
        held: list[bytes] = []
        for piece in pieces:
            if held and held[-1][-1:] == b"\r":
                piece = held.pop() + piece
            frames = piece.split(b"\r\n")
            rest = frames.pop()
            if frames and held:
                held.append(frames[0])
                frames[0] = b"".join(held)
                held = []
            if rest:
                held.append(rest)
            yield frames

    return lines if work.crlf else lengths


def stream_reader(work: Work) -> Run:
    """Return asyncio's `StreamReader`, fed and resumed by hand: no event loop runs, no task is woken."""
    pieces = work.pieces()
    loop = asyncio.new_event_loop()

    async def lengths(reader: asyncio.StreamReader, frames: list[bytes]) -> None:
        while True:
            length = int.from_bytes(await reader.readexactly(4), "big")
            frames.append(await reader.readexactly(length))

    async def lines(reader: asyncio.StreamReader, frames: list[bytes]) -> None:
        while True:
            frames.append((await reader.readuntil(b"\r\n"))[:-2])

    def run() -> Iterator[list[bytes]]:
        frames: list[bytes] = []
        reader = asyncio.StreamReader(limit=max(65536, work.size + 2), loop=loop)
        reading: Coroutine[Any, Any, None] = (lines if work.crlf else lengths)(reader, frames)
        reading.send(None)
        for piece in pieces:
            reader.feed_data(piece)
            reading.send(None)
            yield frames
            frames.clear()
        reading.close()

    return run


def howto(work: Work) -> Run:
    """Return the Socket Programming HOWTO's loops, receiving from a file in memory: cheaper than any socket."""
    stream = work.stream()
    each = PIECE // work.size or 1

    def lengths() -> Iterator[list[bytes]]:
        recv = io.BytesIO(stream).read

        def receive(length: int) -> bytes:
            chunks = []
            received = 0
            while received < length:
                chunk = recv(min(length - received, 2048))
                if chunk == b"":
                    break
                chunks.append(chunk)
                received += len(chunk)
            return b"".join(chunks)

        frames = []
        while header := receive(4):
            frames.append(receive(int.from_bytes(header, "big")))
            if len(frames) == each:
                yield frames
                frames = []
        yield frames

    def lines() -> Iterator[list[bytes]]:
        recv = io.BytesIO(stream).read
        frames: list[bytes] = []
        rest = b""
        while True:
            end = rest.find(b"\r\n")
            while end < 0:
                chunk = recv(2048)
                if chunk == b"":
                    yield frames
                    return
                searched = max(len(rest) - 1, 0)
                rest += chunk
                end = rest.find(b"\r\n", searched)
            frames.append(rest[:end])
            rest = rest[end + 2:]
            if len(frames) == each:
                yield frames
                frames = []

    return lines if work.crlf else lengths


CONTENDERS: dict[str, Callable[[Work], Run]] = {
    "core": core, "pure": pure, "by hand": by_hand, "StreamReader": stream_reader, "HOWTO": howto}
