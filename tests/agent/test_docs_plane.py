# SPDX-License-Identifier: MIT
"""What docs/ states of the kernel data plane's maps, modes and limits is what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdp_gossip.dataplane import headers, libbpf
from xdp_gossip.dataplane.loader import maps

ROOT = Path(__file__).resolve().parents[2]
LIMITS = headers.constants()
TYPES = {
    "array": libbpf.ARRAY,
    "hash": libbpf.HASH,
    "LRU hash": libbpf.LRU_HASH,
    "LPM trie": libbpf.LPM_TRIE,
    "ring buffer": libbpf.RINGBUF,
    "per-CPU array": libbpf.PERCPU_ARRAY,
}
NODES = 4711


def read(name: str) -> str:
    """A page, on one line for each paragraph."""
    return re.sub(r"(?<!\n)\n(?![\n|#-])", " ", (ROOT / "docs" / name).read_text(encoding="utf-8"))


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table that begins with ``head``."""
    table = page[page.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_maps() -> None:
    told = {}
    for name, kind, room, *_ in rows(read("architecture.md"), "| map | type | room |"):
        entries = {"`limits.nodes`": NODES, "one each": len(headers.counters())}.get(room)
        told[name.strip("`")] = TYPES[kind], entries or int(re.sub(r"\D", "", room))
    assert told == {name: (kind, room) for name, (kind, _, _, room) in maps.expected(NODES).items()}


@pytest.mark.parametrize("page", ["architecture.md", "security.md"])
def test_the_modes(page: str) -> None:
    """tests/bpf/test_loader.py looks at the files themselves."""
    source = (ROOT / "agent/xdp_gossip/dataplane/loader/maps.py").read_text(encoding="utf-8")
    (mode,) = re.findall(r"os\.chmod\(path, 0o(\d+)\)", source)
    assert re.findall(r"maps belong to the agent's user and the group root, mode 0(\d+)", read(page)) == [mode]


def test_the_slot_of_time() -> None:
    bits, milliseconds = LIMITS["XG_SLOT_BITS"], round(2 ** LIMITS["XG_SLOT_BITS"] / 1e6)
    assert re.findall(r"slot of time \(2\^(\d+) ns, (\d+) ms\)", read("protocol.md")) == [
        (str(bits), str(milliseconds))
    ]
    assert set(re.findall(r"\d+ (?:packets )?in (\d+) ms", read("security.md"))) == {str(milliseconds)}


def test_what_is_dropped_beyond() -> None:
    told = {row[0].strip("`"): row[2] for row in rows(read("protocol.md"), "| counter | what is dropped |")}
    for counter, limit, unit in (
        ("ask_limited", "XG_ASK_LIMIT", " on a CPU"),
        ("drop_odd", "XG_ASK_LIMIT", " on a CPU"),
        ("drop_direct_flood", "XG_DIRECT_LIMIT", "; for packets of a former run the limit of `ask_limited`"),
        ("drop_rumor_flood", "XG_RUMOR_LIMIT", ""),
        ("drop_probe_flood", "XG_PROBE_LIMIT", ""),
    ):
        assert told[counter] == f"{LIMITS[limit]}{unit}", counter
    assert set(re.findall(r"(\d+) (?:packets )?in \d+ ms", read("security.md"))) == {str(LIMITS["XG_ASK_LIMIT"])}
    assert re.findall(r"at most (\d+) rounds in \d+ ms", read("security.md")) == [str(LIMITS["XG_PROBE_LIMIT"])]
    assert re.findall(r"the last (\d+) rounds of the local agent", read("protocol.md")) == [str(LIMITS["XG_ROUNDS"])]
    late = (LIMITS["XG_DIRECT_WORDS"] - 1) * 64
    assert 1900 <= late <= 2100 and "more than some 2,000 behind the newest" in read("protocol.md")


def test_sizes_of_packets() -> None:
    page = read("wire.md")
    assert f"A packet has at least {LIMITS['XG_HEADER_BYTES']} bytes" in page
    assert f"Packets up to {LIMITS['XG_DATAGRAM_BYTES']:,} bytes" in page
    assert f"one with a body more than {LIMITS['XG_HEADER_BYTES'] + LIMITS['XG_TAG_BYTES']}." in page
    assert f"| 2 | wire version, {LIMITS['XG_WIRE_VERSION']} |" in page


def test_copies_and_batches() -> None:
    source = (ROOT / "bpf/xdp.h").read_text(encoding="utf-8")
    (batch,) = re.findall(r"^#define XG_FLUSH (\d+)$", source, re.MULTILINE)
    assert re.findall(r"to the driver in batches of (\d+)", read("architecture.md")) == [batch]
    assert f"to three times as many ({LIMITS['XG_COPIES']} at most)" in read("protocol.md")
