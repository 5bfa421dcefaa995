# SPDX-License-Identifier: MIT
"""Checks Python and the libraries that the agent imports."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from .finding import Finding, Subject
from .look import Look

_REQUIRED = ("aiohttp", "yaml", "cryptography", "msgpack", "nacl", "prometheus_client")
_OLDEST = (3, 9)

_SAYS = Subject("library", python="error", missing="error")


def examine(look: Look) -> Iterator[Finding]:
    """Yield a finding for Python and one for each library that the agent needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) < _OLDEST:
        yield _SAYS(
            "python",
            f"Python {version}",
            "the agent runs on /usr/bin/python3: a system that has Python 3.9 or later there",
        )
    else:
        yield _SAYS.ok(f"Python {version}")
    for name in _REQUIRED:
        remedy = f"install python3-{name.replace('_', '-')} or its like"
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield _SAYS("missing", f"{name} is missing ({error})", remedy)
        else:
            yield _SAYS.ok(f"{name} {_version(name, module)}")


def _version(name: str, module: Any) -> str:
    from importlib.metadata import PackageNotFoundError, version

    distribution = {"yaml": "PyYAML"}.get(name, name)
    try:
        return version(distribution)
    except PackageNotFoundError:
        return str(getattr(module, "__version__", "of unknown version"))
