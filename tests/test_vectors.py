"""Every vector on both wings, however the stream is cut, by every way in and out of a decoder.

A stream is cut at every place, byte by byte, in all partitions (up to 10 bytes) or at seeded random
places. One of more than LONG bytes is cut near its ends, near the last frame's end, and at some places
between.
"""

import itertools
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vectorfiles import FILES, Block, Encoding, Stream, Wrong, make

from sockframe import errors
from sockframe.errors import Fault, FrameTooLongError, FramingError, IncompleteFrameError, MalformedFrameError
from sockframe.framings import Framing, LengthField, LengthPrefix

BLOCKS = [block for file in FILES.values() for block in file.blocks]
STREAMS = [pytest.param(block, stream, id=stream.place) for block in BLOCKS for stream in block.streams]
ENCODINGS = [pytest.param(block, one, id=one.place) for block in BLOCKS for one in block.encodings if not one.fault]
FAULTS = [pytest.param(block, stream, id=stream.place) for block in BLOCKS for stream in block.streams
          if stream.fault and stream.fault.at is not None]
REFUSALS = [pytest.param(block, one, id=one.place) for block in BLOCKS for one in block.encodings if one.fault]
WRONG = [pytest.param(kind, source, id=place) for file in FILES.values() for place, kind, source in file.wrong]

LONG = 300
ALL_PARTITIONS = 10
AROUND = 70
TRAILING = (b"0", b"\r\n\n", b"\xff" * 9, bytes(5), b"5:hello,")


# ---- ways to read a stream: the decoder, the frames, and the fault that was raised ----

Result = tuple[Any, list[bytes], "FramingError | None"]


