"""`sockframe dump`: the frames of a file, a pipe or a connection, a line each."""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator
from contextlib import closing
from typing import Any

import click

from ..errors import FramingError
from ..framings import Framing
from ..server import open_listener
from .params import (
    ADDRESS,
    SECONDS,
    Address,
    client_context,
    fail,
    framing_options,
    limited,
    overlong_option,
    show_address,
    tls_options,
    to_connect,
)
from .records import Records, as_json, as_line
from .streams import CHUNK, Input, Output, meter, open_connection


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@framing_options
@overlong_option
@click.option("--bytes", "most", type=click.IntRange(0), default=16, show_default=True,
              help="Show so many bytes of each payload.")
@click.option("--json", "in_json", is_flag=True, help="Print a line of JSON for each frame.")
@click.option("--follow", is_flag=True, help="Go on as the file grows.")
@click.option("--connect", "peer", type=ADDRESS, help="Dump what this address sends, instead of a file.")
@click.option("--listen", type=ADDRESS, help="Dump what the first client sends that connects to this address.")
@click.option("--timeout", type=SECONDS, help="Seconds to connect, and of silence, after which it is an error.")
@tls_options
def dump(file: str, framing: Framing, max_length: int | None, overlong: str | None, most: int, in_json: bool,
         follow: bool, peer: Address | None, listen: Address | None, timeout: float | None, tls: bool,
         tls_ca: str | None, tls_insecure: bool) -> None:
    """Print the frames of FILE (standard input without one), or of a connection.

    Each line has the frame's offset in the stream, the length of its payload, and the payload's first bytes, in
    hexadecimal and as text with all that could move a terminal's cursor escaped. With --json, `size` is that of the
    whole frame, with its header, delimiter or trailer. A stream that is malformed or cut off ends the dump with the
    error, which tells the place, and exit code 1.
    """
    framing = limited(framing, max_length, overlong)
    context = client_context(tls, tls_ca, tls_insecure)
    if (file != "-" or follow) + (peer is not None) + (listen is not None) > 1:
        raise click.UsageError("a file, --connect and --listen exclude each other")
    if peer is None and (context or timeout is not None):
        raise click.UsageError("--timeout and TLS need --connect")
    records, output = Records(framing), Output()
    show = as_json if in_json else as_line
    try:
        size = None
        if peer is not None:
            source = _from_peer(to_connect(peer), framing, timeout, context)
        elif listen is not None:
            source = _from_client(listen)
        else:
            source, size = _from_file(file, follow)
        with closing(source), meter("read", size) as done:
            for data in source:
                for record in records.feed(data):
                    output.line(show(record, most))
                output.flush()
                done(len(data))
            for record in records.finish():
                output.line(show(record, most))
            output.flush()
    except (FramingError, OSError) as error:
        output.flush()
        fail(error, show_address(peer) if peer is not None else "")
    finally:
        if records.skipped:
            click.echo(f"{records.skipped} overlong frame{'s' * (records.skipped > 1)} skipped", err=True)


def _from_file(path: str, follow: bool) -> tuple[Generator[bytes, None, None], int | None]:
    """Open a file: its bytes, and how many there are where that is known."""
    source = Input(path)
    if follow and not source.regular:
        source.close()
        raise click.UsageError(f"--follow needs a file that can grow, not {source.name}")

    def chunks() -> Generator[bytes, None, None]:
        with closing(source):
            yield from source.chunks(follow)

    return chunks(), None if follow else source.size


def _from_peer(address: Address, framing: Framing, timeout: float | None,
               context: ssl.SSLContext | None) -> Generator[bytes, None, None]:
    """Connect, and yield what the peer sends."""
    sock, _ = open_connection(address, framing, timeout, context).detach()
    return _received(sock)


def _from_client(address: Address) -> Generator[bytes, None, None]:
    """Wait for a client, and yield what it sends."""
    with open_listener(address, 1) as listener:
        click.echo(f"listening at {show_address(listener.getsockname())}", err=True)
        try:
            sock, peer = listener.accept()
        finally:
            if not isinstance(address, tuple):
                os.unlink(address)
    click.echo(f"{show_address(peer) or 'a client'} has connected", err=True)
    return _received(sock)


def _received(sock: Any) -> Generator[bytes, None, None]:
    """Yield what a socket receives, and close it."""
    with closing(sock):
        while data := sock.recv(CHUNK):
            yield data
