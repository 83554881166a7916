"""Decoder and Encoder as they are used: what is needed, held and left, and another framing in mid-stream."""

import itertools
from typing import Any

import pytest
from generate import outcome

from sockframe import errors
from sockframe.framings import (
    UNLIMITED,
    AsciiLength,
    Cobs,
    Delimiter,
    FixedLength,
    Framing,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)

# ---- what is needed and held ----


def test_an_empty_frame_no_frame_and_no_bytes(wing: Any) -> None:
    """F1, A13: three different things."""
    decoder = wing.Decoder(LengthPrefix(2))
    assert (decoder.next_frame(), decoder.need, decoder.buffered, decoder.position) == (None, 2, 0, 0)
    decoder.feed(b"\0\0\0")
    assert (decoder.need, decoder.buffered, decoder.position) == (0, 3, 0)
    assert decoder.next_frame() == b""
    assert (decoder.next_frame(), decoder.need, decoder.buffered, decoder.position) == (None, 1, 1, 2)
    assert decoder.decode(b"\1x") == [b"x"]
    assert (decoder.need, decoder.buffered, decoder.position) == (2, 0, 5)


@pytest.mark.parametrize(("framing", "held", "need"), [
    (FixedLength(5), b"", 5), (FixedLength(5), b"ab", 3), (LengthPrefix(4), b"\0\0\0", 1),
    (LengthPrefix(2, "little"), b"\x09", 10), (LengthPrefix(4), b"\0\0\0\x09ab", 7), (Lines(), b"ab", 1),
    (Delimiter(b"\r\n.\r\n"), b"ab", 5), (Delimiter(b"\r\n.\r\n"), b"ab\r\n.", 2), (Lines("crlf"), b"ab", 2),
    (Lines("crlf"), b"ab\r", 1), (AsciiLength(separator=b":", end=b","), b"", 3), (Varint(offset=1), b"", 2),
    (AsciiLength(separator=b":", end=b","), b"3", 5), (AsciiLength(5), b"000", 2), (Varint(), b"\x80", 129),
    (LengthField(2, offset=2, strip=4, end=b"!"), b"ab\0\3x", 2), (Cobs(), b"\0\0", 2), (Slip(), b"a\xdb", 2),
    (Tagged({1: 9, 2: Lines()}, offset=2), b"a", 2), (Tagged({1: 9, 2: Lines()}, offset=2), b"ab\1", 6),
    (HeaderBlock(), b"Content-Length: 3\r\n\r\na", 2), (HeaderBlock(), b"Content-Length: 3\r\n\r", 1),
    (LengthPrefix(1, max_length=2, overlong="skip"), b"\x09abc", 6), (UntilClose(), b"ab", 1),
    (LengthPrefix(1, max_length=2, overlong="truncate"), b"\x09a", 1),
], ids=repr)
def test_need_is_the_least_that_is_missing(wing: Any, framing: Framing, held: bytes, need: int) -> None:
    """Through every way in; it changes nothing, and nothing is known of a frame that has not begun."""
    for way in ("feed", "decode", "update"):
        decoder = wing.Decoder(framing)
        if way == "update":
            decoder.get_buffer(100)[:len(held)] = held
            decoder.buffer_updated(len(held))
        else:
            getattr(decoder, way)(held)
        assert decoder.need == need
        assert decoder.next_frame() is None
        assert decoder.need == decoder.need == need


@pytest.mark.parametrize("framing", [
    Lines(), Lines("crlf"), Delimiter(b"aab", b"b"), LengthPrefix(2), AsciiLength(separator=b":", end=b","),
    HeaderBlock(), Slip()], ids=repr)
def test_a_frame_that_was_begun_is_finished_with_the_stream(wing: Any, framing: Framing) -> None:
    encoder = wing.Encoder(framing)
    frames = [b"xyz", b"v" if isinstance(framing, Slip) else b"", b"w"]
    stream = encoder.encode_many(frames)
    for at in range(1, len(encoder.encode(b"xyz"))):
        decoder = wing.Decoder(framing)
        decoder.feed(stream[:at])
        assert decoder.next_frame() is None
        decoder.feed(stream[at:])
        assert decoder.finish() == frames


