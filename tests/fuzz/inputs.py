"""What an input means: a framing with its options, then how it is used, then bytes of a stream.

Every sequence of bytes is an input, and the same one always: a named input of corpus.txt stays what it
was. So what is listed here may grow at its end only.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vectorfiles

from sockframe.errors import MalformedFrameError
from sockframe.framings import (
    MAX_DIGITS,
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

CORPUS = Path(__file__).parent / "corpus.txt"
DICTIONARY = Path(__file__).parent / "wings.dict"


class Input:
    """The bytes of an input, taken from the front; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.depth = 0     # of framings in framings
        self.rude = False  # does a framing break the rule that its answer depends on the bytes alone?

    def take(self) -> int:
        """The next byte."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(bytes(self.take() for _ in range(size)), "big")

    def piece(self, size: int) -> bytes:
        """At most `size` of the bytes that are left."""
        self.at += size
        return self.data[self.at - size:self.at]

    @property
    def left(self) -> bool:
        """Are there more bytes?"""
        return self.at < len(self.data)

    def text(self, least: int, first: str) -> bytes:
        """A text of few different letters, mostly short."""
        number = self.take()
        size = least + (number % 4 if number < 250 else 61 - least + number % 4)
        return bytes(ord(first) + self.take() % 3 for _ in range(size))

    def flag(self) -> bool:
        """Yes or no."""
        return bool(self.take() & 1)

    def order(self) -> str:
        """A byte order."""
        return ("big", "little", "native")[self.take() % 3]


# ---- framings of a user's own ----

KEPT: "list[memoryview]" = []


class Counted(Framing):
    """Two bytes of header, of which the second counts the payload; the first may ask for a trailer."""

    def measure(self, view: memoryview) -> "Frame | Need":
        if view[0] == 0xFF:
            raise MalformedFrameError("counted frames don't begin so", header=bytes(view[:1]))
        if view[0] & 0x40 and len(view) < 4:
            return Need(4 - len(view))
        if len(view) < 2:
            return Need()
        size = 2 + view[1] % 40
        return Frame(size + 3, 2, size) if view[0] & 1 else Frame(size, 2)

    def wrap(self, payload: bytes) -> bytes:
        if len(payload) > 39:
            raise ValueError("counted payloads have at most 39 bytes")
        return bytes((0, len(payload))) + payload


class Keeper(Counted):
    """One that keeps the views it was shown, a few of them."""

    def measure(self, view: memoryview) -> "Frame | Need":
        if len(KEPT) < 50:
            KEPT.append(view)
        return super().measure(view)


class Rude(Counted):
    """One whose answers are impossible, or other exceptions."""

    ANSWERS: "tuple[Any, ...]" = (
        None, 3, Frame(0), Frame(-1), Frame(3, 2, 1), Frame(2, 0, 3), Frame(2, -1), Frame(2**70), Frame(2**63 - 1),
        Frame(2.0), Frame(2, "x"), Frame(2, 0, b""), Need(0), Need(-1), Need(2**70), Need(2**63 - 1),  # type: ignore
        Need(None), (4, 0, 4), Frame(True), Need(True),  # type: ignore[arg-type]
    )

    def measure(self, view: memoryview) -> "Frame | Need":
        if view[0] == 0xF0:
            raise KeyError("rude")
        if view[0] == 0xF1 and len(view) > 1:
            return self.ANSWERS[view[1] % len(self.ANSWERS)]
        return super().measure(view)

    def wrap(self, payload: bytes) -> Any:
        if payload[:1] == b"s":
            return "no bytes"
        if payload[:1] == b"k":
            raise KeyError("rude")
        return memoryview(b"01" + payload)[2:] if payload[:1] == b"m" else super().wrap(payload)


# ---- framings ----

def delimiter(source: Input, options: "dict[str, Any]") -> Framing:
    """Up to three delimiters, none the start of another."""
    texts: list[bytes] = []
    for _ in range(1 + source.take() % 3):
        text = source.text(1, "a")
        if not any(text.startswith(other) or other.startswith(text) for other in texts):
            texts.append(text)
    return Delimiter(*texts, keep=source.flag(), tail=("error", "deliver")[source.flag()], **options)


def length_field(source: Input, options: "dict[str, Any]") -> Framing:
    """A length field with some of its many options."""
    size, has = 1 + source.take() % 8, source.take()
    offset = source.take() % 241 if has & 1 else source.take() % 4
    strip = source.take() % 241 if has & 2 else source.take() % 8
    return LengthField(
        size, offset=offset, byteorder=source.order(), signed=source.flag(),
        mask=source.number(size) or 1 if has & 4 else None, shift=source.take() % (8 * size) if has & 8 else 0,
        scale=source.number(4) or 1 if has & 16 else 1 + source.take() % 4,
        add=None if has & 32 else source.take() - 128 if has & 64 else source.number(4) - 2**31,
        align=1 + source.take() if has & 128 else 1 + source.take() % 4,
        strip=offset if offset < strip < offset + size else strip, end=source.text(0, "x"), **options)


def varint(source: Input, options: "dict[str, Any]") -> Framing:
    """A varint, its length delivered or not."""
    offset = source.take() % 4
    return Varint(offset=offset, max_bytes=1 + source.take() % 10, canonical=source.flag(),
                  strip=source.take() % (offset + 1) if source.flag() else None, **options)


def ascii_length(source: Input, options: "dict[str, Any]") -> Framing:
    """Digits, of fixed width or not."""
    width = source.take() % (MAX_DIGITS + 1) or None
    return AsciiLength(width, base=2 + source.take() % 15, separator=source.text(0 if width else 1, "x"),
                       end=source.text(0, "x"), **options)


def tagged(source: Input, options: "dict[str, Any]") -> Framing:
    """Up to four framings or sizes, at most three levels deep."""
    offset, mask = source.take() % 4, source.take() or 255
    source.depth += 1
    parts = [take_framing(source) if source.flag() and source.depth < 4 else offset + 1 + source.take() % 16
             for _ in range(1 + source.take() % 4)]
    source.depth -= 1
    frames = {tag & mask: parts[i % len(parts)] for i, tag in enumerate((*b"ab01", 0, 1, 2, 0x80, 0xFF))}
    return Tagged(frames, offset=offset, mask=mask, default=parts[0] if source.flag() else None, **options)


def header_block(source: Input, options: "dict[str, Any]") -> Framing:
    """A header field, and what ends the header."""
    separator = (b"\r\n\r\n", b"\n\n", b"\n", b"\r\n", b";", b"a")[source.take() % 6]
    return HeaderBlock(("A", "Content-Length", "b")[source.take() % 3], separator=separator, strip=source.flag(),
                       max_header=(65536, 12, 1, 30)[source.take() % 4], **options)


def own(source: Input, options: "dict[str, Any]") -> Framing:
    """A framing of a user's own."""
    kind = (Counted, Keeper, Rude)[source.take() % 3]
    source.rude |= kind is Rude
    return kind(**options)


