"""Runs every contender in fresh processes, in turn, round after round.

A kind of work is a module with `WORKS` and `CONTENDERS` (see decode.py); a contender's first, untimed
run is checked: its payloads' number and SHA-256 must be those of the work. A run that has a `clock` is
measured by that.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from . import decode, echo

KINDS: dict[str, Any] = {"decode": decode, "echo": echo}

#: A process goes on decoding until so many seconds have passed, and at least once.
LEAST_SECONDS = 0.2

#: Seconds after which a process is given up.
PATIENCE = 120.0


def digest(payloads: Iterable[bytes]) -> str:
    """Return the SHA-256 of payloads and of the places where each ends."""
    result = hashlib.sha256()
    for payload in payloads:
        result.update(struct.pack(">Q", len(payload)) + payload)
    return result.hexdigest()


def measure(kind: str, work_name: str, contender: str) -> None:
    """Measure in this process; print nanoseconds a frame and what was decoded, as JSON."""
    work = KINDS[kind].WORKS[work_name]
    try:
        run = KINDS[kind].CONTENDERS[contender](work)
    except ImportError as error:
        print(json.dumps({"unavailable": str(error)}))
        return
    payloads = [payload for part in run() for payload in part]
    count, arrived = len(payloads), digest(payloads)
    del payloads
    runs = 0
    clock = getattr(run, "clock", time.perf_counter)
    start = clock()
    while (spent := clock() - start) < LEAST_SECONDS:
        for _ in run():
            pass
        runs += 1
    print(json.dumps({"frames": count, "sha256": arrived, "ns": spent / runs / work.count * 1e9}))


def _fresh(kind: str, work: str, contender: str) -> dict[str, Any]:
    """Measure in a new process."""
    code = (f"import sys; sys.path[:] = {sys.path!r}; from bench import runner; "
            f"runner.measure({kind!r}, {work!r}, {contender!r})")
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=PATIENCE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(kind: str, works: Iterable[str], contenders: Iterable[str], rounds: int,
        begin: Callable[[str], None], end: Callable[[], None]) -> list[dict[str, Any]]:
    """Return a row for each work and contender, its figures in the order of the rounds.

    Round by round, each work goes to one contender after the other, and each round begins with another
    contender. `begin` is told what is done, `end` that it is. A row is `wrong` where anything but the work's own
    payloads came out.
    """
    names = list(contenders)
    rows: dict[tuple[str, str], dict[str, Any]] = {
        (work, name): {"work": work, "contender": name, "ns": [], "wrong": False, "unavailable": None}
        for work in works for name in names}
    expected = {work: (KINDS[kind].WORKS[work].count, digest(KINDS[kind].WORKS[work].payloads())) for work, _ in rows}
    for number in range(rounds):
        shift = number % len(names)
        for work in expected:
            for name in names[shift:] + names[:shift]:
                begin(f"round {number + 1}: {work}, {name}")
                row = rows[work, name]
                result = _fresh(kind, work, name)
                end()
                if "unavailable" in result:
                    row["unavailable"] = result["unavailable"]
                    continue
                row["ns"].append(result["ns"])
                row["wrong"] |= (result["frames"], result["sha256"]) != expected[work]
    return list(rows.values())
