# SPDX-License-Identifier: MIT
"""The agent and the collection seal with code of their own. Each opens what the other sealed, and reads it alike."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xdp_gossip.core import sealed
from xdp_gossip.sealing import envelope, keys

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
NAME = "ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed"


def plugin(kind: str, name: str) -> ModuleType:
    """Load a file of the collection, which has no Ansible here."""
    found = importlib.util.spec_from_file_location(name.strip("_"), PLUGINS / kind / f"{name}.py")
    assert found is not None and found.loader is not None
    made = importlib.util.module_from_spec(found)
    sys.modules[found.name] = made
    found.loader.exec_module(made)
    return made


PARSED = plugin("module_utils", "_sealed")
# What the next file imports.
_missing = [name for name in (NAME.rsplit(".", count)[0] for count in range(5, 0, -1)) if name not in sys.modules]
for _name in _missing:
    sys.modules[_name] = types.ModuleType(_name)
sys.modules[NAME] = PARSED
SEALING = plugin("plugin_utils", "_sealing")
for _name in [*_missing, NAME]:
    del sys.modules[_name]

PRIVATE = [bytes((number,)) * 32 for number in range(1, 6)]
PUBLIC = [(f"host{number}", keys.public_of(key)) for number, key in enumerate(PRIVATE, 1)]
TEXT = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20)
VALUE = envelope.seal("c", "k", b"value", "text", [keys.PublicKey(*one) for one in PUBLIC[:3]])


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(TEXT, TEXT, st.binary(max_size=2000), st.integers(1, len(PUBLIC)), TEXT.map(lambda text: text[:8]))
def test_each_opens_what_the_other_sealed(cluster: str, key: str, content: bytes, count: int, kind: str) -> None:
    theirs = SEALING.Sealer(cluster, PRIVATE[0]).seal(
        key, content, kind, [SEALING.PublicKey(*one) for one in PUBLIC[:count]]
    )
    ours = envelope.seal(cluster, key, content, kind, [keys.PublicKey(*one) for one in PUBLIC[:count]])
    assert len(theirs) == len(ours)
    for private in PRIVATE[:count]:
        assert envelope.open_envelope(cluster, key, theirs, private) == (content, kind)
        assert SEALING.Sealer(cluster, private).open(key, ours) == content


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(st.integers(0, len(VALUE)), st.binary(max_size=60), st.integers(0, 60))
@example(21, b"", 0)
@example(25, b"\x04\x01", 2)
@example(25, b"\0\0", 2)
def test_both_accept_the_same_envelopes(at: int, put: bytes, drop: int) -> None:
    value = VALUE[:at] + put + VALUE[at + drop :]
    try:
        ours = sealed.parse(value)
    except ValueError:
        ours = None
    try:
        theirs = PARSED.parse_envelope(value)
    except ValueError:
        theirs = None
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert [(one.name, one.fingerprint) for one in ours.recipients] == [tuple(one) for one in theirs.recipients]
        parts = ("content_type", "size", "head", "commitment", "tag", "ciphertext")
        assert [getattr(ours, name) for name in parts] == [getattr(theirs, name) for name in parts]


def test_the_limits_are_the_same() -> None:
    names = (("SEALED", "SEALED"), ("MAGIC", "FIRST_LINE"), ("MAX_RECIPIENTS", "MAX_RECIPIENTS"))
    for ours, theirs in (*names, ("MAX_NAME", "MAX_NAME"), ("MAX_TYPE", "MAX_TYPE")):
        assert getattr(sealed, ours) == getattr(PARSED, theirs)
