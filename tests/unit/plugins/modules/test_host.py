# SPDX-License-Identifier: MIT
"""xdp_gossip_host, on a host of a few directories whose systemd is a script that writes down what it is told."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Unanswered
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_units import newer
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_module import run_module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")

#: Started and reloaded "now", by the clock that it is compared with.
SYSTEMCTL = """#!%s -IS
import json
import sys
import time
place = %r
verb, words = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith("--")]
with open(place) as stream:
    state = json.load(stream)
unit = state["units"].setdefault(words[0], {"active": False, "enabled": False, "since": 0}) if words else {}
if verb == "show":
    print("LoadState=loaded\\nActiveState=%%s" %% ("active" if unit["active"] else "inactive"))
    print("UnitFileState=%%s" %% ("enabled" if unit["enabled"] else "disabled"))
    print("NeedDaemonReload=no\\nStateChangeTimestampMonotonic=%%d" %% unit["since"])
else:
    state["told"].append(" ".join([verb] + words))
    if words and words[0] in state["broken"] and verb in ("start", "restart", "reload"):
        sys.exit("broken")
    if verb in ("start", "restart", "reload"):
        unit.update(active=True, since=int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6))
    elif verb in ("enable", "disable"):
        unit["enabled"] = verb == "enable"
    elif verb == "stop":
        unit["active"] = False
    with open(place, "w") as stream:
        json.dump(state, stream)
"""
PROGRAM = """#!/bin/sh
case "$1 $2" in
    check-config*) ! grep no_such_key "$2" ;;
    "dataplane status") cat %(answer)s; exit $(cat %(status)s) ;;
    "dataplane down") echo down >> %(answer)s.down ;;
esac
"""
SETTINGS = "node: {name: %s}\nseeds: []\namount: %d\n"
SECRET = "a-secret-that-is-long-enough"
UNITS = ("xdp-gossip-dataplane.service", "xdp-gossip-dataplane.path", "xdp-gossip-dataplane-again.service")


class Lab:
    """Directories, a systemd and a release of a test."""

    def __init__(self, place) -> None:
        self.place = place
        (place / "systemd").mkdir()
        (place / "programs").mkdir()
        self._write("programs/systemctl", SYSTEMCTL % (sys.executable, str(place / "state.json")))
        self._write("programs/journalctl", "#!/bin/sh\necho what the journal says\n")
        self.state = {"units": {}, "told": [], "broken": []}
        self.answer(0, {"up": True, "agent_needs": []})
        self.release("1-aa")
        user = pwd.getpwnam("root")
        agent = {"path": str(place / "systemd/xdp-gossip.service"), "content": "[Service]\nX=@CAPABILITIES@\n"}
        self.options: dict[str, t.Any] = {
            "packages": {"query": ["echo", "a installed"], "required": [], "optional": []},
            "account": {
                "user": "root",
                "group": grp.getgrgid(user.pw_gid).gr_name,
                "comment": user.pw_gecos,
                "home": user.pw_dir,
                "shell": user.pw_shell,
            },
            "release": {
                "root": str(place / "opt"),
                "name": "1-aa",
                "command": str(place / "command"),
                "keep": 2,
                "links": {str(place / "share/man1/page.1"): "share/page.1", str(place / "share/none"): "share/none"},
            },
            "configuration": {
                "directory": str(place / "etc"),
                "content": SETTINGS % ("one", 4),
                "reloadable": {"seeds": None, "node": {"name": None}},
                "secret_names": ["secret.key", "api.token"],
            },
            "secrets": [{"name": "secret.key", "content": SECRET}, {"name": "keys/1", "content": SECRET + "-too"}],
            "units": {
                "agent": agent,
                "helper": {
                    "path": str(place / "systemd/helper.service"),
                    "content": "",
                    "state_directory": str(place / "f"),
                },
                "dataplane": {
                    "wanted": True,
                    "needed": False,
                    "paths": [str(place / "systemd" / name) for name in UNITS],
                    "directory": str(place / "run"),
                },
            },
            "gate": {"socket": str(place / "api.sock"), "version": "1", "above": -1, "others": 0},
            "snapshot": str(place / "opt/rollback"),
        }

    def _write(self, name: str, text: str) -> None:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def release(self, name: str) -> None:
        """A release on the host."""
        folder = "opt/releases/%s/" % name
        self._write(folder + "VERSION", name.partition("-")[0])
        places = {"answer": self.place / "answer", "status": self.place / "status"}
        self._write(folder + "bin/xdp-gossip", PROGRAM % places)
        for unit in UNITS:
            self._write(folder + "systemd/" + unit, "[Unit]\nDescription=%s\n" % unit)

    def answer(self, status: int, answer: dict[str, t.Any]) -> None:
        """What the loader says of the data plane."""
        (self.place / "answer").write_text(json.dumps(answer))
        (self.place / "status").write_text(str(status))

    def run(self, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """Run the module; ``told`` is what systemd was told."""
        self.state["told"] = []
        (self.place / "state.json").write_text(json.dumps(self.state))
        result = run_module("host", dict(self.options, **options), check=check, diff=True)
        self.state = json.loads((self.place / "state.json").read_text())
        return dict(result, told=self.state["told"])

    def files(self) -> dict[str, bytes]:
        """Everything below the directory, but for what the test's own programs write."""
        found = [path for path in self.place.rglob("*") if path.is_file() and path.name != "state.json"]
        return {str(path): path.read_bytes() for path in found}


