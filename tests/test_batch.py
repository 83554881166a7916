"""FrameBatch: what it gives, and that nothing that becomes of its decoder or connection changes it."""

import copy
import gc
import itertools
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from generate import Counted, outcome
from scripted import LIMIT, Scripted, Task, noise

from sockframe.errors import EndOfStream, FrameTooLongError, IncompleteFrameError, MalformedFrameError
from sockframe.framings import (
    UNLIMITED,
    Cobs,
    Delimiter,
    FixedLength,
    Framing,
    LengthPrefix,
    Lines,
    Slip,
    UntilClose,
)

PAYLOADS = [b"one", b"", b"three", bytes(300), b"5"]
KIB = 1024


def stream_of(wing: Any, payloads: "list[bytes]", framing: Framing = LengthPrefix(2)) -> bytes:  # noqa: B008
    return bytes(wing.Encoder(framing).encode_many(payloads))


@pytest.fixture
def batch(wing: Any) -> Any:
    """Some payloads."""
    return wing.Decoder(LengthPrefix(2)).decode_batch(stream_of(wing, PAYLOADS))


@pytest.fixture
def tracemalloc() -> Any:
    """The module that traces memory."""
    return pytest.importorskip("tracemalloc", reason="only CPython traces memory")


# ---- what it gives ----

def test_a_batch_is_a_sequence_of_memoryviews(batch: Any) -> None:
    assert len(batch) == len(PAYLOADS)
    assert list(batch) == PAYLOADS
    for number, payload in enumerate(PAYLOADS):
        for view in (batch[number], batch[number - len(PAYLOADS)]):
            assert (type(view), view, view.readonly, view.format) == (memoryview, payload, True, "B")
    for key in (len(PAYLOADS), -len(PAYLOADS) - 1, 1 << 70, -1 << 70):
        with pytest.raises(IndexError, match=r"^FrameBatch index out of range$"):
            batch[key]
    for key in (1.0, "1", None, (0, 1)):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            batch[key]
    assert b"three" in batch
    assert b"four" not in batch
    assert list(reversed(batch)) == PAYLOADS[::-1]
    assert repr(batch) == "<FrameBatch of 5 frames>"
    assert batch.tolist() == PAYLOADS
    assert [type(one) for one in batch.tolist()] == [bytes] * 5
    assert batch.join() == b"".join(PAYLOADS)
    assert type(batch.join()) is bytes


def test_a_batch_does_all_that_a_sequence_does(batch: Any) -> None:
    assert not isinstance(batch, Sequence)  # polars would then take its payloads one by one, and not as Arrow's
    assert (batch.index(b"three"), batch.index(memoryview(b"")), batch.index(b"", -4)) == (2, 1, 1)
    assert (batch.count(b"one"), batch.count("one")) == (1, 0)
    for start, stop in itertools.product(range(-7, 8), (None, *range(-7, 8))):
        bounds = (start,) if stop is None else (start, stop)
        assert outcome(batch.index, b"three", *bounds)[:2] == outcome(PAYLOADS.index, b"three", *bounds)[:2]
    with pytest.raises(ValueError, match=r"^no payload of the batch equals the value$"):
        batch.index(b"three", 3)


def test_a_slice_is_a_batch(wing: Any, batch: Any) -> None:
    places = (None, *range(-7, 8))
    for key in itertools.starmap(slice, itertools.product(places, places, (None, 1, 2, -1, -3, 9))):
        part = batch[key]
        assert type(part) is wing.FrameBatch
        assert part.tolist() == PAYLOADS[key]
        assert part[::-1].tolist() == PAYLOADS[key][::-1]
        assert [bytes(part.buffer)[start:stop] for start, stop in part.spans.tolist()] == PAYLOADS[key]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        batch[::0]
    many = wing.Decoder(LengthPrefix(1)).decode_batch(b"\1x" * 5000)
    assert many[10:4000:3].tolist() == [b"x"] * 1330


