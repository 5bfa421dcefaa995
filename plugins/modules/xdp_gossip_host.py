#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_host
short_description: Bring a host into its state as a member of a fleet
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Compares account, release, configuration, units and what runs with what is wanted, writes what differs, and lets
    the agent take it over by exactly one start, restart or reload. All of it is one execution, so a host in order
    costs the controller hardly more than a ping.
  - Part of the role P(xdp_gossip.fleet.agent#role), which gives it what it needs. Packages and releases are brought
    by other tasks. The module says whether they are missing.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
attributes:
  diff_mode:
    details: Secrets are not shown.
options:
  parts:
    description: What is looked at. V(install) is account and release, V(configure) the configuration, V(run) the
      units and what runs.
    type: list
    elements: str
    choices: [install, configure, run]
    default: [install, configure, run]
  proceed:
    description: With V(false), nothing is changed on a host where a package or the release is missing.
    type: bool
    default: true
  packages:
    description: Distribution packages that are looked for.
    type: dict
    required: true
    suboptions:
      query:
        description: Command that prints C(NAME installed) for each of the packages given to it that is installed.
        type: list
        elements: str
        required: true
      required:
        description: Packages that have to be there.
        type: list
        elements: str
        default: []
      optional:
        description: Packages that may be missing.
        type: list
        elements: str
        default: []
  account:
    description: User and group of the agent.
    type: dict
    required: true
    suboptions:
      user:
        description: Name of the user.
        type: str
        required: true
      group:
        description: Name of the group.
        type: str
        required: true
      comment:
        description: What the user is.
        type: str
        required: true
      home:
        description: Home directory. It is not made.
        type: path
        required: true
      shell:
        description: Login shell.
        type: path
        required: true
  release:
    description: The release that is to run.
    type: dict
    required: true
    suboptions:
      root:
        description: Directory with C(releases), and C(current), which leads to one of them.
        type: path
        required: true
      name:
        description: Name of the directory in C(releases).
        type: str
        required: true
      command:
        description: Where to put a link to its program.
        type: path
        required: true
      links:
        description: Paths of further links, each with the file of the release that it leads to, if there is one.
        type: dict
        default: {}
      keep:
        description: How many releases stay.
        type: int
        required: true
  configuration:
    description: What the agent is told.
    type: dict
    required: true
    suboptions:
      directory:
        description: Directory of C(agent.yml), secrets and templates.
        type: path
        required: true
      content:
        description: Text of C(agent.yml).
        type: str
        required: true
      reloadable:
        description: Keys of C(agent.yml), nested as there, that a running agent takes over without a restart.
        type: dict
        default: {}
      secret_names:
        description: Names that secrets may have. A file that has one of them is removed when it is no longer one of
          O(secrets).
        type: list
        elements: str
        default: []
      templates:
        description: Name and text of each template that is put beside C(agent.yml).
        type: dict
        default: {}
      template_sources:
        description: Further files that templates are read from.
        type: list
        elements: path
        default: []
      has_templates:
        description: Whether there are templates at all. The directory is removed otherwise.
        type: bool
        default: false
  secrets:
    description: Files below the directory of the configuration that only root and the agent may read.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Path of the file below the directory.
        type: str
        required: true
      content:
        description: What is in it. White space at both ends is removed, and a newline is put at the end.
        type: str
        required: true
  units:
    description: The units of systemd.
    type: dict
    required: true
    suboptions:
      enabled:
        description: Whether they start with the host.
        type: bool
        default: true
      judged:
        description: Whether a gate follows, which judges an agent that does not start.
        type: bool
        default: false
      agent:
        description: The agent's own unit.
        type: dict
        required: true
        suboptions:
          path:
            description: Where its file is.
            type: path
            required: true
          content:
            description: Its text, in which C(@CAPABILITIES@) stands for what the kernel wants of the agent.
            type: str
            required: true
      helper:
        description: The helper of rendered files.
        type: dict
        required: true
        suboptions:
          path:
            description: Where the file of its unit is.
            type: path
            required: true
          content:
            description: Text of its unit. Empty takes it away.
            type: str
            required: true
          state_directory:
            description: What it remembers. Goes with it.
            type: path
            required: true
      dataplane:
        description: The kernel data plane, whose units are in the release.
        type: dict
        required: true
        suboptions:
          wanted:
            description: Whether the host is to have it if it can. It is taken away otherwise.
            type: bool
            required: true
          needed:
            description: Whether the host has to have it.
            type: bool
            required: true
          paths:
            description: Where the files of its units are, of the loader, the path unit, and the one that loads again.
            type: list
            elements: path
            required: true
          directory:
            description: Directory that is there while it is loaded.
            type: path
            required: true
  gate:
    description:
      - What must hold of the running agent, see M(xdp_gossip.fleet.xdp_gossip_gate). It is asked once.
      - Whether it holds is in RV(gate).
    type: dict
    required: true
    suboptions:
      socket:
        description: Unix socket of the agent.
        type: path
        required: true
      version:
        description: Version that the agent must have.
        type: str
        required: true
      above:
        description: The agent's incarnation must be later than this one, V(-1) for any.
        type: int
        default: -1
      others:
        description: How many other members the agent must see alive.
        type: int
        default: 0
  snapshot:
    description: Directory with a copy of what was there before a deployment. Whether there is one is in RV(snapshot).
    type: path
    required: true
"""

EXAMPLES = r"""
# Use the role, which has a value for each option.
- name: Install, configure and run the agent
  ansible.builtin.include_role:
    name: xdp_gossip.fleet.agent
"""

RETURN = r"""
changes:
  description: What was changed, in order, one line each.
  returned: always
  type: list
  elements: str
  sample: ["/etc/xdp-gossip/agent.yml", "xdp-gossip.service (reloaded)"]
missing:
  description: Packages that are not installed, V(required) and V(optional) ones.
  returned: success
  type: dict
  sample: {"required": [], "optional": ["python3-bpfcc"]}
release_missing:
  description: Whether the release has to be brought.
  returned: success
  type: bool
done:
  description: Whether the host is what it is to be. If not, packages or the release have to be brought first.
  returned: success
  type: bool
retry:
  description: Whether the kernel data plane is wanted and not up.
  returned: success
  type: bool
surplus:
  description: Releases on the host that are too many. They are not removed before a gate has passed.
  returned: success
  type: list
  elements: str
  sample: []
snapshot:
  description: Whether there is a copy of what was before a deployment.
  returned: success
  type: bool
start_failure:
  description: Why the agent did not start, if a gate is to judge it.
  returned: success
  type: str
  sample: ""
gate:
  description: Whether what must hold of the agent does, what does not, its status, how many others it sees alive,
    and names of up to 20.
  returned: success
  type: dict
  sample: {"passed": true, "unmet": "", "status": {"state": "running"}, "others": 1, "alive": ["host2"]}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Gate
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_files import (
    Configuration,
    Release,
    account,
    missing,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_run import Agent, Dataplane, provide_helper


def _required(kind: str, **other: t.Any) -> dict[str, t.Any]:
    return dict({"type": kind, "required": True}, **other)


def _suboptions(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return _required("dict", options=options)


PARTS = ["install", "configure", "run"]
_TEXTS = {"type": "list", "elements": "str", "default": []}
OPTIONS = {
    "parts": {"type": "list", "elements": "str", "choices": PARTS, "default": PARTS},
    "proceed": {"type": "bool", "default": True},
    "packages": _suboptions({"query": _required("list", elements="str"), "required": _TEXTS, "optional": _TEXTS}),
    "account": _suboptions(
        {
            "user": _required("str"),
            "group": _required("str"),
            "comment": _required("str"),
            "home": _required("path"),
            "shell": _required("path"),
        }
    ),
    "release": _suboptions(
        {
            "root": _required("path"),
            "name": _required("str"),
            "command": _required("path"),
            "links": {"type": "dict", "default": {}},
            "keep": _required("int"),
        }
    ),
    "configuration": _suboptions(
        {
            "directory": _required("path"),
            "content": _required("str"),
            "reloadable": {"type": "dict", "default": {}},
            "secret_names": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "templates": {"type": "dict", "default": {}},
            "template_sources": {"type": "list", "elements": "path", "default": []},
            "has_templates": {"type": "bool", "default": False},
        }
    ),
    "secrets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {"name": _required("str"), "content": _required("str", no_log=True)},
    },
    "units": _suboptions(
        {
            "enabled": {"type": "bool", "default": True},
            "judged": {"type": "bool", "default": False},
            "agent": _suboptions({"path": _required("path"), "content": _required("str")}),
            "helper": _suboptions(
                {"path": _required("path"), "content": _required("str"), "state_directory": _required("path")}
            ),
            "dataplane": _suboptions(
                {
                    "wanted": _required("bool"),
                    "needed": _required("bool"),
                    "paths": _required("list", elements="path"),
                    "directory": _required("path"),
                }
            ),
        }
    ),
    "gate": _suboptions(
        {
            "socket": _required("path"),
            "version": _required("str"),
            "above": {"type": "int", "default": -1},
            "others": {"type": "int", "default": 0},
        }
    ),
    "snapshot": _required("path"),
}


class Deployment:
    """All of it, in the order in which one part needs the other."""

    def __init__(self, host: Host, options: dict[str, t.Any]) -> None:
        self._host, self._options = host, options
        self._parts, units = options["parts"], options["units"]
        self._release = Release(options["release"])
        group = options["account"]["group"]
        self._configuration = Configuration(host, self._release, options["configuration"], options["secrets"], group)
        self._dataplane = Dataplane(host, self._release, self._configuration, units["dataplane"])
        self._agent = Agent(host, units["agent"])

    def run(self) -> dict[str, t.Any]:
        """Look at the host, change it, and tell what it is. Raises ``Refused``."""
        lacking: dict[str, list[str]] = {"required": [], "optional": []}
        release_missing = "install" in self._parts and not self._release.present
        if "install" in self._parts:
            lacking = {kind: missing(self._host, self._options["packages"], kind) for kind in lacking}
        # A check says what would be done further on, too.
        stopped = not self._options["proceed"] and bool(release_missing or lacking["required"] or lacking["optional"])
        if not stopped or self._host.check:
            self._change()
        foreseen = self._host.check and "install" in self._parts
        return {
            "missing": lacking,
            "release_missing": release_missing,
            "done": not stopped,
            "retry": self._dataplane.down,
            "surplus": self._release.surplus(foreseen) if "run" in self._parts else [],
            "snapshot": os.path.isdir(self._options["snapshot"]),
            "start_failure": self._agent.failed,
            "gate": self._look(),
        }

    def _change(self) -> None:
        parts, units, restart = self._parts, self._options["units"], False
        configuration, judged = self._configuration, units["judged"] and "run" in self._parts
        if "install" in parts:
            account(self._host, self._options["account"])
            restart = self._release.install(self._host)
        if "configure" in parts:
            configuration.write()
        if "run" in parts:
            self._dataplane.provide(units["enabled"])
            provide_helper(self._host, self._release, configuration, units["helper"], units["enabled"])
            restart |= self._agent.write(self._dataplane.capabilities)
        restart |= configuration.restart or self._dataplane.restart
        self._agent.apply(restart, configuration.reload, judged)
        if "run" in parts:
            files = [configuration.directory, self._release.current]
            self._agent.run(files, restart or configuration.reload, units["enabled"], judged)

    def _look(self) -> dict[str, t.Any]:
        gate = Gate(self._options["gate"])
        if gate.runs():
            gate.sees()
        return gate.told()


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    host = Host(module)
    try:
        found = Deployment(host, module.params).run()
    except Refused as refused:
        module.fail_json(msg=str(refused), changes=host.changes, changed=bool(host.changes))
    module.exit_json(changed=bool(host.changes), changes=host.changes, diff=host.diffs, **found)


if __name__ == "__main__":
    main()
