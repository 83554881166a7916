"""Law 6: an end is clean only on a frame boundary; and what an end makes of what is held (group E of the cases)."""

from typing import Any

import pytest
from generate import FRAMING_AND_PAYLOADS, outcome
from hypothesis import given, settings

from sockframe.errors import FrameTooLongError, IncompleteFrameError
from sockframe.framings import (
    AsciiLength,
    Cobs,
    Delimiter,
    Framing,
    HeaderBlock,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)


def ends_openly(framing: "Framing | int | None") -> bool:
    """Whether the end of the stream can end a frame."""
    if isinstance(framing, Tagged):
        return any(ends_openly(child) for child in (*dict(framing.frames).values(), framing.default))
    return isinstance(framing, UntilClose) or (isinstance(framing, Delimiter) and framing.tail == "deliver")


@given(FRAMING_AND_PAYLOADS.filter(lambda case: not ends_openly(case[0])))
@settings(max_examples=200)
def test_an_end_inside_a_frame_is_incomplete(wing: Any, case: Any) -> None:
    """E1 to E6: cut at every byte, also in a header or a delimiter; frames come first."""
    framing, payloads = case
    stream, starts = b"", [0]
    for how, _, frame, *_ in (outcome(wing.Encoder(framing).encode, payload) for payload in payloads):
        if how == "gives":
            stream += frame
            starts.append(len(stream))
    for at in range(len(stream) + 1):
        decoder = wing.Decoder(framing)
        frames = decoder.decode(stream[:at])
        need = decoder.need
        start = max(place for place in starts if place <= at)
        assert len(frames) == starts.index(start)
        first, again = outcome(decoder.finish), outcome(decoder.finish)
        assert first == again
        if at == start:
            assert first == ("gives", list, [])
            assert decoder.buffered == 0
            continue
        end = starts[starts.index(start) + 1]
        assert first == ("raises", IncompleteFrameError,
                         f"stream ended {at - start} bytes into a frame, at least {need} more were needed "
                         f"(frame at stream position {start})",
                         {"partial": stream[start:at][:100], "need": need, "position": start})
        assert 0 < need <= end - at
        # What had arrived can still be had.
        assert decoder.take_buffered() == stream[start:at]
        assert (decoder.buffered, decoder.position) == (0, at)


@pytest.mark.parametrize("framing", [LengthPrefix(), Lines(), AsciiLength(separator=b":"), Cobs(), HeaderBlock()],
                         ids=repr)
def test_after_the_end(wing: Any, framing: Framing) -> None:
    """E7, A13: nothing more comes, no byte is taken, and no bytes are no news."""
    decoder = wing.Decoder(framing)
    decoder.feed(b"")
    assert decoder.decode(b"") == []
    assert decoder.finish() == decoder.finish() == []
    assert (decoder.need, decoder.buffered, decoder.next_frame(), list(decoder)) == (0, 0, None, [])
    assert decoder.decode(b"") == []
    decoder.feed(b"")
    for call in (lambda: decoder.decode(b"x"), lambda: decoder.feed(b"x"), decoder.get_buffer):
        with pytest.raises(ValueError, match=r"^the stream has ended: finish\(\) was called$"):
            call()
    assert decoder.take_buffered() == b""


def test_frames_and_the_end_in_one(wing: Any) -> None:
    """E6: finish() gives the frames that were fed and not taken, then says what is wrong."""
    decoder = wing.Decoder(LengthPrefix(1))
    decoder.feed(b"\1a\0\2b")
    assert decoder.finish() == [b"a", b""]
    for call in (decoder.finish, decoder.next_frame, lambda: decoder.decode(b"")):
        with pytest.raises(IncompleteFrameError) as caught:
            call()
        assert (caught.value.partial, caught.value.need, caught.value.position) == (b"\2b", 1, 3)


def test_an_end_among_frames_that_are_passed_over(wing: Any) -> None:
    for overlong, frames in (("skip", []), ("truncate", [b"ab"])):
        decoder = wing.Decoder(LengthPrefix(1, max_length=2, overlong=overlong))
        decoder.feed(b"\x05abcde")
        assert decoder.finish() == frames
        decoder = wing.Decoder(LengthPrefix(1, max_length=2, overlong=overlong))
        assert decoder.decode(b"\x05abcd") == []
        with pytest.raises(IncompleteFrameError) as caught:
            decoder.finish()
        assert (caught.value.partial, caught.value.need, caught.value.position) == (b"\x05abcd", 1, 0)


@pytest.mark.parametrize(("framing", "stream", "frames", "last"), [
    (Delimiter(b"\n", tail="deliver"), b"a\nb", [b"a"], [b"b"]),
    (Delimiter(b"\n", tail="deliver"), b"a\n", [b"a"], []),
    (Delimiter(b"\n", tail="deliver"), b"", [], []),
    (Delimiter(b"\r\n", tail="deliver"), b"a\r\nb\r", [b"a"], [b"b\r"]),
    (Delimiter(b"\n", keep=True, tail="deliver"), b"a\nb", [b"a\n"], [b"b"]),
    (Delimiter(b"\n", tail="deliver", max_length=2, overlong="truncate"), b"abc", [], [b"ab"]),
    (Delimiter(b"\n", tail="deliver", max_length=2, overlong="skip"), b"abc", [], []),
    (UntilClose(), b"all of it\n", [], [b"all of it\n"]),
    (UntilClose(), b"", [], [b""]),
    (UntilClose(max_length=3, overlong="truncate"), b"all of it", [], [b"all"]),
    (UntilClose(max_length=3, overlong="skip"), b"all of it", [], []),
    (Slip(), b"\xc0a\xc0\xc0\xc0", [b"a"], []),
    (Cobs(), b"\0\0\2a\0\0", [b"a"], []),
    (Tagged({b"a": UntilClose(), b"b": Lines()}), b"b\nall", [b"b"], [b"all"]),
], ids=repr)
def test_what_the_end_makes_of_the_rest(wing: Any, framing: Framing, stream: bytes, frames: Any, last: Any) -> None:
    """E5."""
    for cut in range(len(stream) + 1):
        decoder = wing.Decoder(framing)
        assert decoder.decode(stream[:cut]) + decoder.decode(stream[cut:]) == frames
        assert decoder.finish() == last
        assert (decoder.position, decoder.buffered, decoder.need) == (len(stream), 0, 0)
        assert decoder.finish() == []


def test_a_tail_that_is_too_long(wing: Any) -> None:
    decoder = wing.Decoder(Delimiter(b"--", tail="deliver", max_length=2))
    assert decoder.decode(b"abc") == []
    for _ in range(2):
        with pytest.raises(FrameTooLongError) as caught:
            decoder.finish()
        assert (caught.value.length, caught.value.limit, caught.value.position) == (None, 2, 0)


def test_no_end_is_made_of_an_empty_varint(wing: Any) -> None:
    """C5, F1: an empty frame, no frame yet, and the end are three different things."""
    decoder = wing.Decoder(Varint())
    decoder.feed(b"\0")
    assert [decoder.next_frame(), decoder.next_frame(), decoder.finish()] == [b"", None, []]
