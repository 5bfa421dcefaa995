# SPDX-License-Identifier: MIT
"""XDP Gossip: a gossip protocol that replicates a cluster's node list and configuration documents.

Programs use the classes ``NodeList`` and ``AsyncNodeList`` (see :mod:`xdp_gossip.nodelist`). Both classes are imported
on first use, so that tools which only need the version start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, which do not execute __getattr__
    from .blocking import NodeList as NodeList
    from .core.interface import ProtocolError as ProtocolError
    from .core.settings import Limits as Limits
    from .core.signers import Signer as Signer
    from .core.types import Document as Document
    from .core.types import Member as Member
    from .core.types import Node as Node
    from .core.types import Signed as Signed
    from .core.types import State as State
    from .core.types import Version as Version
    from .core.types import Write as Write
    from .node.changes import Change as Change
    from .nodelist import AsyncNodeList as AsyncNodeList
    from .nodelist import NotReadyError as NotReadyError
    from .nodelist import Published as Published
    from .signing.signers import make_signer as make_signer
    from .store.sqlite import StoreError as StoreError
    from .transport import TransportError as TransportError

__version__ = "0.1.0"

_EXPORTS = {
    "NodeList": "blocking",
    "AsyncNodeList": "nodelist",
    "Limits": "core.settings",
    "NotReadyError": "nodelist",
    "Published": "nodelist",
    "Change": "node.changes",
    "Node": "core.types",
    "Member": "core.types",
    "State": "core.types",
    "Document": "core.types",
    "Version": "core.types",
    "Write": "core.types",
    "Signed": "core.types",
    "Signer": "core.signers",
    "make_signer": "signing.signers",
    "ProtocolError": "core.interface",
    "StoreError": "store.sqlite",
    "TransportError": "transport",
}

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
