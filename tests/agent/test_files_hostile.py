# SPDX-License-Identifier: MIT
"""The files helper in a directory of somebody else's: he exchanges every name there, and is given nothing by it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xdp_gossip.config.templates import TemplateConfig
from xdp_gossip.templates.helper.apply import Result
from xdp_gossip.templates.helper.apply import apply as exchange
from xdp_gossip.templates.helper.own import Own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user attacks")

NOBODY = 65534
SECRET = "the secret of root"
TIMES = 200


class Site:
    """A directory of another user's, a secret of root's, and the helper's own directory, on the same mount or not."""

    def __init__(self, directory: Path, own: Path) -> None:
        self.own = own
        self.etc = directory / "theirs" / "etc"
        self.etc.mkdir(parents=True)
        for path in (self.etc.parent, self.etc):
            os.chown(path, NOBODY, NOBODY)
            path.chmod(0o755)
        self.secret = directory / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.path = self.etc / "site.conf"
        self.seen = directory / "seen"
        self.seen.mkdir(mode=0o700)

    def script(self, text: str) -> str:
        path = self.seen.parent / f"script-{random.randrange(1 << 60)}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def template(self, **more: Any) -> TemplateConfig:
        settings: dict[str, Any] = {"owner": "root", "group": "root", "mode": 0o640, "timeout": 20.0, **more}
        return TemplateConfig("site", "/s", str(self.path), **settings)

    def apply(self, template: TemplateConfig, content: bytes) -> Result:
        return exchange(template, content, Own(str(self.own)))


@pytest.fixture(name="site", params=["one mount", "two mounts"])
def fixture_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    # Another mount than that of temporary directories is there on every system: /dev/shm.
    other = tmp_path if request.param == "one mount" else Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        yield Site(tmp_path, other / "own")
    finally:
        if other != tmp_path:
            shutil.rmtree(other)


@contextlib.contextmanager
def attacker(site: Site) -> Iterator[None]:
    """A process of the directory's owner that takes away and exchanges all names there, without a pause."""
    pid = os.fork()
    if pid:
        try:
            yield
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        return
    try:
        os.chdir(site.etc)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        dice = random.Random(1)
        while True:
            names = [*os.listdir("."), "site.conf", "site.conf~", ".site.conf.xg-former", ".site.conf.xg-none"]
            for name in names:
                with contextlib.suppress(OSError):
                    _exchange(name, str(site.secret), dice)
    finally:
        os._exit(1)


def _exchange(name: str, secret: str, dice: random.Random) -> None:
    away = f"stolen-{dice.randrange(50)}"
    if name.startswith("stolen"):
        # Room for more. Only what is his can go, and empty directories.
        with contextlib.suppress(OSError):
            os.unlink(name)
        with contextlib.suppress(OSError):
            os.rmdir(name)
        return
    # Links and directories in the place of the file end an attempt early: most of the time it is to go on.
    what = dice.choice((0, 1, *(2, 3, 4) * 6))
    with contextlib.suppress(OSError):
        os.rename(name, away)
    if what == 0:
        os.symlink(secret, name)
    elif what == 1:
        os.mkdir(name, 0o777)
    elif what == 2:
        with open(name, "w", encoding="ascii") as stream:
            stream.write("EVIL")
        os.chmod(name, 0o6777)
    elif what == 3:
        os.link(away, name)


@pytest.mark.slow
def test_the_owner_of_the_directory_exchanges_all_names_and_gains_nothing(site: Site) -> None:
    """Only what was rendered is validated and placed, and root's files stay as they are and unread."""
    check = site.script(f'n=$(mktemp "{site.seen}/XXXXXXXX"); cat "$1" > "$n"; stat -c "%u %a" "$1" > "$n.mode"')
    kind = site.template(validate=(check, "{file}"), backup=True)
    before = site.secret.stat()
    results = []
    with attacker(site):
        while len(results) < TIMES or len(list(site.seen.iterdir())) < 40:
            results.append(site.apply(kind, b"rendered %d" % len(results)))
    seen = [path.read_text() for path in site.seen.iterdir() if path.suffix != ".mode"]
    assert all(text.startswith("rendered ") for text in seen), seen
    assert {path.read_text() for path in site.seen.glob("*.mode")} == {"0 640\n"}
    assert not [result for result in results if SECRET in str(result) or "EVIL" in str(result)]
    after = site.secret.stat()
    assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, before.st_uid, before.st_nlink)
    assert site.secret.read_text() == SECRET
    for path in site.etc.iterdir():
        found = path.lstat()
        if found.st_uid == 0 and stat.S_ISREG(found.st_mode):
            # What is root's there was rendered, and has the rights that were configured.
            assert path.read_bytes().startswith(b"rendered ") and found.st_mode & 0o7777 == 0o640, path
    # And when he has had enough, all is well: nothing that he left is in the way for good.
    for name in os.listdir(site.etc):
        path = site.etc / name
        if not path.is_dir() or path.is_symlink():
            path.unlink()
        elif path.lstat().st_uid == NOBODY:
            shutil.rmtree(path)
    assert site.apply(kind, b"rendered at last") == Result("applied", changed=True)
    assert site.path.read_bytes() == b"rendered at last"


