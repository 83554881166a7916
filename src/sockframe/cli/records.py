"""The frames of a stream, each with its place in it, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from .._wing import Decoder
from ..framings import Framing, Tagged


class Record(NamedTuple):
    """One frame: its place in the stream, its size there in bytes, and its payload (None: overlong, skipped)."""

    offset: int
    size: int
    payload: bytes | None


class Records:
    """Finds the frames of a stream and their places: `feed` its bytes, then `finish`.

    The places are right also behind frames that are skipped: where such frames can be, no more bytes are
    decoded at once than one of them must have, and at its end no more than are needed.
    """

    def __init__(self, framing: Framing) -> None:
        self._decoder = Decoder(framing)
        self._least = _least_overlong(framing)
        self._fed = 0

    @property
    def skipped(self) -> int:
        """The number of overlong frames that were skipped."""
        return self._decoder.skipped

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take bytes and yield the frames that are now whole. Raises the stream's fault behind them."""
        for piece in self._pieces(data):
            self._decoder.feed(piece)
            self._fed += len(piece)
            while True:
                offset, skipped = self._decoder.position, self._decoder.skipped
                payload = self._decoder.next_frame()
                if payload is None and self._decoder.skipped == skipped:
                    break
                yield Record(offset, self._decoder.position - offset, payload)

    def finish(self) -> Iterator[Record]:
        """Yield the last frame, where the end of the stream ends it. Raises `IncompleteFrameError` behind it."""
        offset, skipped = self._decoder.position, self._decoder.skipped
        for payload in self._decoder.finish():
            yield Record(offset, self._decoder.position - offset, payload)
        if self._decoder.skipped > skipped:
            yield Record(offset, self._decoder.position - offset, None)
        self._decoder.finish()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Cut data so that no piece holds more than the end of an overlong frame that does not end in an error."""
        if self._least is None:
            yield data
            return
        at = 0
        while at < len(data):
            room = self._decoder.position + self._least - self._fed
            piece = data[at:at + (room if room > 0 else max(1, self._decoder.need))]
            at += len(piece)
            yield piece


def _least_overlong(framing: Framing) -> int | None:
    """Return the least limit of those parts of a framing that skip or truncate; None where none does."""
    found = [framing.max_length] if framing.overlong != "error" else []
    if isinstance(framing, Tagged):
        for _, child in (*framing.frames, (None, framing.default)):
            if isinstance(child, Framing):
                least = _least_overlong(child)
                found += [least] if least is not None else []
                found += [child.max_length] if framing.overlong != "error" else []
    return min(found, default=None)


# ---- how they are shown ----

def as_text(data: bytes) -> str:
    """Return bytes as text that is safe on a terminal: what is no printable letter of UTF-8 is escaped."""
    text = data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def as_line(record: Record, most: int) -> str:
    """Return a record as a line: offset, length, at most `most` bytes in hexadecimal, and as text."""
    offset, size, payload = record
    if payload is None:
        return f"{offset:>10} {'-':>8}  overlong, skipped: {size} bytes with its header"
    shown = payload[:most]
    more = "..." if len(payload) > most else ""
    width = 3 * min(most, 16) + 2
    return f"{offset:>10} {len(payload):>8}  {shown.hex(' ') + more:<{width}}  |{as_text(shown)}|{more}"


def as_json(record: Record, most: int) -> str:
    """Return a record as one line of JSON, in ASCII."""
    offset, size, payload = record
    fields: dict[str, object] = {"offset": offset, "size": size}
    if payload is None:
        fields["skipped"] = True
    else:
        fields |= payload_fields(payload, most)
    return json.dumps(fields)


def payload_fields(payload: bytes, most: int) -> dict[str, object]:
    """Return what is told of a payload in JSON: `hex` and `text` hold at most its first `most` bytes."""
    shown = payload[:most]
    return {"length": len(payload), "hex": shown.hex(), "text": shown.decode("utf-8", "backslashreplace")}
