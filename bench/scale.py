"""Whether the cost stays flat: from 1 to 1,000 times the frames, from 16 B to 64 MiB, from 1 to 10,000 connections.

The first two are decoded from memory (decode.py), the last are an echo server's connections, one frame in flight on
each (echo.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import decode, echo
from .streams import KIB, MIB, Run, Work

#: The axes of the chart: for each, its works by what they are drawn at, and what their cost is divided by.
FRAMES = {count: Work(f"{count:,} frames, 64 B", False, 64, count) for count in (100, 1000, 10_000, 100_000)}
SIZES = {size: Work(f"{size:,} B a frame", False, size, max(1, min(100_000, 16 * MIB // size)))
         for size in (16, 256, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB)}
CONNECTIONS = {count: echo.Work(f"{count:,} connections", count, 1, 64, max(1, 2000 // count))
               for count in (1, 10, 100, 1000, 10_000)}
AXES: dict[str, dict[int, Any]] = {"frames": FRAMES, "bytes a frame": SIZES, "connections": CONNECTIONS}

WORKS: dict[str, Any] = {work.name: work for axis in AXES.values() for work in axis.values()}
QUICK = ()

#: The contenders, as decode.py and echo.py call them.
_NAMES = {"core": ("core", "core, FrameSelector"), "pure": ("pure", "pure, FrameSelector"),
          "C": ("C, copied out", "C on epoll"), "StreamReader": ("StreamReader", "StreamReader")}


def contender(name: str, work: Any) -> Run:
    """Return what does the work in its own kind."""
    decoding, echoing = _NAMES[name]
    return (decode.CONTENDERS[decoding] if isinstance(work, Work) else echo.CONTENDERS[echoing])(work)


CONTENDERS = {name: partial(contender, name) for name in _NAMES}


def growth(axis: str, rows: list[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
    """Return, for each contender, the costs at each place of an axis: a frame's, or where frames grow a byte's."""
    found: dict[str, dict[int, list[float]]] = {}
    for place, work in AXES[axis].items():
        for row in rows:
            if row["work"] == work.name and row["ns"]:
                unit = work.size if axis == "bytes a frame" else 1
                found.setdefault(row["contender"], {})[place] = [ns / unit for ns in row["ns"]]
    return found