@pytest.mark.parametrize("overlong", ["skip", "truncate"])
@pytest.mark.parametrize("size", [65537, 90_000, 2 * 65536 - 4, 200_000])
@pytest.mark.parametrize("behind", [[], [b"c", b"d" * 90_000, b"", b"e" * 3]], ids=["alone", "many"])
def test_frames_of_any_size_behind_an_overlong_one(wing: Any, overlong: str, size: int,
                                                   behind: "list[bytes]") -> None:
    """Whatever part of them is looked at along with it, each comes as soon as it is asked for."""
    framing = LengthPrefix(4, max_length=200_000, overlong=overlong)
    decoder = wing.Decoder(framing)
    frames = [b"b" * size, *behind]
    first = [b"a" * 200_000] if overlong == "truncate" else []
    decoder.feed((200_001).to_bytes(4, "big") + b"a" * 200_001 + wing.Encoder(framing).encode_many(frames))
    assert [decoder.next_frame() for _ in (*first, *frames, None)] == [*first, *frames, None]
    assert (decoder.buffered, decoder.skipped) == (0, overlong == "skip")


def test_many_frames_behind_an_overlong_one(wing: Any) -> None:
    """Asked for one, it gives one, and loses none."""
    decoder = wing.Decoder(LengthPrefix(1, max_length=2, overlong="skip"))
    decoder.feed(b"\3abc" + b"\1a\1b\2cd" * 20_000)
    assert list(decoder) == [b"a", b"b", b"cd"] * 20_000
    assert (decoder.position, decoder.skipped) == (140_004, 1)


@pytest.mark.parametrize("overlong", ["skip", "truncate"])
@pytest.mark.parametrize(("framing", "stream"), [
    (Lines, b"long line\nab\nc\n"), (lambda **options: Lines("crlf", **options), b"long line\r\nab\r\nc\r\n"),
    (lambda **options: Delimiter(b"aab", b";", **options), b"long-line;ab;c;"),
    (lambda **options: LengthPrefix(1, **options), b"\x09long line\2ab\1c")], ids=["any", "crlf", "two", "sized"])
def test_what_was_begun_and_is_overlong_ends_with_the_stream(wing: Any, framing: Any, stream: bytes,
                                                           overlong: str) -> None:
    for at in range(1, len(stream)):
        decoder = wing.Decoder(framing(max_length=3, overlong=overlong))
        decoder.feed(stream[:at])
        frames = [] if (frame := decoder.next_frame()) is None else [frame]
        decoder.feed(stream[at:])
        assert frames + decoder.finish() == ([b"lon"] if overlong == "truncate" else []) + [b"ab", b"c"]


def test_feeding_and_taking_in_any_order(wing: Any) -> None:
    decoder = wing.Decoder(Lines())
    decoder.feed(b"a\nb\nc")
    assert next(decoder) == b"a"
    assert decoder.decode(b"c\nd") == [b"b", b"cc"]
    decoder.feed(b"d\n\n")
    assert list(decoder) == [b"dd", b""]
    assert list(decoder) == []
    with pytest.raises(StopIteration):
        next(decoder)
    assert iter(decoder) is decoder


# ---- the buffer that is lent ----

def test_the_room_that_is_lent(wing: Any) -> None:
    """J15: as asyncio wants it: writable, never empty, and no more than about what was asked for."""
    decoder = wing.Decoder(LengthPrefix(4, max_length=UNLIMITED))
    for hint, size in ((-1, 65536), (0, 65536), (1, 1), (100, 100), (65536, 65536), (65537, 65536), (10**30, 65536)):
        room = decoder.get_buffer(hint)
        assert (type(room), room.readonly, room.format, room.ndim, len(room)) == (memoryview, False, "B", 1, size)
    decoder.feed(b"\0\0\xff\xff" + bytes(1000))
    assert len(decoder.get_buffer(10**6)) == 65536 + 1004
    assert len(decoder.get_buffer()) == 65536


def test_bytes_that_were_written_into_it(wing: Any) -> None:
    decoder = wing.Decoder(Lines())
    for data in (b"ab", b"", b"c\nd", b"\n"):
        room = decoder.get_buffer(10)
        room[:len(data)] = data
        decoder.buffer_updated(len(data))
    assert list(decoder) == [b"abc", b"d"]


