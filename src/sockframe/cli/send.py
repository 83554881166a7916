"""`sockframe send`: frames from a file or the standard input, replies to the standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing

import click

from .._wing import Encoder
from ..errors import FramingError
from ..framings import Delimiter, Framing, Lines, UntilClose
from .exchange import Exchange, ExchangeError
from .params import (
    ADDRESS,
    FRAMING,
    SECONDS,
    Address,
    client_context,
    fail,
    framing_options,
    limited,
    show_address,
    tls_options,
    to_connect,
)
from .records import payload_fields
from .streams import Input, Output, meter, open_connection

#: Lines, of which the last may lack its ending.
LINES = Delimiter(b"\n", b"\r\n", tail="deliver")


@click.command()
@click.argument("address", type=ADDRESS)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@framing_options
@click.option("--input-framing", type=FRAMING, default=LINES, show_default="lines",
              help="How the input is cut into payloads; until-close: it is one.")
@click.option("--output-framing", type=FRAMING, default=Lines(), show_default="lines",
              help="How the replies are written.")
@click.option("--hex", "in_hex", is_flag=True, help="Write each reply as a line of hexadecimal.")
@click.option("--json", "in_json", is_flag=True, help="Write each reply as a line of JSON.")
@click.option("--replies", type=click.IntRange(0),
              help="Wait for so many replies, not until the peer ends the connection.")
@click.option("--timeout", type=SECONDS, help="Seconds to connect, and of silence, after which it is an error.")
@tls_options
def send(address: Address, file: str, framing: Framing, max_length: int | None, input_framing: Framing,
         output_framing: Framing, in_hex: bool, in_json: bool, replies: int | None, timeout: float | None, tls: bool,
         tls_ca: str | None, tls_insecure: bool) -> None:
    """Send FILE (standard input without one) as frames to ADDRESS, and print the replies.

    ADDRESS is host:port, [v6]:port, :port, or a path with a slash in it: a Unix socket. Each line of the input is a
    payload, and each reply is printed as a line, unless --input-framing and --output-framing say otherwise;
    --max-length is for them too. Sending and receiving go on at once. When all is sent, the sending half is closed,
    and replies are printed until the peer ends the connection; with --replies it is not closed before they are
    there.
    """
    if in_hex + in_json > 1:
        raise click.UsageError("--hex and --json exclude each other")
    framing, cut, output_framing = (limited(each, max_length) for each in (framing, input_framing, output_framing))
    context = client_context(tls, tls_ca, tls_insecure)
    output = Output()
    deliver = _as_lines(output, in_json) if in_hex or in_json else _as_frames(output, output_framing)
    target = to_connect(address)
    try:
        with closing(Input(file)) as source, open_connection(target, framing, timeout, context) as conn, \
                meter("sent", source.size) as advance:
            Exchange(conn, source, cut, deliver, replies=replies, half_close=replies is None,
                     timeout=timeout, advance=advance).run()
    except (FramingError, OSError, ExchangeError) as error:
        fail(error, show_address(target))


def _as_lines(output: Output, in_json: bool) -> Callable[[list[bytes]], None]:
    """Return what prints replies as lines of JSON, or of hexadecimal."""
    def deliver(frames: list[bytes]) -> None:
        for frame in frames:
            output.line(json.dumps(payload_fields(frame, len(frame))) if in_json else frame.hex())
        output.flush()

    return deliver


def _as_frames(output: Output, framing: Framing) -> Callable[[list[bytes]], None]:
    """Return what writes replies by a framing. It raises `ExchangeError` for one that can't be, behind the others."""
    encoder = Encoder(framing)
    written = 0

    def deliver(frames: list[bytes]) -> None:
        nonlocal written
        try:
            for frame in frames:
                if written and isinstance(framing, UntilClose):
                    raise ValueError("it follows another, which lasts until the stream ends")
                output.write(encoder.encode(frame))
                written += 1
        except ValueError as error:
            raise ExchangeError(f"reply {written + 1} can't be written as {framing!r}: {error}; "
                                "choose another --output-framing, --hex or --json") from None
        finally:
            output.flush()

    return deliver
