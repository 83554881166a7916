"""receive_ready: frames from many connections that select() says are ready."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from .. import errors
from ..transport import AT_ONCE, is_own_error
from .connection import Connection


def receive_ready(keys: Iterable[Any], results: list[tuple[Any, list[bytes] | Exception]]) -> None:
    """Receive from each key's connection, without waiting, and append (key, frames) to `results`.

    At most 64 KiB are taken of each connection, so that none starves the others. One that has ended or
    failed comes as (key, exception), behind its last frames.
    """
    for key in keys:
        conn: Connection = key.conn
        if conn._shut or conn._reading._is_owned():
            continue
        try:
            turn = conn._enter(conn._reading, AT_ONCE)
            try:
                arrive(key, conn, results)
            finally:
                turn.release()
        except BlockingIOError:
            pass
        except Exception as error:
            if not is_own_error(error):
                raise
            results.append((key, error))


def arrive(key: Any, conn: Connection, results: list[tuple[Any, list[bytes] | Exception]]) -> None:
    """Receive and decode for one connection."""
    decoder = conn._decoder
    conn._use(conn._kind)
    decoder._check()
    if conn._fill(AT_ONCE):
        frames = decoder._take_many(sys.maxsize, sys.maxsize)
    else:
        conn._end()
        frames, conn._rest = conn._rest or [], None
    if frames:
        results.append((key, frames))
    decoder._check()
    if decoder._ended:
        raise errors.end_of_stream(decoder._at)
