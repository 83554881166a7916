"""The `sockframe` command in tests: on a wing in this process, and as a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

import sockframe.cli

FOLDER = Path(__file__).parent
COMMAND = [sys.executable, "-W", "error", "-m", "sockframe"]

#: SOCKFRAME_CORE of each wing.
CHOICES = {"core": "1", "pure": "0"}

#: Where the command's modules have the names of the wing in use.
USED = [("records", "Decoder"), ("exchange", "Decoder"), ("send", "Encoder"), ("streams", "FramedSocket")]


def invoke(wing: Any, *arguments: object, data: bytes = b"", code: int = 0) -> click.testing.Result:
    """Run the command on a wing, in this process, with `data` as its input; its exit code must be `code`."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in USED:
            patch.setattr(importlib.import_module(f"sockframe.cli.{module}"), name, getattr(wing, name))
        result = click.testing.CliRunner().invoke(sockframe.cli.command, [*map(str, arguments)], input=data)
    assert result.exit_code == code, (result.output, result.exception)
    if not isinstance(result.exception, (SystemExit, type(None))):
        raise result.exception
    return result


def start(wing: Any, *arguments: object, **pipes: Any) -> subprocess.Popen[bytes]:
    """Start the command on a wing as a process, its three streams unbuffered pipes unless said otherwise."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*COMMAND, *map(str, arguments)], bufsize=0, cwd=FOLDER, **{**streams, **pipes},
                            env={**os.environ, "SOCKFRAME_CORE": CHOICES[wing.name]})


def run(wing: Any, *arguments: object, data: bytes = b"", code: int = 0, limit: float = 120) -> tuple[bytes, str]:
    """Run the command on a wing as a process; return what it wrote to stdout and to stderr."""
    with start(wing, *arguments) as process:
        try:
            output, messages = process.communicate(data, timeout=limit)
        finally:
            process.kill()
    assert process.returncode == code, (output[-1000:], messages)
    return output, messages.decode()
