"""What only the pure wing can get wrong: its ways of taking many frames at once, and where it has no memory.

(Where the core has none: tests/test_nomemory.py.)
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import load_wing
from scripted import LIMIT, noise

from sockframe import IncompleteFrameError, LengthPrefix, _pure
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
    decoder.feed(bytes(b"x" * 300_000) + b"\0ab\0cd\0")
    assert [decoder.next_frame() for _ in range(3)] == [b"ab", b"cd", None]
    assert (decoder.skipped, decoder.buffered) == (1, 0)


# ---- no memory ----

@contextmanager
def no_memory_for(name: str) -> Iterator[None]:
    """Let the first call of that name in the pure wing fail, and the block with it."""
    def profile(frame: Any, event: str, argument: Any) -> None:
        called = argument.__name__ if event == "c_call" else frame.f_code.co_name if event == "call" else ""
        if called == name and frame.f_globals["__name__"].startswith("sockframe._pure."):
            raise MemoryError
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        with pytest.raises(MemoryError):
            yield
    finally:
        sys.setprofile(before)


def test_what_was_received_and_not_yet_held_is_pending() -> None:
    left, right = load_wing("pure").pair(LengthPrefix())
    with left, right:
        left.send(b"payload")
        with no_memory_for("_append"):
            right.recv(timeout=LIMIT)
        assert right.pending() == 11
        assert right.recv(timeout=0) == b"payload"
        assert right.pending() == 0


@pytest.mark.parametrize(("name", "send"), [
    ("join", lambda conn: conn.send(noise(300_000))),
    ("join_frame", lambda conn: conn.send_many([noise(300_000), b"the rest"]))])
def test_a_connection_that_can_not_keep_its_tail_is_closed(name: str, send: Any) -> None:
    """Nothing may follow a frame without its end, or a list without its rest."""
    left, right = load_wing("pure").pair(LengthPrefix(), SO_SNDBUF=1)
    with left, right:
        left.setblocking(False)
        with no_memory_for(name):
            send(left)
        assert left.closed
        with pytest.raises(IncompleteFrameError):
            right.recv(timeout=LIMIT)


def test_a_capsule_that_can_not_be_made_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from sockframe._pure import arrow

    def fail(*_: Any) -> None:
        raise MemoryError
    monkeypatch.setattr(arrow, "_set_destructor", fail)
    before = arrow._arrays.copy(), arrow._capsules.copy()
    for make in (arrow.schema_capsule, lambda: arrow.array_capsule([b"a"], b"a")):
        with pytest.raises(MemoryError):
            make()
        assert (arrow._arrays, arrow._capsules) == before


# ---- forks ----

def test_of_two_threads_behind_a_fork_one_looks_after_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that waited for the other finds it done, and the other's call at work."""
    module = sys.modules["sockframe._pure.endpoint"]
    left, right = load_wing("pure").pair(LengthPrefix())

    class Waiting:
        """The lock, which another thread has until it is in its call."""

        def __enter__(self) -> None:
            monkeypatch.setattr(module, "_sharing", threading.RLock())
            assert not left.closed
            left._receiving = True

        def __exit__(self, *_: object) -> None:
            pass

    with left, right:
        monkeypatch.setattr(module, "_forks", module._forks + 1)  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "_sharing", Waiting())
        assert not left.closed
        assert left._receiving
        left._receiving = False
        left.send(b"a")
        assert right.recv(timeout=LIMIT) == b"a"
