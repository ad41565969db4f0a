"""Other implementations of IPFS, answering over a pipe. 'make test-peers' installs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MISSING = "other implementations of IPFS are not installed; 'make test-peers' does it"


class Peer:
    """A process of Node.js that answers one question at a time."""

    def __init__(self, node: Path, script: Path) -> None:
        self.process = subprocess.Popen(
            [node, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str, **about: Any) -> dict[str, Any]:
        """Ask and return the answer; fail if the peer does."""
        answer = self.try_(question, **about)
        assert "error" not in answer, answer["error"]
        return answer

    def try_(self, question: str, **about: Any) -> dict[str, Any]:
        """Ask and return the answer, which may be ``{"error": ...}``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"ask": question, **about}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def peer(node_js: Path) -> Iterator[Peer]:
    if not (HERE / "node_modules" / "ipns").is_dir():
        pytest.skip(MISSING)
    running = Peer(node_js, HERE / "peer.mjs")
    yield running
    running.close()