def test_spans_are_int64_and_tell_places_in_the_buffer(wing: Any, batch: Any) -> None:
    for one, count in ((batch, 5), (batch[1:3], 2), (batch[:0], 0), (wing.Decoder(Lines()).decode_batch(b"a"), 0)):
        spans, buffer = one.spans, one.buffer
        assert (spans.format, spans.itemsize, spans.shape, spans.ndim) == ("q", 8, (count, 2), 2)
        assert (spans.readonly, spans.c_contiguous, spans.nbytes) == (True, True, 16 * count)
        assert (buffer.readonly, buffer.format, buffer.ndim) == (True, "B", 1)
        assert [buffer[start:stop] for start, stop in spans.tolist()] == one.tolist()
        assert [spans[row, column] for row in range(count) for column in (0, 1)] == list(
            itertools.chain(*spans.tolist()))
    places = itertools.chain(*batch.spans.tolist())
    assert bytes(batch.spans) == b"".join(place.to_bytes(8, sys.byteorder) for place in places)


def test_views_that_are_released_take_nothing_away(batch: Any) -> None:
    for view in (batch.buffer, batch.spans, batch[0], next(iter(batch))):
        view.release()
    assert batch.tolist() == list(batch) == PAYLOADS
    assert batch.spans.shape == (5, 2)


def test_a_batch_can_not_be_written_made_copied_or_derived_from(wing: Any, batch: Any) -> None:
    for view in (batch.buffer, batch[0], batch.spans):
        with pytest.raises(TypeError, match="read-only"):
            view[(0, 0) if view.ndim == 2 else 0] = 1
    with pytest.raises(AttributeError):
        batch.new = 1
    with pytest.raises(TypeError):
        batch[0] = b"x"
    made = "a FrameBatch comes from decode_batch(), next_batch() or recv_batch()"
    assert outcome(wing.FrameBatch) == outcome(batch.__init__) == ("raises", TypeError, made, {})
    assert batch.tolist() == PAYLOADS
    text = "FrameBatch can't be pickled or copied: take its tolist()"
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        assert outcome(call, batch) == ("raises", TypeError, text, {})
    with pytest.raises(TypeError, match="is not an acceptable base type"):
        type("Sub", (wing.FrameBatch,), {})


def test_one_that_was_never_made_is_empty(wing: Any) -> None:
    one = wing.FrameBatch.__new__(wing.FrameBatch)
    assert (len(one), list(one), one.tolist(), one.join(), one.spans.shape, bytes(one.buffer)) == (
        0, [], [], b"", (0, 2), b"")
    assert one[:].tolist() == []
    with pytest.raises(IndexError):
        one[0]


# ---- what becomes of the decoder ----

def go_on(decoder: Any) -> None:
    for _ in range(50):
        decoder.decode(b"\0\5other" + bytes(2000))
        room = decoder.get_buffer()
        room[:] = b"\xaa" * len(room)


def feed_much(decoder: Any) -> None:
    for _ in range(50):
        decoder.feed(b"\xff\xff" + b"\xaa" * 65_535)
        decoder.next_frame()


def fail(decoder: Any) -> None:
    decoder.framing = Lines("crlf")
    with pytest.raises(MalformedFrameError):
        decoder.decode(b"\n")


AFTERWARDS: "dict[str, Callable[[Any], Any]]" = {
    "go on": go_on, "feed": feed_much, "finish": lambda decoder: outcome(decoder.finish),
    "take": lambda decoder: decoder.take_buffered(), "fail": fail,
    "batches": lambda decoder: [decoder.decode_batch(b"\0\4next" * 9000 + b"\0") for _ in range(9)]}


def by_memory(decoder: Any, data: bytes) -> Any:
    """From memory that changes."""
    source = bytearray(data)
    batch = decoder.decode_batch(memoryview(source))
    source[:] = bytes(len(source))
    return batch


def by_pieces(decoder: Any, data: bytes) -> Any:
    for at in range(0, len(data), 1000):
        decoder.feed(data[at:at + 1000])
    return decoder.next_batch()


def by_buffer(decoder: Any, data: bytes) -> Any:
    while data:
        with decoder.get_buffer(len(data)) as room:
            size = min(len(room), len(data))
            room[:size] = data[:size]
        decoder.buffer_updated(size)
        data = data[size:]
    return decoder.next_batch()


def behind_a_piece(decoder: Any, data: bytes) -> Any:
    assert decoder.decode_batch(data[:1]).tolist() == []
    return decoder.decode_batch(data[1:])


SOURCES: "dict[str, Callable[[Any, bytes], Any]]" = {
    "bytes": lambda decoder, data: decoder.decode_batch(data), "memory": by_memory, "pieces": by_pieces,
    "buffer": by_buffer, "behind a piece": behind_a_piece}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("then", [*AFTERWARDS, "dropped"])
