"""Calls that threads make at once, switched as often as can be."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import FREE
from scripted import LIMIT, Task

ROUNDS = 4 if FREE else 1
THREADS = 4


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def all_at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make these calls at the same time, each in a thread; return what they return."""
    start = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        start.wait(LIMIT)
        return call()

    tasks = [Task(begin, call) for call in calls]
    return [task.result() for task in tasks]


def until_taken(call: Callable[..., Any], *args: Any) -> Any:
    """Make a call again for as long as it is refused because another one is at work (law 12)."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            return call(*args)
        except RuntimeError as error:  # noqa: PERF203
            assert str(error).endswith("is already at work in this call")
            assert time.monotonic() < end


def watching(done: threading.Event, look: Callable[[], Any]) -> Callable[[], int]:
    """Return what looks again and again until it is done, and then says how often."""
    def watch() -> int:
        count = 0
        while not done.is_set() or not count:
            look()
            count += 1
            time.sleep(0)
        return count

    return watch


def ending(done: threading.Event, *calls: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return these calls, of which the last one to end says that it is done."""
    left = list(calls)

    def finishing(call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            left.pop()
            if not left:
                done.set()

    return [lambda call=call: finishing(call) for call in calls]
