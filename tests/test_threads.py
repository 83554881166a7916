"""Threads that share a connection: frames stay whole, turns are waited for, close() wakes whoever waits."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from scripted import KINDS, LIMIT, Task, noise, wait_for_turn_taken

from sockframe import EndOfStream, LengthPrefix


def received(conn: Any, how: str) -> list[bytes]:
    """Receive until the end."""
    buffer = bytearray(400_000)
    frames: list[bytes] = []
    try:
        while True:
            if how == "recv_many":
                frames += conn.recv_many(3, timeout=LIMIT)
            elif how == "recv_batch":
                frames += conn.recv_batch(timeout=LIMIT).tolist()
            elif how == "recv_into":
                size = conn.recv_into(buffer, timeout=LIMIT)
                frames.append(bytes(buffer[:size]))
            else:
                frames.append(conn.recv(timeout=LIMIT))
    except EndOfStream:
        return frames


def test_frames_of_threads_that_send_at_once_never_mix(wing: Any) -> None:
    """K5, K8."""
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=50_000)
    with left, right:
        payloads = [[noise(300_000 + number, 10 * thread + number) for number in range(4)] for thread in range(4)]

        def send(mine: list[bytes]) -> None:
            left.send(mine[0], timeout=LIMIT)
            left.send_many(mine[1:3], timeout=LIMIT)
            left.send_many(iter(mine[3:]), timeout=LIMIT)

        tasks = [Task(send, mine) for mine in payloads]
        frames = [right.recv(timeout=LIMIT) for _ in range(16)]
        for task in tasks:
            task.result()
        assert sorted(frames) == sorted(chain(*payloads))
        for mine in payloads:
            assert [frame for frame in frames if frame in mine] == mine


def test_a_framing_set_while_another_thread_sends_a_list_is_the_next_calls(wing: Any) -> None:
    """K8: a list is checked as a whole, and sent as it was checked."""
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=20_000)
    with left, right:
        payloads = [noise(30_000, number) for number in range(40)]
        task = Task(left.send_many, payloads, timeout=LIMIT)
        wait_for_turn_taken(left.flush)
        left.framing = LengthPrefix(2)
        after = Task(left.send, b"after", timeout=LIMIT)
        assert [right.recv(timeout=LIMIT) for _ in payloads] == payloads
        task.result()
        right.framing = LengthPrefix(2)
        assert right.recv(timeout=LIMIT) == b"after"
        after.result()


def test_threads_that_receive_share_the_frames(wing: Any) -> None:
    """K4, K8."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        payloads = [noise(size, number) for number, size in enumerate([10, 70_000, 300, 200_000, 1] * 20)]
        tasks = [Task(received, right, how) for how in ("recv", "recv_many", "recv_into", "recv_batch")]
        left.send_many(payloads, timeout=LIMIT)
        left.shutdown(socket.SHUT_WR)
        assert sorted(chain(*(task.result() for task in tasks))) == sorted(payloads)


