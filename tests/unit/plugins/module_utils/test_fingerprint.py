# SPDX-License-Identifier: MIT
"""The fingerprint of a key is the one that the agent computes (tests/agent has the same values)."""

from __future__ import annotations

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fingerprint import fingerprint

GENERATED = "xgk1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


@pytest.mark.parametrize(
    ("cluster", "secret", "expected"),
    [
        ("default", GENERATED, "37381b55c7b42371"),
        ("blue", GENERATED, "711aa109e942ddc5"),
        ("default", "correct horse battery staple", "4e4abb0066eeb8cf"),
        ("b\u00fcro", "pass\u00fcw\u00f6rd of some length", "ac5f7df16f3d935b"),
    ],
)
def test_a_secret_has_the_fingerprint_that_the_agent_shows(cluster: str, secret: str, expected: str) -> None:
    assert fingerprint(cluster, secret) == expected


@pytest.mark.parametrize(
    "secret", ["xgk1_", GENERATED[:-1], GENERATED + "A", GENERATED[:-1] + "+", GENERATED[:-1] + "9", "xgk1_\u00e9"]
)
def test_a_damaged_key_is_no_passphrase_and_is_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="expected xgk1_ and 43 characters of base64url"):
        fingerprint("default", secret)


@pytest.mark.parametrize("secret", ["a long passphrase\n", "\ufeffa long passphrase", "a long passphrase u\u0308"])
def test_a_passphrase_that_agents_refuse(secret: str) -> None:
    with pytest.raises(ValueError, match="expected a passphrase of printable characters") as raised:
        fingerprint("default", secret)
    assert "long" not in str(raised.value)
