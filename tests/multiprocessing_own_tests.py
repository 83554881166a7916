"""CPython's own tests of multiprocessing's connections, as they are installed, with the names replaced: a program.

Its arguments are the wing that must be in use and the names of the test classes of `test._test_multiprocessing`.
"""

import multiprocessing.connection
import sys
import unittest
from typing import Any

import sockframe
from sockframe.drop_in import multiprocessing as drop_in

ORIGINAL = multiprocessing.connection.Connection
THREAD_POOL = "WithThreadsTestPool"  # has no connections, and its test_terminate may wait five minutes for a sleeper
MADE = 0


class Counted(drop_in.Connection):
    """A connection of sockframe's, which is counted."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        global MADE
        MADE += 1
        super().__init__(*args, **keywords)


def refuse(*args: Any, **keywords: Any) -> None:
    """No connection of the original's is made, and none of its system calls."""
    raise AssertionError("the original is at work")


def replace() -> None:
    """Put the drop-in's names into the original's place."""
    for name in drop_in.__all__:
        setattr(multiprocessing.connection, name, getattr(drop_in, name))
    for name in ("_send", "_recv", "_recv_bytes"):
        setattr(ORIGINAL, name, refuse)


def main(wing: str, *names: str) -> None:
    """Run the tests of some classes."""
    from test import _test_multiprocessing as own

    assert sockframe.wing == wing
    made: dict[str, Any] = {"__name__": __name__}
    own.install_tests_in_module_dict(made, "fork")
    globals().update(made)
    suite = unittest.TestSuite()
    for name in names:
        kinds = {f"With{kind}{name[1:]}" for kind in ("Processes", "Threads", "Manager")} if name[0] == "_" else {name}
        found = [made[kind] for kind in sorted(kinds - {THREAD_POOL}) if kind in made]
        assert found, f"there is no {name} on this Python"
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(kind) for kind in found)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    assert result.wasSuccessful()
    print(result.testsRun, len(result.skipped))


replace()
if __name__ == "__main__":
    main(*sys.argv[1:])
