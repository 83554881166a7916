"""More than one copy of the package: in interpreters of one process, and loaded again in one interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from scripted import LIMIT

#: Frames through a socket pair and a selector, on the wing that the name says.
USE = """
def use(sockframe, wing):
    import socket
    assert sockframe.wing == wing, (sockframe.wing, sockframe._wing.why_not_core)
    left, right = (sockframe.FramedSocket(sock, sockframe.LengthPrefix()) for sock in socket.socketpair())
    with left, right, sockframe.FrameSelector() as selector:
        selector.register(right, "it")
        left.send_many([b"one", b"", bytes(100_000)])
        frames = []
        while len(frames) < 3:
            frames += [frame for _, more in selector.select(20) for frame in more]
        assert frames == [b"one", b"", bytes(100_000)]
        try:
            right.recv(timeout=0)
        except BlockingIOError:
            pass
"""

#: Modules that make interpreters: public from 3.14 on, before that for the standard library's own tests.
INTERPRETERS = """
import sys
script = USE + "import sockframe, socket; use(sockframe, wing)"
if sys.version_info >= (3, 14):
    from concurrent import interpreters

    def run():
        one = interpreters.create()
        one.prepare_main(wing=WINGS[0])
        one.exec(script)
        one.close()
else:
    try:
        import _interpreters
    except ImportError:
        import _xxsubinterpreters as _interpreters

    def run():
        one = _interpreters.create() if sys.version_info < (3, 13) else _interpreters.create("isolated")
        failed = _interpreters.run_string(one, f"wing = {WINGS[0]!r}\\n" + script)
        _interpreters.destroy(one)
        assert not failed, failed
"""


def run(script: str, choice: str) -> None:
    """Run a script in a process of its own, where SOCKFRAME_CORE is `choice`."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"USE = {USE!r}\n{USE}\n{script}"], text=True,
                          env={**os.environ, "SOCKFRAME_CORE": choice}, timeout=LIMIT * 6, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy has one interpreter")
def test_another_interpreter_has_the_pure_wing(wing: Any) -> None:
    """K11: the core is loaded once in a process; whoever comes later is told why, and works all the same."""
    choice = "" if wing.name == "core" else "0"
    run(f"""
WINGS = ["pure"]
{INTERPRETERS}
import sockframe
use(sockframe, {wing.name!r})
run()
run()
use(sockframe, {wing.name!r})
""", choice)


def test_a_copy_that_is_loaded_later_has_the_pure_wing(wing: Any) -> None:
    """K17: it is told why, and the copies share nothing; reloading the package itself changes nothing."""
    run(f"""
import sys, importlib
import sockframe as old
use(importlib.reload(old), {wing.name!r})
decoder, framing = old.Decoder(old.Lines()), old.Lines()
for name in [name for name in sys.modules if name.partition(".")[0] == "sockframe"]:
    del sys.modules[name]
import sockframe as new
assert new is not old
assert {wing.name!r} == "pure" or "a copy of sockframe that was loaded before" in new._wing.why_not_core
for package, name in ((old, {wing.name!r}), (new, "pure"), (importlib.reload(new), "pure")):
    use(package, name)
assert decoder.decode(b"a\\nb") == [b"a"]
try:
    new.Decoder(framing)
except TypeError as error:
    assert "framing must be a Framing" in str(error)
else:
    raise AssertionError("a framing of another copy")
""", "" if wing.name == "core" else "0")


@pytest.mark.skipif(os.environ.get("SOCKFRAME_CORE") == "0", reason="SOCKFRAME_CORE is 0")
def test_a_later_copy_that_must_have_the_core_is_refused() -> None:
    """K17: with SOCKFRAME_CORE=1, in words."""
    run("""
import sys
import sockframe
for name in [name for name in sys.modules if name.partition(".")[0] == "sockframe"]:
    del sys.modules[name]
try:
    import sockframe
except ImportError as error:
    assert "SOCKFRAME_CORE is 1, but the core can't be loaded: the core belongs to a copy" in str(error), error
else:
    raise AssertionError("two copies over one core")
""", "1")
