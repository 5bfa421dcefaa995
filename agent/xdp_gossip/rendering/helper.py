# SPDX-License-Identifier: MIT
"""Hands rendered content to the files helper."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ..configtemplates import TemplateConfig
from ..fileshelper import protocol


class HelperUnreachable(Exception):
    """There is no helper, or it did not answer."""


async def hand_over(socket: str, template: TemplateConfig, content: bytes) -> dict[str, Any]:
    """The helper's answer: state, changed, stage, error. Raises :class:`HelperUnreachable`."""
    # Validation, reload and the reload of the former file, for this template and one that it waits for.
    seconds = 6 * template.timeout + 60
    try:
        return await asyncio.wait_for(_exchange(socket, template, content), seconds)
    except asyncio.TimeoutError:
        raise HelperUnreachable(f"files helper ({socket}): no answer within {seconds:g} s") from None
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        if isinstance(error, ConnectionRefusedError):
            raise HelperUnreachable(_nobody(socket, "nobody listens")) from None
        raise HelperUnreachable(f"files helper ({socket}): it ended before it answered; see its log") from None
    except OSError as error:
        raise HelperUnreachable(_nobody(socket, error.strerror or str(error))) from None


def _nobody(socket: str, why: str) -> str:
    return f"files helper ({socket}): {why}: systemctl enable --now xdp-gossip-files.service"


async def _exchange(socket: str, template: TemplateConfig, content: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        with contextlib.suppress(ConnectionError):  # it may answer a request that it does not read to the end
            writer.write(protocol.pack({"template": template.name, "size": len(content)}) + content)
            await writer.drain()
        (length,) = protocol.LENGTH.unpack(await reader.readexactly(protocol.LENGTH.size))
        if length > protocol.MAX_FRAME:
            raise ValueError("an answer that is too long")
        answer = protocol.unpack(await reader.readexactly(length))
        if answer.get("state") not in ("applied", "refused", "failed"):
            raise ValueError("an answer without a state")
        return answer
    finally:
        writer.close()
