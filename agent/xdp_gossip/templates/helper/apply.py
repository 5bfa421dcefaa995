# SPDX-License-Identifier: MIT
"""Installs rendered files: write, validate, replace, reload; restores the former files on failure.

All files of one service go through each step together. So whenever a command runs, either all files are new or all are
former ones, and one reload is enough. exchange.py contains the steps for a single file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ...config.templates import PLACEHOLDER, ServiceConfig, TemplateConfig
from . import commands, drift
from .commands import CommandFailed
from .exchange import Exchange
from .held import PlaceError
from .own import Own

_log = logging.getLogger("xdp_gossip.files")

#: Hints that are appended to an error message of the system.
_HINTS = {
    errno.EROFS: " (is the path in the unit's ReadWritePaths=?)",
    errno.EPERM: " (immutable? lsattr shows an i, chattr -i takes it away)",
}


@dataclass(frozen=True)
class Result:
    """The outcome of installing one file.

    ``state``: applied, refused (this content is not tried again), failed (the attempt could not be made) or drifted
    (the file was changed by hand since this content was installed, and is left alone). ``stage``: the step that failed:
    write, validation or reload. ``output``: the command's output, only for templates that allow it, and only for users
    who may read the file.
    """

    state: str
    changed: bool = False
    stage: str = ""
    error: str = ""
    output: str = ""


def apply(template: TemplateConfig, content: bytes, own: Own, *, repair: bool = False) -> Result:
    """Install ``content`` for ``template``. Errors of the file system or of a command are returned, not raised.

    ``repair``: also replace a file that was changed by hand and that the template leaves alone.
    """
    (result,) = apply_together([(template, content)], template, own, repair=repair)
    return result


def apply_together(
    files: Sequence[tuple[TemplateConfig, bytes]],
    service: ServiceConfig | TemplateConfig,
    own: Own,
    *,
    repair: bool = False,
) -> list[Result]:
    """Install all ``files`` or none of them, with the commands of ``service``. Returns one result per file, in the same
    order.

    In other respects, the same as :func:`apply`. The result of a file that has the right content already is applied,
    even if the other files are refused.
    """
    at = files[0][0]
    try:
        with contextlib.ExitStack() as stack:
            exchanges = []
            for at, content in files:
                wanted = drift.expected(at, content)
                left = not repair and drift.left_alone(own, at, wanted)
                exchanges.append(Exchange(at, content, own, stack, left=left))
            results = _Together(exchanges, service).run()
            for (at, content), result in zip(files, results):
                if result.state == "applied":
                    drift.remember(own, at, drift.expected(at, content))
            return results
    except PlaceError as error:
        state, text = "refused" if error.final else "failed", str(error)
    except OSError as error:
        state, text = "failed", f"{at.path}: {error.strerror or error}{_HINTS.get(error.errno or 0, '')}"
    return [Result(state, stage="write", error=text)] * len(files)


class _Together:
    """The files of one service that are installed together."""

    def __init__(self, exchanges: Sequence[Exchange], service: ServiceConfig | TemplateConfig) -> None:
        self._exchanges = exchanges
        self._ready = [one for one in exchanges if one.state == "ready"]
        self._service = service

    def run(self) -> list[Result]:
        """Take all files that need a change through all steps. Returns the result of each file."""
        for one in self._ready:
            try:
                one.validate()
            except CommandFailed as error:
                cut_off = [other for other in self._ready if other.unfinished]
                return self._refused("validation", error, one.template, self._bring_back(cut_off, reload=True))
        for one in self._ready:
            one.finish_file()
        for one in self._ready:
            one.keep()
        placed: list[Exchange] = []
        try:
            for one in self._ready:
                placed.append(one)
                one.exchange()
        except (OSError, PlaceError):
            if len(self._ready) > 1:
                self._bring_back(placed, reload=False)
            raise
        return self._settle()

    def _settle(self) -> list[Result]:
        """Reload the service with the new files; restore the former files if the reload fails."""
        service = self._service
        after = service.validate if PLACEHOLDER not in " ".join(service.validate) else ()
        for stage, command in (("validation", after), ("reload", service.reload)):
            if not command or not self._ready:
                continue
            for one in self._ready:
                one.check_in_place()
            try:
                commands.run(command, service.user, service.timeout)
            except CommandFailed as error:
                trouble = self._bring_back(self._ready, reload=stage == "reload")
                return self._refused(stage, error, service, trouble)
        for one in self._ready:
            one.back_up()
        for one in self._ready:
            one.forget()
        return self._results(Result("applied"))

    def _bring_back(self, exchanges: Sequence[Exchange], *, reload: bool) -> str:
        """Restore the former files and reload the service. Returns a description of what failed, for the error text."""
        back = [one.bring_back() for one in exchanges]
        trouble = "".join(text for _, text in back)
        if reload and self._service.reload and any(existed for existed, _ in back):
            try:
                commands.run(self._service.reload, self._service.user, self._service.timeout)
            except CommandFailed as error:
                trouble += f"; the former file is back, but its reload failed too: {error}"
        if trouble:
            _log.error("%s: %s", self._service.name, trouble[2:])
        for one in exchanges:
            one.forget()
        return trouble

    def _refused(self, stage: str, error: CommandFailed, by: ServiceConfig | TemplateConfig, more: str) -> list[Result]:
        held_back = "; what it said is held back (show_output)" if error.said and not by.show_output else ""
        text = f"{error}{held_back}{more}"
        return self._results(Result("refused", False, stage, text, error.said if by.show_output else ""), by)

    def _results(self, ready: Result, by: ServiceConfig | TemplateConfig | None = None) -> list[Result]:
        """The result of each file. ``ready`` is the result of the files that were to be changed; ``by`` is what decided
        it.
        """
        found = []
        for one in self._exchanges:
            if one.state == "same":
                found.append(Result("applied"))
            elif one.state == "left":
                found.append(Result("drifted", stage="write", error="changed by hand, and left so"))
            elif ready.state == "applied":
                found.append(Result("applied", changed=one.changes))
            elif isinstance(by, TemplateConfig) and by is not one.template:
                found.append(Result(ready.state, stage=ready.stage, error=f"together with {by.name}: {ready.error}"))
            else:
                found.append(ready)
        return found
