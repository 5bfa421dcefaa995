# SPDX-License-Identifier: MIT
"""A content is what its type says, or is refused with a reason: whatever it does to its parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xdp_gossip import ProtocolError
from xdp_gossip.content import MAX_LEVELS, check

AGENT = Path(__file__).resolve().parents[2] / "agent"


@pytest.mark.parametrize(
    "value",
    [
        b'!!bool "foo"',
        b'!!int ""',
        b'!!float ""',
        b'!!int "0x"',
        b"!!timestamp x",
        b"!!omap [1]",
        b"!!pairs 1",
        b"!!binary \xc3\xa9",
        b"2001-99-99",
        b"? {a: 1}\n: 1",
        b"<<: 1",
        b"--- 1\n--- 2",
        b"\0",
        b"1" * 5000,
        b"!!python/object:os.system x",
        b"*nobody",
    ],
)
def test_yaml_that_its_constructors_do_not_take(value: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"expected valid yaml, .") as refused:
        check("k", value, "yaml")
    assert refused.value.code == "invalid_content"


@pytest.mark.parametrize("value", ["!!float {}", "!!{} 1", "*{}"])
def test_a_reason_that_quotes_megabytes(value: str) -> None:
    with pytest.raises(ProtocolError, match=r"expected valid yaml, .") as refused:
        check("k", value.format("x" * 1_000_000).encode(), "yaml")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("opening", ["- ", "[", "{a: ", "? ", "a:\n", "&x [", "{? "])
def test_deep_yaml_ends_no_process(opening: str) -> None:
    """The loader in C overflowed the stack: in a process of its own, as a failure would end this one."""
    code = (
        "import sys; from xdp_gossip import content, ProtocolError\n"
        "one = sys.argv[1]\n"
        "text = ''.join(' ' * n + one for n in range(2000)) if '\\n' in one else one * 100_000\n"
        "try: content.check('k', (text + 'x').encode(), 'yaml')\n"
        "except ProtocolError as error: print(error)\n"
    )
    words = (sys.executable, "-c", code, opening)
    done = subprocess.run(words, cwd=AGENT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nested too deeply" in done.stdout


def test_the_deepest_yaml() -> None:
    assert f"YAML has at most {MAX_LEVELS} levels" in (AGENT.parent / "docs" / "api.md").read_text(encoding="utf-8")
    check("k", b"[" * MAX_LEVELS + b"]" * MAX_LEVELS, "yaml")
    with pytest.raises(ProtocolError, match="nested too deeply"):
        check("k", b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1), "yaml")
