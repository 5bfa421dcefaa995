# SPDX-License-Identifier: MIT
"""How far a rotation is, is which files there are: after each step, and after a run that was killed within one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fingerprint import fingerprint
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _rotation as rotation


def read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


class World:
    """A directory of secrets with one key."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = private(place / "secret.key", secrets.new_key() + "\n")
        self.rotation = rotation.key_rotation(self.path, str(place), "default", read)

    def begin(self, given: str = "") -> None:
        self.rotation.begin(secrets.new_key, given, bytes)

    def states(self) -> list[tuple[str, str]]:
        return [(os.path.basename(one.path), one.state) for one in self.rotation.held()]

    def key(self, suffix: str = "") -> str:
        return fingerprint("default", read(self.path + suffix).decode().strip())


@pytest.fixture(name="world")
def fixture_world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_step_is_done_once_and_only_in_its_turn(world: World) -> None:
    first = world.key()
    for step in (world.rotation.activate, world.rotation.retire, world.rotation.finish):
        step()
        assert world.rotation.phase == "none" and world.states() == [("secret.key", "active")]
    world.begin()
    world.begin()
    assert world.rotation.phase == "stage"
    second = world.key(".next")
    assert (
        world.states() == [("secret.key", "active"), ("secret.key.next", "staged")] and world.key() == first != second
    )
    world.rotation.activate()
    world.rotation.activate()
    assert world.states() == [("secret.key", "active"), ("secret.key.retiring", "retiring")]
    assert (world.key(), world.key(".retiring"), world.rotation.phase) == (second, first, "activate")
    world.begin()  # no other rotation while one is in progress
    assert world.rotation.phase == "activate" and world.key() == second
    world.rotation.retire()
    world.rotation.retire()
    assert (world.states(), world.rotation.phase) == ([("secret.key", "active")], "retire")
    assert world.rotation.retired() == first and world.rotation.former() == [first]
    world.rotation.finish()
    assert (world.rotation.phase, world.rotation.files, world.key()) == ("none", [], second)
    assert sorted(path.name for path in world.place.iterdir() if not path.name.startswith(".")) == [
        "secret.key",
        "secret.key.former",
    ]


def test_all_files_are_their_owners_alone(world: World) -> None:
    for step in (world.begin, world.rotation.activate, world.rotation.retire):
        step()
        for path in world.place.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("at", range(1, 9))
def test_killed_at_any_file_the_hosts_keep_a_key_that_all_have(world: World, monkeypatch: t.Any, at: int) -> None:
    """Each rename or removal may be the last one that a run makes; the next run goes on."""
    first, calls = world.key(), []

    def counted(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*words: t.Any) -> t.Any:
            calls.append(words)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*words)

        return call

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(os, "unlink", counted(os.unlink))
    seen = []

    def run() -> None:
        for step in (world.begin, world.rotation.activate, world.rotation.retire, world.rotation.finish):
            step()
            seen.append({one.fingerprint for one in world.rotation.held()})

    try:
        run()
    except KeyboardInterrupt:
        held = {one.fingerprint for one in world.rotation.held()}
        # Never is a key gone that was the only one of the step before.
        assert not seen or held & seen[-1]
        run()
    assert world.rotation.phase == "none" and world.key() != first and world.rotation.former()[0] == first


def test_a_new_key_never_has_the_id_of_the_present_one(world: World) -> None:
    """Of 256 keys one has it, so it is made again; a given one is refused."""
    present = world.key()
    same = next(key for key in iter(secrets.new_key, "") if fingerprint("default", key)[:2] == present[:2])
    keys = iter([same, same, secrets.new_key()])
    given = private(world.place / "own", same)
    with pytest.raises(secrets.SecretsError, match="differs from that of the present key, got the same id"):
        world.begin(given)
    assert world.rotation.phase == "none"
    with pytest.raises(secrets.SecretsError, match="got the same id 100 times"):
        world.rotation.begin(lambda: same, "", bytes)
    world.rotation.begin(lambda: next(keys), "", bytes)
    assert world.key(".next")[:2] != present[:2]


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("a passphrase of some length\n", 0o600, ""),
        ("a passphrase of some length\n", 0o644, "expected mode 0600"),
        ("tiny", 0o600, "at least 16 characters"),
        ("two lines\nof a passphrase that is long", 0o600, "one line of at least"),
        ("xgk1_damaged-key-that-is-no-key", 0o600, "expected xgk1_ and 43 characters"),
        (None, 0o600, "expected a new secret, got the present one or an earlier one"),
    ],
)
def test_an_own_key(world: World, text: t.Optional[str], mode: int, told: str) -> None:
    given = private(world.place / "own", read(world.path).decode() if text is None else text)
    os.chmod(given, mode)
    if told:
        with pytest.raises(secrets.SecretsError, match=told) as refused:
            world.begin(given)
        assert (
            text is None or text.strip() not in str(refused.value).replace(given, "")
        ) and world.rotation.phase == "none"
    else:
        world.begin(given)
        assert read(world.path + ".next").decode() == text


