# SPDX-License-Identifier: MIT
"""Publishing to real agents: many documents, secrets in no output, and two publishers who race."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_ansible_plugins import PUBLISH, ROOT, VERIFY, Fleet, pytestmark, that  # noqa: F401  (the same needs)

ROUNDS = 50

#: Runs the module's own `main` for each line of options that it reads, as ansible-core runs it: a process of its own
#: for each publisher, and none of it lost to start-up, so that the two are really at it at the same time.
PUBLISHER = """
import contextlib, io, json, sys
from ansible.module_utils import basic
try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:
    @contextlib.contextmanager
    def patch_module_args(args):
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode()
        yield
from ansible_collections.xdp_gossip.fleet.plugins.modules import xdp_gossip_publish
print("ready", flush=True)
for line in sys.stdin:
    output = io.StringIO()
    with patch_module_args(json.loads(line)), contextlib.redirect_stdout(output):
        try:
            xdp_gossip_publish.main()
        except SystemExit:
            pass
    print(output.getvalue().strip().splitlines()[-1], flush=True)
"""


class Publisher:
    """A process that publishes what it is told."""

    def __init__(self, python: str, collections: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-c", PUBLISHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(collections), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._read_line()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the publisher ended"
        return line

    def start(self, **options: Any) -> None:
        """Publish, without waiting for the result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(options) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What the module returned."""
        found: dict[str, Any] = json.loads(self._read_line())
        return found

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("p"))
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(name="publishers")
def fixture_publishers(fleet: Fleet) -> Iterator[list[Publisher]]:
    playbook = shutil.which("ansible-playbook")
    assert playbook is not None
    python = Path(playbook).read_text().splitlines()[0].removeprefix("#!").strip()
    if "python" not in python:  # a wrapper that chooses among long paths; its Python lies beside it
        python = str(Path(playbook).parent / "python")
    publishers: list[Publisher] = []
    try:
        for _number in range(2):
            publishers.append(Publisher(python, fleet.directory / "collections"))
        yield publishers
    finally:
        for publisher in publishers:
            publisher.close()


@pytest.mark.parametrize("many", [False, True], ids=["one document", "of two documents"])
def test_of_two_publishers_on_one_version_exactly_one_wins(
    fleet: Fleet, publishers: list[Publisher], many: bool
) -> None:
    """Fifty rounds; who loses is told both versions, whether it was late by a second or by a microsecond."""
    key, wins, refused = ("race/many" if many else "race/one"), [0, 0], 0
    options = {"endpoints": [f"unix://{fleet.sockets[0]}"], "timeout": 20}
    version = "absent"
    for round_ in range(ROUNDS):
        for number, publisher in enumerate(publishers):
            document = {"content": f"publisher {number}, round {round_}", "if_version": version}
            documents = {f"{key}/{number}": {"content": str(round_)}, key: document}
            publisher.start(**options, **({"documents": documents} if many else {"key": key, **document}))
        results = [publisher.result() for publisher in publishers]
        failed = [bool(result.get("failed")) for result in results]
        assert sorted(failed) == [False, True], results
        winner, loser = results[failed.index(False)], results[failed.index(True)]
        won = winner["documents"][key] if many else winner
        assert won["changed"] and won["previous_version"] == (None if version == "absent" else version)
        assert loser["conflicts"] == [{"key": key, "expected": version, "actual": won["version"]}], loser
        if many:
            # What it wrote before it was overtaken is told: nothing, or the document that nobody fought for.
            own = f"{key}/{failed.index(True)}"
            assert loser["written"] == ([own] if loser["changed"] else []) and key in loser["unwritten"]
        else:
            assert not loser["changed"] and (loser["expected"], loser["actual"]) == (version, won["version"])
        refused += bool(loser["written"]) if many else 0
        wins[failed.index(False)] += 1
        version = won["version"]
    print(f"won {wins[0]} : {wins[1]}" + (f", {refused} lost after having written the other document" if many else ""))


def test_two_publishers_of_the_same_content_both_succeed(fleet: Fleet, publishers: list[Publisher]) -> None:
    """The other side of the rule that nothing is written when the fleet holds what is wanted."""
    version = "absent"
    for round_ in range(10):
        for publisher in publishers:
            publisher.start(
                endpoints=[f"unix://{fleet.sockets[0]}"], key="race/same", content=str(round_), if_version=version
            )
        results = [publisher.result() for publisher in publishers]
        assert not any(result.get("failed") for result in results), results
        assert sorted(result["changed"] for result in results) == [False, True]
        assert results[0]["version"] == results[1]["version"]
        version = results[0]["version"]


def test_many_documents_arrive_everywhere_and_are_gone_again(fleet: Fleet) -> None:
    documents = {
        "many/text": {"content": "hellö"},
        "many/data": {"value": {"a": [1, 2]}},
        "many/yaml": {"value": {"b": "c"}, "content_type": "yaml"},
    }
    publish = {PUBLISH: {"documents": documents, "wait": "all"}, "register": "r"}
    fleet.play([publish, that("r.changed", "r.confirmed == 3", "r.documents['many/text'].members == 3")], members="1")
    fleet.play(
        [
            publish,
            that("not r.changed", "r.confirmed == 3"),
            {VERIFY: {"key": "many/data", "value": {"a": [1, 2]}, "wait_timeout": 0}},
            that("lookup('xdp_gossip.fleet.metadata', 'many/', prefix=true, parse='auto') == expected"),
            {PUBLISH: {"documents": {key: {} for key in documents}, "state": "absent", "wait": "all"}, "register": "r"},
            that("r.changed", "r.confirmed == 3"),
            {VERIFY: {"key": "many/text", "state": "absent", "version": "{{ r.documents['many/text'].version }}"}},
            that("lookup('xdp_gossip.fleet.metadata', 'many/', prefix=true, default='gone') == 'gone'"),
        ],
        "-e",
        json.dumps({"expected": {"many/text": "hellö", "many/data": {"a": [1, 2]}, "many/yaml": {"b": "c"}}}),
        members="2",
    )


def test_a_secret_is_in_no_output_however_verbose(fleet: Fleet) -> None:
    secret = "correct horse battery staple"
    hidden = {"content": "{{ lookup('ansible.builtin.file', 'secret_value') }}"}
    (fleet.directory / "secret_value").write_text(secret)
    many = {"pw/1": hidden, "pw/2": {"value": {"deep": [hidden["content"]]}}}
    publish = [{PUBLISH: {"sensitive": True, **options}} for options in ({"key": "pw", **hidden}, {"documents": many})]
    for mode in ("--check", "--diff", "--force-handlers"):
        output = fleet.play(publish, "-vvvv", "--diff", mode)
        assert secret not in output
        assert "VALUE_SPECIFIED_IN_NO_LOG" in output and "sensitive: 28 bytes" in output

    (fleet.directory / "secret_value").write_text(secret + "!")
    lost = {"if_version": "absent", **hidden}
    slip = {"pw/1": lost, "pw/2": {"content": {"x": hidden["content"]}}}
    failing = [
        {PUBLISH: {"sensitive": True, "key": "pw", **lost}},
        {PUBLISH: {"sensitive": True, "documents": slip}},
        {PUBLISH: {"sensitive": True, "key": "pw", "wait_timeout": "soon", **hidden}},
        {VERIFY: {"sensitive": True, "key": "pw", "wait_timeout": 0, **hidden}},
    ]
    tasks = [{**task, "register": "r", "failed_when": "r is not failed"} for task in failing]
    assert secret not in fleet.play(tasks, "-vvvv", "--diff")

    fleet.play([that(f"lookup('xdp_gossip.fleet.metadata', 'pw') == '{secret}'")])
    # Without the option it would be seen, so that this can fail.
    assert secret in fleet.play([{PUBLISH: {"key": "pw", **hidden}}], "-vvvv", "--diff", "--check")


def test_what_a_stopped_member_was_sent_does_not_take_effect_later(fleet: Fleet, publishers: list[Publisher]) -> None:
    publisher = publishers[0]

    def publish(sockets: list[Path], key: str, content: str) -> dict[str, Any]:
        endpoints = [f"unix://{socket}" for socket in sockets]
        publisher.start(endpoints=endpoints, timeout=1, retries=0, key=key, content=content)
        return publisher.result()

    os.kill(fleet.pids[0], signal.SIGSTOP)
    try:
        lost = publish(fleet.sockets[:1], "stopped/alone", "old")
        assert lost["failed"] and lost["error"]["code"] in ("answer_lost", "no_member_answered"), lost
        assert publish(fleet.sockets[:2], "stopped/both", "old")["endpoint"] == f"unix://{fleet.sockets[1]}"
        assert publish(fleet.sockets[1:2], "stopped/both", "newer")["changed"]
    finally:
        os.kill(fleet.pids[0], signal.SIGCONT)
    # Asked last, it answers after all that came before.
    first = f"unix://{fleet.sockets[0]}"
    publisher.start(endpoints=[first], timeout=60, key="stopped/barrier", content="x", wait="all")
    assert not publisher.result().get("failed")
    history = fleet.run(
        "ansible",
        "localhost",
        "-m",
        "xdp_gossip.fleet.xdp_gossip_info",
        "-a",
        f"endpoints=unix://{fleet.sockets[0]} gather=documents prefix=stopped/",
    )
    assert "stopped/alone" not in history and "stopped/both" in history
    assert not publish(fleet.sockets[:1], "stopped/both", "newer")["changed"]
