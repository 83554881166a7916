"""Loops in plain Python, from a way to receive to payloads: the best ones, and the usual ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from .streams import HEADER, PIECE, Work

Loop = Iterator[list[bytes]]


# ---- the best that plain Python does for just these streams: a piece at a time, no errors, no limits ----

def hand_lengths(pieces: Iterable[bytes]) -> Loop:
    """Yield the payloads of each piece, a 4-byte length before each."""
    unpack = HEADER.unpack_from
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


def hand_lines(pieces: Iterable[bytes]) -> Loop:
    """Yield the payloads of each piece, CRLF behind each."""
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


# ---- the loops of Python's Socket Programming HOWTO ----

def howto_lengths(recv: Callable[[int], bytes], each: int) -> Loop:
    """Yield `each` payloads at a time: two rounds of receiving for each of them."""
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


def howto_lines(recv: Callable[[int], bytes], each: int) -> Loop:
    """Yield `each` lines at a time, what is behind a line kept for the next."""
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


# ---- asyncio's StreamReader, as its documentation has it ----

async def reader_lengths(reader: asyncio.StreamReader, frames: list[bytes]) -> None:
    """Append the payloads until the stream ends, where asyncio raises."""
    while True:
        length = int.from_bytes(await reader.readexactly(4), "big")
        frames.append(await reader.readexactly(length))


async def reader_lines(reader: asyncio.StreamReader, frames: list[bytes]) -> None:
    """Append the lines until the stream ends, where asyncio raises."""
    while True:
        frames.append((await reader.readuntil(b"\r\n"))[:-2])


# ---- for a work ----

def by_hand(work: Work, pieces: Iterable[bytes]) -> Loop:
    """Yield the payloads of a work's pieces by the best loop."""
    return (hand_lines if work.crlf else hand_lengths)(pieces)


def howto(work: Work, recv: Callable[[int], bytes]) -> Loop:
    """Yield the payloads of a work by the HOWTO's loop, as many at a time as fit into a piece."""
    return (howto_lines if work.crlf else howto_lengths)(recv, PIECE // work.size or 1)
