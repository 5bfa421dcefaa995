#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_host
short_description: Install, configure and start the agent of a host
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Compares the host's account, release, configuration, systemd units and running services with the wanted state, and
    changes the parts that differ. After the changes, the module starts, restarts or reloads the agent exactly once.
  - The comparison and all changes are one module execution, so for a host that is already in the wanted state, the
    controller needs hardly more time than for M(ansible.builtin.ping).
  - This module is part of the role P(xdp_gossip.fleet.agent#role), which sets all options. Other tasks of the role
    install packages and copy releases. The module reports which packages and releases are missing.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes
attributes:
  diff_mode:
    details: The diff does not show secrets.
options:
  parts:
    description:
      - Parts of the host that the module manages. V(install) manages the account and the release, V(configure) the
        configuration, and V(run) the systemd units and the running services.
    type: list
    elements: str
    choices: [install, configure, run]
    default: [install, configure, run]
  proceed:
    description: With O(proceed=false), the module changes nothing if a package or the release is missing on the host.
    type: bool
    default: true
  packages:
    description: Distribution packages whose presence the module checks.
    type: dict
    required: true
    suboptions:
      query:
        description:
          - Command that gets the packages as arguments and prints C(NAME installed) for each installed package.
        type: list
        elements: str
        required: true
      required:
        description: Packages that the agent needs.
        type: list
        elements: str
        default: []
      optional:
        description: Packages that the agent can use but does not need.
        type: list
        elements: str
        default: []
  account:
    description: User and group of the agent's process.
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
        description: Comment of the user in C(/etc/passwd).
        type: str
        required: true
      home:
        description: Home directory of the user. The module does not create the home directory.
        type: path
        required: true
      shell:
        description: Login shell of the user.
        type: path
        required: true
  release:
    description: The agent's release that the host should run.
    type: dict
    required: true
    suboptions:
      root:
        description: Directory that contains the directory C(releases) and the link C(current) to one release.
        type: path
        required: true
      name:
        description: Name of the release's directory in C(releases).
        type: str
        required: true
      command:
        description: Path of the link to the program of the current release.
        type: path
        required: true
      links:
        description:
          - Further links to create. Each key is the path of a link, and its value is the link's target, a file of the
            release. The module creates a link only if the release contains the target.
        type: dict
        default: {}
      keep:
        description: Number of releases that stay on the host.
        type: int
        required: true
  configuration:
    description: The agent's configuration file and templates.
    type: dict
    required: true
    suboptions:
      directory:
        description: Configuration directory, which contains C(agent.yml), secrets and templates.
        type: path
        required: true
      content:
        description: Text of C(agent.yml).
        type: str
        required: true
      reloadable:
        description: Keys of C(agent.yml), nested as in the file, that a running agent reloads without a restart.
        type: dict
        default: {}
      secret_names:
        description:
          - File names that the role uses for secrets. If a file in the configuration directory has a name in
            C(secret_names) and O(secrets) does not contain this name, the module removes the file.
        type: list
        elements: str
        default: []
      templates:
        description: Name and text of each template that the module writes to the directory C(templates).
        type: dict
        default: {}
      template_sources:
        description: Further template files on the host, which the module does not write and does not remove.
        type: list
        elements: path
        default: []
      has_templates:
        description: Whether the agent renders files from templates. If C(has_templates) is V(false), the module removes
          the directory C(templates).
        type: bool
        default: false
  secrets:
    description: Secrets to write to files in the configuration directory. Only root and the agent may read the files
      with secrets.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Path of the file, relative to the configuration directory.
        type: str
        required: true
      content:
        description: Content of the file. The module strips white space at both ends of a secret and appends a newline.
        type: str
        required: true
      reload:
        description: Whether a running agent reads the file again when it is reloaded. If not, a change of the file
          restarts the agent.
        type: bool
        default: false
  units:
    description: The systemd units of the agent.
    type: dict
    required: true
    suboptions:
      enabled:
        description: Whether systemd starts the units at boot.
        type: bool
        default: true
      judged:
        description:
          - If C(judged) is V(true), the module does not fail when the agent does not start, because a later task checks
            the agent's health. If the agent does not start, RV(start_failure) contains the reason.
        type: bool
        default: false
      agent:
        description: The agent's own unit.
        type: dict
        required: true
        suboptions:
          path:
            description: Path of the agent's unit file.
            type: path
            required: true
          content:
            description:
              - Text of the agent's unit file. The module replaces C(@CAPABILITIES@) with the capabilities that this
                kernel requires for BPF maps.
            type: str
            required: true
      helper:
        description: The privileged helper that writes the files that the agent renders.
        type: dict
        required: true
        suboptions:
          path:
            description: Path of the helper's unit file.
            type: path
            required: true
          content:
            description: Text of the helper's unit file. If the text of the helper's unit file is empty, the module
              removes the helper.
            type: str
            required: true
          state_directory:
            description: State directory of the helper. The module removes the state directory together with the helper.
            type: path
            required: true
      dataplane:
        description: The kernel data plane, whose unit files are part of the release.
        type: dict
        required: true
        suboptions:
          wanted:
            description: Whether to load the kernel data plane if the host supports it. V(false) removes it.
            type: bool
            required: true
          needed:
            description: Whether the module fails if the kernel data plane does not load.
            type: bool
            required: true
          paths:
            description:
              - Paths of the three unit files of the data plane. The first file is for the loader, the second file is
                for the path unit that waits for the agent's requests, and the third file is for the service that loads
                the data plane again.
            type: list
            elements: path
            required: true
          directory:
            description: Directory that exists while the kernel data plane is loaded.
            type: path
            required: true
  gate:
    description:
      - Conditions for the running agent, as in M(xdp_gossip.fleet.xdp_gossip_gate). The module checks these conditions
        once, and returns the outcome in RV(gate).
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
        description: The agent's incarnation must be later than C(above). V(-1) accepts any incarnation.
        type: int
        default: -1
      others:
        description: Minimum number of other members that must be alive in the agent's NodeList.
        type: int
        default: 0
  snapshot:
    description: Directory in which a deployment stores a snapshot of the host before its changes, see RV(snapshot).
    type: path
    required: true
  reload_only:
    description:
      - With O(reload_only=true), the module reloads a running agent and neither starts nor restarts an agent. If the
        changes need a restart, the module fails. Run it in check mode first, because it fails only after the files have
        been written.
    type: bool
    default: false
"""

EXAMPLES = r"""
# Use the role, which has a value for each option.
- name: Install, configure and run the agent
  ansible.builtin.include_role:
    name: xdp_gossip.fleet.agent
"""

RETURN = r"""
changes:
  description: The changes in the order in which the module makes them, one line each.
  returned: always
  type: list
  elements: str
  sample: ["/etc/xdp-gossip/agent.yml", "xdp-gossip.service (reloaded)"]
missing:
  description: Packages that are not installed, in the lists V(required) and V(optional).
  returned: success
  type: dict
  sample: {"required": [], "optional": ["python3-bpfcc"]}
release_missing:
  description: Whether the release is missing on the host and must be copied there.
  returned: success
  type: bool
done:
  description:
    - Whether the host is now in the wanted state. RV(done) is V(false) if packages or the release must be installed
      first.
  returned: success
  type: bool
retry:
  description: Whether the kernel data plane is wanted but not loaded.
  returned: success
  type: bool
surplus:
  description:
    - Directories of the releases that should be removed, because the host has more releases than C(keep) allows. A
      later task of the role removes the releases in RV(surplus) when the agent has passed its health check.
  returned: success
  type: list
  elements: str
  sample: []
snapshot:
  description: Whether the host has a snapshot from before a deployment.
  returned: success
  type: bool
start_failure:
  description: Reason why the agent did not start, if C(units.judged) is true. RV(start_failure) is empty if the agent
    started.
  returned: success
  type: str
  sample: ""
gate:
  description:
    - The outcome of O(gate). C(passed) says whether the agent fulfils all conditions. If C(passed) is V(false),
      C(unmet) names a condition that the agent does not fulfil. C(status) is the agent's status. C(others) is the
      number of other members that are alive in the agent's NodeList, and C(alive) contains up to 20 of their names.
  returned: success
  type: dict
  sample: {"passed": true, "unmet": "", "status": {"state": "running"}, "others": 1, "alive": ["host2"]}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Gate, Unanswered, ask
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
        "options": {
            "name": _required("str"),
            "content": _required("str", no_log=True),
            "reload": {"type": "bool", "default": False},
        },
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
    "reload_only": {"type": "bool", "default": False},
}


