# SPDX-License-Identifier: GPL-3.0-or-later
"""Take away and exchange every file in DIRECTORY, as its owner, without a pause, for five minutes.

What is put in the place of a file is a link to a file of root's, or a configuration that has nginx load code.
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
    """Do one of these."""
    if name.startswith("stolen"):
        with contextlib.suppress(OSError):
            os.unlink(name)
        return
    away = f"stolen-{dice.randrange(50)}"
    with contextlib.suppress(OSError):
        os.rename(name, away)
    # A link ends an attempt of the helper early: most of the time it is to go on.
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
