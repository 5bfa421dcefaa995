# SPDX-License-Identifier: MIT
"""Run a Python snippet, which may also use ``await`` outside of functions, as in ``python3 -m asyncio``.

program.py FILE
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys


def main(path: str) -> None:
    """Run the file as __main__."""
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    found = eval(code, {"__name__": "__main__"})
    if inspect.iscoroutine(found):
        asyncio.run(found)


if __name__ == "__main__":
    main(sys.argv[1])
