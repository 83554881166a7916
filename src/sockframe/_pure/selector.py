"""receive_ready: frames from many connections that select() says are ready."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .. import errors
from ..transport import AT_ONCE, FrameKey, is_own_error
from .connection import Connection


def receive_ready(events: list[tuple[int, int]], conns: list[Any], data: list[Any], progress: bool,
                  results: list[tuple[Any, list[bytes] | Exception]],
                  end: Callable[[Any, Exception], None]) -> list[int]:
    """Receive from the connections with these events, and append (key, frames) to `results`.

    `events` are those of a poll, (descriptor, what it is ready for); `conns` and `data` have what is registered, by
    descriptor. At most 64 KiB are taken of each connection, so that none starves the others. `end(conn, error)` is
    told of one that has ended or failed, behind its last frames. With `progress`, one that brought no frame comes as
    (key, []). Returns the descriptors of those that have a tail to send, and of what is no connection.
    """
    rest: list[int] = []
    ready: list[tuple[FrameKey, Connection]] = []
    for number, _ in events:
        conn = conns[number] if number < len(conns) else None
        if conn is None or conn._tail:
            rest.append(number)
        else:
            ready.append((FrameKey(conn, data[number]), conn))
    for key, conn in ready:
        before = len(results)
        if not conn._shut and not conn._reading._is_owned():
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
                end(conn, error)
        if progress and len(results) == before:
            results.append((key, []))
    return rest


def arrive(key: FrameKey, conn: Connection, results: list[tuple[Any, list[bytes] | Exception]]) -> None:
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
