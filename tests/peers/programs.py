"""Real programs to speak to: found, started on loopback, waited for and stopped; connections to and from them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from scripted import LIMIT, Task

HOST = "127.0.0.1"

#: Where programs are that may not be on a user's PATH.
FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


def lacking(peer: str, install: str) -> NoReturn:
    """Skip the test for want of its peer; fail it where all peers must be there (SOCKFRAME_PEERS=1)."""
    reason = f"needs {peer}, which is not here: {install}"
    if os.environ.get("SOCKFRAME_PEERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find(program: str, package: str, *folders: str) -> str:
    """Return the path of a program that a Debian package brings."""
    places = [os.environ.get("PATH", os.defpath), *folders, *FOLDERS]
    path = shutil.which(program, path=os.pathsep.join(places))
    return path or lacking(program, f"apt-get install {package}")


def unprivileged() -> dict[str, Any]:
    """Return what makes a child another user where the tests run as root: PostgreSQL refuses to."""
    if os.geteuid() != 0:
        return {}
    import pwd  # which Windows has not

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for a program to work in, and remove it."""
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            os.chown(name, unprivileged()["user"], unprivileged()["group"])
        yield Path(name)


def run(command: list[str], where: Path) -> None:
    """Run a command to its end."""
    done = subprocess.run(command, cwd=where, env=surroundings(where), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False, **unprivileged())
    assert done.returncode == 0, done.stdout


def surroundings(where: Path) -> dict[str, str]:
    """Return the environment of a program that works in this folder."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(where), "LC_ALL": "C"}


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End a program, by force where it does not obey."""
    process.send_signal(how)
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(LIMIT)


@contextmanager
def running(command: Callable[[int], list[str]], where: Path, *, end: int = signal.SIGTERM) -> Iterator[int]:
    """Run the program that `command(port)` starts, from when it listens on that port; give the port."""
    for _ in range(3):  # another program may take the port between our look and its bind
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        with open(where / "log", "wb") as log:
            process = subprocess.Popen(command(port), cwd=where, env=surroundings(where), stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, **unprivileged())
        try:
            if listens(port, process):
                yield port
                return
        finally:
            stop(process, end)
    pytest.fail(f"{process.args} does not listen: {(where / 'log').read_text(errors='replace')}")


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the program listens; False where it ends, or takes too long."""
    def there() -> bool:
        with socket.socket() as probe:
            return process.poll() is not None or probe.connect_ex((HOST, port)) == 0

    return wait_for(there) and process.poll() is None


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until something is so; False where it takes too long."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def dial(wing: Any, port: int, framing: Any) -> Any:
    """Connect to a port of this machine; every call has a deadline."""
    return wing.FramedSocket(socket.create_connection((HOST, port), LIMIT), framing)


@contextmanager
def served(wing: Any, framing: Any, talk: Callable[[Any], Any]) -> Iterator[tuple[int, Task]]:
    """Serve one connection by `talk(conn)` in a thread; give the port, and the task that has its result."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(LIMIT)

        def serve() -> Any:
            sock, _ = listener.accept()
            sock.settimeout(LIMIT)
            with wing.FramedSocket(sock, framing) as conn:
                return talk(conn)

        task = Task(serve)
        yield listener.getsockname()[1], task
        task.thread.join(LIMIT)


def echo(conn: Any) -> int:
    """Send back every frame, and return how many there were."""
    count = 0
    for frame in conn:
        conn.send(frame)
        count += 1
    return count
