# SPDX-License-Identifier: MIT
"""Documents that Ansible seals on the controller, for the hosts of real agents."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_ansible_plugins import PUBLISH, ROOT, VERIFY, Fleet, pytestmark, that  # noqa: F401  (the same needs)

CLUSTER = "plugins"
SECRET = "the-secret-of-" + "the-test-70c1"
PIN = "xdp_gossip.fleet.xdp_gossip_sealing_key"
COMMAND = str(ROOT / "agent" / "bin" / "xdp-gossip")


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("s"))
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        fleet.play([pin(fleet, number) for number in (1, 2, 3)])
        yield fleet
    finally:
        fleet.close()


def pin(fleet: Fleet, number: int, **more: Any) -> dict[str, Any]:
    """A task that stores the public key of a host on the controller."""
    options = {"host": f"host{number}", "socket": str(fleet.sockets[number - 1]), "directory": str(keys(fleet))}
    return {PIN: {**options, **more}, "register": "pinned"}


def keys(fleet: Fleet) -> Path:
    return fleet.directory / "secrets" / "sealing"


def publish(fleet: Fleet, **options: Any) -> dict[str, Any]:
    return {PUBLISH: {"cluster": CLUSTER, "sealing_dir": str(keys(fleet)), **options}, "register": "done"}


def groups(**members: list[str]) -> list[dict[str, Any]]:
    """Tasks that add hosts and groups to the inventory."""
    found = [{"ansible.builtin.add_host": {"name": f"host{number}", "groups": []}} for number in (1, 2, 3)]
    for group, hosts in members.items():
        found += [{"ansible.builtin.add_host": {"name": host, "groups": [group]}} for host in hosts]
    return found


def opened(fleet: Fleet, number: int, key: str) -> subprocess.CompletedProcess[bytes]:
    config = str(fleet.directory / f"n{number}.yml")
    words = [COMMAND, "--socket", str(fleet.sockets[number - 1]), "read", key, "--open", "--config", config]
    return subprocess.run(words, capture_output=True, timeout=60, check=False)


def test_recipients_open_what_the_controller_sealed_and_a_second_run_changes_nothing(fleet: Fleet) -> None:
    task = publish(fleet, key="app/secret", content=SECRET, sealed_for=["web"], wait="all")
    told = fleet.play(
        [
            *groups(web=["host1", "host2"]),
            task,
            that(
                "done is changed",
                f"done.sealed.size == {len(SECRET)}",
                "done.sealed.recipients | map(attribute='name') == ['@controller', 'host1', 'host2']",
                "done.confirmed == 3",
            ),
            task,
            that("done is not changed", "done.confirmed == 3"),
            publish(fleet, key="app/secret", content=SECRET + "2", sealed_for=["web"]),
            that("done is changed"),
            task,
            that("done is changed"),
            publish(fleet, key="app/secret", content=SECRET, sealed_for=["web", "host3"], wait="all"),
            that("done is changed"),
            task,
            {VERIFY: {"key": "app/secret", "openable": True}, "register": "seen"},
            that("seen.openers == ['host1', 'host2']", "seen.sealed.recipients | length == 3", "seen.unable == []"),
        ],
        "-vvv",
        "--diff",
    )
    assert "recipient: host3 SHA256:" in told
    # The names of tasks and their arguments are the user's; results, diffs and transfers are ours.
    assert [line for line in told.splitlines() if SECRET in line and "play.yml" not in line] == []
    for number in (1, 2):
        done = opened(fleet, number, "app/secret")
        assert (done.returncode, done.stdout) == (0, SECRET.encode()), done.stderr
    done = opened(fleet, 3, "app/secret")
    assert done.returncode == 1 and b"sealed for @controller, host1, host2" in done.stderr
    assert (keys(fleet) / "controller.key").stat().st_mode & 0o777 == 0o600


def test_many_documents_signed_and_sealed_together(fleet: Fleet) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(fleet.directory / "signer")], check=True, timeout=60
    )
    (fleet.directory / "blob.bin").write_bytes(b"\xff\x00" + SECRET.encode())
    documents = {
        "many/a": {"src": "blob.bin", "sealed_for": ["host1"]},
        "many/b.json": {"value": {"x": SECRET}},
        "many/c": {"content": "for all", "sealed_for": []},
        "many/d": {"state": "absent"},
    }
    task = publish(
        fleet, documents=documents, sealed_for=["host2"], sign_key=str(fleet.directory / "signer"), wait="all"
    )
    fleet.play(
        [
            *groups(),
            task,
            that(
                "done is changed",
                "done.atomic",
                "done.documents['many/b.json'].sealed.content_type == 'json'",
                "done.documents['many/c'].sealed is none",
                "done.documents['many/a'].signed_by.key is match('SHA256:')",
            ),
            task,
            that("done is not changed"),
        ]
    )
    assert opened(fleet, 1, "many/a").stdout == b"\xff\x00" + SECRET.encode()
    assert json.loads(opened(fleet, 2, "many/b.json").stdout) == {"x": SECRET}
    assert opened(fleet, 2, "many/a").returncode == 1 and opened(fleet, 3, "many/c").stdout == b"for all"


def test_check_mode_writes_nothing_and_creates_no_key(fleet: Fleet, tmp_path: Path) -> None:
    for number in (1, 2):
        path = tmp_path / "hosts" / f"host{number}.pub"
        path.parent.mkdir(exist_ok=True)
        path.write_text((keys(fleet) / "hosts" / f"host{number}.pub").read_text())
    task = publish(fleet, key="app/later", content=SECRET, sealed_for=["host1"], sealing_dir=str(tmp_path))
    fleet.play([*groups(), task, that("done is changed")], "--check", "--diff")
    assert not (tmp_path / "controller.key").exists()
    assert opened(fleet, 1, "app/later").returncode == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sealed_for": ["nobody"]}, "expected hosts and groups of the inventory, got 'nobody'"),
    ({"sealed_for": ["host9"]}, "host host9: expected its public key in"),
    ({"sealed_for": ["SHA256:x"]}, "expected the fingerprint of a key in"),
    ({"sealed_for": ["host1"], "content_type": "json"}, "expected valid json, line 1, column 1"),
    ({"sealed_for": ["host1"], "content_type": "sealed"}, "expected the type of the content, got sealed"),
    ({"sealed_for": ["host1"], "cluster": None}, "cluster: expected the name of the fleet's cluster"),
    ({"sealed_for": ["host1"], "sealing": {}}, "sealing: expected only the options of a task"),
    ({"sealed_for": ["host1"], "content": None, "src": "/etc/hostname", "remote_src": True}, "remote_src: expected"),
    ({"sealed_for": ["host1"], "content": None, "rollback_to": "x"}, "rollback_to: expected no rollback"),
    ({"reseal": True}, "content: expected it without reseal"),
    ({"sealed_for": []}, "sealed_for: expected at least one host or group, got an empty list; nothing was published"),
    ({"sealed_for": "{{ groups['no_such_group'] | default([]) }}"}, "got an empty list; nothing was published"),
    ({"documents": {"app/never": {"content": SECRET, "sealed_for": None}}}, "sealed_for: expected hosts and groups"),
]


def test_what_cannot_be_sealed_fails_and_shows_no_content(fleet: Fleet) -> None:
    tasks = [*groups(), {"ansible.builtin.add_host": {"name": "host9"}}]
    for options, _told in REFUSED:
        alone = {} if "documents" in options else {"key": "app/never", "content": SECRET}
        task = publish(fleet, **{**alone, **options})
        task[PUBLISH] = {name: value for name, value in task[PUBLISH].items() if value is not None}
        tasks += [{**task, "ignore_errors": True}, that("done is failed")]
    output = " ".join(fleet.play(tasks).split())
    for _options, told in REFUSED:
        assert told in output
    assert SECRET not in output
    assert opened(fleet, 1, "app/never").returncode == 1


def test_a_changed_key_is_refused_until_the_document_is_sealed_again(fleet: Fleet) -> None:
    """Host 2 is rebuilt: here, another key takes the place of its pinned key first, so that its real one is new."""
    path = keys(fleet) / "hosts" / "host2.pub"
    real = path.read_text()
    other = "xdp-gossip-x25519 hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= host2\n"
    path.write_text(other)
    before = [
        publish(fleet, key="re/one", content=SECRET, sealed_for=["host1", "host2"], expires="2h", wait="all"),
        publish(fleet, key="re/two", content=SECRET, sealed_for=["host2"], wait="all"),
        publish(fleet, key="re/three", content=SECRET, sealed_for=["host1"], wait="all"),
        publish(fleet, key="re/source", content=SECRET, sealed_for=["host2"], seal_for_controller=False, wait="all"),
        {VERIFY: {"key": "re/one", "openable": True}, "register": "seen", "ignore_errors": True},
        that("seen is failed", "seen.unable == ['host2']", "seen.openers == ['host1']", "'host2' in seen.msg"),
    ]
    fleet.play([*groups(), *before])
    assert opened(fleet, 2, "re/one").returncode == 1
    refused = fleet.play([pin(fleet, 2)], fails=True).replace("\n", " ")
    assert "host2: expected the sealing key that the controller has" in refused and path.read_text() == other
    fleet.play(
        [
            *groups(),
            pin(fleet, 2, replace=True),
            that("pinned is changed"),
            pin(fleet, 2),
            that("pinned is not changed"),
            {**publish(fleet, reseal=True, wait="all"), "ignore_errors": True},
            that(
                "done is failed",
                "done.resealed == ['re/one', 're/two']",
                "done.not_resealed.keys() | list == ['re/source']",
                "'publish it from its source' in done.msg",
            ),
            {PUBLISH: {"key": "re/source", "state": "absent"}},
            publish(fleet, reseal=True),
            that("done is not changed", "done.resealed == []"),
            {VERIFY: {"key": "re/one", "openable": True}, "register": "seen"},
            that("seen.openers == ['host1', 'host2']"),
            publish(fleet, key="re/two", content=SECRET, sealed_for=["host2"]),
            that("done is not changed"),
        ]
    )
    assert path.read_text() == real
    for key in ("re/one", "re/two"):
        assert opened(fleet, 2, key).stdout == SECRET.encode()


def test_the_playbooks_publish_verify_and_reseal(fleet: Fleet) -> None:
    path = keys(fleet) / "hosts" / "host2.pub"
    real = path.read_text()
    path.write_text("xdp-gossip-x25519 hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= host2\n")
    common = {"xdp_gossip_sealing_dir": str(keys(fleet)), "xdp_gossip_key": "pb/secret"}
    document = {"xdp_gossip_content": SECRET, "xdp_gossip_sealed_for": ["all"], "xdp_gossip_sign_cluster": CLUSTER}
    told = playbook(fleet, "publish", **common, **document)
    assert "held by 3 of 3 members" in told and SECRET not in told
    told = playbook(fleet, "verify", fails=True, xdp_gossip_key="pb/secret", xdp_gossip_openable=True)
    assert "no present member has the key of host2" in " ".join(told.split())
    more = {"xdp_gossip_cluster": CLUSTER, "xdp_gossip_socket": str(fleet.sockets[1]), "xdp_gossip_rebuilt": "host2"}
    assert "Sealed again: pb/secret" in playbook(fleet, "reseal", **common, **more)
    assert path.read_text() == real and opened(fleet, 2, "pb/secret").stdout == SECRET.encode()
    assert "Sealed again: nothing" in playbook(fleet, "reseal", **common, **more)
    playbook(fleet, "verify", xdp_gossip_key="pb/secret", xdp_gossip_openable=True)


def playbook(fleet: Fleet, name: str, *, fails: bool = False, **variables: object) -> str:
    """Run a playbook of the collection on this machine, whose hosts are the three members."""
    python = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    path = fleet.directory / "hosts.yml"
    path.write_text(json.dumps({"all": {"hosts": {f"host{number}": python for number in (1, 2, 3)}}}))
    wrapper = fleet.directory / "wrapper.yml"
    environment = {"XDP_GOSSIP_ENDPOINTS": f"unix://{fleet.sockets[2]}", "XDP_GOSSIP_RETRIES": "0"}
    source = (ROOT / "playbooks" / f"{name}.yml").read_text()
    wrapper.write_text(source.replace("  become: true\n", f"  environment: {json.dumps(environment)}\n"))
    return fleet.run("ansible-playbook", "-i", str(path), str(wrapper), "-e", json.dumps(variables), fails=fails)


def test_the_same_key_for_two_hosts_is_refused(fleet: Fleet) -> None:
    told = fleet.play([{**pin(fleet, 1), PIN: {**pin(fleet, 1)[PIN], "host": "copy"}}], fails=True).replace("\n", " ")
    assert "copy: expected a sealing key of its own, got the key of host1" in told


def test_an_envelope_of_a_member_is_not_sealed_again(fleet: Fleet) -> None:
    """A member knows the public keys. What it seals itself does not get the controller's tag."""
    lines = [(keys(fleet) / "hosts" / "host1.pub").read_text()]
    shown = subprocess.run(
        ["/usr/bin/python3", "-c", PUBLIC_OF, str(ROOT / "agent"), str(keys(fleet) / "controller.key")],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    lines += [shown, "xdp-gossip-x25519 hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= host2\n"]
    recipients = fleet.directory / "recipients"
    recipients.write_text("".join(lines))
    words = [COMMAND, "--socket", str(fleet.sockets[2]), "publish", "forged", "--value", "x", "--wait", "all"]
    words += ["--sealed-for", str(recipients), "--cluster", CLUSTER]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    told = fleet.play([publish(fleet, reseal=True, key="forged")], fails=True).replace("\n", " ")
    assert "this controller has not sealed it" in told
    fleet.play([{PUBLISH: {"key": "forged", "state": "absent"}}])


PUBLIC_OF = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from xdp_gossip.sealing import keys
print(keys.public_line(keys.public_of(keys.load(Path(sys.argv[2]))), "@controller"))
"""
