# SPDX-License-Identifier: MIT
"""The steps of a rotation on the controller, as tasks: what they change, and that their results have no secret."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_playbook import as_playbook, play, run_playbook

KEY = "xgk1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
ROTATION, SECRETS = "xdp_gossip.fleet.xdp_gossip_rotation", "xdp_gossip.fleet.xdp_gossip_secrets"


@pytest.fixture(name="place")
def fixture_place(tmp_path: Path) -> Path:
    place = tmp_path / "secrets"
    place.mkdir(mode=0o700)
    for name, text in (("secret.key", KEY), ("api.token", "t" * 30)):
        (place / name).write_text(text + "\n")
        (place / name).chmod(0o600)
    return place


def step(place: Path, name: str, *conditions: str, **more: t.Any) -> list[dict[str, t.Any]]:
    which = {} if "token_name" in more or "api_token_file" in more else {"secret_key_file": str(place / "secret.key")}
    options = dict({"directory": str(place), "cluster": "default", "step": name}, **which, **more)
    check = options.pop("check", False)
    return [
        {ROTATION: options, "register": "it", "check_mode": check},
        {"ansible.builtin.assert": {"that": list(conditions)}},
    ]


def seen(place: Path, *conditions: str) -> list[dict[str, t.Any]]:
    """What a deployment sees at this moment."""
    options = {
        "cluster": "default",
        "directory": str(place),
        "secret_key_file": str(place / "secret.key"),
        "api_token_file": str(place / "api.token"),
        "host": "localhost",
    }
    return [{SECRETS: options, "register": "it"}, {"ansible.builtin.assert": {"that": list(conditions)}}]


def test_all_steps_of_a_key(tmp_path, place):
    old = "37381b55c7b42371"
    states = "it.held | map(attribute='state') | list == %s"
    output = play(
        tmp_path,
        [
            *step(place, "query", "it is not changed", "it.phase == 'none'", "it.before == '%s'" % old, "not it.after"),
            *step(place, "begin", "it is not changed", "it.phase == 'none'", check=True),
            *step(place, "activate", "it is not changed", "it.phase == 'none'"),
            *seen(place, "it.held == []", "it.former == []"),
            *step(place, "begin", "it is changed", "it.phase == 'stage'", "it.before == '%s'" % old),
            *seen(place, states % ["active", "staged"], "it.held[0].fingerprint == '%s'" % old, "it.problems == []"),
            *step(place, "begin", "it is not changed", "it.phase == 'stage'", "it.known | length == 2"),
            *step(place, "activate", "it is changed", "it.phase == 'activate'", "it.before == '%s'" % old),
            *seen(place, states % ["active", "retiring"], "it.held[1].fingerprint == '%s'" % old),
            *step(place, "retire", "it is changed", "it.phase == 'retire'", "it.before == '%s'" % old),
            *seen(place, states % ["active"], "'%s' in it.former" % old),
            *step(place, "finish", "it is changed", "it.phase == 'none'", "it.before != '%s'" % old),
            *seen(place, "it.held == []", "it.former == ['%s']" % old),
        ],
    )
    assert KEY not in output and (place / "secret.key").read_text().strip() not in output
    assert oct((place / "secret.key").stat().st_mode)[-3:] == "600"


def test_a_token_and_one_of_the_inventory(tmp_path, place):
    token = {"api_token_file": str(place / "api.token")}
    old = "sha256:" + "0" * 64
    named = {"token_name": "shop", "token_hash": old}
    output = play(
        tmp_path,
        [
            *step(place, "begin", "it.phase == 'stage'", "it.before is match('sha256:')", **token),
            *seen(place, "it.token_hashes | length == 2", "it.held == []"),
            *step(place, "activate", "it.phase == 'activate'", **token),
            *seen(place, "it.token_hashes | length == 2"),
            *step(place, "begin", "it.phase == 'stage'", "it is changed", **named),
            *step(place, "begin", "it.phase == 'stage'", "it is not changed", **named),
            *seen(place, "it.next_tokens | list == ['shop']"),
            *step(place, "finish", "it.phase == 'stage'", "it is not changed", **named),
            {"ansible.builtin.set_fact": {"after": "{{ it.after }}"}},
            *seen(place, "it.next_tokens.shop == after"),
            *step(place, "retire", "it.phase == 'retire'", token_name="shop", token_hash="{{ after }}"),
            *step(place, "finish", "it.phase == 'none'", "it is changed", token_name="shop", token_hash="{{ after }}"),
            *seen(place, "it.next_tokens == {}"),
        ],
    )
    assert (place / "api.token").read_text().strip() not in output
    assert (place / "tokens" / "shop").read_text().strip() not in output


def test_a_key_in_a_vault_is_followed_by_one_in_a_vault(tmp_path, place):
    password = tmp_path / "password"
    password.write_text("of the vault")
    vault = VaultLib([("default", VaultSecret(b"of the vault"))])
    (place / "secret.key").write_bytes(vault.encrypt(KEY))
    (place / "secret.key").chmod(0o644)
    book = [*step(place, "begin", "it.phase == 'stage'"), *seen(place, "it.held | length == 2")]
    (tmp_path / "play.yml").write_text(as_playbook(book))
    run_playbook(tmp_path, str(tmp_path / "play.yml"), "--vault-password-file", str(password))
    assert vault.decrypt((place / "secret.key.next").read_bytes()).startswith(b"xgk1_")


@pytest.mark.parametrize(
    ("name", "mode", "text", "told"),
    [
        ("secret.key", 0o644, KEY, "expected mode 0600"),
        ("secret.key", 0o600, "xgk1_damaged-key-that-is-no-key", "expected xgk1_ and 43 characters of base64url"),
        ("own", 0o644, "a passphrase of some length", "expected mode 0600"),
        ("own", 0o600, "", "expected one line of at least 16 characters"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, place, name, mode, text, told):
    (place / name).write_text(text)
    (place / name).chmod(mode)
    more = {"new_file": str(place / "own")} if name == "own" else {}
    output = play(tmp_path, step(place, "begin", **more), fails=True)
    assert "%s/%s on the controller: %s" % (place, name, told) in output
    assert not text or text not in output
    assert not (place / "secret.key.next").exists()


def test_a_deployment_waits_for_a_rotation_that_runs(tmp_path, place):
    """A process that lives, and is not this run."""
    with open("/proc/1/stat", "rb") as stream:
        since = int(stream.read().rpartition(b")")[2].split()[19])
    (place / "rotation.pid").write_text("1 %d\n" % since)
    play(tmp_path, seen(place, "'the process 1 on this controller is rotating a secret' in it.problems[0]"))
    output = play(tmp_path, step(place, "begin"), fails=True)
    assert "expected no other run, but the process 1 on the controller is rotating a secret" in output
