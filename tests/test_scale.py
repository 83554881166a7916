"""Many connections, many bytes, and peers that do not read: memory stays as it is, and a deadline ends what waits."""

from __future__ import annotations

import gc
import resource
import socket
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import FREE
from scripted import KINDS, LIMIT, Task, noise
from serving import of_wing

from sockframe import UNLIMITED, LengthPrefix

MiB = 1 << 20

#: Bytes that a connection may take beyond its socket, and what a selector adds: two places in its tables.
CONNECTION, REGISTERED = 512, 32

#: Bytes of a socket object, and what a connection of a select server may take beyond it.
SOCKET, SERVED = 104, {"core": 512, "pure": 680}


@pytest.fixture
def descriptors() -> Iterator[int]:
    """Let the process have as many descriptors as it may; say how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 21_000 if hard == resource.RLIM_INFINITY else min(21_000, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield max(soft, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_idle_connections_and_then_a_frame_of_each(wing: Any, descriptors: int) -> None:
    """P4, S10: each connection takes as little as the law says, before and after; where the system allows fewer
    descriptors than 10,000 pairs need, there are as many as it allows."""
    count = min(10_000, (descriptors - 300) // 2)
    framing = LengthPrefix()
    pairs = [socket.socketpair() for _ in range(count)]
    gc.collect()
    tracemalloc.start()
    try:
        with wing.FrameSelector() as selector:
            begun = tracemalloc.get_traced_memory()[0]
            conns = [wing.FramedSocket(ours, framing) for ours, _ in pairs]
            used = (tracemalloc.get_traced_memory()[0] - begun) / count - 8  # the list has 8 bytes for each
            assert used <= CONNECTION, f"{used} bytes for each of {count} connections"
            for number, conn in enumerate(conns):
                selector.register(conn, pairs[number])
            for _, peer in pairs:
                peer.send(b"\0\0\0\7a frame")
            heard = 0
            while heard < count:
                results = selector.select(LIMIT)
                assert results, f"only {heard} of {count} frames came"
                assert all(frames == [b"a frame"] for _, frames in results)
                heard += len(results)
            del results
            gc.collect()
            used = (tracemalloc.get_traced_memory()[0] - begun) / count - 8
            assert used <= CONNECTION + REGISTERED, f"{used} bytes for each of {count} registered connections"
            assert selector.select(0) == []
    finally:
        tracemalloc.stop()
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_ten_thousand_idle_connections_of_a_select_server(wing: Any, descriptors: int) -> None:
    """P4: each takes little beyond its socket, and each is served."""
    count = min(10_000, (descriptors - 300) // 2)
    frame = b"\0\0\0\7a frame"
    peers = [socket.socket() for _ in range(count)]
    server = of_wing(wing)(bytes, ("127.0.0.1", 0), LengthPrefix(), mode="select", max_connections=count,
                         backlog=count)
    with server:
        task = Task(server.serve_forever)
        gc.collect()
        tracemalloc.start()
        try:
            begun = tracemalloc.get_traced_memory()[0]
            for peer in peers:
                peer.settimeout(LIMIT)
                peer.connect(server.address)
            for peer in peers:
                peer.sendall(frame)
            for peer in peers:
                assert peer.recv(100) == frame
            assert server.connections == count
            gc.collect()
            used = (tracemalloc.get_traced_memory()[0] - begun) / count - SOCKET
            most = SERVED[wing.name] + (64 if FREE else 0)  # each object is 16 bytes larger where there is no GIL
            assert used <= most, f"{used} bytes for each of {count} connections"
        finally:
            tracemalloc.stop()
            for peer in peers:
                peer.close()
    task.result()


@pytest.mark.parametrize("kind", KINDS)
def test_peers_that_both_send_first_wait_until_their_deadlines(wing: Any, kind: str) -> None:
    """P5: neither reads; nothing is lost, and as each reads while it sends, both get all of it."""
    framing = LengthPrefix(max_length=UNLIMITED)
    left, right = (wing.FramedSocket(sock, framing) for sock in KINDS[kind]())
    payloads = [noise(10 * MiB, 1), noise(10 * MiB, 2)]
    with left, right:
        for conn, payload in ((left, payloads[0]), (right, payloads[1])):
            with pytest.raises(TimeoutError):
                conn.send(payload, timeout=0.05)
            assert 0 < conn.unsent < 10 * MiB
            with pytest.raises(TimeoutError):
                conn.flush(timeout=0.01)
        tasks = [Task(conn.flush, timeout=LIMIT * 3) for conn in (left, right)]
        other = Task(left.recv, timeout=LIMIT * 3)
        assert right.recv(timeout=LIMIT * 3) == payloads[0]
        assert other.result(LIMIT * 3) == payloads[1]
        for task in tasks:
            task.result()


@pytest.mark.parametrize("size", [3000, 300_000])
def test_memory_stays_flat_while_a_slow_reader_holds_the_sender_back(wing: Any, size: int) -> None:
    """P8, G11: 32 MiB from an iterator, of which little more is pulled than the peer takes, and little is held."""
    left, right = wing.pair(LengthPrefix())
    count = 32 * MiB // size
    payload = noise(size)
    pulled = 0

    def payloads() -> Iterator[bytes]:
        nonlocal pulled
        while pulled < count:
            pulled += 1
            yield payload

    with left, right:
        tracemalloc.start()
        try:
            begun = tracemalloc.get_traced_memory()[0]
            task = Task(left.send_many, payloads(), timeout=None)
            for number in range(count):
                assert right.recv(timeout=LIMIT) == payload
                # What the kernel holds, and one batch.
                assert (pulled - number) * size <= 4 * MiB, "the peer has not read so far"
            task.result()
            peak = tracemalloc.get_traced_memory()[1] - begun
        finally:
            tracemalloc.stop()
        assert pulled == count
        assert peak <= 2 * MiB, f"{peak} bytes"
