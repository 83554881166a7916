"""The command of the fuzzer: `python -m tests.fuzz --seconds 3600`, from the project's root."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

#: How the core is built for --sanitize: with coverage for libFuzzer too, all else as ever.
BUILD = {
    "CC": "clang", "LDSHARED": "clang -shared", "SOCKFRAME_CORE": "1",
    "CFLAGS": "-g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=undefined "
              "-fsanitize=address,undefined,fuzzer-no-link",
}


def missing(what: str) -> NoReturn:
    """Say what to install."""
    raise SystemExit(f"{what}; install what fuzzing needs: pip install --group fuzz (atheris has wheels for CPython "
                     "3.11 and newer on Linux), and clang for --sanitize. Without any of it: --random")


def sanitized(arguments: "list[str]") -> NoReturn:
    """Build a core with the sanitizers in a place of its own, and run again with it."""
    try:
        import atheris
        import Cython  # noqa: F401
        import setuptools  # noqa: F401
    except ImportError as error:
        missing(str(error))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "setup.py", "-q", "build", "--build-base", folder, "--build-lib", f"{folder}/lib"]
        try:
            subprocess.run(command, cwd=ROOT, env={**os.environ, **BUILD}, check=True)
        except subprocess.CalledProcessError as error:
            missing(str(error))
        again = [sys.executable, "-m", "tests.fuzz", *arguments]
        raise SystemExit(subprocess.run(again, cwd=ROOT, check=False, env={
            **os.environ, "PYTHONPATH": f"{folder}/lib", "LD_PRELOAD": f"{atheris.path()}/asan_with_fuzzer.so",
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=32", "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        }).returncode)


def at_random(seed: int) -> "Iterator[bytes]":
    """Inputs without end: those that are kept, changed here and there. The same for the same seed."""
    from fuzz import inputs

    pool, words = [*inputs.saved().values(), *inputs.from_vectors()], inputs.words()
    luck = random.Random(seed)
    while True:
        data = bytearray(luck.choice(pool)) if luck.random() < 0.8 else bytearray(luck.randbytes(luck.randrange(60)))
        for _ in range(luck.randrange(1, 6)):
            at = luck.randrange(len(data) + 1)
            how = luck.randrange(6)
            if how == 0:
                data[at:at] = luck.choice(words)
            elif how == 1:
                data[at:at + 1] = bytes((luck.randrange(256),))
            elif how == 2:
                del data[at:at + luck.randrange(1, 4)]
            elif how == 3:
                data[at:at + 1] = bytes((luck.randrange(256) & 7,))
            elif how == 4:
                data[at:] = luck.choice(pool)[luck.randrange(6):]
            else:
                data[at:at] = data[at:at + luck.randrange(8)]
        yield bytes(data)


def run_random(seconds: float, seed: int, wings: "list[Any]") -> None:
    """Check random inputs for some time."""
    from fuzz.fuzz_wings import check

    end, count = time.monotonic() + seconds, 0
    for data in at_random(seed):
        if time.monotonic() > end:
            break
        try:
            check(data, wings)
        except BaseException:
            print(f"input: {data.hex()}", flush=True)
            raise
        count += 1
    print(f"{count} inputs, seed {seed}: no find")


def run_atheris(seconds: float, folder: str, corpus: "str | None") -> None:
    """Let atheris find inputs for some time, from those that are kept on."""
    try:
        import atheris
    except ImportError as error:
        missing(str(error))
    with atheris.instrument_imports(include=["sockframe._pure"]):
        import sockframe._core
        import sockframe._pure
    from fuzz import inputs
    from fuzz.fuzz_wings import check

    seeds = Path(folder, "seeds")
    seeds.mkdir()
    for number, data in enumerate([*inputs.saved().values(), *inputs.from_vectors()]):
        Path(seeds, str(number)).write_bytes(data)
    grown = Path(corpus or Path(folder, "grown"))
    grown.mkdir(exist_ok=True)
    wings = [sockframe._core, sockframe._pure]
    atheris.Setup([
        sys.argv[0], f"-max_total_time={seconds:.0f}", "-max_len=400", "-timeout=20", f"-dict={inputs.DICTIONARY}",
        "-print_final_stats=1", "-artifact_prefix=find-", "-rss_limit_mb=4096", str(grown), str(seeds),
    ], lambda data: check(data, wings))
    atheris.Fuzz()


def main() -> None:
    """Run the fuzzer."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Hold both wings to each other.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--sanitize", action="store_true", help="build a core with ASan and UBSan first, by clang")
    parser.add_argument("--corpus", help="a folder where the inputs that are found grow, to go on from another time")
    parser.add_argument("--random", action="store_true", help="random inputs alone: needs no atheris")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs")
    parser.add_argument("inputs", nargs="*", help="check these alone: names of corpus.txt, hexadecimal, or files")
    options = parser.parse_args()
    if options.sanitize:
        sanitized([argument for argument in sys.argv[1:] if argument != "--sanitize"])
    if options.inputs or options.random:
        import sockframe._core
        import sockframe._pure

        wings = [sockframe._core, sockframe._pure]
    if options.random:
        run_random(options.seconds, options.seed, wings)
    elif options.inputs:
        from fuzz.fuzz_wings import check
        from fuzz.inputs import saved

        for name in options.inputs:
            check(saved().get(name) or (Path(name).read_bytes() if Path(name).exists() else bytes.fromhex(name)), wings)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_atheris(options.seconds, folder, options.corpus)


if __name__ == "__main__":
    main()
