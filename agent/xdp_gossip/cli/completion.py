# SPDX-License-Identifier: MIT
"""The command ``completion``: prints completion scripts for bash, zsh and fish, and the candidates for these scripts.

The scripts contain no candidates. Each script calls the command ``completion``, which takes commands and options from
the argument parser, and keys, versions, addresses and zones from the agent. So the candidates are always current.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from .common import OK, call
from .parser import Parser, add_command, raw

if TYPE_CHECKING:
    from ..api.client import Client

SHELLS = ("bash", "zsh", "fish")
#: Seconds to wait for the agent's answer. The limit is short, because a user waits at the keyboard.
_TIMEOUT = 2.0
#: If more than this many keys match, each key is completed only up to its next slash.
_MANY = 100
#: Output lines that make the script complete file or directory names. Each of the output lines begins with a colon and
#: contains a space, so it differs from every candidate.
FILES, DIRECTORIES = ": files", ": directories"
_OF_THE_SHELL = {"FILE": FILES, "PATH": FILES, "DIR": DIRECTORIES}
#: Option -> fixed candidates for its value.
_WORDS = {
    "--wait": ("all", "majority"),
    "--content-type": ("json", "yaml", "text", "raw"),
    "--endpoint": ("http://", "https://", "unix://"),
    "--expires-in": (),
}

Candidates = Iterable[tuple[str, str]]


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``completion`` to the parser."""
    completion = add_command(
        commands,
        "completion",
        "print a script for completion in bash, zsh or fish",
        "Print a script with which a shell completes xdp-gossip's command line: commands, options, and the document "
        "keys, versions, addresses and zones that the agent knows.",
        [
            "source <(xdp-gossip completion bash)",
            "xdp-gossip completion zsh >~/.zfunc/_xdp-gossip",
            "xdp-gossip completion fish >~/.config/fish/completions/xdp-gossip.fish",
        ],
        common,
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    # Internal options for the scripts: bash passes the line up to the cursor; zsh and fish pass the words up to the
    # cursor.
    completion.add_argument("--line", type=raw, help=argparse.SUPPRESS)
    completion.add_argument("--words", type=raw, nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    completion.set_defaults(handler=run)


def script(shell: str) -> str:
    """Return the completion script for ``shell``."""
    return resources.files(__package__).joinpath(f"completion.{shell}").read_text(encoding="utf-8")


def run(args: argparse.Namespace) -> int:
    """Print a completion script, or the candidates for the end of a command line.

    Returns exit code 0, even if there are no candidates.
    """
    if args.line is not None:
        sys.stdout.writelines(f"{line}\n" for line in _for_bash(args.line))
    elif args.words is not None:
        words = args.words or [""]
        sys.stdout.writelines(f"{value}\t{text}\n" if text else f"{value}\n" for value, text in candidates(words))
    else:
        sys.stdout.write(script(args.shell))
    return OK


# -- what may stand there --------------------------------------------------------------------------------------------


def candidates(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the candidates for the last word of ``words``, each with a description or "".

    The list ``words`` contains the words after ``xdp-gossip``.
    """
    from .main import build_parser

    parser: Parser = build_parser()
    *before, word = words
    if "--" in before:
        return [(FILES, "")]  # words after -- belong to another program
    given: dict[str, str] = {}
    places = [action for action in parser._actions if not action.option_strings]
    option: argparse.Action | None = None
    for found in before:
        if option is not None:
            given[option.dest] = found
            option = None
        elif found.startswith("-") and found != "-":
            name, equals, value = found.partition("=")
            action = parser._option_string_actions.get(name)
            if action is not None and action.nargs != 0:
                if equals:
                    given[action.dest] = value
                else:
                    option = action
        elif places:
            place = places[0]
            if isinstance(place, argparse._SubParsersAction):
                if found not in place.choices:
                    return []
                parser = place.choices[found]
                places = [action for action in parser._actions if not action.option_strings]
                continue
            given[place.dest] = found
            if place.nargs != "+":
                places = places[1:]
    if option is not None:
        return _fitting(_values(option, word, given), word)
    if word.startswith("--") and "=" in word:
        name, _equals, value = word.partition("=")
        action = parser._option_string_actions.get(name)
        values = [] if action is None or action.nargs == 0 else _fitting(_values(action, value, given), value)
        return [(f"{name}={found}" if found not in (FILES, DIRECTORIES) else found, text) for found, text in values]
    options = _fitting(_options(parser), word) if word.startswith("-") else []
    return options + (_fitting(_values(places[0], word, given), word) if places and word[:2] != "--" else [])


def _fitting(found: Candidates, word: str) -> list[tuple[str, str]]:
    return [(value, text) for value, text in found if value.startswith(word) or value in (FILES, DIRECTORIES)]


def _options(parser: Parser) -> Candidates:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield from ((name, _described(action)) for name in action.option_strings if name.startswith("--"))


def _described(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default, "prog": "xdp-gossip"}


def _values(action: argparse.Action, word: str, given: dict[str, str]) -> Candidates:
    """Return the candidates for an option's value or a positional argument.

    Keys, versions, addresses and zones are read from the agent.
    """
    if isinstance(action, argparse._SubParsersAction):
        return [(str(choice.dest), choice.help or "") for choice in action._choices_actions]
    if action.choices is not None:
        return [(str(choice), "") for choice in action.choices]
    if action.metavar in _OF_THE_SHELL:
        return [(_OF_THE_SHELL[action.metavar], "")]
    for name in action.option_strings:
        if name in _WORDS:
            return [(value, "") for value in _WORDS[name]]
    from_agent = {"KEY": _keys, "PREFIX": _keys, "VERSION": _versions, "ADDRESS:PORT": _addresses, "ZONE": _zones}
    asked = from_agent.get(str(action.metavar))
    found: list[tuple[str, str]] = []
    if asked is None:
        return found

    async def work(client: Client) -> int:
        import asyncio

        found.extend(await asyncio.wait_for(asked(client, word, given), _TIMEOUT))
        return OK

    # Errors are suppressed, because a message would appear in the middle of the line that the user is typing.
    with contextlib.suppress(Exception):
        call(argparse.Namespace(**given), work, timeout=_TIMEOUT)
    return found


async def _keys(client: Client, word: str, given: dict[str, str]) -> list[tuple[str, str]]:
    keys = [document["key"] async for document in client.each_document(word)]
    if len(keys) <= _MANY:
        return [(key, "") for key in keys]
    return [(key, "") for key in dict.fromkeys(_to_slash(key, len(word)) for key in keys)]


def _to_slash(key: str, begin: int) -> str:
    """Return ``key`` up to and including its first slash at or after ``begin``; the whole key if no slash follows."""
    at = key.find("/", begin)
    return key if at < 0 else key[: at + 1]


async def _versions(client: Client, word: str, given: dict[str, str]) -> list[tuple[str, str]]:
    versions = (await client.history(given["key"]))["versions"] if "key" in given else []
    return [(entry["version"], f"{entry['published_at']} {entry['author']}") for entry in versions]


async def _addresses(client: Client, word: str, given: dict[str, str]) -> list[tuple[str, str]]:
    from .tables import address
    from .text import printable

    nodes = [node async for node in client.each_node("all")]
    return [(address(node), printable(node["name"])) for node in nodes if not node["local"]]


async def _zones(client: Client, word: str, given: dict[str, str]) -> list[tuple[str, str]]:
    """Complete the last zone of a list separated by commas."""
    counts = Counter([str(node.get("zone", "")) async for node in client.each_node("all")])
    before = word.rpartition(",")[0].split(",") if "," in word else []
    # Programs that use the library choose the names of their zones: a name could contain control characters.
    found = sorted(zone for zone in counts if zone and zone.isprintable() and "," not in zone and zone not in before)
    return [(",".join([*before, zone]), f"{counts[zone]} node{'s' * (counts[zone] != 1)}") for zone in found]


# -- bash ------------------------------------------------------------------------------------------------------------


def _for_bash(line: str) -> list[str]:
    """Return the quoted candidates for the last word of ``line``; omit the word's beginning if bash keeps it."""
    try:
        words, quote = _split(line)
    except ValueError:
        return []
    found = [value for value, _text in candidates(words[1:] or [""])]
    if found and found[0] in (FILES, DIRECTORIES):
        return found
    word = words[-1]
    # Outside of quotes, bash replaces only the part of a word after the last character that is in COMP_WORDBREAKS.
    breaks = os.environ.get("COMP_WORDBREAKS", " \t\n\"'><=;|&(:")
    cut = 0 if quote else max((word.rfind(char) + 1 for char in breaks if char not in " \t\n\"'"), default=0)
    return [_quoted(value[cut:], quote) for value in found]


def _split(line: str) -> tuple[list[str], str]:
    """Return the words of an unfinished line, and the open quote around the last word ("" if no quote is open)."""
    for quote in ("", '"', "'"):
        with contextlib.suppress(ValueError):
            lexer = shlex.shlex(line + quote, posix=True, punctuation_chars=False)
            lexer.whitespace_split = True
            lexer.commenters = ""
            words = list(lexer)
            ends = not quote and line[-1:].isspace() and not line.endswith("\\ ")
            return [*words, ""] if ends or not words else words, quote
    raise ValueError("expected a line whose quotes can be closed")


def _quoted(value: str, quote: str) -> str:
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote == '"':
        return "".join(f"\\{char}" if char in '"\\$`' else char for char in value)
    # shlex.quote is not used: bash compares candidates with the typed text, which has no quotes around it.
    return "".join(char if char.isalnum() or char in "@%+=:,./-_" else f"\\{char}" for char in value)
