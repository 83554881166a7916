"""The pages of the documentation, as tests read them: their text, their code, their programs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from commands import CHOICES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

#: Blocks of code begin and end with a line of their own: the language, and the text.
BLOCK = re.compile(r"^```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    """Return the text of each block of a language."""
    return [text for kind, text in BLOCK.findall(path.read_text()) if kind == language]


def name_of(source: str) -> str:
    """Return the name of the file that a block is to be saved as, or "": its first line begins with it."""
    match = re.match(r"# (\w+\.py)\b", source)
    return match[1] if match else ""


def save(folder: Path, *names: str) -> None:
    """Save the programs of these names, as a reader of the pages does."""
    programs = {name_of(text): text for path in [ROOT / "README.md", *PAGES] for text in blocks(path, "python")}
    for name in names:
        (folder / name).write_text(programs[name])


def start(wing: Any, folder: Path, name: str, *arguments: object, **pipes: Any) -> subprocess.Popen[str]:
    """Start a program that was saved in `folder`, on a wing."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **pipes}
    return subprocess.Popen([sys.executable, "-W", "error", name, *map(str, arguments)], text=True, cwd=folder,
                            env={**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]}, **streams)


def run(wing: Any, folder: Path, name: str, *arguments: object) -> str:
    """Run such a program to its end, which must be a good one; return what it printed."""
    save(folder, name)
    with start(wing, folder, name, *arguments) as process:
        try:
            output = process.communicate(timeout=120)[0]
        finally:
            process.kill()
    assert process.returncode == 0, output
    return output


def promised(name: str) -> list[str]:
    """Return what a program says in comments that it prints."""
    (source,) = [text for path in PAGES for text in blocks(path, "python") if name_of(text) == name]
    return re.findall(r"^ *print\(.*  # (.*)$", source, re.MULTILINE)
