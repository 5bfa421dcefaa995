# SPDX-License-Identifier: MIT
"""Which files of the checkout are part of the collection's artifact: galaxy.yml says which are not."""

from __future__ import annotations

import fnmatch
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).resolve().parents[1]


def ships(path: str) -> bool:
    """Whether a file or directory of the checkout, named by its path from there, goes into the artifact.

    The rule of ``ansible-galaxy collection build``: a pattern of ``build_ignore`` holds for a path as a whole, and a
    directory that it holds for is left out with all that is in it.
    """
    patterns = yaml.safe_load((ROOT / "galaxy.yml").read_text())["build_ignore"]
    whole = PurePosixPath(path)
    parts = [str(part) for part in (whole, *whole.parents) if part.parts]
    return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in patterns)
