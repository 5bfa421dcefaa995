# SPDX-License-Identifier: MIT
"""XDP Gossip: a cluster's node list and configuration documents, kept by gossip.

``NodeList`` and ``AsyncNodeList`` are the toolkit (see :mod:`xdp_gossip.nodelist`); both load on first use, so that
tools which only need the version stay quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "NodeList": "blocking",
    "AsyncNodeList": "nodelist",
    "Limits": "nodelist",
    "NotReadyError": "nodelist",
    "Published": "nodelist",
    "Change": "changes",
    "Node": "core.types",
    "Member": "core.types",
    "State": "core.types",
    "Document": "core.types",
    "Version": "core.types",
    "Write": "core.types",
    "ProtocolError": "core.interface",
    "StoreError": "store",
    "TransportError": "transport",
}

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
