"""The `sockframe` command, with click and rich (the extra `sockframe[cli]`)."""

from __future__ import annotations

from typing import Any

import click

from .bench import bench
from .dump import dump
from .info import info, version
from .params import Commands
from .send import send
from .serve import serve


def _show_version(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Look the version up only where it is asked for: that takes as long as a quarter of a command's start."""
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.find_root().info_name} {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
              help="Show the version and exit.")
def command() -> None:
    """Message framing for stream sockets."""


for _each in (bench, dump, info, send, serve):
    command.add_command(_each)