@pytest.fixture(name="lab")
def fixture_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path / "programs", os.environ["PATH"]))
    return Lab(tmp_path)


def changed(lab: Lab, result: dict[str, t.Any]) -> list[str]:
    return [line.replace(str(lab.place) + "/", "") for line in result["changes"]]


def test_a_blank_host_gets_everything_and_a_second_run_changes_nothing(lab):
    first = lab.run()
    assert first["rc"] == 0 and first["done"], first
    assert changed(lab, first) == [
        "opt/current",
        "command",
        "etc",
        "etc/keys",
        "etc/secret.key",
        "etc/keys/1",
        "etc/agent.yml",
        *("systemd/" + name for name in UNITS),
        "xdp-gossip-dataplane.service (started)",
        "xdp-gossip-dataplane.service (enabled)",
        "xdp-gossip-dataplane.path (started)",
        "systemd/xdp-gossip.service",
        "xdp-gossip.service (restarted)",
        "xdp-gossip.service (enabled)",
    ]
    assert [told for told in first["told"] if told.endswith(" xdp-gossip.service")] == [
        "restart xdp-gossip.service",
        "enable xdp-gossip.service",
    ]
    assert first["told"].index("daemon-reload") < first["told"].index("start xdp-gossip-dataplane.service")
    names = ("", "keys", "secret.key", "agent.yml")
    modes = {name: (lab.place / "etc" / name).stat().st_mode & 0o777 for name in names}
    assert modes == {"": 0o750, "keys": 0o750, "secret.key": 0o440, "agent.yml": 0o640}
    second = lab.run()
    assert (second["changed"], second["changes"], second["diff"], second["told"]) == (False, [], [], [])


def test_links_lead_to_files_of_the_current_release(lab):
    page = lab.place / "opt/releases/1-aa/share/page.1"
    page.parent.mkdir()
    page.write_text("a page")
    assert "share/man1/page.1" in changed(lab, lab.run())
    link = lab.place / "share/man1/page.1"
    assert link.read_text() == "a page" and os.readlink(str(link)) == str(lab.place / "opt/current/share/page.1")
    assert not os.path.lexists(str(lab.place / "share/none")) and lab.run()["changes"] == []


