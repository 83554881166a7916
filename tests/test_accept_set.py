"""Accept sets: what a strict framing accepts, encoded again, is byte for byte what came.

So no second spelling of a message gets past a filter that looks at the payload alone. The exceptions are
those listed here: idle ends in front of a stuffed frame, and Cobs's empty run behind a full one.
"""

import re
from typing import Any

import pytest
from generate import BYTES, Counted, Parted, outcome, payload_of, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sockframe.framings import (
    AsciiLength,
    Cobs,
    Delimiter,
    FixedLength,
    Framing,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    Varint,
)

STRICT: "list[Framing]" = [
    AsciiLength(separator=b":", end=b","), AsciiLength(separator=b" "), AsciiLength(5), AsciiLength(3, base=2),
    AsciiLength(2, base=8, separator=b"; ", end=b"\r\n"), Varint(), Varint(max_bytes=10), Varint(max_bytes=1),
    Varint(offset=2, strip=0), Lines("crlf"), Lines("lf"), Delimiter(b"\0"), Delimiter(b"aab"), Delimiter(b"\r\n"),
    Delimiter(b"ab", b"bb", keep=True), FixedLength(3), LengthField(4, strip=4), LengthField(2, offset=3),
    LengthField(1, scale=4, add=0), LengthField(2, byteorder="little", strip=2, end=b"\xce", signed=True),
    Tagged({b"a": Lines("crlf"), b"0": 4, 2: Varint(offset=1, strip=0)}),
    *(LengthPrefix(size, order) for size in range(1, 9) for order in ("big", "little")),
    LengthPrefix(1, inclusive=True), LengthPrefix(3, "little", inclusive=True),
]


def accepted(wing: Any, framing: Framing, stream: bytes) -> "tuple[list[bytes], bytes]":
    """Return the frames at the start of a stream, up to a fault, and the bytes that they took."""
    decoder = wing.Decoder(framing)
    how, _, value, *_ = outcome(decoder.decode, stream)
    return (value, stream[:decoder.position]) if how == "gives" else ([], b"")


@given(st.sampled_from(STRICT).flatmap(lambda framing: st.tuples(st.just(framing), stream_of(framing))))
@settings(max_examples=400)
def test_what_is_accepted_is_what_is_sent(wing: Any, case: Any) -> None:
    framing, stream = case
    frames, taken = accepted(wing, framing, stream)
    assert wing.Encoder(framing).encode_many(frames) == taken


@pytest.mark.parametrize("framing", STRICT, ids=repr)
def test_each_of_them_accepts_something(wing: Any, framing: Framing) -> None:
    payload = {FixedLength: b"abc", Tagged: b"2345"}.get(type(framing), bytes(6) + b"\0")
    if isinstance(framing, Tagged):
        payload = b"0abc"
    if isinstance(framing, Delimiter) and framing.keep:
        payload = b"xab"
    if framing in (Delimiter(b"\0"), LengthField(1, scale=4, add=0)):
        payload = bytes(8) if isinstance(framing, LengthField) else b"x"
    stream = wing.Encoder(framing).encode(payload) * 2
    frames, taken = accepted(wing, framing, stream)
    assert (len(frames), taken) == (2, stream)
    assert wing.Encoder(framing).encode_many(frames) == stream


@given(st.sampled_from([Cobs(), Slip()]).flatmap(lambda framing: st.tuples(st.just(framing), stream_of(framing))))
@settings(max_examples=200)
def test_stuffed_frames_but_for_idle_ends(wing: Any, case: Any) -> None:
    framing, stream = case
    frames, taken = accepted(wing, framing, stream)
    end = re.escape(b"\0" if isinstance(framing, Cobs) else b"\xc0")
    assert wing.Encoder(framing).encode_many(frames) == re.sub(b"^" + end + b"+|(?<=" + end + b")" + end, b"", taken)


def test_an_empty_run_behind_a_full_one(wing: Any) -> None:
    """Encoders differ here, so both are read."""
    encoder, full = wing.Encoder(Cobs()), b"\xff" + b"x" * 254
    assert wing.Decoder(Cobs()).decode(full + b"\0" + full + b"\1\0") == [b"x" * 254] * 2
    assert encoder.encode(b"x" * 254) == full + b"\0"


@given(st.sampled_from([Counted(), Parted()]).flatmap(lambda framing: st.tuples(
    st.just(framing), st.lists(payload_of(framing) | BYTES, max_size=4))))
@settings(max_examples=100)
def test_own_framings_read_what_they_wrap(wing: Any, case: Any) -> None:
    framing, payloads = case
    encoder = wing.Encoder(framing)
    frames = [value for how, _, value, *_ in (outcome(encoder.encode, payload) for payload in payloads)
              if how == "gives"]
    read, taken = accepted(wing, framing, b"".join(frames))
    assert len(read) == len(frames)
    assert encoder.encode_many(read) == taken == b"".join(frames)


@pytest.mark.parametrize(("framing", "stream", "sent"), [
    (Lines(), b"a\r\nb\n", b"a\nb\n"), (Delimiter(b"\n", b";"), b"a;b\n", b"a\nb\n"),
    (Varint(canonical=False), b"\x81\x00a", b"\x01a"), (AsciiLength(base=16, separator=b" "), b"A 0123456789",
                                                        b"a 0123456789"),
    (LengthField(2, offset=1, strip=3), b"\x07\x00\x01x", b"\x00\x00\x01x"),
    (LengthField(1, align=4, strip=1), b"\2xyz", b"\2xy\0"),
])
def test_lenient_framings_send_one_spelling(wing: Any, framing: Framing, stream: bytes, sent: bytes) -> None:
    """Those that were asked to read more than one."""
    assert wing.Encoder(framing).encode_many(wing.Decoder(framing).decode(stream)) == sent
