"""The command, from the project's root: `python -m tests.growth`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import sockframe  # noqa: E402
from growth import connections, faults, frames, meter, peers  # noqa: E402
from growth.runner import fresh  # noqa: E402

#: Works by what they count, and how many of that there are.
WORKS: dict[str, tuple[dict[str, Any], int]] = {
    "frames": (frames.WORKS, 1_000_000), "connections": (connections.WORKS, 10_000), "errors": (faults.WORKS, 100_000)}
PEERS = 1000


def inner(kind: str, name: str, number: str) -> Any:
    """Do one work in this process."""
    meter.all_descriptors()
    if kind == "peers":
        receiver, _, sent = name.rpartition(", ")
        return peers.measure(receiver, peers.SENT[sent], int(number))
    return meter.measure(WORKS[kind][0][name], int(number))


def measure(wing: str, kind: str, name: str, count: int) -> list[str]:
    """Do one work, tell what came of it, and return what is wrong."""
    begun = time.monotonic()
    samples = [meter.Sample(*each) for each in fresh(wing, kind, name, str(count))]
    first, last = samples[0], samples[-1]
    wrong = meter.wrong(samples)
    print(f"{wing:5} {name:24} {count:>10,} {kind:12} {last.blocks - first.blocks:>+7,} blocks "
          f"{last.allocated - first.allocated:>+9,} B allocated {last.resident - first.resident >> 10:>+7,} KiB "
          f"resident {last.descriptors - first.descriptors:>+3} descriptors {time.monotonic() - begun:>6.1f} s"
          f"{'  WRONG' if wrong else ''}", flush=True)
    return [f"{wing}, {name}, {count:,} {kind}: {', '.join(wrong)}" for _ in wrong[:1]]


def measure_peers(wing: str, name: str, sent: str, count: int) -> list[str]:
    """Have peers lie, tell what came of it, and return what is wrong."""
    found = fresh(wing, "peers", f"{name}, {sent}", str(count))
    wrong = [what for what in ("resident", "space") if found[what] > found["law"]]
    print(f"{wing:5} {name:20} {count:>6,} peers, {sent:12} {found['resident'] >> 10:>8,} KiB more resident "
          f"{found['space'] >> 10:>8,} KiB more space, the law allows {found['law'] >> 10:,} KiB"
          f"{'  WRONG' if wrong else ''}", flush=True)
    return [f"{wing}, {name}, {count} peers, {sent}: more {' and '.join(wrong)} than the law allows" for _ in wrong[:1]]


def main() -> int:
    """Do works over and over, each in a fresh process, and see whether memory or descriptors grow; and have a thousand
    peers each announce a gibibyte and send a little of it. 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=main.__doc__)
    parser.add_argument("--kind", choices=[*WORKS, "peers"], action="append", help="only this; may be given repeatedly")
    parser.add_argument("--only", default="", help="only works whose names begin so")
    parser.add_argument("--wing", choices=["core", "pure"], action="append", help="only this wing")
    parser.add_argument("--share", type=float, default=1.0, help="of the numbers above (default: 1)")
    parser.add_argument("--inner", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        print(json.dumps(inner(*options.inner)))
        return 0
    wrong: list[str] = []
    for wing in options.wing or (("core", "pure") if sockframe.wing == "core" else ("pure",)):
        for kind in options.kind or [*WORKS, "peers"]:
            if kind == "peers":
                for sent in peers.SENT:
                    for name in [*peers.RECEIVERS, *peers.SERVERS]:
                        if name.startswith(options.only):
                            wrong += measure_peers(wing, name, sent, int(PEERS * options.share))
                continue
            works, count = WORKS[kind]
            for name in works:
                if name.startswith(options.only):
                    wrong += measure(wing, kind, name, int(count * options.share))
    for each in wrong:
        print(f"WRONG: {each}")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
