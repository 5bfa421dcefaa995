# SPDX-License-Identifier: MIT
"""Collects the data that all checks share: the configuration, as far as it is valid, and the agent's reports."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable

from ..common import CommandError, endpoint, read_token

if TYPE_CHECKING:
    from ...config.agent import AgentConfig


#: JSON keys that an agent of any release returns in its status.
_STATUS = frozenset(
    {
        *("version", "wire", "state", "uptime", "node", "timeout", "members", "documents", "document_bytes"),
        *("document_bytes_limit", "clock_offset", "counters"),
    }
)


@dataclass(frozen=True)
class Look:
    """The data collected about one host, which all checks examine.

    ``config`` is None if even the node's address cannot be read from the configuration file. ``problems`` are the
    errors in the configuration file; without errors, the file is valid. ``files``: setting -> path, for each file that
    the configuration names, whether or not the file exists. If the agent returned no status, ``status`` is None,
    ``why`` gives the reason, and ``state`` is "down", "hidden" (this user may not connect), "silent", "starting" or
    "refused". ``local``: whether the agent that answered is the agent that ``config`` configures. ``untold``: name of
    an unanswered request, except the status request -> reason why the answer is missing. ``pid``, ``uid`` and ``gid``
    of the agent are -1 if unknown.
    """

    path: str
    config: AgentConfig | None = None
    problems: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""
    state: str = "down"
    why: str = ""
    status: dict[str, Any] | None = None
    nodes: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    rendered: list[dict[str, Any]] = field(default_factory=list)
    loaded: dict[str, Any] | None = None
    untold: dict[str, str] = field(default_factory=dict)
    ca_file: str = ""
    pid: int = -1
    uid: int = -1
    gid: int = -1

    @property
    def local(self) -> bool:
        """Whether the node of the agent that answered has the address and port of the configuration."""
        if self.config is None or self.status is None:
            return self.config is not None
        node, asked = self.config.node, self.status["node"]
        return (node.addr, node.port) == (asked["addr"], asked["port"])

    @property
    def sound(self) -> AgentConfig | None:
        """The configuration if it is valid and belongs to the agent that answered; otherwise None."""
        return self.config if not self.problems and self.local else None

    @property
    def counters(self) -> dict[str, int]:
        """The counters of the agent; empty if the agent gave no status."""
        return dict(self.status["counters"]) if self.status is not None else {}


def gather(args: argparse.Namespace, seconds: float) -> Iterator[Look]:
    """Yield the collected data step by step, each time more complete.

    The caller uses the last step that arrives in time.
    """
    from ...config.agent import understood

    config, problems = understood(args.config)
    look = Look(args.config, config, problems, _files(args.config), ca_file=getattr(args, "ca_file", None) or "")
    yield look
    named = getattr(args, "socket", None) or getattr(args, "endpoint", None)
    if not named and config is not None and config.api.socket:
        args = argparse.Namespace(**{**vars(args), "socket": config.api.socket})
    look = replace(look, endpoint=endpoint(args), state="silent", why="no answer in time")
    yield look
    with contextlib.suppress(OSError):
        pid, uid, gid = _peer(look.endpoint, seconds)
        look = replace(look, pid=pid, uid=uid, gid=gid)
    yield _ask(args, look, seconds)


def _files(path: str) -> dict[str, str]:
    """Return the paths of the files that the configuration file ``path`` names: setting -> path.

    The paths are read from the raw YAML, because the parsed configuration has no value for an invalid setting.
    """
    from ...config.reader import Problems, parse_yaml, read_text

    text, _reason = read_text(path, 1 << 20)
    top = parse_yaml(text or "", Problems(path))
    found: dict[str, str] = {}

    def note(setting: str, value: object) -> None:
        if isinstance(value, str) and value and "\0" not in value:
            found[setting] = os.path.join(os.path.dirname(os.path.abspath(path)), value)

    note("secret_key_file", _in(top, "secret_key_file"))
    note("api.token_file", _in(top, "api", "token_file"))
    note("api.tls.key", _in(top, "api", "tls", "key"))
    note("api.tls.cert", _in(top, "api", "tls", "cert"))
    for name, key in (("keys", "file"), ("templates", "source")):
        entries = _in(top, name)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            note(f"{name}[{number}].{key}", _in(entry, key))
    return found


def _in(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _peer(where: str, seconds: float) -> tuple[int, int, int]:
    """Return the process, user and group id of the server of a Unix socket (SO_PEERCRED, unix(7)).

    Raises ``OSError``.
    """
    if not where.startswith("unix://"):
        return -1, -1, -1
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(seconds)
        probe.connect(where[len("unix://") :])
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, uid, gid


def _ask(args: argparse.Namespace, look: Look, seconds: float) -> Look:
    """Return ``look`` completed with the agent's answers."""
    import asyncio

    try:
        token = read_token(args)
    except CommandError as error:
        return replace(look, state="refused", why=str(error))
    return asyncio.run(_answers(look, token, seconds))


async def _answers(look: Look, token: str | None, seconds: float) -> Look:
    from ...api import client as api

    found: dict[str, Any] = {}
    untold: dict[str, str] = {}
    try:
        # If one request fails, the other requests are still sent. All requests share one time limit, so that time
        # remains to report the findings.
        async with api.Client(look.endpoint, token=token, ca_file=look.ca_file or None, timeout=seconds) as client:
            found["status"] = _known(await client.status())
            more: dict[str, Callable[[], Awaitable[Any]]] = {
                "nodes": lambda: _all(client.each_node("all")),
                "keys": client.keys,
                "rendered": client.rendered,
                "loaded": client.configuration,
            }
            for name, ask in more.items():
                try:
                    found[name] = await ask()
                except api.ApiError as error:
                    untold[name] = str(error)
    except api.Unreachable as error:
        if "status" in found:
            untold["the rest"] = str(error)
        else:
            hidden = os.geteuid() != 0 and error.why == os.strerror(errno.EACCES)
            answered = "silent" if "in time" in error.why else "refused"
            state = "hidden" if hidden else answered if error.sent else "down"
            return replace(look, state=state, why=str(error))
    except api.ApiError as error:
        state = "starting" if error.code == "not_ready" else "refused"
        return replace(look, state=state, why=str(error))
    except (ValueError, TypeError, OSError) as error:
        return replace(look, state="refused", why=str(error))
    return replace(look, state="answers", untold=untold, **found)


def _known(status: dict[str, Any]) -> dict[str, Any]:
    """Return ``status``.

    Raises ``ValueError`` if ``status`` lacks JSON keys of an agent's status, which means that another program answered.
    """
    lacking = sorted(_STATUS - status.keys())
    if lacking:
        raise ValueError(f"expected an agent's status, got one without {', '.join(lacking[:3])}")
    return status


async def _all(nodes: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [node async for node in nodes if node["state"] not in ("dead", "left")]


def may_not(error: OSError) -> bool:
    """Return whether ``error`` means that this user lacks a permission that root has."""
    return isinstance(error, PermissionError) and os.geteuid() != 0
