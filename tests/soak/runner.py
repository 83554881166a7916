"""One soak: a server of one mode, its clients, and what became of both."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving import Running, serving

from . import clients
from .clients import FRAMING, Counts

#: The most that a server's memory may grow, from the second quarter of a soak to the last: a share, and bytes.
GROWTH = 0.2
SLACK = 16 << 20


@dataclass
class Result:
    """What a soak found; `wrong` says what must not be."""

    counts: dict[str, int]
    killed: int                   # client processes
    memory: list[int]             # bytes resident, second by second
    descriptors: tuple[int, int]  # before the first client, and behind the last
    wrong: list[str] = field(default_factory=list)

    def check(self, flat: bool) -> Result:
        """Fill in what is wrong; memory only where it was measured for long enough to be `flat`."""
        for name in ("bytes missing", "bytes wrong", "failures"):
            if self.counts[name]:
                self.wrong.append(f"{self.counts[name]:,} {name}")
        if not self.counts["completed"]:
            self.wrong.append("no client completed")
        if self.descriptors[0] != self.descriptors[1]:
            self.wrong.append(f"{self.descriptors[0]} descriptors at first, {self.descriptors[1]} at last")
        early, late = self.quarters()
        if flat and late > early * (1 + GROWTH) + SLACK:
            self.wrong.append(f"memory grew from {early:,} to {late:,} bytes")
        return self

    def quarters(self) -> tuple[int, int]:
        """Return the memory of the second and of the last quarter: their medians, in bytes."""
        size = max(1, len(self.memory) // 4)
        return int(statistics.median(self.memory[size:2 * size] or self.memory)), \
            int(statistics.median(self.memory[-size:]))


def soak(wing: Any, mode: str, seconds: float, count: int, processes: int, seed: int,
         tell: Callable[[dict[str, int]], None] = lambda counts: None) -> Result:
    """Run `count` clients in a few processes against a server of the mode; now and then one of those is killed."""
    counts = Counts(processes)
    choice = random.Random(seed)
    memory: list[int] = []
    killed = 0
    shares = [count // processes + (number < count % processes) for number in range(processes)]
    limits = dict.fromkeys(("idle_timeout", "frame_timeout", "send_timeout"), clients.PATIENCE)
    with serving(wing, clients.answer, framing=FRAMING, mode=mode, max_connections=2 * count, backlog=2 * count,
                 lifetime=int(seconds + 3 * clients.PATIENCE), **limits) as server:
        with server.connect() as conn:
            conn.send(b"")
            conn.recv()
        before = settled(server)
        until = time.monotonic() + seconds
        running = {clients.start(server.address, row, share, choice.randrange(1 << 30), counts, until): row
                   for row, share in enumerate(shares)}
        try:
            next_kill = time.monotonic() + seconds / 4
            while time.monotonic() < until:
                time.sleep(min(1.0, seconds / 20))
                memory.append(resident(server))
                tell(counts.total())
                if time.monotonic() > next_kill:
                    next_kill = time.monotonic() + max(seconds / 20, 2.0)
                    pid, row = choice.choice(list(running.items()))
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    killed += 1
                    del running[pid]
                    running[clients.start(server.address, row, shares[row], choice.randrange(1 << 30), counts,
                                          until)] = row
            for pid in list(running):
                if os.waitpid(pid, 0)[1]:
                    counts.add(failures=1)
                del running[pid]
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        after = settled(server)
        log = server.log.read_text()
    result = Result(counts.total(), killed, memory, (before, after)).check(seconds >= 60)
    if "Traceback" in log or "ERROR" in log:
        result.wrong.append(f"the log of the server:\n{log[-5000:]}")
    return result


def settled(server: Running) -> int:
    """Return the number of a server's descriptors, once it has no children and the number does not change."""
    same, last = 0, -1
    while same < 20:
        number = descriptors(server)
        same = same + 1 if number == last and not children(server) else 0
        last = number
        time.sleep(0.05)
    return last


def descriptors(server: Running) -> int:
    """Return the number of descriptors of a server."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def children(server: Running) -> str:
    """Return the numbers of a server's children."""
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()


def resident(server: Running) -> int:
    """Return the resident memory of a server in bytes."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
