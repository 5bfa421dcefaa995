# SPDX-License-Identifier: MIT
"""HPKE against the vectors of RFC 9180, envelopes, and the files of keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xdp_gossip.core.sealed import MAX_RECIPIENTS, Recipient, fingerprint, make_head, parse
from xdp_gossip.sealing import hpke, keys
from xdp_gossip.sealing.envelope import NotRecipient, context_of, open_envelope, seal
from xdp_gossip.sealing.keys import PublicKey
from xdp_gossip.templates import worker

#: RFC 9180, A.2.1: base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
SK_E = bytes.fromhex("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
PK_E = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SK_R = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PK_R = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
SHARED = bytes.fromhex("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7")
KEY = bytes.fromhex("ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")
NONCE = bytes.fromhex("5c4d98150661b848853b547f")
MESSAGE = b"Beauty is truth, truth beauty"
CIPHERTEXT = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")

#: An envelope of both implementations: tests/unit has it, too; for host1 and host2, in the cluster east under app/x.
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
PRIVATE = [bytes((number,)) * 32 for number in range(1, 4)]
PUBLIC = [PublicKey(f"host{number}", keys.public_of(key)) for number, key in enumerate(PRIVATE, 1)]


def test_the_vectors_of_rfc_9180() -> None:
    assert keys.public_of(SK_R) == PK_R and keys.public_of(SK_E) == PK_E
    own = hpke.X25519PrivateKey.from_private_bytes(SK_E)
    assert hpke.shared_secret(own, PK_R, PK_E + PK_R) == SHARED
    assert hpke.key_schedule(SHARED, INFO) == (KEY, NONCE)
    assert hpke.seal(PK_R, INFO, b"Count-0", MESSAGE, SK_E) == (PK_E, CIPHERTEXT)
    assert hpke.open_sealed(SK_R, PK_E, INFO, b"Count-0", CIPHERTEXT) == MESSAGE


def test_a_changed_message_key_info_or_associated_data_does_not_open() -> None:
    for arguments in (
        (PRIVATE[0], PK_E, INFO, b"Count-0", CIPHERTEXT),
        (SK_R, PK_R, INFO, b"Count-0", CIPHERTEXT),
        (SK_R, bytes(32), INFO, b"Count-0", CIPHERTEXT),  # a point whose shared secret is zero
        (SK_R, PK_E, INFO + b"x", b"Count-0", CIPHERTEXT),
        (SK_R, PK_E, INFO, b"Count-1", CIPHERTEXT),
        (SK_R, PK_E, INFO, b"Count-0", CIPHERTEXT[:-1]),
        (SK_R, PK_E, INFO, b"Count-0", b""),
    ):
        with pytest.raises(hpke.OpenError):
            hpke.open_sealed(*arguments)
    with pytest.raises(ValueError):
        hpke.seal(bytes(32), INFO, b"", MESSAGE)


def test_recipients_open_an_envelope_and_others_learn_who_may() -> None:
    value = seal("c", "app/x", b"the secret", "text", PUBLIC[:2])
    for private in PRIVATE[:2]:
        assert open_envelope("c", "app/x", value, private) == (b"the secret", "text")
    with pytest.raises(NotRecipient, match=r"sealed for host1, host2"):
        open_envelope("c", "app/x", value, PRIVATE[2])
    envelope = parse(value)
    assert (envelope.size, envelope.content_type, envelope.names) == (10, "text", ["host1", "host2"])
    assert b"the secret" not in value
    assert len(seal("c", "app/x", b"", "text", PUBLIC)) - len(seal("c", "app/x", b"", "text", PUBLIC[:2])) == 118
    assert seal("c", "app/x", b"the secret", "text", PUBLIC[:2]) != value


def test_the_envelope_that_the_collection_opens_too() -> None:
    for private in PRIVATE[:2]:
        assert open_envelope("east", "app/x", GOLDEN, private).content == "the sécret".encode()


def test_an_envelope_opens_only_in_its_cluster_and_under_its_key() -> None:
    value = seal("c", "app/x", b"v", "text", PUBLIC)
    for place in (("d", "app/x"), ("c", "app/y"), ("ca", "pp/x"), ("", "capp/x")):
        with pytest.raises(hpke.OpenError, match="another document, cluster or key"):
            open_envelope(*place, value, PRIVATE[0])


def test_each_changed_byte_but_those_of_the_tag_makes_it_fail() -> None:
    value = seal("c", "k", b"value", "text", PUBLIC[:2])
    envelope = parse(value)
    tag = range(len(envelope.head + envelope.stanzas) + 32, len(envelope.head + envelope.stanzas) + 64)
    for at in range(len(value)):
        changed = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
        if at in tag:
            assert open_envelope("c", "k", changed, PRIVATE[0]).content == b"value"
            continue
        with pytest.raises((hpke.OpenError, NotRecipient, ValueError)):
            open_envelope("c", "k", changed, PRIVATE[0])


def test_recipients_cannot_be_given_different_contents() -> None:
    """A sealer that encrypts another content key for one recipient is found out by the commitment."""
    value = seal("c", "k", b"value", "text", PUBLIC[:2])
    envelope = parse(value)
    other = [hpke.seal(one.raw, b"XDP Gossip sealed document", context_of("c", "k") + envelope.head, os.urandom(32))
             for one in sorted(PUBLIC[:2], key=lambda one: fingerprint(one.raw))]  # fmt: skip
    second = b"".join(other[1])
    forged = envelope.head + envelope.stanzas[:80] + second + value[len(envelope.head) + 160 :]
    outcomes = []
    for private in PRIVATE[:2]:
        with pytest.raises(hpke.OpenError, match="commitment") as found:
            open_envelope("c", "k", forged, private)
        outcomes.append(found)
    assert len(outcomes) == 2


@pytest.mark.parametrize("count", [0, MAX_RECIPIENTS + 1])
def test_the_number_of_recipients_is_bounded(count: int) -> None:
    many = tuple(Recipient("", number.to_bytes(32, "big")) for number in range(count))
    with pytest.raises(ValueError, match=f"expected 1 to {MAX_RECIPIENTS}, got {count}"):
        make_head("text", many)


def test_a_key_twice_and_names_that_do_not_fit_are_refused() -> None:
    for recipients, kind, told in (
        ([PUBLIC[0], PublicKey("again", PUBLIC[0].raw)], "text", "'host1' and 'again' have the same key SHA256:"),
        ([PublicKey("x" * 256, PUBLIC[0].raw)], "text", "recipient: expected printable text of 0 to 255 bytes"),
        ([PublicKey("a\nb", PUBLIC[0].raw)], "text", "recipient: expected printable text"),
        (PUBLIC, "", "content type: expected printable text of 1 to 32 bytes"),
        (PUBLIC, "x" * 33, "content type: expected printable text of 1 to 32 bytes"),
    ):
        with pytest.raises(ValueError, match=told):
            seal("c", "k", b"", kind, recipients)


VALUE = seal("c", "k", b"value", "text", PUBLIC)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(VALUE)), st.binary(max_size=80), st.integers(0, 80))
@example(0, b"", 0)
@example(20, b"\xff" * 80, 80)
@example(25, b"\xff\xff", 2)
def test_a_malformed_envelope_is_refused_or_does_not_open(at: int, put: bytes, drop: int) -> None:
    value = VALUE[:at] + put + VALUE[at + drop :]
    try:
        envelope = parse(value)
    except ValueError as error:
        assert str(error)
        return
    assert make_head(envelope.content_type, envelope.recipients) == envelope.head
    try:
        assert open_envelope("c", "k", value, PRIVATE[0]).content == b"value"
    except (NotRecipient, hpke.OpenError):
        pass


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for value in (data, b"XDP Gossip sealed 1\n" + data):
        try:
            parse(value)
        except ValueError as error:
            assert str(error)


def test_the_key_of_a_host_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    made = keys.load_or_make(tmp_path)
    path = tmp_path / "sealing.key"
    assert len(made) == 32 and path.stat().st_mode & 0o777 == 0o600
    assert keys.load_or_make(tmp_path) == made
    (tmp_path / "sealing.key.new").write_text("of a start that was killed")
    path.unlink()
    assert keys.load_or_make(tmp_path) != made
    assert os.listdir(tmp_path) == ["sealing.key"]


def test_a_key_file_that_is_wrong_is_named_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    secret = keys.load_or_make(tmp_path)
    line = path.read_text()
    for mode, text, told in (
        (0o640, line, "expected mode 0600, got 0640"),
        (0o600, "", "expected a line 'xdp-gossip-x25519-private BASE64'"),
        (0o600, line[:-5], "expected a line 'xdp-gossip-x25519-private BASE64'"),
        (0o600, line.replace("-private", ""), "expected a line"),
    ):
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(keys.KeyFileError, match=told) as found:
            keys.load_or_make(tmp_path)
        assert str(path) in str(found.value) and line.split()[1][:8] not in str(found.value)
    path.unlink()
    path.mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(keys.KeyFileError):
        keys.load_or_make(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(keys.KeyFileError, match="got another content"):
        keys.load_or_make(tmp_path)
    assert secret


def test_a_file_of_recipients(tmp_path: Path) -> None:
    path = tmp_path / "recipients"
    lines = [keys.public_line(one.raw, one.name) for one in PUBLIC]
    path.write_text("# the web servers\n\n" + "\n".join(lines) + "\n")
    assert keys.read_recipients(str(path)) == PUBLIC
    own = keys.load_or_make(tmp_path)
    assert own
    private = (tmp_path / "sealing.key").read_text()
    for text, told in (
        ("", "expected 1 to 1024 public keys, got 0"),
        (lines[0] + "\nssh-ed25519 AAAA x\n", "line 2: expected a line 'xdp-gossip-x25519 BASE64 NAME'"),
        (private, "line 1: expected a line 'xdp-gossip-x25519 BASE64 NAME', got one of"),
        ("x" * 600_000, "expected at most 524288 bytes"),
    ):
        path.write_text(text)
        with pytest.raises(keys.KeyFileError, match=told) as found:
            keys.read_recipients(str(path))
        assert private.split()[1] not in str(found.value)
    path.write_bytes(b"\xff")
    with pytest.raises(keys.KeyFileError, match="UTF-8"):
        keys.read_recipients(str(path))
    with pytest.raises(keys.KeyFileError, match="No such file"):
        keys.read_recipients(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ yaml('app/broken').x }}", "template: line 1: ValueError; the error may quote the sealed document"),
        ("\n{{ document('app/pw') | int }}{{ {}[document('app/pw')] }}", "template: line 2: UndefinedError; the error"),
        ("{{ document('app/pw') + 1 }}", "line 1: TypeError; the error may quote the sealed document 'app/pw'"),
        ("{{ document('app/pw') | regex_replace(document('app/pw') ~ '(', '') }}", "; the error may quote the sealed"),
        ("{{ document(document('app/pw')) }}", "a document is missing; the error may quote the sealed document"),
        ("{{ documents(document('app/pw'), at_least=1) }}", "a document is missing; the error may quote the sealed"),
        ("{{ documents('app/')[0].value }}{{ json('app/pw') }}", "; the error may quote the sealed document 'app/b"),
        ("{{ document('app/pw') }}{{ document('app/none') }}", "document 'app/none': there is none"),
        ("{{ document('app/pw') }}{{ document('app/other') }}", "it is sealed for host2, and this host (host1) is not"),
        ("{{ document('app/pw') * 9 }}", "expected at most 100 bytes of output, got more"),
    ],
)
def test_the_error_of_a_template_quotes_no_sealed_document(tmp_path: Path, source: str, told: str) -> None:
    """Errors of templates go to the log, to the API and, as troubled files, to all members."""
    secret = "passw0rd-of-the-db"
    own = keys.load_or_make(tmp_path)
    mine, other = [PublicKey("host1", keys.public_of(own))], PUBLIC[1:2]
    contents = {"app/broken": f"a: 1\n{secret}\nb: 2", "app/pw": secret}
    held = {key: seal("c", key, text.encode(), "text", mine) for key, text in contents.items()}
    held["app/other"] = seal("c", "app/other", b"x", "text", other)

    def ask(what: str, name: str) -> Any:
        if what == "document":
            return [held[name], True] if name in held else None
        return [[key, "v", value, True] for key, value in held.items() if key.startswith(name)]

    opener = worker.Opener(["c", "host1", str(tmp_path / "sealing.key")])
    kind, text = worker.render(source, 100, ask, opener)
    assert kind in ("error", "missing") and told in text, text
    assert secret not in text
