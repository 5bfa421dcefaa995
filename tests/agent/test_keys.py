# SPDX-License-Identifier: MIT
"""Secrets and what is derived from them (docs/wire.md, "Keys")."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from tests.support.keys import KEY, OTHER_KEY, THIRD_KEY, numbered, with_id
from xdp_gossip.wire.keys import Keyring, derive, generate, is_generated

ROOT = Path(__file__).resolve().parents[2]


def test_the_vectors_of_the_documentation() -> None:
    text = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `(.+)` \| `(\w{16})` \| (\d+) \| `(\w{32})` \| `(\w{64})` \|$", text)
    assert [is_generated(secret) for secret, *_ in rows] == [True, False]
    for secret, fingerprint, key_id, mac, body in rows:
        key = derive("default", secret)
        assert f"{key.fingerprint:016x}" == fingerprint
        assert (key.id, key.mac.hex(), key.body.hex()) == (int(key_id), mac, body)


def test_a_generated_key_has_its_form_and_is_another_each_time() -> None:
    made = {generate() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"xgk1_[A-Za-z0-9_-]{43}", key) for key in made)
    assert len({derive("default", key).fingerprint for key in made}) == 100


@pytest.mark.parametrize(
    "text",
    [
        "xgk1_",
        KEY[:-1],
        KEY + "A",
        KEY + "=",
        KEY[:-2] + "+" + KEY[-1],
        KEY[:-2] + "\u00e9" + KEY[-1],
        KEY[:-1] + "d",  # the two bits that no key has
        "xgk1_ a passphrase that begins so",
    ],
)
def test_a_malformed_key_is_no_passphrase(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected xgk1_ and 43 characters of base64url, got ") as raised:
        derive("default", text)
    assert KEY[5:12] not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *("correct horse battery staple\n", " correct horse battery staple", "correct horse battery staple "),
        *("\ufeffcorrect horse battery staple", "correct\u00a0horse battery staple", "correct horse battery\x00staple"),
        unicodedata.normalize("NFD", "a na\u00efve passphrase of ours"),
    ],
)
def test_a_text_that_looks_like_another_is_no_passphrase(text: str) -> None:
    """Two hosts would have two keys, and nobody would see the difference between their files."""
    with pytest.raises(ValueError, match="expected a passphrase of printable characters") as raised:
        derive("default", text)
    assert text not in str(raised.value) and "horse" not in str(raised.value)
    plain = text.strip().strip("\ufeff").replace("\u00a0", " ").replace("\0", "")
    derive("default", unicodedata.normalize("NFC", plain))


def test_clusters_share_no_key() -> None:
    for secret in (KEY, "a passphrase of the tests"):
        one, other = derive("one", secret), derive("other", secret)
        assert one.fingerprint != other.fingerprint and one.mac != other.mac and one.body != other.body


def test_the_same_secret_is_the_same_key_however_it_is_given() -> None:
    alone = Keyring.single("default", KEY)
    among = Keyring("default", [("staged", OTHER_KEY), ("active", KEY), ("retiring", THIRD_KEY)])
    assert alone.active == among.active == derive("default", KEY)
    assert among.get(alone.active.id) == alone.active
    assert [state for _, state in among.states] == ["staged", "active", "retiring"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], "expected exactly one active key, got 0"),
        ([("staged", KEY)], "expected exactly one active key, got 0"),
        ([("active", KEY), ("active", OTHER_KEY)], "expected exactly one active key, got 2"),
        ([("on", KEY)], "keys[0]: expected one of staged, active, retiring, got 'on'"),
        ([("active", KEY), ("staged", KEY)], "keys[1]: expected each secret once, got the secret of keys[0] again"),
        ([("active", KEY), ("staged", KEY[:-1])], "keys[1]: expected xgk1_ and 43 characters"),
        (
            [("active", KEY), ("staged", with_id("default", derive("default", KEY).id, KEY))],
            f"got the id {derive('default', KEY).id} of keys[0]; generate another key",
        ),
        ([("active", numbered(0)), *(("staged", numbered(n)) for n in range(1, 9))], "expected at most 8 keys, got 9"),
    ],
)
def test_keys_that_cannot_be_used_together(keys: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        Keyring("default", keys)
    assert KEY[5:] not in str(raised.value)


def test_no_secret_is_shown() -> None:
    keyring = Keyring.single("default", KEY)
    shown = repr(keyring.active) + repr(keyring) + str(keyring.states)
    for hidden in (KEY, keyring.active.mac.hex(), keyring.active.body.hex(), repr(keyring.active.mac)):
        assert hidden not in shown