def test_another_python_gets_byte_code_and_no_restart(lab):
    lab.run()
    package = lab.place / "opt/releases/1-aa/agent/xdp_gossip"
    package.mkdir(parents=True)
    for name in ("__init__", "core"):
        (package / (name + ".py")).write_text("")
    # The former Python's, and what a command of root has left.
    (package / "__pycache__").mkdir()
    tag = subprocess.check_output(
        ["/usr/bin/python3", "-c", "import sys; print(sys.implementation.cache_tag)"], text=True
    ).strip()
    for name in ("__init__.cpython-30.pyc", "core.cpython-30.pyc", "__init__.%s.pyc" % tag):
        (package / "__pycache__" / name).write_text("")
    checked = lab.run(check=True)
    assert len(checked["changes"]) == 1 and "(byte code of Python 3." in checked["changes"][0]
    assert not (package / "__pycache__" / ("core.%s.pyc" % tag)).exists()
    done = lab.run()
    assert done["changes"] == checked["changes"] and done["told"] == []
    assert (package / "__pycache__" / ("core.%s.pyc" % tag)).stat().st_size
    assert lab.run()["changes"] == []


def test_secrets_are_written_and_not_shown(lab):
    result = lab.run()
    assert (lab.place / "etc/secret.key").read_text() == SECRET + "\n"
    assert SECRET not in result["output"] and SECRET not in lab.run(secrets=[])["output"]


def test_users_of_the_agents_group_read_the_settings_and_no_secret(lab):
    nobody = pwd.getpwnam("nobody")
    account = {
        "user": "nobody",
        "group": grp.getgrgid(nobody.pw_gid).gr_name,
        "comment": nobody.pw_gecos,
        "home": nobody.pw_dir,
        "shell": nobody.pw_shell,
    }
    lab.run(account=account)
    owners = {}
    for name in ("secret.key", "keys/1", "agent.yml"):
        found = (lab.place / "etc" / name).stat()
        owners[name] = (found.st_uid, found.st_gid, found.st_mode & 0o777)
    secret = (nobody.pw_uid, 0, 0o440)
    assert owners == {"secret.key": secret, "keys/1": secret, "agent.yml": (0, nobody.pw_gid, 0o640)}
    assert lab.run(account=account)["changes"] == []


def test_a_check_changes_nothing_and_foresees_what_is_done(lab):
    lab.run()
    for options in (
        {"configuration": dict(lab.options["configuration"], content=SETTINGS % ("two", 4))},
        {"configuration": dict(lab.options["configuration"], content=SETTINGS % ("two", 5))},
        {"secrets": [{"name": "api.token", "content": SECRET}]},
        {"release": dict(lab.options["release"], name="2-bb")},
    ):
        lab.release("2-bb")
        before = lab.files()
        checked = lab.run(check=True, **options)
        assert checked["changed"] and checked["told"] == [] and lab.files() == before
        done = lab.run(**options)
        # What a reload of the data plane follows from is written first.
        assert [line for line in done["changes"] if "dataplane" not in line] == checked["changes"]
        assert done["diff"][:1] == checked["diff"][:1]


def test_a_check_of_a_blank_host(lab):
    before = lab.files()
    checked = lab.run(check=True, release=dict(lab.options["release"], name="9-ff"))
    assert checked["rc"] == 0 and checked["release_missing"] and lab.files() == before
    assert changed(lab, checked) == [
        "opt/releases/9-ff",
        "opt/current",
        "command",
        "etc",
        "etc/keys",
        "systemd/xdp-gossip.service",
    ]


@pytest.mark.parametrize(
    ("name", "amount", "verb"), [("two", 4, "reload"), ("one", 5, "restart"), ("two", 5, "restart")]
)
def test_a_change_is_taken_over_by_exactly_one_reload_or_restart(lab, name, amount, verb):
    lab.run()
    result = lab.run(configuration=dict(lab.options["configuration"], content=SETTINGS % (name, amount)))
    assert [told for told in result["told"] if told.endswith(" xdp-gossip.service")] == [verb + " xdp-gossip.service"]
    # The loader reads the same file.
    assert result["told"][0] == "reload xdp-gossip-dataplane.service"


def test_a_new_secret_is_a_restart_even_beside_a_reload(lab):
    lab.run()
    result = lab.run(
        configuration=dict(lab.options["configuration"], content=SETTINGS % ("two", 4)),
        secrets=[{"name": "secret.key", "content": SECRET[::-1]}],
    )
    assert [told for told in result["told"] if told.endswith(" xdp-gossip.service")] == ["restart xdp-gossip.service"]
    assert "etc/keys/1 (removed)" in changed(lab, result)
    assert not (lab.place / "etc/keys/1").exists()


