# SPDX-License-Identifier: MIT
"""A client of the files helper: sends rendered contents and receives drift reports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ..config.templates import ServiceConfig, TemplateConfig
from .helper import protocol


class HelperUnreachable(Exception):
    """Raised if the files helper is not running or does not answer."""


async def hand_over(socket: str, template: TemplateConfig, content: bytes, *, repair: bool = False) -> dict[str, Any]:
    """Send one file to the helper. Returns the helper's answer: state, changed, stage, error, output.

    ``repair``: also replace a file that was changed by hand and whose template has ``drift: report``. Raises
    :class:`HelperUnreachable`.
    """
    header = {"template": template.name, "size": len(content)}
    # This limit allows three commands (validation, reload, and a reload after the former file was restored) for this
    # template, and three commands for another template that the helper installs first.
    answer = await _ask(socket, header, content, repair, 6 * template.timeout + 60)
    if answer.get("state") not in ("applied", "refused", "failed", "drifted"):
        raise HelperUnreachable(
            f"files helper ({socket}): expected an answer with a state, got none; see the helper's log"
        )
    return answer


async def hand_over_together(
    socket: str, service: ServiceConfig, files: dict[TemplateConfig, bytes], *, repair: bool = False
) -> dict[str, dict[str, Any]]:
    """Send all files of ``service`` to the helper.

    Returns a dictionary: name of the template -> answer of the helper. The answers and errors are those of
    :func:`hand_over`.
    """
    sizes = {template.name: len(content) for template, content in files.items()}
    header: dict[str, Any] = {"service": service.name, "sizes": sizes}
    # The helper runs the validation command once for each file, and the reload command once for all files.
    seconds = 6 * service.timeout + sum(template.timeout for template in files) + 60
    answer = await _ask(socket, header, b"".join(files.values()), repair, seconds)
    results = answer.get("results", dict.fromkeys(sizes, answer))
    if not all(isinstance(results.get(template.name), dict) for template in files):
        raise HelperUnreachable(
            f"files helper ({socket}): expected an answer with a state, got none; see the helper's log"
        )
    return dict(results)


async def _ask(socket: str, header: dict[str, Any], content: bytes, repair: bool, seconds: float) -> dict[str, Any]:
    if repair:
        header["repair"] = True
    try:
        return await asyncio.wait_for(_exchange(socket, header, content), seconds)
    except asyncio.TimeoutError:
        raise HelperUnreachable(f"files helper ({socket}): no answer within {seconds:g} s") from None
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        if isinstance(error, ConnectionRefusedError):
            raise HelperUnreachable(_nobody(socket, "nobody listens")) from None
        raise HelperUnreachable(
            f"files helper ({socket}): it closed the connection before it answered; see the helper's log"
        ) from None
    except OSError as error:
        raise HelperUnreachable(_nobody(socket, error.strerror or str(error))) from None


def _nobody(socket: str, why: str) -> str:
    return f"files helper ({socket}): {why}: systemctl enable --now xdp-gossip-files.service"


async def _exchange(socket: str, header: dict[str, Any], content: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        with contextlib.suppress(ConnectionError):  # the helper may answer before it has read the whole request
            writer.write(protocol.pack(header) + content)
            await writer.drain()
        return await _frame(reader)
    finally:
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    (length,) = protocol.LENGTH.unpack(await reader.readexactly(protocol.LENGTH.size))
    if length > protocol.MAX_FRAME:
        raise ValueError("an answer that is too long")
    return protocol.unpack(await reader.readexactly(length))


async def watch(socket: str) -> AsyncIterator[dict[str, str]]:
    """Yield the names of the templates whose file was changed by hand, each with a description of the change. The first
    report comes at once, further reports at each change and repeatedly while any file differs.

    Raises :class:`HelperUnreachable` if the helper ends or does not support watching.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise HelperUnreachable(_nobody(socket, error.strerror or str(error))) from None
    try:
        writer.write(protocol.pack({"watch": True}))
        while True:
            drifted = (await _frame(reader)).get("drifted")
            if not isinstance(drifted, dict):
                raise HelperUnreachable(
                    f"files helper ({socket}): the running helper cannot report changed files; restart the helper"
                )
            yield {str(name): str(text) for name, text in drifted.items()}
    except (asyncio.IncompleteReadError, OSError, ValueError):
        raise HelperUnreachable(f"files helper ({socket}): it ended") from None
    finally:
        writer.close()
