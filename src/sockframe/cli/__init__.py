"""The `sockframe` command, with click and rich (the extra `sockframe[cli]`)."""

from __future__ import annotations

import click

from .bench import bench
from .dump import dump
from .info import info, version
from .params import Commands
from .send import send
from .serve import serve


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), message="%(prog)s %(version)s")
def command() -> None:
    """Message framing for stream sockets."""


for _each in (bench, dump, info, send, serve):
    command.add_command(_each)