class Deployment:
    """The wanted state of the host: account, release, configuration and units. ``run`` applies the account first, then
    the release, the configuration and the units, because each part depends on the parts before it.
    """

    def __init__(self, host: Host, options: dict[str, t.Any]) -> None:
        self._host, self._options = host, options
        self._parts, units = options["parts"], options["units"]
        self._release = Release(options["release"])
        self._configuration = Configuration(
            host, self._release, options["configuration"], options["secrets"], options["account"]
        )
        self._dataplane = Dataplane(host, self._release, self._configuration, units["dataplane"])
        self._agent = Agent(host, units["agent"])

    def run(self) -> dict[str, t.Any]:
        """Compare the host with the wanted state, change it, and return the module's results. Raises ``Refused``."""
        lacking: dict[str, list[str]] = {"required": [], "optional": []}
        release_missing = "install" in self._parts and not self._release.present
        if "install" in self._parts:
            lacking = {kind: missing(self._host, self._options["packages"], kind) for kind in lacking}
        # Check mode continues here, so that check mode also predicts the changes after the installation.
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
        if self._options["reload_only"]:
            self._agent.reload_only(restart, configuration.reload, configuration.directory)
            return
        self._agent.apply(restart, configuration.reload, judged)
        if "run" in parts:
            files = [configuration.directory, self._release.current]
            applied = restart or configuration.reload
            self._agent.run(files, applied, units["enabled"], judged, self._reloads)

    def _reloads(self, changed: list[str]) -> bool:
        """Return whether a reload applies the files that an interrupted run has changed, as the agent says itself."""
        if not self._configuration.reloadable(changed):
            return False
        try:
            found = ask(self._options["gate"]["socket"], "/v1/configuration")
        except Unanswered:
            return False
        return not found.get("restart", True) and not found.get("problems", True)

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
