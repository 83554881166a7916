"""What became of the legs: kept in a file, and as a table in the documents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .legs import LEGS, Leg
from .runner import ROOT

RESULTS = ROOT / "docs" / "matrix.json"
DOCUMENT = ROOT / "docs" / "support.md"
BEGIN, END = "<!-- matrix: begin", "<!-- matrix: end -->"


def load(path: Path) -> dict[str, Any]:
    """Return the rows that a file holds, none where there is no file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def merged(rows: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of legs that there are, in their order, each as it was run last."""
    both = {**rows, **new}
    return {name: both[name] for name in LEGS if name in both}


def store(path: Path, rows: dict[str, Any]) -> None:
    """Put rows into a file, in place of it."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(rows, indent=1) + "\n")
    os.replace(new, path)


def outcome(row: dict[str, Any] | None) -> str:
    """Say in a few words what became of a leg."""
    if row is None:
        return "not run yet"
    if "not run" in row:
        return f"not run: {row['not run']}"
    said = f"{row['passed']:,} passed"
    if row["failed"]:
        said += f", **{row['failed']:,} failed**"
    if row["skipped"]:
        said += f", {row['skipped']:,} skipped"
    if "stopped at" in row and not row["failed"]:
        return f"{said}, **stopped at** `{row['stopped at']}`"
    return said if row["passed"] or row["failed"] else f"{said}, **no test**"


def skips(rows: dict[str, Any]) -> list[str]:
    """Say of each reason for a skip how many tests had it, in which legs."""
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        for reason, count in row.get("reasons", {}).items():
            found.setdefault(reason, []).append(f"{count} in `{name}`")
    return [f"{reason}: {', '.join(places)}" for reason, places in sorted(found.items())]


def markdown(rows: dict[str, Any], legs: Iterable[Leg]) -> str:
    """Return the table of all legs, and below it every reason for a skip."""
    lines = ["| leg | what | tests | on | result |", "|---|---|---|---|---|"]
    for leg in legs:
        row = rows.get(leg.name)
        lines.append(f"| `{leg.name}` | {leg.what} | {leg.suite} | {(row or {}).get('on', '')} | {outcome(row)} |")
    reasons = skips(rows)
    if reasons:
        lines += ["", "Skipped, and why:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines)


def put_into(path: Path, text: str) -> None:
    """Put text between the marks in a file, in place of what is there. Raises `ValueError` where there are none."""
    whole = path.read_text()
    head, begun, rest = whole.partition(BEGIN)
    mark, _, rest = rest.partition("\n")
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{path} has no place marked by {BEGIN} and {END}")
    path.write_text(f"{head}{begun}{mark}\n{text}\n{END}{tail}")
