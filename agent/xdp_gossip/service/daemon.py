# SPDX-License-Identifier: MIT
"""The agent process: builds the node list from the configuration, serves the API, and handles signals and shutdown.

If the agent is stopped, its node does not leave the cluster. The other members first suspect the node of the stopped
agent, and remove this node from their lists after a timeout. The command ``xdp-gossip node leave`` makes the node leave
the cluster. After an unexpected exception, the process exits with an error, so that systemd starts a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..api.access import Access
from ..api.app import build_app
from ..api.audit import Audit
from ..api.requestlog import RequestLog
from ..api.server import ApiServer, tls_context
from ..common.internal_errors import RECORD
from ..common.quiet import Quiet, QuietFilter
from ..config import agent as config
from ..config.agent import AgentConfig, ApiConfig, ConfigError
from ..core.interface import ProtocolError
from ..core.settings import file_keys, knobs
from ..core.types import Node
from ..nodelist import AsyncNodeList, node_list_with
from ..sealing.keys import FILE as SEALING_KEY
from ..store.sqlite import StoreError
from ..transport import TransportError
from . import logs
from .addresses import Addresses
from .seednames import SeedNames
from .systemd import Systemd

if TYPE_CHECKING:
    from ..templates.loop import Rendering
    from ..templates.renderer import Sealing
    from .planewait import PlaneWait

_log = logging.getLogger("xdp_gossip.daemon")

#: Maximum duration of the shutdown, in seconds. If the shutdown takes longer, the process exits without completing it.
CLOSE_SECONDS = 10.0
_STATUS_SECONDS = 5.0
#: Limit of file descriptors that the agent sets for its process. Connections may use a fortieth of the limit, so that
#: descriptors always remain for the store and the sockets.
_DESCRIPTORS = 65536


def node_list_from(settings: AgentConfig) -> AsyncNodeList:
    """Build the node list for ``settings``, with the local node and the seeds.

    The node list does not join the cluster yet.
    """
    node_list = node_list_with(settings)
    node_list.new(settings.node)
    add_seeds(node_list, settings)
    return node_list


def add_seeds(node_list: AsyncNodeList, settings: AgentConfig) -> None:
    """Add the configured seeds to ``node_list``, except the node itself: all hosts of a fleet may be configured with
    the same list of seeds.
    """
    for seed in settings.seeds:
        if seed != settings.node.address:
            node_list.set(Node(seed.ip, seed.port))


class Agent:
    """One run of the agent process, from start to shutdown."""

    def __init__(self, settings: AgentConfig) -> None:
        self.settings = settings
        self.node_list = node_list_from(settings)
        self.servers: list[ApiServer] = []
        self.counters: dict[str, int] = {"loop_errors": 0}
        self.requests = RequestLog()
        self.access = Access()
        self.audit = Audit(self.counters)
        self._grant(settings)
        self.systemd = Systemd()
        listen = settings.api.listen
        self.addresses = Addresses(
            {"listen_addr": settings.listen_addr, "api.listen": listen.ip if listen is not None else ""}
        )
        self._plane_wait: PlaneWait | None = None
        self.rendering: Rendering | None = None
        #: Set once the agent has joined its cluster and serves the API.
        self.ready = asyncio.Event()
        self._end = asyncio.Event()
        self.seed_names = SeedNames(self.node_list, settings.node.address, self.counters)
        self.seed_names.configure(settings.seed_names, settings.seeds)
        self._failed = False
        self._quiet = Quiet(_log)
        self._resolving: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False

    def _grant(self, settings: AgentConfig) -> None:
        """Apply the tokens, the rights and the audit file of ``settings``."""
        api = settings.api
        self.access.configure(api.token, api.tokens, api.socket_rights)
        self.audit.configure(api.audit_file)

    async def run(self) -> int:
        """Run the agent until a signal arrives. Returns exit code 0 after an orderly shutdown, 1 after a failure."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_unforeseen)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        beat: asyncio.Task[None] | None = None
        try:
            beat = loop.create_task(self._heartbeat())
            beat.add_done_callback(self._on_task_done)
            await self._open()
            await self._end.wait()
        finally:
            # Restore the default handlers, so that a second signal during the shutdown ends the process.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self.systemd.tell("STOPPING=1", "STATUS=stopping")
            if beat is not None:
                beat.cancel()
            await self._close()
        return 1 if self._failed else 0

    async def _open(self) -> None:
        # Open the API first, so that a second agent with the same configuration fails here, before it joins the
        # cluster.
        api = self.settings.api
        if api.socket:
            server = self._server(local=True)
            await server.open_unix(api.socket)
        if api.listen is not None:
            server = self._server(local=False)
            tls = tls_context(api.tls_cert, api.tls_key) if api.tls_cert else None
            where = await server.open_tcp(api.listen, tls)
            _log.info("API on %s%s", where, " (TLS)" if tls else "")
        self.addresses.open()
        if not await self._join():
            return
        node = self.settings.node
        _log.info("xdp-gossip %s runs as %s in cluster %s", __version__, node.address, self.settings.cluster)
        if not self.settings.secret_key and not self.settings.keys:
            _log.warning("allow_insecure: packets of this cluster are neither authenticated nor encrypted")
        self._resolving = asyncio.get_running_loop().create_task(self.seed_names.run())
        self._resolving.add_done_callback(self._on_task_done)
        if self.settings.templates:
            from ..templates.loop import Rendering

            helper = self.settings.files_helper.socket
            self.rendering = Rendering(self.node_list, self.settings.templates, helper, self._sealing())
            self.node_list.tell_applied(self.rendering.applied, self.rendering.troubled)
            for task in self.rendering.start():
                task.add_done_callback(self._on_task_done)
        # Objects that were created while the agent started are never freed. The garbage collector does not visit frozen
        # objects, which saves time.
        gc.collect()
        gc.freeze()
        self.ready.set()
        self.systemd.tell("READY=1", self._told())

    def _sealing(self) -> Sealing | None:
        """What the processes that render templates need to open sealed documents."""
        from ..templates.renderer import Sealing

        if self.node_list.sealing_key is None:
            return None
        key = str(Path(self.settings.state_dir) / SEALING_KEY)
        return Sealing(self.settings.cluster, self.settings.node.name, key)

    async def _join(self) -> bool:
        """Join the cluster. Returns False if the agent was stopped while it waited for a data plane."""
        if self.settings.protocol not in ("XDP", "TC"):
            await self.node_list.join()
            return True
        from .planewait import PlaneWait  # imported late: not needed with protocol auto

        plane, ip = Path(self.settings.dataplane.directory), self.settings.node.address.ip
        seeds = [seed.ip for seed in self.settings.seeds if (":" in seed.ip) == (":" in ip)]
        self._plane_wait = PlaneWait(self.node_list, plane, ip, self._on_waiting, seeds)
        return await self._plane_wait.join()

    @property
    def _waits(self) -> str:
        """The data plane that the agent waits for before joining the cluster; "" if the agent does not wait."""
        return self._plane_wait.waiting if self._plane_wait is not None else ""

    def _on_waiting(self) -> None:
        """Report to systemd that the unit has started, because waiting for a data plane must not delay the boot or
        ``systemctl start``.
        """
        self.systemd.tell("READY=1", self._told())

    def _told(self) -> str:
        """Build the status line that ``systemctl status`` shows."""
        if not self.ready.is_set():
            return f"STATUS=no member yet: waiting for {self._waits}" if self._waits else "STATUS=starting"
        waiting = self.addresses.waiting
        return f"STATUS={self.node_list.summary()}{f'; waiting for {waiting}' if waiting else ''}"

    def _server(self, *, local: bool) -> ApiServer:
        app = build_app(
            self.node_list,
            local=local,
            max_document=self.settings.limits.document,
            counters=self.counters,
            rendered=lambda: self.rendering.outcomes() if self.rendering is not None else [],
            waiting=lambda: self.addresses.waiting,
            compared=self.compared,
            requests=self.requests,
            ui=self.settings.api.ui,
            access=self.access,
            audit=self.audit,
        )
        server = ApiServer(app, self.counters)
        self.servers.append(server)
        return server

    async def _close(self) -> None:
        self.addresses.close()

        async def close_all() -> None:
            for task in (self._resolving, self._reloading):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(server.close() for server in self.servers))
            if self.rendering is not None:
                await self.rendering.close()
            await self.node_list.close()

        try:
            await asyncio.wait_for(close_all(), CLOSE_SECONDS)
        except asyncio.TimeoutError:
            _log.error("closing took more than %g seconds and was given up", CLOSE_SECONDS)
            self._failed = True
        self.audit.close()

    def _on_stop(self, number: int) -> None:
        _log.info("%s: stopping", signal.Signals(number).name)
        self._stop()

    def _stop(self) -> None:
        if self._plane_wait is not None:
            self._plane_wait.stop()
        self._end.set()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.fail("a background task failed", task.exception())

    def _on_unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an uncaught exception of the event loop: an error of a connection is only counted and logged; any
        other exception ends the process.
        """
        error = context.get("exception")
        if error is None or isinstance(error, (OSError, asyncio.CancelledError)):
            # Unauthenticated clients can cause any number of connection errors, so these errors are only counted, and
            # logged at a limited rate.
            self.counters["loop_errors"] += 1
            what = str(context.get("message", "event loop"))
            self._quiet(what, f"{what}{f': {error}' if error else ''}")
            return
        self.fail(context.get("message", "event loop"), error)

    def fail(self, what: str, error: BaseException | None) -> None:
        """Log ``error`` and shut the process down with a failure status."""
        if error is not None:
            RECORD.add(what, error)
        trace = (type(error), error, error.__traceback__) if error is not None else None
        _log.critical("%s; ending, so that a sound process can start", what, exc_info=trace)
        self._failed = True
        self._stop()

    async def _heartbeat(self) -> None:
        """Report the state to systemd periodically, and send watchdog messages while the protocol's timer is not
        overdue.
        """
        watchdog = self.systemd.watchdog_seconds()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.addresses.changed.wait(), min(watchdog or _STATUS_SECONDS, _STATUS_SECONDS))
            self.addresses.changed.clear()
            self.addresses.look()
            if not self.ready.is_set() and not self._waits:
                continue
            lines = [self._told()] if self.systemd.listens else []
            if not self.ready.is_set() or self.node_list.healthy():
                lines.append("WATCHDOG=1")
            else:
                _log.error("the protocol's timer is overdue: not feeding the watchdog")
            self.systemd.tell(*lines)

    def reload(self) -> None:
        """Reload the configuration file (SIGHUP): apply the changed settings that need no restart, and log the names of
        the changed settings that need a restart.

        A reload that is requested during another one follows it.
        """
        self._reload_again = True
        if self._reloading is None:
            self._reloading = asyncio.get_running_loop().create_task(self._reload())
            self._reloading.add_done_callback(self._on_task_done)

    async def _reload(self) -> None:
        """Reload the file as often as :meth:`reload` was called meanwhile.

        The file is read in a thread, because a slow disk, or a new passphrase that is stretched, would block the event
        loop.
        """
        try:
            while self._reload_again:
                self._reload_again = False
                self.systemd.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
                try:
                    self._take_over(await asyncio.to_thread(config.load, self.settings.path))
                except ConfigError as error:
                    for problem in error.problems:
                        _log.error("not reloaded: %s", problem)
                self.systemd.tell("READY=1", self._told())
        finally:
            self._reloading = None

    async def compared(self) -> dict[str, Any]:
        """Build the response of ``GET /v1/configuration``.

        The file is read in a thread, because a slow disk would block the event loop.
        """
        path = self.settings.path
        try:
            new = await asyncio.to_thread(config.load, path)
        except ConfigError as error:
            return {"file": path, "problems": list(error.problems), "reload": [], "restart": []}
        reload, restart = self._differences(new)
        return {"file": path, "problems": [], "reload": reload, "restart": restart}

    def _differences(self, new: AgentConfig) -> tuple[list[str], list[str]]:
        """Return the names of the settings that differ in ``new``, in two lists: those that a reload applies, and those
        that need a restart.
        """
        old = self.settings
        differing = [
            name
            for name in ("seed_names", *file_keys(AgentConfig).values())
            if getattr(old, name) != getattr(new, name)
        ]
        declared = knobs(AgentConfig)  # the setting seed_names has no entry here: it is parsed from the key seeds
        reload = [name for name in differing if declared.get(name, declared["seeds"]).agent.reload]
        if not self._may_take_keys(new):
            reload = [name for name in reload if name not in ("secret_key", "keys")]
        restart = [name for name in differing if name not in reload]
        if "api" in restart:
            applied = dataclasses.replace(old.api, **_reloaded(new.api))
            if applied == new.api:
                restart.remove("api")
            changed = [name for name, value in _reloaded(new.api).items() if getattr(old.api, name) != value]
            # A new token in the same file is a change of the setting that names the file.
            reload += sorted({f"api.{'token_file' if name == 'token' else name}" for name in changed})
        if new.node.address != old.node.address:
            restart.append("node.addr or node.port")
        if (new.node.name, new.node.private_data) != (old.node.name, old.node.private_data):
            reload.append("node.name or node.private_data")
        return sorted(reload), sorted(restart)

    def _may_take_keys(self, new: AgentConfig) -> bool:
        """Whether a reload can apply the keys of ``new``.

        The engine of PekoNode's wire has one secret for its whole run. A cluster without any secret is another cluster.
        """
        return self.settings.wire != "pekonode" and bool(new.secret_key or new.keys)

    def _take_keys(self, new: AgentConfig) -> None:
        """Use the keys of ``new`` from now on."""
        old = self.settings
        if not self._may_take_keys(new) or (new.keys, new.secret_key) == (old.keys, old.secret_key):
            return
        before = self.node_list.keys
        self.node_list.replace_keys(new.key_pairs)
        self.settings = dataclasses.replace(old, keys=new.keys, secret_key=new.secret_key)
        if self.node_list.keys != before:
            told = ", ".join(f"{fingerprint:016x} ({state})" for fingerprint, state in self.node_list.keys)
            _log.info("keys replaced: %s", told)

    def _take_over(self, new: AgentConfig) -> None:
        old = self.settings
        fixed = self._differences(new)[1]
        named = (new.node.name, new.node.private_data) != (old.node.name, old.node.private_data)
        if named and not self.ready.is_set():
            fixed.append("node.name or node.private_data, as it is no member yet")
        if fixed:
            _log.warning("reloaded, but these changes need a restart: %s", ", ".join(sorted(fixed)))
        logs.configure(new.log.level, new.log.format)
        api = dataclasses.replace(old.api, **_reloaded(new.api))
        self.settings = dataclasses.replace(
            old, api=api, log=new.log, seeds=new.seeds, seed_names=new.seed_names, signers=new.signers
        )
        self._grant(self.settings)
        self._take_keys(new)
        if old.signers != new.signers and (withheld := self.node_list.trust(new.signers)):
            _log.warning("%d documents lack a signature that they need now; only their history is kept", withheld)
        for seed in set(old.seeds) - set(new.seeds):
            self.node_list.unset(Node(seed.ip, seed.port))
        add_seeds(self.node_list, self.settings)
        self.seed_names.configure(new.seed_names, new.seeds)
        if named and self.ready.is_set():
            self.node_list.update_node(name=new.node.name, private_data=new.node.private_data)
            node = dataclasses.replace(old.node, name=new.node.name, private_data=new.node.private_data)
            self.settings = dataclasses.replace(self.settings, node=node)
        if self.ready.is_set():
            self.node_list.look_for_dataplane()
        elif self._plane_wait is not None:
            self._plane_wait.look()
        if self.rendering is not None:
            self.rendering.again()
        _log.info("configuration reloaded from %s", old.path)


def _reloaded(api: ApiConfig) -> dict[str, Any]:
    """Return those settings of the API that a reload applies, and the token, which is no setting of its own."""
    names = [name for name, knob in knobs(ApiConfig).items() if knob.agent.reload]
    return {name: getattr(api, name) for name in ("token", *names)}


async def run(settings: AgentConfig) -> int:
    """Run an agent with ``settings`` until it is stopped. Returns the exit code."""
    return await Agent(settings).run()


def _raise_descriptor_limit() -> None:
    """Raise the limit of file descriptors, because the default of 1024 is less than the possible number of
    connections.
    """
    if not 0 <= os.sysconf("SC_OPEN_MAX") < _DESCRIPTORS:
        return
    import resource  # imported late: not needed under systemd, because the unit sets the limit

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(settings: AgentConfig) -> int:
    """Configure logging and run the agent.

    Returns the exit code. If the agent cannot start, prints one line to stderr and returns 1.
    """
    logs.configure(settings.log.level, settings.log.format)
    # asyncio logs a warning for every write to a lost connection; the filter limits the rate of these warnings.
    logging.getLogger("asyncio").addFilter(QuietFilter())
    _raise_descriptor_limit()
    try:
        return asyncio.run(run(settings))
    except (OSError, StoreError, TransportError, ProtocolError, ValueError) as error:
        _log.error("the agent cannot run: %s", error)
        return 1
    finally:
        sys.stdout.flush()