def test_a_key_that_was_replaced_is_not_taken_again(world: World) -> None:
    old = private(world.place / "old", read(world.path).decode())
    world.begin()
    for step in (world.rotation.activate, world.rotation.retire, world.rotation.finish):
        step()
    with pytest.raises(secrets.SecretsError, match="an earlier one"):
        world.begin(old)


def test_the_next_key_is_encrypted_if_the_present_one_is(world: World) -> None:
    plain = read(world.path)
    private(Path(world.path), "$ANSIBLE_VAULT;1.1;AES256\n3061\n")

    def opened(path: str) -> bytes:
        return plain if path == world.path else read(path)

    vaulted = rotation.key_rotation(world.path, str(world.place), "default", opened)
    vaulted.begin(secrets.new_key, "", lambda content: b"locked " + content)
    assert read(world.path + ".next").startswith(b"locked xgk1_")


def test_files_that_differ_in_nothing_are_refused(world: World) -> None:
    private(Path(world.path + ".next"), read(world.path).decode())
    with pytest.raises(secrets.SecretsError, match="expected another secret than in"):
        world.rotation.held()


def test_a_token_is_known_by_its_hash(tmp_path: Path) -> None:
    path = private(tmp_path / "api.token", "t" * 30)
    one = rotation.token_rotation(path, str(tmp_path), read)
    one.begin(secrets.new_token, "", bytes)
    assert [held.fingerprint for held in one.held()] == [
        secrets.hash_of("t" * 30),
        secrets.hash_of(read(path + ".next").decode().strip()),
    ]


def test_a_named_token_ends_its_rotation_when_the_inventory_has_its_hash(tmp_path: Path) -> None:
    one = rotation.NamedToken(str(tmp_path), "../shop", read)
    assert one.next_hash() == "" and rotation.next_tokens(str(tmp_path), read) == {}
    one.begin("")
    assert os.path.dirname(one.path) == str(tmp_path / "tokens") and one.next_hash().startswith("sha256:")
    assert rotation.next_tokens(str(tmp_path), read) == {"../shop": one.next_hash()}
    one.finish("sha256:" + "0" * 64)
    assert one.next_hash()
    one.finish(one.next_hash())
    assert one.next_hash() == "" and os.path.exists(one.path[: -len(".next")])
    os.rename(one.path[: -len(".next")], one.path)
    os.chmod(one.path, 0o644)
    with pytest.raises(secrets.SecretsError, match="expected mode 0600"):
        rotation.next_tokens(str(tmp_path), read)


def test_two_runs_at_the_same_time_are_told_apart_by_their_processes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        rotation.Run(str(tmp_path), process.pid).take()
        mine = rotation.Run(str(tmp_path), os.getpid())
        assert mine.other() == process.pid
        with pytest.raises(secrets.SecretsError, match="the process %d on the controller is rotating" % process.pid):
            mine.take()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
    assert mine.other() == 0
    mine.take()
    mine.take()
    # A process that got the number of one that has ended is another one.
    private(tmp_path / "rotation.pid", "1 1\n")
    assert mine.other() == 0
    private(tmp_path / "rotation.pid", "damaged")
    assert mine.other() == 0


def test_a_directory_that_cannot_be_written_is_named(world: World) -> None:
    world.begin()
    os.mkdir(world.path + ".retiring.%d.new" % os.getpid())
    with pytest.raises(secrets.SecretsError, match=r"secret\.key\.retiring.*: Is a directory"):
        world.rotation.activate()
    assert world.rotation.phase == "stage"