@pytest.mark.parametrize("kind", ["pair", "tcp", "own"])
def test_one_reads_while_the_other_writes(wing: Any, kind: str) -> None:
    """K6."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    with left, right:
        there = [noise(size, size) for size in (3, 400_000, 0, 5000)] * 6
        back = [noise(size, size) for size in (300_000, 1, 60_000, 0)] * 6
        tasks = [Task(left.send_many, there, timeout=LIMIT), Task(right.send_many, iter(back), timeout=LIMIT)]
        readers = [Task(lambda: [right.recv(timeout=LIMIT) for _ in there]),
                   Task(lambda: [left.recv(timeout=LIMIT) for _ in back])]
        assert [task.result() for task in readers] == [there, back]
        for task in tasks:
            task.result()


@pytest.mark.parametrize("direction", ["receive", "send"])
def test_the_wait_for_a_turn_counts(wing: Any, direction: str) -> None:
    """K7."""
    left, right = wing.pair(LengthPrefix(), SO_SNDBUF=5000)
    with left, right:
        if direction == "receive":
            first = Task(left.recv, timeout=LIMIT)
            calls = [left.recv, left.recv_many, lambda **how: left.recv_into(bytearray(9), **how)]
        else:
            first = Task(left.send, noise(300_000), timeout=LIMIT)
            calls = [lambda **how: left.send(b"x", **how), lambda **how: left.send_many([b"x"], **how), left.flush]
        wait_for_turn_taken(left.recv if direction == "receive" else left.flush)
        for call in calls:
            begun = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out"):
                call(timeout=0.05)
            assert 0.05 <= time.monotonic() - begun < 5
            with pytest.raises(BlockingIOError, match="another thread is at work"):
                call(timeout=0)
        waiting = Task(calls[0], timeout=LIMIT)
        time.sleep(0.05)
        if direction == "receive":
            right.send_many([b"one", b"two"])
            assert {first.result(), waiting.result()} == {b"one", b"two"}
        else:
            assert [right.recv(timeout=LIMIT), right.recv(timeout=LIMIT)] == [noise(300_000), b"x"]
            first.result()
            waiting.result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_close_wakes_all_that_wait(wing: Any, kind: str, timeout: float | None) -> None:
    """K3."""
    left, right = KINDS[kind]()
    with right:
        conn = wing.FramedSocket(left, LengthPrefix())
        left.settimeout(None)
        calls = [conn.recv, conn.recv_many, lambda **how: conn.recv_into(bytearray(9), **how)]
        tasks = [Task(call, timeout=timeout) for call in calls]
        tasks.append(Task(conn.send, bytes(8 << 20), timeout=timeout))
        assert select.select([right], [], [], LIMIT)[0], "the large frame goes first"
        tasks.append(Task(conn.send_many, [b"x"], timeout=timeout))
        time.sleep(0.1)
        begun = time.monotonic()
        conn.close()
        for task in tasks:
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                task.result()
            assert caught.value.errno == errno.EBADF
        assert time.monotonic() - begun < 5
        assert left.fileno() == -1
        assert conn.closed


@pytest.mark.skipif(os.name == "nt", reason="on Windows the numbers of sockets are not those of files")
def test_a_number_that_is_another_file_now_is_never_touched(wing: Any, tmp_path: Path) -> None:
    for waits in ("recv", "send"):
        left, right = socket.socketpair()
        number = left.fileno()
        conn = wing.FramedSocket(left, LengthPrefix())
        task = Task(conn.recv) if waits == "recv" else Task(conn.send, bytes(8 << 20))
        time.sleep(0.05)
        conn.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.result(5)
        path = tmp_path / waits
        path.write_bytes(b"contents")
        file = os.open(path, os.O_RDWR)
        os.dup2(file, number)  # whoever still used the number would use this file
        try:
            for call in (conn.recv, lambda conn=conn: conn.send(b"x"), conn.flush, conn.detach, conn.close):
                if call != conn.close:
                    with pytest.raises(OSError, match="Bad file descriptor"):
                        call()
                else:
                    call()
            assert conn.fileno() == -1
            assert os.lseek(number, 0, os.SEEK_CUR) == 0
            assert path.read_bytes() == b"contents"
            os.fstat(number)
        finally:
            os.close(number)
            if file != number:
                os.close(file)
            right.close()


def test_the_raw_socket_closed_elsewhere_is_an_error(wing: Any) -> None:
    """S11."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        left.sock.close()
        for call in (left.recv, lambda: left.send(b"x"), lambda: left.send_many([b"x"])):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == (errno.ENOTSOCK if os.name == "nt" else errno.EBADF)


@pytest.mark.parametrize("how", ["send", "list", "iterator"])
def test_a_payload_that_another_thread_resizes_or_changes(wing: Any, how: str) -> None:
    """K9, J3, J4."""
    for change in ("resize", "write"):
        left, right = wing.pair(LengthPrefix(), SO_SNDBUF=5000)
        payload = bytearray(noise(300_000))
        with left, right:
            task = Task(left.send, payload, timeout=LIMIT) if how == "send" else Task(
                left.send_many, [payload] if how == "list" else iter([payload]), timeout=LIMIT)
            while not right.sock.recv(1, socket.MSG_PEEK):
                pass
            if change == "resize":
                try:
                    payload += bytes(1 << 20)
                    payload.clear()
                except BufferError:
                    assert wing.name == "core", "the pure wing holds a copy"
            else:
                payload[:] = bytes(len(payload))
            frame = right.recv(timeout=LIMIT)
            task.result()
            assert len(frame) == 300_000
            assert change == "write" or frame == noise(300_000)
            payload += b"free again"