def reloaded(lab: Lab, text: str) -> list[dict[str, t.Any]]:
    """The secret of the lab with another content, which a running agent reads again when it is reloaded."""
    return [dict(secret, content=text, reload=True) for secret in lab.options["secrets"]]


def agents_own(result: dict[str, t.Any]) -> list[str]:
    return [told for told in result["told"] if told.endswith(" xdp-gossip.service")]


def test_a_secret_that_the_agent_reads_again_is_a_reload(lab):
    lab.run(secrets=reloaded(lab, SECRET))
    result = lab.run(secrets=reloaded(lab, SECRET[::-1]))
    assert agents_own(result) == ["reload xdp-gossip.service"]
    # Beside a change that needs a restart it is a restart.
    content = SETTINGS % ("one", 9)
    result = lab.run(secrets=reloaded(lab, SECRET), configuration=dict(lab.options["configuration"], content=content))
    assert agents_own(result) == ["restart xdp-gossip.service"]


@pytest.mark.parametrize(
    ("answer", "verb"),
    [
        ({"problems": [], "restart": [], "reload": ["keys"]}, "reload"),
        ({"problems": [], "restart": ["amount"], "reload": ["keys"]}, "restart"),
        ({"problems": ["x"], "restart": [], "reload": []}, "restart"),
        ({}, "restart"),
        (None, "restart"),
    ],
)
def test_what_an_interrupted_run_left_is_reloaded_if_the_agent_says_so(lab, monkeypatch, answer, verb):
    def asked(socket: str, question: str) -> dict[str, t.Any]:
        assert question in ("/v1/configuration", "/v1/status")
        if answer is None or question == "/v1/status":
            raise Unanswered("nobody")
        return answer

    monkeypatch.setattr("ansible_collections.xdp_gossip.fleet.plugins.modules.xdp_gossip_host.ask", asked)
    secrets = reloaded(lab, SECRET)
    lab.run(secrets=secrets)
    for name, expected in (("etc/secret.key", verb), ("etc/other", "restart")):
        (lab.place / name).touch()
        late = time.time() + 5
        os.utime(str(lab.place / name), (late, late))
        assert agents_own(lab.run(secrets=secrets)) == [expected + " xdp-gossip.service"], name
        os.utime(str(lab.place / name), (0, 0))


def test_only_reloads(lab):
    """Before anything is written, a change that needs a restart is refused; an agent that is stopped stays so."""
    only = {"reload_only": True, "parts": ["configure"]}
    secrets = reloaded(lab, SECRET)
    lab.run(secrets=secrets)
    before = lab.files()
    for options in (
        {"configuration": dict(lab.options["configuration"], content=SETTINGS % ("one", 5))},
        {"secrets": [dict(one, reload=False) for one in reloaded(lab, SECRET[::-1])]},
    ):
        result = (
            lab.run(check=True, **dict(only, secrets=secrets), **options)
            if "secrets" not in options
            else lab.run(check=True, **only, **options)
        )
        assert result["rc"] == 1 and "Run playbook deploy first" in result["msg"] and lab.files() == before
    result = lab.run(secrets=reloaded(lab, SECRET[::-1]), **only)
    assert result["told"] == ["reload xdp-gossip.service"]
    late = time.time() + 5
    os.utime(str(lab.place / "etc/secret.key"), (late, late))
    assert lab.run(secrets=reloaded(lab, SECRET[::-1]), **only)["told"] == ["reload xdp-gossip.service"]
    lab.state["units"]["xdp-gossip.service"]["active"] = False
    assert lab.run(secrets=secrets, **only)["told"] == []


def test_a_configuration_that_is_refused_leaves_the_old_one_and_the_agent_alone(lab):
    lab.run()
    before = lab.files()
    result = lab.run(configuration=dict(lab.options["configuration"], content="no_such_key: 1\n"))
    assert result["rc"] == 1 and "no_such_key" in result["msg"] and "check-config" in result["msg"]
    assert (result["changed"], result["changes"], result["told"]) == (False, [], [])
    assert lab.files() == before