MAKERS: "list[Callable[[Input, dict[str, Any]], Framing]]" = [
    lambda source, options: FixedLength(1 + source.take() % 16, **options),
    delimiter,
    lambda source, options: Lines(("any", "lf", "crlf")[source.take() % 3], **options),
    lambda source, options: LengthPrefix(1 + source.take() % 8, source.order(), inclusive=source.flag(), **options),
    length_field,
    varint,
    ascii_length,
    tagged,
    header_block,
    lambda source, options: Cobs(**options),
    lambda source, options: Slip(**options),
    lambda source, options: UntilClose(**options),
    own,
]

#: The framings of the vectors: any kind, however new.
LISTED = [block.framing for file in vectorfiles.FILES.values() for block in file.blocks]
FROM_VECTORS = 31


def take_options(source: Input) -> "dict[str, Any]":
    """The options that every framing has."""
    number = source.take()
    overlong = ("error", "skip", "truncate", "error")[number & 3]
    number >>= 2
    limit = number % 24 if number < 48 else source.take() if number < 54 else UNLIMITED if number < 58 else \
        source.number(7) if number < 60 else 8 * 1024 * 1024
    return {"overlong": overlong, "max_length": limit}


def take_framing(source: Input) -> Framing:
    """A framing; where its options don't go together, lines."""
    number = source.take() & 31
    try:
        if number < len(MAKERS):
            return MAKERS[number](source, take_options(source))
        framing: Framing = LISTED[source.number(2) % len(LISTED)]
        return dataclasses.replace(framing, **take_options(source)) if source.flag() else framing
    except (TypeError, ValueError):
        return Lines()


# ---- inputs that are kept ----

def saved() -> "dict[str, bytes]":
    """The inputs of corpus.txt by their names."""
    lines = CORPUS.read_text("ascii").splitlines() if CORPUS.exists() else []
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: bytes.fromhex(text) for name, text in pairs}


def words() -> "list[bytes]":
    """The words of the dictionary."""
    lines = [line for line in DICTIONARY.read_text("ascii").splitlines() if line.startswith('"')]
    return [vectorfiles.unescape(line[1:-1]) for line in lines]


def from_vectors() -> Iterator[bytes]:
    """Inputs that read the streams of the vectors, whole and cut twice."""
    number = -1
    for file in vectorfiles.FILES.values():
        for block in file.blocks:
            number += 1
            head = bytes((FROM_VECTORS, *number.to_bytes(2, "big"), 0))
            for stream in block.streams:
                if len(stream.data) < 2000:
                    yield b"\0" + head + b"\0\2\1\3" + stream.data
            for case in block.encodings:
                if len(case.payload) < 200:
                    yield b"\1" + head + bytes((8, len(case.payload))) + case.payload
