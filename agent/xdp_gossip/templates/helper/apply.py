# SPDX-License-Identifier: MIT
"""Writes, validates and installs rendered files, and reloads their service; restores the former files on failure.

The helper takes each step for all files of a service before it takes the next step. Therefore a command sees either all
new files of the service or all former files, and one reload is enough. The steps for a single file are in exchange.py.
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

#: Hints that the helper appends to an error message of the operating system.
_HINTS = {
    errno.EROFS: " (is the path in the unit's ReadWritePaths=?)",
    errno.EPERM: " (immutable? lsattr shows an i, chattr -i takes it away)",
}


@dataclass(frozen=True)
class Result:
    """The outcome of installing one file.

    ``state``: applied, refused (the helper does not try this content again), failed (the helper could not write the
    file now) or drifted (the file was changed by hand after this content was installed, and the helper does not replace
    the file). ``stage``: the step that failed: write, validation or reload. ``output``: the output of the failed
    command, only for templates with ``show_output``, and only for users who may read the file.
    """

    state: str
    changed: bool = False
    stage: str = ""
    error: str = ""
    output: str = ""


def apply(template: TemplateConfig, content: bytes, own: Own, *, repair: bool = False) -> Result:
    """Install ``content`` for ``template``. The function returns errors of the file system or of a command in the
    result, and does not raise them.

    ``repair``: also replace a file that was changed by hand and whose template has ``drift: report``.
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

    Errors and ``repair`` are those of :func:`apply`. A file that already has the right content gets the result
    "applied", even if the other files are refused.
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
        """Run all steps for the files that must be changed. Returns the result of each file."""
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
        """Restore the former files and reload the service. Returns a description of the files and reloads that failed,
        for the error text; "" if none failed.
        """
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
        """Return the result of each file. ``ready`` is the result of the files that had to be changed; ``by`` is the
        service or template whose command failed.
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
