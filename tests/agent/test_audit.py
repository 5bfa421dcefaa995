# SPDX-License-Identifier: MIT
"""Audit records: who changed what, who was denied what; in the log, in a file of bounded size, and by ``audit``."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from test_api_rights import ALLOWED, FOREIGN, TOKENS, Fleet, served

from tests.support.patience import patient
from tests.support.process import command
from xdp_gossip.api import audit as audit_module
from xdp_gossip.api import auditfile
from xdp_gossip.api.access import Access
from xdp_gossip.api.audit import MAX_DENIALS, MAX_IDLE_BYTES, Audit, Record, note_written
from xdp_gossip.api.auditfile import KEPT, AuditFile, append, files_of
from xdp_gossip.service import logs

RECORD = {"who": "ci", "from": "10.0.0.1", "operation": "documents.publish", "target": "", "outcome": "done"}


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records in the log."""
    return [getattr(one, "fields") for one in caplog.records if one.name == "xdp_gossip.audit"]  # noqa: B009


def test_changes_and_denials_are_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xdp_gossip.audit")
    path = tmp_path / "audit.jsonl"

    async def main() -> None:
        counters: dict[str, int] = {}
        audit = Audit(counters)
        audit.configure(str(path))
        async with served(Fleet(), Access(None, TOKENS), audit=audit) as (client, _counters):
            some, admin, stranger = await client("write-some"), await client("admin"), await client("nobody")
            read = await client("read")
            headers = {"X-XDP-Gossip-Request-Id": "request-1"}
            for _ in range(2):
                await some("PUT", f"/v1/documents/{ALLOWED}", params="comment=why", body=b"a secret", headers=headers)
            await some("PUT", f"/v1/documents/{ALLOWED}", body=b"a secret")
            await some("PUT", f"/v1/documents/{FOREIGN}", body=b"a secret")
            await some("GET", f"/v1/documents/{FOREIGN}")
            await some("GET", f"/v1/documents/{ALLOWED}")
            await read("PUT", f"/v1/documents/{ALLOWED}", body=b"a secret")
            await some("POST", "/v1/node/stop")
            await some("DELETE", f"/v1/documents/{ALLOWED}", headers={"If-Match": '"0000000000000001@1.2.3.4:5"'})
            documents = [{"key": "app/new", "value": "x"}, {"key": ALLOWED, "delete": True}]
            await admin("POST", "/v1/documents", json_body={"documents": documents})
            await admin("POST", "/v1/node/join", json_body={"nodes": ["198.18.0.12:8000"]})
            for _ in range(3):
                await stranger("GET", "/v1/node")
        audit.close()
        assert counters["api_forbidden"] == 4 and counters["audit_lost"] == 0

    asyncio.run(main())
    found = told(caplog)
    shown = [
        (one["who"], one["operation"], one["target"], [each["key"] for each in one["documents"]], one["outcome"])
        for one in found
    ]
    assert shown == [
        ("write-some", "documents.publish", "", [ALLOWED], "done"),
        ("write-some", "documents.publish", "", [ALLOWED], "repeated"),
        ("write-some", "documents.publish", "", [ALLOWED], "unchanged"),
        ("write-some", "documents.publish", "", [FOREIGN], "forbidden"),
        ("write-some", "documents.read", "", [FOREIGN], "forbidden"),
        ("read", "documents.publish", "", [ALLOWED], "forbidden"),
        ("write-some", "nodes.stop", "", [], "forbidden"),
        ("write-some", "documents.delete", "", [ALLOWED], "version_mismatch"),
        ("admin", "documents.publish_many", "", ["app/new", ALLOWED], "done"),
        ("admin", "nodes.join", "198.18.0.12:8000", [], "done"),
        ("", "authenticate", "", [], "unauthorized"),
    ]
    assert {one["from"] for one in found} == {"127.0.0.1"}
    first = found[0]["documents"][0]
    assert first["before"] != first["after"] and "@198.18.0.11:8000" in first["before"] + first["after"]
    lines = [record.getMessage() for record in caplog.records if record.name == "xdp_gossip.audit"]
    assert lines[0] == (
        f"documents.publish {ALLOWED} by write-some from 127.0.0.1: done, version {first['before']} -> {first['after']}"
    )
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [{name: value for name, value in one.items() if name != "time"} for one in written] == found
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for text in (path.read_text(), "\n".join(lines), json.dumps(found)):
        assert "secret" not in text and "the-token" not in text and "why" not in text


