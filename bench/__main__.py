"""The command `python -m bench`, to be run from the repository."""

from __future__ import annotations

import json
import platform
import statistics
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .runner import KINDS, run


def ratio(row: dict[str, Any], base: dict[str, Any]) -> float:
    """Return how many times the time of `base` a row takes: the median of the rounds' own ratios."""
    return float(statistics.median(own / other for own, other in zip(row["ns"], base["ns"], strict=True)))


def show(kind: str, rows: list[dict[str, Any]], rounds: int) -> None:
    """Print the table of a kind of work; its ratios are to the time of each work's first contender."""
    table = Table(title=f"{kind}: ns a frame, median of {rounds} processes")
    table.add_column("work", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for name in ("ns", "spread", "MB/s", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows:
        if last and row["work"] != last:
            table.add_section()
        last = row["work"]
        if row["unavailable"]:
            table.add_row(row["work"], row["contender"], *"----")
            continue
        first = next(each for each in rows if each["work"] == row["work"] and each["ns"])
        row["median"] = statistics.median(row["ns"])
        row["ratio"] = ratio(row, first)
        spread = (max(row["ns"]) - min(row["ns"])) / row["median"]
        table.add_row(row["work"], "[bold red]WRONG[/]" if row["wrong"] else row["contender"],
                      f"{row['median']:,.0f}", f"{spread:.0%}",
                      f"{KINDS[kind].WORKS[row['work']].size / row['median'] * 1e3:,.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    for reason in sorted({f"{row['contender']} is not available: {row['unavailable']}"
                          for row in rows if row["unavailable"]}):
        click.echo(reason)
    click.echo("spread: from the fastest to the slowest round; ratio: to the time of the first contender, median of "
               "the rounds' own.")


def run_with_bar(kind: str, works: list[str], contenders: list[str], rounds: int) -> list[dict[str, Any]]:
    """Run a kind of work behind a progress bar, where there is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(works) * len(contenders) * rounds)
        return run(kind, works, contenders, rounds, lambda doing: bar.update(task, description=doing),
                   lambda: bar.advance(task))


@click.command()
@click.option("--kind", type=click.Choice(list(KINDS)), multiple=True, help="Only this kind of work.")
@click.option("--work", multiple=True, help='Only works whose names hold this, for example "length 64".')
@click.option("--contender", multiple=True, help="Only this contender; the first is what the others are measured by.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "store", type=click.File("w", lazy=False), help="Store every figure in this file.")
def main(kind: tuple[str, ...], work: tuple[str, ...], contender: tuple[str, ...], rounds: int,
         store: IO[str] | None) -> None:
    """Measure sockframe and its peers, in turn, each in a fresh process."""
    record: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), "rounds": rounds}
    wrong = []
    for name in kind or KINDS:
        works = [each for each in KINDS[name].WORKS if not work or any(part in each for part in work)]
        contenders = list(contender) or list(KINDS[name].CONTENDERS)
        if not works or not set(contenders) <= set(KINDS[name].CONTENDERS):
            raise click.UsageError(f"{name} has the works {', '.join(KINDS[name].WORKS)} "
                                   f"and the contenders {', '.join(KINDS[name].CONTENDERS)}")
        rows = run_with_bar(name, works, contenders, rounds)
        show(name, rows, rounds)
        record[name] = rows
        wrong += [f"{row['work']}, {row['contender']}" for row in rows if row["wrong"]]
    if store:
        json.dump(record, store, indent=2)
        store.write("\n")
    if wrong:
        raise click.ClickException(f"not the payloads that were encoded: {'; '.join(wrong)}")


if __name__ == "__main__":
    main(prog_name="python -m bench")
