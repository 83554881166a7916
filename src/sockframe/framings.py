"""What lies on the wire: frozen descriptions of framings, shared by both wings.

A description holds numbers and bytes and does nothing: each wing compiles `spec()` into its own
scanner. Every description is checked when it is made, can be compared, hashed, pickled, and its
`repr` is the call that makes it.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from dataclasses import field as _field
from typing import Any, NamedTuple

#: No limit on a payload: the largest number of bytes a Python object can hold.
UNLIMITED: int = sys.maxsize

#: The limit of every framing that names none: 8 MiB.
DEFAULT_MAX_LENGTH: int = 8 * 1024 * 1024

#: The largest delimiter, separator or end, in bytes.
MAX_TEXT = 64

#: The largest number of bytes in front of a length field, or taken off the front of a frame.
MAX_OFFSET = 240

#: The most levels of `Tagged` in `Tagged`.
MAX_DEPTH = 8

#: The most digits an ASCII length may have: those of 2**64 - 1.
MAX_DIGITS = 20

Buffer = bytes | bytearray | memoryview


class Spec(NamedTuple):
    """A framing as a wing compiles it: the kind's name and its parameters, in the kind's own order."""

    kind: str
    numbers: tuple[int, ...] = ()
    texts: tuple[bytes, ...] = ()
    children: tuple[Framing, ...] = ()


def _whole(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int between `low` and `high`; no bool, no float."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {number}")
    return number


def _flag(name: str, value: Any) -> bool:
    """Return `value`, which must be True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return `value`, which must be one of the words `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return str(value)


def _text(name: str, value: Any, least: int) -> bytes:
    """Return `value` as bytes of `least` to 64 bytes."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}")
    text = bytes(value)
    if not least <= len(text) <= MAX_TEXT:
        raise ValueError(f"{name} must have from {least} to {MAX_TEXT} bytes, not {len(text)}")
    return text


_LITTLE = {"big": 0, "little": 1, "native": int(sys.byteorder == "little")}


class Frame(NamedTuple):
    """What `Framing.measure` found: a frame of `size` bytes, its payload from `start` to `stop` (None: to
    the frame's end). Not all of it need be here."""

    size: int
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Need:
    """What `Framing.measure` answers where it can't tell yet: at least `count` bytes more are needed.

    It is asked again once they are here, not before: where a byte in front of the last of them could show
    that the frame is bad, `count` must be smaller.
    """

    count: int = 1


_NOT_GIVEN: Any = MISSING

OVERLONG = ("error", "skip", "truncate")


@dataclass(frozen=True, repr=False)
class Framing:
    """How frames lie on the wire: the base of every framing, and of your own.

    `max_length` limits the payload as it is delivered, in bytes (default 8 MiB; no limit only by
    `UNLIMITED`). `overlong` says what becomes of a longer frame: "error" raises `FrameTooLongError`,
    "skip" drops it and counts it in `Decoder.skipped`, "truncate" delivers its first `max_length`
    bytes; both in bounded memory.

    A framing of your own is a subclass with `measure` and `wrap`, each called once a frame. It should
    be as immutable as the ones here.
    """

    max_length: int = _field(default=DEFAULT_MAX_LENGTH, kw_only=True)
    overlong: str = _field(default="error", kw_only=True)

    def __post_init__(self) -> None:
        self._set("max_length", _whole("max_length", self.max_length, 0, UNLIMITED))
        self._set("overlong", _choice("overlong", self.overlong, OVERLONG))
        self._check()
        self._check_overlong(self.overlong)

    def _check(self) -> None:
        """Check and normalise the fields of the kind."""

    def _check_overlong(self, overlong: str) -> None:
        """Refuse what can't be done with an overlong frame of the kind, also where a `Tagged` asks for it."""

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def measure(self, view: memoryview) -> Frame | Need:
        """Say how the frame at view[0] lies, from the bytes that are here (one at least).

        The answer must depend on the bytes alone, not on how many more are here. Raise
        `MalformedFrameError` for a frame that is bad: that is final for the stream.
        """
        raise TypeError(f"{type(self).__name__} must define measure() and wrap()")

    def wrap(self, payload: bytes) -> bytes:
        """Return the frame of a payload, or raise `ValueError` where it could not be read back.

        Of several payloads that are encoded or sent at once, the error names the place of the bad one; a
        subclass of `ValueError` comes as it was raised.
        """
        raise TypeError(f"{type(self).__name__} must define measure() and wrap()")

    def spec(self) -> Spec:
        """Return the parameters that a wing compiles."""
        if type(self).measure is Framing.measure or type(self).wrap is Framing.wrap:
            raise TypeError(f"{type(self).__name__} must define measure() and wrap()")
        return Spec("own")

    def _positional(self) -> list[str]:
        """Return the source of the positional arguments that make this framing."""
        items = [item for item in fields(self) if not item.kw_only]
        while items and getattr(self, items[-1].name) == items[-1].default:
            items.pop()
        return [repr(getattr(self, item.name)) for item in items]

    def __repr__(self) -> str:
        words = self._positional()
        for item in sorted(fields(self), key=lambda item: item.name in ("max_length", "overlong")):
            value = getattr(self, item.name)
            if item.kw_only and value != item.default:
                unlimited = item.name == "max_length" and value == UNLIMITED
                words.append(f"{item.name}={'UNLIMITED' if unlimited else repr(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def __getstate__(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True, repr=False)
class FixedLength(Framing):
    """Every payload is `length` bytes, one after the other, nothing between."""

    length: int

    def _check(self) -> None:
        self._set("length", _whole("length", self.length, 1, UNLIMITED))
        if self.length > self.max_length:
            raise ValueError(f"length {self.length} is above max_length {self.max_length}")

    def spec(self) -> Spec:
        return Spec("fixed", (self.length,))


@dataclass(frozen=True, repr=False, init=False)
class Delimiter(Framing):
    """A payload, then one of the delimiters (1 to 64 bytes each).

    The frame ends at the earliest end of any delimiter; where several end there, the longest is
    taken off. A delimiter that is the start of another is refused. `keep=True` delivers the
    delimiter with the payload; `tail="deliver"` makes the unended rest a frame when the stream
    ends, where "error" raises `IncompleteFrameError`. Encoding appends the first delimiter.
    `delimiters` names more of them, or all, as `dataclasses.replace` does.
    """

    delimiters: tuple[bytes, ...]
    keep: bool = _field(default=False, kw_only=True)
    tail: str = _field(default="error", kw_only=True)

    def __init__(self, delimiter: Buffer = _NOT_GIVEN, *more: Buffer, delimiters: Iterable[Buffer] = (),
                 keep: bool = False, tail: str = "error", max_length: int = DEFAULT_MAX_LENGTH,
                 overlong: str = "error") -> None:
        first = () if delimiter is _NOT_GIVEN else (delimiter,)
        self._set("delimiters", (*first, *more, *delimiters))
        self._set("keep", keep)
        self._set("tail", tail)
        self._set("max_length", max_length)
        self._set("overlong", overlong)
        self.__post_init__()

    def _check(self) -> None:
        texts = tuple(_text("delimiter", text, 1) for text in self.delimiters)
        if not texts:
            raise TypeError("at least one delimiter is needed")
        for i, one in enumerate(texts):
            for j, other in enumerate(texts):
                if i != j and other.startswith(one):
                    raise ValueError(f"delimiter {one!r} is the start of delimiter {other!r}")
        self._set("delimiters", texts)
        _flag("keep", self.keep)
        _choice("tail", self.tail, ("error", "deliver"))

    def spec(self) -> Spec:
        return Spec("delimiter", (int(self.keep), int(self.tail == "deliver")), self.delimiters)

    def _positional(self) -> list[str]:
        return [repr(text) for text in self.delimiters]


@dataclass(frozen=True, repr=False)
class Lines(Framing):
    """Lines of text without their endings.

    `ending="any"` ends a line at LF or CRLF, takes both off and sends LF; "lf" ends it at LF
    alone; "crlf" is strict: a bare CR or LF is a `MalformedFrameError`, so that no two readers can
    disagree on where a line ends (RFC 5321 section 2.3.8).
    """

    ending: str = "any"

    def _check(self) -> None:
        _choice("ending", self.ending, ("any", "lf", "crlf"))

    def spec(self) -> Spec:
        if self.ending == "crlf":
            return Spec("crlf")
        return Spec("delimiter", (0, 0), (b"\n",) if self.ending == "lf" else (b"\n", b"\r\n"))


@dataclass(frozen=True, repr=False)
class LengthPrefix(Framing):
    """`size` (1 to 8) bytes of unsigned length, then the payload.

    `byteorder` is "big", "little" or "native"; with `inclusive=True` the length counts its own
    bytes too.
    """

    size: int = 4
    byteorder: str = "big"
    inclusive: bool = _field(default=False, kw_only=True)

    def _check(self) -> None:
        self._set("size", _whole("size", self.size, 1, 8))
        _choice("byteorder", self.byteorder, tuple(_LITTLE))
        _flag("inclusive", self.inclusive)

    def spec(self) -> Spec:
        return Spec("length_prefix", (self.size, _LITTLE[self.byteorder], int(self.inclusive)))


@dataclass(frozen=True, repr=False)
class LengthField(Framing):
    """A header with a length field of `size` bytes at `offset`, then the rest of the frame.

    The frame has ((field & `mask`) >> `shift`) * `scale` + `add` bytes, counted from its first
    byte (`add=None`: offset + size). A size smaller than the header, or a negative field where
    `signed`, is malformed. `align` adds padding bytes up to its multiple, which are not delivered
    and sent as zeros. The first `strip` bytes are not delivered; `end` must close the frame (before
    any padding) and is not delivered.

    Encoding writes the length into its place. Where the field is part of the payload (`strip` does
    not cover it), it must be zero, to be filled in, or hold the right length already.
    """

    size: int
    offset: int = _field(default=0, kw_only=True)
    byteorder: str = _field(default="big", kw_only=True)
    mask: int | None = _field(default=None, kw_only=True)
    shift: int = _field(default=0, kw_only=True)
    scale: int = _field(default=1, kw_only=True)
    add: int | None = _field(default=None, kw_only=True)
    align: int = _field(default=1, kw_only=True)
    strip: int = _field(default=0, kw_only=True)
    end: bytes = _field(default=b"", kw_only=True)
    signed: bool = _field(default=False, kw_only=True)

    def _check(self) -> None:
        self._set("size", _whole("size", self.size, 1, 8))
        self._set("offset", _whole("offset", self.offset, 0, MAX_OFFSET))
        _choice("byteorder", self.byteorder, tuple(_LITTLE))
        if self.mask is not None:
            self._set("mask", _whole("mask", self.mask, 1, 256**self.size - 1))
        self._set("shift", _whole("shift", self.shift, 0, 8 * self.size - 1))
        self._set("scale", _whole("scale", self.scale, 1, 2**32 - 1))
        if self.add is not None:
            self._set("add", _whole("add", self.add, -(2**32 - 1), 2**32 - 1))
        self._set("align", _whole("align", self.align, 1, 256))
        self._set("strip", _whole("strip", self.strip, 0, MAX_OFFSET))
        if self.offset < self.strip < self.offset + self.size:
            raise ValueError(f"strip {self.strip} cuts the length field at offset {self.offset}")
        self._set("end", _text("end", self.end, 0))
        _flag("signed", self.signed)

    def spec(self) -> Spec:
        mask = 256**self.size - 1 if self.mask is None else self.mask
        add = self.offset + self.size if self.add is None else self.add
        return Spec("length_field", (self.size, self.offset, _LITTLE[self.byteorder], mask, self.shift,
                                     self.scale, int(add < 0), abs(add), self.align, self.strip,
                                     int(self.signed)), (self.end,))


@dataclass(frozen=True, repr=False)
class Varint(Framing):
    """A LEB128 length of what follows it (Protocol Buffers; MQTT has it at `offset=1`).

    At most `max_bytes` (1 to 10) bytes of length; a longer or larger one is malformed, and so is
    one that is not the shortest unless `canonical=False`. `strip` bytes of the `offset` in front of
    the length are not delivered; `strip=None` takes off all up to the payload.

    Encoding writes the length. Where it is part of the payload, it must be one zero byte, to be
    filled in, or the right length already.
    """

    offset: int = _field(default=0, kw_only=True)
    max_bytes: int = _field(default=5, kw_only=True)
    canonical: bool = _field(default=True, kw_only=True)
    strip: int | None = _field(default=None, kw_only=True)

    def _check(self) -> None:
        self._set("offset", _whole("offset", self.offset, 0, MAX_OFFSET))
        self._set("max_bytes", _whole("max_bytes", self.max_bytes, 1, 10))
        _flag("canonical", self.canonical)
        if self.strip is not None:
            self._set("strip", _whole("strip", self.strip, 0, self.offset))

    def spec(self) -> Spec:
        stripped = self.strip is None
        return Spec("varint", (self.offset, self.max_bytes, int(self.canonical), int(stripped),
                               self.strip or 0))


@dataclass(frozen=True, repr=False)
class AsciiLength(Framing):
    """The payload's length in digits, then the payload.

    The digits have a fixed `width` (1 to 20, with leading zeros: the Socket Programming HOWTO's
    five characters) or are ended by the `separator`, at most 20 of them and no leading zero.
    `end` closes the frame. A netstring is `separator=b":", end=b","`, syslog octet counting (RFC
    6587) `separator=b" "`. `base` is 2 to 16; letters are read in either case and written in lower
    case. No sign, blank or underscore is a digit.
    """

    width: int | None = None
    base: int = _field(default=10, kw_only=True)
    separator: bytes = _field(default=b"", kw_only=True)
    end: bytes = _field(default=b"", kw_only=True)

    def _check(self) -> None:
        if self.width is not None:
            self._set("width", _whole("width", self.width, 1, MAX_DIGITS))
        self._set("base", _whole("base", self.base, 2, 16))
        self._set("separator", _text("separator", self.separator, 0 if self.width else 1))
        self._set("end", _text("end", self.end, 0))
        digits = b"0123456789abcdef"[:self.base]
        if self.width is None and self.separator[0] in digits + digits.upper():
            raise ValueError(f"separator {self.separator!r} begins with a digit")

    def spec(self) -> Spec:
        return Spec("ascii_length", (self.width or 0, self.base), (self.separator, self.end))


@dataclass(frozen=True, repr=False)
class Tagged(Framing):
    """The byte at `offset`, under `mask`, picks how the frame goes on (X11; ZMTP; the Socket
    Programming HOWTO's type character).

    `frames` maps a tag (an int from 0 to 255, or one byte) to a framing, which sees the frame from
    its first byte, or to a number: the size of the whole frame in bytes. A tag that is not listed
    goes to `default`; without one it is malformed. Encoding takes the tag from the payload.
    """

    frames: Any
    offset: int = _field(default=0, kw_only=True)
    mask: int = _field(default=0xFF, kw_only=True)
    default: Framing | int | None = _field(default=None, kw_only=True)

    def _check(self) -> None:
        self._set("offset", _whole("offset", self.offset, 0, MAX_OFFSET))
        self._set("mask", _whole("mask", self.mask, 1, 255))
        pairs: Iterable[tuple[Any, Any]] = self.frames.items() if isinstance(self.frames, Mapping) else self.frames
        table: dict[int, Framing | int] = {}
        for key, value in pairs:
            tag = _whole("tag", key[0] if isinstance(key, bytes) and len(key) == 1 else key, 0, 255)
            if tag & ~self.mask:
                raise ValueError(f"tag {tag} can never be read under mask {self.mask:#x}")
            if tag in table:
                raise ValueError(f"tag {tag} is listed twice")
            table[tag] = self._frame(value)
        if not table and self.default is None:
            raise ValueError("frames must list at least one tag")
        self._set("frames", tuple(sorted(table.items(), key=operator.itemgetter(0))))
        if self.default is not None:
            self._set("default", self._frame(self.default))
        for depth, _ in enumerate(self._levels(), 1):
            if depth > MAX_DEPTH:
                raise ValueError(f"Tagged framings may lie {MAX_DEPTH} deep in each other, not {depth}")

    def _check_overlong(self, overlong: str) -> None:
        for level in self._levels():
            for value in level:
                if not isinstance(value, Tagged):
                    value._check_overlong(overlong)

    def _levels(self) -> Iterator[list[Framing]]:
        """Give the framings in this one, then those in them, and so on: each but once a level, however often
        it is used."""
        outer: list[Tagged] = [self]
        while outer:
            found = {id(value): value for one in outer for value in (*dict(one.frames).values(), one.default)
                     if isinstance(value, Framing)}
            yield list(found.values())
            outer = [value for value in found.values() if isinstance(value, Tagged)]

    def _frame(self, value: Any) -> Framing | int:
        """Check one entry: a framing, or the size of the whole frame."""
        if isinstance(value, Framing):
            value.spec()
            return value
        return _whole("frame size", value, self.offset + 1, self.max_length)

    def spec(self) -> Spec:
        children: list[Framing] = []
        table = bytearray(512)

        def slot(value: Framing | int | None) -> int:
            """Return the number of the child that reads `value`, counted from 1; 0 is malformed."""
            if value is None:
                return 0
            child = value if isinstance(value, Framing) else FixedLength(value, max_length=self.max_length)
            if child not in children:
                children.append(child)
            return children.index(child) + 1

        table[:] = slot(self.default).to_bytes(2, "little") * 256
        for tag, value in self.frames:
            table[2 * tag:2 * tag + 2] = slot(value).to_bytes(2, "little")
        return Spec("tagged", (self.offset, self.mask), (bytes(table),), tuple(children))

    def _positional(self) -> list[str]:
        return ["{" + ", ".join(f"{tag}: {value!r}" for tag, value in self.frames) + "}"]


@dataclass(frozen=True, repr=False)
class HeaderBlock(Framing):
    """Header lines up to a `separator`, then as many bytes as the header's `field` tells (Language Server
    Protocol, Debug Adapter Protocol).

    The field's name is matched in any case. A first line without a colon is passed over; a header of
    more than `max_header` bytes, one without the field, or with two that differ, is malformed. The
    header is not delivered, unless `strip=False`: then the payload to send must have it too.
    """

    field: str = "Content-Length"
    separator: bytes = _field(default=b"\r\n\r\n", kw_only=True)
    max_header: int = _field(default=65536, kw_only=True)
    strip: bool = _field(default=True, kw_only=True)

    def _check(self) -> None:
        if not isinstance(self.field, str):
            raise TypeError(f"field must be a str, not {type(self.field).__name__}")
        visible = all("!" <= letter <= "~" and letter != ":" for letter in self.field)
        if not 1 <= len(self.field) <= MAX_TEXT or not visible:
            raise ValueError(f"field must have 1 to {MAX_TEXT} visible ASCII letters and no colon, not {self.field!r}")
        self._set("separator", _text("separator", self.separator, 1))
        if self.separator[0] in (self.field + ": \t0123456789").encode("ascii"):
            raise ValueError(f"separator {self.separator!r} begins with a byte that the header holds")
        self._set("max_header", _whole("max_header", self.max_header, len(self.field) + 3, 2**31 - 1))
        _flag("strip", self.strip)

    def spec(self) -> Spec:
        return Spec("header_block", (self.max_header, int(self.strip)), (self.field.encode("ascii"), self.separator))


@dataclass(frozen=True, repr=False)
class Stuffed(Framing):
    """What Cobs and Slip have in common: a payload that is not on the wire as it is, so a part of it is
    not the start of a payload either."""

    def _check_overlong(self, overlong: str) -> None:
        if overlong == "truncate":
            raise ValueError(f"{type(self).__name__} can't truncate an overlong frame, only skip it")


@dataclass(frozen=True, repr=False)
class Cobs(Stuffed):
    """Consistent overhead byte stuffing: frames without a zero, each ended by one (Cheshire and Baker 1999).

    Zeros in front of a frame are passed over.
    """

    def spec(self) -> Spec:
        return Spec("cobs")


@dataclass(frozen=True, repr=False)
class Slip(Stuffed):
    """Frames ended by 0xC0, which is escaped inside them (RFC 1055).

    Ends in front of a frame are passed over, so there is no empty payload.
    """

    def spec(self) -> Spec:
        return Spec("slip")


@dataclass(frozen=True, repr=False)
class UntilClose(Framing):
    """The whole stream is one payload, ended by closing."""

    def spec(self) -> Spec:
        return Spec("until_close")


_NAMED: dict[str, Framing] = {
    "lines": Lines(),
    "lf": Lines("lf"),
    "crlf": Lines("crlf"),
    "varint": Varint(),
    "netstring": AsciiLength(separator=b":", end=b","),
    "octet-counting": AsciiLength(separator=b" "),
    "until-close": UntilClose(),
    "cobs": Cobs(),
    "slip": Slip(),
    "header-block": HeaderBlock(),
    **{f"u{8 * size}{order[0]}e": LengthPrefix(size, order) for size in range(2, 9) for order in ("big", "little")},
    "u8": LengthPrefix(1),
}

#: The framings of real protocols by name: protocols.py, which knows them, fills it in.
PROTOCOL_FRAMINGS: dict[str, Framing] = {}


def _number(name: str, digits: str) -> int:
    """Read the plain decimal number in a framing's name."""
    number = 0
    if not digits or len(digits) > MAX_DIGITS:
        raise ValueError(f"framing name {name!r} needs a number of 1 to {MAX_DIGITS} digits after the colon")
    for digit in digits:
        if digit not in "0123456789":
            raise ValueError(f"framing name {name!r} has {digit!r} where a digit is expected")
        number = number * 10 + "0123456789".index(digit)
    return number


def framing(name: str) -> Framing:
    """Return the framing of that name.

    Names are "u8", "u16be", "u16le" up to "u64le" (a length prefix), "varint", "lines", "lf",
    "crlf", "netstring", "octet-counting", "until-close", "fixed:16" (bytes), "ascii:5" (digits),
    "delimiter:" with the delimiter's bytes in hexadecimal ("delimiter:0x0d0a"), and those of
    `sockframe.protocols.PROTOCOLS` ("postgres", "mqtt", "dns"). Raises `ValueError` for any other.
    """
    if not isinstance(name, str):
        raise TypeError(f"framing name must be a str, not {type(name).__name__}")
    if name in _NAMED:
        return _NAMED[name]
    if name in PROTOCOL_FRAMINGS:
        return PROTOCOL_FRAMINGS[name]
    head, colon, rest = name.partition(":")
    if colon and head == "fixed":
        return FixedLength(_number(name, rest))
    if colon and head == "ascii":
        return AsciiLength(_number(name, rest))
    if colon and head == "delimiter" and rest.startswith("0x"):
        try:
            return Delimiter(bytes.fromhex(rest[2:]))
        except ValueError as error:
            raise ValueError(f"framing name {name!r}: {error}") from None
    known = ", ".join([*sorted(_NAMED), "fixed:N", "ascii:N", "delimiter:0xHEX"])
    raise ValueError(f"no framing is named {name!r}; known are {known}, and those of "
                     "sockframe.protocols")
