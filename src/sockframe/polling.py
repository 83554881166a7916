"""Waiting for several descriptors: poll(2), or select(2) with its methods where there is none, as on Windows."""

from __future__ import annotations

import select
from time import sleep
from typing import Any

POLLIN: int = getattr(select, "POLLIN", 1)
POLLOUT: int = getattr(select, "POLLOUT", 4)

LOOK = 0.1  # seconds to wait at a time, where what another thread does ends no wait


class Select:
    """What `select.poll()` returns, by select(2): for fewer descriptors, 512 on Windows.

    A descriptor that is none comes as ready, so that whoever uses it is told. Without any it returns early.
    """

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, file: Any, events: int) -> None:
        """Wait for these events of a file, or of a descriptor, in place of those before."""
        self._events[file if isinstance(file, int) else file.fileno()] = events

    modify = register

    def unregister(self, file: Any) -> None:
        """Wait for a file or a descriptor no more; raises `KeyError` where it is not known."""
        del self._events[file if isinstance(file, int) else file.fileno()]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Return what is ready, as (descriptor, events), within so many milliseconds; None is for ever."""
        seconds = None if timeout is None else max(0.0, timeout / 1000)
        while True:
            events = self._events.copy()
            if not events:  # which select(2) refuses on Windows
                sleep(LOOK if seconds is None else min(seconds, LOOK))
                return []
            readers = [number for number, wanted in events.items() if wanted & POLLIN]
            writers = [number for number, wanted in events.items() if wanted & POLLOUT]
            try:
                readable, writable, _ = select.select(readers, writers, (), seconds)
                break
            except OSError:
                bad = [(number, wanted) for number, wanted in events.items() if _is_bad(number)]
                if bad:
                    return bad
                if events == self._events:
                    raise
                # It was one that another thread has just closed.
        ready = dict.fromkeys(readable, POLLIN)
        for number in writable:
            ready[number] = ready.get(number, 0) | POLLOUT
        return list(ready.items())


def _is_bad(number: int) -> bool:
    """Say whether a descriptor is none that can be waited for."""
    try:
        select.select((number,), (), (), 0)
    except OSError:
        return True
    return False


def poll() -> Any:
    """Return an object to wait with; gevent may have patched poll(2) since this was imported."""
    return getattr(select, "poll", Select)()
