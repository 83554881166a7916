"""A process at the other end: started by a contender, on another core where there is one, and ended with it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial


def cores() -> list[int]:
    """Return the cores that this process may use; none where it can't be told."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(which: slice) -> None:
    """Keep this process to some of its cores: all are meant where there is but one."""
    chosen = cores()[which]
    if chosen:
        os.sched_setaffinity(0, chosen)


@cache
def other_end(code: str, *arguments: object) -> tuple[subprocess.Popen[bytes], str]:
    """Start this Python on `code`, which may use `sys.argv[1:]`; return it and the first line that it prints."""
    program = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE)
    atexit.register(process.wait)
    atexit.register(process.kill)
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    if not line:
        raise ImportError(f"the other end has failed: exit code {process.wait()}")
    return process, line


def clock_of(process: subprocess.Popen[bytes]) -> Callable[[], float] | None:
    """Return a clock of the processor time of another process, as clock_getcpuclockid(3) names it; None if unknown."""
    return partial(time.clock_gettime, ~process.pid << 3 | 2) if sys.platform == "linux" else None