def test_more_bytes_than_were_lent(wing: Any) -> None:
    """B8."""
    decoder = wing.Decoder(Lines())

    def refused(count: int, lent: int) -> None:
        assert outcome(decoder.buffer_updated, count) == (
            "raises", ValueError, f"buffer_updated({count}): the buffer that get_buffer() lent has {lent} bytes", {})
    refused(1, 0)
    decoder.get_buffer(5)
    for count in (6, -1, 2**63, -2**63, 2**64, 10**30):
        refused(count, 5)
    decoder.buffer_updated(5)
    refused(1, 0)
    decoder.take_buffered()
    for call in (lambda: decoder.feed(b"x"), lambda: decoder.decode(b"x"), decoder.take_buffered):
        decoder.get_buffer(5)
        call()
        refused(1, 0)
    decoder.buffer_updated(0)


def test_views_of_what_was_lent_stay_valid(wing: Any) -> None:
    """J1, J2: through growth, another loan of the same room, and when the decoder is gone."""
    decoder = wing.Decoder(LengthPrefix(4, max_length=UNLIMITED))
    views = []
    for i in range(20):
        room = decoder.get_buffer(100 * (i + 1))
        room[:] = bytes([i]) * len(room)
        views.append(room)
        if i % 3 == 1:
            decoder.buffer_updated(len(room) // 2)
        if i % 3 == 2:
            decoder.feed(bytes(50_000))
        assert bytes(views[-1][-20:]) == bytes([i]) * 20 or i % 3 == 2
    held = decoder.take_buffered()
    del decoder
    for view in views:
        view[:] = b"x" * len(view)
        assert bytes(view) == b"x" * len(view)
    assert len(held) == 50_000 * 6 + sum(100 * (i + 1) // 2 for i in range(20) if i % 3 == 1)


# ---- another framing, and other owners ----

def test_a_protocol_that_switches(wing: Any) -> None:
    """O7: what is not delivered yet is read by the new framing, also a frame that has begun."""
    decoder = wing.Decoder(Lines())
    decoder.feed(b"STARTTLS\n\x00\x05hel")
    assert decoder.next_frame() == b"STARTTLS"
    assert decoder.next_frame() is None
    decoder.framing = LengthPrefix(2)
    assert (decoder.need, decoder.framing) == (2, LengthPrefix(2))
    assert decoder.decode(b"lo\0\1!") == [b"hello", b"!"]
    decoder.framing = FixedLength(3)
    assert decoder.decode(b"abcd") == [b"abc"]
    decoder.framing = UntilClose()
    assert decoder.finish() == [b"d"]
    assert decoder.position == 23


def test_a_delimiter_is_searched_for_from_the_start_after_a_switch(wing: Any) -> None:
    decoder = wing.Decoder(Delimiter(b"\0"))
    assert decoder.decode(b"a;b;c") == []
    decoder.framing = Delimiter(b";")
    assert decoder.decode(b"") == [b"a", b"b"]
    assert decoder.take_buffered() == b"c"


def test_a_switch_inside_a_frame_that_is_passed_over(wing: Any) -> None:
    """The rest of the frame is still passed over, by the framing that found it."""
    for overlong, expected in (("skip", [b"xy"]), ("truncate", [b"12", b"xy"])):
        decoder = wing.Decoder(LengthPrefix(1, max_length=2, overlong=overlong))
        assert decoder.decode(b"\x05123") == []
        assert decoder.need == 2
        decoder.framing = Lines()
        assert decoder.decode(b"45xy\n") == expected
        assert decoder.skipped == 2 - len(expected)


def test_no_switch_heals_a_fault(wing: Any) -> None:
    decoder = wing.Decoder(Lines("crlf"))
    with pytest.raises(errors.MalformedFrameError):
        decoder.decode(b"a\nb")
    decoder.framing = Lines()
    with pytest.raises(errors.MalformedFrameError):
        decoder.decode(b"\n")


def test_bytes_for_another_owner(wing: Any) -> None:
    decoder = wing.Decoder(LengthPrefix(1))
    assert decoder.decode(b"\1a\5bc") == [b"a"]
    assert decoder.take_buffered() == b"\5bc"
    assert (decoder.take_buffered(), decoder.buffered, decoder.position) == (b"", 0, 5)
    assert decoder.decode(b"\1d") == [b"d"]
    assert decoder.position == 7
    skipping = wing.Decoder(LengthPrefix(1, max_length=1, overlong="skip"))
    skipping.decode(b"\x09abc")
    assert skipping.take_buffered() == b""
    assert skipping.decode(b"\1d") == [b"d"]


@pytest.mark.parametrize(("framing", "stream", "frames"), [
    (Lines(), b"\nab\n", [b"", b"ab"]), (Lines("crlf"), b"\r\nab\r\n", [b"", b"ab"]),
    (LengthPrefix(1), b"\0\1a", [b"", b"a"]), (Slip(), b"a\xc0b\xc0", [b"a", b"b"]),
    (HeaderBlock("n", separator=b"\n"), b"n:0\nn:1\na", [b"", b"a"]),
], ids=repr)
def test_what_was_taken_is_forgotten(wing: Any, framing: Framing, stream: bytes, frames: "list[bytes]") -> None:
    """Of the frame that had begun, and was searched, nothing is known any more."""
    decoder = wing.Decoder(framing)
    decoder.feed(b"\x09abcdefg")
    assert decoder.next_frame() is None
    assert decoder.take_buffered() == b"\x09abcdefg"
    assert decoder.decode(stream) == frames
    assert decoder.position == 8 + len(stream)


def test_what_is_left_after_the_end(wing: Any) -> None:
    """The frame that was cut off is held still, to be taken; nothing but no bytes may follow."""
    decoder = wing.Decoder(Lines())
    decoder.feed(b"a\nbc")
    assert decoder.finish() == [b"a"]
    assert (decoder.buffered, decoder.position, decoder.need) == (2, 2, 0)
    assert outcome(decoder.finish)[1] is errors.IncompleteFrameError
    assert decoder.take_buffered() == b"bc"
    assert decoder.position == 4
    ended = wing.Decoder(Lines())
    assert ended.finish() == []
    ended.feed(b"")
    assert ended.decode(b"") == []
    for call in (lambda: ended.feed(b"x"), lambda: ended.decode(b"x"), ended.get_buffer):
        assert outcome(call) == ("raises", ValueError, "the stream has ended: finish() was called", {})
    assert ended.next_frame() is None


# ---- framings that are shared ----

def test_one_framing_for_many_streams(wing: Any) -> None:
    framing = Tagged({b"a": Lines(), b"b": LengthField(1, offset=1, strip=0)}, max_length=9)
    decoders = [wing.Decoder(framing) for _ in range(4)]
    for byte in b"axy\nb\x03123":
        frames = [decoder.decode(bytes([byte])) for decoder in decoders]
        assert frames == [frames[0]] * 4
    assert all(decoder.position == 9 for decoder in decoders)


def test_every_tag_may_have_a_framing_of_its_own(wing: Any) -> None:
    framing = Tagged({tag: tag + 1 for tag in range(256)})
    frames = [bytes([tag]) * (tag + 1) for tag in range(256)]
    assert wing.Encoder(framing).encode_many(frames) == b"".join(frames)
    assert wing.Decoder(framing).decode(b"".join(frames)) == frames


def test_a_limit_is_of_the_payload_as_it_is_delivered(wing: Any) -> None:
    """Law 10: whatever is around it on the wire, the same payloads pass; R1: 0 allows the empty one."""
    makes: Any = [
        lambda **limit: LengthPrefix(8, **limit), lambda **limit: LengthPrefix(4, inclusive=True, **limit), Lines,
        lambda **limit: Lines("crlf", **limit), lambda **limit: Delimiter(b"end", b"stop", **limit), Varint,
        lambda **limit: AsciiLength(separator=b":", end=b",", **limit), Cobs, UntilClose,
        lambda **limit: LengthField(2, offset=2, strip=4, end=b"!!", align=8, **limit), HeaderBlock,
        lambda **limit: AsciiLength(20, **limit),
    ]
    for make, limit in itertools.product(makes, (0, 1, 7)):
        framing, free = make(max_length=limit), make()
        for size in range(limit + 3):
            payload = b"p" * size
            stream = wing.Encoder(free).encode(payload)
            how, kind, value, *rest = outcome(wing.Encoder(framing).encode, payload)
            decoder = wing.Decoder(framing)
            got = outcome(lambda decoder=decoder, stream=stream: decoder.decode(stream) + decoder.finish())
            if size <= limit:
                assert (how, value) == ("gives", stream)
                assert got == ("gives", list, [payload])
            else:
                assert (kind, rest[0]["length"], rest[0]["limit"]) == (errors.FrameTooLongError, size, limit)
                assert got[1] is errors.FrameTooLongError
                assert got[3]["limit"] == limit
