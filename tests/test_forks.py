"""Processes that are forked: a child never hangs, shares the stream or closes it, and its parent notices nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT

#: What every script below begins with; `child` runs a function in a forked process and returns its exit code.
START = """
import os, signal, socket, sys, threading, time, traceback
sys.path.insert(0, sys.argv[1])
from scripted import LIMIT, Task, wait_for_turn_taken, with_own_methods
from sockframe import FramedSocket, FrameSelector, LengthPrefix

left, right = with_own_methods() if sys.argv[2] == "own" else socket.socketpair()
left, right = FramedSocket(left, LengthPrefix()), FramedSocket(right, LengthPrefix())

def child(function):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(int(LIMIT))  # a child that hangs is killed
            function()
            os._exit(0)
        except BaseException as error:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def raises(text, call):
    try:
        call()
    except OSError as error:
        assert text in str(error), error
        return
    raise AssertionError(f"{call} raised nothing")
"""

#: A thread is at work, sending.
SENDING = """
task = Task(left.send, bytes(8 << 20), timeout=LIMIT)
wait_for_turn_taken(left.flush)
"""


def run(wing: Any, kind: str, script: str) -> None:
    """Run a script in a process of its own, where it may fork while it has threads."""
    done = subprocess.run([sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", START + script,
                           str(Path(__file__).parent), kind], text=True, timeout=LIMIT * 6, check=False,
                          env={**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


KINDS = pytest.mark.parametrize("kind", ["plain", "own"])


@KINDS
def test_a_child_uses_the_connection_that_it_was_forked_with(wing: Any, kind: str) -> None:
    """K10: the parent serves others, as servers do, and closes its own."""
    run(wing, kind, """
def answer():
    right.close()
    assert left.recv(timeout=LIMIT) == b"question"
    left.send(b"answer")
    left.close()

right.send(b"question")
assert child(answer) == 0
left.close()
assert right.recv(timeout=LIMIT) == b"answer"
assert list(right) == []
""")


@KINDS
def test_a_child_keeps_the_bytes_that_were_held(wing: Any, kind: str) -> None:
    """K10: both have what had been received, and it is for them to agree who takes it."""
    run(wing, kind, """
right.send_many([b"one", b"two", b"three"])
assert left.recv(timeout=LIMIT) == b"one"

def take():
    assert left.pending()
    assert [left.recv(timeout=0), left.recv(timeout=0)] == [b"two", b"three"]

assert child(take) == 0
take()
""")


@KINDS
@pytest.mark.parametrize("direction", ["receive", "send"])
def test_a_child_never_waits_for_a_thread_that_stayed_behind(wing: Any, kind: str, direction: str) -> None:
    """K10: where another thread has the turn at the fork, the child is told; the other direction is free, it may
    close the connection, and its parent goes on."""
    run(wing, kind, f"""
direction = {direction!r}
big = bytes(8 << 20)
if direction == "receive":
    task = Task(left.recv, timeout=LIMIT)
    calls = [left.recv, left.recv_many, left.recv_batch, lambda: left.recv_into(bytearray(9)), lambda: next(left),
             left.detach, lambda: left.recv(timeout=0)]
else:
    task = Task(left.send, big, timeout=LIMIT)
    calls = [lambda: left.send(b"x"), lambda: left.send_many([b"x"]), left.flush, left.detach,
             lambda: left.shutdown(socket.SHUT_WR), lambda: left.flush(timeout=0)]
wait_for_turn_taken(left.recv if direction == "receive" else left.flush)

def use():
    assert left.gettimeout() is None
    left.settimeout(LIMIT)
    for call in calls * 2:
        raises("another thread was at work with the connection when the process forked", call)
    if direction == "receive":
        left.send(b"from the child")
    else:
        assert left.recv() == b"for the child"
    assert not left.closed
    left.close()
    assert left.closed and left.sock.fileno() == -1
    raises("Bad file descriptor", left.recv)

if direction == "send":
    right.send(b"for the child")
assert child(use) == 0
if direction == "receive":
    assert right.recv(timeout=LIMIT) == b"from the child"
    right.send(b"still here")
    assert task.result() == b"still here"
