# SPDX-License-Identifier: MIT
"""The collection and the agent write the same statement of signed documents, byte for byte."""

from __future__ import annotations

import hashlib
import importlib.util
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdp_gossip.core import signatures
from xdp_gossip.core.types import Address, Version
from xdp_gossip.signing import sshsig

PLUGINS = Path(__file__).resolve().parents[2] / "plugins" / "plugin_utils"


def plugin(name: str) -> types.ModuleType:
    """A module of the collection that needs no Ansible."""
    spec = importlib.util.spec_from_file_location(f"collection{name}", PLUGINS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STATEMENT, KEY = plugin("_statement"), plugin("_signing_key")

#: What JSON encodes: no lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ['"', "\\", "ü", "\U0001f600", "\u2028", "a\nb", "{{ x }}", "\x7f", "e\u0301"]
)
TIMES = st.integers(0, signatures.MAX_SIGNED_AT) | st.integers(1_600_000_000_000_000, 2_000_000_000_000_000)
ORIGINS = st.sampled_from(["198.18.0.11", "fd00::1", "::1", "100::9b3b:bde1:73e7:c239", "::ffff:198.18.0.1"])
VERSIONS = st.builds(
    lambda hlc, ip, port: Version(hlc, Address.of(ip, port)), st.integers(0, 2**64 - 1), ORIGINS, st.integers(1, 65535)
)
DRAFTS = st.tuples(
    TEXTS,
    st.none() | st.binary(max_size=30),
    TEXTS,
    st.just(0) | st.integers(0, signatures.MAX_SIGNED_AT // 1000),
    st.lists(VERSIONS, max_size=8).map(tuple),
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(TEXTS, TIMES, TEXTS, st.lists(DRAFTS, min_size=1, max_size=5, unique_by=lambda draft: draft[0]))
def test_both_write_the_same_statement(
    cluster: str,
    signed_at: int,
    comment: str,
    drafts: list[tuple[str, bytes | None, str, int, tuple[Version, ...]]],
) -> None:
    parts = [
        signatures.Part(key, True, "", 0, b"", 0, read)
        if value is None
        else signatures.Part(key, False, kind, len(value), hashlib.sha256(value).digest(), expires, read)
        for key, value, kind, expires, read in drafts
    ]
    wanted = signatures.statement(cluster, signed_at, comment, sorted(parts, key=lambda part: part.key))
    own = [
        STATEMENT.Part(key, value, kind, expires, tuple(map(str, read))) for key, value, kind, expires, read in drafts
    ]
    assert STATEMENT.statement(cluster, signed_at, comment, own) == wanted


@settings(max_examples=500, deadline=None)
@given(VERSIONS | TIMES.map(lambda when: Version(signatures.reading_of(when), Address.of("100::1", 1))))
def test_a_new_signature_is_later_than_any_version_and_its_tombstone(version: Version) -> None:
    found = STATEMENT.earliest_after(str(version))
    assert signatures.reading_of(found) > version.hlc + 1 >= signatures.reading_of(found - 1) if found else True


def test_both_name_the_same_types_and_namespace() -> None:
    assert (KEY.KEY_TYPES, KEY.NAMESPACE) == (sshsig.KEY_TYPES, sshsig.NAMESPACE)
    assert STATEMENT.NAMESPACE == sshsig.NAMESPACE
    assert STATEMENT.LATEST == signatures.MAX_SIGNED_AT
