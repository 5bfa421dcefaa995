# SPDX-License-Identifier: MIT
"""What a rendered file takes over from the one that it replaces, and files that cannot be replaced."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xdp_gossip.config.templates import TemplateConfig
from xdp_gossip.templates.helper.apply import Result
from xdp_gossip.templates.helper.apply import apply as exchange
from xdp_gossip.templates.helper.own import Own

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: files of other users, mounts")


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc" / "site.conf"


def apply(path: Path, content: bytes, **more: Any) -> Result:
    user = pwd.getpwuid(os.getuid()).pw_name
    kind = TemplateConfig("site", "/s", str(path), **{"user": user, "timeout": 5.0, **more})
    return exchange(kind, content, Own(str(path.parent.parent / "own")))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def access_list(user: int) -> bytes:
    """An access list (acl(5)) as the kernel takes it: rw for the owner and for ``user``, r for the group."""
    none = 0xFFFFFFFF
    entries = [(0x01, 6, none), (0x02, 6, user), (0x04, 4, none), (0x10, 6, none), (0x20, 0, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# -- what stays ----------------------------------------------------------------------------------------------------


def test_what_is_not_configured_stays_as_the_former_file_has_it(path: Path) -> None:
    path.write_bytes(b"former")
    path.chmod(0o604)
    if ROOT:
        os.chown(path, 65534, 65533)
    before = path.stat()
    assert apply(path, b"new") == Result("applied", changed=True)
    after = path.stat()
    assert path.read_bytes() == b"new" and after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid, mode(path)) == (before.st_uid, before.st_gid, 0o604)
    assert apply(path, b"new", mode=0o640) == Result("applied", changed=True)
    assert (path.stat().st_uid, mode(path)) == (before.st_uid, 0o640)


def test_a_new_file_is_the_helpers_own_and_readable(path: Path) -> None:
    apply(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (os.getuid(), os.getegid(), 0o644)


@needs_root
def test_owner_and_group_as_configured_whatever_was_there(path: Path) -> None:
    path.write_bytes(b"former")
    os.chown(path, 65534, 65534)
    assert apply(path, b"new", owner="root", group=grp.getgrgid(0).gr_name, mode=0o640).state == "applied"
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (0, 0, 0o640)


def test_access_list_and_extended_attributes_stay(path: Path) -> None:
    path.write_bytes(b"former")
    try:
        os.setxattr(path, "user.note", b"by hand")
        os.setxattr(path, "system.posix_acl_access", access_list(65534))
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")
    before = mode(path)
    assert apply(path, b"new") == Result("applied", changed=True)
    assert os.getxattr(path, "user.note") == b"by hand"
    assert os.getxattr(path, "system.posix_acl_access") == access_list(65534)
    assert mode(path) == before
    # A mode that is configured bounds what the list gives (its mask), and the list stays.
    assert apply(path, b"newer", mode=0o640).state == "applied"
    assert mode(path) == 0o640 and "system.posix_acl_access" in os.listxattr(path)


def test_no_right_that_the_former_file_had_for_its_content_stays(path: Path) -> None:
    path.write_bytes(b"former")
    path.chmod(0o4755)
    assert apply(path, b"new").state == "applied"
    assert mode(path) == 0o755
    if ROOT:
        os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
        assert apply(path, b"newer").state == "applied"
        assert "security.capability" not in os.listxattr(path)


@pytest.mark.parametrize(
    ("former", "new", "kept"), [(0o644, 0o600, 0o600), (0o600, 0o644, 0o600), (0o755, 0o640, 0o640)]
)
def test_the_kept_file_is_readable_by_nobody_who_cannot_read_the_new_one(
    path: Path, former: int, new: int, kept: int
) -> None:
    path.write_bytes(b"former")
    path.chmod(former)
    assert apply(path, b"new", mode=new, backup=True).state == "applied"
    backup = path.with_name("site.conf~")
    assert (backup.read_bytes(), mode(backup), mode(path)) == (b"former", kept, new)


def test_a_kept_file_that_has_other_names_is_not_changed_under_them(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"former")
    os.link(path, tmp_path / "other")
    assert apply(path, b"new", mode=0o600, backup=True).state == "applied"
    assert mode(tmp_path / "other") == 0o644 and not path.with_name("site.conf~").exists()


# -- what a command said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["validation", "in place", "reload"])
@pytest.mark.parametrize("shows", [False, True])
def test_what_a_command_said_is_held_back_unless_the_template_says_otherwise(
    path: Path, stage: str, shows: bool
) -> None:
    say = ("/bin/sh", "-c", "echo password; exit 4")
    commands = {"validation": {"validate": (*say, "{file}")}, "in place": {"validate": say}, "reload": {"reload": say}}
    result = apply(path, b"x", show_output=shows, **commands[stage])
    assert result.state == "refused" and "exit code 4" in result.error and "password" not in result.error
    assert result.output == ("password" if shows else "") and ("held back" in result.error) is not shows


# -- what cannot be replaced ---------------------------------------------------------------------------------------


def test_a_symbolic_link_is_refused_with_what_to_do(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"mine")
    path.symlink_to(tmp_path / "real")
    result = apply(path, b"x")
    assert (result.state, result.stage) == ("refused", "write") and "give the path that it leads to" in result.error
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path)
    result = apply(path, b"x")
    assert (result.state, result.stage) == ("refused", "write") and "give the path that it leads to" in result.error
    assert (tmp_path / "real").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_another_kind_of_file_is_refused(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    result = apply(path, b"x")
    assert (result.state, result.stage) == ("refused", "write") and "another kind of file: remove it" in result.error


def test_a_directory_that_is_not_there_yet_is_waited_for(path: Path) -> None:
    path.parent.rmdir()
    result = apply(path, b"x")
    assert (result.state, result.stage) == ("failed", "write") and "No such file or directory" in result.error
    path.parent.mkdir()
    assert apply(path, b"x").state == "applied"


@needs_root
def test_a_file_that_is_a_mount_is_refused_with_what_to_do(path: Path, tmp_path: Path) -> None:
    """As containers have them. Nothing can be renamed onto a mount (EBUSY), today or later."""
    path.write_bytes(b"below")
    (tmp_path / "real").write_bytes(b"mounted")
    program = (
        "from xdp_gossip.config.templates import TemplateConfig\n"
        "from xdp_gossip.templates.helper.own import Own\n"
        "from xdp_gossip.templates.helper.apply import apply\n"
        f"print(apply(TemplateConfig('site', '/s', {str(path)!r}), b'x', Own({str(tmp_path / 'own')!r})))"
    )
    line = f'mount --bind "{tmp_path}/real" "{path}" && exec "$0" -c "$1"'
    words = ["unshare", "--mount", "sh", "-c", line, sys.executable, program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert "state='refused'" in done.stdout and "mount its directory" in done.stdout, done
    assert os.listdir(path.parent) == ["site.conf"] and path.read_bytes() == b"below"


@needs_root
def test_what_can_heal_is_tried_again(path: Path) -> None:
    path.write_bytes(b"former")
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        result = apply(path, b"new")
    finally:
        subprocess.run([chattr, "-i", path], check=True)
    assert (result.state, result.stage) == ("failed", "write") and "chattr -i" in result.error
    assert path.read_bytes() == b"former" and os.listdir(path.parent) == ["site.conf"]
    assert apply(path, b"new").state == "applied"
