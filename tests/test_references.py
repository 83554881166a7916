"""No reference and no block of memory is left behind, by whatever is done again and again: by counting.

Each work is done round after round; one that forgot an object each time it is done would show as many more in every
round. Blocks are counted by every CPython, references by a debug build only (python3-dbg), where these tests show most:
a reference too many to an object that is shared (a class, a small number, None) holds no block.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import socket
import sys
from array import array
from collections.abc import Callable
from multiprocessing.connection import Connection as Original
from typing import Any

import pytest
import vectorfiles
from conftest import WINGS
from scripted import Bracketed, Scripted, put_into

from sockframe import (
    BufferTooSmallError,
    Cobs,
    EndOfStream,
    FixedLength,
    FrameTooLongError,
    FramingError,
    LengthPrefix,
    Lines,
    Tagged,
)

#: Rounds that fill what the interpreter keeps for another time, the last rounds, which count, and rounds at the most;
#: how often each does a work.
WARM, ROUNDS, MOST, TIMES = 4, 4, 40, 20

counts_references = hasattr(sys, "gettotalrefcount")

pytestmark = pytest.mark.skipif(not getattr(sys, "getallocatedblocks", int)(),
                                reason="only CPython counts blocks of memory, and not those of PYTHONMALLOC=malloc")


def growth(work: Callable[[], object]) -> dict[str, int]:
    """Return how many more blocks and references there were, at least, after each of the last rounds than before it.

    The interpreter itself keeps a little less every time (3.12 for a dozen rounds), so what grows is looked at longer.
    """
    meters = {"blocks": sys.getallocatedblocks}
    if counts_references:
        meters["references"] = vars(sys)["gettotalrefcount"]
    if sys.version_info < (3, 12):  # since then it lives for ever, uncounted
        meters["references to None"] = lambda: sys.getrefcount(None)
    seen = {name: array("q", bytes(8 * MOST)) for name in meters}  # which hold no objects
    found: dict[str, int] = {}
    for number in range(MOST):
        for _ in range(TIMES):
            work()
        gc.collect()
        for name, meter in meters.items():
            seen[name][number] = meter()
        if number >= WARM + ROUNDS - 1:
            found = {name: min(at[i] - at[i - 1] for i in range(number - ROUNDS + 1, number + 1))
                     for name, at in seen.items()}
            if max(found.values()) < TIMES // 2:
                break
    return found


def vectors(wing: Any) -> None:
    """Every fourth block of vectors: a stream, whole, by bytes and as batches, to its fault, and what it encodes."""
    for kind in KINDS:
        for block in kind.blocks[::4]:
            for stream in [stream for stream in block.streams if len(stream.data) <= 30][-1:]:
                for method, step in WAYS:
                    each = wing.Decoder(block.framing)
                    with contextlib.suppress(FramingError):
                        for at in range(0, len(stream.data), step):
                            list(getattr(each, method)(stream.data[at:at + step]))
                        each.finish()
            for encoding in [encoding for encoding in block.encodings if len(encoding.payload) <= 30][-2:]:
                with contextlib.suppress(FramingError, ValueError):
                    wing.Encoder(block.framing).encode(encoding.payload)


def decoder(wing: Any) -> None:
    """All that a decoder can be asked."""
    each = wing.Decoder(Lines(max_length=100))
    each.feed(b"one\ntwo\n")
    assert each.next_frame() == b"one"
    assert list(each) == [b"two"]
    put_into(each, b"three\nfo")
    assert (each.next_frame(), each.need, each.buffered, each.position, each.skipped) == (b"three", 1, 2, 14, 0)
    each.framing = LengthPrefix(1)
    assert each.take_buffered() == b"fo"
    with contextlib.suppress(TypeError):
        each.decode("text")
    each.feed(b"\xffover the limit")
    with contextlib.suppress(FramingError):
        each.finish()
    own = wing.Decoder(Tagged({b"<": Bracketed(), b"1": FixedLength(2)}))
    assert own.decode(b"<00003abc>12<") == [b"abc", b"12"]
    with contextlib.suppress(FramingError):
        own.decode(b"00003abc)")
    with contextlib.suppress(FramingError):
        own.decode(b"more")


def encoder(wing: Any) -> None:
    """All that an encoder can be asked, and what it refuses."""
    each = wing.Encoder(LengthPrefix(2, max_length=100))
    assert each.encode(bytearray(b"one")) == b"\0\3one"
    assert each.encode_many([b"", memoryview(b"two")]) == b"\0\0\0\3two"
    assert each.encode_many(iter([b"x"] * 20)) == b"\0\1x" * 20
    assert each.encode_into(b"one", bytearray(20), 5) == 5
    for call in (lambda: each.encode(bytes(101)), lambda: each.encode_many([b"x", "text"]),
                 lambda: each.encode_into(b"one", bytearray(2)), lambda: each.encode_many([b"x", bytes(101)])):
        with pytest.raises((TypeError, ValueError, BufferTooSmallError)):
            call()
    assert wing.Encoder(Bracketed()).encode(b"abc") == b"<00003abc>"
    assert wing.Encoder(Cobs()).encode_many([b"a\0b"] * 3) == b"\2a\2b\0" * 3


def batches(wing: Any) -> None:
    """What a batch gives, after the decoder has gone on."""
    each = wing.Decoder(LengthPrefix(1))
    batch = each.decode_batch(b"\3one\0\5three\2")
    each.feed(bytes(100))
    with contextlib.suppress(FramingError):
        each.next_batch()
    assert batch.tolist() == [b"one", b"", b"three"] == [bytes(view) for view in batch]
    assert (batch[1], batch[-1], batch.join()) == (b"", b"three", b"onethree")
    assert [batch.buffer[start:stop] for start, stop in memoryview(batch.spans).tolist()] == [b"one", b"", b"three"]
    assert [bytes(view) for view in batch[1:]] == [b"", b"three"]
    with contextlib.suppress(IndexError):
        batch[3]
    assert len(batch.__arrow_c_array__()) == 2


def connections(wing: Any) -> None:
    """Frames through a socket pair, in every way, to the end of the stream."""
    left, right = wing.pair(LengthPrefix(2))
    with left, right:
        left.send(b"one", timeout=5)
        left.send_many([b"two", b"", bytes(5000)])
        left.send_many(iter([b"three"] * 30))
        assert right.recv(timeout=5) == b"one"
        assert right.recv() == b"two"
        assert right.recv_into(bytearray(9)) == 0
        with contextlib.suppress(BufferTooSmallError):
            right.recv_into(bytearray(9))
        assert len(right.recv()) == 5000
        assert len(right.recv_many(10)) == 10
        assert right.recv_batch().tolist() == [b"three"] * 20
        right.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            right.recv()
        with contextlib.suppress(TimeoutError):
            right.recv(timeout=0.0001)
        with contextlib.suppress(FrameTooLongError):
            left.send(bytes(70_000))
        left.send(b"last")
        left.shutdown(socket.SHUT_WR)
        assert list(right) == [b"last"]
        with contextlib.suppress(EndOfStream):
            right.recv()
    with contextlib.suppress(OSError):
        left.send(b"closed")
    scripted = wing.FramedSocket(Scripted(b"one\ntwo", cuts=range(8), takes=[1, BlockingIOError(), 100]), Lines())
    assert scripted.recv_many(1) == [b"one"]
    with contextlib.suppress(BlockingIOError):
        scripted.send(b"text")
    scripted.flush()
    assert scripted.detach()[1] == b""


def selecting(wing: Any) -> None:
    """Two connections in a selector: one with frames, one that ends in a fault."""
    pairs = [wing.pair(Lines(max_length=5)) for _ in range(2)]
    with wing.FrameSelector() as selector:
        for near, far in pairs:
            near.setblocking(False)
            selector.register(near, data=far)
            far.sock.sendall(b"one\ntwo\n")
        assert [frames for _, frames in selector.select(5)] == [[b"one", b"two"]] * 2
        pairs[1][1].sock.sendall(b"too long\n")
        assert [type(found) for _, found in selector.select(5)] == [FrameTooLongError]
        selector.unregister(pairs[0][0])
    for pair in pairs:
        for conn in pair:
            conn.close()


def store(wing: Any) -> None:
    """The store under streams of bytes."""
    each = wing.StreamBuffer(1000)
    each.feed(b"one two three")
    put_into(each, b" four\r\n")
    assert each.find((b"\n", b" ")) == (3, 4)
    assert each.take(4) == b"one "
    assert each.take_through(b" ") == b"two "
    assert each.take(100) is None
    assert each.take_some(5) == b"three"
    target = bytearray(10)
    each.receive_into(memoryview(target))
    put_into(each, b"56789")
    each.give_back()
    each.expect(5000)
    put_into(each, bytes(5000))


def messages(wing: Any) -> None:
    """Messages of multiprocessing, whole and cut off."""
    left, right = (MESSAGES[wing.name](sock.detach()) for sock in socket.socketpair())
    with left, right:
        left.send_bytes(b"one")
        left.send_bytes(bytes(20_000), 5, 10_000)
        left.send_bytes(b"two")
        left.send_bytes(b"three")
        assert (right.recv_bytes(), len(right.recv_bytes())) == (b"one", 10_000)
        assert right.recv_bytes_into(bytearray(5)) == 3
        with contextlib.suppress(Exception):
            right.recv_bytes_into(bytearray(2))
        left.close()
        with contextlib.suppress(EOFError):
            right.recv_bytes()


def awaited(wing: Any) -> None:
    """Frames that a loop over a stream awaits: here already, waited for, and the end."""
    async def late() -> bytes:
        await asyncio.sleep(0)
        if not coming:
            raise StopAsyncIteration
        return coming.pop()

    async def run() -> list[bytes]:
        frames = wing.AsyncFrames(late)
        frames.ready = wing.Decoder(Lines())
        frames.ready.feed(b"one\ntwo\n")
        return [frame async for frame in frames]

    coming = [b"three"]
    assert asyncio.run(run()) == [b"one", b"two", b"three"]


KINDS = [vectorfiles.read_vectors(path) for path in sorted(vectorfiles.FOLDER.glob("*.txt"))]
WAYS = [("decode", 30), ("decode", 1), ("decode_batch", 7)]
# Made once: without the GIL a class lives for ever as soon as there was a second thread (Python 3.13).
MESSAGES: dict[str, Any] = {
    name: type("Connection", (importlib.import_module(f"sockframe._{name}").MessageConnection, Original), {})
    for name in WINGS}
WORKS = [vectors, decoder, encoder, batches, connections, selecting, store, messages, awaited]


if not hasattr(os, "writev"):  # Windows, whose messages are the original's
    WORKS.remove(messages)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_nothing_is_left_behind(wing: Any, work: Callable[[Any], None], no_collector: None) -> None:
    assert {name: number for name, number in growth(lambda: work(wing)).items() if number >= TIMES // 2} == {}


def test_what_is_left_behind_is_seen(no_collector: None) -> None:
    kept: list[object] = []
    assert growth(lambda: kept.append(object()))["blocks"] >= TIMES
    if counts_references:
        assert growth(lambda: kept.append(None))["references"] >= TIMES
