"""The command of the soak, from the project's root: `python -m tests.soak --mode threads --seconds 600`."""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    """Soak a server in one mode after the other, and tell what came of it; 1 where something was wrong."""
    from serving import MODES

    import sockframe

    load_wing = importlib.import_module("conftest").load_wing
    soak = importlib.import_module("soak.runner").soak
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=main.__doc__)
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode; may be given more than once")
    parser.add_argument("--seconds", type=float, default=60, help="for each mode (default: 60)")
    parser.add_argument("--clients", type=int, default=200, help="at once (default: 200)")
    parser.add_argument("--processes", type=int, default=4, help="that the clients run in (default: 4)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="to have the same clients again")
    options = parser.parse_args()
    wrong = False

    def tell(counts: dict[str, int]) -> None:
        if sys.stderr.isatty():
            print(f"\r{counts['sessions']:,} sessions, {counts['replies']:,} replies ", end="", file=sys.stderr)

    for mode in options.mode or MODES:
        print(f"{mode}, the {sockframe.wing} wing, {options.clients} clients, {options.seconds:g} s, "
              f"seed {options.seed}", flush=True)
        result = soak(load_wing(sockframe.wing), mode, options.seconds, options.clients, options.processes,
                      options.seed, tell)
        for name, number in result.counts.items():
            print(f"  {number:>16,} {name}")
        early, late = result.quarters()
        tenths = [max(result.memory[at * len(result.memory) // 10:][:1]) >> 20 for at in range(10)]
        print(f"  {result.killed:>16,} client processes killed\n"
              f"  {early:>16,} bytes resident in the second quarter, {late:,} in the last\n"
              f"  {tenths[-1]:>16,} MiB at last; tenth by tenth: {tenths}\n"
              f"  {result.descriptors[0]:>16,} descriptors at first, {result.descriptors[1]:,} at last", flush=True)
        for what in result.wrong:
            print(f"  WRONG: {what}", flush=True)
        wrong |= bool(result.wrong)
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
