# SPDX-License-Identifier: MIT
"""The helper's socket server. The server accepts contents for configured templates from the agent's user only.

The server also reports to the agent which files were changed by hand. The helper itself reads the configuration file
for each request, to determine which file to write and which commands to run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
import socket
import struct
import threading
import time
from typing import Any, Callable

from ...config.reader import ConfigError
from ...config.templates import MAX_CONTENT, MAX_SERVICE_CONTENT, HelperConfig, TemplateConfig, load_for_helper
from . import apply, drift, protocol
from .held import PlaceError
from .own import Own

_log = logging.getLogger("xdp_gossip.files")

#: ``MAX_CONNECTIONS``: maximum number of concurrent connections (eight requests and a watch). ``RECEIVE_SECONDS``:
#: seconds within which a request must arrive.
MAX_CONNECTIONS = 9
RECEIVE_SECONDS = 20.0
#: Seconds between two checks of the installed files.
LOOK_EVERY = 2.0
# Maximum characters of a drift text per template, so that the texts of all templates fit into one frame.
_MOST_TEXT = 150
#: Layout of struct ucred: pid, uid, gid (unix(7)).
_PEER = struct.Struct("3i")


class Refused(Exception):
    """Raised if the helper rejects the request; the text gives the reason."""


def listen(path: str, group: int | None = None) -> socket.socket:
    """Return the socket that systemd passes (sd_listen_fds(3)). If systemd passes no socket, bind a new socket to
    ``path`` with mode 0660.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=3)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
        else:
            bound.close()
            raise OSError(f"{path}: another process serves it")
    before = os.umask(0o177)
    try:
        bound.bind(path)
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
    os.chmod(path, 0o660)
    bound.listen(16)
    return bound


