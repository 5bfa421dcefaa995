# SPDX-License-Identifier: MIT
"""docs/glossary.md: its names exist, its terms stand once, in order, and no part of the core is without one."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from tests.pages import found, page, rows
from xdp_gossip import core

TERMS = rows(page("glossary.md"), "| term | meaning | where |")
#: Modules whose names are no terms: values and helpers of the others.
NO_TERMS = {
    "allowlist",
    "checks",
    "events",
    "interface",
    "queries",
    "received",
    "schema",
    "settings",
    "structures",
    "shown",
    "timers",
    "types",
}


@pytest.mark.parametrize(("term", "meaning", "where"), TERMS, ids=[term for term, _, _ in TERMS])
def test_the_module_or_class_of_a_term_exists(term: str, meaning: str, where: str) -> None:
    assert term and meaning
    found(where.strip("`"))


def test_a_name_that_is_none_is_noticed() -> None:
    for name in ("core.detector.Doubt", "core.reception", "core.types.Document.nothing"):
        with pytest.raises((AttributeError, ImportError)):
            found(name)


def test_a_name_that_another_file_or_class_defines_is_noticed() -> None:
    for name in ("core.engine.Engine", "core.engine.asks.Engine._refute", "core.engine.asks.Drive"):
        with pytest.raises(AssertionError, match="is defined elsewhere"):
            found(name)


def test_terms_stand_once_and_in_order() -> None:
    terms = [term.lower() for term, _, _ in TERMS]
    assert terms == sorted(set(terms))


def test_every_module_of_the_core_has_a_term() -> None:
    modules = {info.name for info in pkgutil.walk_packages(core.__path__) if not info.ispkg}
    for package in ("documents", "members", "sync"):
        inner = importlib.import_module(f"{core.__name__}.{package}")
        modules |= {f"{package}.{info.name}" for info in pkgutil.iter_modules(inner.__path__)}
    told = [where.strip("`") for _, _, where in TERMS]
    without = {name for name in modules if not any(f"{one}.".startswith(f"core.{name}.") for one in told)}
    assert without - NO_TERMS - {"members.ring"} == set()
