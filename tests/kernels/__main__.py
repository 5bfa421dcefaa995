# SPDX-License-Identifier: MIT
"""``python -m tests.kernels [--bpf DIR] [--container FILE] [--kernel 6.1]...``: print the matrix; 1 when a program is
rejected.
"""

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
    text = "a program container (dataplane build), in addition to those that the distributions' compilers make"
    parser.add_argument("--container", type=Path, help=text)
    args = parser.parse_args()
    if lacking := missing():
        parser.error(lacking)
    wanted = [each for each in ALL if not args.kernel or each.kernel in args.kernel]
    try:
        more = {args.container.name: args.container.read_bytes()} if args.container else {}
        found = matrix(wanted, args.bpf.resolve(), more=more)
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
