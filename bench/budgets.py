"""`python -m bench.budgets`: what a frame costs in instructions, counted by callgrind, against budgets.json.

A change that makes a hot path slower fails here, without a clock: of each work two lengths are counted, so that what
comes before and behind cancels, and only the instructions of our own code: `csrc` alone, compiled here, and the shared
objects of the core that is imported; not those of the C library, which chooses by the processor, nor the
interpreter's. What remains depends on the compiler: a table holds for the one that it names, and `elsewhere` says how
far others may be from it. `--write` makes the table anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import sockframe

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".json")
FRAMES = 500
CONNECTIONS = 16

Budgets = dict[str, float]


# ---- what is counted ----

def decode(framing: str, method: str = "decode") -> Callable[[], object]:
    """Return a function that decodes FRAMES payloads of 64 bytes."""
    from sockframe import _core

    stream = _core.Encoder(sockframe.framing(framing)).encode_many([bytes(64)] * FRAMES)
    feed = getattr(_core.Decoder(sockframe.framing(framing)), method)
    return lambda: feed(stream)


def encode() -> Callable[[], object]:
    """Return a function that encodes FRAMES payloads of 64 bytes."""
    from sockframe import _core

    payloads = [bytes(64)] * FRAMES
    encoder = _core.Encoder(sockframe.LengthPrefix())
    return lambda: encoder.encode_many(payloads)


def exchange() -> Callable[[], object]:
    """Return a function that sends FRAMES payloads of 64 bytes to itself and receives them."""
    near, far = (sockframe.FramedSocket(sock, sockframe.LengthPrefix()) for sock in socket.socketpair())
    payloads = [bytes(64)] * FRAMES

    def run() -> None:
        far.send_many(payloads)
        left = FRAMES
        while left:
            left -= len(near.recv_many(left))

    return run


def select() -> Callable[[], object]:
    """Return a function that asks a selector for the frames of CONNECTIONS connections, until FRAMES have come."""
    selector = sockframe.FrameSelector()
    senders = []
    for _ in range(CONNECTIONS):
        near, far = (sockframe.FramedSocket(sock, sockframe.LengthPrefix()) for sock in socket.socketpair())
        near.setblocking(False)
        selector.register(near)
        senders.append(far)
    payloads = [bytes(64)] * (FRAMES // CONNECTIONS + 1)

    def run() -> None:
        for far in senders:
            far.send_many(payloads)
        left = len(payloads) * CONNECTIONS
        while left:
            for _, frames in selector.select():
                if isinstance(frames, Exception):
                    raise frames
                left -= len(frames)

    return run


WORKS: dict[str, Callable[[], Callable[[], object]]] = {
    "decode length 64 B": lambda: decode("u32be"),
    "decode CRLF 64 B": lambda: decode("delimiter:0x0d0a"),
    "decode lines 64 B": lambda: decode("lines"),
    "decode_batch lines 64 B": lambda: decode("lines", "decode_batch"),
    "encode_many 64 B": encode,
    "send_many and recv_many 64 B": exchange,
    f"select {CONNECTIONS} connections, 64 B": select,
}


def run_all() -> None:
    """Do each work once and then three times; os.getppid() is where callgrind writes its counts down."""
    for name, make in WORKS.items():
        run = make()
        run()
        os.getppid()
        run()
        os.getppid()
        for _ in range(3):
            run()
        os.getppid()
        print(FRAMES, name, flush=True)


# ---- counting ----

def own_instructions(text: str, own: str) -> int:
    """Return the instructions that callgrind counted in objects whose path holds `own`, in what it wrote."""
    total = 0
    inside = called = False
    for line in text.splitlines():
        if line.startswith("ob="):
            inside = own in line
        elif line.startswith("calls="):
            called = True  # the next line has the costs of what was called
        elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            if inside and not called:
                total += int(line.split()[1])
            called = False
    return total


def count(command: list[str], own: str) -> Budgets:
    """Run a program that does works and prints their names; return what each costs, in instructions a frame."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        done = subprocess.run(
            ["valgrind", "-q", "--tool=callgrind", "--dump-before=getppid", "--compress-strings=no",
             f"--callgrind-out-file={out}", *command],
            stdout=subprocess.PIPE, text=True, timeout=500, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        costs = {}
        for number, line in enumerate(done.stdout.splitlines()):
            frames, name = line.split(" ", 1)
            once, thrice = (own_instructions(Path(f"{out}.{3 * number + part}").read_text(), own) for part in (2, 3))
            costs[name] = round((thrice - once) / 2 / int(frames), 1)
        return costs


def count_csrc(flags: list[str]) -> Budgets:
    """Compile csrc as its extensions are, and count its scanning."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "sockframe-count")
        sources = [*sorted(ROOT.glob("csrc/*.c")), ROOT / "csrc/test/count.c"]
        subprocess.run([os.environ.get("CC", "cc"), "-O3", *flags, *map(str, sources), "-o", str(program)], check=True)
        return count([str(program)], program.name)


def count_core() -> Budgets:
    """Count the works of the core that is imported."""
    return count([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; from bench import budgets; "
                  "budgets.run_all()"], "/sockframe/_core/")


# ---- judging ----

def tools() -> str:
    """Return what counts depend on: the processor's kind and the compiler."""
    compiler = os.environ.get("CC", "cc")
    said, version = (subprocess.run([compiler, option], stdout=subprocess.PIPE, text=True, check=True).stdout
                     for option in ("--version", "-dumpversion"))
    return f"{platform.machine()}, {'clang' if 'clang' in said else 'gcc'} {version.split('.')[0].strip()}"


def judge(costs: Budgets, budgets: Budgets, tolerance: float) -> list[str]:
    """Return what is wrong: each work that costs more than its budget by more than `tolerance`, or has none."""
    wrong = [f"{name}: {cost:,.1f} instructions a frame, {cost / budgets[name] - 1:+.0%} to its budget of "
             f"{budgets[name]:,.1f}" for name, cost in costs.items()
             if name in budgets and cost > budgets[name] * (1 + tolerance)]
    wrong += [f"{name}: no budget" for name in costs if name not in budgets]
    wrong += [f"{name}: a budget of no work" for name in budgets if name not in costs]
    return wrong


def main() -> None:
    """Count, show and judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.budgets", description="Instructions a frame, and budgets.")
    parser.add_argument("--part", choices=["csrc", "core"], help="only csrc alone, or only the core")
    parser.add_argument("--cflags", default="", help="more flags for the compiler, for csrc alone")
    parser.add_argument("--write", action="store_true", help="make the table anew from what is counted")
    chosen = parser.parse_args()
    table = json.loads(TABLE.read_text())
    here = tools()
    tolerance = table["tolerance" if here == table["tools"] else "elsewhere"]
    wrong = []
    for part, counting in {"csrc": lambda: count_csrc(chosen.cflags.split()), "core": count_core}.items():
        if chosen.part not in (None, part):
            continue
        costs = counting()
        for name, cost in costs.items():
            print(f"{cost:10,.1f} {table[part].get(name, 0):10,.1f}  {name}")
        wrong += judge(costs, table[part], tolerance)
        table[part] = costs
    if chosen.write:
        TABLE.write_text(json.dumps({**table, "tools": here}, indent=2) + "\n")
        return
    print(f"instructions a frame, and their budgets, which may be passed by {tolerance:.0%} ({here})")
    if wrong:
        raise SystemExit("over budget:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
