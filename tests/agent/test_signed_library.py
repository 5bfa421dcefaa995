# SPDX-License-Identifier: MIT
"""Signed documents through the library and the HTTP API: publish, read who signed, verify offline, trust others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_harness import Api, serving
from test_api_rights import TOKENS, served
from test_documents_real import post

from tests.support.agents import SECRET
from tests.support.ports import free_port
from tests.support.signer import Draft, Key, writes
from xdp_gossip import AsyncNodeList, Node, ProtocolError, Write, make_signer
from xdp_gossip.api.access import Access, Identity, Right
from xdp_gossip.api.streams import changes_for
from xdp_gossip.core.signatures import text_of_time
from xdp_gossip.core.types import Address, Document, Signed
from xdp_gossip.signing import sshsig
from xdp_gossip.store.sqlite import Store

ALICE, BOB, EVE = Key(1), Key(2), Key(3)
SIGNERS = [make_signer("alice", ALICE.line, ["app/"], None), make_signer("bob", BOB.line, ["db/"], None)]


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


@contextlib.asynccontextmanager
async def member(**more: Any) -> AsyncIterator[AsyncNodeList]:
    async with AsyncNodeList(secret_key=SECRET, signers=SIGNERS, cycle=0.2, **more) as node_list:
        node_list.new(Node("127.0.0.1", free_port(), "n1"))
        await node_list.join()
        yield node_list


def test_a_signed_document_of_the_library(tmp_path: Path) -> None:
    async def main() -> None:
        async with member(state_dir=tmp_path / "state") as node_list:
            assert node_list.lineage("app/a") == ()
            with pytest.raises(ProtocolError, match="expected a signature of alice, got none"):
                await node_list.publish(b"1", "app/a")
            when = clock()
            [done] = await node_list.publish_many(
                writes(ALICE, when, Draft("app/a", b"1"), comment="why"), comment="why"
            )
            document = done.document
            assert document is not None and done.changed and node_list.lineage("app/a") == (document.version,)
            by = node_list.signed_by(document)
            assert by is not None and (by.signer, by.withdrawn) == ("alice", False)
            await offline(node_list, tmp_path)

            assert node_list.trust([make_signer("bob", BOB.line, ["app/"], None)]) == 1
            assert node_list.document("app/a") is None
            [kept] = await node_list.history("app/a")
            assert kept.value == b"1"
            unlisted = node_list.signed_by(kept)
            assert unlisted is not None and unlisted.signer == ""
        async with member(state_dir=tmp_path / "state") as node_list:
            # The history is not what a member holds, also after a restart with the signers of before.
            assert node_list.document("app/a") is None
            plain = await node_list.publish(b"x", "free")
            assert plain.document is not None
            assert node_list.signed_by(plain.document) is None and node_list.signature(plain.document) is None

    asyncio.run(main())


def test_the_statement_of_a_batch_names_no_foreign_document(tmp_path: Path) -> None:
    """A client with prefixes reads a document that was signed together with one that the client may not use."""

    async def main() -> None:
        async with member(state_dir=tmp_path / "state") as node_list:
            together = writes(ALICE, clock(), Draft("app/one", b"1"), Draft("foreign/two", b"2"))
            own = writes(ALICE, clock(), Draft("app/three", b"3"), Draft("app/four", b"4"))
            await node_list.publish_many(together)
            await node_list.publish_many(own)
            async with served(node_list, Access(None, TOKENS)) as (client, _counters):
                some, everything = await client("read-some"), await client("read")
                for path in ("/v1/documents/app/one", "/v1/history/app/one"):
                    answer = await some("GET", path, params="format=json" if "documents" in path else "values=1")
                    assert answer.status == 200 and b"foreign" not in answer.body
                assert (await some("GET", "/v1/documents/app/one", params="format=json")).json["signature"] is None
                whole = (await everything("GET", "/v1/documents/app/one", params="format=json")).json
                assert 'document "foreign/two" sha256' in whole["signature"]["statement"]
                three = (await some("GET", "/v1/documents/app/three", params="format=json")).json
                assert 'document "app/four" sha256' in three["signature"]["statement"]

    asyncio.run(main())


def test_an_edited_history_shows_nobody_as_signer(tmp_path: Path) -> None:
    """The checksums of the state file need no key, so whoever can write the file can put versions into its history."""
    path = tmp_path / "state" / "state.db"

    async def main() -> None:
        when = clock() - 60_000_000
        async with member(state_dir=tmp_path / "state") as node_list:
            for number in range(4):
                batch = writes(ALICE, when + number * 1000, Draft("app/a", b"%d" % number))
                await node_list.publish_many(batch)
            kept = await node_list.history("app/a")
            assert [document.value for document in kept] == [b"3", b"2", b"1", b"0"]
            assert node_list.status()["counters"]["history_refused"] == 0
        last, third, second, first = kept
        stranger = Document("app/b", replace(first.version, origin=Address("198.18.0.9", 8000)), b"unsigned")
        forged = [
            replace(first, value=b"evil"),
            replace(second, signature=None),
            replace(third, version=replace(third.version, origin=Address("198.18.0.9", 8000))),
        ]
        store = Store.open(path)
        store.save_documents([stranger], withdrawn=[first, second, third])
        store.save_documents(forged)
        store.close()
        async with member(state_dir=tmp_path / "state") as node_list:
            assert [document.value for document in await node_list.history("app/a")] == [b"3"]
            assert node_list.status()["counters"]["history_refused"] == 3
            with pytest.raises(ProtocolError, match="expected a version of its history"):
                await node_list.version("app/a", first.version)
            [unsigned] = await node_list.history("app/b")
            assert node_list.signed_by(unsigned) is None
            held = node_list.document("app/a")
            assert held is not None and held.value == b"3"
            assert last.version == held.version

    asyncio.run(main())


async def offline(node_list: AsyncNodeList, place: Path) -> None:
    """Anyone can verify the signature with OpenSSH alone."""
    document = node_list.document("app/a")
    assert document is not None
    found = node_list.signature(document)
    assert found is not None
    (place / "sig").write_text(found["armored"])
    (place / "allowed").write_text(f"alice {ALICE.line}\n")
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-n",
        "xdp-gossip",
        "-I",
        "alice",
        "-f",
        place / "allowed",
        "-s",
        place / "sig",
    ]
    done = await asyncio.to_thread(subprocess.run, command, input=found["statement"].encode(), capture_output=True)
    assert done.returncode == 0 and b"Good" in done.stdout
    assert found["statement"].splitlines()[0] == "xdp-gossip statement 1" and 'comment "why"' in found["statement"]
    assert 'publish "app/a" type "raw" size 1 sha256' in found["statement"]


async def signed(api: Api, key: Key, *drafts: Draft, at: int | None = None, **more: Any) -> Any:
    """Publish through the API."""
    when = clock() if at is None else at
    signature = writes(key, when, *drafts)[0].signed
    assert signature is not None
    documents = []
    for draft in drafts:
        entry: dict[str, Any] = {"key": draft.key, "read": [str(version) for version in draft.read]}
        if draft.deleted:
            entry["delete"] = True
        else:
            entry.update(value_base64=base64.b64encode(draft.value).decode(), content_type=draft.content_type)
        if draft.expires:
            entry["expires"] = text_of_time(draft.expires * 1000)
        documents.append(entry)
    body = {
        "documents": documents,
        "signed_at": text_of_time(when),
        "signature": sshsig.armored(signature.blob),
        **more,
    }
    return await post(api, "/v1/documents", **body)


def test_signed_documents_of_the_api(tmp_path: Path) -> None:
    async def main() -> None:
        async with member() as node_list, serving(node_list, tmp_path) as (api, _):
            since = (await api("GET", "/v1/watch", params="timeout=0")).json["revision"]
            refused = await api("PUT", "/v1/documents/app/a", body=b"1")
            assert (refused.status, refused.code) == (403, "signature_required")
            assert refused.json["error"]["signers"] == ["alice"]
            expires = clock() // 1000 + 10**6
            drafts = (Draft("app/a", b"1", expires=expires), Draft("app/b", b'{"x": 1}', content_type="json"))
            done = await signed(api, ALICE, *drafts)
            assert done.status == 200, done.body
            assert [entry["signed_by"]["signer"] for entry in done.json["documents"]] == ["alice", "alice"]
            assert done.json["documents"][0]["expires"] is not None
            whole = (await api("GET", "/v1/documents/app/b", params="format=json")).json
            assert whole["signature"]["statement"].count("document ") == 2 and whole["batch"] == ["app/a", "app/b"]
            assert whole["signature"]["armored"].startswith("-----BEGIN SSH SIGNATURE-----")

            for answer, code in (
                (await signed(api, EVE, Draft("app/a", b"2")), "signature_refused"),
                (await signed(api, BOB, Draft("app/a", b"2")), "signature_refused"),
                (await signed(api, ALICE, Draft("app/a", b"2"), comment="not signed"), "signature_refused"),
                (await signed(api, ALICE, Draft("app/a", b"2"), Draft("db/x", b"1")), "signature_refused"),
            ):
                assert (answer.status, answer.code) == (403, code), answer.body
            old = await signed(api, ALICE, Draft("app/a", b"2"), at=clock() - 10**9)
            assert (old.status, old.code) == (409, "signature_outdated") and old.json["error"]["lineage"]
            later = await signed(api, ALICE, Draft("app/a", b"2"), at=clock() + 10**11)
            assert (later.status, later.code) == (403, "signature_refused")

            gone = await signed(api, ALICE, Draft("app/a", deleted=True))
            assert gone.status == 200 and gone.json["documents"][0]["deleted"]
            missing = await api("GET", "/v1/documents/app/a")
            assert (missing.status, missing.json["error"]["lineage"][0]) == (404, gone.json["version"])
            listed = (await api("GET", "/v1/documents")).json["documents"]
            assert [(entry["key"], entry["signed_by"]["signer"]) for entry in listed] == [("app/b", "alice")]
            versions = (await api("GET", "/v1/history/app/a")).json["versions"]
            assert [entry["signed_by"]["signer"] for entry in versions] == ["alice", "alice"]

            assert node_list.trust([]) == 0  # without signers everybody may write, and what was signed stays
            assert node_list.trust(SIGNERS[:1]) == 0
            assert node_list.trust([make_signer("bob", BOB.line, ["app/"], None)]) == 2
            feed = (await api("GET", "/v1/watch", params=f"since={since}&timeout=0&kind=refusal")).json["changes"]
            assert {change["refusal"]["key"] for change in feed} == {"app/a", "app/b"}
            assert all(change["refusal"]["from"] is None for change in feed)
            for prefix, seen in (("app/a", {"app/a"}), ("db/", set())):
                client = Identity("reader", Right.READ, (prefix,))
                found = await changes_for(client, node_list, since, 0.0, "", "refusal")
                assert {change.refusal.key for change in found.changes} == seen, "a client sees only its own keys"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"signature": None}, "expected both signed_at and signature, or neither, got only signed_at"),
        ({"signed_at": None}, "got only signature"),
        ({"signed_at": "now"}, "signed_at: expected a time such as"),
        ({"signed_at": "2027-02-31T00:00:00Z"}, "signed_at: expected a time such as"),
        ({"signed_at": "1969-12-31T00:00:00Z"}, "signed_at: expected a time such as"),
        ({"signed_at": 5}, "signed_at: expected a time such as"),
        ({"signature": "AAAA"}, "signature: expected"),
        ({"signature": "no base64!"}, "signature: expected a signature of OpenSSH in base64"),
        ({"signature": 7}, "signature: expected a signature of OpenSSH in base64"),
        ({"signature": "A" * 5000}, "signature: expected a signature of OpenSSH in base64"),
        ({"documents": [{"key": "app/a", "value": "1"}]}, "content_type: expected the type of the content"),
        ({"documents": [{"key": "app/a", "delete": True, "read": ["x"]}]}, "read: expected"),
        ({"documents": [{"key": "app/a", "delete": True, "expires": "x"}]}, "expires: expected a time"),
        (
            {"documents": [{"key": "app/a", "value": "1", "content_type": "raw", "expires_in": 5}]},
            "expires_in: expected expires instead",
        ),
    ],
)
def test_a_wrong_signed_request_is_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    signature = writes(ALICE, 10**15, Draft("app/a", b"1"))[0].signed
    assert signature is not None
    good = {
        "documents": [{"key": "app/a", "value": "1", "content_type": "raw"}],
        "signed_at": text_of_time(10**15),
        "signature": sshsig.armored(signature.blob),
    }

    async def main() -> None:
        async with member() as node_list, serving(node_list, tmp_path) as (api, _):
            answer = await post(api, "/v1/documents", **{**good, **change})
            assert answer.status == 400 and told in answer.json["error"]["message"], answer.body
            unsigned = await post(api, "/v1/documents", documents=[{"key": "x", "value": "1", "read": ["y"]}])
            assert unsigned.status == 400 and "only in a request with a signature" in unsigned.json["error"]["message"]

    asyncio.run(main())


def test_a_signature_of_the_library_needs_valid_fields() -> None:
    async def main() -> None:
        async with member() as node_list:
            for wrong in (
                5,
                "x",
                Signed("now", (), b""),
                Signed(1, ("x",), b""),
                Signed(1, (), "x"),
                Signed(-1, (), b""),
            ):  # type: ignore[arg-type]
                with pytest.raises((TypeError, ValueError)):
                    await node_list.publish_many([Write("app/a", b"1", "raw", signed=wrong)])  # type: ignore[arg-type]

    asyncio.run(main())
