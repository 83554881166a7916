"""What hypothesis makes: any framing, payloads that mostly fit it, and streams of its frames, good and bad."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from sockframe import framings
from sockframe._pure import Encoder
from sockframe.errors import MalformedFrameError
from sockframe.framings import (
    UNLIMITED,
    AsciiLength,
    Cobs,
    Delimiter,
    FixedLength,
    Frame,
    Framing,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Need,
    Slip,
    Tagged,
    UntilClose,
    Varint,
)

ORDERS = st.sampled_from(["big", "little", "native"])
LIMITS = st.one_of(st.integers(0, 40), st.sampled_from([framings.DEFAULT_MAX_LENGTH, UNLIMITED]))

#: Bytes that mean something to one framing or another, and some that mean nothing.
BYTES = st.binary(max_size=24) | st.lists(
    st.sampled_from(b"ab\r\n01:, \x00\x01\x7f\x80\xffN\xc0\xdb\xdc\xdd"), max_size=24).map(bytes)


class Counted(Framing):
    """A framing of a user's own, of known sizes: two bytes, the second a length from 0 to 19."""

    def measure(self, view: memoryview) -> "Frame | Need":
        if view[0] == 0xFF:
            raise MalformedFrameError("no frame begins with 0xff", header=bytes(view[:1]))
        if len(view) < 2:
            return Need(1)
        return Frame(2 + view[1] % 20, 2)

    def wrap(self, payload: bytes) -> bytes:
        if len(payload) > 19:
            raise ValueError("payload is too long for one that is counted")
        return bytes([1, len(payload)]) + payload


class Parted(Framing):
    """Another, of sizes that are not known in advance: the payload in brackets."""

    def measure(self, view: memoryview) -> "Frame | Need":
        if view[0] != 0x5B:
            raise MalformedFrameError("no bracket")
        end = bytes(view).find(b"]")
        return Need(1) if end < 0 else Frame(end + 1, 1, end)

    def wrap(self, payload: bytes) -> bytearray:
        if b"]" in payload:
            raise ValueError("payload holds a bracket")
        return bytearray(b"[" + payload + b"]")

#: Parts of delimiters: few different bytes, so that they overlap each other and themselves.
TEXTS = st.lists(st.sampled_from(b"ab\r\n"), min_size=1, max_size=4).map(bytes)


def possible(make: Callable[..., Framing], *args: Any, **options: Any) -> "Framing | None":
    """Make a framing, or None where these options don't go together."""
    try:
        return make(*args, **options)
    except ValueError:
        return None


@st.composite
def framing_of(draw: Any, kind: "type[Framing]", depth: int = 2) -> "Framing | None":
    """A framing of one class with any options; None where they don't go together."""
    limits: Any = {"max_length": draw(LIMITS),
                   "overlong": draw(st.sampled_from(["error", "error", "skip", "truncate"]))}
    if kind is FixedLength:
        return possible(FixedLength, draw(st.integers(1, 12)), **limits)
    if kind is Delimiter:
        return possible(Delimiter, *draw(st.lists(TEXTS, min_size=1, max_size=3)), keep=draw(st.booleans()),
                        tail=draw(st.sampled_from(["error", "deliver"])), **limits)
    if kind is Lines:
        return Lines(draw(st.sampled_from(["any", "lf", "crlf"])), **limits)
    if kind is LengthPrefix:
        return LengthPrefix(draw(st.integers(1, 8)), draw(ORDERS), inclusive=draw(st.booleans()), **limits)
    if kind is LengthField:
        size = draw(st.integers(1, 8))
        return possible(
            LengthField, size, offset=draw(st.integers(0, 3)), byteorder=draw(ORDERS),
            mask=draw(st.none() | st.integers(1, 256**size - 1) | st.just(256**size - 16)),
            shift=draw(st.just(0) | st.integers(0, 5)), scale=draw(st.sampled_from([1, 1, 2, 4, 2**32 - 1])),
            add=draw(st.none() | st.integers(-6, 12)), align=draw(st.sampled_from([1, 1, 2, 4, 8])),
            strip=draw(st.integers(0, 8)), end=draw(st.sampled_from([b"", b"\xce", b"\r\n", b"aab"])),
            signed=draw(st.booleans()), **limits)
    if kind is Varint:
        return possible(Varint, offset=draw(st.integers(0, 3)), max_bytes=draw(st.integers(1, 10)),
                        canonical=draw(st.booleans()), strip=draw(st.none() | st.integers(0, 3)), **limits)
    if kind is AsciiLength:
        return possible(AsciiLength, draw(st.none() | st.integers(1, 5)), base=draw(st.sampled_from([2, 8, 10, 16])),
                        separator=draw(st.sampled_from([b"", b":", b" ", b"; ", b"aab"])),
                        end=draw(st.sampled_from([b"", b",", b"\r\n"])), **limits)
    if kind is Tagged:
        entry = (framing_at(depth - 1) if depth else framing_of(LengthPrefix)) | st.integers(1, 9)
        tags = st.sampled_from(list(b"ab01\x00\x01\x02\x80")) | st.integers(0, 255)
        return possible(Tagged, draw(st.dictionaries(tags, entry, max_size=4)), offset=draw(st.integers(0, 3)),
                        mask=draw(st.sampled_from([0xFF, 0xFF, 0x83, 0x7F])), default=draw(st.none() | entry),
                        **limits)
    if kind is HeaderBlock:
        return possible(HeaderBlock, "N", separator=draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\0"])),
                        max_header=draw(st.sampled_from([3, 4, 6, 12, 65536])), strip=draw(st.booleans()), **limits)
    return possible(kind, **limits)