def test_a_batch_stays_whatever_becomes_of_its_decoder(wing: Any, source: str, then: str) -> None:
    """Law 11: memory lent out stays valid."""
    for payloads in (PAYLOADS, [noise(100, number) for number in range(2000)]):
        decoder = wing.Decoder(LengthPrefix(2))
        batch = SOURCES[source](decoder, stream_of(wing, payloads) + b"\0\4ab")
        assert decoder.buffered == 4
        spans, view, part = batch.spans, batch[2], batch[1:4]
        iterator = iter(batch)
        if then == "dropped":
            del decoder
            gc.collect()
        else:
            AFTERWARDS[then](decoder)
        assert batch.tolist() == [*iterator] == payloads
        del batch, iterator
        gc.collect()
        assert view == payloads[2]
        assert part.tolist() == payloads[1:4]
        assert len(spans.tolist()) == len(payloads)


def test_batches_of_one_store_share_it_and_do_not_disturb_each_other(wing: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(2))
    batches = []
    for number in range(300):
        frames = stream_of(wing, [noise(300, number), noise(400, number)])
        decoder.feed(frames[:500])
        batches.append(decoder.next_batch())
        decoder.feed(frames[500:])
    batches.append(decoder.next_batch())
    got = list(itertools.chain(*(batch.tolist() for batch in batches)))
    assert got == [noise(size, number) for number in range(300) for size in (300, 400)]


def test_threads_share_a_batch(wing: Any) -> None:
    payloads = [noise(size % 50, size) for size in range(3000)]
    batch = wing.Decoder(LengthPrefix(2)).decode_batch(stream_of(wing, payloads))

    def read() -> bool:
        return all(batch.tolist() == payloads and list(batch) == payloads and batch.join() == b"".join(payloads)
                   and len(batch.spans.tolist()) == 3000 for _ in range(5))

    tasks = [Task(read) for _ in range(4)]
    assert all(task.result() for task in tasks)


# ---- memory ----

def test_in_the_core_payloads_are_not_copied(wing: Any, tracemalloc: Any) -> None:
    """Those of bytes stay there, and a store that was filled is handed over."""
    if wing.name == "pure":
        return
    payloads = [noise(5000)] * 100
    data = stream_of(wing, payloads)
    decoder = wing.Decoder(LengthPrefix(2))
    tracemalloc.start()
    try:
        batch = decoder.decode_batch(data)
        assert tracemalloc.get_traced_memory()[0] < 8 * KIB
        assert batch.buffer.obj is data
        decoder.feed(data)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        other = decoder.next_batch()
        assert tracemalloc.get_traced_memory()[1] - before < 8 * KIB
    finally:
        tracemalloc.stop()
    assert batch.tolist() == other.tolist() == payloads


