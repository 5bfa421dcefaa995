# SPDX-License-Identifier: MIT
"""The lookup metadata, as Ansible loads it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember(token="secret") as member:
        member.put("default", b"the default")
        member.put("app/a", "text é".encode())
        member.put("binary", b"\xff\x00")
        yield member


def look(*terms, variables=None, **options):
    return lookup_loader.get("xdp_gossip.fleet.metadata").run(list(terms), variables or {}, **options)


def test_reads_documents_in_order(member):
    options = {"endpoints": [member.url], "token": "secret"}
    assert look("app/a", "default", **options) == ["text é", "the default"]
    assert look(**options) == ["the default"]
    assert look("binary", encoding="base64", **options) == ["/wA="]


def test_options_come_from_variables_and_environment_too(member, monkeypatch):
    variables = {"xdp_gossip_endpoints": [member.url], "xdp_gossip_token": "secret"}
    assert look("app/a", variables=variables) == ["text é"]
    monkeypatch.setenv("XDP_GOSSIP_ENDPOINTS", "http://127.0.0.1:%d,%s" % (free_port(), member.url))
    monkeypatch.setenv("XDP_GOSSIP_TOKEN", "secret")
    assert look("app/a") == ["text é"]


def test_a_missing_document_is_an_error_unless_there_is_a_default(member):
    options = {"endpoints": [member.url], "token": "secret"}
    with pytest.raises(AnsibleLookupError) as caught:
        look("none", **options)
    assert "no document 'none'" in str(caught.value) and member.url in str(caught.value)
    assert look("none", "app/a", default="d", **options) == ["d", "text é"]
    assert look("none", default="", **options) == [""]


@pytest.mark.parametrize("key, said", [("binary", "not UTF-8"), ("a//b", "key: expected"), (7, "as text")])
def test_errors_say_what_was_expected(member, key, said):
    with pytest.raises(AnsibleLookupError) as caught:
        look(key, endpoints=[member.url], token="secret")
    assert said in str(caught.value)


def test_a_default_does_not_hide_that_nobody_answers(member):
    with pytest.raises(AnsibleLookupError) as caught:
        look("app/a", endpoints=[member.url], token="wrong", default="d", retries=0)
    assert "401" in str(caught.value)