def test_what_an_interrupted_run_left_is_applied(lab):
    lab.run()
    for name in ("etc/agent.yml", "etc/keys/1", "systemd/xdp-gossip.service"):
        late = time.time() + 5
        os.utime(str(lab.place / name), (late, late))
        assert "restart xdp-gossip.service" in lab.run()["told"], name
        os.utime(str(lab.place / name), (0, 0))
    assert lab.run()["told"] == []


def test_nothing_is_changed_while_something_is_missing(lab):
    packages = {"query": ["echo", "a installed\nb not-installed"], "required": ["a", "b"], "optional": ["c"]}
    before = lab.files()
    result = lab.run(packages=packages, proceed=False)
    assert (result["done"], result["missing"]) == (False, {"required": ["b"], "optional": ["c"]})
    assert (result["changed"], result["told"]) == (False, []) and lab.files() == before
    assert lab.run(packages=packages)["done"]
    release = dict(lab.options["release"], name="2-bb")
    assert lab.run(release=release, proceed=False)["release_missing"]
    refused = lab.run(release=release)
    assert refused["rc"] == 1 and "opt/releases/2-bb: expected a release, found none" in refused["msg"]


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        (["install"], {"opt/current", "command"}),
        (["configure"], {"etc", "etc/keys", "etc/secret.key", "etc/keys/1", "etc/agent.yml"}),
    ],
)
def test_a_part_is_that_part_alone(lab, parts, written):
    result = lab.run(parts=["install"]) if parts == ["configure"] else None
    result = lab.run(parts=parts)
    assert set(changed(lab, result)) == written and result["told"] == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"up": False, "agent_needs": ["CAP_BPF"]}, "CAP_BPF"),
        ({"up": True, "agent_needs": []}, ""),
        ({"error": {"code": "failed", "message": "libbpf.so.1: not found"}}, ""),
    ],
    ids=["refused", "allowed", "not found out"],
)
def test_the_kernel_says_which_capability_the_agent_needs(lab, answer, expected):
    """Not its version, which tells nothing where a distribution carried changes back."""
    lab.answer(0 if answer.get("up") else 3, answer)
    lab.run()
    assert (lab.place / "systemd/xdp-gossip.service").read_text() == "[Service]\nX=%s\n" % expected


def test_a_data_plane_that_must_be_had_fails_with_the_journal_of_its_loader(lab):
    lab.state["broken"] = [UNITS[0]]
    units = lab.options["units"]
    result = lab.run(units=dict(units, dataplane=dict(units["dataplane"], needed=True)))
    assert result["rc"] == 1 and "what the journal says" in result["msg"] and "dataplane to load" not in result["msg"]
    assert "expected the kernel data plane to load" in result["msg"]
    assert not [told for told in result["told"] if told.endswith(" xdp-gossip.service")]


def test_one_that_may_be_missing_is_tried_each_time_and_is_no_change(lab):
    lab.answer(3, {"up": False, "agent_needs": []})
    lab.run()
    result = lab.run()
    assert result["told"] == ["reload xdp-gossip-dataplane.service"] and result["retry"] and not result["changed"]
    lab.state["broken"] = [UNITS[0]]
    assert lab.run()["rc"] == 0


def test_a_data_plane_that_is_not_wanted_is_taken_down(lab):
    lab.run()
    (lab.place / "run").mkdir()
    units = lab.options["units"]
    unwanted = dict(units, dataplane=dict(units["dataplane"], wanted=False))
    result = lab.run(units=unwanted)
    assert (lab.place / "answer.down").read_text() == "down\n"
    assert result["told"][:3] == ["stop " + UNITS[1], "stop " + UNITS[0], "disable " + UNITS[0]]
    assert not [name for name in UNITS if (lab.place / "systemd" / name).exists()]
    assert lab.run(units=unwanted)["changes"] == []


