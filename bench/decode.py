"""Decoding from memory: one stream in 64 KiB pieces, no socket, every contender's fastest way.

Whoever asked drops the payloads of a piece before the next is fed. C's floor first copies each piece into its
buffer, where a receive would have put it.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from . import floor, loops
from .streams import Contender, Run, UnfitError, Work, batches, drained, works

WORKS = works()
QUICK = ("length 64 B", "CRLF 64 B")


def ours(work: Work) -> Run:
    """Return sockframe's `Decoder.decode` on the wing in use."""
    from sockframe import Decoder

    framing, pieces = work.framing(), work.pieces()

    def run() -> Iterator[list[bytes]]:
        decode = Decoder(framing).decode
        for piece in pieces:
            yield decode(piece)

    return drained(run)


def ours_in_batches(work: Work) -> Run:
    """Return sockframe's `Decoder.decode_batch` on the wing in use."""
    from sockframe import Decoder

    framing, pieces = work.framing(), work.pieces()

    def run() -> Iterator[Any]:
        decode = Decoder(framing).decode_batch
        for piece in pieces:
            yield decode(piece)

    return batches(run)


def by_hand(work: Work) -> Run:
    """Return the best loop in plain Python."""
    pieces = work.pieces()
    return drained(lambda: loops.by_hand(work, pieces))


def howto(work: Work) -> Run:
    """Return the HOWTO's loop, receiving from a file in memory: cheaper than any socket."""
    stream = work.stream()
    return drained(lambda: loops.howto(work, io.BytesIO(stream).read))


def stream_reader(work: Work) -> Run:
    """Return asyncio's `StreamReader`, fed and resumed by hand: no event loop runs, no task is woken."""
    pieces = work.pieces()
    loop = asyncio.new_event_loop()

    def run() -> Iterator[list[bytes]]:
        frames: list[bytes] = []
        reader = asyncio.StreamReader(limit=max(65536, work.size + 2), loop=loop)
        read = loops.reader_lines if work.crlf else loops.reader_lengths
        reading: Coroutine[Any, Any, None] = read(reader, frames)
        reading.send(None)
        for piece in pieces:
            reader.feed_data(piece)
            reading.send(None)
            yield frames
            frames.clear()
        reading.close()

    return drained(run)


def twisted(module: str, work: Work) -> Run:
    """Return the `Int32StringReceiver` or `LineReceiver` of a module, fed by hand: no reactor runs."""
    from twisted.internet.testing import StringTransport

    from .twisted_ends import receiver

    pieces = work.pieces()

    def run() -> Iterator[list[bytes]]:
        made = receiver(work, module)
        made.makeConnection(StringTransport())
        for piece in pieces:
            made.dataReceived(piece)
            yield made.frames
            made.frames.clear()

    return drained(run)


def msgpack(work: Work) -> Run:
    """Return msgpack's `Unpacker`, on its own format: each payload a bin object."""
    from msgpack import Unpacker

    from .streams import PIECE, packed

    if work.crlf:
        raise UnfitError("msgpack has a format of its own, with lengths")
    stream = packed(work)
    pieces = [stream[start:start + PIECE] for start in range(0, len(stream), PIECE)]

    def run() -> Iterator[list[bytes]]:
        unpacker = Unpacker(max_buffer_size=2 * work.size + PIECE)
        for piece in pieces:
            unpacker.feed(piece)
            yield list(unpacker)

    return drained(run)


TWISTED, TWISTED_DROP_IN = "twisted.protocols.basic", "sockframe.drop_in.twisted"

CONTENDERS: dict[str, Contender] = {
    "core": ours, "core, batches": ours_in_batches, "pure": ours, "pure, batches": ours_in_batches,
    "C in place": partial(floor.decoder, floor.IN_PLACE), "C, copied out": partial(floor.decoder, floor.COPIES),
    "by hand": by_hand, "msgpack (its own format)": msgpack, "StreamReader": stream_reader,
    "Twisted": partial(twisted, TWISTED), "core, Twisted drop-in": partial(twisted, TWISTED_DROP_IN),
    "pure, Twisted drop-in": partial(twisted, TWISTED_DROP_IN),
    "HOWTO": howto}
