"""Runs every contender in fresh processes, in turn, round after round.

A kind of work is a module with `WORKS`, those of a quick run in `QUICK`, and `CONTENDERS`, each of which makes a
`Run` of a work (streams.py). A contender's first run is not timed but checked: its payloads' number and SHA-256 must
be those of the work. The name of a contender of sockframe's begins with the wing that it is to run on.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .streams import Run, UnfitError

KINDS = ("decode", "receive", "send", "roundtrip", "echo", "memory", "scale")

#: A process goes on until so many seconds have passed, and does the work at least once.
LEAST_SECONDS = 0.2

#: Seconds after which a process is given up.
PATIENCE = 120.0

ROOT = Path(__file__).parent.parent

#: SOCKFRAME_CORE for the wings.
WINGS = {"core": "1", "pure": "0"}

#: What a contender may need and `sockframe[bench]` brings.
PEERS = ("matplotlib", "msgpack", "twisted", "uvloop")


def kind_of(name: str) -> Any:
    """Return the module of a kind of work."""
    return importlib.import_module(f"{__package__}.{name}")


def digest(payloads: Iterable[bytes]) -> str:
    """Return the SHA-256 of payloads and of the places where each ends."""
    result = hashlib.sha256()
    for payload in payloads:
        result.update(struct.pack(">Q", len(payload)))
        result.update(payload)
    return result.hexdigest()


def measure(kind: str, work_name: str, contender: str, least: float) -> None:
    """Measure in this process; print what a frame takes and what was decoded, as JSON."""
    module = kind_of(kind)
    work = module.WORKS[work_name]
    try:
        run = module.CONTENDERS[contender](work)
    except ImportError as error:
        print(json.dumps({"unavailable": reason(error)}))
        return
    except UnfitError as error:
        print(json.dumps({"unavailable": str(error), "unfit": True}))
        return
    start = time.perf_counter()
    payloads = [payload for part in run.check() for payload in part]
    spent = time.perf_counter() - start
    found: dict[str, Any] = {"frames": len(payloads), "sha256": digest(payloads)}
    del payloads
    found.update(timed(run, work.count, spent, least) if run.figure is None else {"ns": run.figure()})
    print(json.dumps(found))


def timed(run: Run, count: int, expected: float, least: float) -> dict[str, float]:
    """Return the nanoseconds a frame of a work of `count` by the run's clock ("ns"), and on the wall.

    `expected` are the seconds that the work may take.
    """
    times = max(1, min(1000, int(least / expected))) if expected else 1
    clock = run.clock or time.process_time
    done = 0
    start, began = clock(), time.perf_counter()
    while not done or time.perf_counter() - began < least or clock() - start < least / 2:
        run.timed(times)
        done += times
    spent, wall = clock() - start, time.perf_counter() - began
    return {"ns": spent / done / count * 1e9, "wall": wall / done / count * 1e9}


def reason(error: ImportError) -> str:
    """Say why a contender is not available, and what to install."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return f"it {needs(missing)}" if missing in PEERS else str(error)


def needs(missing: str) -> str:
    """Say that a module is needed, and what to install."""
    return f"needs {missing}: pip install 'sockframe[bench]'"


def start(python: str, code: str, contender: str, **pipes: Any) -> subprocess.Popen[bytes]:
    """Start a Python on `code`, on the wing that the contender's name begins with."""
    wing = contender.partition(",")[0]
    environment = {**os.environ, "SOCKFRAME_CORE": WINGS.get(wing, "")}
    path = f"sys.path[:] = {sys.path!r}" if python == sys.executable else f"sys.path.insert(0, {str(ROOT)!r})"
    return subprocess.Popen([python, "-c", f"import sys; {path}; {code}"], env=environment, **pipes)


def fresh(python: str, kind: str, work: str, contender: str, least: float) -> dict[str, Any]:
    """Measure in a new process."""
    code = f"from bench import runner; runner.measure({kind!r}, {work!r}, {contender!r}, {least!r})"
    with start(python, code, contender, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, f"{kind}: {work}, {contender}")
    result: dict[str, Any] = json.loads(output)
    return result


def run(kind: str, works: Iterable[str], contenders: Iterable[tuple[str, str]], rounds: int,
        begin: Callable[[str], None], end: Callable[[], None], least: float = LEAST_SECONDS) -> list[dict[str, Any]]:
    """Return a row for each work and contender, its figures in the order of the rounds.

    A contender is its name and the Python that runs it. Round by round, each work goes to one contender after the
    other, and each round begins with another contender. `begin` is told what is done, `end` that it is. A row is
    `wrong` where anything but the work's own payloads came out.
    """
    pairs = list(contenders)
    rows: dict[tuple[str, str, str], dict[str, Any]] = {
        (work, name, python): {"work": work, "contender": name, "python": python, "ns": [], "wall": [],
                               "wrong": False, "unavailable": None, "unfit": False}
        for work in works for name, python in pairs}
    module = kind_of(kind)
    expected = {work: (module.WORKS[work].count, digest(module.WORKS[work].payloads())) for work, _, _ in rows}
    for number in range(rounds):
        shift = number % len(pairs)
        for work in expected:
            for name, python in pairs[shift:] + pairs[:shift]:
                begin(f"round {number + 1}: {kind}, {work}, {name}")
                row = rows[work, name, python]
                if not row["unavailable"]:
                    result = fresh(python, kind, work, name, least)
                    if "unavailable" in result:
                        row["unavailable"] = result["unavailable"]
                        row["unfit"] = result.get("unfit", False)
                    else:
                        row["ns"].append(result["ns"])
                        row["wall"].append(result.get("wall"))
                        row["wrong"] |= (result["frames"], result["sha256"]) != expected[work]
                end()
    return list(rows.values())
