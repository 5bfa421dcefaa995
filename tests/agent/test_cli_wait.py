# SPDX-License-Identifier: MIT
"""A wait that fails after a write: the command says that the write is in effect."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fake_node_list import Convergence, FakeNodeList

from tests.support.process import COMMAND
from tests.support.served import served
from xdp_gossip.api.client import Unreachable
from xdp_gossip.cli.documents import _in_effect
from xdp_gossip.core.interface import ProtocolError


class Busy(FakeNodeList):
    """A member that writes, and answers no question about the fleet."""

    async def convergence(self, *args: object, **question: object) -> Convergence:
        """As with too many waits."""
        raise ProtocolError("busy", "256 requests wait")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("publish", "a/key", "--value", "x"), ("delete", "a/key")], ids=lambda words: words[0]
)
def test_the_error_of_a_wait_names_the_version_that_is_in_effect(tmp_path: Path, words: tuple[str, ...]) -> None:
    node_list = Busy()
    node_list._write("a/key", b"before", "text", "alice", "", False)
    with served(node_list, tmp_path) as path:
        call = [COMMAND, "--socket", path, *words, "--wait", "all"]
        done = subprocess.run(call, capture_output=True, text=True)
        version = str(node_list.held["a/key"][0].version)
        assert done.returncode == 1
        assert f"document 'a/key': version {version} is in effect, but the wait" in done.stderr, done.stderr
        assert "256 requests wait" in done.stderr
        told = json.loads(subprocess.run([*call, "--json"], capture_output=True, text=True).stderr)
    assert version in json.dumps(told)


def test_so_does_the_error_of_a_member_that_is_gone_meanwhile() -> None:
    with pytest.raises(Unreachable, match=r"Connection refused; document 'a': version 1-2 is in effect") as caught:
        with _in_effect({"key": "a", "version": "1-2"}):
            raise Unreachable("unix:/s", "Connection refused", sent=False)
    assert not caught.value.sent
