# SPDX-License-Identifier: MIT
"""The lookup metadata, as Ansible loads it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.fake_member import FakeMember, free_port

try:
    from ansible.template import trust_as_template

    TRUSTING = ""
except ImportError:  # ansible-core 2.18
    #: What the option ALLOW_UNSAFE_LOOKUPS does to every lookup; later ones never trust what a lookup returns.
    TRUSTING = ", allow_unsafe=true"

    def trust_as_template(text: str) -> str:
        return text


@pytest.fixture(name="member")
def fixture_member():
    with FakeMember(token="secret") as member:
        member.put("default", b"the default")
        member.put("app/a", "text é".encode())
        member.put("app/b", b'{"n": [1, null, "x"]}', content_type="json")
        member.put("app/c", b"n: 2\nday: 2026-01-01\n", content_type="yaml")
        member.put("binary", b"\xff\x00")
        yield member


def look(*terms, variables=None, **options):
    return lookup_loader.get("xdp_gossip.fleet.metadata").run(list(terms), variables or {}, **options)


def ask(member, *terms, **options):
    return look(*terms, endpoints=[member.url], token="secret", **options)


def test_reads_documents_in_order(member):
    assert ask(member, "app/a", "default") == ["text é", "the default"]
    assert ask(member) == ["the default"]
    assert ask(member, "binary", encoding="base64") == ["/wA="]


def test_a_former_version_can_be_read(member):
    former = member.put("app/a", b"former")["version"]
    member.put("app/a", b"newest")
    gone = member.put("gone", b"")
    gone["deleted"] = True
    assert ask(member, "app/a", version=former) == ["former"]
    for words, said in (
        ((["app/a"], {"version": "%016x@198.18.0.11:8000" % 99}), "has no version .* it has .*" + former),
        ((["app/a"], {"version": "%016x@198.18.0.11:8000" % 99, "default": "x"}), "has no version"),
        ((["gone"], {"version": gone["version"]}), "is a deletion"),
        ((["app/a", "app/b"], {"version": former}), "one document"),
        ((["app/"], {"version": former, "prefix": True}), "one document"),
    ):
        with pytest.raises(AnsibleLookupError, match=said):
            ask(member, *words[0], **words[1])


def test_options_come_from_variables_and_environment_too(member, monkeypatch):
    variables = {"xdp_gossip_endpoints": [member.url], "xdp_gossip_token": "secret"}
    assert look("app/a", variables=variables) == ["text é"]
    monkeypatch.setenv("XDP_GOSSIP_ENDPOINTS", "http://127.0.0.1:%d,%s" % (free_port(), member.url))
    monkeypatch.setenv("XDP_GOSSIP_TOKEN", "secret")
    assert look("app/a") == ["text é"]


def test_variables_may_be_templates(member):
    variables = {
        "xdp_gossip_endpoints": [trust_as_template("{{ where }}")],
        "xdp_gossip_token": trust_as_template("{{ word }}"),
        "where": member.url,
        "word": "secret",
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    assert lookup_loader.get("xdp_gossip.fleet.metadata", templar=templar).run(["app/a"], variables) == ["text é"]
    text = trust_as_template("{{ lookup('xdp_gossip.fleet.metadata', 'app/a') }}")
    assert templar.template(text) == "text é"


def test_the_default_may_be_nothing(member):
    assert ask(member, "none", default=None) == [None]


def test_a_missing_document_is_an_error_unless_there_is_a_default(member):
    with pytest.raises(AnsibleLookupError) as caught:
        ask(member, "none")
    assert "no document 'none'" in str(caught.value) and member.url in str(caught.value)
    assert ask(member, "none", "app/a", default="d") == ["d", "text é"]
    assert ask(member, "none", default="") == [""]


def test_a_prefix_gives_a_dictionary_for_each_term(member):
    both = ask(member, "app/", "bin", prefix=True, encoding="base64")
    assert [list(found) for found in both] == [["app/a", "app/b", "app/c"], ["binary"]]
    assert ask(member, "app/a", prefix=True) == [{"app/a": "text é"}]
    del member.documents["binary"]
    assert len(ask(member, prefix=True)[0]) == 4
    with pytest.raises(AnsibleLookupError, match="no document that begins with 'none/'"):
        ask(member, "none/", prefix=True)
    assert ask(member, "none/", prefix=True, default={}) == [{}]


def test_a_prefix_does_not_let_in_what_was_not_asked_for(member):
    def too_much(handler):
        if handler.path.startswith("/v1/documents?"):
            handler.reply(200, {"documents": list(map(describe, member.documents.values())), "digest": "0"})
        else:
            handler.GET_documents(handler.path[4:].split("?")[0], {})

    def describe(entry):
        return {name: value for name, value in entry.items() if name != "value"}

    member.misbehave = too_much
    assert list(ask(member, "app/a", prefix=True)[0]) == ["app/a"]


def test_a_document_that_goes_while_a_prefix_is_read_is_left_out(member):
    listing = {"documents": [{"key": "app/a"}, {"key": "app/gone"}], "digest": "0"}

    def outdated(handler):
        if handler.path.startswith("/v1/documents?"):
            handler.reply(200, listing)
        else:
            handler.GET_documents(handler.path[4:].split("?")[0], {})

    member.misbehave = outdated
    assert ask(member, "app/", prefix=True) == [{"app/a": "text é"}]


def test_parse(member):
    assert ask(member, "app/b", parse="json") == [{"n": [1, None, "x"]}]
    assert ask(member, "app/c", parse="yaml") == [{"n": 2, "day": "2026-01-01"}]
    found = ask(member, "app/", prefix=True, parse="auto")[0]
    assert found == {"app/a": "text é", "app/b": {"n": [1, None, "x"]}, "app/c": {"n": 2, "day": "2026-01-01"}}


@pytest.mark.parametrize(
    "form, text, said",
    [
        ("json", b"{", "expected json"),
        ("json", b'{"a": NaN}', "NaN"),
        ("json", b"[" * 20 + b"]" * 20, "deeper"),
        ("json", b"[" * 100, "expected json"),
        ("yaml", b"a: [", "expected yaml"),
        ("yaml", b"a: &x [1]\nb: *x\n", "no aliases"),
        ("yaml", b"a: !!python/object/apply:os.system ['true']\n", "no tags"),
        ("yaml", b"a: !vault x\n", "no tags"),
    ],
)
def test_what_cannot_or_must_not_be_parsed_is_an_error(member, form, text, said):
    member.put("app/x", text)
    with pytest.raises(AnsibleLookupError, match=said) as caught:
        ask(member, "app/x", parse=form)
    assert "'app/x'" in str(caught.value)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"key": "binary"}, "not UTF-8"),
        ({"key": "a//b"}, "key: expected"),
        ({"key": True}, "as text"),
        ({"key": "app/b", "parse": "json", "encoding": "base64"}, "expected encoding utf-8"),
        ({"key": "app/a", "endpoints": []}, "at least one"),
    ],
)
def test_errors_say_what_was_expected(member, options, said):
    key = options.pop("key")
    with pytest.raises(AnsibleLookupError) as caught:
        look(key, **dict({"endpoints": [member.url], "token": "secret"}, **options))
    assert said in str(caught.value)


def test_a_default_does_not_hide_that_nobody_answers(member):
    with pytest.raises(AnsibleLookupError) as caught:
        look("app/a", endpoints=[member.url], token="wrong", default="d", retries=0)
    assert "401" in str(caught.value)


def test_an_endpoint_that_fails_is_a_warning(member, monkeypatch):
    warned = []
    plugin = lookup_loader.get("xdp_gossip.fleet.metadata")
    monkeypatch.setattr(plugin._display, "warning", warned.append)
    dead = "http://127.0.0.1:%d" % free_port()
    assert plugin.run(["default"], {}, endpoints=[dead, member.url], token="secret") == ["the default"]
    assert len(warned) == 1 and dead in warned[0] and "refused" in warned[0]


@pytest.mark.parametrize("form", [None, "json", "yaml"])
def test_a_document_is_not_templated_even_where_lookups_are_trusted(member, form):
    evil = "{{ 'ran' ~ 1 }}"
    member.put("evil", ('{"k": ["%s"]}' % evil if form else evil).encode())
    parse = ", parse='%s'" % form if form else ""
    lookup = "lookup('xdp_gossip.fleet.metadata', 'evil', endpoints=members, token='secret', wantlist=true%s%s)[0]"
    found = trust_as_template("{{ %s%s }}" % (lookup % (parse, TRUSTING), ".k[0]" if form else ""))
    stored = Templar(loader=DataLoader(), variables={"members": [member.url]}).template(found)
    assert stored == evil
    # As after set_fact: up to 2.18, a plain string would now be a template.
    again = Templar(loader=DataLoader(), variables={"stored": stored})
    assert again.template(trust_as_template("{{ stored }}")) == evil
