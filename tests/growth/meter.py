"""What a process holds, and whether it holds more and more: each work is done in a fresh process, in ten parts."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

PARTS = 10

#: What may be held more at the end of a work than behind its first tenth, for whatever the work was: objects that the
#: interpreter keeps for another time, a page here and there. One thing left behind by each of the units is far more.
BLOCKS, BYTES, RESIDENT = 200, 64 << 10, 4 << 20

#: A work: a context in which `do(count)` does so many units.
Work = Callable[[], AbstractContextManager[Callable[[int], Any]]]


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"))


class Sample(NamedTuple):
    """What a process holds."""

    blocks: int       # of the interpreter's own allocator
    allocated: int    # bytes of malloc(); 0 where the C library does not tell
    resident: int     # bytes of memory
    descriptors: int


def resident(process: int | str = "self") -> int:
    """Return the resident memory that a process has for itself, in bytes: exactly, which /proc/PID/status is not, and
    with the pages that it no longer shares with the process that it was forked from."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)  # once: each CDLL makes a class
if _mallinfo is not None:
    _mallinfo.restype = _Mallinfo


def allocated() -> int:
    """Return how many bytes of malloc() are in use."""
    if _mallinfo is None:
        return 0
    found = _mallinfo()
    return int(found.uordblks) + int(found.hblkhd)


def descriptors() -> int:
    """Say how many descriptors this process has; what a server still closes, it may close meanwhile."""
    counts = []
    for _ in range(3):
        time.sleep(0.005)
        counts.append(len(os.listdir("/proc/self/fd")))
    return min(counts)


def sample() -> Sample:
    """Say what this process holds, with nothing left for the collector."""
    for _ in range(2):
        gc.collect()
    return Sample(sys.getallocatedblocks(), allocated(), resident(), descriptors())


def measure(work: Work, count: int) -> list[Sample]:
    """Do a work of so many units; return what is held after each tenth."""
    part = max(1, count // PARTS)
    samples: list[Sample] = []
    gc.collect()
    gc.freeze()  # what has been imported need not be looked through each time
    with work() as do:
        do(part)
        sample()  # which itself needs something the first time
        samples.append(sample())
        for _ in range(PARTS - 1):
            do(part)
            samples.append(sample())
    return samples


def wrong(samples: list[Sample]) -> list[str]:
    """Say what has grown; of descriptors one or two may not yet be closed when they are counted."""
    first, last = samples[0], samples[-1]
    grown = {name: now - before for name, before, now in zip(Sample._fields, first, last, strict=True)}
    grown["descriptors"] = min(each.descriptors for each in samples[-3:]) - max(
        each.descriptors for each in samples[:3])
    most = dict(zip(Sample._fields, (BLOCKS, BYTES, RESIDENT, 0), strict=True))
    return [f"{grown[name]:,} more {name}" for name in Sample._fields if grown[name] > most[name]]


def all_descriptors() -> int:
    """Let this process have as many descriptors as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 21_000 if hard == resource.RLIM_INFINITY else min(21_000, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    return max(soft, most)
