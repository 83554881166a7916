r"""The files of tests/vectors: framings as data, read by csrc/test/vectors.c too.

One file holds one kind of framing; a line holds one thing; `#` begins a comment line. A block begins
with a framing, and its cases follow:

    framing <Python>                      the framing, by the names of sockframe.framings
    spec <kind> <max_length> <n,n,..> <bytes,..> [skip|truncate]
                                          the same, compiled: numbers and texts, or - for none; overlong
    child <i.j> <kind> ...                a framing in it: the j-th child of its i-th child
    least <n>                             bytes that are missing in front of a frame

    stream <bytes>                        a stream; then what it gives:
    frame <bytes> <bytes> ...             the payloads in it
    skipped <n>                           the number of overlong frames in it that are skipped
                                          then how it goes on, one of:
    clean                                 it ends on a frame boundary
    left <n> need <m>                     n bytes that are no whole frame, at least m are missing: incomplete
    left <n> need <m> held <k>            the same of an overlong frame that is passed over: k of them are held;
                                          then what the end of the stream makes of them, if anything:
    ... last <bytes>                      a frame
    ... skipped                           an overlong frame, which is skipped
    ... clean                             nothing: no frame had begun
    ... fault <..>                        a fault
    fault <name> <number> <limit> <seen> at <position>   as in csrc/sockframe.h

    encode <payload> <frame> [<payload>]  the frame of a payload, and what that decodes to if not the same
    refuse <payload> <name> <number> <limit>   a payload that can't be sent
    wrong <exception> <Python>            a framing that can't be made

Bytes are hexadecimal (0d0a) or text in quotes (with \r \n \t \0 \\ \" \xNN), can be repeated ("a"*1000) and
joined (0003+"abc"), without blanks between.
"""

import builtins
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sockframe import framings
from sockframe.errors import Fault

FOLDER = Path(__file__).parent / "vectors"

_TERM = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|((?:[0-9a-f]{2})+))(?:\*(\d+))?')
_ESCAPE = re.compile(rb'\\(?:x([0-9a-f]{2})|([rnt0\\"]))')
_SHORT = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\", b'"': b'"'}


@dataclass(frozen=True)
class Wrong:
    """A fault: `at` is the position of the bad frame, None where the end of the stream shows it."""

    fault: Fault
    number: int
    limit: int
    seen: int = 0
    at: "int | None" = None


@dataclass
class Stream:
    """Bytes, the payloads in them, and how they end; `place` is the file and the line."""

    place: str
    data: bytes
    frames: "list[bytes]" = field(default_factory=list)
    skipped: int = 0
    left: int = 0
    held: int = 0
    need: int = 0
    last: "bytes | None" = None
    at_end: str = "incomplete"
    fault: "Wrong | None" = None
    ended: "str" = ""

    @property
    def incomplete(self) -> bool:
        """Whether the stream ends inside a frame."""
        return bool(self.left) and not self.fault and self.at_end == "incomplete"

    @property
    def good(self) -> int:
        """The number of bytes in whole frames."""
        return self.fault.at if self.fault and self.fault.at is not None else len(self.data) - self.left


@dataclass
class Encoding:
    """A payload with its frame, or with why it is refused; `back` is what the frame decodes to."""

    place: str
    payload: bytes
    frame: bytes = b""
    back: bytes = b""
    fault: "Wrong | None" = None


@dataclass
class Block:
    """A framing and its cases. `tree` has the spec, under (), and those of the children by their path."""

    place: str
    framing: Any
    tree: "dict[tuple[int, ...], tuple[Any, ...]]" = field(default_factory=dict)
    least: int = 0
    streams: "list[Stream]" = field(default_factory=list)
    encodings: "list[Encoding]" = field(default_factory=list)


@dataclass
class VectorFile:
    """All blocks of a file, and the framings that can't be made: (place, exception, source)."""

    blocks: "list[Block]" = field(default_factory=list)
    wrong: "list[tuple[str, type[Exception], str]]" = field(default_factory=list)


def unescape(text: str) -> bytes:
    """Return the bytes that a text in quotes stands for."""
    raw = text.encode("ascii")
    assert b"\\" not in _ESCAPE.sub(b"", raw), f"unknown escape in {text!r}"
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else _SHORT[found[2]], raw)


