# SPDX-License-Identifier: MIT
"""Every program, from the compilers of Debian 12 and 13, is accepted by their kernels' verifiers and by this one's.

The programs come from program containers, as ``dataplane build`` makes them, and are loaded without a compiler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kernels.distributions import BACKPORTS, BOOKWORM, BULLSEYE, TRIXIE, Distribution
from tests.kernels.matrix import BPF, Results, compiled, matrix, results, table, verifying
from xdp_gossip.dataplane.loader import container

#: bpf_task_pt_regs: the last helper of Linux 5.15 (include/uapi/linux/bpf.h of that version).
LAST_HELPER_OF_5_15 = 175
#: MAX_BPF_STACK of include/linux/filter.h.
STACK_BYTES = 512


@pytest.fixture(scope="module")
def found() -> dict[str, Results]:
    """Both kernels boot at the same time."""
    return matrix((BOOKWORM, TRIXIE))


def told(found: dict[str, Results]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{version}, {compiler}, {program}", what)
        for version, by_compiler in found.items()
        for compiler, programs in by_compiler.items()
        for program, what in programs.items()
    ]


def test_all_are_accepted(found: dict[str, Results]) -> None:
    print(table(found))
    rejected = [
        f"{where}: {what['error']}\n" + "\n".join(what["says"]) for where, what in told(found) if not what["accepted"]
    ]
    assert not rejected, "\n".join(rejected)
    # Three kernels, two compilers, and no program forgotten.
    assert len(told(found)) == 6 * 8


def test_they_fit_older_kernels(found: dict[str, Results]) -> None:
    """No helper that came after 5.15, and no more stack than there is; the verifier walks half of what it may."""
    for where, what in told(found):
        assert max(what["helpers"], default=0) <= LAST_HELPER_OF_5_15, where
        assert what["stack"] <= STACK_BYTES, where
        assert what["verified"] < 500_000, where


def test_a_program_that_a_verifier_rejects_is_seen(tmp_path: Path) -> None:
    """The matrix can fail: without the comparison of the length, the helper's size has no bound."""
    import shutil

    from tests.kernels import load

    copy = tmp_path / "bpf"
    shutil.copytree(BPF, copy)
    text = (copy / "tc.h").read_text()
    guard = "body > XG_DATAGRAM_BYTES - XG_HEADER_BYTES"
    assert text.count(guard) == 1
    (copy / "tc.h").write_text(text.replace(guard, "body == 1"))
    for name, what in load.load(compiled(BOOKWORM, copy)).items():
        assert what["accepted"] is ("_tc_" not in name), name
        if not what["accepted"]:
            assert what["error"] and what["says"]


def test_a_compiler_always_makes_the_same_container() -> None:
    """In another process and another directory; and it tells which compiler it was."""
    first = compiled(TRIXIE)
    assert compiled(TRIXIE) == first
    name, version = TRIXIE.compiler.split(", LLVM ")
    told = container.parse(first).compiler
    assert told.startswith(name) and told.endswith(f"LLVM {version}")


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [BACKPORTS], ids=lambda each: each.suite)
def test_other_kernels(distribution: Distribution, tmp_path: Path) -> None:
    found = matrix((distribution,), running=False)
    print(table(found))
    assert all(what["accepted"] for _, what in told(found))


@pytest.mark.slow
def test_5_10_refuses_clearly(tmp_path: Path) -> None:
    """It lacks bpf_ktime_get_coarse_ns, and says so of each program of the data plane."""
    containers = {each.compiler: compiled(each) for each in (BOOKWORM, TRIXIE)}
    with verifying(BULLSEYE, containers, tmp_path / "5.10") as guest:
        for programs in results(guest, containers).values():
            for name in ("xg_xdp_ingress", "xg_xdp_egress", "xg_tc_ingress", "xg_tc_egress"):
                assert not programs[name]["accepted"]
                # bpf_ktime_get_coarse_ns
                assert any("#160" in line for line in programs[name]["says"]), programs[name]["says"]


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [BOOKWORM, TRIXIE], ids=lambda each: each.suite)
def test_a_kernel_that_is_locked_down_for_confidentiality(distribution: Distribution, tmp_path: Path) -> None:
    """It forbids to read the kernel's memory, which no program does."""
    dumps = {BOOKWORM.compiler: compiled(BOOKWORM)}
    with verifying(distribution, dumps, tmp_path / "locked", "lockdown=confidentiality") as guest:
        found = results(guest, dumps)
        assert "[confidentiality]" in (guest.share / "lockdown").read_text()
    assert all(what["accepted"] for what in found[BOOKWORM.compiler].values()), table({"locked": found})