def test_a_batch_holds_no_more_than_four_times_its_bytes(wing: Any, tracemalloc: Any) -> None:
    """Law 8: of a store of 64 KiB, for a frame of a few bytes."""
    decoder = wing.Decoder(LengthPrefix(2))
    tracemalloc.start()
    try:
        batches = []
        for _ in range(100):
            decoder.get_buffer()[:5] = b"\0\3abc"
            decoder.buffer_updated(5)
            batches.append(decoder.next_batch())
        assert tracemalloc.get_traced_memory()[0] < 100 * KIB
        assert [batch.tolist() for batch in batches] == [[b"abc"]] * 100
        batches.clear()
        many = decoder.decode_batch(b"\0\0" * 30_000)
        batches = [decoder.decode_batch(b"\0\0" * count)[:1] for count in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 3 * 16 * 30_000 + 100 * KIB
        assert len(many) == 30_000
    finally:
        tracemalloc.stop()


def test_an_empty_batch_holds_nothing(wing: Any, tracemalloc: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(4, max_length=UNLIMITED))
    decoder.decode_batch(b"\x7f\xff\xff\xff")
    tracemalloc.start()
    try:
        batches = [decoder.decode_batch(bytes(1000)) for _ in range(1000)]
        assert tracemalloc.get_traced_memory()[0] <= 2 * 1000 * 1000 + 64 * KIB + 1000 * KIB // 2
        assert [len(batch) for batch in batches] == [0] * 1000
    finally:
        tracemalloc.stop()


# ---- what a call does ----

@pytest.mark.parametrize("framing", [LengthPrefix(1), Lines(), Lines("crlf"), Delimiter(b"ab"), Cobs(), Slip(),
                                     FixedLength(3), Counted(), UntilClose()], ids=repr)
def test_each_kind_gives_what_decode_gives(wing: Any, framing: Framing) -> None:
    """The vectors do so at every cut: here with many frames, and more than once."""
    payloads = [b"x%d" % (number % 10) for number in range(9000)]
    if isinstance(framing, FixedLength):
        payloads = [payload.ljust(3) for payload in payloads]
    if isinstance(framing, UntilClose):
        payloads = payloads[:1]
    stream = stream_of(wing, payloads, framing)
    one, other = wing.Decoder(framing), wing.Decoder(framing)
    for size in (len(stream), 3001, 1, 64 * KIB):
        for at in range(0, len(stream), size) if size > 1 else range(500):
            piece = stream[at:at + size]
            assert one.decode_batch(piece).tolist() == other.decode(piece)
            assert (one.position, one.buffered, one.need) == (other.position, other.buffered, other.need)


def test_payloads_that_lie_nowhere_whole_are_put_together(wing: Any) -> None:
    """A truncated one that came in pieces, a stuffed one: those before and behind them are found all the same."""
    decoder = wing.Decoder(LengthPrefix(1, max_length=4, overlong="truncate"))
    assert decoder.decode_batch(b"\1a\6bcde").tolist() == [b"a"]
    batch = decoder.decode_batch(b"fg\1h\5ijklm\2no\7pqrs")
    assert batch.tolist() == [b"bcde", b"h", b"ijkl", b"no"]
    assert bytes(batch.buffer) == b"bcdehijklno"
    assert decoder.decode_batch(b"tuv").tolist() == [b"pqrs"]
    decoder = wing.Decoder(LengthPrefix(1, max_length=4, overlong="skip"))
    assert decoder.decode_batch(b"\1a\6bcdefg\1h\5ijklm\2no\7pq").tolist() == [b"a", b"h", b"no"]
    assert decoder.skipped == 2
    payloads = [noise(size, size).replace(b"-", b"\0\xc0\xdb") for size in (1, 700, 10_000, 3, 253, 254, 255)] * 20
    for framing in (Cobs(), Slip()):
        assert wing.Decoder(framing).decode_batch(stream_of(wing, payloads, framing)).tolist() == payloads


@pytest.mark.parametrize("way", ["decode_batch", "next_batch"])
def test_a_fault_comes_behind_its_batch(wing: Any, way: str) -> None:
    """Law 7."""
    for framing, good, bad, kind in (
            (LengthPrefix(1, max_length=3), b"\1a\2bc", b"\4defg", FrameTooLongError),
            (Lines("crlf"), b"a\r\nbc\r\n", b"d\ne", MalformedFrameError),
            (Counted(), b"\1\1a\1\2bc", b"\xff", MalformedFrameError)):
        decoder = wing.Decoder(framing)

        def call(data: bytes, decoder: Any = decoder) -> Any:
            if way == "decode_batch":
                return decoder.decode_batch(data)
            decoder.feed(data)
            return decoder.next_batch()
        batch = call(good + bad)
        assert batch.tolist() == [b"a", b"bc"]
        for _ in range(2):
            with pytest.raises(kind) as caught:
                call(b"")
            assert caught.value.position == len(good)
        assert batch.tolist() == [b"a", b"bc"]


def test_the_end_of_a_stream(wing: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(1))
    assert decoder.decode_batch(b"\1a\2b").tolist() == [b"a"]
    with pytest.raises(IncompleteFrameError):
        decoder.finish()
    with pytest.raises(IncompleteFrameError):
        decoder.next_batch()
    decoder = wing.Decoder(LengthPrefix(1))
    assert decoder.finish() == []
    assert decoder.next_batch().tolist() == decoder.decode_batch(b"").tolist() == []
    with pytest.raises(ValueError, match=r"^the stream has ended: finish\(\) was called$"):
        decoder.decode_batch(b"x")


@pytest.mark.parametrize(("data", "kind"), [("text", TypeError), (None, TypeError), (5, TypeError),
                                            (memoryview(b"abcd")[::2], BufferError)])
def test_what_is_no_bytes_is_refused_as_by_decode(wing: Any, data: Any, kind: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(1))
    assert outcome(decoder.decode_batch, data) == outcome(decoder.decode, data)
    assert outcome(decoder.decode, data)[1] is kind
    assert decoder.decode_batch(memoryview(b"\0\1a\0").cast("H")).tolist() == [b"", b"a", b""]


# ---- connections ----

def test_recv_batch_gives_all_that_is_here(wing: Any) -> None:
    payloads = [noise(size * 7, size) for size in range(100)]
    left, right = wing.pair(LengthPrefix(2), SO_SNDBUF=1 << 20)
    with left, right:
        with pytest.raises(BlockingIOError):
            right.recv_batch(timeout=0)
        with pytest.raises(TimeoutError):
            right.recv_batch(timeout=0.01)
        batches = []
        for _ in range(20):
            left.send_many(payloads, timeout=LIMIT)
            batches.append(right.recv_batch(timeout=LIMIT))
        left.close()
        with pytest.raises(EndOfStream):
            while True:
                batches.append(right.recv_batch(timeout=LIMIT))
        with pytest.raises(EndOfStream):
            right.recv_batch(timeout=LIMIT)
    assert all(batches)
    assert list(itertools.chain(*(batch.tolist() for batch in batches))) == payloads * 20


def test_recv_batch_gives_about_a_mebibyte(wing: Any) -> None:
    """And what it leaves is there for the next call, of whichever kind."""
    large, small = noise(3 << 20), [noise(10_000, number) for number in range(400)]
    stream = stream_of(wing, [large, *small, b"x"], LengthPrefix(4))
    conn = wing.FramedSocket(Scripted(stream), LengthPrefix(4))
    got: list[bytes] = []
    for call in itertools.cycle([conn.recv_batch, conn.recv_batch, lambda: [conn.recv()], lambda: conn.recv_many(3)]):
        if len(got) == 402:
            break
        frames = [bytes(frame) for frame in call()]
        assert sum(map(len, frames)) <= (1 << 20) + 10_000 or frames[-1] == large
        got += frames
    assert got == [large, *small, b"x"]


@pytest.mark.parametrize("place", [1, 5, 100_000, 199_999])
def test_a_large_frame_that_another_call_began_is_in_the_batch(wing: Any, place: int) -> None:
    stream = stream_of(wing, [noise(200_000), b"x"], LengthPrefix(4))
    sock = Scripted(stream, events={place: [BlockingIOError()] * 2})
    conn = wing.FramedSocket(sock, LengthPrefix(4))
    for call in (conn.recv, conn.recv_batch):
        with pytest.raises(BlockingIOError):
            call()
    got: list[bytes] = []
    while len(got) < 2:
        got += conn.recv_batch().tolist()
    assert got == [noise(200_000), b"x"]


def test_what_the_end_of_a_stream_makes_is_a_batch(wing: Any) -> None:
    for framing, payloads in ((Delimiter(b"|", tail="deliver"), [b"one", b"two"]), (UntilClose(), [b"one|two"])):
        conn = wing.FramedSocket(Scripted(b"one|two"), framing)
        got = []
        for _ in payloads:
            got += conn.recv_batch().tolist()
        assert got == payloads
        with pytest.raises(EndOfStream):
            conn.recv_batch()
    conn = wing.FramedSocket(Scripted(b"\1a\2b"), LengthPrefix(1))
    assert conn.recv_batch().tolist() == [b"a"]
    with pytest.raises(IncompleteFrameError):
        conn.recv_batch()


def test_a_batch_stays_whatever_becomes_of_its_connection(wing: Any) -> None:
    payloads = [noise(500, number) for number in range(100)]
    left, right = wing.pair(LengthPrefix(2), SO_SNDBUF=1 << 20)
    with left:
        left.send_many(payloads, timeout=LIMIT)
        batches = [right.recv_batch(timeout=LIMIT)]
        while sum(map(len, batches)) < 100:
            batches.append(right.recv_batch(timeout=LIMIT))
        for _ in range(20):
            left.send_many([bytes(500)] * 100, timeout=LIMIT)
            right.recv_batch(timeout=LIMIT)
        right.close()
        del right
        gc.collect()
    assert list(itertools.chain(*(batch.tolist() for batch in batches))) == payloads
