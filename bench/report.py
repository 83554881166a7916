"""What was measured, as tables for the terminal and as Markdown for the documentation."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .runner import kind_of
from .targets import Result, results

BEGIN, END = "<!-- bench: begin", "<!-- bench: end -->"


def spread(figures: list[float]) -> float:
    """Return how far the rounds are apart, as a share of their median."""
    median = statistics.median(figures)
    return (max(figures) - min(figures)) / median if median else 0.0


def ratio(row: dict[str, Any], base: dict[str, Any]) -> float:
    """Return how many times the figure of `base` a row has: the median of the rounds' own ratios."""
    return float(statistics.median(own / other for own, other in zip(row["ns"], base["ns"], strict=True) if other))


def table(kind: str, rows: list[dict[str, Any]], pythons: dict[str, str], rounds: int) -> Table:
    """Return the table of a kind of work; its ratios are to each work's first contender that could be measured."""
    module = kind_of(kind)
    unit = getattr(module, "UNIT", "ns a frame")
    made = Table(title=f"{kind}: {unit}, median of {rounds} processes")
    for name in ("work", "contender"):
        made.add_column(name, no_wrap=True)
    timed = unit == "ns a frame"
    for name in (["ns", "spread", "wall ns", "MB/s", "ratio"] if timed else ["bytes", "spread", "ratio"]):
        made.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in sorted(rows, key=lambda each: list(module.WORKS).index(each["work"])):
        if last and row["work"] != last:
            made.add_section()
        last = row["work"]
        name = row["contender"] + (f" ({pythons[row['python']]})" if len(pythons) > 1 else "")
        if row["unavailable"]:
            if not row["unfit"]:
                made.add_row(row["work"], name, *["-"] * (len(made.columns) - 2))
            continue
        first = next(each for each in rows if each["work"] == row["work"] and each["ns"])
        median = statistics.median(row["ns"])
        cells = [f"{median:,.4g}" if median < 1000 else f"{median:,.0f}", f"{spread(row['ns']):.0%}"]
        if timed:
            wall = statistics.median(row["wall"])
            cells += [f"{wall:,.4g}" if wall < 1000 else f"{wall:,.0f}",
                      f"{module.WORKS[row['work']].size / median * 1e3:,.0f}"]
        ratios = f"{ratio(row, first):.2f}" if all(first["ns"]) else "-"
        made.add_row(row["work"], "[bold red]WRONG[/]" if row["wrong"] else name, *cells, ratios)
    return made


def reasons(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Say of each contender that is not there why, and of each that was left out."""
    return sorted({f"{row['contender']} is {'left out' if row['unfit'] else 'not available'}: {row['unavailable']}"
                   for row in rows if row["unavailable"]})


def figures(result: Result) -> tuple[str, str, str]:
    """Return what a target's median is, the spread from the least to the most, and the verdict."""
    digits = "{:,.0f}" if result.target.how in ("above", "most") else "{:.2f}"
    measured = result.measured
    return (digits.format(statistics.median(measured)),
            f"{digits.format(min(measured))} to {digits.format(max(measured))}",
            "reached" if result.target.reached(measured) else "missed")


def python_of(result: Result, record: dict[str, Any]) -> str:
    """Name the Python that a target's figures are of, where there are several."""
    return f" ({record['pythons'][result.python]})" if len(record["pythons"]) > 1 else ""


def targets(record: dict[str, Any]) -> Table | None:
    """Return the table of targets, or None where nothing that they ask for was measured."""
    made = Table(title="targets")
    for name in ("work", "contender", "asked"):
        made.add_column(name)
    for name in ("measured", "rounds", "on the wall", ""):
        made.add_column(name, justify="right", no_wrap=True)
    for result in results(record["kinds"]):
        target = result.target
        median, extent, verdict = figures(result)
        wall = f"{statistics.median(result.wall):,.2f}" if result.wall and target.how != "above" else "-"
        made.add_row(f"{target.kind}, {target.work}", target.contender + python_of(result, record), target.asked(),
                     median, extent, wall, verdict if verdict == "reached" else f"[red]{verdict}[/]")
    return made if made.row_count else None


def show(record: dict[str, Any]) -> None:
    """Print all tables and what they mean."""
    console = Console()
    if not console.is_terminal:
        console.width = 150
    for kind, rows in record["kinds"].items():
        console.print(table(kind, rows, record["pythons"], record["rounds"]))
        for reason in reasons(rows):
            console.print(reason, markup=False, highlight=False)
    if made := targets(record):
        console.print(made)
    console.print(
        "ns: processor time of the contender (echo: of its server; roundtrip: of both ends); wall: by the clock, with "
        "the other end and what else runs; spread: from the fastest to the slowest round; ratio: to the first "
        "contender, median of the rounds' own.", highlight=False)


# ---- Markdown ----

def machine(record: dict[str, Any]) -> str:
    """Say in a line what was measured on."""
    pythons = ", ".join(record["pythons"].values())
    return f"{record['cores']} cores, {record['processor']}, {record['platform']}; Python {pythons}"


def markdown(record: dict[str, Any], charts: list[str]) -> str:
    """Return what the documentation shows: the targets, the machine, and the charts by their paths."""
    lines = ["| work | contender | asked | measured | rounds | |", "|---|---|---|---|---|---|"]
    for result in results(record["kinds"]):
        target = result.target
        cells = [f"{target.kind}, {target.work}", target.contender + python_of(result, record), target.asked(),
                 *figures(result)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Medians of {record['rounds']} rounds in turn, each in a process of its own, and how far the rounds "
              "are apart;", f"{machine(record)}."]
    for path in charts:
        lines += ["", f"![{Path(path).stem}]({path})"]
    return "\n".join(lines)


def put_into(path: Path, text: str) -> None:
    """Put text between the marks in a file, in place of what is there. Raises `ValueError` where there are none."""
    whole = path.read_text()
    head, found, rest = whole.partition(BEGIN)
    mark, _, rest = rest.partition("\n")
    _, closed, tail = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{path} has no place marked by {BEGIN} and {END}")
    new = path.with_suffix(".new")
    new.write_text(f"{head}{found}{mark}\n{text}\n{END}{tail}")
    os.replace(new, path)