#: Each class, those with more options more often.
KINDS: "list[type[Framing]]" = [
    Tagged, LengthField, Delimiter, UntilClose, AsciiLength, FixedLength, Lines, LengthPrefix, Varint, HeaderBlock,
    Cobs, Slip, Counted, Parted, Tagged, LengthField, Delimiter]


def framing_at(depth: int) -> "st.SearchStrategy[Framing]":
    """Any framing, with `Tagged` in `Tagged` down to this depth."""
    return st.sampled_from(KINDS).flatmap(lambda kind: framing_of(kind, depth)).filter(lambda one: one is not None)


FRAMINGS = framing_at(2)


@st.composite
def payload_of(draw: Any, framing: "Framing | int") -> bytes:
    """A payload that this framing, or a frame of that size, mostly takes."""
    if isinstance(framing, int):
        return draw(st.binary(min_size=framing, max_size=framing))
    body = draw(BYTES)
    if isinstance(framing, FixedLength):
        return body[:framing.length].ljust(framing.length, b"-")
    if isinstance(framing, Delimiter) and framing.keep:
        return body + draw(st.sampled_from(framing.delimiters))
    if isinstance(framing, LengthField):
        return bytes(max(0, framing.offset + framing.size - framing.strip)) + body
    if isinstance(framing, Varint) and framing.strip is not None:
        return bytes(framing.offset - framing.strip + 1) + body
    if isinstance(framing, HeaderBlock) and not framing.strip:
        return b"n:%d" % len(body) + framing.separator + body
    if isinstance(framing, Tagged):
        entries = [*framing.frames, *([(draw(st.integers(0, 255)), framing.default)] if framing.default else [])]
        tag, child = draw(st.sampled_from(entries))
        body = draw(payload_of(child)).ljust(framing.offset + 1, b"\0")
        tag |= draw(st.integers(0, 255)) & ~framing.mask
        return body[:framing.offset] + bytes([tag]) + body[framing.offset + 1:]
    return body


@st.composite
def stream_of(draw: Any, framing: Framing) -> bytes:
    """Frames of this framing one after the other, with bytes between, some of them changed, cut anywhere."""
    encoder = Encoder(framing)
    parts = []
    for payload in draw(st.lists(payload_of(framing), max_size=5)):
        how, _, frame, *_ = outcome(encoder.encode, payload)
        parts.append(frame if how == "gives" else payload)
    parts += [draw(BYTES)] if draw(st.booleans()) else []
    data = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data[at:at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2) | TEXTS)
    return bytes(data[:draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


FRAMING_AND_STREAM = FRAMINGS.flatmap(lambda framing: st.tuples(st.just(framing), stream_of(framing)))
FRAMING_AND_PAYLOADS = FRAMINGS.flatmap(
    lambda framing: st.tuples(st.just(framing), st.lists(payload_of(framing) | BYTES, min_size=1, max_size=5)))


#: What these framings of a user's own say of a bad frame.
OWN_WORDS = ("no frame begins with 0xff", "no bracket")

# ---- what a call does ----

def outcome(call: Callable[..., Any], *args: Any) -> "tuple[Any, ...]":
    """What a call gives or raises, to be compared: the value and its type, or the exception's type, text
    and attributes."""
    try:
        value = call(*args)
    except Exception as error:
        return "raises", type(error), str(error), vars(error)
    return "gives", type(value), value
