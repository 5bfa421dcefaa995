# SPDX-License-Identifier: MIT
"""Reads the sections ``templates:``, ``services:`` and ``files_helper:``, which define the rendered files.

The agent reads these sections as a part of its configuration. The files helper reads only these sections, with
:func:`load_for_helper`, from a file that only root can write. Therefore the agent cannot choose the paths and commands
that the files helper uses.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Set
from dataclasses import dataclass

from ..core.settings import file_keys, setting
from .reader import ConfigError, Problems, Section, parse_yaml, read_text, show

#: Maximum bytes of one rendered file, and of one file in a request to the files helper.
MAX_CONTENT = 16 * 1024 * 1024
#: Maximum bytes of all files of one service.
MAX_SERVICE_CONTENT = 4 * MAX_CONTENT
#: Maximum number of templates of one agent.
MAX_TEMPLATES = 64
#: Placeholder in a validation command for the path of the new file.
PLACEHOLDER = "{file}"
#: Values of ``drift``, the action for a file that was changed by hand: render it again, or only report it.
DRIFT = ("repair", "report")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
#: Pattern of a file mode without set-user-ID, set-group-ID and sticky bit.
_MODE = re.compile(r"0?[0-7]{3}")
_KEYS = (
    *("name", "source", "path", "owner", "group", "mode", "backup"),
    *("validate", "reload", "user", "timeout", "wait", "show_output", "drift", "service"),
)
_SERVICE_KEYS = ("name", "validate", "reload", "user", "timeout", "show_output")
_SECTIONS = ("templates", "services", "files_helper")
_MAX_PATH = 4000
#: Maximum bytes of a file's name. The limit is less than NAME_MAX (255), because a temporary file has the name of its
#: target file plus a suffix.
_MAX_FILE_NAME = 200


@dataclass(frozen=True)
class ServiceConfig:
    """Commands that run when the rendered files of several templates are replaced together.

    ``validate`` runs after all new files of the service have been installed.
    """

    name: str
    validate: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    user: str = "root"
    timeout: float = 30.0
    show_output: bool = False


@dataclass(frozen=True)
class TemplateConfig:
    """One rendered file. ``validate`` and ``reload``: argument lists (empty: no command), which run as ``user``.

    If ``owner``, ``group`` or ``mode`` is None, an existing file keeps its own owner, group or mode. A new file gets
    the owner root, the group root or the mode 0644. ``timeout``: maximum seconds for each command. ``wait``: seconds
    from a change until the file is rendered, so that one rendering covers a burst of changes. ``show_output``: whether
    to report the output of a failed command, in addition to its exit status. ``drift``: action for a file that was
    changed by hand, one of :data:`DRIFT`. ``service``: name of the service to which the file belongs; all files of a
    service are replaced together.
    """

    name: str
    source: str
    path: str
    owner: str | None = None
    group: str | None = None
    mode: int | None = None
    backup: bool = False
    validate: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    user: str = "root"
    timeout: float = 30.0
    wait: float = 0.5
    show_output: bool = False
    drift: str = "repair"
    service: ServiceConfig | None = None


@dataclass(frozen=True)
class HelperConfig:
    """Settings of the files helper: its socket, its state directory, and the agent's user.

    The files helper accepts only requests of the agent's user.
    """

    socket: str = setting(
        "/run/xdp-gossip-files/helper.sock", "Unix socket of the files helper", words="an absolute path"
    )
    user: str = setting(
        "xdp-gossip",
        "user of the agent; the files helper accepts only this user's requests",
        words="the name of a user",
    )
    state_dir: str = setting("/var/lib/xdp-gossip-files", "directory of the files helper", words="an absolute path")


def templates(top: Section, known_services: tuple[ServiceConfig, ...]) -> tuple[TemplateConfig, ...]:
    """Read the section ``templates`` of a configuration, and add its problems to the section's list of problems.

    ``known_services``: the services that a template may name.
    """
    found: list[TemplateConfig] = []
    names: set[str] = set()
    paths: set[str] = set()
    for index, item in enumerate(top.items("templates", most=MAX_TEMPLATES)):
        section = Section(top.problems, f"templates[{index}]", item, _KEYS)
        template = _template(section, known_services)
        for key, value, known in (("name", template.name, names), ("path", template.path, paths)):
            if value and value in known:
                section.expected(key, f"a {key} that no other template has", show(value))
            known.add(value)
        found.append(template)
    return tuple(found)


def services(top: Section) -> tuple[ServiceConfig, ...]:
    """Read the section ``services`` of a configuration, and add its problems to the section's list of problems."""
    found: dict[str, ServiceConfig] = {}
    for index, item in enumerate(top.items("services", most=MAX_TEMPLATES)):
        section = Section(top.problems, f"services[{index}]", item, _SERVICE_KEYS)
        service = ServiceConfig(
            name=_name(section),
            validate=_command(section, "validate"),
            reload=_command(section, "reload"),
            user=_account(section, "user", "root"),
            timeout=section.number("timeout", 30.0, 0.1, 600),
            show_output=section.boolean("show_output", False),
        )
        if PLACEHOLDER in " ".join(service.validate):
            section.expected("validate", f"a command without {PLACEHOLDER}, as there are several files", "one with it")
        if service.name in found:
            section.expected("name", "a name that no other service has", show(service.name))
        found[service.name] = service
    return tuple(found.values())


