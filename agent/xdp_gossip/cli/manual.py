# SPDX-License-Identifier: MIT
"""Generates a release's shell completions and man page from the parser: ``python -m xdp_gossip.cli.manual DIRECTORY``.

The output is the same on every machine, because it does not depend on the terminal, the clock or argparse's version.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from .completion import script
from .main import build_parser
from .parser import Parser

#: Shell -> path of its completion script below a directory such as /usr/local/share.
_SCRIPTS = {
    "bash": "bash-completion/completions/xdp-gossip",
    "zsh": "zsh/site-functions/_xdp-gossip",
    "fish": "fish/vendor_completions.d/xdp-gossip.fish",
}
_FILES = (
    ("/etc/xdp-gossip/agent.yml", "Configuration of the agent."),
    ("/run/xdp-gossip/api.sock", "Socket of the agent, for root and the group xdp-gossip."),
)
_ENVIRONMENT = (
    ("XDP_GOSSIP_ENDPOINT", "URL of the agent, when neither --socket nor --endpoint is given."),
    ("XDP_GOSSIP_TOKEN", "API token, when --token-file is not given."),
    ("XDP_GOSSIP_TRACEBACK", "If set, an internal error ends with a traceback."),
    ("NO_COLOR", "If set, nothing is coloured."),
)
_STATUSES = (
    ("0", "Done."),
    ("1", "Failed, not found, not converged, or something that doctor found."),
    ("2", "Wrong usage or configuration."),
    ("3", "The agent cannot be reached; of dataplane: nothing is up."),
    ("4", "Version conflict."),
    ("129, 130, 143", "Ended by SIGHUP, SIGINT, SIGTERM."),
    ("141", "The reader of the output has gone."),
)


def files() -> dict[str, str]:
    """Return the content of each generated file, by the file's path below ``share``."""
    scripts = {name: script(shell) for shell, name in _SCRIPTS.items()}
    return {"man/man1/xdp-gossip.1": page(), **scripts}


def page() -> str:
    """Return the man page, which uses the macros of man(7)."""
    parser = build_parser()
    return "\n".join(_page(parser)) + "\n"


def _page(parser: Parser) -> Iterator[str]:
    yield '.\\" SPDX-License-Identifier: MIT'
    yield f'.TH XDP\\-GOSSIP 1 "" "xdp\\-gossip {_escaped(__version__)}" "User Commands"'
    yield ".SH NAME"
    yield r"xdp\-gossip \- the node list and the configuration documents of a cluster"
    yield ".SH SYNOPSIS"
    yield r"\fBxdp\-gossip\fR [\fIOPTION\fR...] \fICOMMAND\fR [\fIARGUMENT\fR...]"
    yield ".SH DESCRIPTION"
    yield _text(str(parser.description))
    yield "The command runs the agent and talks to a running one."
    yield ".SH OPTIONS"
    yield "They may stand before or after the command."
    yield from _arguments(parser, set())
    yield ".SH COMMANDS"
    common = {option for action in parser._actions for option in action.option_strings}
    yield from _commands(parser, common)
    for title, entries in (("EXIT STATUS", _STATUSES), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for name, text in entries:
            yield from (".TP", rf"\fB{_escaped(name)}\fR", _text(text))


def _commands(parser: argparse.ArgumentParser, common: set[str]) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for command in action.choices.values():
            if any(isinstance(inner, argparse._SubParsersAction) for inner in command._actions):
                yield from _commands(command, common)
                continue
            words = command.prog.split(" ", 1)[1]
            places = [_usage(one) for one in command._actions if not one.option_strings]
            more = [r"\-\-", r"\fICOMMAND\fR..."] if command.takes_command else []
            yield f'.SS "{_escaped(words)}"'
            options = [r"[\fIOPTION\fR...]"] if _own(command, common) else []
            yield " ".join([rf"\fBxdp\-gossip {_escaped(words)}\fR", *options, *places, *more])
            yield from (".PP", _text(str(command.description)))
            yield from _arguments(command, common)
            yield from (".PP", "Examples:", ".PP", ".nf", ".RS 4")
            yield from (_line(example) for example in command.examples)
            yield from (".RE", ".fi")


def _own(parser: argparse.ArgumentParser, common: set[str]) -> list[argparse.Action]:
    """Return the options of ``parser`` that are not in ``common``."""
    found = [one for one in parser._actions if one.option_strings and one.help != argparse.SUPPRESS]
    return [one for one in found if not common & set(one.option_strings)]


def _arguments(parser: argparse.ArgumentParser, common: set[str]) -> Iterator[str]:
    places = [one for one in parser._actions if not one.option_strings and one.help and one.nargs != argparse.PARSER]
    for action in [*places, *_own(parser, common)]:
        yield ".TP"
        if action.option_strings:
            value = "" if action.nargs == 0 else rf" \fI{_escaped(str(action.metavar))}\fR"
            yield ", ".join(rf"\fB{_escaped(name)}\fR" for name in action.option_strings) + value
        else:
            yield rf"\fI{_escaped(str(action.metavar))}\fR"
        yield _text(str(action.help) % {"default": action.default, "prog": parser.prog})


def _usage(action: argparse.Action) -> str:
    name = rf"\fI{_escaped(str(action.metavar))}\fR"
    return {"?": f"[{name}]", "+": f"{name}..."}.get(str(action.nargs), name)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace('"', "\\(dq")


def _text(text: str) -> str:
    """Format a paragraph so that roff does not interpret any of its lines as a request."""
    return "\n".join(_line(line) for line in textwrap.wrap(text, 72, break_long_words=False, break_on_hyphens=False))


def _line(text: str) -> str:
    found = _escaped(text)
    return f"\\&{found}" if found.startswith((".", "\\(aq")) else found


def main(arguments: list[str]) -> int:
    """Write the generated files below the directory ``arguments[0]``."""
    for name, content in files().items():
        path = Path(arguments[0], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
