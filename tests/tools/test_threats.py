# SPDX-License-Identifier: MIT
"""The threat model of docs/security.md: each line has a proof that is run, and the README's table follows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.claims import Ledger, missing, read_ledger, read_reports, unproved, with_threats
from tests.pages import ROOT, rows
from tests.threats import disabled, read_model

MODEL = read_model()
LINES = [line for lines in MODEL.cannot.values() for line in lines]
ATTACKERS = [
    "Outsider",
    "Recorder",
    "Former member",
    "Member",
    "Token holder",
    "Local user",
    "Web visitor",
    "Publisher",
]


def test_every_attacker_has_both_tables() -> None:
    assert list(MODEL.cannot) == list(MODEL.can) == ATTACKERS
    assert [name for name in ATTACKERS if len(MODEL.cannot[name]) < 3 or not MODEL.can[name]] == []
    texts = [(line.attacker, line.text) for line in LINES]
    assert len(texts) == len(set(texts)), "a line stands twice"


def test_every_proof_exists_and_is_run() -> None:
    named = sorted({test for line in LINES for test in line.proof})
    assert [problem for problem in map(missing, named) if problem is not None] == []
    assert [problem for problem in map(disabled, named) if problem is not None] == []


def test_the_readme_has_a_line_for_each_attacker() -> None:
    table = rows((ROOT / "README.md").read_text(encoding="utf-8"), "| attacker |")
    links = [re.fullmatch(r"\[([^\]]+)\]\(docs/security\.md#([\w-]+)\)", row[0]) for row in table]
    assert [link and (link[1], link[2]) for link in links] == [
        (name, name.lower().replace(" ", "-")) for name in ATTACKERS
    ]
    assert all(len(row) == 3 and all(row) for row in table)


PAGE = """# Security

## Attackers

### Outsider

Somebody.

| cannot | proof |
|---|---|
| enter | [`test_threats.py::test_a_line_without_a_proof_is_told`](../tests/tools/test_threats.py) |

| can | what to do |
|---|---|
| knock | let them |

## Next
"""
PROOF = "[`test_threats.py::test_a_line_without_a_proof_is_told`](../tests/tools/test_threats.py)"


def test_the_tables_are_read() -> None:
    model = read_model(PAGE)
    (line,) = model.cannot["Outsider"]
    assert line.text == "enter"
    assert line.proof == ("tests/tools/test_threats.py::test_a_line_without_a_proof_is_told",)
    assert [line.text for line in model.can["Outsider"]] == ["knock"]


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        ("", "expected two cells with text"),
        ("we are sure", "expected links to tests"),
        (f"{PROOF} and more", "expected links to tests"),
        (PROOF.replace("../tests/tools/test_threats.py", "../tests/tools/test_claims.py"), "to lead to this file"),
        (PROOF.replace("../tests", "https://tests"), "to lead to this file"),
    ],
)
def test_a_line_without_a_proof_is_told(proof: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_model(PAGE.replace(PROOF, proof))


SOURCE = """
import pytest

@pytest.mark.skip(reason="later")
def test_skipped(): assert True

@pytest.mark.skipif(False, reason="needs root")
def test_run(): assert True

def test_empty(): pass

class TestX:
    @pytest.mark.xfail
    def test_may_fail(self): assert True
"""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("test_skipped", "has the mark skip"),
        ("test_empty", "does nothing"),
        ("TestX::test_may_fail", "has the mark xfail"),
        ("test_run", None),
    ],
)
def test_a_proof_that_is_not_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, told: str | None
) -> None:
    monkeypatch.setattr("tests.threats.ROOT", tmp_path)
    (tmp_path / "test_x.py").write_text(SOURCE)
    problem = disabled(f"test_x.py::{function}")
    assert problem is None if told is None else problem is not None and told in problem


def test_a_proof_that_did_not_pass_is_told_by_the_claims(tmp_path: Path) -> None:
    """`make claims` reads the reports of the whole run, and knows what was skipped there."""
    ledger = with_threats(read_ledger())
    claims = [claim for feature, claim in ledger.claims.items() if feature.startswith("threat: ")]
    assert len(claims) == len(LINES)
    assert not [claim for claim in claims if not claim.tests]
    (claim,) = [claim for claim in claims if "Local user: open the socket" in claim.feature]
    assert "root" in claim.needs
    (tmp_path / "cluster").mkdir()
    test = "tests/cluster/test_cluster_threats.py::test_a_local_user_gains_nothing_from_process_socket_and_files"
    report = '<testsuites><testsuite><testcase classname="tests.cluster.test_cluster_threats" name="{}">{}</testcase>'
    for child, told in (("", "was not run"), ("<skipped/>", "was skipped"), ("<failure/>", "failed")):
        name = test.partition("::")[2] if child else "test_another"
        text = report.format(name, child) + "</testsuite></testsuites>"
        (tmp_path / "cluster" / "report.xml").write_text(text)
        problems = unproved(Ledger({claim.feature: claim}, {}, {}), read_reports(tmp_path), strict=True)
        assert [problem for problem in problems if problem.startswith(claim.feature) and f"{test} {told}" in problem]
