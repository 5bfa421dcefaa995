# SPDX-License-Identifier: MIT
"""What is signed on the controller is what the task says, whatever the target host and its member answer."""

from __future__ import annotations

import hashlib
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish, document_spec
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signed_publish import MAX_AHEAD, SignedPublish, plain
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signing_key import SigningError
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._statement import earliest_after, time_text

#: Microseconds since the epoch.
NOW = 1_800_000_000_000_000
HELD = "%016x@198.18.0.11:8000" % (1_700_000_000_000 << 16)
OLDER = "%016x@198.18.0.11:8000" % (1_600_000_000_000 << 16)


class Key:
    """Notes what it signs."""

    fingerprint = "SHA256:test"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def sign(self, text: bytes) -> str:
        self.texts.append(text.decode())
        return "signature %d" % len(self.texts)


def wish(key: str, **options: t.Any) -> Wish:
    return Wish(key, dict(dict.fromkeys(document_spec()), state="present", **options))


class Target:
    """A target host that answers the module's runs with ``answers``, one after the other."""

    def __init__(self, *answers: dict[str, t.Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, t.Any]] = []

    def __call__(self, signing: dict[str, t.Any]) -> dict[str, t.Any]:
        self.asked.append(signing)
        return self.answers.pop(0)


def plan(**lineages: t.Any) -> dict[str, t.Any]:
    return {"changed": True, "lineages": lineages, "endpoint": "unix:///s"}


def outdated(actual: t.Any) -> dict[str, t.Any]:
    return {
        "failed": True,
        "msg": "too old",
        "error": {"code": "signature_outdated", "details": {"lineage": [actual] if actual else None}},
    }


DONE = {"changed": True}


def run(target: Target, *wishes: Wish) -> tuple[dict[str, t.Any], list[str]]:
    key = Key()
    publish = SignedPublish(key, "east", wishes, "web1", clock=lambda: NOW * 1000)
    return publish.run(target), key.texts


def refused(target: Target, *wishes: Wish) -> str:
    key = Key()
    with pytest.raises(SigningError) as caught:
        SignedPublish(key, "east", wishes, "web1", clock=lambda: NOW * 1000).run(target)
    assert not key.texts
    return str(caught.value)


def lines(text: str) -> list[str]:
    assert text.endswith("\n")
    return text.splitlines()


def test_the_statement_comes_from_the_task():
    target = Target(plan(b=[HELD, OLDER], a=[]), DONE)
    result, texts = run(
        target,
        wish("b", content="x", comment="why", expires="1h"),
        wish("a", content="y", content_type="text", comment="why"),
    )
    assert result == DONE and len(texts) == 1
    one = (
        'publish "a" type "text" size 1 sha256 a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa'
        " expires never after nothing"
    )
    two = (
        'publish "b" type "raw" size 1 sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'
        " expires 2027-01-15T09:00:00.000000Z after %s %s" % (HELD, OLDER)
    )
    assert lines(texts[0]) == [
        "xdp-gossip statement 1",
        'cluster "east"',
        "signed-at 2027-01-15T08:00:00.000000Z",
        'comment "why"',
        'document "a" sha256 ' + hashlib.sha256(one.encode()).hexdigest(),
        'document "b" sha256 ' + hashlib.sha256(two.encode()).hexdigest(),
    ]
    assert target.asked == [
        {"key": "SHA256:test"},
        {
            "key": "SHA256:test",
            "signed_at": "2027-01-15T08:00:00.000000Z",
            "signature": "signature 1",
            "documents": {
                "b": {"read": [HELD, OLDER], "expires": "2027-01-15T09:00:00.000000Z"},
                "a": {"read": [], "expires": None},
            },
        },
    ]


def test_nothing_changed_or_failed_makes_no_signature():
    for answer in ({"changed": False}, {"failed": True, "msg": "no", "lineages": {"a": []}}):
        result, texts = run(Target(dict(answer)), wish("a", content="x"))
        assert not texts and "lineages" not in result