def test_a_record_names_the_signer() -> None:
    request: Any = {}
    answer = {"key": "a", "previous_version": None, "version": "v1", "changed": True}
    for signed_by, signer in (
        (None, None),
        ({"signer": "alice", "key": "SHA256:x", "withdrawn": False}, "alice"),
        ({"signer": None, "key": "SHA256:x", "withdrawn": False}, "SHA256:x"),
    ):
        request["audit"] = Record("documents.publish_many")
        note_written(request, [{**answer, "signed_by": signed_by}])
        assert request["audit"].documents == [("a", None, "v1", signer)]


def test_a_record_has_its_fields_in_a_log_of_json() -> None:
    stream = io.StringIO()
    logs.configure("error", "json", stream)
    try:
        logging.getLogger("xdp_gossip.audit").info("text", extra={"fields": RECORD})
        logging.getLogger("xdp_gossip.api").info("not at this level")
    finally:
        logs.configure("info", "text", io.StringIO())
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert {**RECORD, "logger": "xdp_gossip.audit", "message": "text"}.items() <= entry.items()


def test_denials_of_one_client_are_limited_and_all_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "xdp_gossip.audit")
    monkeypatch.setattr(audit_module, "MAX_DENIALS", 5)
    assert MAX_DENIALS == 100

    async def main() -> None:
        now = 0.0
        counters: dict[str, int] = {}
        audit = Audit(counters, lambda: now)
        async with served(Fleet(), Access(None, TOKENS), audit=audit) as (client, _counters):
            read, write = await client("read"), await client("write")
            for _ in range(20):
                await read("POST", "/v1/node/stop")
            await write("POST", "/v1/node/stop")
            assert counters["api_forbidden"] == 21
            assert [one["who"] for one in told(caplog)] == ["read"] * 5 + ["write"]
            now = 61.0
            await read("POST", "/v1/node/stop")
            assert len(told(caplog)) == 7

    asyncio.run(main())


