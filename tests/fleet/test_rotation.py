# SPDX-License-Identifier: MIT
"""The playbooks that rotate secrets, on hosts with systemd that are reached by ssh, in a lab of a name of its own.

The tests follow one fleet: each leaves it whole for the next one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.fleet import eventually
from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/var/lib/xdp-gossip-rotation")
SECRETS = HOME / ".xdp-gossip"
NAMES = ("xgr1", "xgr2", "xgr3")
LAB = {
    "lab_name": "xgr",
    "lab_hosts": len(NAMES),
    "lab_dir": str(HOME),
    "lab_bridge": "xgbrr",
    "lab_network": "198.18.14.0/24",
    "lab_network6": "fd00:198:18:14::/64",
    "lab_inventory": str(HOME / "inventory.yml"),
    "ansible_python_interpreter": "/usr/bin/python3",
}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: xdp_gossip.fleet.lab, tasks_from: "%s"}
"""
#: What a packet is counted as that a member cannot read, by the agent and by the kernel.
UNREAD = ("rx_bad_mac", "rx_unknown_key", "drop_bad_mac", "drop_unknown_key")

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(patient(900)),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-nspawn"),
    pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="needs ansible-playbook on the PATH"),
]


class Fleet:
    """The lab, and a controller with a home of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        collections = directory / "collections" / "ansible_collections" / "xdp_gossip"
        collections.mkdir(parents=True)
        (collections / "fleet").symlink_to(ROOT)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDP_GOSSIP_"))},
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        self.connection: list[str] = []

    def lab(self, tasks: str = "main", **variables: str) -> None:
        """Run tasks of the role ``lab``; they must succeed."""
        (self.directory / f"{tasks}.yml").write_text(PLAY % tasks)
        words = ["-e", json.dumps({**LAB, **variables})]
        done = self.play(f"{tasks}.yml", *words)
        assert done.returncode == 0, done.stdout

    def run(self, playbook: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection on the fleet."""
        return self.play(f"xdp_gossip.fleet.{playbook}", "-i", str(HOME / "inventory.yml"), *words)

    def play(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ansible-playbook; standard output and error come as one, and no secret is in them."""
        # Into a file: an ssh that stays in the background keeps a pipe open.
        with (self.directory / "output").open("w+") as output:
            done = subprocess.run(
                ["ansible-playbook", "--diff", *words],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=patient(600),
                check=False,
            )
            output.seek(0)
            text = output.read()
        for path in self.secret_files():
            assert path.read_text().strip() not in text, path.name
        return subprocess.CompletedProcess(done.args, done.returncode, text)

    def secret_files(self) -> list[Path]:
        """The files with secrets on the controller."""
        return [path for path in SECRETS.glob("*") if re.search(r"(secret\.key|api\.token)(?!.*former)", path.name)]

    def ssh(self, name: str, *words: str) -> str:
        """The output of a command on a host."""
        known = f"UserKnownHostsFile={HOME}/ssh/known_hosts"
        options = ["-q", "-i", f"{HOME}/ssh/id_ed25519", "-o", known, "-o", "IdentitiesOnly=yes"]
        command = ["ssh", *options, f"root@{address(name)}", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=patient(60)).stdout

    def processes(self) -> list[str]:
        """The process of each agent."""
        show = ("systemctl", "show", "--property=MainPID", "--value", "xdp-gossip.service")
        return [self.ssh(name, *show).strip() for name in NAMES]


def address(name: str) -> str:
    """The address of a host."""
    return f"198.18.14.{10 + int(name[-1])}"


def token() -> str:
    """The API token that the controller has now."""
    return (SECRETS / "api.token").read_text().strip()


def connection(name: str) -> http.client.HTTPSConnection:
    """A connection to the API of a host, over TCP with TLS."""
    context = ssl.create_default_context(cafile=str(SECRETS / "ca.crt"))
    return http.client.HTTPSConnection(address(name), 8001, timeout=patient(30), context=context)


def ask(name: str, path: str, method: str = "GET", body: bytes | None = None, held: str = "") -> Any:
    """One request; the answer. Raises ``AssertionError`` for another status than 2xx."""
    one = connection(name)
    try:
        one.request(method, path, body, {"Authorization": f"Bearer {held or token()}"})
        answer = one.getresponse()
        text = answer.read().decode()
        assert answer.status // 100 == 2, f"{method} {path}: {answer.status} {text}"
        return json.loads(text)
    finally:
        one.close()


def nodes(name: str) -> dict[str, dict[str, Any]]:
    """The nodes that a member knows, by name."""
    return {node["name"]: node for node in ask(name, "/v1/nodes?state=all")["nodes"]}


def counters(*which: str) -> dict[str, int]:
    """These counters of all agents and of the kernel."""
    found = {}
    for name in NAMES:
        status = ask(name, "/v1/status")
        all_of_it = {**status["counters"], **status["dataplane"]["counters"]}
        found.update({f"{name} {one}": all_of_it[one] for one in which})
    return found


def shown_keys() -> set[tuple[str, str]]:
    """Fingerprint and state of the keys of all members."""
    return {(key["fingerprint"], key["state"]) for node in nodes("xgr1").values() for key in node["keys"]}


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition holds; raises ``AssertionError`` if it never does. An agent may not answer yet."""

    def missing() -> str | None:
        try:
            return None if condition() else "not yet"
        except (OSError, subprocess.CalledProcessError) as error:
            return repr(error)

    eventually(missing, seconds)


class Background:
    """Calls ``step`` again and again in a thread; ``problems`` are what it raised."""

    def __init__(self, step: Callable[[], None], pause: float = 0.1) -> None:
        self.count = 0
        self.problems: list[str] = []
        self._step, self._pause = step, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._step()
                self.count += 1
            except Exception as error:
                self.problems.append(repr(error))

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(patient(60))


@contextlib.contextmanager
def event_feed(name: str) -> Iterator[list[dict[str, Any]]]:
    """What a member says of the nodes while the block runs."""
    found: list[dict[str, Any]] = []
    one = connection(name)
    one.request(
        "GET", "/v1/watch?kind=node", headers={"Authorization": f"Bearer {token()}", "Accept": "text/event-stream"}
    )
    answer = one.getresponse()
    assert answer.status == 200
    sock = one.sock

    def read() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for line in answer:
                if line.startswith(b"data: "):
                    found.append(json.loads(line[6:]))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        # Everything before this mark has been read when the mark is there.
        mark = f"mark of the feed {time.monotonic_ns()}"
        ask("xgr1", "/v1/node", "PATCH", json.dumps({"private_data": mark}).encode())
        until(lambda: mark in json.dumps(found), patient(20))
        if sock is not None:
            sock.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three deployed hosts."""
    made = Fleet(tmp_path_factory.mktemp("rotation"))
    made.lab(lab_state="absent")
    try:
        made.lab(lab_state="present")
        done = made.run("deploy", "-e", "xdp_gossip_serial=100%")
        assert done.returncode == 0, done.stdout
        yield made
    finally:
        made.lab(lab_state="absent")
        shutil.rmtree(HOME, ignore_errors=True)
        assert not Path("/sys/class/net/xgbrr").exists()


def test_the_key_is_replaced_under_publishes_and_nobody_notices(fleet: Fleet) -> None:
    before, unread, processes = shown_keys(), counters(*UNREAD, "members_became_suspect"), fleet.processes()
    assert len(before) == 1 and re.fullmatch(r"xgk1_[\w-]{43}\n", (SECRETS / "secret.key").read_text())
    numbers = iter(range(1_000_000))

    def publish() -> None:
        ask("xgr1", "/v1/documents/app/number", "PUT", b"%d" % next(numbers))

    with Background(publish) as publishing, contextlib.ExitStack() as feeds:
        events = [feeds.enter_context(event_feed(name)) for name in NAMES]
        checked = fleet.run("rotate_secret", "--check")
        assert checked.returncode == 0 and "stage it on all hosts" in checked.stdout, checked.stdout
        assert not (SECRETS / "secret.key.next").exists() and shown_keys() == before
        done = fleet.run("rotate_secret")
    assert done.returncode == 0, done.stdout
    after = shown_keys()
    assert len(after) == 1 and after != before and {state for _, state in after} == {"active"}
    assert publishing.count > 20 and not publishing.problems
    assert not [one for feed in events for one in feed if "suspect" in json.dumps(one)]
    assert counters(*UNREAD, "members_became_suspect") == unread
    assert fleet.processes() == processes
    assert sorted(path.name for path in fleet.secret_files()) == ["api.token", "secret.key"]
    listed = fleet.ssh(
        "xgr2", "stat", "-c", "'%a %U %G %n'", "/etc/xdp-gossip/secret.key", "/etc/xdp-gossip/keys/*", "||", "true"
    )
    assert listed.split() == ["440", "xdp-gossip", "root", "/etc/xdp-gossip/secret.key"]


def test_a_host_that_is_away_stops_the_rotation_which_continues_when_it_is_back(fleet: Fleet) -> None:
    done = fleet.run("rotate_secret", "-e", "xdp_gossip_until=stage")
    assert done.returncode == 0 and {state for _, state in shown_keys()} == {"active", "staged"}, done.stdout
    # A deployment in the middle changes nothing of it.
    done = fleet.run("deploy", "-e", "xdp_gossip_serial=100%")
    assert done.returncode == 0 and {state for _, state in shown_keys()} == {"active", "staged"}, done.stdout
    fleet.lab("kill_host", lab_target="xgr3")
    done = fleet.run("rotate_secret", "-e", "xdp_gossip_gate_timeout=5")
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Step activate: expected every node that has not left to show the key" in told, told
    stops = re.findall(r"(xgr\d) \(198\.18\.14\.\d+:8000\), \w+, shows", told)
    assert set(stops) == {"xgr3"}, told
    # The others have gone as far as they can without locking it out.
    states = {name: {key["state"] for key in node["keys"]} for name, node in nodes("xgr1").items()}
    assert states == {"xgr1": {"active", "retiring"}, "xgr2": {"active", "retiring"}, "xgr3": {"active", "staged"}}
    assert (SECRETS / "secret.key.retiring").exists()
    fleet.lab("start_host", lab_target="xgr3")
    until(lambda: nodes("xgr1")["xgr3"]["state"] == "alive", patient(60))
    done = fleet.run("rotate_secret")
    assert done.returncode == 0 and len(shown_keys()) == 1, done.stdout


def test_a_host_that_missed_a_rotation_is_brought_back_by_one_deployment(fleet: Fleet) -> None:
    old = shown_keys()
    fleet.lab("kill_host", lab_target="xgr3")
    done = fleet.run("rotate_secret", "-e", "xdp_gossip_gate_timeout=2")
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Step stage: expected" in told and "xgr3 (198.18.14.13:8000)" in told, told
    until(lambda: nodes("xgr1")["xgr3"]["state"] == "dead", patient(60))
    given = {
        "xdp_gossip_addr": address("xgr3"),
        "xdp_gossip_endpoints": [f"https://{address(name)}:8001" for name in NAMES[:2]],
        "xdp_gossip_token_file": str(SECRETS / "api.token"),
        "xdp_gossip_ca_path": str(SECRETS / "ca.crt"),
    }
    done = fleet.run("confirm_gone", "-e", json.dumps(given))
    assert done.returncode == 0, done.stdout
    done = fleet.run("rotate_secret", "-e", json.dumps({"xdp_gossip_gone": [f"{address('xgr3')}:8000"]}))
    # Ansible's status for hosts that it cannot reach.
    assert done.returncode == 4 and "on all members that are not given up" in " ".join(done.stdout.split()), done.stdout
    fleet.lab("start_host", lab_target="xgr3")
    # It has the former key, so it is alone.
    show = ("systemctl", "is-active", "xdp-gossip.service", "||", "true")
    until(lambda: fleet.ssh("xgr3", *show).strip() == "active", patient(60))
    done = fleet.run("deploy", "-e", "xdp_gossip_serial=100%")
    assert done.returncode == 0, done.stdout
    ((former, _),) = old
    assert f"it had the former key {former}" in " ".join(done.stdout.split())
    until(lambda: {node["state"] for node in nodes("xgr1").values()} == {"alive"}, patient(30))
    assert len(shown_keys()) == 1 and shown_keys() != old


def test_what_would_lock_hosts_out_is_refused(fleet: Fleet) -> None:
    """Each run stops at the step stage, by the name of the host."""
    before = shown_keys()
    done = fleet.run("rotate_secret", "--limit", "xgr1,xgr2")
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "--limit: expected all hosts of the fleet, got a run without xgr3" in told, told
    # Ansible does not reach a host that is alive for the fleet, so it cannot be given up.
    inventory = yaml.safe_load((HOME / "inventory.yml").read_text())
    inventory["fleet"]["hosts"]["xgr2"]["ansible_port"] = 1
    elsewhere = fleet.directory / "inventory.yml"
    elsewhere.write_text(yaml.safe_dump(inventory))
    quickly = ["-e", "xdp_gossip_gate_timeout=2"]
    gone = ["-e", json.dumps({"xdp_gossip_gone": ["xgr2"]})]
    done = fleet.play("xdp_gossip.fleet.rotate_secret", "-i", str(elsewhere), *quickly, *gone)
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Step stage: expected" in told and "to be dead, and it is alive" in told, told
    # A file system that takes no more bytes, where the keys are to be.
    fleet.ssh("xgr2", "mkdir -p /etc/xdp-gossip/keys && mount -t tmpfs -o ro none /etc/xdp-gossip/keys")
    try:
        done = fleet.run("rotate_secret", *quickly)
    finally:
        fleet.ssh("xgr2", "umount /etc/xdp-gossip/keys")
    told = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Step stage: expected" in told, told
    assert "xgr2 (198.18.14.12:8000), alive, shows" in told and "xgr1 (" not in told, told
    # A second controller whose files are those of before the rotation.
    following = SECRETS / "secret.key.next"
    kept = following.rename(SECRETS.parent / "kept")
    for playbook in ("rotate_secret", "deploy"):
        done = fleet.run(playbook)
        told = " ".join(done.stdout.split())
        assert done.returncode != 0 and "another controller is rotating the key of this fleet" in told, told
    assert {state for _, state in shown_keys()} == {"active", "staged"} and shown_keys() > before
    assert {node["state"] for node in nodes("xgr1").values()} == {"alive"}
    # Its file is lost: another key takes the place of the one that is only staged.
    kept.unlink()
    done = fleet.run("rotate_secret", "-e", "xdp_gossip_lost_next=true")
    assert done.returncode == 0 and len(shown_keys()) == 1, done.stdout


def test_the_token_is_replaced_and_no_request_is_refused(fleet: Fleet) -> None:
    processes, old = fleet.processes(), token()
    refused = counters("api_unauthorized")
    held = [old]

    def request() -> None:
        for name in NAMES:
            # As a client does: it reads the file again when it has changed.
            held[0] = token()
            ask(name, "/v1/status", held=held[0])

    with Background(request) as requests:
        done = fleet.run("rotate_token")
    assert done.returncode == 0, done.stdout
    assert requests.count > 5 and not requests.problems
    assert token() != old and counters("api_unauthorized") == refused and fleet.processes() == processes
    for name in NAMES:
        with pytest.raises(AssertionError, match="401"):
            ask(name, "/v1/status", held=old)


def test_a_token_of_the_inventory_is_replaced_in_two_runs(fleet: Fleet) -> None:
    from xdp_gossip.config.access import hash_of, new_token

    old = new_token()

    def given(digest: str) -> list[str]:
        entry = {"name": "shop", "hash": digest, "rights": "read"}
        return ["-e", json.dumps({"xdp_gossip_agent_api_tokens": [entry], "xdp_gossip_token": "shop"})]

    done = fleet.run("rotate_token", *given(hash_of(old)))
    assert done.returncode == 0, done.stdout
    new = (SECRETS / "tokens" / "shop.next").read_text().strip()
    assert hash_of(new) in done.stdout and new not in done.stdout
    for name in NAMES:
        for one in (old, new):
            ask(name, "/v1/nodes", held=one)
    done = fleet.run("rotate_token", *given(hash_of(new)))
    assert done.returncode == 0, done.stdout
    for name in NAMES:
        ask(name, "/v1/nodes", held=new)
        with pytest.raises(AssertionError, match="401"):
            ask(name, "/v1/nodes", held=old)
    assert (SECRETS / "tokens" / "shop").read_text().strip() == new and not (SECRETS / "tokens" / "shop.next").exists()
