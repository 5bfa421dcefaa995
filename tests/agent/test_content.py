# SPDX-License-Identifier: MIT
"""A content is what its type says, or is refused with a reason: whatever it does to its parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from xdp_gossip import ProtocolError
from xdp_gossip.worker.content import check
from xdp_gossip.worker.yamlgraph import MAX_LEVELS, MAX_MERGED

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
        b"1" + b":1" * 5000,
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
        "import sys; from xdp_gossip import ProtocolError; from xdp_gossip.worker import content\n"
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
    assert f"YAML with at most {MAX_LEVELS} levels" in (AGENT.parent / "docs" / "api.md").read_text(encoding="utf-8")
    check("k", b"[" * MAX_LEVELS + b"]" * MAX_LEVELS, "yaml")
    with pytest.raises(ProtocolError, match="nested too deeply"):
        check("k", b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1), "yaml")


@pytest.mark.parametrize(
    ("content_type", "value", "reason"),
    [
        ("json", b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        ("json", b'[{"x": {"": 1, "": 1}}]', "the key '' is there twice"),
        ("json", b'{"a": 1, "\\u0061": 3}', "the key 'a' is there twice"),
        ("yaml", b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is there twice, first in line 1"),
        ("yaml", b"- x:\n    {y: 1, 'y': 2}\n", "line 2, column 12: the key 'y' is there twice, first in line 2"),
        ("yaml", b"1: a\n0x1: b\n", "line 2, column 1: the key 1 is there twice"),
        ("yaml", b"? &k a\n: 1\n? *k\n: 2\n", "the key 'a' is there twice"),
        ("yaml", b"~: a\nnull: b\n", "the key None is there twice"),
        ("yaml", b"!!set {a, b, a}", "the key 'a' is there twice"),
        ("yaml", b"x: &x {a: 1}\ny: {<<: *x, a: 2, a: 3}", "the key 'a' is there twice"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(content_type: str, value: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=f"expected valid {content_type}") as refused:
        check("k", value, content_type)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        "x: &x {a: 1}\ny: {<<: *x, a: 2}\n",  # what is merged gives way
        "x: &x {a: 1}\ny: &y {a: 2}\nz: {<<: [*x, *y]}\n",
        "x: &x {a: 1}\ny: &y {a: 2}\nz:\n  <<: *x\n  <<: *y\n",
        "&x {a: *x, b: [*x]}",
        "&x {<<: *x, a: 1}",
        "{a: {k: 1}, b: {k: 1}}",
        "1: a\n'1': b\n",
        "=: 1",
        "!!omap [{a: 1}, {a: 2}]",
        "!!pairs [{a: 1}, {a: 2}]",
        "!!binary aGk=: 2026-01-01\n2026-01-01: .nan\n",
        "",
        "# nothing",
    ],
)
def test_yaml_that_is_taken(value: str) -> None:
    check("k", value.encode(), "yaml")
    yaml.safe_load(value)


@pytest.mark.parametrize(
    "value", ["=", "<<", "!!map x", "!!seq x", "!!set [a]", "!!str [a]", "!!map [a]", "!!seq {a: 1}", "!!omap {a: 1}"]
)
def test_yaml_that_no_reader_could_load_is_refused(value: str) -> None:
    with pytest.raises((yaml.YAMLError, ValueError, TypeError)):
        yaml.safe_load(value)
    with pytest.raises(ProtocolError, match=r"expected valid yaml, ."):
        check("k", value.encode(), "yaml")


def test_aliases_that_multiply_are_counted_and_not_made() -> None:
    """Each node is looked at once: the calls say what it costs."""

    def calls(text: str) -> int:
        seen = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal seen
            seen += event == "call"

        sys.setprofile(count)
        try:
            check("k", text.encode(), "yaml")
        finally:
            sys.setprofile(None)
        return seen

    def merges(levels: int) -> str:
        lines = [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, levels + 1)]
        return "a0: &a0 {k: v}\n" + "".join(lines)

    def lists(levels: int) -> str:
        lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, levels + 1)]
        return "a0: &a0 [v]\n" + "".join(lines)

    check("k", merges(5).encode(), "yaml")
    with pytest.raises(ProtocolError, match=rf"line 12, .* merge keys \(<<\) make more than {MAX_MERGED} entries"):
        check("k", merges(12).encode(), "yaml")
    assert calls(lists(40)) < 3 * calls(lists(20))
    assert calls(merges(4)) < 3 * calls(merges(2))
