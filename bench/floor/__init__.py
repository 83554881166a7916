"""The C floor: what C alone, made of `csrc` and nothing else, takes for the same work.

The files beside this one are compiled with `csrc` into a library, once for each state of the sources, below the
system's directory for temporary files. Where there is no C compiler, there is no floor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..streams import Run, Work

FOLDER = Path(__file__).parent
CSRC = FOLDER.parent.parent / "csrc"

IN_PLACE, COPIES, KEEPS = range(3)

FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-shared", "-fPIC"]

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "floor_decode": (ctypes.c_int64, [_INT, _INT, _POINTER, _SIZE, ctypes.c_int64, _POINTER, _POINTER]),
    "floor_receive": (ctypes.c_int64, [_INT, _INT, _INT, _POINTER, _POINTER]),
    "floor_send": (_INT, [_INT, _INT, _POINTER, _SIZE, _SIZE, ctypes.c_int64]),
    "floor_reply": (None, [_INT]),
    "floor_ask": (_INT, [_INT, _POINTER, _SIZE, ctypes.c_int64]),
    "echo_serve": (_INT, [_INT]),
    "echo_connect": (_INT, [_INT, _POINTER, _SIZE, _POINTER, _SIZE]),
    "echo_fly": (_INT, [_POINTER, _SIZE, _POINTER, _SIZE, _SIZE]),
}


def compiled() -> Path:
    """Return the library's path; compile it where that was not yet done."""
    sources = sorted([*FOLDER.glob("*.c"), *CSRC.glob("*.c")])
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, f"-I{CSRC}", *map(str, sources)]
    state = hashlib.sha256(repr(command).encode())
    for path in [*sources, *sorted([*FOLDER.glob("*.h"), *CSRC.glob("*.h")])]:
        state.update(path.read_bytes())
    folder = Path(tempfile.gettempdir(), f"sockframe-bench-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ImportError(f"{folder} belongs to somebody else")
    library = folder / f"floor-{state.hexdigest()[:16]}.so"
    if not library.exists():
        new = library.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run([*command, "-o", str(new)], check=True, capture_output=True, text=True)
        except OSError as error:
            raise ImportError(f"the C floor needs a C compiler: {error}") from None
        except subprocess.CalledProcessError as error:
            raise ImportError(f"the C floor does not compile: {error.stderr}") from None
        new.rename(library)
    return library


@functools.cache
def library() -> ctypes.CDLL:
    """Return the C floor, its functions with their types. Raises `ImportError` where there is none."""
    loaded = ctypes.CDLL(str(compiled()))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name, None)
        if function is None:  # what stands on epoll is Linux's alone
            raise ImportError(f"the C floor has no {name} on this system")
        function.restype, function.argtypes = result, arguments
    return loaded


class Kept:
    """Room for the payloads of a work, to be checked."""

    def __init__(self, work: Work) -> None:
        self._count = work.count
        self._bytes = ctypes.create_string_buffer(work.count * work.size + 1)
        self._stops = (ctypes.c_uint64 * work.count)()
        self.room = (ctypes.addressof(self._bytes), ctypes.addressof(self._stops))

    def payloads(self, count: int) -> Iterator[list[bytes]]:
        """Yield the payloads that C kept: `count` of them, it says."""
        stops = self._stops[:count]
        data = memoryview(self._bytes)
        yield [bytes(data[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]


def decoder(mode: int, work: Work) -> Run:
    """Return C's decoding of a stream from memory."""
    decode, kept = library().floor_decode, Kept(work)
    stream = work.stream()

    def run(mode: int, times: int) -> int:
        count: int = decode(work.crlf, mode, stream, len(stream), times, *kept.room)
        if count != work.count * times:
            raise ValueError(f"C found {count} frames, not {work.count * times}")
        return count

    return Run(lambda: kept.payloads(run(KEEPS, 1)), functools.partial(run, mode))
