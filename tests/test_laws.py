"""Laws of the codec, on generated framings and streams.

1, cut-proof: frames, errors and their order are a function of the bytes, never of how they were cut.
2, round trip: what is encoded is decoded to the same bytes, or encoding raises.
6 and 7, ends and faults: frames come first, then what is wrong, again and again.
"""

from typing import Any

import pytest
from generate import BYTES, FRAMING_AND_PAYLOADS, FRAMING_AND_STREAM, FRAMINGS, OWN_WORDS, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from sockframe import errors
from sockframe.framings import Delimiter, Framing, LengthField, Lines, Tagged, UntilClose, Varint

# ---- law 1 ----


class Reader:
    """A decoder and all that came out of it."""

    def __init__(self, wing: Any, framing: Framing) -> None:
        self.decoder = wing.Decoder(framing)
        self.frames: list[bytes] = []
        self.error: Any = None

    def run(self, method: Any, *args: Any) -> None:
        """Call a method that returns frames; keep what it gives or raises."""
        how, kind, *rest = outcome(method, *args)
        if how == "gives":
            self.frames += rest[0]
        elif self.error is None:
            self.error = (kind, *rest)
        else:
            assert (kind, *rest) == self.error, "a fault is final"

    def iterate(self) -> "list[bytes]":
        """Take frames one by one."""
        while (frame := self.decoder.next_frame()) is not None:
            self.frames.append(frame)
        return []

    def decode(self, data: bytes) -> None:
        """Give bytes to decode()."""
        self.run(self.decoder.decode, data)
        self.run(self.decoder.decode, b"")

    def feed(self, data: bytes) -> None:
        """Give bytes to feed(), and take frames one by one."""
        if self.error is None:
            self.decoder.feed(data)
        self.run(self.iterate)

    def update(self, data: bytes) -> None:
        """Give bytes through the buffer that is lent, as many at a time as there is room for."""
        while data and self.error is None:
            room = self.decoder.get_buffer(len(data))
            size = min(len(data), len(room))
            room[:size] = data[:size]
            self.decoder.buffer_updated(size)
            self.run(self.iterate)
            data = data[size:]

    def state(self) -> Any:
        """All that can be seen."""
        decoder = self.decoder
        return (self.frames, self.error, decoder.position, decoder.buffered, decoder.need, decoder.skipped)

    def finish(self) -> Any:
        """All that can be seen after the end of the stream."""
        for _ in range(2):
            self.run(self.decoder.finish)
        return self.state()


def whole(wing: Any, framing: Framing, data: bytes) -> Reader:
    """Read all bytes at once."""
    reader = Reader(wing, framing)
    reader.decode(data)
    return reader


@given(FRAMING_AND_STREAM)
@settings(max_examples=250)
def test_byte_by_byte_gives_at_each_byte_what_one_piece_gives(wing: Any, case: Any) -> None:
    framing, data = case
    readers = [Reader(wing, framing) for _ in range(3)]
    for at in range(len(data) + 1):
        expected = whole(wing, framing, data[:at]).state()
        assert [reader.state() for reader in readers] == [expected] * 3
        for reader, give in zip(readers, (Reader.decode, Reader.feed, Reader.update), strict=True):
            give(reader, data[at:at + 1])
    expected = whole(wing, framing, data).finish()
    assert [reader.finish() for reader in readers] == [expected] * 3


@given(FRAMING_AND_STREAM, st.data())
@settings(max_examples=250)
def test_cuts_change_nothing(wing: Any, case: Any, data: Any) -> None:
    """A1."""
    framing, stream = case
    expected = whole(wing, framing, stream)
    for cut in range(1, len(stream)):
        reader = whole(wing, framing, stream[:cut])
        reader.decode(stream[cut:])
        assert reader.state() == expected.state(), cut
    reader = Reader(wing, framing)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6), label="cuts"))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        give = data.draw(st.sampled_from([Reader.decode, Reader.feed, Reader.update]), label="way")
        give(reader, stream[begin:end])
    assert reader.state() == expected.state()
    assert reader.finish() == expected.finish()


