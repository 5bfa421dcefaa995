# SPDX-License-Identifier: MIT
"""The benchmark ``soak``: what it calls lost, and what it calls growth."""

from __future__ import annotations

from bench.soak import Documents, Sample, _around, _log_halves


def lost(documents: Documents, **held: bytes) -> list[str]:
    return documents.lost(held.get)


def test_the_last_acknowledged_value_must_be_there() -> None:
    documents = Documents()
    documents.told("a", b"1", True)
    documents.told("a", b"2", True)
    documents.told("b", b"1", True)
    documents.told("b", None, True)
    assert lost(documents, a=b"2") == []
    assert lost(documents, a=b"1") == ["a"]
    assert lost(documents) == ["a"]
    assert lost(documents, a=b"2", b=b"1") == ["b"]


def test_what_failed_after_it_may_have_taken_effect_and_what_failed_before_may_not() -> None:
    documents = Documents()
    documents.told("a", b"doubtful", False)
    assert lost(documents) == lost(documents, a=b"doubtful") == []
    documents.told("a", b"1", True)
    assert lost(documents, a=b"doubtful") == ["a"]
    documents.told("a", b"2", False)
    documents.told("a", None, False)
    assert lost(documents, a=b"1") == lost(documents, a=b"2") == lost(documents) == []
    assert lost(documents, a=b"3") == ["a"]


def test_one_high_sample_is_no_growth() -> None:
    samples = [Sample(when, 900 if when == 60 else 100, 10, 0, 0) for when in range(0, 100, 10)]
    assert _around(samples, "resident_kib", 60) == 100


def test_a_log_that_grows_faster_and_faster() -> None:
    samples = [Sample(when, 0, 0, 0, log) for when, log in ((0, 0), (100, 1000), (200, 2000), (300, 6000))]
    first, second = _log_halves(samples, 100, 300)
    assert second == 4 * first == 4 * 36.0
