# SPDX-License-Identifier: MIT
"""Sealed documents on real agents: recipients open and render them, and no other host has the clear text anywhere."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Agent, Cluster, eventually
from tests.support.process import COMMAND, command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KEY = "app/password"
#: What must not be found. In two parts, so that no file of the tests or log of pytest has it.
SECRET = "correct-horse-" + "battery-staple-91c4e7"
#: What every member has in clear text, to see that the search finds it.
PLAIN = "a-text-that-" + "anybody-may-read-5d02"
USER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
ROUTES = (
    f"/v1/documents/{KEY}",
    f"/v1/documents/{KEY}?format=json",
    f"/v1/history/{KEY}?values=1&diff=1",
    *("/v1/documents", "/v1/status", "/v1/nodes", "/v1/rendered", "/v1/metrics", "/v1/sealing-key", "/v1/files"),
    f"/v1/convergence?key={KEY}&applied=1",
    *("/v1/watch?since=0&timeout=0", "/", "/v1/openapi.yaml"),
)


class Host:
    """An agent, and the files helper for the file that it renders from the sealed document."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        directory = agent.directory
        self.path = directory / "etc" / "password"
        self.path.parent.mkdir()
        (directory / "password.j2").write_text("password = {{ document('app/password') }}\n")
        template = {"name": "password", "source": str(directory / "password.j2"), "path": str(self.path), "wait": 0}
        agent.settings["templates"] = [{**template, "owner": USER, "group": GROUP, "mode": "0600"}]
        agent.settings["files_helper"] = {"socket": str(directory / "helper.sock"), "user": USER}
        agent.settings["files_helper"]["state_dir"] = str(directory / "helper")
        self.helper: subprocess.Popen[bytes] | None = None

    def start_helper(self) -> None:
        words = ["setpriv", "--pdeathsig", "KILL", str(COMMAND), "files-helper", "--config", str(self.agent.config)]
        with (self.agent.directory / "helper.log").open("ab") as log:
            self.helper = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop_helper(self) -> None:
        if self.helper is not None:
            self.helper.kill()
            self.helper.wait(10)

    def not_rendered(self, content: str) -> str | None:
        found = self.path.read_text() if self.path.exists() else None
        return None if found == content else f"{self.agent.name}: {found}, {self.agent.call('GET', '/v1/rendered')}"

    def not_failed(self, text: str) -> str | None:
        found = self.agent.call("GET", "/v1/rendered")["templates"][0]
        return None if found["state"] == "failed" and text in found["error"] else f"{self.agent.name}: {found}"


@pytest.fixture(name="hosts")
def fixture_hosts(tmp_path: Path) -> Iterator[list[Host]]:
    with Cluster(tmp_path, 3, cycle=0.5, timeout=2.5) as cluster:
        made = [Host(agent) for agent in cluster]
        try:
            cluster.form()
            for host in made:
                host.start_helper()
            yield made
        finally:
            for host in made:
                host.stop_helper()


def seal(host: Host, text: str, *recipients: Host, **more: str) -> dict[str, object]:
    """Publish from a controller that is none of the hosts: the member gets the envelope only."""
    keys = host.agent.directory / "recipients"
    lines = [one.agent.call("GET", "/v1/sealing-key")["public_key"] for one in recipients]
    keys.write_text("\n".join(lines) + "\n")
    words = ["publish", KEY, "-", "--sealed-for", str(keys), "--cluster", "default", "--content-type", "text"]
    for name, value in more.items():
        words += [f"--{name}", value]
    done = host.agent.command("--json", *words, stdin=text.encode())
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def holding(pid: int, *texts: str) -> set[str]:
    """Those of ``texts`` that are in the memory of the process, in UTF-8, UTF-16 or UTF-32."""
    forms = {text: [text.encode(code) for code in ("utf-8", "utf-16-le", "utf-32-le")] for text in texts}
    found = set()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            found |= {text for text in texts if any(form in data for form in forms[text])}
    return found


