"""Reads what ThreadSanitizer reported: `python races.py LOG...`; a race of the core's own on both sides is a failure.

The interpreter was built without it, so each lock and each atomic operation of its own looks like a race. What counts
is where both accesses are the core's, be it by way of memcpy() and the like.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

FRAME = re.compile(r"^    #\d+ (\S+) (\S+)")
#: Where an access is made, as the C library's functions are only the way to it.
OURS = re.compile(r"src/sockframe/_core/|csrc/")

#: Races that are meant, by the function on one side: numbers that another thread may change at any step, each read
#: whole; a flag that is set once, and looked at again inside the section that matters. And what is no race, but handed
#: from thread to thread by the interpreter alone: an object that nobody has any more, by its counts of references; what
#: a framing is compiled to, by the attribute in which others find it, made and never changed; and what the collector of
#: garbage looks at, for which all other threads are stopped.
MEANT = re.compile(r"(Connection|Endpoint)_(\d+)?(pending|check_open|closed___get__)$|_dealloc_|_compile_framing$|"
                   r"_tp_traverse_")


def accesses(report: str) -> list[tuple[str, str]]:
    """Return the function and the place of each access, behind the functions of the C library."""
    found = []
    for stack in re.split(r"^  (?=\S)", report, flags=re.MULTILINE)[1:3]:
        frames = [(match[1], match[2]) for line in stack.splitlines() if (match := FRAME.match(line))]
        found.append(next((frame for frame in frames if "libsanitizer" not in frame[1]), ("?", "?")))
    return found


def main(paths: list[str]) -> int:
    """Count the reports, and show those that are ours."""
    ours: Counter[str] = Counter()
    total = meant = 0
    shown: dict[str, str] = {}
    for path in paths:
        for report in Path(path).read_text(errors="replace").split("=" * 18 + "\n"):
            if not report.startswith("WARNING: ThreadSanitizer: "):
                continue
            total += 1
            made = accesses(report)
            if "data race" not in report.partition("\n")[0]:
                kind = report.partition("\n")[0]  # a lock taken twice, or not given back
            elif len(made) == 2 and all(OURS.search(place) for _, place in made):
                if any(MEANT.search(name) for name, _ in made):
                    meant += 1
                    continue
                kind = " and ".join(sorted(name for name, _ in made))
            else:
                continue
            ours[kind] += 1
            shown.setdefault(kind, report)
    for kind, report in shown.items():
        print(f"{ours[kind]} x {kind}\n{report}")
    print(f"ThreadSanitizer: {total} reports, of which {meant} are meant and {ours.total()} are faults of the core's")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
