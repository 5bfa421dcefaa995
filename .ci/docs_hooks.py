# SPDX-License-Identifier: MIT
"""What `make docs` does to the pages on their way to the site; MkDocs calls the functions by their names.

Pages link to files of the checkout, which are no part of the site: such a link leads to the repository there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The text of a page with links that leave docs/ turned to the repository. Raises ValueError for a dead one."""
    docs = Path(config["docs_dir"])
    here = (docs / page.file.src_uri).parent

    def turned(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / found[1]))
        if docs in (target, *target.parents):
            return found[1]
        if not target.exists():
            raise ValueError(f"{page.file.src_uri}: expected a file at {found[1]}, found none")
        return f"{config['extra']['files']}/{target.relative_to(docs.parent).as_posix()}"

    return _LINK.sub(turned, markdown)