def _name(section: Section) -> str:
    name = section.text("name", "")
    if not name:
        section.expected("name", "it set", "none")
    elif not _NAME.fullmatch(name):
        section.expected("name", "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit", show(name))
    return name


def files_helper(top: Section) -> HelperConfig:
    """Read the section ``files_helper`` of a configuration, and add its problems to the section's list of problems."""
    section = top.section("files_helper", tuple(file_keys(HelperConfig)))
    socket = section.absolute_path("socket", HelperConfig.socket)
    if len(socket.encode()) > 107:
        section.expected("socket", "a path of at most 107 bytes", str(len(socket.encode())))
    user = _account(section, "user", HelperConfig.user)
    return HelperConfig(socket, user, section.absolute_path("state_dir", HelperConfig.state_dir))


def _template(section: Section, known: tuple[ServiceConfig, ...]) -> TemplateConfig:
    for key in ("source", "path"):
        if not section.given(key):
            section.expected(key, "it set", "none")
    name = _name(section)
    validate = _command(section, "validate")
    service = None
    if section.given("service"):
        wanted = section.choice("service", "", [one.name for one in known])
        service = next((one for one in known if one.name == wanted), None)
        if section.given("reload"):
            section.expected("reload", "none, as the service has one", "a command")
        if validate and PLACEHOLDER not in " ".join(validate):
            section.expected("validate", f"a command with {PLACEHOLDER}; one without belongs to the service", "none")
    return TemplateConfig(
        name=name,
        source=_path(section, "source"),
        path=_path(section, "path"),
        owner=_account(section, "owner", "root") if section.given("owner") else None,
        group=_account(section, "group", "root") if section.given("group") else None,
        mode=_mode(section),
        backup=section.boolean("backup", False),
        validate=validate,
        reload=_command(section, "reload"),
        user=_account(section, "user", "root"),
        timeout=section.number("timeout", 30.0, 0.1, 600),
        wait=section.number("wait", 0.5, 0.0, 60),
        show_output=section.boolean("show_output", False),
        drift=section.choice("drift", "repair", DRIFT),
        service=service,
    )


def _path(section: Section, key: str) -> str:
    path = section.text(key, "", most=_MAX_PATH)
    if not path:
        return ""
    plain = path.startswith("/") and posixpath.normpath(path) == path and not path.startswith("//") and path != "/"
    if not plain or not path.isprintable() or len(os.path.basename(path).encode()) > _MAX_FILE_NAME:
        what = f"an absolute path without '..', '.', '//' or a final '/', its last part at most {_MAX_FILE_NAME} bytes"
        section.expected(key, what, show(path))
        return ""
    return path


