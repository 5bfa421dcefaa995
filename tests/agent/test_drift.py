# SPDX-License-Identifier: MIT
"""Rendered files that were changed by hand: seen, told, left or put right, and not at full speed forever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from xdp_gossip.cli.doctor.look import Look
from xdp_gossip.cli.doctor.rendered import examine
from xdp_gossip.config.templates import TemplateConfig
from xdp_gossip.templates.drift import Pace
from xdp_gossip.templates.helper import protocol, server
from xdp_gossip.templates.helper.apply import Result, apply
from xdp_gossip.templates.helper.drift import Watch
from xdp_gossip.templates.helper.own import Own
from xdp_gossip.templates.helper_client import HelperUnreachable, watch
from xdp_gossip.templates.loop import Rendered

USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "site.conf"


def own(path: Path) -> Own:
    return Own(str(path.parent.parent / "own"))


def template(path: Path, **more: Any) -> TemplateConfig:
    return TemplateConfig("site", "/s", str(path), **{"user": USER, "timeout": 5.0, **more})


# -- what the helper sees ------------------------------------------------------------------------------------------


def test_a_file_that_was_changed_or_removed_is_seen_and_one_that_was_put_right_too(path: Path) -> None:
    look = Watch()
    kind = template(path, mode=0o640)
    assert look.look(kind, own(path)) == ""  # nothing was ever put there
    apply(kind, b"one", own(path))
    assert look.look(kind, own(path)) == ""
    path.write_bytes(b"two")  # as long as the other
    assert "the content is another" in look.look(kind, own(path))
    path.write_bytes(b"one")
    assert look.look(kind, own(path)) == ""
    path.chmod(0o666)
    assert "owner, group or mode" in look.look(kind, own(path))
    path.unlink()
    assert "was removed" in look.look(kind, own(path))
    path.symlink_to("/etc/passwd")
    assert "a symbolic link" in look.look(kind, own(path))
    path.unlink()
    assert apply(kind, b"one", own(path)) == Result("applied", changed=True)
    assert look.look(kind, own(path)) == ""
    assert "was removed" not in Watch().look(kind, own(path))  # a helper that has just started remembers
    path.write_bytes(b"x")
    assert "the content is another" in Watch().look(kind, own(path))


def test_what_the_helper_replaces_itself_is_no_drift_and_neither_is_what_it_was_refused(path: Path) -> None:
    look = Watch()
    apply(template(path), b"one", own(path))
    apply(template(path), b"two", own(path))
    assert look.look(template(path), own(path)) == ""
    assert apply(template(path, reload=("/bin/false",)), b"three", own(path)).state == "refused"
    assert path.read_bytes() == b"two" and look.look(template(path), own(path)) == ""
    # Configured otherwise since: the next rendering says what is right.
    assert look.look(template(path, mode=0o600), own(path)) == ""


def test_what_was_changed_by_hand_is_left_where_the_template_says_so(path: Path) -> None:
    kind = template(path, drift="report")
    apply(kind, b"one", own(path))
    for by_hand in (b"by hand", None):
        path.unlink() if by_hand is None else path.write_bytes(by_hand)
        assert apply(kind, b"one", own(path)).state == "drifted"
        assert path.exists() is (by_hand is not None)
    path.write_bytes(b"by hand")
    assert apply(kind, b"one", own(path), repair=True) == Result("applied", changed=True)
    path.write_bytes(b"by hand")
    assert apply(kind, b"two", own(path)) == Result("applied", changed=True)  # new content is put in place
    path.write_bytes(b"by hand")
    assert apply(template(path), b"two", own(path)) == Result("applied", changed=True)  # the default: repair


def test_a_damaged_note_is_none(path: Path) -> None:
    apply(template(path), b"one", own(path))
    (note,) = Path(own(path).path).glob("*/placed")
    note.write_bytes(b"\xff{")
    path.write_bytes(b"two")
    assert Watch().look(template(path), own(path)) == ""
    assert apply(template(path), b"one", own(path)).state == "applied"


# -- what it tells -------------------------------------------------------------------------------------------------


class Helper:
    """A helper in a thread, that looks at the files all the time."""

    def __init__(self, path: Path) -> None:
        self.socket = str(path.parent.parent / "helper.sock")
        self.config = path.parent.parent / "agent.yml"
        entry = {"name": "site", "source": "/s", "path": str(path)}
        helper = {"socket": self.socket, "user": USER, "state_dir": own(path).path}
        self.config.write_text(yaml.safe_dump({"files_helper": helper, "templates": [entry]}))
        self.config.chmod(0o600)
        self.server = server.Server(str(self.config), server.listen(self.socket))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def apply(self, content: bytes) -> Any:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(self.socket)
            client.sendall(protocol.pack({"template": "site", "size": len(content)}) + content)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return protocol.unpack(answer[4:])

    def close(self) -> None:
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(name="helper")
def fixture_helper(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helper]:
    monkeypatch.setattr(server, "LOOK_EVERY", 0.02)
    made = Helper(path)
    yield made
    made.close()


def test_the_agent_is_told_of_each_change_and_again_while_it_lasts(helper: Helper, path: Path) -> None:
    assert helper.apply(b"one")["state"] == "applied"

    def by_hand() -> None:
        path.write_bytes(b"by hand")

    async def main() -> None:
        told = watch(helper.socket)
        assert await told.__anext__() == {}
        by_hand()
        assert "the content is another" in (await told.__anext__())["site"]
        assert "the content is another" in (await told.__anext__())["site"]
        await asyncio.get_running_loop().run_in_executor(None, helper.apply, b"one")
        while drifted := await told.__anext__():
            assert list(drifted) == ["site"]
        await told.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(main(), 60))
    assert path.read_bytes() == b"one"


def test_a_second_watch_takes_the_place_of_the_first_and_the_helpers_end_is_told(helper: Helper, path: Path) -> None:
    async def main() -> None:
        first, second = watch(helper.socket), watch(helper.socket)
        assert await first.__anext__() == {}
        assert await second.__anext__() == {}
        with pytest.raises(HelperUnreachable, match="it ended"):
            await first.__anext__()
        helper.server.stop()
        with pytest.raises(HelperUnreachable, match="it ended"):
            await second.__anext__()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_watches_that_end_leave_no_connection_behind(helper: Helper, path: Path) -> None:
    async def main() -> None:
        for _ in range(3 * server.MAX_CONNECTIONS):
            told = watch(helper.socket)
            while True:
                try:
                    assert await told.__anext__() == {}
                    break
                except HelperUnreachable:  # all places are taken until the others are seen to be gone
                    await asyncio.sleep(0.02)
                    told = watch(helper.socket)
            await told.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(main(), 60))
    answer = None
    while answer is None:  # the last ones are seen to be gone at the next look
        with contextlib.suppress(OSError, ValueError):
            answer = helper.apply(b"one")
    assert answer["state"] == "applied"


# -- what the agent makes of it ------------------------------------------------------------------------------------


def test_two_programs_that_fight_over_a_file_do_so_less_and_less_often() -> None:
    pace, now, delays = Pace(), 100.0, []
    for _ in range(14):
        delays.append(pace.delay(now))
        now += delays[-1] + 2
    assert delays == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600]
    assert pace.delay(now + 1300) == 0  # it has stayed as it should


@pytest.mark.parametrize(("drift", "state"), [("repair", "pending"), ("report", "failed")])
def test_a_drift_is_one_however_often_it_is_told(path: Path, drift: str, state: str) -> None:
    async def main() -> None:
        rendered = Rendered(template(path, drift=drift))
        rendered.settle("applied")
        for _ in range(3):
            rendered.drifted("changed by hand: x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (rendered.state, rendered.drifts, rendered.due.is_set()) == (state, 1, drift == "repair")
        assert rendered.json()["drift"] == "changed by hand: x" and "changed by hand: x" in rendered.json()["error"]
        rendered.due.clear()
        rendered.drifted("")  # somebody has put it right
        assert rendered.due.is_set() and rendered.json()["drift"] == ""

    asyncio.run(main())


def test_what_was_refused_stays_refused_whatever_becomes_of_the_file(path: Path) -> None:
    async def main() -> None:
        rendered = Rendered(template(path))
        rendered.refused = b"digest"
        rendered.settle("failed", "validation: no")
        rendered.drifted("changed by hand: x")
        assert (rendered.error, rendered.drifts, rendered.due.is_set()) == ("validation: no", 1, False)

    asyncio.run(main())


def test_doctor_names_files_that_are_not_as_they_should_be() -> None:
    entry = {"name": "site", "path": "/etc/site.conf", "state": "applied", "error": "", "drift": ""}
    drifted = {**entry, "state": "failed", "error": "changed by hand: x", "drift": "changed by hand: x"}
    refused = {**entry, "state": "failed", "error": "validation: no"}
    waiting = {**entry, "state": "pending", "error": "not rendered yet", "since": "2026-01-01T00:00:00.000Z"}

    def doctor(*entries: dict[str, Any]) -> list[Any]:
        return list(examine(Look("agent.yml", rendered=list(entries))))

    assert [one.id for one in doctor(entry)] == ["rendered.ok"]
    (found,) = doctor(drifted)
    assert (found.id, found.level) == ("rendered.drifted", "warning") and "changed by hand: x" in found.text
    assert "systemctl reload" in found.remedy
    (found,) = doctor(refused)
    assert (found.id, found.level) == ("rendered.failed", "error") and "validation: no" in found.text
    (found,) = doctor(waiting)
    assert (found.id, found.level) == ("rendered.pending", "note") and "not rendered yet" in found.text
    assert doctor() == []