class Server:
    """Serves requests until :meth:`stop` is called."""

    def __init__(self, config_path: str, listening: socket.socket) -> None:
        self._config_path = config_path
        self._listening = listening
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._locks: dict[object, threading.Lock] = {}
        self._locks_guard = threading.Lock()
        self._stopping = threading.Event()
        # Identifies the latest watch request; a new watch request ends the previous one.
        self._watching: object | None = None
        self._watched: tuple[Any, HelperConfig, dict[str, TemplateConfig]] | None = None

    def run(self) -> None:
        """Accept connections. Returns after :meth:`stop`, once all running requests are finished."""
        while not self._stopping.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if self._stopping.is_set():
                    break
                # accept(2) fails, for example, if there are no free descriptors.
                time.sleep(0.1)
                continue
            if not self._places.acquire(blocking=False):
                _log.warning("a connection refused: %d are at work", MAX_CONNECTIONS)
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        for _ in range(MAX_CONNECTIONS):
            self._places.acquire()

    def stop(self) -> None:
        """Stop accepting connections."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(RECEIVE_SECONDS)
                try:
                    result = self._handle(connection)
                except Refused as error:
                    _log.warning("request refused: %s", error)
                    result = {"state": "failed", "changed": False, "stage": "request", "error": str(error)}
                except ConfigError as error:
                    _log.error("configuration: %s", error)
                    result = {"state": "failed", "changed": False, "stage": "configuration", "error": str(error)[:2000]}
                if result is not None:
                    with contextlib.suppress(OSError):
                        connection.sendall(protocol.pack(result))
                        _let_go(connection)
        except OSError as error:
            _log.warning("connection lost: %s", error)
        except Exception:
            _log.exception("a request failed")
        finally:
            self._places.release()

    def _handle(self, connection: socket.socket) -> dict[str, Any] | None:
        """Process one request.

        Returns the answer to send; None for a watch request, because its answers were already sent.
        """
        _pid, uid, _gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        helper, templates = load_for_helper(self._config_path, os.geteuid())
        _check_peer(uid, helper)
        deadline = time.monotonic() + RECEIVE_SECONDS
        header = _header(connection, deadline)
        if set(header) == {"watch"} and header["watch"] is True:
            self._watch(connection)
            return None
        wanted, together = _request(header, templates)
        files = [(template, _read(connection, size, deadline)) for template, size in wanted]
        first = files[0][0]
        service = (first.service or first) if together else first
        with contextlib.ExitStack() as stack:
            for name in sorted(template.name for template, _ in files):
                stack.enter_context(self._lock(name))
            # The lock belongs to the reload command, so services with the same reload command do not run it at the same
            # time.
            stack.enter_context(self._lock(service.reload or (service.name, "no reload")))
            own = Own(helper.state_dir)
            results = apply.apply_together(files, service, own, repair=header.get("repair", False))
        answers = {}
        for (template, _), result in zip(files, results):
            _say(template, result)
            answers[template.name] = {**vars(result), "error": result.error[: max(100, 4000 // len(files))]}
        if not together:
            return answers[first.name]
        for name in list(answers)[1:]:
            # The same command ran for all files, so send its output only once.
            answers[name]["output"] = ""
        return {"results": answers}

    def _watch(self, connection: socket.socket) -> None:
        """Report files that were changed by hand, until the client disconnects, the helper stops, or another client
        sends a watch request.
        """
        me = self._watching = object()
        watch, told = drift.Watch(), None
        while self._watching is me:
            found = self._drifted(watch, told or {})
            # Send the same report again while any file differs: after the last report, the agent may have repaired the
            # file, and someone may have changed the file again.
            if found or found != told:
                for name in found.keys() - (told or {}).keys():
                    _log.warning("%s: %s", name, found[name])
                connection.settimeout(RECEIVE_SECONDS)
                connection.sendall(protocol.pack({"drifted": found}))
                told = found
            if self._stopping.wait(LOOK_EVERY) or _gone(connection):
                return

    def _drifted(self, watch: drift.Watch, before: dict[str, str]) -> dict[str, str]:
        try:
            helper, templates = self._for_watch()
        except (ConfigError, OSError):
            # Someone may be writing the configuration file. If the configuration file stays invalid, the next request
            # with content reports the error.
            return before
        found = {}
        for name, template in templates.items():
            lock = self._lock(name)
            if not lock.acquire(blocking=False):
                # A request holds the lock, so this file is being replaced now.
                if name in before:
                    found[name] = before[name]
                continue
            try:
                text = watch.look(template, Own(helper.state_dir))
            except (OSError, PlaceError) as error:
                text = f"cannot be looked at: {getattr(error, 'strerror', None) or error}"
            finally:
                lock.release()
            if text:
                found[name] = text[:_MOST_TEXT]
        return found

    def _for_watch(self) -> tuple[HelperConfig, dict[str, TemplateConfig]]:
        """Return the configuration. This method runs every two seconds, so it parses the file only if the file has
        changed.
        """
        found = os.stat(self._config_path)
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._watched is None or self._watched[0] != identity:
            self._watched = (identity, *load_for_helper(self._config_path, os.geteuid()))
        return self._watched[1:]

    def _lock(self, name: object) -> threading.Lock:
        with self._locks_guard:
            return self._locks.setdefault(name, threading.Lock())


def _check_peer(uid: int, helper: HelperConfig) -> None:
    try:
        wanted = pwd.getpwnam(helper.user).pw_uid
    except KeyError:
        raise Refused(f"files_helper.user: expected an account, but there is no account {helper.user!r}") from None
    if uid != wanted:
        raise Refused(f"expected the agent's user ({helper.user}), got user {uid}")


def _header(connection: socket.socket, deadline: float) -> dict[str, Any]:
    (length,) = protocol.LENGTH.unpack(_read(connection, protocol.LENGTH.size, deadline))
    if length > protocol.MAX_FRAME:
        raise Refused(f"expected a header of at most {protocol.MAX_FRAME} bytes, got {length}")
    try:
        return protocol.unpack(_read(connection, length, deadline))
    except (ValueError, RecursionError) as error:
        raise Refused(f"expected a JSON header: {type(error).__name__}") from None


def _request(
    header: dict[str, Any], templates: dict[str, TemplateConfig]
) -> tuple[list[tuple[TemplateConfig, int]], bool]:
    """Return the templates that a request names, each with the size of its content.

    Also returns whether the request is for all templates of a service.
    """
    keys = set(header) - {"repair"}
    if type(header.get("repair", False)) is not bool:
        raise Refused("repair: expected true or false")
    if keys == {"template", "size"}:
        sizes, service = {header["template"]: header["size"]} if isinstance(header["template"], str) else None, None
    elif keys == {"service", "sizes"} and isinstance(header["service"], str):
        sizes, service = header["sizes"], header["service"]
    else:
        sizes, service = None, None
    if not isinstance(sizes, dict) or not sizes or not all(type(size) is int for size in sizes.values()):
        raise Refused("expected template and size, or service and sizes (and repair), or watch, and nothing else")
    for name, size in sizes.items():
        if name not in templates:
            raise Refused(f"template {name[:64]!r}: the configuration that the helper reads has no such template")
        if not 0 <= size <= MAX_CONTENT or sum(sizes.values()) > MAX_SERVICE_CONTENT:
            raise Refused(f"expected content of at most {MAX_CONTENT} bytes, {MAX_SERVICE_CONTENT} in all, got {sizes}")
    ours = {template.name for template in templates.values() if template.service and template.service.name == service}
    if service is None and templates[next(iter(sizes))].service is not None:
        raise Refused("a template of a service: expected all of its templates at once")
    if service is not None and ours != set(sizes):
        raise Refused("service: expected content for exactly the templates that the helper's configuration has for it")
    return [(templates[name], size) for name, size in sizes.items()], service is not None


def _say(template: TemplateConfig, result: apply.Result) -> None:
    if result.state == "drifted":
        _log.warning("%s (%s): %s", template.name, template.path, result.error)
    elif result.state != "applied":
        said = f": {result.output}" if result.output else ""
        _log.error(
            "%s (%s): %s: %s: %s%s", template.name, template.path, result.state, result.stage, result.error, said
        )
    elif result.changed:
        _log.info("%s (%s): replaced", template.name, template.path)


def _gone(connection: socket.socket) -> bool:
    """Whether the client has closed the connection."""
    connection.settimeout(0)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False


def _read(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece = connection.recv(min(size - len(data), 1 << 20))
        except socket.timeout:
            raise Refused(f"expected the whole request within {RECEIVE_SECONDS:g} s") from None
        if not piece:
            raise Refused("the connection ended before the request was complete")
        data += piece
    return bytes(data)


def _let_go(connection: socket.socket) -> None:
    """Close a connection so that the client receives the answer. A close with unread data would reset the connection
    and lose the answer.
    """
    connection.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + RECEIVE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        if not connection.recv(1 << 20):
            return


def main(config_path: str, notify: Callable[..., None] = lambda *lines: None) -> int:
    """Run the helper. Returns 1 if the helper cannot listen, 2 if the configuration is invalid."""
    try:
        helper, templates = load_for_helper(config_path, os.geteuid())
    except ConfigError as error:
        for problem in error.problems:
            _log.error("%s", problem)
        return 2
    try:
        listening = listen(helper.socket, _group_of(helper.user))
    except OSError as error:
        _log.error("cannot listen on %s: %s", helper.socket, error.strerror or error)
        return 1
    server = Server(config_path, listening)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    _log.info("files helper serves user %s, templates: %s", helper.user, ", ".join(templates) or "none")
    notify("READY=1")
    server.run()
    return 0


def _group_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return None
