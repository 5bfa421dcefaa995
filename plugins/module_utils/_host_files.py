# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: installs the account, release and configuration of an agent. Python 3.8 or later.

The classes and functions in this file are in the order in which a deployment uses them. After the steps in this file,
the module ``_host_run`` starts the services.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused

#: Script that compares two versions of agent.yml. The script runs in the agent's Python, because Ansible's Python on
#: the host may lack PyYAML. The script's input is a JSON list of the former agent.yml, the new agent.yml and the keys
#: to ignore. The script exits with status 0 if all keys that it does not ignore are equal.
_COMPARE = """
import json, sys, yaml

def blank(value, over):
    merged = dict(value or {})
    for key, content in over.items():
        nested = isinstance(content, dict) and isinstance(merged.get(key), dict)
        merged[key] = blank(merged[key], content) if nested else content
    return merged

former, new, over = json.load(sys.stdin)
sys.exit(blank(yaml.safe_load(former), over) != blank(yaml.safe_load(new), over))
"""
_PYTHON = "/usr/bin/python3"


def missing(host: Host, packages: dict[str, t.Any], kind: str) -> list[str]:
    """Return the packages of ``packages[kind]`` that are not installed; ``kind`` is "required" or "optional".

    The command ``packages["query"]`` prints "NAME installed" for each installed package.
    """
    wanted = packages[kind]
    if not wanted:
        return []
    there = re.findall(r"(?m)^(\S+) installed$", host.run(packages["query"] + wanted)[1])
    return [name for name in wanted if name not in there]


class Release:
    """The release that a host should run. A release is a directory in ``root/releases``, and the link ``root/current``
    leads to the release that runs.
    """

    def __init__(self, wanted: dict[str, t.Any]) -> None:
        self.root = wanted["root"]
        self.releases = os.path.join(self.root, "releases")
        self.current = os.path.join(self.root, "current")
        self.program = os.path.join(self.current, "bin", "xdp-gossip")
        self.directory = os.path.join(self.releases, wanted["name"])
        self._command = wanted["command"]
        self._links = wanted.get("links") or {}
        self._keep = max(1, wanted["keep"])

    @property
    def present(self) -> bool:
        """Return whether the release is completely unpacked on the host."""
        return os.path.exists(os.path.join(self.directory, "VERSION"))

    def install(self, host: Host) -> bool:
        """Set the link ``root/current`` to this release. Returns whether the link ``root/current`` was created or
        changed.

        Raises ``Refused`` if the release is not present, except in check mode.
        """
        for path in (self.root, self.releases):
            host.directory(path, "root", "0755")
        if not self.present:
            if not host.check:
                raise Refused("%s: expected a release, found none" % self.directory)
            host.note(self.directory)
        self._compile(host)
        changed = host.link(self.current, self.directory)
        host.link(self._command, self.program)
        for path, target in sorted(self._links.items()):
            # An older release may not contain the file to which the link would lead.
            if os.path.exists(os.path.join(self.directory, target)):
                host.parents(path)
                host.link(path, os.path.join(self.current, target))
        return changed

    def _compile(self, host: Host) -> None:
        """Compile the modules of the agent that have no byte code for the host's Python.

        A new release already has byte code. If an upgrade of the host's distribution brings another Python, the byte
        code of the releases is for the former Python, and the agent's user has no permission to write new byte code.
        The agent would then compile all modules at each start.
        """
        agent = os.path.join(self.directory, "agent")
        version = re.search(r"python(\d)\.(\d+)$", os.path.realpath(_PYTHON))
        if version is None:
            return
        ending = ".cpython-%s%s.pyc" % version.groups()
        for folder, dummy, names in os.walk(agent):
            for name in names:
                compiled = os.path.join(folder, "__pycache__", name[: -len(".py")] + ending)
                if name.endswith(".py") and not os.path.exists(compiled):
                    if not host.check:
                        host.must([_PYTHON, "-I", "-m", "compileall", "-q", agent])
                    host.note("%s (byte code of Python %s.%s)" % ((agent,) + version.groups()))
                    return

    def surplus(self, foreseen: bool) -> list[str]:
        """Return the directories of the releases that should be removed, sorted.

        ``keep`` releases stay in total: the current release and the releases that were installed most recently. With
        ``foreseen`` (check mode), the method treats the release of this object as the current release.
        """
        if not os.path.isdir(self.releases):
            return []
        kept = self.directory if foreseen else os.path.realpath(self.current)
        found = [
            entry for entry in os.scandir(self.releases) if entry.is_dir(follow_symlinks=False) and entry.path != kept
        ]
        found.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_ctime, reverse=True)
        return sorted(entry.path for entry in found[self._keep - 1 :])