def by_decode(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by decode(); the call after the last shows a fault that frames came in front of."""
    frames: list[bytes] = []
    try:
        for piece in [*pieces, b""]:
            frames += decoder.decode(piece)
    except FramingError as error:
        return decoder, frames, error
    return decoder, frames, None


def by_iteration(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by feed() and iteration."""
    frames: list[bytes] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            for frame in decoder:
                frames.append(frame)  # noqa: PERF402 (those in front of an error count)
    except FramingError as error:
        return decoder, frames, error
    return decoder, frames, None


def by_next_frame(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by feed() and next_frame(); `need` is 0 just where that has an answer, and promises no more
    than the frame has."""
    frames: list[bytes] = []
    promised = 0
    for piece in pieces:
        decoder.feed(piece)
        while True:
            need = decoder.need
            try:
                frame = decoder.next_frame()
            except FramingError as error:
                assert need == 0
                return decoder, frames, error
            if frame is None:
                assert need > 0
                promised = max(promised, decoder.position + decoder.buffered + need)
                break
            assert need == 0
            assert decoder.position >= promised
            frames.append(frame)
    return decoder, frames, None


def by_buffer(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by get_buffer(), buffer_updated() and next_frame()."""
    frames: list[bytes] = []
    try:
        for piece in pieces:
            while piece:
                with decoder.get_buffer(len(piece)) as room:
                    size = min(len(room), len(piece))
                    room[:size] = piece[:size]
                decoder.buffer_updated(size)
                piece = piece[size:]
                while (frame := decoder.next_frame()) is not None:
                    frames.append(frame)
    except FramingError as error:
        return decoder, frames, error
    return decoder, frames, None


def by_feed_first(decoder: Any, pieces: "list[bytes]") -> Result:
    """Feed all, then read."""
    for piece in pieces:
        decoder.feed(piece)
    return by_iteration(decoder, [b""])


def payloads_of(batch: Any) -> "list[bytes]":
    """The payloads of a batch, which are the same by every way that it gives them."""
    payloads = batch.tolist()
    buffer, spans = bytes(batch.buffer), batch.spans.tolist()
    assert (len(batch), batch.join()) == (len(payloads), b"".join(payloads))
    assert [buffer[start:stop] for start, stop in spans] == payloads
    assert [*map(bytes, batch)] == payloads
    return payloads


def by_decode_batch(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by decode_batch(), every other piece from memory that then changes."""
    batches = []
    frames: list[bytes] = []
    error = None
    try:
        for number, piece in enumerate([*pieces, b""]):
            data = bytearray(piece) if number & 1 else piece
            batches.append(decoder.decode_batch(data))
            if number & 1:
                data[:] = bytes(len(data))
    except FramingError as caught:
        error = caught
    for batch in batches:  # which the decoder has gone on from
        frames += payloads_of(batch)
    return decoder, frames, error


def by_next_batch(decoder: Any, pieces: "list[bytes]") -> Result:
    """Read by feed(), or get_buffer() and buffer_updated(), and next_batch()."""
    batches = []
    frames: list[bytes] = []
    error = None
    try:
        for number, piece in enumerate([*pieces, b""]):
            if number & 1:
                with decoder.get_buffer(len(piece)) as room:
                    size = min(len(room), len(piece))
                    room[:size] = piece[:size]
                decoder.buffer_updated(size)
                piece = piece[size:]
            if number or piece:
                decoder.feed(piece)
            batches.append(decoder.next_batch())
    except FramingError as caught:
        error = caught
    for batch in batches:
        frames += payloads_of(batch)
    return decoder, frames, error


WAYS = (by_decode, by_iteration, by_next_frame, by_buffer, by_feed_first, by_decode_batch, by_next_batch)


# ---- what must come ----

def same_error(error: "BaseException | None", expected: BaseException) -> None:
    """The class, the text and the attributes are those expected."""
    assert type(error) is type(expected)
    assert str(error) == str(expected)
    assert vars(error) == vars(expected)


def check_fault(error: "FramingError | None", wrong: Wrong, data: bytes, at: int) -> None:
    """The error tells of the fault, its numbers and its place."""
    assert error is not None, f"no {wrong.fault.name}"
    assert error.position == at  # type: ignore[attr-defined]
    assert error.header == data[at:at + min(wrong.seen, 100)]  # type: ignore[attr-defined]
    if wrong.fault is Fault.TOO_LONG:
        assert isinstance(error, FrameTooLongError)
        assert (error.length, error.limit) == (wrong.number or None, wrong.limit)
    else:
        assert isinstance(error, MalformedFrameError)
    same_error(error, errors.scan_error(wrong.fault, wrong.number, wrong.limit, at, wrong.seen, error.header))


def check_final(decoder: Any, error: FramingError) -> None:
    """Every later call raises the fault, and nothing is stored."""
    position = decoder.position
    calls: list[Callable[[], Any]] = [
        lambda: decoder.decode(b"abc"), lambda: decoder.decode(b""), lambda: decoder.feed(b"abc"),
        decoder.next_frame, lambda: next(decoder), decoder.get_buffer, lambda: decoder.buffer_updated(0),
        lambda: decoder.decode_batch(b"abc"), decoder.next_batch, decoder.finish, decoder.take_buffered]
    for call in calls:
        with pytest.raises(FramingError) as again:
            call()
        same_error(again.value, error)
        assert (decoder.position, decoder.buffered, decoder.need) == (position, 0, 0)


def check_incomplete(error: "BaseException | None", stream: Stream) -> None:
    """The error tells that the stream ended inside a frame."""
    assert isinstance(error, IncompleteFrameError)
    partial = stream.data[stream.good:]
    assert error.partial == partial[:100]
    assert error.need == stream.need
    assert error.position == stream.good
    same_error(error, errors.incomplete_error(partial[:100], len(partial), stream.need, stream.good))


def check_end(decoder: Any, stream: Stream) -> None:
    """The end of the stream gives what it must, and again when asked again."""
    if stream.last is not None:
        assert decoder.finish() == [stream.last]
        assert decoder.position == len(stream.data)
        assert decoder.finish() == []
    elif stream.fault:
        with pytest.raises(FramingError) as caught:
            decoder.finish()
        check_fault(caught.value, stream.fault, stream.data, stream.good)
        check_final(decoder, caught.value)
    elif stream.incomplete:
        for _ in range(2):
            with pytest.raises(IncompleteFrameError) as incomplete:
                decoder.finish()
            check_incomplete(incomplete.value, stream)
    else:
        assert decoder.finish() == []
        assert decoder.finish() == []
        assert decoder.next_frame() is None
        assert (decoder.position, decoder.buffered) == (len(stream.data), 0)
    assert decoder.skipped == stream.skipped + (stream.at_end == "skipped")


def check(result: Result, stream: Stream) -> None:
    """A stream that was read gave what it must; then it ends."""
    decoder, frames, error = result
    assert frames == stream.frames
    assert decoder.position == stream.good
    assert decoder.skipped == stream.skipped
    if stream.fault and stream.fault.at is not None:
        check_fault(error, stream.fault, stream.data, stream.good)
        assert (decoder.buffered, decoder.need) == (0, 0)
        return
    assert error is None
    assert decoder.buffered == stream.held
    assert decoder.need == stream.need
    check_end(decoder, stream)


# ---- cuts ----

def pieces(data: bytes, cuts: "list[int]") -> "list[bytes]":
    """Cut the data at these places."""
    return [data[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(data)])]


def places(stream: Stream) -> "list[int]":
    """Where to cut a stream: everywhere, or where it is worth it in a long one."""
    size = len(stream.data)
    if size <= LONG:
        return list(range(1, size))
    near = {at + step for at in (0, stream.good, size) for step in range(-AROUND, AROUND)}
    return sorted(at for at in near | set(range(0, size, size // 8 + 1)) if 0 < at < size)


def partitions(stream: Stream) -> "Iterator[list[int]]":
    """All cuts of a short stream; of a longer one some at random."""
    inner = range(1, len(stream.data))
    if len(stream.data) <= ALL_PARTITIONS:
        for count in range(len(stream.data)):
            yield from map(list, itertools.combinations(inner, count))
        return
    chance = random.Random(stream.place)
    for _ in range(4 if len(stream.data) > LONG else 24):
        yield sorted(chance.sample(inner, min(len(inner), chance.randrange(1, 40))))


def test_the_vectors_are_there() -> None:
    assert len(STREAMS) + len(ENCODINGS) + len(REFUSALS) > 1000
    for block in BLOCKS:
        assert block.streams or block.encodings, block.place
        assert all(stream.ended for stream in block.streams), block.place


# ---- framings ----

@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_spec_is_what_the_framing_compiles_to(block: Block) -> None:
    seen = set()

    def compare(framing: Framing, limit: int, overlong: str, path: "tuple[int, ...]") -> None:
        spec = framing.spec()
        seen.add(path)
        assert block.tree[path] == (spec.kind, limit, spec.numbers, spec.texts, overlong)
        for number, child in enumerate(spec.children, 1):
            compare(child, min(limit, child.max_length), child.overlong if overlong == "error" else overlong,
                    (*path, number))

    compare(block.framing, block.framing.max_length, block.framing.overlong, ())
    assert seen == set(block.tree)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_a_framing_can_be_written_down_compared_and_pickled(block: Block) -> None:
    framing = block.framing
    for other in (make(repr(framing)), pickle.loads(pickle.dumps(framing))):
        assert other == framing
        assert hash(other) == hash(framing)
        assert other.spec() == framing.spec()


@pytest.mark.parametrize(("kind", "source"), WRONG)
def test_a_framing_that_cannot_be_is_refused(kind: "type[Exception]", source: str) -> None:
    with pytest.raises(kind):
        make(source)


def test_native_byte_order_is_this_machines() -> None:
    assert LengthPrefix(4, "native").spec() == LengthPrefix(4, sys.byteorder).spec()
    assert LengthField(4, byteorder="native").spec() == LengthField(4, byteorder=sys.byteorder).spec()


# ---- streams ----

@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_whole_and_byte_by_byte(wing: Any, block: Block, stream: Stream) -> None:
    """A2."""
    for way in WAYS:
        check(way(wing.Decoder(block.framing), [stream.data]), stream)
        check(way(wing.Decoder(block.framing), [b"", stream.data, b""]), stream)
        check(way(wing.Decoder(block.framing), pieces(stream.data, places(stream))), stream)


@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_cut_in_two_anywhere(wing: Any, block: Block, stream: Stream) -> None:
    """A1."""
    for number, cut in enumerate(places(stream)):
        way = WAYS[number % len(WAYS)] if len(stream.data) > 40 else by_decode
        check(way(wing.Decoder(block.framing), pieces(stream.data, [cut])), stream)
        if way is by_decode:
            for way in (by_next_frame, (by_decode_batch, by_next_batch)[number % 2]):
                check(way(wing.Decoder(block.framing), pieces(stream.data, [cut])), stream)


@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_cut_at_many_places(wing: Any, block: Block, stream: Stream) -> None:
    for number, cuts in enumerate(partitions(stream)):
        way = WAYS[number % len(WAYS)]
        check(way(wing.Decoder(block.framing), pieces(stream.data, cuts)), stream)


@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_what_follows_changes_nothing_before_it(wing: Any, block: Block, stream: Stream) -> None:
    fault = stream.fault if stream.fault and stream.fault.at is not None else None
    data = stream.data if fault else stream.data[:stream.good]
    for behind in TRAILING:
        for parts in ([data + behind], [data, behind]):
            _, frames, error = by_decode(wing.Decoder(block.framing), parts)
            assert frames[:len(stream.frames)] == stream.frames
            if fault:
                assert len(frames) == len(stream.frames)
                check_fault(error, fault, data, stream.good)


@pytest.mark.parametrize(("block", "stream"), FAULTS)
def test_a_fault_comes_behind_the_frames_and_is_final(wing: Any, block: Block, stream: Stream) -> None:
    assert stream.fault
    decoder = wing.Decoder(block.framing)
    if stream.frames:
        assert decoder.decode(stream.data) == stream.frames
        assert (decoder.position, decoder.buffered, decoder.need) == (stream.good, 0, 0)
    with pytest.raises(FramingError) as caught:
        decoder.decode(b"" if stream.frames else stream.data)
    check_fault(caught.value, stream.fault, stream.data, stream.good)
    check_final(decoder, caught.value)


@pytest.mark.parametrize(("block", "stream"), FAULTS)
def test_a_fault_shows_with_the_byte_that_makes_it(wing: Any, block: Block, stream: Stream) -> None:
    assert stream.fault
    data = stream.data[:stream.good + stream.fault.seen]
    for way in WAYS:
        assert way(wing.Decoder(block.framing), [data[:-1]])[1:] == (stream.frames, None)
        for cuts in ([], [len(data) - 1], range(len(data) - min(len(data), 40), len(data))):
            check(way(wing.Decoder(block.framing), pieces(data, list(cuts))), stream)


@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_finish_returns_all_frames_and_then_raises(wing: Any, block: Block, stream: Stream) -> None:
    decoder = wing.Decoder(block.framing)
    decoder.feed(stream.data)
    frames = stream.frames + ([stream.last] if stream.last is not None else [])
    if frames or not (stream.fault or stream.incomplete):
        assert decoder.finish() == frames
    if stream.fault:
        with pytest.raises(FramingError) as caught:
            decoder.finish()
        check_fault(caught.value, stream.fault, stream.data, stream.good)
        check_final(decoder, caught.value)
    elif stream.incomplete:
        for call in (decoder.finish, decoder.next_frame, lambda: decoder.decode(b"")):
            with pytest.raises(IncompleteFrameError) as cut_off:
                call()
            check_incomplete(cut_off.value, stream)
    else:
        assert decoder.finish() == []
        assert (decoder.position, decoder.buffered) == (len(stream.data), 0)
    assert decoder.skipped == stream.skipped + (stream.at_end == "skipped")


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_need_in_front_of_a_frame(wing: Any, block: Block) -> None:
    assert wing.Decoder(block.framing).need == block.least


# ---- payloads ----

def is_last(payload: bytes, block: Block) -> bool:
    """Whether nothing can follow this payload's frame: it lasts until the stream ends."""
    spec = block.framing.spec()
    if spec.kind != "tagged":
        return spec.kind == "until_close"
    offset, mask = spec.numbers
    slot = 2 * (payload[offset] & mask)
    number = int.from_bytes(spec.texts[0][slot:slot + 2], "little")
    return spec.children[number - 1].spec().kind == "until_close"


@pytest.mark.parametrize(("block", "one"), ENCODINGS)
def test_encode(wing: Any, block: Block, one: Encoding) -> None:
    encoder = wing.Encoder(block.framing)
    for payload in (one.payload, bytearray(one.payload), memoryview(one.payload)):
        frame = encoder.encode(payload)
        assert type(frame) is bytes
        assert frame == one.frame
    assert encoder.encode_many([]) == b""
    assert encoder.encode_many([one.payload]) == one.frame
    assert encoder.encode_many(iter([bytearray(one.payload)])) == one.frame
    if not is_last(one.payload, block):
        assert encoder.encode_many([one.payload] * 3) == one.frame * 3
        return
    with pytest.raises(ValueError) as caught:
        encoder.encode_many([one.payload] * 3)
    same_error(caught.value, errors.wrap_error(Fault.WRAP_LAST, 0, 0, 1))


@pytest.mark.parametrize(("block", "one"), ENCODINGS)
def test_encode_into(wing: Any, block: Block, one: Encoding) -> None:
    encoder = wing.Encoder(block.framing)
    size = len(one.frame)
    for offset, behind in ((0, 0), (3, 2)):
        target = bytearray(b"\xa5" * (offset + size + behind))
        assert encoder.encode_into(one.payload, target, offset) == size
        assert target == b"\xa5" * offset + one.frame + b"\xa5" * behind
    if size:  # an empty frame fits everywhere
        target = bytearray(b"\xa5" * (size + 3))
        with pytest.raises(errors.BufferTooSmallError) as caught:
            encoder.encode_into(one.payload, target, 4)
        assert caught.value.need == size
        assert target == b"\xa5" * (size + 3)
    target = bytearray(one.payload + bytes(size - len(one.payload))) if size >= len(one.payload) else bytearray(size)
    if target.startswith(one.payload):
        with memoryview(target)[:len(one.payload)] as payload:
            assert encoder.encode_into(payload, target) == size
        assert target == one.frame


@pytest.mark.parametrize(("block", "one"), ENCODINGS)
def test_what_is_encoded_decodes_to_the_same(wing: Any, block: Block, one: Encoding) -> None:
    decoder = wing.Decoder(block.framing)
    assert decoder.decode(one.frame) + decoder.finish() == [one.back]


@pytest.mark.parametrize(("block", "stream"), STREAMS)
def test_what_is_decoded_encodes_or_is_refused(wing: Any, block: Block, stream: Stream) -> None:
    encoder = wing.Encoder(block.framing)
    for payload in stream.frames + ([stream.last] if stream.last is not None else []):
        try:
            frame = encoder.encode(payload)
        except ValueError:
            continue
        decoder = wing.Decoder(block.framing)
        assert decoder.decode(frame) + decoder.finish() == [payload]


@pytest.mark.parametrize(("block", "one"), REFUSALS)
def test_refuse(wing: Any, block: Block, one: Encoding) -> None:
    assert one.fault
    encoder = wing.Encoder(block.framing)
    target = bytearray(b"\xa5" * (len(one.payload) + 700))
    good = next((other for other in block.encodings if not other.fault and not is_last(other.payload, block)), None)
    calls: list[tuple[Callable[[], Any], int | None]] = [
        (lambda: encoder.encode(one.payload), None),
        (lambda: encoder.encode(bytearray(one.payload)), None),
        (lambda: encoder.encode_into(one.payload, target), None),
        (lambda: encoder.encode_many([one.payload]), 0)]
    if good:
        calls.append((lambda: encoder.encode_many([good.payload, good.payload, one.payload]), 2))
    too_long = one.fault.fault in (Fault.WRAP_TOO_LONG, Fault.WRAP_CAPACITY)
    for call, index in calls:
        with pytest.raises(ValueError) as caught:
            call()
        same_error(caught.value, errors.wrap_error(one.fault.fault, one.fault.number, one.fault.limit, index))
        assert isinstance(caught.value, FrameTooLongError) == too_long
        if too_long:
            assert (caught.value.length, caught.value.limit) == (one.fault.number, one.fault.limit)  # type: ignore[attr-defined]
    assert target == b"\xa5" * len(target)