#: What a hostile target answers to the plan, beside the truth about the document "a".
LIES: list[dict[str, t.Any]] = [
    {"lineages": {"a": [HELD], "evil": []}},
    {"lineages": {"a": [HELD], "b": [HELD], "app/admin": [HELD]}},
    {"content": "evil", "value": "evil", "digest": "sha256:" + "0" * 64, "size": 4},
    {"content_type": "yaml", "expires": "2099-01-01T00:00:00.000Z", "comment": "evil", "cluster": "west"},
    {"documents": {"a": {"content": "evil"}}, "key": "evil", "state": "absent"},
    {"signed_at": "2099-01-01T00:00:00.000000Z", "signing": {"documents": {"evil": {}}}},
    {"endpoint": "x\nevil", "invocation": {"module_args": {"key": "evil"}}},
    {"ansible_facts": {"xdp_gossip_agent_cluster": "west"}},
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_target_gets_a_signature_for_the_task_alone(lie):
    _result, honest = run(Target(plan(a=[HELD]), DONE), wish("a", content="x"))
    _result, texts = run(Target(dict(plan(a=[HELD]), **lie), DONE), wish("a", content="x"))
    assert texts == honest and "evil" not in texts[0]


@pytest.mark.parametrize("lineages", [{}, {"evil": []}, [], ["a"], "a", 7, {"A": [HELD]}, {"a ": [HELD]}])
def test_a_plan_without_a_document_of_the_task_is_refused(lineages):
    told = refused(Target({"lineages": lineages, "endpoint": "unix:///s"}), wish("a", content="x"))
    assert told == "web1 (member unix:///s): expected the names of documents of this task, got others"


@pytest.mark.parametrize(
    "base",
    [
        "",
        7,
        {},
        [HELD],
        'nothing\npublish "evil"',
        HELD + "\n",
        HELD + " evil",
        HELD.upper(),
        HELD.replace("198.18.0.11", "evil host"),
        "x" * 100000,
    ],
)
def test_a_base_that_is_no_version_is_refused(base):
    for read in ([base], [HELD, base]):
        told = refused(Target(plan(a=read)), wish("a", content="x"))
        assert "web1 (member unix:///s): document 'a': expected a version such as" in told and len(told) < 500


def version(microseconds: int) -> str:
    milliseconds, rest = divmod(microseconds, 1000)
    return "%016x@[100::1]:1" % ((milliseconds << 16) + rest * 64)


def test_a_base_of_the_far_future_does_not_burn_the_key():
    near, far = NOW + (MAX_AHEAD - 1) * 1_000_000, NOW + (MAX_AHEAD + 1) * 1_000_000
    told = refused(Target(plan(a=[version(far)])), wish("a", content="x"))
    assert "web1 (member unix:///s): document 'a' has the version" in told
    assert (
        "whose time is 86401 seconds ahead of the controller's clock, expected at most 86400: nothing was signed"
        in told
    )
    assert "seconds ahead" in refused(Target(plan(a=["f" * 16 + "@[100::1]:1"])), wish("a", content="x"))
    _result, texts = run(Target(plan(a=[version(near)]), DONE), wish("a", content="x"))
    assert "signed-at %s\n" % time_text(near + 1) in texts[0]


def test_a_version_in_the_way_is_signed_over_a_few_times():
    later = NOW + 5_000_000
    target = Target(plan(a=[HELD]), outdated(version(later)), plan(a=[version(later)]), DONE)
    result, texts = run(target, wish("a", content="x"))
    assert result == DONE and len(texts) == 2
    assert "signed-at %s\n" % time_text(later + 1) in texts[1] and texts[1].endswith("after %s\n" % version(later))
    # The member says in the meantime that nothing differs any more.
    result, texts = run(Target(plan(a=[HELD]), outdated(None), {"changed": False}), wish("a", content="x"))
    assert result == {"changed": False} and len(texts) == 1
    result, texts = run(
        Target(*[answer for dummy in range(5) for answer in (plan(a=[HELD]), outdated(HELD))]), wish("a", content="x")
    )
    assert result["failed"] and result["msg"] == "too old; gave up after 5 signatures" and len(texts) == 5


def test_a_version_in_the_way_that_is_a_lie_is_refused():
    far = version(NOW + 10**12)
    key = Key()
    with pytest.raises(SigningError, match="seconds ahead"):
        SignedPublish(key, "east", [wish("a", content="x")], "web1", clock=lambda: NOW * 1000).run(
            Target(plan(a=[HELD]), outdated(far))
        )
    assert len(key.texts) == 1 and "signed-at 2027-01-15T08:00:00.000000Z" in key.texts[0]


def test_a_deletion_says_what_is_deleted_and_nothing_else():
    absent = Wish("a", dict(dict.fromkeys(document_spec()), state="absent", expires="1h", content_type="json"))
    _result, texts = run(Target(plan(a=[HELD]), DONE), absent)
    assert lines(texts[0])[4:] == ['delete "a" after ' + HELD]


def test_the_type_is_the_controllers_word():
    documents = {"a.json": {}, "b.YML": {}, "c": {"src": "/x/c.txt"}, "d": {}, "e": {"value": [1]}, "f": {"value": "t"}}
    for key, options in documents.items():
        given = options or {"content": "1"}
        one = Wish(key, dict(dict.fromkeys(document_spec()), state="present", **given), lambda path: b"1")
        _result, texts = run(Target(plan(**{key: [HELD]}), DONE), one)
        wanted = {"a.json": "json", "b.YML": "yaml", "c": "text", "e": "json"}.get(key, "raw")
        assert ' type "%s" ' % wanted in texts[0]


def test_what_cannot_be_signed_together_is_refused():
    assert "author: expected none" in refused(Target(), wish("a", content="x", author="me"))
    assert "same comment" in refused(Target(), wish("a", content="x", comment="1"), wish("b", content="x"))
    assert "at most 64 documents with sign_key, got 65" in refused(
        Target(), *[wish("d%d" % number, content="x") for number in range(65)]
    )
    long = [wish("%d" % number + "x" * 500, content="x") for number in range(9)]
    assert "at most 4096 bytes together with sign_key, got 4509" in refused(Target(), *long)
    with pytest.raises(ConfigError):
        wish("a\nb", content="x")


def test_the_time_of_a_signature_is_after_the_version_and_its_expiry():
    for reading in (0, 1, 63, 64, 65, 63999, 64000, 65535, 1_700_000_000_000 << 16 | 12345):
        found = earliest_after("%016x@[100::1]:1" % reading)
        own = (found // 1000 << 16) + found % 1000 * 64
        assert own > reading + 1
        before = found - 1
        assert (before // 1000 << 16) + before % 1000 * 64 <= reading + 1


def test_marked_values_become_plain_ones():
    class Text(str):
        pass

    found = plain({Text("a"): [Text("b"), 1, 2.5, None, True], 7: (1,)})
    assert found == {"a": ["b", 1, 2.5, None, True], "7": [1]}
    assert not isinstance(next(iter(found)), Text) and not isinstance(found["a"][0], Text)
