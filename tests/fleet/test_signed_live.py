# SPDX-License-Identifier: MIT
"""Documents that Ansible signs on the controller, published to real agents that accept no others."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_ansible_plugins import PUBLISH, VERIFY, Fleet, pytestmark, that  # noqa: F401  (the same needs)

CLUSTER = "plugins"


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Alice may sign what is below app/, Bob what is below db/."""
    directory = tmp_path_factory.mktemp("s")
    for name in ("alice", "bob", "eve"):
        keygen("-t", "ecdsa" if name == "bob" else "ed25519", "-N", "", "-C", name, "-f", str(directory / name))
    signers = [
        {"name": name, "public_key": (directory / f"{name}.pub").read_text().strip(), "prefixes": [prefix]}
        for name, prefix in (("alice", "app/"), ("bob", "db/"))
    ]
    fleet = Fleet(directory, signers=signers)
    try:
        fleet.wait_for_hosts(fleet.inventory(), {"host1", "host2", "host3"}, 30)
        yield fleet
    finally:
        fleet.close()


def publish(fleet: Fleet, signer: str = "alice", **options: Any) -> dict[str, Any]:
    """A task that signs with the key of this name."""
    return {PUBLISH: {"sign_key": str(fleet.directory / signer), "cluster": CLUSTER, **options}, "register": "done"}


def test_a_signed_document_is_published_once_and_says_who_signed_it(fleet: Fleet) -> None:
    document = {"key": "app/limits", "value": {"requests": 200, "names": ["ü", '"', "\U0001f600"]}, "wait": "all"}
    fleet.play(
        [
            publish(fleet, **document),
            that(
                "done is changed",
                "done.signed_by.signer == 'alice'",
                "done.confirmed == 3",
                "done.lineages is undefined",
            ),
            publish(fleet, **document),
            that("done is not changed", "done.signed_by.signer == 'alice'", "done.confirmed == 3"),
        ]
    )
    fleet.play(
        [
            {VERIFY: {"key": "app/limits", "signed_by": "alice"}, "register": "seen"},
            that("seen.signed_by.signer == 'alice'", "not seen.signed_by.withdrawn", "seen.confirmed == 3"),
            {VERIFY: {"key": "app/limits", "signed_by": "bob"}, "register": "seen", "ignore_errors": True},
            that("seen is failed", "'expected a signature by bob, got one by alice with the key SHA256:' in seen.msg"),
        ],
        members="2",
    )


def test_without_the_right_signature_nothing_is_written_or_deleted(fleet: Fleet) -> None:
    tasks = [
        publish(fleet, key="app/kept", content="x"),
        {PUBLISH: {"key": "app/kept", "content": "y"}, "register": "done", "ignore_errors": True},
        that("done is failed", "done.error.code == 'signature_required'", "'set sign_key and cluster' in done.msg"),
        {PUBLISH: {"key": "app/kept", "state": "absent"}, "register": "done", "ignore_errors": True},
        that("done is failed", "done.error.code == 'signature_required'"),
        {PUBLISH: {"key": "app/kept", "content": "x"}, "register": "done"},
        that("done is not changed"),
    ]
    for signer, key, cluster in (
        ("eve", "app/kept", CLUSTER),
        ("bob", "app/kept", CLUSTER),
        ("alice", "app/kept", "x"),
    ):
        tasks += [
            {**publish(fleet, signer, key=key, content="y", cluster=cluster), "ignore_errors": True},
            that("done is failed", "done.error.code == 'signature_refused'"),
        ]
    tasks += [{VERIFY: {"key": "app/kept", "content": "x", "signed_by": "alice"}}]
    fleet.play(tasks)


