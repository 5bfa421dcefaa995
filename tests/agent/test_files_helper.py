# SPDX-License-Identifier: MIT
"""The files helper: what it takes and from whom, how it replaces a file, and what it does when a command says no."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from xdp_gossip.config.reader import ConfigError
from xdp_gossip.config.templates import TemplateConfig, load_for_helper
from xdp_gossip.templates.helper import commands, protocol, server
from xdp_gossip.templates.helper.apply import Result
from xdp_gossip.templates.helper.apply import apply as exchange
from xdp_gossip.templates.helper.own import Own

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(name="etc")
def fixture_etc(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


def template(etc: Path, **more: Any) -> TemplateConfig:
    settings = {"owner": USER, "group": GROUP, "user": USER, "timeout": 5.0, **more}
    return TemplateConfig("site", str(etc.parent / "site.j2"), str(etc / "site.conf"), **settings)


def apply(kind: TemplateConfig, content: bytes) -> Result:
    """As the helper does it, with its own directory beside ``etc``."""
    return exchange(kind, content, Own(str(Path(kind.source).parent / "own")))


def names(etc: Path) -> list[str]:
    return sorted(os.listdir(etc))


# -- replacing a file ----------------------------------------------------------------------------------------------


def test_a_new_file_has_its_owner_mode_and_content(etc: Path) -> None:
    assert apply(template(etc, mode=0o604), b"one") == Result("applied", changed=True)
    status = (etc / "site.conf").stat()
    assert (etc / "site.conf").read_bytes() == b"one"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o604, os.getuid(), os.getgid())
    assert apply(template(etc, mode=0o604), b"one") == Result("applied", changed=False)
    assert names(etc) == ["site.conf"]


def test_another_mode_alone_is_a_change(etc: Path) -> None:
    apply(template(etc), b"one")
    assert apply(template(etc, mode=0o600), b"one").state == "applied"
    assert stat.S_IMODE((etc / "site.conf").stat().st_mode) == 0o600


def test_the_former_file_stays_as_a_backup(etc: Path) -> None:
    for content in (b"one", b"two", b"three"):
        apply(template(etc, backup=True), content)
    assert names(etc) == ["site.conf", "site.conf~"]
    assert (etc / "site.conf~").read_bytes() == b"two"


def test_validation_sees_the_new_file_before_it_is_in_place(etc: Path) -> None:
    check = script(etc.parent / "check", f'cat "{etc}/site.conf" "$1"; exit 7')
    (etc / "site.conf").write_bytes(b"old ")
    result = apply(template(etc, validate=(check, "{file}"), show_output=True), b"new")
    assert (result.state, result.stage) == ("refused", "validation")
    assert "ended with exit code 7" in result.error and result.output == "old new"
    assert (etc / "site.conf").read_bytes() == b"old " and names(etc) == ["site.conf"]


def test_validation_without_the_file_runs_on_what_is_in_place_and_brings_the_former_back(etc: Path) -> None:
    check = script(etc.parent / "check", f'! grep -q bad "{etc}/site.conf"')
    reload = script(etc.parent / "reload", f'cat "{etc}/site.conf" >> "{etc.parent}/reloaded"')
    kind = template(etc, validate=(check,), reload=(reload,))
    assert apply(kind, b"good").state == "applied"
    assert apply(kind, b"bad").stage == "validation"
    assert (etc / "site.conf").read_bytes() == b"good" and names(etc) == ["site.conf"]
    assert (etc.parent / "reloaded").read_bytes() == b"good"  # once: nothing had been reloaded meanwhile


def test_a_reload_that_fails_brings_the_former_file_back_and_reloads_it(etc: Path) -> None:
    text = f'cat "{etc}/site.conf" >> "{etc.parent}/log"; ! grep -q bad "{etc}/site.conf"'
    reload = script(etc.parent / "reload", text)
    kind = template(etc, reload=(reload,))
    assert apply(kind, b"good ").state == "applied"
    result = apply(kind, b"bad ")
    assert (result.state, result.stage) == ("refused", "reload") and "exit code 1" in result.error
    assert (etc / "site.conf").read_bytes() == b"good " and names(etc) == ["site.conf"]
    assert (etc.parent / "log").read_bytes() == b"good bad good "


def test_without_a_former_file_there_is_none_after_a_refusal(etc: Path) -> None:
    assert apply(template(etc, reload=("/bin/false",)), b"x").state == "refused"
    assert names(etc) == []


def test_an_exchange_that_was_cut_off_is_brought_to_its_end(etc: Path) -> None:
    """The helper was killed between the exchange and the end of the reload: equal content is not taken for done."""
    log = etc.parent / "log"
    reload = script(etc.parent / "reload", f'cat "{etc}/site.conf" >> "{log}"')
    (etc / "site.conf").write_bytes(b"new ")
    (etc / "site.conf").chmod(0o644)
    (etc / ".site.conf.xg-former").write_bytes(b"old ")
    (etc / ".site.conf.xg-tmp-0123").write_bytes(b"half")
    assert apply(template(etc, reload=(reload,)), b"new ").state == "applied"
    assert log.read_bytes() == b"new " and names(etc) == ["site.conf"]
    # And if its reload fails now, what was good before is known still.
    (etc / ".site.conf.xg-former").write_bytes(b"old ")
    assert apply(template(etc, reload=("/bin/false",)), b"new ").state == "refused"
    assert (etc / "site.conf").read_bytes() == b"old " and names(etc) == ["site.conf"]


def test_no_symbolic_link_is_followed(etc: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (etc / "site.conf").symlink_to(tmp_path / "victim")
    result = apply(template(etc), b"x")
    assert (result.state, result.stage) == ("refused", "write") and "got a symbolic link" in result.error
    (tmp_path / "other").symlink_to(etc)
    away = TemplateConfig("s", str(tmp_path / "s"), str(tmp_path / "other" / "new.conf"), user=USER)
    assert "or a symbolic link" in apply(away, b"x").error
    assert (tmp_path / "victim").read_bytes() == b"mine" and names(etc) == ["site.conf"]


def test_what_cannot_be_written_is_told_of(etc: Path) -> None:
    assert "there is no such user" in apply(template(etc, owner="no-such-user"), b"x").error
    (etc / "site.conf").mkdir()
    assert "expected a regular file" in apply(template(etc), b"x").error


# -- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("exit 3", "ended with exit code 3", ""),
        ("echo why; echo not >&2; exit 1", "ended with exit code 1", "why not"),
        ("kill -TERM $$", "was ended by SIGTERM", ""),
        ("sleep 60 & wait", "took more than 0.3 s and was killed", ""),
        ("while :; do echo flood; done", "took more than 0.3 s and was killed", "flood"),
    ],
)
def test_a_command_that_fails_says_why(tmp_path: Path, text: str, reason: str, said: str) -> None:
    with pytest.raises(commands.CommandFailed, match=reason + "$") as caught:
        commands.run([script(tmp_path / "command", text)], USER, 0.3)
    assert caught.value.said.endswith(said) and len(caught.value.said) < 2500


def test_a_command_may_leave_a_daemon_behind(tmp_path: Path) -> None:
    commands.run([script(tmp_path / "command", "sleep 2 &")], USER, 1.5)


def test_no_shell_reads_the_words_and_the_environment_is_the_helpers_own(tmp_path: Path) -> None:
    os.environ["XG_SECRET"] = "s"
    try:
        text = f'printf "%s|" "$@" > "{tmp_path}/out"; env >> "{tmp_path}/out"'
        commands.run([script(tmp_path / "command", text), "$(id)", "; rm -rf x"], USER, 5)
    finally:
        del os.environ["XG_SECRET"]
    said = (tmp_path / "out").read_text()
    assert said.startswith("$(id)|; rm -rf x|") and "XG_SECRET" not in said


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(commands.CommandFailed, match="/no/such: cannot be run: No such file"):
        commands.run(["/no/such"], USER, 1)
    with pytest.raises(commands.CommandFailed, match="user 'nobody-here': there is no such account"):
        commands.run(["/bin/true"], "nobody-here", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run a command as another user")
def test_a_command_runs_as_its_user_with_nothing_of_root(tmp_path: Path) -> None:
    with pytest.raises(commands.CommandFailed) as caught:
        commands.run([script(Path("/tmp") / f"xg-{os.getpid()}-id", "id; exit 1")], "nobody", 5)
    os.unlink(f"/tmp/xg-{os.getpid()}-id")
    assert "(nobody)" in caught.value.said and "root" not in caught.value.said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take another group")
def test_a_command_of_root_has_not_the_group_of_the_helpers_socket(tmp_path: Path) -> None:
    code = "import os, sys; from xdp_gossip.templates.helper import commands; os.setgid(65534); "
    code += "commands.run([sys.argv[1]], 'root', 5)"
    command = script(tmp_path / "make", f"id -g > {tmp_path}/id; id -G >> {tmp_path}/id")
    place = {"PYTHONPATH": str(Path(commands.__file__).parents[3])}
    subprocess.run([sys.executable, "-B", "-c", code, command], check=True, timeout=60, env=place)
    assert (tmp_path / "id").read_text().split() == ["0", "0"]


# -- the socket ----------------------------------------------------------------------------------------------------


class Helper:
    """A helper in a thread, over a configuration file."""

    def __init__(self, directory: Path, etc: Path, user: str = USER) -> None:
        self.config = directory / "agent.yml"
        self.path = directory / "helper.sock"
        self.write(etc, user)
        self._server = server.Server(str(self.config), server.listen(str(self.path)))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()

    def write(self, etc: Path, user: str = USER, **more: Any) -> None:
        found = {
            "cluster": "whatever the agent's own sections say",
            "files_helper": {"socket": str(self.path), "user": user, "state_dir": str(self.config.parent / "own")},
            "templates": [{"name": "site", "source": "/s", "path": str(etc / "site.conf")}],
            **more,
        }
        self.config.write_text(yaml.safe_dump(found))
        self.config.chmod(0o644)

    def send(self, raw: bytes, end: bool = True) -> Any:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.path))
            with contextlib.suppress(BrokenPipeError):
                client.sendall(raw)
                if end:
                    client.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return protocol.unpack(answer[4:])

    def request(self, content: bytes, **header: Any) -> Any:
        return self.send(protocol.pack({"template": "site", "size": len(content), **header}) + content)

    def close(self) -> None:
        self._server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(name="helper")
def fixture_helper(tmp_path: Path, etc: Path) -> Iterator[Helper]:
    made = Helper(tmp_path, etc)
    yield made
    made.close()


def test_a_request_of_the_agent_is_carried_out(helper: Helper, etc: Path) -> None:
    answer = helper.request(b"content")
    assert answer == {"state": "applied", "changed": True, "stage": "", "error": "", "output": ""}
    assert (etc / "site.conf").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (protocol.pack({"template": "other", "size": 1}) + b"x", "has no such template"),
        (protocol.pack({"template": "site", "size": 1, "path": "/etc/shadow"}) + b"x", "and nothing else"),
        (protocol.pack({"template": "site", "size": -1}), "expected content of at most"),
        (protocol.pack({"template": "site", "size": 1 << 40}), "expected content of at most"),
        (protocol.pack({"template": "site", "size": True}), "expected template and size"),
        (protocol.pack({"template": "site", "size": 10}) + b"short", "the connection ended before"),
        (protocol.pack({"template": ["site"], "size": 1}) + b"x", "expected template and size"),
        (protocol.pack({"template": "site", "size": 1, "repair": 1}) + b"x", "repair: expected true or false"),
        (protocol.pack({"watch": 1}), "expected template and size"),
        (protocol.pack({"watch": True, "template": "site", "size": 1}) + b"x", "expected template and size"),
        (protocol.pack({"service": "web", "sizes": {}}), "expected template and size"),
        (protocol.pack({"service": "web", "sizes": {"site": "1"}}), "expected template and size"),
        (protocol.pack({"service": "web", "sizes": {"site": 1}}) + b"x", "service: expected content for exactly"),
        (protocol.pack({"service": None, "sizes": {"site": 1}}) + b"x", "expected template and size"),
        (b"\xff\xff\xff\xff", "expected a header of at most"),
        (b"\0\0\0\x04\xff\xfe\xfd\xfc", "expected a JSON header"),
        (b"\0\0\0\x08" + b"[" * 8, "expected a JSON header"),
        (b"", "the connection ended before"),
    ],
)
def test_any_other_request_is_refused(helper: Helper, etc: Path, raw: bytes, reason: str) -> None:
    answer = helper.send(raw)
    assert (answer["state"], answer["stage"]) == ("failed", "request") and reason in answer["error"]
    assert names(etc) == []
    assert helper.request(b"and goes on")["state"] == "applied"


def test_the_templates_of_a_service_come_all_at_once_or_not_at_all(helper: Helper, etc: Path) -> None:
    entries = [{"name": name, "source": "/s", "path": str(etc / name), "service": "web"} for name in ("a", "b")]
    helper.write(etc, templates=entries, services=[{"name": "web"}])
    assert "all of its templates at once" in helper.send(protocol.pack({"template": "a", "size": 1}) + b"x")["error"]
    for sizes in ({"a": 1}, {"a": 1, "b": 1, "c": 1}):
        assert helper.send(protocol.pack({"service": "web", "sizes": sizes}) + b"xyz")["state"] == "failed"
    most = protocol.pack({"service": "web", "sizes": {"a": 1 << 40, "b": 1}})
    assert "expected content of at most" in helper.send(most)["error"]
    assert names(etc) == []
    answer = helper.send(protocol.pack({"service": "web", "sizes": {"b": 2, "a": 1}}) + b"bba")
    assert {name: result["state"] for name, result in answer["results"].items()} == {"a": "applied", "b": "applied"}
    assert ((etc / "a").read_bytes(), (etc / "b").read_bytes()) == (b"a", b"bb")


def test_only_the_agents_user_is_served(tmp_path: Path, etc: Path) -> None:
    other = "nobody" if os.geteuid() == 0 else "root"
    helper = Helper(tmp_path, etc, user=other)
    try:
        answer = helper.request(b"x")
        assert f"expected the agent's user ({other}), got user {os.geteuid()}" in answer["error"]
        helper.write(etc, user="no-such-account")
        assert "expected an account" in helper.request(b"x")["error"]
    finally:
        helper.close()
    assert names(etc) == []


def test_the_configuration_is_read_anew_and_must_be_roots_alone(helper: Helper, tmp_path: Path, etc: Path) -> None:
    helper.write(etc, templates=[])
    assert "has no such template" in helper.request(b"x")["error"]
    helper.write(etc)
    helper.config.chmod(0o666)
    assert "only root can write" in helper.request(b"x")["error"]
    helper.config.chmod(0o644)
    tmp_path.chmod(0o777)
    assert "only root can write" in helper.request(b"x")["error"]
    tmp_path.chmod(0o700)
    assert helper.request(b"x")["state"] == "applied"


@pytest.mark.slow
def test_a_silent_client_takes_no_more_than_its_place(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RECEIVE_SECONDS", 0.5)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(server.MAX_CONNECTIONS - 1)]
        for client in silent:
            client.connect(str(helper.path))
        assert helper.request(b"meanwhile")["state"] == "applied"
        for client in silent:
            client.settimeout(10)
            assert b"within 0.5 s" in client.recv(65536)


# -- the configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"path": "relative"}, "path: expected an absolute path"),
        ({"path": "/etc/../x"}, "path: expected an absolute path"),
        ({"name": "../x"}, "name: expected 1 to 64 letters"),
        ({"name": None}, "name: expected"),
        ({"mode": "4755"}, "mode: expected three octal digits"),
        ({"mode": 644}, "mode: expected"),
        ({"validate": "nginx -t"}, "validate: expected"),
        ({"validate": ["nginx", "-t"]}, "validate: expected a command with its absolute path"),
        ({"reload": ["/bin/sh", ""]}, "reload: expected a list of texts"),
        ({"timeout": 0}, "timeout: expected"),
        ({"owner": "a b"}, "owner: expected the name of an account"),
        ({"shell": True}, "shell"),
    ],
)
def test_templates_that_cannot_be_are_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    entry = {"name": "site", "source": "/s", "path": "/etc/site.conf", **change}
    config = tmp_path / "agent.yml"
    config.write_text(yaml.safe_dump({"templates": [{k: v for k, v in entry.items() if v is not None}]}))
    config.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_for_helper(str(config), os.geteuid())
    assert any(reason in problem and "templates[0]" in problem for problem in caught.value.problems)


def test_two_templates_of_one_name_or_path_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "agent.yml"
    entry = {"name": "site", "source": "/s", "path": "/etc/site.conf"}
    config.write_text(yaml.safe_dump({"templates": [entry, entry]}))
    config.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_for_helper(str(config), os.geteuid())
    assert len([problem for problem in caught.value.problems if "that no other template has" in problem]) == 2
