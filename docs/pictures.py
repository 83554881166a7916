"""Pictures of frames on the wire, drawn from the framings themselves: a cell for each byte, coloured by its part."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sockframe import (
    AsciiLength,
    Cobs,
    Decoder,
    Delimiter,
    Encoder,
    Framing,
    HeaderBlock,
    LengthField,
    Lines,
    Slip,
    Tagged,
    Varint,
)

Cell = tuple[int, str]  # a byte and the part that it belongs to

CELL, HEIGHT, GAP = 25, 28, 8  # pixels
COLUMNS = 13                   # cells in a row, so that it fits on a phone
CONTROL = {10: "LF", 13: "CR", 32: "SP"}

#: How each part is coloured (site.css).
COLOURS = {"length": "front", "header": "tag", "length and separator": "front", "tag": "tag", "payload": "payload",
           "delimiter": "back", "line end": "back", "end": "back", "padding": "back", "stuffing": "tag"}


def cells(framing: Framing, payload: bytes) -> list[Cell]:
    """Return the bytes of a payload's frame, each with its part."""
    frame = Encoder(framing).encode(payload)
    if isinstance(framing, Cobs):
        return cobs(frame)
    if isinstance(framing, Slip):
        return slip(frame)
    decoder = Decoder(framing)
    (delivered,) = decoder.decode(frame) or decoder.finish()
    at = frame.rindex(delivered)
    parts = [lead(framing)] * at + ["payload"] * len(delivered)
    parts += [close(framing)] * (len(frame) - len(parts))
    if isinstance(framing, Tagged):
        (child,) = [value for tag, value in framing.frames if tag == frame[framing.offset] & framing.mask]
        if isinstance(child, Framing):
            parts = [part for _, part in cells(child, payload)]
        parts[framing.offset] = "tag"
    if isinstance(framing, LengthField):
        for place in range(framing.size):
            parts[framing.offset + place] = "length"
    if isinstance(framing, Varint):
        parts[:framing.offset] = ["header"] * framing.offset
    return list(zip(frame, parts, strict=True))


def lead(framing: Framing) -> str:
    """Return what stands in front of a payload."""
    if isinstance(framing, AsciiLength) and framing.separator:
        return "length and separator"
    return "header" if isinstance(framing, (HeaderBlock, LengthField)) else "length"


def close(framing: Framing) -> str:
    """Return what stands behind a payload."""
    if isinstance(framing, Lines):
        return "line end"
    return "delimiter" if isinstance(framing, Delimiter) else "end"


def cobs(frame: bytes) -> list[Cell]:
    """Return the cells of a frame of COBS: each block begins with the place of the next one."""
    found = [(byte, "payload") for byte in frame]
    at = 0
    while frame[at]:
        found[at] = (frame[at], "stuffing")
        at += frame[at]
    found[at] = (0, "delimiter")
    return found


def slip(frame: bytes) -> list[Cell]:
    """Return the cells of a frame of SLIP: 0xDB and the byte behind it stand for one byte."""
    found, stuffed = [], False
    for byte in frame:
        stuffed, before = byte == 0xDB, stuffed
        found.append((byte, "stuffing" if stuffed or before else "delimiter" if byte == 0xC0 else "payload"))
    return found


def text_of(byte: int, part: str, framing: Framing) -> str:
    """Return what is written into a cell: a letter as such, all else in hexadecimal."""
    written = isinstance(framing, (AsciiLength, HeaderBlock))
    if byte in CONTROL and part != "length":
        return CONTROL[byte]
    letter = 32 < byte < 127 and (written or part not in ("length", "stuffing"))
    return chr(byte) if letter else f"{byte:02x}"


def draw(framing: Framing, payloads: Sequence[bytes]) -> str:
    """Return the frames of `payloads`, one behind the other, as an SVG for a page of HTML."""
    shapes, seen, words = [], {}, []
    x = y = width = 0
    for payload in payloads:
        found = cells(framing, payload)
        if x and x + len(found) * CELL > COLUMNS * CELL:
            x, y = 0, y + HEIGHT + GAP
        for byte, part in found:
            if x + CELL > COLUMNS * CELL + GAP * len(payloads):
                x, y = 0, y + HEIGHT
            seen[part] = COLOURS[part]
            text = text_of(byte, part, framing)
            words.append(text)
            shapes.append(f'<g class="{COLOURS[part]}"><rect x="{x + 1}" y="{y + 1}" width="{CELL}" '
                          f'height="{HEIGHT}"/><text x="{x + 1 + CELL / 2}" y="{y + 19}">{escape(text)}</text></g>')
            x += CELL
            width = max(width, x)
        words.append("|")
        x += GAP
    y += HEIGHT + 12
    x = 0
    for part, colour in seen.items():
        room = 30 + 7 * len(part)
        if x and x + room > COLUMNS * CELL:
            x, y = 0, y + 20
        shapes.append(f'<g class="{colour}"><rect x="{x + 1}" y="{y + 1}" width="12" height="12"/>'
                      f'<text class="name" x="{x + 18}" y="{y + 11}">{part}</text></g>')
        x += room
        width = max(width, x)
    return (f'<svg class="wire" role="img" viewBox="0 0 {width + 2} {y + 16}" width="{width + 2}" '
            f'height="{y + 16}" aria-label="{escape(f"{framing!r} on the wire: {chr(32).join(words[:-1])}")}">'
            f'{"".join(shapes)}</svg>')