@given(FRAMING_AND_STREAM)
@settings(max_examples=150)
def test_what_is_delivered_never_depends_on_what_follows(wing: Any, case: Any) -> None:
    """Frames and faults that are out stay, and `need` is no more than what was missing."""
    framing, data = case
    frames: list[bytes] = []
    fault = None
    missing = 0
    for at in range(len(data) + 1):
        reader = whole(wing, framing, data[:at])
        assert reader.frames[:len(frames)] == frames
        if len(reader.frames) > len(frames):
            assert at >= missing
        if fault is not None:
            assert reader.error == fault
        frames, fault = reader.frames, reader.error
        assert (reader.decoder.need == 0) == (fault is not None)
        missing = at + reader.decoder.need


@given(FRAMINGS, st.data())
@settings(max_examples=150)
def test_frames_in_front_of_a_fault_come_first(wing: Any, framing: Framing, data: Any) -> None:
    """A3, A4, law 7: position is where the bad frame begins, and nothing is held."""
    payloads = data.draw(st.lists(BYTES, max_size=3))
    good = b"".join(frame for how, _, frame, *_ in (outcome(wing.Encoder(framing).encode, one) for one in payloads)
                    if how == "gives")
    reader = whole(wing, framing, good + data.draw(BYTES))
    if reader.error is not None:
        kind, text, attributes = reader.error
        assert issubclass(kind, errors.FramingError)
        assert attributes["position"] == reader.decoder.position
        assert text in OWN_WORDS or f"stream position {reader.decoder.position}" in text
        assert len(attributes["header"]) <= 100
        assert (reader.decoder.buffered, reader.decoder.need) == (0, 0)
        before = reader.state()
        for method, args in ((reader.decoder.feed, (b"more",)), (reader.decoder.finish, ()),
                             (reader.decoder.next_frame, ()), (reader.decoder.take_buffered, ()),
                             (reader.decoder.get_buffer, ()), (reader.decoder.buffer_updated, (0,)),
                             (reader.decoder.__next__, ())):
            assert outcome(method, *args)[1:] == reader.error
        assert reader.state() == before


# ---- law 2 ----

def is_last(encoder: Any, payload: bytes) -> bool:
    """Whether no payload can follow this one in its stream."""
    return "follows one that lasts until the stream ends" in str(outcome(encoder.encode_many, [payload, payload]))


def delivered(framing: "Framing | int", payload: bytes, frame: bytes) -> bytes:
    """What an encoded payload is decoded to: itself, but for a length in it that was zero, to be filled in."""
    if isinstance(framing, Tagged):
        tag = payload[framing.offset] & framing.mask
        return delivered(dict(framing.frames).get(tag, framing.default), payload, frame)
    if isinstance(framing, LengthField) and framing.strip <= framing.offset:
        begin, end = framing.offset - framing.strip, framing.offset - framing.strip + framing.size
        order: Any = "big" if framing.spec().numbers[2] == 0 else "little"
        mask = framing.spec().numbers[3]
        field = int.from_bytes(payload[begin:end], order)
        filled = int.from_bytes(frame[framing.offset:framing.offset + framing.size], order)
        assert field & ~mask == filled & ~mask
        assert field & mask in (0, filled & mask)
        return payload[:begin] + filled.to_bytes(framing.size, order) + payload[end:]
    if isinstance(framing, Varint) and framing.strip is not None:
        before = framing.offset - framing.strip
        if not payload[before]:
            size = len(frame) - framing.offset - (len(payload) - before - 1)
            return payload[:before] + frame[framing.offset:framing.offset + size] + payload[before + 1:]
    return payload