def test_what_changes_nothing_pushes_no_record_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that may write repeats what is there already, or fails with many long keys, as often as it likes."""
    caplog.set_level(logging.INFO, "xdp_gossip.audit")
    monkeypatch.setattr(audit_module, "MAX_IDLE_BYTES", 4096)
    assert MAX_IDLE_BYTES == 64 * 1024

    async def main() -> None:
        now = 0.0
        counters: dict[str, int] = {}
        audit = Audit(counters, lambda: now)
        async with served(Fleet(), Access(None, TOKENS), audit=audit) as (client, _counters):
            assert counters["audit_withheld"] == 0
            some, write = await client("write-some"), await client("write")
            foreign = [{"key": "\u00fc" * 250 + str(number), "delete": True} for number in range(64)]
            for _ in range(10):
                assert (await some("POST", "/v1/documents", json_body={"documents": foreign})).status == 403
            written = told(caplog)
            assert 0 < len(written) < 10 and len(written) + counters["audit_withheld"] == 10
            assert sum(len(json.dumps(one)) for one in written) < 4096 + 16_384
            assert [len(one["documents"]) for one in written] == [5] * len(written)
            assert {one["target"] for one in written} == {"and 59 more documents"}

            caplog.clear()
            before = counters["audit_withheld"]
            for number in range(40):
                assert (await write("PUT", "/v1/documents/app/same", body=b"x")).status == 200
                await write("PUT", "/v1/documents/app/other", body=b"%d" % (number // 10))
            done = [one for one in told(caplog) if one["outcome"] == "done"]
            rest = [one for one in told(caplog) if one["outcome"] != "done"]
            assert len(done) == 5, "each change has its record"
            assert len(rest) + counters["audit_withheld"] - before == 80 - 5
            assert sum(len(json.dumps(one)) for one in rest) < 4096 + 16_384
            now = 61.0
            await write("PUT", "/v1/documents/app/same", body=b"x")
            assert told(caplog)[-1]["outcome"] == "unchanged"

    asyncio.run(main())


# -- the file ----------------------------------------------------------------------------------------------------


def test_the_file_is_rotated_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(200):
        append(str(path), b"%03d" % number + b"x" * 46 + b"\n", most=500)
    names = {found.name for found in tmp_path.iterdir()}
    assert names == {Path(name).name for name in files_of(str(path))} and len(names) == KEPT + 1
    assert all(found.stat().st_size <= 500 for found in tmp_path.iterdir())
    lines = b"".join(Path(name).read_bytes() for name in files_of(str(path))).splitlines()
    assert [int(line[:3]) for line in lines] == list(range(150, 200))


def test_the_file_is_private_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"torn")
    path.chmod(0o644)
    append(str(path), b"{}\n")
    assert path.read_bytes() == b"torn\n{}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "no/such/directory", "."):
        with pytest.raises(OSError):
            append(str(tmp_path / name), b"{}\n")
    assert path.read_bytes() == b"torn\n{}\n"


def test_a_full_disk_loses_records_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    counters: dict[str, int] = {}
    audit = Audit(counters)
    audit.configure(str(path))
    assert counters["audit_lost"] == 0
    written, full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if not full[0]:
            return written(descriptor, data)
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(descriptor, data[:10])

    async def main() -> None:
        async with served(Fleet(), Access(None, TOKENS), audit=audit) as (client, _counters):
            admin = await client("admin")
            monkeypatch.setattr(auditfile.os, "write", write)
            for number in range(10):
                assert (await admin("PUT", "/v1/documents/a", body=b"%d" % number)).status == 200
            deadline = asyncio.get_running_loop().time() + patient(10)
            while counters["audit_lost"] < 10:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            full[0] = False
            assert (await admin("PUT", "/v1/documents/a", body=b"last")).status == 200
        audit.close()

    asyncio.run(main())
    assert len(path.read_text().splitlines()) == 1
    assert counters["audit_lost"] == 10
    warnings = [one.getMessage() for one in caplog.records if "a record was not written" in one.getMessage()]
    assert len(warnings) == 1 and str(path) in warnings[0]


@pytest.mark.slow
def test_a_disk_that_hangs_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    gate = threading.Event()
    monkeypatch.setattr(auditfile, "append", lambda path, line: gate.wait(30))
    counters: dict[str, int] = {}
    file = AuditFile(counters)
    file.path = str(tmp_path / "x")
    for _ in range(5000):
        file.add(dict(RECORD))
    assert 800 < counters["audit_lost"] <= 5000 - 4096
    gate.set()
    file.close()


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_shows_and_selects(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def add(time: str, who: str, outcome: str, *keys: str, target: str = "") -> None:
        documents = [{"key": key, "before": None, "after": "0000000000000005@1.2.3.4:5"} for key in keys]
        entry = {"time": time, **RECORD, "who": who, "outcome": outcome, "documents": documents, "target": target}
        append(str(path), json.dumps(entry).encode() + b"\n", most=700)

    add("2026-11-28T08:00:00.000Z", "ci", "done", "app/a", "app/b")
    add("2026-11-29T08:00:00.000Z", "user:root", "forbidden", "db/x")
    add("2026-11-30T08:00:00.000Z", "ci", "done", target="10.0.0.2:8000")
    # A time without a zone cannot be compared with another.
    local = json.dumps({"time": "2026-11-30T08:00:00", **RECORD, "documents": []}) + "\n"
    path.write_bytes(path.read_bytes() + b'no record\n{"time": 5}\n\n[]\n' + local.encode())

    def shown(*words: str) -> list[str]:
        done = command("audit", "--file", str(path), "--json", *words)
        assert done.returncode == 0, done.stderr
        return [record["time"][8:10] for record in json.loads(done.stdout)["records"]]

    assert shown() == ["28", "29", "30"]
    assert shown("--who", "ci") == ["28", "30"]
    assert shown("--key", "app/b") == ["28"]
    assert shown("--outcome", "forbidden") == ["29"]
    assert shown("--since", "2026-11-29") == ["29", "30"]
    assert shown("--since", "2026-11-29T08:00:01Z") == ["30"]
    assert shown("--since", "2026-11-29T10:00:01+02:00", "--who", "ci") == ["30"]
    assert shown("--since", "999999d") == ["28", "29", "30"]
    done = command("audit", "--file", str(path))
    text = done.stdout.decode()
    assert "app/a" in text and "app/b" in text and "10.0.0.2:8000" in text and "user:root" in text
    assert b"5 lines are no records" in done.stderr
    wrong = command("audit", "--file", str(path), "--since", "yesterday")
    assert wrong.returncode == 2 and b"expected a time such as" in wrong.stderr
    none = command("audit", "--file", str(tmp_path / "none"))
    assert none.returncode == 1 and b"expected an audit file, got none" in none.stderr
    (tmp_path / "agent.yml").write_text("node: {addr: 198.18.0.11}\nallow_insecure: true\n")
    unset = command("audit", "--config", str(tmp_path / "agent.yml"))
    assert unset.returncode == 2 and b"expected api.audit_file" in unset.stderr
    (tmp_path / "agent.yml").write_text(
        f"node: {{addr: 198.18.0.11}}\nallow_insecure: true\napi: {{audit_file: '{path}'}}\n"
    )
    assert command("audit", "--config", str(tmp_path / "agent.yml")).stdout == done.stdout
