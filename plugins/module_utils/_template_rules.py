# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks the role's variable xdp_gossip_agent_templates before the role changes a host."""

from __future__ import annotations

import re
import typing as t

_ACCOUNT = (r"[a-z_0-9][A-Za-z0-9_.-]{0,31}\$?\Z", "the name of an account")
#: Key of a template -> pattern of its value, and a description of the expected value for error messages.
TEMPLATE_TEXTS = {
    "name": (
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z",
        "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    ),
    "service": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", "the name of one of xdp_gossip_agent_services"),
    "path": (r"/(?!.*/\.{0,2}(/|\Z))[^\0\n]*[^/\0\n]\Z", "the absolute path of a file, without . and .."),
    "source": (r"/[^\0\n]*[^/\0\n]\Z", "the absolute path of a file on the host"),
    "mode": (r"0?[0-7]{3}\Z", 'three octal digits in quotes, such as "0644"'),
    "owner": _ACCOUNT,
    "group": _ACCOUNT,
    "user": _ACCOUNT,
    "drift": (r"(repair|report)\Z", "repair or report"),
}
TEMPLATE_KEYS = {*TEMPLATE_TEXTS, "content", "src", "validate", "reload", "timeout", "wait", "backup", "show_output"}


def check_templates(templates: list[t.Any]) -> list[str]:
    """Check that every template is complete and valid, and that no two templates have the same name or path.

    Returns one sentence for each problem.
    """
    errors = []
    for index, template in enumerate(templates):
        where = "xdp_gossip_agent_templates[%d]" % index
        if not isinstance(template, dict):
            errors.append("%s: expected a mapping, got %r" % (where, template))
            continue
        given = {key: value for key, value in template.items() if value is not None}
        if given.get("name"):
            where += " (%s)" % given["name"]
        errors += ["%s: %s" % (where, told) for told in check_template(given)]
    for key in ("name", "path"):
        values = [template.get(key) for template in templates if isinstance(template, dict)]
        for value in sorted({value for value in values if isinstance(value, str) and values.count(value) > 1}):
            times = values.count(value)
            errors.append("xdp_gossip_agent_templates: %s: expected each once, got %r %d times" % (key, value, times))
    return errors


def check_template(given: dict[str, t.Any]) -> list[str]:
    """Check the keys and values of one template. Returns one sentence for each problem."""
    errors = []
    unknown = sorted(set(given) - TEMPLATE_KEYS)
    if unknown:
        errors.append("expected the keys %s, got %s" % (", ".join(sorted(TEMPLATE_KEYS)), ", ".join(unknown)))
    for key, (pattern, expected) in TEMPLATE_TEXTS.items():
        if key not in given and key not in ("name", "path"):
            continue
        value = given.get(key)
        if not isinstance(value, str) or not re.match(pattern, value):
            errors.append("%s: expected %s, got %s" % (key, expected, "none" if value is None else repr(value)))
    sources = [key for key in ("content", "src", "source") if key in given]
    if len(sources) != 1:
        errors.append("expected exactly one of content, src and source, got %s" % (" and ".join(sources) or "none"))
    for key in ("validate", "reload"):
        command = given.get(key, ["/"])
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            errors.append("%s: expected a list of arguments, each a text, got %r" % (key, command))
        elif not command[0].startswith("/"):
            errors.append("%s: expected the absolute path of a program first, got %r" % (key, command[0]))
    for key, least, most in (("timeout", 0.1, 600), ("wait", 0, 60)):
        value = given.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            errors.append("%s: expected seconds from %g to %g, got %r" % (key, least, most, value))
    for key in ("backup", "show_output"):
        if not isinstance(given.get(key, False), bool):
            errors.append("%s: expected true or false, got %r" % (key, given[key]))
    return errors
