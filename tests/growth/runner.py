"""Runs a work, or a receiver and its peers, in a fresh process on a wing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def fresh(wing: str, *arguments: str, limit: float = 3600) -> Any:
    """Return what `python -m tests.growth --inner ...` tells, run by a process on the wing."""
    done = subprocess.run([sys.executable, "-W", "error", "-W", "ignore:This process", "-m", "tests.growth",
                           "--inner", *arguments], cwd=ROOT, timeout=limit, check=False, capture_output=True, text=True,
                          env={**os.environ, "SOCKFRAME_CORE": "1" if wing == "core" else "0"})
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)} on the {wing} wing:\n{done.stderr[-5000:]}")
    return json.loads(done.stdout.splitlines()[-1])
