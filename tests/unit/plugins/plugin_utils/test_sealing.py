# SPDX-License-Identifier: MIT
"""Sealing on the controller: HPKE against the vectors of RFC 9180, envelopes, tags, and the directory of keys."""

from __future__ import annotations

import contextlib
import os

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import parse_envelope, summary
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish, document_spec
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _sealing
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealed_publish import (
    Held,
    SealedPublish,
    check_content,
    held_of,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing import (
    NotForThisKey,
    PublicKey,
    Sealer,
    SealingError,
    public_key,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing_keys import (
    CONTROLLER,
    SealingKeys,
    decoded,
    public_line,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

#: RFC 9180, A.2.1: base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
SK_E = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
PK_E = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SK_R = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PK_R = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
KEY = bytes.fromhex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")
NONCE = bytes.fromhex("5c4d98150661b848853b547f")
MESSAGE = b"Beauty is truth, truth beauty"
CIPHERTEXT = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")

PRIVATE = [bytes((number,)) * 32 for number in range(1, 4)]
PUBLIC = [PublicKey("host%d" % number, public_key(key)) for number, key in enumerate(PRIVATE, 1)]
#: An envelope of the agent's code for host1 and host2, in the cluster east under app/x.
GOLDEN = bytes.fromhex(
    "58445020476f73736970207365616c656420310a0474657874000205686f7374311a92f23852dc908d97316a3b1357828119"
    "6c1dd73d9ae5e313f3fb6b8954bf5505686f737432cfa570c653bd212b10a9cb551fd7a1b4789855ee17e99ef2b3a2037feb"
    "337a08b3367057a4e861581edb6f3dd65d71b228622a27b63f47206f4da86e69402c241607a570d8e8fdf8d7cfc1ec7750d1"
    "8f01e0ab5fd8663fb7b218393305da04625af7d08faab736865f4ab257bf733d4630be50c777c3675b14387eee2d0f256a80"
    "e3c0f6b1cae98cc30d64ed057a2507989ae530a92ff0ba644ec5c4cf75064edb94fb80e65d830656f5517383963055999bf2"
    "db9c9a83ba29ee284b971d798c8051bd6ce5c2505133de448fdce0172ccfa0181376f26cf62fc72f757ec774311e26b599eb"
    "2adb7b738d4014c3b8084e218c8dc9228cb38653819d3bf3038a8143083e615cc805c69d17329e1dd2f8ba8ef617bfd4ef51"
    "7a60983a"
)


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


@pytest.fixture(name="keys")
def fixture_keys(tmp_path):
    keys = SealingKeys(str(tmp_path / "sealing"), read)
    for one in PUBLIC[:2]:
        assert keys.pin(one.name, one.raw, replace=False, write=True)
    return keys


def publish_of(keys, cluster="east", **options):
    groups = {"all": ["host1", "host2", "host3"], "web": ["host1", "host2"], "none": []}
    return SealedPublish(cluster, keys, groups, options.pop("for_controller", True), write=True)


def wish_of(key, content, *sealed_for, **options):
    checked = dict.fromkeys(document_spec())
    checked.update({"state": "present", "content": content, "sealed_for": list(sealed_for)}, **options)
    return Wish(key, checked)


def test_the_vectors_of_rfc_9180():
    own = X25519PrivateKey.from_private_bytes(SK_E)
    assert public_key(SK_R) == PK_R
    assert _sealing.cipher_of(own, PK_R, PK_E + PK_R, INFO) == (KEY, NONCE)
    assert _sealing.encrypt_to(PK_R, INFO, b"Count-0", MESSAGE, own) == PK_E + CIPHERTEXT
    assert _sealing.decrypt_with(SK_R, INFO, b"Count-0", PK_E + CIPHERTEXT) == MESSAGE
    for bound, sealed in ((b"Count-1", PK_E + CIPHERTEXT), (b"Count-0", bytes(32) + CIPHERTEXT), (b"Count-0", b"")):
        with pytest.raises(SealingError):
            _sealing.decrypt_with(SK_R, INFO, bound, sealed)


def test_an_envelope_of_the_agent_opens():
    for private in PRIVATE[:2]:
        assert Sealer("east", private).open("app/x", GOLDEN) == "the sécret".encode()
    with pytest.raises(NotForThisKey):
        Sealer("east", PRIVATE[2]).open("app/x", GOLDEN)
    for cluster, key in (("west", "app/x"), ("east", "app/y")):
        with pytest.raises(SealingError):
            Sealer(cluster, PRIVATE[0]).open(key, GOLDEN)
    told = summary(GOLDEN, "sha256:0")
    lines = told.splitlines()
    assert lines[:2] == ["sealed document, %d bytes, sha256:0" % len(GOLDEN), "content: text, 11 bytes"]
    assert lines[2].startswith("recipient: host1 SHA256:")
    assert summary(b"another text", "") is None


def test_each_changed_byte_is_noticed():
    sealer = Sealer("east", PRIVATE[0])
    value = sealer.seal("app/x", b"value", "text", PUBLIC[:2])
    assert sealer.is_own("app/x", parse_envelope(value), b"value")
    for at in range(len(value)):
        changed = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
        try:
            envelope = parse_envelope(changed)
        except ValueError:
            continue
        assert not sealer.is_own("app/x", envelope, b"value")
    for length in range(len(value) - 6):
        with pytest.raises(ValueError):
            parse_envelope(value[:length])


def test_the_tag_tells_nobody_else_whether_a_guess_is_right():
    first, second = (Sealer("east", PRIVATE[0]).seal("k", b"1234", "text", PUBLIC[:1]) for each in range(2))
    assert parse_envelope(first).tag != parse_envelope(second).tag
    for cluster, number, key in (("east", 1, "k"), ("west", 0, "k"), ("east", 0, "l")):
        assert not Sealer(cluster, PRIVATE[number]).is_own(key, parse_envelope(first), b"1234")
    assert not Sealer("east", PRIVATE[0]).is_own("k", parse_envelope(first), b"1235")


def test_the_same_content_for_the_same_keys_keeps_the_envelope(keys):
    publish = publish_of(keys)
    wish = wish_of("app/x", "secret", "web")
    publish.seal(wish, None)
    assert wish.content_type == "sealed" and b"secret" not in wish.value
    held = Held(wish.value, "v", None)
    assert [one.name for one in parse_envelope(wish.value).recipients].count(CONTROLLER) == 1
    again = wish_of("app/x", "secret", "host2", "host1", "web")
    publish.seal(again, held)
    assert again.value == wish.value
    for other in (
        wish_of("app/x", "secret2", "web"),
        wish_of("app/x", "secret", "host1"),
        wish_of("app/x", "secret", "web", content_type="text"),
    ):
        publish.seal(other, held)
        assert other.value != wish.value
    spoiled = wish_of("app/x", "secret", "web")
    publish.seal(spoiled, Held(wish.value[:-1] + bytes((wish.value[-1] ^ 1,)), "v", None))
    assert spoiled.value != wish.value
    without = wish_of("app/x", "secret", PUBLIC[0].recipient.fingerprint)
    publish_of(keys, for_controller=False).seal(without, held)
    assert [one.name for one in parse_envelope(without.value).recipients] == ["host1"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["host3"], "host host3: expected its public key in .*host3.pub, found none: deploy"),
        (["nobody"], "expected hosts and groups of the inventory, got 'nobody'"),
        (["none"], "got 'none' without hosts"),
        (["SHA256:x"], "expected the fingerprint of a key"),
    ],
)
def test_recipients_that_are_not_known(keys, names, told):
    with pytest.raises(SealingError, match=told):
        publish_of(keys).recipients(names)


def test_sealing_again_needs_the_own_tag_and_a_recipient(keys):
    publish = publish_of(keys)
    wish = wish_of("app/x", "secret", "web")
    publish.seal(wish, None)
    held = Held(wish.value, "v", None)
    assert publish.reseal("app/x", held) is None
    new = public_key(PRIVATE[2])
    with pytest.raises(SealingError, match="host2: expected the sealing key that the controller has"):
        keys.pin("host2", new, replace=False, write=True)
    assert keys.pin("host2", new, replace=True, write=True)
    again = publish.reseal("app/x", held)
    assert again.dropped == [] and Sealer("east", PRIVATE[2]).open("app/x", again.value) == b"secret"
    with pytest.raises(NotForThisKey):
        Sealer("east", PRIVATE[1]).open("app/x", again.value)
    os.unlink(keys.path("host1"))
    assert publish_of(keys).reseal("app/x", held).dropped == ["host1"]
    os.unlink(keys.path("host2"))
    with pytest.raises(SealingError, match="none of its recipients has a key on the controller: host1, host2"):
        publish_of(keys).reseal("app/x", held)
    own = PublicKey(CONTROLLER, publish._sealer.public)
    forged = Sealer("east", PRIVATE[0]).seal("app/x", b"x", "text", [*PUBLIC[:2], own])
    with pytest.raises(SealingError, match="this controller has not sealed it"):
        publish.reseal("app/x", Held(forged, "v", None))
    with pytest.raises(SealingError, match="its envelope is damaged"):
        publish.reseal("app/x", Held(b"x", "v", None))
    with pytest.raises(SealingError, match="publish it from its source"):
        publish.reseal("app/x", Held(GOLDEN, "v", None))


def test_two_hosts_with_one_key_are_refused(keys):
    with pytest.raises(SealingError, match="host9: expected a sealing key of its own, got the key of host1"):
        keys.pin("host9", PUBLIC[0].raw, replace=True, write=True)
    assert not keys.pin("host1", PUBLIC[0].raw, replace=False, write=True)
    assert keys.pin("host9", PUBLIC[2].raw, replace=False, write=False) and keys.get("host9") is None
    assert keys.path("../x") == os.path.join(keys.directory, "hosts", "%2E.%2Fx.pub")


def test_two_hosts_with_one_key_are_refused_at_the_same_time(keys, monkeypatch):
    """Ansible stores the keys of several hosts in processes of their own; another one is a moment ahead."""
    locked, twin = fleet_secrets.locked, bytes(range(32))

    @contextlib.contextmanager
    def overtaken(directory):
        monkeypatch.setattr(fleet_secrets, "locked", locked)
        assert keys.pin("clone1", twin, replace=False, write=True)
        with locked(directory):
            yield

    monkeypatch.setattr(fleet_secrets, "locked", overtaken)
    with pytest.raises(SealingError, match="clone2: expected a sealing key of its own, got the key of clone1"):
        keys.pin("clone2", twin, replace=False, write=True)
    assert keys.get("clone2") is None and keys.get("clone1").raw == twin


def test_the_key_of_the_controller_is_made_once_and_kept_private(keys):
    assert keys.controller(write=False) != keys.controller(write=False)
    made = keys.controller(write=True)
    path = os.path.join(keys.directory, "controller.key")
    assert keys.controller(write=False) == made and os.stat(path).st_mode & 0o777 == 0o600
    os.chmod(path, 0o640)
    with pytest.raises(SealingError, match="expected mode 0600"):
        keys.controller(write=True)
    os.chmod(path, 0o600)
    with open(path, "w", encoding="ascii") as stream:
        stream.write("another text\n")
    with pytest.raises(SealingError, match="expected a line 'xdp-gossip-x25519-private BASE64'"):
        keys.controller(write=True)


@pytest.mark.parametrize("text", ["", "x", "ssh-ed25519 AAAA x", "xdp-gossip-x25519 AAAA x", None, 5, "x" * 5000])
def test_another_text_is_no_public_key(text):
    assert decoded(text) is None
    assert decoded(public_line(PUBLIC[0].raw, "host1")) == PUBLIC[0].raw


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b"{", "json", "line 1, column 2"),
        (b'{"a": 1, "a": 2}', "json", "a key is there twice"),
        (b"NaN", "json", "a value is not allowed"),
        (b"a: [", "yaml", "line 1, column 5"),
        (b"\xff", "text", "byte 0 is not UTF-8"),
        (b"x", "sealed", "expected the type of the content, got sealed"),
    ],
)
def test_a_content_of_another_type_is_refused_and_not_shown(content, kind, told):
    with pytest.raises(SealingError, match=told):
        check_content("app/x", content, kind)
    check_content("app/x", b"\xff", "raw")


@pytest.mark.parametrize(
    "answer",
    [
        {"envelopes": {"a": {"value": "!", "version": "v", "expires": None}}},
        {"envelopes": {"a": {"value": "", "version": 5, "expires": None}}},
        {"envelopes": {"a": None}},
    ],
)
def test_an_answer_that_no_member_gives_is_refused(answer):
    with pytest.raises(SealingError, match="expected sealed documents"):
        held_of(answer, None)
    assert held_of({"envelopes": {"b": {"value": "", "version": "v", "expires": None}}}, ["a"]) == {}