def processes(pid: int) -> list[int]:
    """The process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in processes(int(child)))]


def files_with(directory: Path, text: str) -> list[str]:
    raw = text.encode()
    forms = (raw, base64.b64encode(raw)[:20], text.encode("utf-16-le"))
    paths = [path for path in directory.rglob("*") if path.is_file()]
    assert paths
    return [str(path) for path in paths if any(form in path.read_bytes() for form in forms)]


def test_a_sealed_document_is_in_clear_text_on_its_recipients_only(hosts: list[Host]) -> None:
    recipient, *others = hosts
    others[0].path.write_text("before\n")
    assert others[0].agent.publish("app/plain", PLAIN.encode())
    version = seal(others[0], SECRET, recipient)["version"]
    eventually(lambda: recipient.not_rendered(f"password = {SECRET}\n"), 30)
    told = "it is sealed for node1, and this host (node2) is not among the recipients"
    eventually(lambda: others[0].not_failed(f"document '{KEY}': {told}"), 30)
    eventually(lambda: others[1].not_failed("this host (node3) is not among the recipients"), 30)
    assert others[0].path.read_text() == "before\n" and not others[1].path.exists()

    # Asking for everything puts it into the memory of those who have it.
    for host in others:
        for route in ROUTES:
            answer = host.agent.ask("GET", route)
            assert answer.status in (200, 404), route
            for form in (SECRET.encode(), base64.b64encode(SECRET.encode())[:20]):
                assert form not in answer.body, route
        answer = host.agent.call("GET", f"/v1/documents/{KEY}?format=json")
        assert answer["sealed"]["recipients"][0]["name"] == "node1" and answer["sealed"]["size"] == len(SECRET)
        done = host.agent.command("read", KEY, "--open", "--config", str(host.agent.config))
        assert done.returncode == 1 and b"sealed for node1, and the key of this host is not among" in done.stderr
        for pid in processes(host.agent.pid):
            assert SECRET not in holding(pid, SECRET, PLAIN)
        assert not files_with(host.agent.directory, SECRET)
        assert files_with(host.agent.directory, PLAIN) and PLAIN in holding(host.agent.pid, PLAIN)
    assert SECRET not in "".join(host.agent.log_text() for host in hosts)

    done = recipient.agent.command("read", KEY, "--open", "--config", str(recipient.agent.config))
    assert (done.returncode, done.stdout) == (0, SECRET.encode())
    assert [Path(name).name for name in files_with(recipient.agent.directory, SECRET)] == ["password"]
    found = recipient.agent.call("GET", f"/v1/convergence?key={KEY}&version={version}&applied=1&wait=all")
    states = {one["name"]: one["applied"]["state"] for one in found["results"]}
    assert states == {"node1": "applied", "node2": "failed", "node3": "failed"}


def test_a_rebuilt_host_says_what_is_wrong_until_the_document_is_sealed_again(hosts: list[Host]) -> None:
    rebuilt, other, last = hosts
    seal(other, SECRET, rebuilt, other)
    eventually(lambda: rebuilt.not_rendered(f"password = {SECRET}\n"), 30)
    rebuilt.agent.stop()
    (rebuilt.agent.state_dir / "sealing.key").unlink()
    rebuilt.path.unlink()
    rebuilt.agent.start()
    eventually(rebuilt.agent.not_ready, 30)
    eventually(lambda: rebuilt.not_failed("for another key than this host has now"), 30)
    seal(other, SECRET, rebuilt, other)
    eventually(lambda: rebuilt.not_rendered(f"password = {SECRET}\n"), 30)
    shown = command("--socket", str(last.agent.socket), "history", KEY, "--diff").stdout.decode()
    assert "+recipient: node1 SHA256:" in shown and SECRET not in shown
    eventually(lambda: last.not_failed("this host (node3) is not among"), 30)


def test_a_damaged_envelope_and_one_of_another_document_render_nothing(hosts: list[Host]) -> None:
    recipient, other, _last = hosts
    answer = other.agent.ask("PUT", f"/v1/documents/{KEY}?content_type=sealed", b"no envelope")
    assert answer.status == 400 and "expected valid envelope of a sealed document" in answer.json["error"]["message"]
    seal(other, SECRET, recipient)
    eventually(lambda: recipient.not_rendered(f"password = {SECRET}\n"), 30)
    envelope = other.agent.read(KEY)
    assert envelope is not None
    recipient.path.unlink()
    other.agent.call("PUT", "/v1/documents/app/other?content_type=sealed", envelope)
    (recipient.agent.directory / "password.j2").write_text("{{ document('app/other') }}")
    recipient.agent.signal(signal.SIGHUP)
    eventually(lambda: recipient.not_failed("was sealed for another document, cluster or key"), 30)


def test_the_commands_seal_and_open(hosts: list[Host], tmp_path: Path) -> None:
    recipient, other, _last = hosts
    own = recipient.agent.call("GET", "/v1/sealing-key")
    assert recipient.agent.command("sealing-key").stdout.decode() == own["public_key"] + "\n"
    nodes = {node["name"]: node["sealing"] for node in other.agent.nodes()}
    assert nodes["node1"] == own["fingerprint"] and len(set(nodes.values())) == 3

    # Who can open the present version sees that it is the same; who cannot publishes a new version.
    config = str(recipient.agent.config)
    first = seal(recipient, SECRET, recipient, config=config)
    assert first["changed"] and first["sealed"]["recipients"] == [{"name": "node1", "key": own["fingerprint"]}]
    assert not seal(recipient, SECRET, recipient, config=config)["changed"]
    assert seal(recipient, SECRET + "x", recipient, config=config)["changed"]
    assert seal(recipient, SECRET, recipient, other, config=config)["changed"]
    assert seal(other, SECRET, recipient, config=str(other.agent.config))["changed"]

    key = recipient.agent.state_dir / "sealing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    target = tmp_path / "opened"
    words = ["read", KEY, "--open", "--key-file", str(key), "--cluster", "default", "--output", str(target)]
    assert other.agent.command(*words).returncode == 0
    assert target.read_text() == SECRET and target.stat().st_mode & 0o777 == 0o600
    shown = json.loads(recipient.agent.command("--json", "read", KEY, "--open", "--config", config).stdout)
    assert (base64.b64decode(shown["value_base64"]), shown["content_type"]) == (SECRET.encode(), "text")
    assert SECRET.encode() not in recipient.agent.command("read", KEY).stdout

    lines = recipient.agent.directory / "recipients"
    sealed = ["publish", "x", "--value", "v", "--sealed-for", str(lines)]
    for status, told, *wrong in (
        (2, "--sealed-for: expected --cluster NAME", *sealed),
        (2, "--config: expected together with --sealed-for", "publish", "x", "--value", "v", "--config", config),
        (2, "--content-type: expected the type of the value", *sealed, "--cluster", "c", "--content-type", "sealed"),
        (2, "expected valid json", *sealed, "--cluster", "c", "--content-type", "json"),
        (2, "--sealed-for: /none: No such file", *sealed[:-1], "/none", "--cluster", "c"),
        (2, "--config: expected together with --open", "read", KEY, "--config", config),
        (2, "expected both --key-file and --cluster", "read", KEY, "--open", "--cluster", "c"),
        (1, "/none: there is no key of this host", "read", KEY, "--open", "--key-file", "/none", "--cluster", "c"),
        (1, "sealed for another document, cluster or key", *words[:5], "--cluster", "c"),
    ):
        done = recipient.agent.command(*wrong)
        assert (done.returncode, told in done.stderr.decode()) == (status, True), done.stderr
