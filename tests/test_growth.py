"""Nothing grows, however often it is done, and lying peers cost what they sent: in small; in full by
`python -m tests.growth`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from growth import meter, peers
from growth.runner import fresh

pytestmark = pytest.mark.skipif(
    not hasattr(sys, "getallocatedblocks") or not Path("/proc/self/smaps_rollup").exists(),
    reason="only CPython counts blocks of memory, and only Linux tells so exactly what a process holds")

#: Works that nothing else counts: servers, whose connections end in all ways, or by what their handlers raise.
WORKS = [("connections", "server: threads"), ("connections", "server: select"), ("connections", "event loop"),
         ("errors", "server: threads"), ("errors", "server: select"), ("errors", "event loop")]


@pytest.mark.parametrize(("kind", "name"), WORKS, ids=str)
def test_nothing_grows(wing: Any, kind: str, name: str) -> None:
    """G12: an object or a descriptor that each of four hundred connections leaves behind is too much."""
    samples = [meter.Sample(*each) for each in fresh(wing.name, kind, name, "400")]
    assert meter.wrong(samples) == []


@pytest.mark.parametrize("name", [*peers.RECEIVERS, "server: threads"])
def test_lying_peers_cost_what_they_sent(wing: Any, name: str) -> None:
    """G1, G2: a hundred, each of which announces a gibibyte, by what the system says; address space too."""
    found = fresh(wing.name, "peers", f"{name}, up to 100 KB", "100")
    assert found["resident"] <= found["law"]
    assert found["space"] <= found["law"]


@pytest.mark.parametrize("leak", [lambda kept, file: kept.append(object()), lambda kept, file: kept.append(file()),
                                  lambda kept, file: kept.append(bytes(1000))], ids=["object", "file", "bytes"])
def test_what_grows_is_found(leak: Callable[[list[Any], Callable[[], Any]], None]) -> None:
    @contextmanager
    def work() -> Iterator[Any]:
        kept: list[Any] = []
        yield lambda count: [leak(kept, lambda: open("/dev/null", "rb", 0)) for _ in range(count)]  # noqa: SIM115
        for each in kept:
            if hasattr(each, "close"):
                each.close()

    assert meter.wrong(meter.measure(work, 500))
