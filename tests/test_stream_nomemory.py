"""G6, law 4: whichever step of a StreamBuffer's call fails, the same call made again gives what it would have given."""

from typing import Any

import pytest
from test_codec_nomemory import sweep

pytestmark = pytest.mark.usefixtures("alone", "no_collector")

SIZES = [0, 10, 40_000, 100_000]


def store(wing: Any, held: int, expected: int = 0, target: "bytearray | None" = None, fed: bool = True) -> Any:
    """Return a StreamBuffer that holds some bytes, of which three are taken already."""
    made = wing.StreamBuffer(1 << 20)
    made.expect(expected)
    if held and fed:
        made.feed(b"xx\n" + b"x" * held)
    elif held:
        lent = made.get_buffer()
        lent[:held + 3] = b"xx\n" + b"x" * held
        made.buffer_updated(held + 3)
    if held:
        assert made.take(3) == b"xx\n"
    if target is not None:
        made.receive_into(memoryview(target))
    return made


def rest(made: Any) -> Any:
    """Return all that a StreamBuffer holds."""
    return made.missing, made.held, made.take_some(1 << 30)


@pytest.mark.parametrize("fed", [True, False], ids=["fed", "received"])
@pytest.mark.parametrize("expected", [0, 70_000, 150_000])
@pytest.mark.parametrize("held", [0, 10, 40_000])
def test_bytes_come(wing: Any, held: int, expected: int, fed: bool) -> None:
    def receive(made: Any) -> None:
        made.get_buffer()[:3] = b"new"
        made.buffer_updated(3)

    failed = sweep(wing, lambda: store(wing, held, expected, None, fed), receive, rest)
    for size in SIZES:
        for data in (b"y" * size, bytearray(b"y" * size)):
            failed += sweep(wing, lambda: store(wing, held, expected, None, fed),
                            lambda made, data=data: made.feed(data), rest)
    assert failed


@pytest.mark.parametrize("fed", [True, False], ids=["fed", "received"])
@pytest.mark.parametrize("held", [10, 40_000, 65_000])
def test_bytes_are_taken(wing: Any, held: int, fed: bool) -> None:
    calls = [lambda made: made.take(5), lambda made: made.take_some(held), lambda made: made.take_some(held - 3),
             lambda made: made.take_through(b"x"), lambda made: made.find((b"y",)),
             lambda made: made.find((b"y", b"zz")), lambda made: made.find((b"x", b"xx"))]
    assert sum(sweep(wing, lambda: store(wing, held, 70_000, None, fed), call, rest) for call in calls)


@pytest.mark.parametrize("size", [5, 100_000])
def test_targets(wing: Any, size: int) -> None:
    def make(held: int, target: bool) -> Any:
        return store(wing, held, 0, bytearray(size) if target else None)

    failed = 0
    for held in (0, 3, 200):
        view = memoryview(bytearray(size))
        failed += sweep(wing, lambda held=held: make(held, False), lambda made, view=view: made.receive_into(view),
                        lambda made: (made.give_back(), rest(made)))
        failed += sweep(wing, lambda held=held: make(held, True), lambda made: made.give_back(), rest)
        failed += sweep(wing, lambda held=held: make(held, True), lambda made: made.feed(b"z" * 99),
                        lambda made: (made.missing, made.give_back(), rest(made)))
    assert failed


@pytest.mark.parametrize("taken", [100_000, 40_000])
def test_what_was_expected_is_taken_otherwise(wing: Any, taken: int) -> None:
    def make() -> Any:
        made = store(wing, 0, 100_000)
        for _ in range(4):
            made.feed(b"x" * 30_000)
        return made

    assert sweep(wing, make, lambda made: made.take(taken), rest) or taken == 100_000
