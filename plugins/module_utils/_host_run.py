# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: writes and starts the systemd units of an agent in the required order. Python 3.8 or
later.

The module loads the kernel data plane first, because the agent checks at its start whether the data plane is loaded.
The module starts the helper that writes rendered files before the agent, because the agent sends requests to the
helper. Exactly one command starts, restarts or reloads the agent itself.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host, Refused
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_files import Configuration, Release
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_units import Unit

#: Placeholder in the agent's unit file for the capabilities that this kernel requires for BPF maps.
CAPABILITIES = "@CAPABILITIES@"


class Dataplane:
    """The kernel data plane. The agent's release contains the systemd units that load the data plane into the kernel.

    An upgrade never stops the data plane. A reload replaces the data plane's programs atomically, so the kernel
    continues to relay packets.
    """

    def __init__(self, host: Host, release: Release, configuration: Configuration, wanted: dict[str, t.Any]) -> None:
        self._host, self._release, self._configuration = host, release, configuration
        self._wanted, self._needed = wanted["wanted"], wanted["needed"]
        self._paths, self._directory = wanted["paths"], wanted["directory"]
        self._loader = Unit(host, wanted["paths"][0])
        self._listener = Unit(host, wanted["paths"][1])
        self._again = Unit(host, wanted["paths"][2])
        #: True if the data plane was just loaded, so that the agent must be restarted.
        self.restart = False
        #: Whether the data plane is wanted but not loaded, so that the loader must try again.
        self.down = False
        self._needs: list[str] = []

    @property
    def capabilities(self) -> str:
        """Return the capabilities that the agent needs on this kernel, separated by spaces."""
        return " ".join(self._needs)

    def provide(self, enabled: bool) -> None:
        """Load the data plane if it is wanted, otherwise remove it. Raises ``Refused``."""
        if not self._wanted:
            if os.path.exists(self._loader.path):
                self._remove()
            return
        # In check mode, the release and its unit files may not be on the host yet.
        if self._release.present:
            try:
                self._load(enabled)
            except Refused as refused:
                raise Refused(
                    "expected the kernel data plane to load, but %s\nJournal:\n%s" % (refused, self._loader.journal())
                ) from None

    def _load(self, enabled: bool) -> None:
        own = self._write_units()
        files = [self._configuration.path, self._release.current]
        renewed = started = False
        if self._loader.stale(files):
            renewed = self._try(self._loader.reload)
        if not self._loader.foreseen:
            started = self._try(self._loader.start)
            self._try(lambda: self._loader.enable(enabled))
            self.restart |= started
        # The loader's unit starts the listener. Start the listener here, because the loader may have run before this
        # release installed the listener.
        if self._listener.path in own and not self._listener.foreseen:
            self._listener.start()
        self._ask()
        # With `auto`, the loader's unit succeeds on a host that does not support the data plane, so systemd does not
        # retry the unit. Try to load the data plane again. Since the previous attempt, a package may have been
        # installed, or another XDP program may have been removed.
        if self.down and not self._host.check and not renewed and not started:
            known = len(self._host.changes)
            self._try(self._loader.reload)
            self._ask()
            if self.down:
                # Every run tries to load the data plane again, so do not report a failed attempt as a change.
                del self._host.changes[known:]
            self.restart |= not self.down

    def _write_units(self) -> list[str]:
        """Write the unit files of the release, and return their paths. Removes unit files that this release does not
        contain.
        """
        folder = os.path.join(self._release.directory, "systemd")
        own = [path for path in self._paths if os.path.exists(os.path.join(folder, os.path.basename(path)))]
        if self._listener.path not in own:
            self._leave(self._listener)
        for path in self._paths:
            if path not in own:
                self._host.remove(path)
        written = False
        for unit in (self._loader, self._listener, self._again):
            if unit.path in own:
                with open(os.path.join(folder, unit.name), encoding="utf-8") as stream:
                    written |= unit.write(stream.read())
        # One daemon-reload of systemd covers all three units.
        self._loader.rewritten = self._listener.rewritten = written
        return own

    def _try(self, step: t.Callable[[], bool]) -> bool:
        """Run ``step``, and ignore its failure if the data plane is optional. Returns whether the step changed
        anything.
        """
        known = len(self._host.changes)
        try:
            return step()
        except Refused:
            if self._needed:
                raise
            del self._host.changes[known:]
            return False

    def _ask(self) -> None:
        """Ask the release's program whether the data plane is loaded (sets ``down``) and which capabilities the agent
        needs.

        If the answer of the release's program cannot be parsed, the agent gets no capabilities, because the agent could
        not use BPF maps anyway.
        """
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
        """Stop a unit, and ignore the error that occurs if the unit does not exist."""
        try:
            unit.stop()
        except Refused:
            pass

    def _remove(self) -> None:
        # Stop the listener first. If the loader's unit has failed, the listener stays active and would load the data
        # plane again.
        self._leave(self._listener)
        self._leave(self._again)
        self._loader.stop()
        self._loader.enable(False)
        # A data plane remains in the kernel if it was loaded by hand, or if its unit failed after the load. Unload this
        # data plane.
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
    """Install and start the privileged helper that writes rendered files. If ``wanted`` contains no text of a unit
    file, remove the helper.

    The helper reads ``agent.yml`` only when it starts, so the function restarts the helper if the file has changed.
    Raises ``Refused``.
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
        #: Reason why the agent did not start, for a later health check; "" if the agent started.
        self.failed = ""

    def write(self, capabilities: str) -> bool:
        """Write the agent's unit file. Returns whether the file was created or changed."""
        return self.unit.write(self._content.replace(CAPABILITIES, capabilities))

    def apply(self, restart: bool, reload: bool, judged: bool) -> None:
        """Restart or reload the agent so that it uses the changes. With ``judged``, the method stores the error in
        ``failed`` and does not raise it.
        """
        if self.unit.foreseen or not (os.path.exists(self.unit.path) or self._host.check):
            return
        self._try(judged, self.unit.restart if restart else self.unit.reload if reload else None)

    def run(
        self,
        stale: t.Sequence[str],
        applied: bool,
        enabled: bool,
        judged: bool,
        reloads: t.Callable[[list[str]], bool],
    ) -> None:
        """Start the agent, or restart it if a file in ``stale`` was changed after the start of the agent.

        An earlier run that was interrupted may have changed a file in ``stale``. ``applied`` says whether this run has
        already restarted or reloaded the agent. ``reloads`` says of the changed files whether a reload applies them.
        """
        if self.unit.foreseen:
            return
        # In check mode, the restart has not happened, so the files in ``stale`` are still newer than the agent's start.
        if not (self.failed or (applied and self._host.check)):
            changed = self.unit.stale(stale)
            again = self.unit.reload if changed and reloads(changed) else self.unit.restart
            self._try(judged, again if changed else self.unit.start)
        self._try(judged, lambda: self.unit.enable(enabled))

    def reload_only(self, restart: bool, changed: bool, directory: str) -> None:
        """Reload a running agent if files were changed, now or by an earlier run that was interrupted. Never start or
        restart it. Raises ``Refused`` if the changes need a restart.
        """
        if restart:
            raise Refused(
                "%s: expected only changes that a reload applies, but there are others: %s. Run playbook deploy first"
                % (self.unit.name, ", ".join(self._host.changes))
            )
        if self.unit.active() and (changed or self.unit.stale([directory])):
            self.unit.reload()

    def _try(self, judged: bool, step: t.Callable[[], bool] | None) -> None:
        try:
            if step is not None:
                step()
        except Refused as refused:
            if not judged:
                raise
            self.failed = str(refused)
