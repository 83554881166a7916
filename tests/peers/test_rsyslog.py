"""rsyslog: syslog messages by octet counting (RFC 6587), received and sent, with as many lines as they like."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs import HOST, dial, find, folder, running, served, wait_for
from scripted import noise

from sockframe import framing

FRAMES = framing("syslog")

CONFIGURATION = """
global(workDirectory="{where}" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off"
       parser.dropTrailingLFOnReception="off")
module(load="imtcp")
template(name="json" type="string" string="%rawmsg:::json%\\n")
template(name="raw" type="string" string="%rawmsg%")
ruleset(name="all") {{
    action(type="omfile" file="{where}/messages" template="json")
    action(type="omfwd" target="{host}" port="{onward}" protocol="tcp" TCP_Framing="octet-counted" template="raw")
}}
input(type="imtcp" address="{host}" port="{port}" ruleset="all")
"""

MESSAGES = [
    b"<13>1 2024-02-29T12:00:00Z here app - - - one line",
    b"<13>1 2024-02-29T12:00:00Z here app - - - " + b"\n".join(b"line %d" % number for number in range(500)),
    b"<13>1 2024-02-29T12:00:00Z here app - - - 12 <13>1 what looks like a header\n7 <13>abc\n",
    b"<13>1 2024-02-29T12:00:00Z here app - - - \n\n\r\n\tand a blank end \n",
    b"<13>1 2024-02-29T12:00:00Z here app - - - " + noise(150_000),
    *(b"<13>1 2024-02-29T12:00:00Z here app - - - number %d" % number for number in range(1000)),
]


@contextmanager
def rsyslog(onward: int) -> Iterator[tuple[int, Path]]:
    """Run rsyslog; give its port, and the file with a JSON string for each message; it also sends them onward."""
    installed = find("rsyslogd", "rsyslog")
    with folder() as where:
        program = shutil.copy(installed, where)  # AppArmor may keep the installed one out of this folder

        def command(port: int) -> list[str]:
            text = CONFIGURATION.format(where=where, host=HOST, port=port, onward=onward)
            (where / "conf").write_text(text)
            return [program, "-n", "-i", "NONE", "-f", str(where / "conf")]

        with running(command, where) as port:
            yield port, where / "messages"


def contents(path: Path, count: int) -> list[bytes]:
    """Wait until `count` messages are in the file."""
    wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
    return [json.loads(b'"' + line + b'"').encode() for line in path.read_bytes().splitlines()]


def test_messages_arrive_whole_and_are_sent_on(wing: Any) -> None:
    with served(wing, FRAMES, list) as (onward, task):
        with rsyslog(onward) as (port, path):
            with dial(wing, port, FRAMES) as conn:
                conn.send_many(MESSAGES[:5])
                conn.send_many(MESSAGES[5:])
            assert contents(path, len(MESSAGES)) == MESSAGES
        assert task.result() == MESSAGES
