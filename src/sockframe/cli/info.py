"""`sockframe info`: what one has to know of an installation."""

from __future__ import annotations

import os
import platform

import click

from .. import stdlib_bench
from .._wing import why_not_core, wing


def version() -> str:
    """Return the installed version."""
    from importlib import metadata

    try:
        return metadata.version("sockframe")
    except metadata.PackageNotFoundError:
        return "unknown: not installed"


def facts() -> dict[str, str]:
    """Return what one has to know of an installation, by name."""
    found = {
        "version": version(),
        "wing": wing,
        "why not the core": why_not_core or "it is in use",
        "SOCKFRAME_CORE": os.environ.get("SOCKFRAME_CORE") or "unset",
    }
    for name in ("core", "pure"):
        found[f"{name} can be imported"] = stdlib_bench.unavailable(name) or "yes"
    found["Python"] = f"{platform.python_version()} {platform.python_implementation()}"
    found["platform"] = platform.platform()
    return found


@click.command()
def info() -> None:
    """Show the version, the wing in use, and the platform."""
    found = facts()
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:{width}}  {value}")