def take_bytes(text: str) -> "tuple[bytes, str]":
    """Read bytes at the start of a text: them, and the rest of the text."""
    parts = []
    while True:
        term = _TERM.match(text)
        assert term, f"no bytes at {text!r}"
        value = bytes.fromhex(term[2]) if term[2] else unescape(term[1])
        parts.append(value * (int(term[3]) if term[3] else 1))
        text = text[term.end():]
        if not text.startswith("+"):
            return b"".join(parts), text
        text = text[1:]


def all_bytes(text: str) -> "list[bytes]":
    """Read bytes with blanks between, up to the end of the line."""
    found = []
    while text:
        value, text = take_bytes(text)
        assert not text or text[0] == " ", f"a blank is missing at {text!r}"
        found.append(value)
        text = text[1:]
    return found


def take_spec(text: str) -> "tuple[Any, ...]":
    """Read a spec: its kind, max_length, numbers, texts, and what becomes of overlong frames."""
    kind, limit, numbers, texts = text.split(" ", 3)
    found = []
    rest = texts[1:] if texts[0] == "-" else "," + texts
    while rest.startswith(","):
        value, rest = take_bytes(rest[1:])
        found.append(value)
    assert rest in ("", " skip", " truncate"), f"no way with overlong frames: {rest!r}"
    numbers = () if numbers == "-" else tuple(map(int, numbers.split(",")))
    return kind, int(limit), numbers, tuple(found), rest[1:] or "error"


def make(source: str) -> Any:
    """Evaluate the Python of a framing."""
    return eval(source, {name: getattr(framings, name) for name in dir(framings)})


def read_vectors(path: Path) -> VectorFile:
    """Read one file; a line that can't be read is an AssertionError."""
    found = VectorFile()
    for number, line in enumerate(path.read_text("ascii").splitlines(), 1):
        place = f"{path.stem}:{number}"
        word, _, rest = line.partition(" ")
        if not line or word == "#":
            continue
        try:
            _read_line(found, place, word, rest)
        except (AssertionError, ValueError, KeyError, IndexError) as error:
            raise AssertionError(f"{place}: {line}: {error}") from error
    return found


def _read_line(found: VectorFile, place: str, word: str, rest: str) -> None:
    """Read one line into the file's last block, or begin a new one."""
    if word == "wrong":
        name, source = rest.split(" ", 1)
        found.wrong.append((place, getattr(builtins, name), source))
        return
    if word == "framing":
        found.blocks.append(Block(place, make(rest)))
        return
    block = found.blocks[-1]
    if word == "spec":
        block.tree[()] = take_spec(rest)
    elif word == "child":
        path, spec = rest.split(" ", 1)
        block.tree[tuple(map(int, path.split(".")))] = take_spec(spec)
    elif word == "least":
        block.least = int(rest)
    elif word == "stream":
        block.streams.append(Stream(place, *all_bytes(rest)))
    elif word == "encode":
        payload, frame, *back = all_bytes(rest)
        block.encodings.append(Encoding(place, payload, frame, *(back or [payload])))
    elif word == "refuse":
        payload, text = take_bytes(rest)
        name, one, other = text.split()
        block.encodings.append(Encoding(place, payload, fault=Wrong(Fault[name], int(one), int(other))))
    else:
        _read_outcome(block, word, rest)


def _read_outcome(block: Block, word: str, rest: str) -> None:
    """Read what the last stream gives."""
    stream = block.streams[-1]
    assert not stream.ended, f"the stream has ended with {stream.ended}"
    if word == "frame":
        stream.frames += all_bytes(rest)
        return
    if word == "skipped":
        stream.skipped = int(rest)
        return
    stream.ended = word
    if word == "clean":
        stream.need = block.least
    elif word == "left":
        match = re.fullmatch(r"(\d+) need (\d+)(?: held (\d+))?(?: (last|skipped|clean|fault)(?: (.*))?)?", rest)
        assert match, "left <n> need <m>, and what the end of the stream makes of it"
        stream.left, stream.need = int(match[1]), int(match[2])
        stream.held = int(match[3] or match[1])
        stream.at_end = match[4] or "incomplete"
        if stream.at_end == "last":
            (stream.last,) = all_bytes(match[5])
        elif stream.at_end == "fault":
            name, *numbers = match[5].split()
            stream.fault = Wrong(Fault[name], *map(int, numbers))
    else:
        assert word == "fault", f"unknown word {word!r}"
        name, one, other, seen, _, at = rest.split()
        stream.fault = Wrong(Fault[name], int(one), int(other), int(seen), int(at))


FILES: "dict[str, VectorFile]" = {path.stem: read_vectors(path) for path in sorted(FOLDER.glob("*.txt"))}
