# SPDX-License-Identifier: MIT
"""The secrets of a fleet on the controller: made once, their owner's alone, never of two fleets."""

from __future__ import annotations

import datetime
import os
import re
import stat
import threading
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as secrets

NOW = datetime.datetime.now(datetime.timezone.utc)
VAULTED = "$ANSIBLE_VAULT;1.1;AES256\n3061\n"


def read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def wanted(place: t.Any, host: str = "host1", **other: t.Any) -> secrets.Wanted:
    directory = os.path.join(str(place), "secrets")
    paths = {name: os.path.join(directory, name) for name in ("secret.key", "api.token", "ca.crt", "ca.key")}
    return secrets.Wanted(
        cluster="default",
        directory=directory,
        secret=paths["secret.key"],
        token=paths["api.token"],
        keys=[],
        ca_cert=paths["ca.crt"],
        ca_key=paths["ca.key"],
        host=host,
        names=["198.18.0.11"],
    )._replace(**other)


def test_all_are_made_once_and_are_their_owners_alone(tmp_path: t.Any) -> None:
    one = wanted(tmp_path)
    assert secrets.missing(one) == [one.secret, one.token, one.ca_cert]
    assert secrets.make(one, read, NOW) == [
        one.secret,
        one.token,
        one.ca_cert,
        one.ca_key,
        one.certificate,
        one.key,
    ]
    assert secrets.missing(one) == [] and secrets.problems(one, read) == [] and not secrets.stale(one, read, NOW)
    assert secrets.make(one, read, NOW) == []
    for place, below, names in os.walk(one.directory):
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o700, below
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode) == 0o600, name
    assert re.fullmatch(b"xgk1_[A-Za-z0-9_-]{43}\n", read(one.secret)) and len(read(one.token)) == 44


def test_hosts_that_are_prepared_side_by_side_share_them(tmp_path: t.Any) -> None:
    hosts = [wanted(tmp_path, "host%d" % number) for number in range(12)]
    threads = [threading.Thread(target=secrets.make, args=[one, read, NOW]) for one in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [secrets.stale(one, read, NOW) for one in hosts] == [""] * 12
    assert len({read(one.certificate) for one in hosts}) == 12


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o602, True), (0o610, True)]
)
@pytest.mark.parametrize("which", ["secret", "token", "ca_key", "key", "secret.next", "token.retiring"])
def test_files_must_be_their_owners_alone(tmp_path: t.Any, which: str, mode: int, refused: bool) -> None:
    one = wanted(tmp_path)
    secrets.make(one, read, NOW)
    path = getattr(one, which.partition(".")[0])
    if "." in which:
        path = path + "." + which.partition(".")[2]
        secrets.write(path, b"a secret of a rotation\n")
    os.chmod(path, mode)
    told = secrets.problems(one, read)
    expected = "%s on the controller: expected mode 0600 (nothing for group and others), got 0%o: chmod 0600 %s"
    assert told == ([expected % (path, mode, path)] if refused else [])


def test_what_vault_has_encrypted_may_be_read_by_all(tmp_path: t.Any) -> None:
    one = wanted(tmp_path)
    secrets.make(one, read, NOW)
    slots = []
    for name, text in (("one", "the secret of a slot"), ("two", VAULTED)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
        slots.append(str(tmp_path / name))

    def opened(path: str) -> bytes:
        return b"the secret of the other slot" if path == slots[1] else read(path)

    (told,) = secrets.problems(one._replace(keys=slots), opened)
    assert told.startswith(slots[0])
    (told,) = secrets.problems(one._replace(keys=[str(tmp_path / "none")]), opened)
    assert told.endswith("found no file")


@pytest.mark.parametrize("text", ["short", "two lines\nof a secret that is long", "", "   \n"])
def test_a_secret_is_one_line(tmp_path: t.Any, text: str) -> None:
    one = wanted(tmp_path)
    secrets.make(one, read, NOW)
    with open(one.secret, "w", encoding="ascii") as stream:
        stream.write(text)
    (told,) = secrets.problems(one, read)
    assert told == "%s on the controller: expected one line of at least 16 characters" % one.secret


def test_half_an_authority_makes_no_other(tmp_path: t.Any) -> None:
    one = wanted(tmp_path)
    secrets.make(one, read, NOW)
    os.unlink(one.ca_cert)
    with pytest.raises(secrets.SecretsError, match="bring both, or neither"):
        secrets.make(one, read, NOW)
    two = wanted(tmp_path / "two")
    secrets.make(two, read, NOW)
    os.unlink(two.ca_key)
    # It is not needed until something has to be signed.
    assert secrets.problems(two, read) == [] and secrets.make(two, read, NOW) == []
    with pytest.raises(secrets.SecretsError, match="expected the authority's key"):
        secrets.make(two._replace(host="host2"), read, NOW)


def test_another_fleets_secrets_are_told(tmp_path: t.Any) -> None:
    one, two = wanted(tmp_path, "host1"), wanted(tmp_path, "host2")
    assert secrets.strangers(one, ["host1"]) == [] and secrets.remembered(one)
    secrets.make(one, read, NOW)
    assert not secrets.remembered(one)
    secrets.remember(one)
    secrets.remember(one)
    secrets.remember(two)
    assert secrets.remembered(one) and secrets.strangers(one, ["host1", "host9"]) == []
    assert secrets.strangers(wanted(tmp_path, "host9"), ["host9"]) == ["host1", "host2"]


@pytest.mark.parametrize("host", ["../../etc/x", "a/b", ".hidden", "a b", "\u00e9", "198.18.0.11", "fd00::11"])
def test_no_name_of_a_host_leads_out_of_the_directory(tmp_path: t.Any, host: str) -> None:
    one = wanted(tmp_path, host)
    secrets.make(one, read, NOW)
    assert os.path.dirname(one.key) == os.path.join(one.directory, "hosts")
    assert sorted(os.listdir(os.path.join(one.directory, "hosts"))) == sorted(
        [os.path.basename(one.certificate), os.path.basename(one.key)]
    )


def test_a_place_that_cannot_be_written_is_named(tmp_path: t.Any) -> None:
    (tmp_path / "secrets").write_text("a file")
    with pytest.raises(secrets.SecretsError, match="xdp_gossip_agent_secret_dir sets another"):
        secrets.make(wanted(tmp_path), read, NOW)
