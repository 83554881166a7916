"""What the figures should reach, as ratios to a floor that was measured in the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """What a contender should reach at a work, by `how` it is compared with the contender `base`:

    times  at most `limit` times the time of `base`
    share  at least `limit` times the speed of `base`
    above  at most `limit` nanoseconds more than `base`
    most   at most `limit`, by itself
    """

    kind: str
    work: str
    contender: str
    how: str
    limit: float
    base: str = ""

    def measured(self, own: list[float], base: list[float]) -> list[float]:
        """Return what each round has reached."""
        if self.how == "times":
            return [one / other for one, other in zip(own, base, strict=True)]
        if self.how == "share":
            return [other / one for one, other in zip(own, base, strict=True)]
        if self.how == "above":
            return [one - other for one, other in zip(own, base, strict=True)]
        return own

    def reached(self, measured: list[float]) -> bool:
        """Say whether the median is good enough."""
        median = statistics.median(measured)
        return median >= self.limit if self.how == "share" else median <= self.limit

    def asked(self) -> str:
        """Say what is asked, in words."""
        return {"times": f"at most {self.limit:g} x {self.base}", "share": f"at least {self.limit:g} of {self.base}",
                "above": f"at most {self.limit:g} ns above {self.base}", "most": f"at most {self.limit:g}"}[self.how]


def _each(kind: str, contender: str, how: str, base: str, limits: dict[str, float]) -> list[Target]:
    return [Target(kind, work, contender, how, limit, base) for work, limit in limits.items()]


_SIZES = ("16 B", "64 B", "1 KiB", "16 KiB", "1 MiB")

TARGETS = [
    *_each("decode", "core", "times", "C, copied out", {
        "length 16 B": 1.5, "length 64 B": 1.4, "length 1 KiB": 1.3, "length 1 MiB": 1.2,
        "CRLF 16 B": 1.7, "CRLF 64 B": 1.7, "CRLF 1 KiB": 1.3}),
    *_each("decode", "core, batches", "times", "C in place", {
        **{f"{name} {size}": 1.5 for name in ("length", "CRLF") for size in _SIZES}, "length 16 MiB": 1.5}),
    *_each("receive", "core", "times", "C, copied out", {"length 64 B": 1.3, "length 1 KiB": 1.3}),
    *_each("receive", "core, recv", "share", "bare recv_into", {"length 1 MiB": 0.9, "length 16 MiB": 0.9}),
    *_each("receive", "core, iteration", "above", "core", {"length 64 B": 70}),
    *_each("receive", "core, aio iteration", "times", "StreamReader", {"length 64 B": 0.1}),
    *_each("receive", "core, aio", "most", "", {"length 64 B": 120}),
    *_each("receive", "core, StreamReader drop-in", "share", "StreamReader", {
        "length 64 B": 2, "CRLF 64 B": 2, "length 1 MiB": 1.2}),
    *_each("receive", "core, uvloop, StreamReader drop-in", "share", "uvloop, StreamReader", {
        "length 64 B": 2, "CRLF 64 B": 2}),
    *_each("send", "core", "times", "C", {"length 64 B": 1.5}),
    *_each("roundtrip", "core", "times", "bare recv/sendall", {"length 64 B": 1.15}),
    *_each("decode", "core, Twisted drop-in", "share", "Twisted", {"length 64 B": 5, "CRLF 64 B": 5}),
    *_each("roundtrip", "core, multiprocessing drop-in", "share", "multiprocessing", {"length 64 B": 1.5}),
    *_each("echo", "core, FrameSelector", "share", "C on epoll", {"100 x 16, 64 B": 0.6, "1,000 x 4, 64 B": 0.6}),
    *_each("echo", "core, aio", "times", "StreamReader", {"100 x 16, 64 B": 1 / 3}),
    *_each("echo", "core, aio on uvloop", "times", "uvloop, StreamReader", {"100 x 16, 64 B": 1 / 1.5}),
    *_each("memory", "core", "most", "", {"idle after 64 B": 512, "idle after 256 KiB": 512}),
]


@dataclass(frozen=True)
class Result:
    """What was measured for a target on one Python, and on the wall's clock where that is another."""

    target: Target
    python: str
    measured: list[float]
    wall: list[float]


def results(kinds: dict[str, list[dict[str, Any]]]) -> Iterator[Result]:
    """Yield the result of each target whose contender and base were measured, on each Python."""
    for target in TARGETS:
        found = {(row["contender"], row["python"]): row for row in kinds.get(target.kind, [])
                 if row["work"] == target.work and row["ns"]}
        for (name, python), own in found.items():
            base = found.get((target.base or name, python))
            if name != target.contender or base is None:
                continue
            wall = target.measured(own["wall"], base["wall"]) if None not in own["wall"] else []
            yield Result(target, python, target.measured(own["ns"], base["ns"]), wall)
