"""`sockframe bench`: the quick benchmark, with its progress and its table."""

from __future__ import annotations

import json
import statistics
import time
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import stdlib_bench
from ..stdlib_bench import Source, Transfer
from .info import facts

#: Seconds that `bench --quick` may take; another round is begun only where it will fit.
BUDGET = 45.0
MOST_ROUNDS = 3


@click.command()
@click.option("--quick", is_flag=True, help="Take less than a minute: the only mode here.")
@click.option("--source", type=click.Path(exists=True, file_okay=False), default=stdlib_bench.stdlib,
              show_default="the running Python's standard library", help="Send the .py files below this directory.")
@click.option("--json", "store", type=click.File("w", lazy=False), help="Store the figures in this file.")
def bench(quick: bool, source: str, store: IO[str] | None) -> None:
    """Send every line of the standard library over loopback TCP.

    One process sends to another, as lines and as length-prefixed frames, on both wings, through asyncio's
    streams and through the loops of Python's Socket Programming HOWTO. The SHA-256 of what arrived is
    compared with that of the files; the exit code is 1 where they differ.
    """
    if not quick:
        raise click.UsageError("only --quick runs here; the full benchmark is `python -m bench` in the repository")
    reasons = {name: stdlib_bench.unavailable(name) for name in stdlib_bench.CONTENDERS}
    try:
        known = stdlib_bench.survey(source)
        rounds = _run(known, [name for name, reason in reasons.items() if reason is None])
    except (stdlib_bench.BenchError, OSError) as error:
        raise click.ClickException(str(error)) from None
    rows = _summary(known, rounds)
    _show(known, rows, reasons, len(rounds))
    if store:
        record = {**facts(), "source": vars(known), "rounds": len(rounds), "results": rows, "not available": reasons}
        json.dump(record, store, indent=2)
        store.write("\n")
    broken = [f"{row['framing']}, {row['contender']}" for row in rows if not row["intact"]]
    if broken:
        raise click.ClickException(f"SHA-256 mismatch: what arrived is not what the files hold: {'; '.join(broken)}")


def _run(source: Source, contenders: list[str]) -> list[list[Transfer]]:
    """Run every contender on every framing, and all of them again while there is time."""
    began = time.monotonic()
    pairs = [(framing, contender) for framing in stdlib_bench.FRAMINGS for contender in contenders]
    rounds: list[list[Transfer]] = []
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("frames"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        while len(rounds) < MOST_ROUNDS and _fits(time.monotonic() - began, len(rounds)):
            task = progress.add_task("", total=source.lines * len(pairs))
            rounds.append([])
            for framing, contender in pairs:
                label = f"round {len(rounds)}: {framing}, {contender}"
                progress.update(task, description=label)
                done = len(rounds[-1]) * source.lines

                def advance(frames: int, done: int = done, task: TaskID = task) -> None:
                    progress.update(task, completed=done + frames)

                result = stdlib_bench.transfer(source, framing, contender, advance)
                advance(source.lines)
                rounds[-1].append(result)
                if not console.is_terminal:
                    click.echo(f"{label}: {result.seconds:.2f} s", err=True)
    return rounds


def _fits(spent: float, rounds: int) -> bool:
    """Say whether another round will fit into the budget, after so many in `spent` seconds."""
    return rounds == 0 or spent + spent / rounds <= BUDGET


def _summary(source: Source, rounds: list[list[Transfer]]) -> list[dict[str, Any]]:
    """Return a row for each framing and contender: the median of its rounds."""
    rows = []
    for results in zip(*rounds, strict=True):
        seconds = statistics.median(result.seconds for result in results)
        shown = next((result for result in results if not result.intact), results[0])
        rows.append({"framing": shown.framing, "contender": shown.contender, "intact": shown.intact,
                     "sha256": shown.sha256, "frames": shown.frames, "seconds": [each.seconds for each in results],
                     "frames_per_second": source.lines / seconds, "bytes_per_second": source.payload / seconds})
    yardsticks = {row["framing"]: row["frames_per_second"] for row in rows
                  if row["contender"] == stdlib_bench.YARDSTICK}
    for row in rows:
        row["ratio"] = row["frames_per_second"] / yardsticks[row["framing"]]
    return rows


def _show(source: Source, rows: list[dict[str, Any]], reasons: dict[str, str | None], rounds: int) -> None:
    """Print the table and what it means."""
    table = Table(title=f"{source.lines:,} lines of {source.files:,} files, {source.payload / 1e6:,.1f} MB")
    for name in ("framing", "contender"):
        table.add_column(name, no_wrap=True)
    for name in ("frames/s", "MB/s", f"vs {stdlib_bench.YARDSTICK}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("SHA-256", no_wrap=True)
    found = {(row["framing"], row["contender"]): row for row in rows}
    for framing in stdlib_bench.FRAMINGS:
        for contender in stdlib_bench.CONTENDERS:
            row = found.get((framing, contender))
            if row is None:
                table.add_row(framing, contender, "-", "-", "-", "unavailable")
                continue
            checked = f"ok {row['sha256'][:8]}" if row["intact"] else "[bold red]MISMATCH[/]"
            table.add_row(framing, contender, f"{row['frames_per_second']:,.0f}",
                          f"{row['bytes_per_second'] / 1e6:,.1f}", f"{row['ratio']:.2f}", checked)
        table.add_section()
    Console().print(table)
    for contender, reason in reasons.items():
        if reason is not None:
            click.echo(f"{contender} is not available: {reason}")
    click.echo(f"SHA-256 of the files: {source.sha256}")
    click.echo("Over loopback TCP, from one process to another. core and pure send by send_many and receive by\n"
               "recv_many; asyncio writes 1,024 frames at once; the HOWTO's loops send and receive one at a time.")
    click.echo(f"A quick look (median of {rounds} round{'s' * (rounds > 1)}), no paired measurement: for one, run "
               "`python -m bench` in the\nrepository.")
