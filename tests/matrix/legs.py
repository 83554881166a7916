"""The legs: what each one is, what it needs, and what it runs.

Commands are lines for `sh` that run in a fresh copy of the last commit, one shell each. `$PYTHON` is the interpreter
that the leg asked for, `$HEART` the test files of the heart. A need is told by a line that fails where it is missing,
beside what brings it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The suite's heart: each room, each way in and each framing once. `.ci/run` runs it too, on the pure wing.
HEART = tuple(f"tests/test_{name}.py" for name in (
    "house", "interpreters", "cli", "docs", "sockets", "codec", "receive", "send", "selector", "server", "tls", "forks",
    "fuzz_corpus",
))


@dataclass(frozen=True)
class Need:
    """Something that must be there: `probe` fails where it is not, and `get` tells how to have it."""

    what: str
    probe: str
    get: str


@dataclass(frozen=True)
class Leg:
    """One row of the matrix; `version` prints, in a line, what it ran on."""

    name: str
    what: str
    suite: str
    run: tuple[str, ...]
    version: str = "$PYTHON -VV"
    python: str = ""              # the interpreter's name, to be found among the Pythons, or in the root
    root: str = ""                # the name of the tree of another system that all of it runs in
    get: str = ""                 # how to have the interpreter
    needs: tuple[Need, ...] = ()


def program(name: str, package: str) -> Need:
    """Return the need for a program, which a Debian package of that name brings."""
    return Need(name, f"command -v {name}", f"apt-get install {package}")


MAKE = program("make", "make")
GCC = program("gcc", "gcc libc6-dev")

#: What prints sizes and 64-bit numbers as C11 says, with Microsoft's old C library too; gcc's warnings don't know.
MINGW = ('CC="x86_64-w64-mingw32-gcc -D__USE_MINGW_ANSI_STDIO=1 -static" EXE=.exe RUN=wine WARNINGS="-std=c11 -Wall '
         '-Wextra -Wpedantic -Wconversion -Wshadow -Wno-format -Wno-format-extra-args -Werror"')

#: gcc has 32-bit headers for C, but not the kernel's, which gcc-multilib brings and no cross-compiler lives beside.
M32 = "gcc -m32 -idirafter /usr/include/$(gcc -print-multiarch)"

C_LEGS = (
    Leg("gcc", "gcc", "C tests", ("make -C csrc lint test CC=gcc", "grep -q fsanitize csrc/build/sanitize"),
        "gcc --version", needs=(MAKE, GCC)),
    Leg("clang", "clang", "C tests", ("make -C csrc lint test CC=clang", "grep -q fsanitize csrc/build/sanitize"),
        "clang --version", needs=(MAKE, program("clang", "clang libclang-rt-dev"))),
    Leg("m32", "32-bit x86, without and with SSE2", "C tests",
        (f'make -C csrc test CC="{M32}"', "grep -q fsanitize csrc/build/sanitize",
         f'make -C csrc test CC="{M32} -msse2"'),
        "gcc --version",
        needs=(MAKE, GCC, Need("a C library of 32 bits",
                               f"echo 'int main(void) {{ return 0; }}' | {M32} -x c - -o /dev/null",
                               "apt-get install gcc-12-multilib (of gcc's version)"))),
    Leg("musl", "musl's C library", "C tests", ("make -C csrc test CC=musl-gcc",),
        "dpkg-query -W -f 'musl ${Version}\\n' musl",
        needs=(MAKE, program("musl-gcc", "musl-tools"))),
    Leg("s390x", "big-endian s390x, by qemu", "C tests",
        ('make -C csrc test CC="s390x-linux-gnu-gcc -static" RUN=qemu-s390x-static',),
        "s390x-linux-gnu-gcc --version",
        needs=(MAKE, program("s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu libc6-dev-s390x-cross"),
               program("qemu-s390x-static", "qemu-user-static"))),
    Leg("windows", "64-bit Windows, by mingw-w64 and Wine: all but the system calls", "C tests",
        (f'export WINEPREFIX="$PWD/wine" WINEDEBUG=-all; make -C csrc parser {MINGW}; wineserver -w',),
        "x86_64-w64-mingw32-gcc --version",
        needs=(MAKE, program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64"), program("wine", "wine wine64"))),
)

LEGS = {leg.name: leg for leg in C_LEGS}
