# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what runs on a host of an agent's units, and in which order. Python 3.8 or later.

The kernel data plane is loaded before the agent looks for it, and the helper of rendered files runs before the agent
that asks it. The agent itself is started, restarted or reloaded by exactly one command.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_files import Configuration, Release
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_units import Unit

#: In the text of the agent's unit: the capabilities that this kernel wants of a process which uses BPF maps.
CAPABILITIES = "@CAPABILITIES@"


class Dataplane:
    """The kernel data plane, loaded by units of the release.

    It is never stopped for an upgrade: a reload replaces the programs in one step, and the kernel keeps relaying
    meanwhile.
    """

    def __init__(self, host: Host, release: Release, configuration: Configuration, wanted: dict[str, t.Any]) -> None:
        self._host, self._release, self._configuration = host, release, configuration
        self._wanted, self._needed = wanted["wanted"], wanted["needed"]
        self._paths, self._directory = wanted["paths"], wanted["directory"]
        self._loader = Unit(host, wanted["paths"][0])
        self._listener = Unit(host, wanted["paths"][1])
        self._again = Unit(host, wanted["paths"][2])
        #: Whether an agent that runs without one has to be restarted to find it.
        self.restart = False
        #: Whether it is not up although it is wanted, so that the loader is to try again.
        self.down = False
        self._needs: list[str] = []

    @property
    def capabilities(self) -> str:
        """Capabilities that the agent needs, separated by spaces. The kernel said so when the release asked it."""
        return " ".join(self._needs)

    def provide(self, enabled: bool) -> None:
        """Load it, or take it away where it is not wanted. Raises ``Refused``."""
        if not self._wanted:
            if os.path.exists(self._loader.path):
                self._remove()
            return
        # In a check of a host without this release its units are not there yet.
        if self._release.present:
            try:
                self._load(enabled)
            except Refused as refused:
                raise Refused(
                    "expected the kernel data plane to load, but %s\nJournal:\n%s" % (refused, self._loader.journal())
                ) from None

    def _load(self, enabled: bool) -> None:
        self._write_units()
        # An agent that runs without one looks for it when it starts.
        files = [self._configuration.path, self._release.current]
        renewed = started = False
        if self._loader.stale(files):
            renewed = self._try(self._loader.reload)
        if not self._loader.foreseen:
            started = self._try(self._loader.start)
            self._try(lambda: self._loader.enable(enabled))
            self.restart |= started
        # The unit wants it; but one that was up before this release came has not started anything since.
        if not self._listener.foreseen:
            self._listener.start()
        self._ask()
        # With `auto` the unit is content with a host that can have none, and so is not started again by itself. What
        # kept it from one may be gone: a package has come, another XDP program is off the interface.
        if self.down and not self._host.check and not renewed and not started:
            known = len(self._host.changes)
            self._try(self._loader.reload)
            self._ask()
            if self.down:
                del self._host.changes[known:]  # tried in vain, as each time: no change
            self.restart |= not self.down

    def _write_units(self) -> None:
        """Put the units of the release in their place."""
        written = False
        for unit in (self._loader, self._listener, self._again):
            with open(os.path.join(self._release.directory, "systemd", unit.name), encoding="utf-8") as stream:
                written |= unit.write(stream.read())
        # Systemd reads all of them at once.
        self._loader.rewritten = self._listener.rewritten = written

    def _try(self, step: t.Callable[[], bool]) -> bool:
        """A step that may fail where the agent can do without: it goes on, and tells why."""
        known = len(self._host.changes)
        try:
            return step()
        except Refused:
            if self._needed:
                raise
            del self._host.changes[known:]
            return False

    def _ask(self) -> None:
        """Whether it is up, and what the kernel wants of the agent. What cannot be found out keeps an agent from maps
        anyway."""
        if not os.path.exists(self._release.program):
            return
        status, output, _errors = self._host.run([self._release.program, "dataplane", "status", "--json"])
        self.down = status != 0
        try:
            told = json.loads(output)
        except ValueError:
            return
        self._needs = [str(name) for name in told.get("agent_needs", [])] if isinstance(told, dict) else []

    def _leave(self, unit: Unit) -> None:
        """Stop a unit that may not be there."""
        try:
            unit.stop()
        except Refused:
            pass

    def _remove(self) -> None:
        # With its unit failed these go on when that is stopped, and would put it up again.
        self._leave(self._listener)
        self._leave(self._again)
        self._loader.stop()
        self._loader.enable(False)
        # One loaded by hand, or by a unit that has failed since: its programs would outlive everything else.
        program = self._release.program
        if os.path.exists(self._directory) and os.path.exists(program) and not self._host.check:
            if "was not up" not in self._host.must([program, "dataplane", "down"]):
                self._host.note("kernel data plane (unloaded)")
        for path in self._paths:
            self._host.remove(path)
        if not self._host.check:
            self._host.must(["systemctl", "daemon-reload"])
            self._host.run(["systemctl", "reset-failed"] + [os.path.basename(path) for path in self._paths])


def provide_helper(
    host: Host, release: Release, configuration: Configuration, wanted: dict[str, t.Any], enabled: bool
) -> None:
    """Run the privileged helper of rendered files; without a unit's text, take away the one that is there.

    It goes by its own reading of ``agent.yml``, so it is restarted when that has changed. Raises ``Refused``.
    """
    unit = Unit(host, wanted["path"])
    if not wanted["content"]:
        if os.path.exists(unit.path):
            unit.stop()
            unit.enable(False)
            for path in (unit.path, unit.path + ".d", wanted["state_directory"]):
                host.remove(path)
            if not host.check:
                host.must(["systemctl", "daemon-reload"])
        return
    try:
        unit.write(wanted["content"])
        if unit.foreseen:
            return
        if unit.stale([configuration.path, release.current]):
            unit.restart()
        unit.start()
        unit.enable(enabled)
    except Refused as refused:
        raise Refused(
            "expected %s to start, as there are templates, but %s\nJournal:\n%s" % (unit.name, refused, unit.journal())
        ) from None


class Agent:
    """The agent's own unit."""

    def __init__(self, host: Host, wanted: dict[str, t.Any]) -> None:
        self._host = host
        self._content = wanted["content"]
        self.unit = Unit(host, wanted["path"])
        #: Why the agent was not started; where a gate judges it, that shows its journal.
        self.failed = ""

    def write(self, capabilities: str) -> bool:
        """Whether its unit had to be written."""
        return self.unit.write(self._content.replace(CAPABILITIES, capabilities))

    def apply(self, restart: bool, reload: bool, judged: bool) -> None:
        """Let it take over what was changed. ``judged``: a gate follows, so a failure is not the end."""
        if self.unit.foreseen or not (os.path.exists(self.unit.path) or self._host.check):
            return
        self._try(judged, self.unit.restart if restart else self.unit.reload if reload else None)

    def run(self, stale: t.Sequence[str], applied: bool, enabled: bool, judged: bool) -> None:
        """See that it runs, with all that was written, also by an earlier run that was interrupted; ``applied``: by
        this one."""
        if self.unit.foreseen:
            return
        # In a check it is as it was, whatever it was told to do.
        if not (self.failed or (applied and self._host.check)):
            self._try(judged, self.unit.restart if self.unit.stale(stale) else self.unit.start)
        self._try(judged, lambda: self.unit.enable(enabled))

    def _try(self, judged: bool, step: t.Callable[[], bool] | None) -> None:
        try:
            if step is not None:
                step()
        except Refused as refused:
            if not judged:
                raise
            self.failed = str(refused)