def test_the_file_that_was_validated_is_the_one_in_place(site: Site) -> None:
    """The very inode on one mount; on two the content, which the command was given a copy of."""
    site.path.write_text("before")
    note = site.seen / "note"
    check = site.script(f'stat -c "%i %n" "$1" > "{note}"; cat "$1" >> "{note}"')
    assert site.apply(site.template(validate=(check, "{file}")), b"rendered").state == "applied"
    (inode, path), content = note.read_text().split("\n")[0].split(" "), note.read_text().split("\n")[1]
    assert content == "rendered" == site.path.read_text()
    assert path.startswith(f"{site.own}/") and path.endswith(".conf")
    if site.own.parent.stat().st_dev == site.etc.stat().st_dev:
        assert int(inode) == site.path.stat().st_ino
    assert os.listdir(site.etc) == ["site.conf"]


def test_the_owner_of_the_file_cannot_write_it_before_it_is_validated(site: Site) -> None:
    check = site.script(f'stat -c "%u %a" "$1" > "{site.seen}/note"')
    kind = site.template(owner="nobody", mode=0o664, validate=(check, "{file}"))
    assert site.apply(kind, b"rendered").state == "applied"
    assert (site.seen / "note").read_text() == "0 644\n"
    assert (site.path.stat().st_uid, site.path.stat().st_mode & 0o7777) == (NOBODY, 0o664)


def test_another_user_validates_what_he_may_read_and_nothing_else(site: Site) -> None:
    os.chmod(site.own.parent, 0o711)
    for above in (site.etc, *site.etc.parents):
        if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            os.chmod(above, above.stat().st_mode | 0o001)
    kind = site.template(user="nobody", validate=("/bin/cat", "{file}"))
    refused = site.apply(kind, b"not for nobody")
    assert (refused.state, refused.stage) == ("refused", "validation") and not site.path.exists()
    kind = site.template(user="nobody", owner="nobody", mode=0o600, validate=("/bin/cat", "{file}"))
    assert site.apply(kind, b"for nobody") == Result("applied", changed=True)


def test_what_was_cut_off_is_known_wherever_its_traces_are(site: Site) -> None:
    """The helper ends between the exchange and the reload: the former file is not forgotten, and comes back."""
    site.path.write_text("former")
    os.chown(site.path, NOBODY, NOBODY)
    pid = os.fork()
    if not pid:
        try:
            site.apply(site.template(reload=(site.script(f"kill -9 {os.getpid()}"),)), b"new")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
    assert site.path.read_bytes() == b"new"
    log = site.seen / "log"
    reload = site.script(f'cat "{site.path}" >> "{log}"; ! grep -q new "{site.path}"')
    result = site.apply(site.template(reload=(reload,)), b"new")
    assert (result.state, result.stage) == ("refused", "reload") and log.read_text() == "newformer"
    assert site.path.read_text() == "former" and os.listdir(site.etc) == ["site.conf"]


def test_a_former_file_that_somebody_moved_away_is_missed_aloud(tmp_path: Path) -> None:
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        site = Site(tmp_path, other / "own")
        site.path.write_text("former")
        gone = f'mv "{site.etc}"/.xg-* "{site.etc.parent}"; kill -9 '
        pid = os.fork()
        if not pid:
            try:
                site.apply(site.template(reload=(site.script(f"{gone}{os.getpid()}"),)), b"new")
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
        result = site.apply(site.template(reload=("/bin/false",)), b"new")
        assert result.state == "refused" and "another process moved the copy" in result.error
        assert site.path.read_bytes() == b"new"
        assert site.apply(site.template(), b"new") == Result("applied", changed=False)
    finally:
        shutil.rmtree(other)


def test_the_helpers_own_directory_has_to_be_roots_alone(site: Site) -> None:
    site.own.mkdir()
    os.chown(site.own, NOBODY, NOBODY)
    result = site.apply(site.template(), b"x")
    assert result.state == "failed" and "files_helper.state_dir" in result.error


def test_nothing_is_reloaded_with_a_file_that_somebody_else_put_there(site: Site) -> None:
    """The next attempt goes on from the traces of this one, and knows the former file still."""
    site.path.write_text("former")
    log = site.seen / "log"
    replace = site.script(f'rm "{site.path}"; echo evil > "{site.path}"')
    reload = (site.script(f'cat "{site.path}" >> "{log}"'),)
    result = site.apply(site.template(validate=(replace,), reload=reload), b"rendered")
    assert (result.state, result.stage) == ("failed", "write") and "another process replaced it" in result.error
    assert not log.exists()
    assert site.apply(site.template(reload=("/bin/false",)), b"rendered").state == "refused"
    assert site.path.read_text() == "former"
    assert site.apply(site.template(reload=reload), b"rendered").state == "applied" and log.read_text() == "rendered"
    assert os.listdir(site.etc) == ["site.conf"]
