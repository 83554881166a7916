"""What `python -m bench` takes and does."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import charts, report
from .runner import KINDS, LEAST_SECONDS, ROOT, kind_of, needs, run

QUICK_ROUNDS, ROUNDS = 2, 5
QUICK_SECONDS = 0.1

#: Where the figures of the full benchmark stand.
PAGE = ROOT / "docs" / "performance.md"


def chosen(kinds: tuple[str, ...], parts: tuple[str, ...], contenders: tuple[str, ...],
           quick: bool) -> dict[str, tuple[list[str], list[str]]]:
    """Return the works and the contenders of each kind that is asked for."""
    found = {}
    for kind in kinds or KINDS:
        module = kind_of(kind)
        works = [work for work in (module.QUICK if quick else module.WORKS)
                 if not parts or any(part in work for part in parts)]
        names = [name for name in module.CONTENDERS if not contenders or name in contenders]
        if works and names:
            found[kind] = works, names
    if not found:
        each = "; ".join(f"{kind} has the works {', '.join(map(repr, kind_of(kind).WORKS))} and the contenders "
                         f"{', '.join(map(repr, kind_of(kind).CONTENDERS))}" for kind in kinds or KINDS)
        raise click.UsageError(f"there is no such work: {each}")
    return found


def version(python: str) -> str:
    """Return what a Python calls itself. Raises `UsageError` where it can't be run."""
    code = "import platform; print(platform.python_version(), platform.python_compiler(), sep=', ')"
    try:
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.UsageError(f"{python} is no Python: {error}") from None


def processor() -> str:
    """Return the processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measured(plan: dict[str, tuple[list[str], list[str]]], pythons: list[str], rounds: int, least: float,
             store: Path | None) -> dict[str, Any]:
    """Measure all of it, behind a progress bar where there is a terminal; return the record.

    It is stored after each kind: a whole benchmark takes an hour, and may be cut short.
    """
    record: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "platform": platform.platform(),
                              "pythons": {python: version(python) for python in pythons}, "rounds": rounds, "kinds": {}}
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        total = sum(len(works) * len(names) for works, names in plan.values()) * len(pythons) * rounds
        task = bar.add_task("", total=total)
        for kind, (works, names) in plan.items():
            if store:
                keep(record, store)
            pairs = [(name, python) for name in names for python in pythons]
            record["kinds"][kind] = run(kind, works, pairs, rounds,
                                        lambda doing: bar.update(task, description=doing),
                                        lambda: bar.advance(task), least)
    if store:
        keep(record, store)
    return record


def keep(record: dict[str, Any], path: Path) -> None:
    """Store a record in a file."""
    path.write_text(json.dumps(record, indent=1) + "\n")


@click.command()
@click.option("--quick", is_flag=True, help=f"A few works, {QUICK_ROUNDS} rounds: about two minutes.")
@click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Only this kind of work.")
@click.option("--work", multiple=True, help='Only works whose names hold this, for example "length 64".')
@click.option("--contender", multiple=True, help="Only this contender; the first is what the others are measured by.")
@click.option("--rounds", type=click.IntRange(1), help=f"How often each is measured: {ROUNDS} times unless said so.")
@click.option("--python", "others", multiple=True, metavar="PATH",
              help="Run the contenders in this Python too: it must have sockframe, and the peers.")
@click.option("--json", "store", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Store every figure in this file.")
@click.option("--from", "stored", type=click.File(), help="Measure nothing: show the figures of such a file.")
@click.option("--charts", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Draw the figures into this directory, as SVG.")
@click.option("--page", is_flag=True, help="Put the targets, and the charts, into their page of the documentation.")
def main(quick: bool, kind: tuple[str, ...], work: tuple[str, ...], contender: tuple[str, ...], rounds: int | None,
         others: tuple[str, ...], store: Path | None, stored: IO[str] | None, folder: Path | None,
         page: bool) -> None:
    """Measure sockframe and its peers, in turn, each in a fresh process."""
    if stored and store:
        raise click.UsageError("figures of --from are stored already: leave --json out")
    if stored:
        record = json.load(stored)
    else:
        plan = chosen(kind, work, contender, quick)
        record = measured(plan, [sys.executable, *others], rounds or (QUICK_ROUNDS if quick else ROUNDS),
                          QUICK_SECONDS if quick else LEAST_SECONDS, store)
    report.show(record)
    drawn: list[Path] = []
    if folder:
        try:
            drawn = charts.draw(record, folder)
        except ModuleNotFoundError as error:
            raise click.ClickException(f"a chart {needs(error.name or '')}") from None
    if page:
        paths = [os.path.relpath(path, PAGE.parent) for path in drawn]
        try:
            report.put_into(PAGE, report.markdown(record, paths))
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    wrong = [f"{kind}: {row['work']}, {row['contender']}" for kind, rows in record["kinds"].items()
             for row in rows if row["wrong"]]
    if wrong:
        raise click.ClickException(f"not the payloads that were encoded: {'; '.join(wrong)}")