def _account(section: Section, key: str, default: str) -> str:
    name = section.text(key, default)
    if not _ACCOUNT.fullmatch(name):
        section.expected(key, "the name of an account", show(name))
        return default
    return name


def _mode(section: Section) -> int | None:
    if not section.given("mode"):
        return None
    text = section.text("mode", "0644")
    if not _MODE.fullmatch(text):
        section.expected("mode", 'three octal digits in quotes, such as "0644"', show(text))
        return None
    return int(text, 8)


def _command(section: Section, key: str) -> tuple[str, ...]:
    """Read the argument list of a command, which runs without a shell."""
    words = section.items(key, most=64)
    if not all(isinstance(word, str) and word and "\0" not in word for word in words):
        section.expected(key, "a list of texts, none of them empty", show(words))
        return ()
    command = tuple(str(word) for word in words)
    if command and not os.path.isabs(command[0]):
        section.expected(key, "a command with its absolute path as the first entry", show(command[0]))
        return ()
    if sum(len(word.encode()) for word in command) > 16_384:
        section.expected(key, "at most 16384 bytes in all", "more")
        return ()
    return command


def load_for_helper(path: str, owner: int = 0) -> tuple[HelperConfig, dict[str, TemplateConfig]]:
    """Read the helper's settings and the templates, by name, from the configuration file at ``path``.

    The file and all its parent directories must belong to root or ``owner`` (the helper's own user), and no other user
    may be able to write to them. Raises :class:`ConfigError`.
    """
    problems = Problems(path)
    _check_trusted(problems, os.path.abspath(path), {0, owner})
    if problems:
        raise ConfigError(problems)
    text, reason = read_text(path, 1 << 20)
    if text is None:
        raise ConfigError([f"{path}: file: expected a readable configuration file, got {reason}"])
    data = parse_yaml(text, problems)
    if not isinstance(data, dict):
        data = {}
        problems = problems or Problems(path)
        problems.expected("file", "a mapping", "something else")
    # The agent and check-config check the sections that the helper does not read.
    sections = {key: data[key] for key in _SECTIONS if key in data}
    top = Section(problems, "", sections, _SECTIONS)
    helper, found = files_helper(top), templates(top, services(top))
    if problems:
        raise ConfigError(problems)
    return helper, {template.name: template for template in found}


def _check_trusted(problems: Problems, path: str, owners: set[int]) -> None:
    """Add a problem if a user not in ``owners`` can change the file at ``path`` or one of its parent directories.

    A user who can change the configuration file could make the files helper run any command.
    """
    real = os.path.realpath(path)
    steps = [real]
    while steps[-1] != "/":
        steps.append(os.path.dirname(steps[-1]))
    for step in steps:
        try:
            found = os.stat(step, follow_symlinks=False)
        except OSError as error:
            problems.expected("file", "a configuration file", f"{error.strerror} ({step})")
            return
        who = who_else_writes(found, owners)
        if who:
            problems.expected("file", "a path that belongs to root and that only root can write", f"{step} {who}")


def who_else_writes(found: os.stat_result, owners: Set[int] | None = None) -> str:
    """Describe which users not in ``owners`` can change a file, or replace files in a directory; "" if only ``owners``
    can.

    ``owners`` defaults to root and the process's own user. A directory with the sticky bit counts as safe, because
    other users cannot replace files of ``owners`` there.
    """
    if found.st_uid not in ({0, os.geteuid()} if owners is None else owners):
        return f"of user {found.st_uid}"
    if found.st_mode & 0o022 and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return f"with mode {stat.S_IMODE(found.st_mode):04o} (chmod go-w)"
    return ""
