# SPDX-License-Identifier: MIT
"""Members over https: whose certificates are accepted, and the source's own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.certificates import write

from .running import Source
from .scripted import Scripted


@contextmanager
def _member(directory: Path, address: str = "127.0.0.1", *, clients: bool = False) -> Iterator[tuple[Scripted, Path]]:
    """A member with a certificate for ``address``, and the authority's; ``clients`` have to show one as well."""
    authority, certificate, key = write(directory, [address])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    with Scripted(context) as member:
        yield member, authority


def _reason(collections: Path, **arguments: Any) -> str:
    with Source(collections, settle=0, initial=True, **arguments) as source:
        return str(source.next("fleet_unreachable", "join").get("attempts"))


def test_the_authority_that_was_named_is_accepted(collections: Path, tmp_path: Path) -> None:
    with _member(tmp_path) as (member, authority):
        with Source(collections, endpoints=[member.url], ca_path=str(authority), initial=True) as source:
            assert source.next()["type"] == "join"


@pytest.mark.parametrize(("address", "named"), [("127.0.0.1", False), ("198.18.0.11", True)])
def test_another_authority_and_another_name_are_not(
    collections: Path, tmp_path: Path, address: str, named: bool
) -> None:
    with _member(tmp_path, address) as (member, authority):
        arguments = {"ca_path": str(authority)} if named else {}
        assert "certificate" in _reason(collections, endpoints=[member.url], **arguments)
        assert member.asked == []


def test_the_check_can_be_switched_off(collections: Path, tmp_path: Path) -> None:
    with _member(tmp_path, "198.18.0.11") as (member, _authority):
        with Source(collections, endpoints=[member.url], validate_certs=False, initial=True) as source:
            assert source.next()["type"] == "join"


def test_a_certificate_of_ones_own_is_shown(collections: Path, tmp_path: Path) -> None:
    with _member(tmp_path, clients=True) as (member, authority):
        trust = {"endpoints": [member.url], "ca_path": str(authority)}
        own = {"client_cert": str(tmp_path / "agent.pem"), "client_key": str(tmp_path / "agent.key")}
        with Source(collections, initial=True, **trust, **own) as source:
            assert source.next()["type"] == "join"
        assert _reason(collections, **trust) != "None"


def test_an_authority_that_cannot_be_read_is_named(collections: Path, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    assert f"ca_path {file}" in _reason(collections, endpoints=["https://127.0.0.1:1"], ca_path=str(file))
