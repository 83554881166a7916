"""What only the pure wing can get wrong: its ways of taking many frames at once."""

import sys
from typing import Any

import pytest

from sockframe import _pure
from sockframe.framings import Delimiter, Framing, Lines


def splits(call: Any) -> int:
    """Return how often a call splits bytes."""
    count = 0

    def note(_frame: Any, event: str, function: Any) -> None:
        nonlocal count
        count += event == "c_call" and function.__name__ == "split"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("overlong", ["skip", "truncate"])
@pytest.mark.parametrize(("framing", "line"), [(Lines, b"\n"), (Lines, b"\r\n"), (Delimiter, b"end")])
def test_a_stream_is_not_split_anew_for_each_overlong_frame(framing: Any, line: bytes, overlong: str) -> None:
    if framing is Delimiter:
        described: Framing = Delimiter(line, max_length=2, overlong=overlong)
    else:
        described = Lines("crlf" if line == b"\r\n" else "any", max_length=2, overlong=overlong)
    decoder = _pure.Decoder(described)
    frames: list[bytes] = []
    unit = b"abc" + line + b"de" + line
    assert splits(lambda: frames.extend(decoder.decode(unit * 500))) <= 1
    assert frames == [b"ab", b"de"] * 500 if overlong == "truncate" else [b"de"] * 500
    assert splits(lambda: frames.extend(decoder.decode(b"fg" + line))) == 1, "and the next bytes are split again"


def test_an_overlong_frame_longer_than_a_window_is_passed_over_in_one_call() -> None:
    decoder = _pure.Decoder(Delimiter(b"\0", max_length=4, overlong="skip"))
    decoder.feed(bytes(b"x" * 300_000) + b"\0ab\0")
    assert decoder.next_frame() == b"ab"
    assert decoder.next_frame() is None
    assert (decoder.skipped, decoder.buffered) == (1, 0)
