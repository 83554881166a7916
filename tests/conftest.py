"""Both wings for every behaviour test: a missing core is an error unless SOCKFRAME_CORE is 0."""

from __future__ import annotations

import asyncio.constants
import gc
import importlib
import os
import signal
import socket
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings

import sockframe.selectors
import sockframe.sockets

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's job in the background: what the tests start would have no Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of each handle and task, a loop in debug mode keeps ten frames of where it was made, with a stat(2) of each file: most
# of the time that its tests take, and nobody reads them here.
asyncio.constants.DEBUG_STACK_DEPTH = 1

WINGS = ("pure",) if os.environ.get("SOCKFRAME_CORE") == "0" else ("core", "pure")

#: Whether this Python can do without the GIL.
FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have `-n auto` start three processes for two processors: a third of the time goes by in tests that wait."""
    affinity = getattr(os, "sched_getaffinity", None)
    return ((len(affinity(0)) if affinity else os.cpu_count() or 1) * 3 + 1) // 2


#: The files whose tests pytest-run-parallel may run by several threads at once; others measure, fork, signal, start
#: programs, have threads of their own, or take long enough as it is.
AT_ONCE = {f"test_{name}" for name in ("batch", "buffers", "framings")}

#: Why a test of those runs alone.
ALONE = {
    "test_in_the_core_payloads_are_not_copied": "it measures the memory of the whole process",
    "test_a_batch_holds_no_more_than_four_times_its_bytes": "it measures the memory of the whole process",
    "test_an_empty_batch_holds_nothing": "it measures the memory of the whole process",
    "test_any_writable_buffer_is_a_target": "its target would be written by all at once",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse megabytes in the name of a test, which pytest puts into the environment at each step, and addresses, which
    are others in each process of pytest-xdist."""
    for item in items:
        assert len(item.nodeid) < 1000, f"give {item.nodeid[:100]}... an id"
        assert " at 0x" not in item.nodeid, f"give {item.nodeid} an id"
        if hasattr(config.option, "parallel_threads"):
            name = getattr(item, "originalname", item.name)
            reason = ALONE.get(name) if item.path.stem in AT_ONCE else "its file is not listed in AT_ONCE"
            if reason is not None:
                item.add_marker(pytest.mark.thread_unsafe(reason=reason))


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Spare the collector the tests themselves, half a million objects, and what pytest keeps of those that have run,
    some dozens each: every time that a test calls it."""
    if hasattr(gc, "freeze"):  # not so in PyPy
        gc.collect()
        gc.freeze()


@dataclass(frozen=True)
class Wing:
    """One implementation: what `sockframe` exports of it, whichever is in use."""

    name: str
    AsyncFrames: Any
    Encoder: Any
    Decoder: Any
    FrameBatch: Any
    StreamBuffer: Any
    Connection: Any
    FramedSocket: Any
    FrameSelector: Any

    def pair(self, framing: Any, **buffers: int) -> tuple[Any, Any]:
        """Return two connected `FramedSocket`s over a socketpair, with `SO_SNDBUF` and the like set."""
        sockets = socket.socketpair()
        for sock in sockets:
            for option, size in buffers.items():
                sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), size)
        return self.FramedSocket(sockets[0], framing), self.FramedSocket(sockets[1], framing)


def load_wing(name: str) -> Wing:
    """Import one wing, with a FramedSocket over its Connection."""
    module = importlib.import_module(f"sockframe._{name}")
    framed = type("FramedSocket", (sockframe.sockets.SocketMethods, module.Connection), {"__slots__": ()})
    selector = type("FrameSelector", (sockframe.selectors.FrameSelector,),
                    {"_receive": staticmethod(module.receive_ready)})
    return Wing(name, module.AsyncFrames, module.Encoder, module.Decoder, module.FrameBatch, module.StreamBuffer,
                module.Connection, framed, selector)


@pytest.fixture(scope="session", params=WINGS)
def wing(request: pytest.FixtureRequest) -> Wing:
    """Each wing in turn."""
    return load_wing(request.param)


@pytest.fixture(scope="session")
def wings() -> list[Wing]:
    """Both wings, for tests that run them in step."""
    return [load_wing(name) for name in WINGS]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Let no callback of the collector run (hypothesis has one): it is no part of a call, and what a signal handler
    raises inside it is swallowed."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def alone() -> None:
    """Wait until no other thread runs, whose allocations would fail in place of ours."""
    deadline = time.monotonic() + 20
    while others := [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]:
        assert time.monotonic() < deadline, f"an earlier test left threads behind: {', '.join(others)}"
        time.sleep(0.01)
