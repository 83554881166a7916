"""Runs a leg in a fresh copy of the last commit, and reads from its output what became of it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .legs import HEART, OUTSIDE, ROOT, Leg

#: Where interpreters are looked for before PATH: directories, as in PATH.
PYTHONS = "SOCKFRAME_PYTHONS"

#: The directory with the trees of other systems, each under the name that legs have for it.
ROOTS = "SOCKFRAME_ROOTS"

#: What pip is told on this machine, and so in a tree too; the file of certificates is lent to it.
PIP = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_INDEX_URL")

#: Enters a tree, with what programs expect of a running system, mounted for them alone.
ENTER = ("unshare", "--mount", "sh", "-euc", """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/dev/shm"
if [ -n "${PIP_CERT:-}" ] && [ -e "$0$PIP_CERT" ]; then mount --bind "$PIP_CERT" "$0$PIP_CERT"; fi
exec chroot "$0" "$@"
""")


class MissingError(Exception):
    """A leg can't run here: something that it needs is not there."""


def root_of(leg: Leg) -> str:
    """Return the tree that a leg runs in, or "" for this system. Raises `MissingError`."""
    if not leg.root:
        return ""
    place = os.environ.get(ROOTS, "")
    if not place:
        raise MissingError(f"{ROOTS} names no directory with the tree {leg.root!r}; to make it: {leg.get}")
    if not Path(place, leg.root, "usr").is_dir():
        raise MissingError(f"there is no tree {leg.root!r} in {ROOTS}; to make it: {leg.get}")
    if os.geteuid() != 0:
        raise MissingError("only root can enter a tree")
    return str(Path(place, leg.root))


def inside(root: str, line: str, folder: str = "/") -> list[str]:
    """Return the command that runs a line of `sh` in a folder of a tree, or of this system."""
    if root and line.startswith(OUTSIDE):
        return inside("", line.removeprefix(OUTSIDE), f"{root}{folder}")
    shell = ["sh", "-euc", f"cd {shlex.quote(folder)}\n{line}"]
    return [*ENTER, root, *shell] if root else shell


def found(root: str, line: str, environment: dict[str, str]) -> str | None:
    """Return the first line that a command prints, None where it fails."""
    done = subprocess.run(inside(root, line), env=environment, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return next(iter(done.stdout.splitlines()), "") if done.returncode == 0 else None


def environment_of(leg: Leg, root: str) -> dict[str, str]:
    """Return what a leg's commands find in their environment. Raises `MissingError`."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TERM", "TMPDIR", *PIP) if name in os.environ}
    kept.update(PATH=os.environ.get("PATH", os.defpath), HEART=" ".join(HEART), PIP_ROOT_USER_ACTION="ignore",
                PIP_DISABLE_PIP_VERSION_CHECK="1")
    if root:
        kept.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", ROOT=root)
        kept.pop("TMPDIR", None)
    if leg.python:
        pythons = {**kept, "PATH": f"{os.environ.get(PYTHONS, '')}{os.pathsep}{kept['PATH']}"} if not root else kept
        # One that does not run is none: pyenv has such a file for each that it has not chosen.
        python = found(root, f'python=$(command -v {leg.python}); "$python" -c ""; echo "$python"', pythons)
        if not python:
            where = f"the tree {leg.root!r}" if root else f"{PYTHONS} or PATH"
            raise MissingError(f"there is no {leg.python} in {where}; to have it: {leg.get}")
        kept["PYTHON"] = python
    return kept


def ready(leg: Leg) -> tuple[str, dict[str, str]]:
    """Return the tree and the environment of a leg that has all that it needs. Raises `MissingError` with the first
    thing that it lacks."""
    root = root_of(leg)
    environment = environment_of(leg, root)
    for need in leg.needs:
        if found(root, need.probe, environment) is None:
            raise MissingError(f"{need.what} is not there; to have it: {need.get}")
    return root, environment


# ---- reading what the tests say ----

#: The last line of pytest, and those of the C tests and of checks that count as they do.
PYTEST = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s\b")
COUNTED = re.compile(r"^[\w, ]+: (\d+) passed, (\d+) failed$")
SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] \S+: (.*)$")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)")


def read(output: str) -> dict[str, Any]:
    """Return the counts of all the tests that an output tells of, why some were skipped, and which ones failed."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    wrong = []
    for line in output.splitlines():
        if match := PYTEST.match(line):
            for number, word in re.findall(r"(\d+) ([a-z]+)", match[1]):
                counts["failed" if word.startswith("error") else word] += int(number)
        elif match := COUNTED.match(line):
            counts["passed"] += int(match[1])
            counts["failed"] += int(match[2])
        elif match := SKIPPED.match(line):
            reasons[match[2]] += int(match[1])
        elif match := FAILED.match(line):
            wrong.append(match[1])
    return {**{name: counts[name] for name in ("passed", "failed", "skipped")},
            "reasons": dict(sorted(reasons.items())), "wrong": wrong}


# ---- running ----

def copy_into(folder: Path) -> None:
    """Put what the last commit holds into a folder."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)


def run(leg: Leg, keep: bool = False) -> dict[str, Any]:
    """Run a leg; return its row: what it ran on, the counts, or why it did not run.

    What its commands print goes to a file, which stays where a command fails, and with `keep` everything does.
    """
    try:
        root, environment = ready(leg)
    except MissingError as missing:
        return {"not run": str(missing)}
    work = Path(tempfile.mkdtemp(prefix="sockframe-matrix-", dir=f"{root}/tmp" if root else None))
    copy_into(work)
    row: dict[str, Any] = {"on": found(root, leg.version, environment) or "?"}
    folder = str(work).removeprefix(root)
    log, begun, failed = work / "matrix.log", time.monotonic(), ""
    with log.open("w", encoding="utf-8") as output:
        for line in leg.run:
            print(f"    {line}", flush=True)
            print(f"$ {line}", file=output, flush=True)
            done = subprocess.run(inside(root, line, folder), env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                failed = line
                break
    text = log.read_text(encoding="utf-8", errors="replace")
    row.update(read(text), seconds=round(time.monotonic() - begun))
    if failed:
        row["stopped at"] = failed
        print("\n".join(text.splitlines()[-40:]), flush=True)
    if keep or failed:
        print(f"    it is all in {work}", flush=True)
    else:
        shutil.rmtree(work)
    return row


def fine(row: dict[str, Any]) -> bool:
    """Tell whether a leg ran, and everything in it passed."""
    return "not run" not in row and "stopped at" not in row and not row["failed"] and row["passed"] > 0