def test_many_documents_expiry_deletion_files_and_comment(fleet: Fleet) -> None:
    (fleet.directory / "settings.yaml").write_text("a: 1\n")
    documents = {
        "app/a": {"src": "settings.yaml"},
        "app/b.json": {"value": {"x": [1, 2.5, None]}, "expires": "2h"},
        "app/c": {"content": "c", "content_type": "text/plain"},
        "free": {"content": "no prefix"},
    }
    many = {"documents": documents, "comment": 'release "7" ü', "wait": "all"}
    fleet.play(
        [
            publish(fleet, **many),
            that("done is changed", "done.atomic", "done.documents | length == 4"),
            publish(fleet, **many),
            that("done is not changed"),
            publish(fleet, documents={"app/a": {"state": "absent"}, "app/c": {"content": "d"}}, wait="all"),
            that("done is changed", "done.documents['app/a'].signed_by.signer == 'alice'"),
            publish(fleet, documents={"app/a": {"state": "absent"}}, wait="all"),
            that("done is not changed"),
            {VERIFY: {"key": "app/a", "state": "absent"}},
            {VERIFY: {"key": "app/b.json", "signed_by": "alice"}},
            publish(fleet, documents={"app/a": {"content": "again"}}),
            that("done is changed"),
            {"xdp_gossip.fleet.xdp_gossip_info": {"gather": ["documents"]}, "register": "info"},
            {
                "ansible.builtin.set_fact": {
                    "about": "{{ dict(info.documents | map(attribute='key') | zip(info.documents)) }}"
                }
            },
            that(
                "about['app/b.json'].expires is truthy",
                "about['app/b.json'].content_type == 'json'",
                "about['app/b.json'].comment == 'release \"7\" ü'",
                "about['app/c'].content_type == 'raw'",
                "about['app/a'].content_type == 'raw'",
                "about['free'].signed_by.signer is none",
            ),
        ]
    )


def test_check_mode_and_diff_foretell_and_sign_nothing(fleet: Fleet) -> None:
    broken = fleet.directory / "bin"
    broken.mkdir(exist_ok=True)
    (broken / "ssh-keygen").write_text("#!/bin/sh\nexit 7\n")
    (broken / "ssh-keygen").chmod(0o755)
    before = fleet.environment["PATH"]
    fleet.environment["PATH"] = f"{broken}:{before}"
    task = publish(fleet, key="app/later", content="later")
    try:
        told = fleet.play([task, that("done is changed", "done.signed_by is none")], "--check", "--diff")
        assert "+later" in told
        assert "ssh-keygen made no signature: it gives no reason" in fleet.play([task], fails=True)
    finally:
        fleet.environment["PATH"] = before


def test_the_key_may_be_in_a_vault_or_in_ssh_agent(fleet: Fleet) -> None:
    (fleet.directory / "password").write_text("a password\n")
    (fleet.directory / "vaulted").write_bytes((fleet.directory / "alice").read_bytes())
    vault = ["--vault-password-file", str(fleet.directory / "password")]
    fleet.run("ansible-vault", "encrypt", *vault, str(fleet.directory / "vaulted"))
    local = fleet.directory / "local"
    fleet.environment["ANSIBLE_LOCAL_TEMP"] = str(local)
    signed = that("done is changed", "done.signed_by.signer == 'alice'")
    fleet.play([publish(fleet, "vaulted", key="app/vault", content="v"), signed], *vault)
    fleet.play([publish(fleet, "vaulted", key="app/vault", content="w", sign_with="agent")], *vault, fails=True)
    fleet.play([publish(fleet, "vaulted", key="app/vault", content="w")], fails=True)
    assert not [path for path in local.rglob("*") if path.is_file()]

    socket = str(fleet.directory / "a.sock")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket):
            time.sleep(0.02)
        fleet.environment["SSH_AUTH_SOCK"] = socket
        task = publish(fleet, "alice.pub", key="app/vault", content="agent", sign_with="agent")
        assert "is the key in ssh-agent" in fleet.play([task], fails=True)
        subprocess.run(
            ["ssh-add", str(fleet.directory / "alice")],
            env={**os.environ, "SSH_AUTH_SOCK": socket},
            check=True,
            capture_output=True,
            timeout=60,
        )
        fleet.play([task, signed])
    finally:
        del fleet.environment["SSH_AUTH_SOCK"]
        agent.terminate()
        agent.wait(30)