@pytest.mark.parametrize("without", [UNITS[1:], UNITS[2:]], ids=["listener and retry", "retry"])
def test_a_release_without_a_unit_has_the_newer_ones_unit_removed(lab, without):
    """As after a downgrade: the agent's programs of another release must not go on beside it."""
    lab.run()
    lab.release("0-aa")
    for unit in without:
        (lab.place / "opt/releases/0-aa/systemd" / unit).unlink()
    result = lab.run(release=dict(lab.options["release"], name="0-aa"))
    assert result["rc"] == 0, result["msg"]
    assert {name for name in UNITS if (lab.place / "systemd" / name).exists()} == set(UNITS) - set(without)
    assert ("stop " + UNITS[1] in result["told"]) == (UNITS[1] in without)
    assert lab.run(release=dict(lab.options["release"], name="0-aa"))["changes"] == []


def test_the_helper_comes_with_templates_and_goes_with_them(lab):
    lab.run()
    units, settings = lab.options["units"], lab.options["configuration"]
    options = {
        "units": dict(units, helper=dict(units["helper"], content="[Service]\n")),
        "configuration": dict(settings, templates={"x": "{{ x }}\n"}, has_templates=True),
    }
    result = lab.run(**options)
    assert "start helper.service" in result["told"] and (lab.place / "etc/templates/x.j2").read_text() == "{{ x }}\n"
    assert lab.run(**options)["changes"] == []
    result = lab.run()
    assert "stop helper.service" in result["told"]
    assert not (lab.place / "systemd/helper.service").exists() and not (lab.place / "etc/templates").exists()


def test_an_agent_that_does_not_start_is_the_gates_to_judge_if_there_is_one(lab):
    lab.state["broken"] = ["xdp-gossip.service"]
    units = lab.options["units"]
    judged = lab.run(units=dict(units, judged=True))
    assert judged["rc"] == 0 and "restart xdp-gossip.service" in judged["start_failure"]
    alone = lab.run(units=dict(units, judged=False))
    assert alone["rc"] == 1 and "xdp-gossip.service" in alone["msg"]


def test_releases_that_are_too_many_are_told_and_the_current_one_is_none(lab):
    lab.run()
    for name in ("2-bb", "3-cc"):
        time.sleep(0.01)
        lab.release(name)
    assert lab.run()["surplus"] == [str(lab.place / "opt/releases/2-bb")]


def test_an_agent_that_does_not_answer_has_not_passed(lab):
    gate = lab.run()["gate"]
    assert not gate["passed"] and "api.sock" in gate["unmet"] and gate["status"] == {}


def test_a_directory_may_be_a_link(lab):
    (lab.place / "elsewhere").mkdir()
    (lab.place / "etc").symlink_to(lab.place / "elsewhere")
    assert lab.run()["rc"] == 0 and lab.run()["changes"] == []
    assert (lab.place / "etc").is_symlink() and (lab.place / "elsewhere").stat().st_mode & 0o777 == 0o750


def test_a_copy_of_before_is_told(lab):
    assert lab.run()["snapshot"] is False
    (lab.place / "opt/rollback").mkdir()
    assert lab.run()["snapshot"] is True


def test_numbers_and_flags_may_come_as_text(lab):
    """ansible-core 2.18 makes text of a value that is a template by itself."""
    units, gate = lab.options["units"], lab.options["gate"]
    lab.options["gate"] = dict(gate, above="-1", others="0")
    plane = dict(units["dataplane"], wanted="False", needed="False")
    lab.options["units"] = dict(units, enabled="False", dataplane=plane)
    result = lab.run(release=dict(lab.options["release"], keep="2"))
    assert result["rc"] == 0 and result["told"] == ["daemon-reload", "restart xdp-gossip.service"]


def test_what_is_newer(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    for name, moment in (("old", 1000.0), ("new", 3000.0)):
        (folder / name).write_text(name)
        os.utime(str(folder / name), (moment, moment))
    link = tmp_path / "current"
    link.symlink_to(folder)
    os.utime(str(link), (3000.0, 3000.0), follow_symlinks=False)
    assert newer([str(folder), str(link), str(tmp_path / "missing")], 2000.0) == [str(link), "%s/new" % folder]
