# SPDX-License-Identifier: MIT
"""Files of one service: all of them are put in place, or none, with one validation and one reload."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
import yaml

from xdp_gossip.config.reader import ConfigError
from xdp_gossip.config.templates import ServiceConfig, TemplateConfig, load_for_helper
from xdp_gossip.templates.helper.apply import Result, apply_together
from xdp_gossip.templates.helper.own import Own

USER = pwd.getpwuid(os.getuid()).pw_name
NAMES = ("a.conf", "b.conf", "c.conf")


class Service:
    """Three files, and commands that note what they found in place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.etc.mkdir()
        self.log = directory / "log"

    def command(self, name: str, last: str = "") -> tuple[str, ...]:
        path = self.directory / name
        path.write_text(f'#!/bin/sh\necho "{name}: $(cat {self.etc}/*.conf | tr "\\n" " ")" >> "{self.log}"\n{last}\n')
        path.chmod(0o755)
        return (str(path),)

    def apply(self, *contents: str, repair: bool = False, checks: dict[str, Any] | None = None, **more: Any) -> Any:
        commands = {name: more[name] if name in more else self.command(name) for name in ("validate", "reload")}
        service = ServiceConfig("site", user=USER, timeout=5.0, **commands)
        files = []
        for name, content in zip(NAMES, contents):
            check = (checks or {}).get(name, {})
            template = TemplateConfig(name, "/s", str(self.etc / name), user=USER, service=service, **check)
            files.append((template, f"{content}\n".encode()))
        return apply_together(files, service, Own(str(self.directory / "own")), repair=repair)

    def said(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.strip() for line in lines]

    def content(self) -> dict[str, str]:
        return {path.name: path.read_text().strip() for path in self.etc.iterdir()}


@pytest.fixture(name="service")
def fixture_service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_all_are_in_place_before_one_validation_and_one_reload(service: Service) -> None:
    assert service.apply("1", "2", "3") == [Result("applied", changed=True)] * 3
    assert service.said() == ["validate: 1 2 3", "reload: 1 2 3"]
    # Those alone that change; and nothing runs when none does.
    assert [result.changed for result in service.apply("1", "20", "3")] == [False, True, False]
    assert service.said() == ["validate: 1 20 3", "reload: 1 20 3"]
    assert service.apply("1", "20", "3") == [Result("applied")] * 3 and service.said() == []
    assert sorted(service.content()) == list(NAMES)


@pytest.mark.parametrize("stage", ["validation", "reload"])
def test_all_come_back_when_the_service_will_not_run_with_them(service: Service, stage: str) -> None:
    service.apply("1", "2", "3")
    service.said()
    name = {"validation": "validate", "reload": "reload"}[stage]
    results = service.apply("1", "20", "30", **{name: service.command(name, f'! grep -q 30 "{service.etc}/c.conf"')})
    assert [result.state for result in results] == ["applied", "refused", "refused"]
    assert {result.stage for result in results[1:]} == {stage} and "exit code 1" in results[1].error
    assert service.content() == dict(zip(NAMES, "123"))
    again = [] if stage == "validation" else ["reload: 1 20 30", "reload: 1 2 3"]
    assert service.said() == ["validate: 1 20 30", *again]


def test_one_file_that_is_refused_keeps_all_others_back(service: Service) -> None:
    service.apply("1", "2", "3")
    service.said()
    check = {"b.conf": {"validate": ("/bin/grep", "-q", "2", "{file}")}}
    results = service.apply("10", "bad", "30", checks=check)
    assert [result.state for result in results] == ["refused"] * 3
    assert "together with b.conf" in results[0].error and "exit code 1" in results[1].error
    assert service.content() == dict(zip(NAMES, "123")) and service.said() == []


def test_a_file_that_cannot_be_replaced_keeps_all_others_back(service: Service) -> None:
    (service.etc / "c.conf").symlink_to("/nowhere")
    results = service.apply("1", "2", "3")
    assert [result.state for result in results] == ["refused"] * 3 and "a symbolic link" in results[0].error
    assert os.listdir(service.etc) == ["c.conf"] and service.said() == []


def test_what_was_cut_off_is_brought_to_its_end_or_back(service: Service) -> None:
    service.apply("1", "2", "3")
    service.said()
    for ends in ("1 2 3", "10 20 3"):
        pid = os.fork()
        if not pid:
            try:
                service.apply("10", "20", "3", reload=service.command("killer", f"kill -9 {os.getpid()}"))
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
        service.said()
        fails = {}
        if ends == "1 2 3":
            fails["reload"] = service.command("reload", f'! grep -q 10 "{service.etc}/a.conf"')
        results = service.apply("10", "20", "3", **fails)
        assert service.content() == dict(zip(NAMES, ends.split())), results
        again = ["reload: 1 2 3"] if fails else []
        assert service.said() == ["validate: 10 20 3", "reload: 10 20 3", *again]


@pytest.mark.parametrize(
    ("services", "template", "reason"),
    [
        ([{"name": "x"}], {"service": "y"}, "templates[0].service: expected one of x"),
        ([{"name": "x"}, {"name": "x"}], {}, "services[1].name: expected a name that no other service has"),
        ([{}], {}, "services[0].name: expected it set"),
        ([{"name": "x", "validate": ["/bin/x", "{file}"]}], {}, "services[0].validate: expected a command without"),
        ([{"name": "x"}], {"service": "x", "reload": ["/bin/x"]}, "templates[0].reload: expected none"),
        ([{"name": "x"}], {"service": "x", "validate": ["/bin/x"]}, "templates[0].validate: expected a command with"),
        ([{"name": "x", "reload": "x"}], {}, "services[0].reload: expected"),
    ],
)
def test_services_that_cannot_be_are_named(tmp_path: Path, services: Any, template: Any, reason: str) -> None:
    config = tmp_path / "agent.yml"
    entry = {"name": "site", "source": "/s", "path": "/etc/site.conf", **template}
    config.write_text(yaml.safe_dump({"templates": [entry], "services": services}))
    config.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_for_helper(str(config), os.geteuid())
    assert any(reason in problem for problem in caught.value.problems), caught.value.problems
