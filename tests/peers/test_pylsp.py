"""python-lsp-server: the Language Server Protocol over the standard streams, header lines before each body."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pages
import pytest
from programs import folder, lacking, stop
from scripted import LIMIT

from sockframe import EndOfStream, framing

URI = "file:///a.py"


class Client:
    """Speaks JSON-RPC over a framed socket."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.number = 0
        self.others: list[Any] = []

    def notify(self, method: str, **params: Any) -> None:
        self.conn.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}, ensure_ascii=False).encode())

    def request(self, method: str, **params: Any) -> Any:
        """Send a request and return its result; what else comes goes to `others`."""
        self.number += 1
        self.conn.send(json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}).encode())
        for frame in self.conn:
            answer = json.loads(frame)
            if answer.get("id") == self.number:
                return answer["result"]
            self.others.append(answer)
        raise AssertionError("the server is gone")


@contextmanager
def server(wing: Any) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    """Run a language server between a socket pair."""
    if importlib.util.find_spec("pylsp") is None:
        lacking("python-lsp-server", "pip install python-lsp-server")
    ours, theirs = socket.socketpair()
    ours.settimeout(2 * LIMIT)  # it has much to import
    with folder() as where, theirs, wing.FramedSocket(ours, framing("lsp")) as conn:
        process = subprocess.Popen([sys.executable, "-m", "pylsp"], cwd=where, stdin=theirs, stdout=theirs,
                                   env={**os.environ, "HOME": str(where)})
        theirs.close()
        try:
            yield Client(conn), process
        finally:
            stop(process)


def test_initialize_open_and_shut_down(wing: Any) -> None:
    source = "def grüße(name: str) -> str:\n    '''Héllo, 世界 🎉.'''\n    return name\n\n" + "x = 1  # ß\n" * 10_000
    with server(wing) as (client, process):
        result = client.request("initialize", processId=os.getpid(), rootUri=None, capabilities={})
        assert result["capabilities"]["documentSymbolProvider"]
        client.notify("initialized")
        document = {"uri": URI, "languageId": "python", "version": 1, "text": source}
        client.notify("textDocument/didOpen", textDocument=document)
        hover = client.request("textDocument/hover", textDocument={"uri": URI}, position={"line": 0, "character": 5})
        assert "Héllo, 世界 🎉." in json.dumps(hover, ensure_ascii=False)
        assert client.request("shutdown") is None
        client.notify("exit")
        with pytest.raises(EndOfStream):
            while True:
                client.others.append(json.loads(client.conn.recv()))
        assert process.wait(LIMIT) == 0
        assert all("method" in other for other in client.others)


def test_the_recipe_of_the_documentation(wing: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("pylsp") is None:
        lacking("python-lsp-server", "pip install python-lsp-server")
    (tmp_path / "example.py").write_text("class A:\n    pass\n\n\ndef f():\n    return 1\n")
    assert pages.run(wing, tmp_path, "symbols.py", "example.py") == "A 1\nf 5\n"
