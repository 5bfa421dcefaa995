# SPDX-License-Identifier: MIT
"""``python -m tests.kernels [--bpf DIR] [--kernel 6.1]...``: print the matrix; 1 when a program is rejected."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .distributions import ALL, BULLSEYE, Unavailable, missing
from .matrix import BPF, matrix, table


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="tests.kernels", description=__doc__)
    names = [each.kernel for each in ALL]
    parser.add_argument("--bpf", type=Path, default=BPF, help="the sources (default: this checkout's)")
    parser.add_argument("--kernel", action="append", choices=names, help="(default: all)")
    args = parser.parse_args()
    if lacking := missing():
        parser.error(lacking)
    wanted = [each for each in ALL if not args.kernel or each.kernel in args.kernel]
    try:
        found = matrix(wanted, args.bpf.resolve())
    except Unavailable as error:
        print(f"not available: {error}", file=sys.stderr)
        return 2
    print(table(found))
    must = [
        programs for version, results in found.items() if version != BULLSEYE.kernel for programs in results.values()
    ]
    return 0 if all(told["accepted"] for programs in must for told in programs.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