def account(host: Host, wanted: dict[str, str]) -> None:
    """Create or change the user and the group under which the agent runs. Raises ``Refused``."""
    user, group = wanted["user"], wanted["group"]
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        gid = -1
        if not host.check:
            host.must(["groupadd", "--system", group])
            gid = grp.getgrnam(group).gr_gid
        host.note("group %s" % group)
    asked = (gid, wanted["comment"], wanted["home"], wanted["shell"])
    settings = ["--gid", group, "--comment", asked[1], "--shell", asked[3]]
    try:
        entry = pwd.getpwnam(user)
        command = ["usermod", "--home", asked[2]] + settings
        if (entry.pw_gid, entry.pw_gecos, entry.pw_dir, entry.pw_shell) == asked:
            return
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--home-dir", asked[2]] + settings
    if not host.check:
        host.must(command + [user])
    host.note("user %s" % user)


class Configuration:
    """The configuration directory with secrets, templates and ``agent.yml``, which refers to the secrets and
    templates.
    """

    def __init__(
        self,
        host: Host,
        release: Release,
        wanted: dict[str, t.Any],
        secrets: list[dict[str, str]],
        owner: dict[str, str],
    ) -> None:
        self._host, self._release, self._wanted = host, release, wanted
        self._user, self._group = owner["user"], owner["group"]
        self._secrets = secrets
        self.directory = wanted["directory"]
        self.path = os.path.join(self.directory, "agent.yml")
        self._templates = os.path.join(self.directory, "templates")
        #: Whether the written files require a restart of the agent, or only a reload of ``agent.yml``.
        self.restart = self.reload = False

    def write(self) -> None:
        """Write all files, then remove the files of secrets and templates that are no longer configured. Raises
        ``Refused``.
        """
        host, group = self._host, self._group
        names = [secret["name"] for secret in self._secrets]
        folders = [self.directory]
        folders += sorted(
            {os.path.join(self.directory, os.path.dirname(name)) for name in names if os.path.dirname(name)}
        )
        made = [host.directory(path, group, "0750") for path in folders]
        if any(made) and host.check:
            return  # in check mode on a new host, the directory does not exist
        for secret in self._secrets:
            path = os.path.join(self.directory, secret["name"])
            text = secret["content"].strip() + "\n"
            # Users of the API's socket are members of the agent's group, and must not read the secrets. The loader runs
            # as root without the capability to read the files of others, so the group is root's.
            written = host.file(path, text, "root", "0440", secret=True, owner=self._user)
            if secret.get("reload"):
                self.reload |= written
            else:
                self.restart |= written
        self._write_templates()
        self._write_settings()
        # Remove files only after the new agent.yml is written, because the old agent.yml may still refer to these
        # files.
        for path in self._unnamed(names):
            host.remove(path)

    def reloadable(self, paths: t.Iterable[str]) -> bool:
        """Return whether all of these files are ``agent.yml`` and secrets that a running agent reloads."""
        names = [os.path.join(self.directory, secret["name"]) for secret in self._secrets if secret.get("reload")]
        return set(paths) <= {self.path, *names}

    def _write_templates(self) -> None:
        texts = self._wanted["templates"]
        if not texts or (self._host.directory(self._templates, self._group, "0750") and self._host.check):
            return
        for name in sorted(texts):
            path = os.path.join(self._templates, name + ".j2")
            self.restart |= self._host.file(path, texts[name], self._group, "0640")

    def _write_settings(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as stream:
                former = stream.read()
        except (OSError, ValueError):
            former = ""
        text = self._wanted["content"]
        validate = [self._release.program, "check-config"]
        if self._host.file(self.path, text, self._group, "0640", validate=validate):
            question = json.dumps([former, text, self._wanted["reloadable"]])
            status = self._host.run([_PYTHON, "-I", "-c", _COMPARE], data=question)[0]
            # If the comparison fails, restart the agent, because a restart applies any change.
            self.reload, self.restart = True, self.restart or status != 0

    def _unnamed(self, names: list[str]) -> list[str]:
        keys = os.path.join(self.directory, "keys")
        owned = [os.path.join(self.directory, name) for name in self._wanted["secret_names"]]
        owned += _files(keys)
        named = {os.path.join(self.directory, name) for name in names}
        gone = [path for path in owned if path not in named and os.path.lexists(path)]
        if not self._wanted["has_templates"]:
            return gone + [self._templates]
        listed = {os.path.join(self._templates, name + ".j2") for name in self._wanted["templates"]}
        listed.update(self._wanted["template_sources"])
        return gone + [path for path in _files(self._templates) if path not in listed]


def _files(directory: str) -> list[str]:
    return sorted(os.path.join(top, name) for top, _dirs, names in os.walk(directory) for name in names)