else:
    assert right.recv(timeout=LIMIT) == big
    task.result()
left.send(b"last")
assert right.recv(timeout=LIMIT) == b"last"
""")


@KINDS
def test_a_childs_child_knows_as_much(wing: Any, kind: str) -> None:
    """K10: it receives, and can't send, since a thread of the first process was at that."""
    run(wing, kind, SENDING + """
def use():
    raises("no whole frame has arrived", lambda: left.recv(timeout=0))
    for call in (left.flush, lambda: left.send(b"x")):
        raises("another thread was at work with the connection when the process forked", call)

def use_twice():
    use()
    assert child(use) == 0

assert child(use_twice) == 0
right.recv(timeout=LIMIT)
task.result()
""")


@KINDS
def test_a_childs_thread_is_not_taken_for_one_that_stayed_behind(wing: Any, kind: str) -> None:
    """K10: the first thread that a child starts has the number of the parent's last, as a rule."""
    run(wing, kind, SENDING + """
def use():
    text = "another thread was at work with the connection when the process forked"
    for _ in range(3):
        Task(raises, text, left.flush).result()
        raises(text, lambda: left.send(b"x", timeout=LIMIT))

assert child(use) == 0
right.recv(timeout=LIMIT)
task.result()
""")


@KINDS
def test_threads_of_a_child_take_turns(wing: Any, kind: str) -> None:
    """K10: among themselves, also where one of the parent's was at work the other way; and so does a child's child."""
    run(wing, kind, SENDING + """
def receive():
    tasks = [Task(left.recv, timeout=LIMIT) for _ in range(4)]
    wait_for_turn_taken(left.recv)
    raises("timed out", lambda: left.recv(timeout=0.01))
    right.send_many([b"a", b"b", b"c", b"d"])
    assert sorted(task.result() for task in tasks) == [b"a", b"b", b"c", b"d"]

def receive_twice():
    receive()
    assert child(receive) == 0

assert child(receive_twice) == 0
right.recv(timeout=LIMIT)
task.result()
""")


@KINDS
def test_a_fork_inside_a_call_belongs_to_the_call(wing: Any, kind: str) -> None:
    """K10: the thread that forks goes on in both processes, each with a call at work."""
    run(wing, kind, """
def payloads():
    yield b"one"
    assert child(refused) == 0
    yield b"two"

def refused():
    try:
        left.send(b"no")
    except RuntimeError as error:
        assert "already at work" in str(error)
    left.close()

left.send_many(payloads())
assert [right.recv(timeout=LIMIT), right.recv(timeout=LIMIT)] == [b"one", b"two"]
""")


def test_a_selector_belongs_to_its_process(wing: Any) -> None:
    """K10: a child that closes what it was forked with takes nothing off the list that its parent waits by."""
    run(wing, "plain", """
selector = FrameSelector()
selector.register(left, "left")

def close_all():
    for call in (lambda: selector.select(0), lambda: selector.register(right), lambda: selector.unregister(left)):
        raises("the selector belongs to the process that this one was forked from", call)
    left.close()
    right.close()
    selector.close()

assert child(close_all) == 0
right.send(b"x")
((key, frames),) = selector.select(LIMIT)
assert (key.data, frames) == ("left", [b"x"])
selector.close()
""")


@KINDS
def test_a_childs_own_selector_tells_of_a_turn_that_is_gone(wing: Any, kind: str) -> None:
    """K10: as of a connection that failed, once."""
    run(wing, kind, """
task = Task(left.recv, timeout=LIMIT)
wait_for_turn_taken(left.recv)

def select():
    with FrameSelector() as selector:
        selector.register(left, "left")
        right.sock.shutdown(socket.SHUT_WR)  # the end stays to be seen, whoever else sees it
        ((key, error),) = selector.select(LIMIT)
        assert "another thread was at work" in str(error), error
        assert len(selector) == 0

assert child(select) == 0
try:
    task.result()
except EOFError:
    pass
else:
    raise AssertionError("the stream has ended")
""")
