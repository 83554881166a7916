"""The command of the matrix, from the project's root: `python -m tests.matrix --all`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import report
from .legs import HEART, LEGS, Leg
from .runner import MissingError, fine, ready, run


def tell(leg: Leg) -> str:
    """Say whether a leg could run here, or what it lacks."""
    try:
        ready(leg)
    except MissingError as missing:
        return f"missing: {missing}"
    return "ready"


def main(arguments: list[str] | None = None) -> int:
    """Run legs of the matrix, each in a fresh copy of the last commit; 1 where one failed, or could not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=main.__doc__)
    parser.add_argument("leg", nargs="*", help="the legs to run, by their names")
    parser.add_argument("--all", action="store_true", help="every leg")
    parser.add_argument("--list", action="store_true", help="the legs, and what this machine lacks for them")
    parser.add_argument("--show", action="store_true", help="what the legs run, in place of running it")
    parser.add_argument("--heart", action="store_true", help="print the test files of the suite's heart")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the results to this file")
    parser.add_argument("--table", action="store_true", help=f"put the table of {report.RESULTS.name} into "
                                                             f"docs/{report.DOCUMENT.name}")
    parser.add_argument("--allow-missing", action="store_true", help="a leg that can't run here is no failure")
    parser.add_argument("--keep", action="store_true", help="keep the copies, with all that was built in them")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.leg if name not in LEGS]
    if unknown:
        parser.error(f"there is no leg {', '.join(unknown)}; there are: {', '.join(LEGS)}")
    legs = list(LEGS.values()) if options.all else [LEGS[name] for name in options.leg]
    if options.heart:
        print(*HEART)
        return 0
    if options.list:
        for leg in legs or LEGS.values():
            print(f"{leg.name:14} {leg.what}; {leg.suite}\n{'':14} {tell(leg)}")
        return 0
    if options.show:
        for leg in legs or LEGS.values():
            print(f"{leg.name}:", *leg.run, sep="\n    ")
        return 0
    if not legs and not options.table:
        parser.error("name legs, or ask for --all, --list or --table")
    rows: dict[str, Any] = {}
    for leg in legs:
        print(f"{leg.name}: {leg.what}; {leg.suite}", flush=True)
        rows[leg.name] = run(leg, options.keep)
        print(f"    {report.outcome(rows[leg.name])}", flush=True)
        if options.json:
            report.store(options.json, report.merged(report.load(options.json), {leg.name: rows[leg.name]}))
    if options.table:
        report.put_into(report.DOCUMENT, report.markdown(report.load(report.RESULTS), LEGS.values()))
    missing = [name for name, row in rows.items() if "not run" in row]
    failed = [name for name, row in rows.items() if "not run" not in row and not fine(row)]
    for kind, names in (("not run", missing), ("failed", failed)):
        if names:
            print(f"{kind}: {', '.join(names)}")
    return int(bool(failed or (missing and not options.allow_missing)))


if __name__ == "__main__":
    raise SystemExit(main())