@given(FRAMING_AND_PAYLOADS)
@settings(max_examples=400)
def test_a_payload_comes_back_or_is_refused(wing: Any, case: Any) -> None:
    framing, payloads = case
    encoder, reader = wing.Encoder(framing), Reader(wing, framing)
    frames, expected = [], []
    for payload in payloads:
        how, kind, frame, *_ = outcome(encoder.encode, payload)
        if how == "raises":
            assert issubclass(kind, ValueError)
            continue
        frames.append(frame)
        expected.append(delivered(framing, payload, frame))
        reader.decode(frame)
        if is_last(encoder, payload):
            break
    if frames:
        assert reader.finish()[:4] == (expected, None, len(b"".join(frames)), 0)


@given(FRAMING_AND_PAYLOADS, st.integers(0, 3), st.integers(-3, 3))
@settings(max_examples=300)
def test_all_ways_to_encode_agree(wing: Any, case: Any, offset: int, spare: int) -> None:
    framing, payloads = case
    encoder = wing.Encoder(framing)
    single = [outcome(encoder.encode, payload) for payload in payloads]
    frames = []
    for payload, (how, kind, value, *rest) in zip(payloads, single, strict=True):
        # encode_into: the same bytes where there is room, else nothing is written
        size = len(value) if how == "gives" else 8
        target = bytearray(b"\xaa" * max(offset, offset + size + spare))
        before = bytes(target)
        got = outcome(encoder.encode_into, payload, target, offset)
        if how == "raises":
            assert got == (how, kind, value, *rest)
            assert target == before
        elif len(target) - offset < size:
            need = errors.too_small_error(size, len(target) - offset)
            assert got == ("raises", errors.BufferTooSmallError, str(need), {"need": size})
            assert target == before
        else:
            assert got == ("gives", int, size)
            assert target == before[:offset] + value + before[offset + size:]
        frames.append(value)
    # encode_many: all frames, or the error of the first bad payload
    many = outcome(encoder.encode_many, payloads)
    bad = [i for i, one in enumerate(single) if one[0] == "raises"]
    if bad:
        i = bad[0]
        if not any(is_last(encoder, payload) for payload in payloads[:i]):
            assert many == ("raises", single[i][1], f"payload {i}: " + single[i][2], single[i][3])
    elif many[0] == "gives":
        assert many == ("gives", bytes, b"".join(frames))
        assert encoder.encode_many(iter(payloads)) == many[2]
    else:
        assert many[1] is ValueError
        assert any(is_last(encoder, payload) for payload in payloads[:-1])


@given(st.sampled_from([
    Delimiter(b"aab"), Delimiter(b"ab", b"ba"), Delimiter(b"\r\n"), Delimiter(b"aa", b"b"), Delimiter(b"\n", b"a\n"),
    Delimiter(b"ab", b"bb", keep=True), Lines(), Lines("lf"), Lines("crlf"), Delimiter(b"aba", b"bab", b"aabb"),
]), st.lists(st.sampled_from(b"ab\r\n"), max_size=7).map(bytes))
@settings(max_examples=300)
def test_a_delimited_payload_is_refused_only_where_it_must_be(wing: Any, framing: Any, payload: bytes) -> None:
    """A11: what would be decoded to the same bytes can be sent, and nothing else."""
    first = {"any": b"\n", "lf": b"\n", "crlf": b"\r\n"}[framing.ending] if isinstance(framing, Lines) \
        else b"" if framing.keep else framing.delimiters[0]
    reader = whole(wing, framing, payload + first)
    fine = reader.frames == [payload] and reader.error is None and not reader.decoder.buffered
    assert (outcome(wing.Encoder(framing).encode, payload)[0] == "gives") == fine


def test_the_last_payload_of_a_stream(wing: Any) -> None:
    encoder = wing.Encoder(UntilClose())
    assert encoder.encode_many([b"all"]) == b"all"
    with pytest.raises(ValueError, match=r"^payload 1: payload follows one that lasts until the stream ends$"):
        encoder.encode_many([b"all", b""])
