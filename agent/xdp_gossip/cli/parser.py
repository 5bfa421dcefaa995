# SPDX-License-Identifier: MIT
"""The command line parser: argument types, help output, and error messages of one line."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from ..core.shown import shown
from ..core.types import MAX_KEY, check_key
from .common import DEFAULT_CONFIG, DEFAULT_SOCKET, USAGE, CommandError


class Help(argparse.HelpFormatter):
    """A help formatter that fills paragraphs.

    Lines that begin with a space, such as examples, are broken only where a shell allows a line break.
    """

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None) -> str:
        """Write "[options]" in the usage line instead of all option names, which would fill several lines.

        The help text lists the options after the usage line.
        """
        if usage is None:
            options = ["[options]"] if any(action.option_strings for action in actions) else []
            places = [self._place(action) for action in actions if not action.option_strings]
            usage = " ".join(["%(prog)s", *options, *places])
        text = ("usage: " if prefix is None else prefix) + usage % {"prog": self._prog}
        lines = textwrap.wrap(text, max(self._width, 20), subsequent_indent="    ", break_long_words=False)
        return "\n".join(lines) + "\n\n"

    def _place(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return f"{action.metavar} ..."
        return {"?": f"[{action.metavar}]", "+": f"{action.metavar}..."}.get(str(action.nargs), str(action.metavar))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for paragraph in text.split("\n\n"):
            lines = paragraph.splitlines()
            block: list[str] = []
            for line in lines:
                if line.startswith(" ") or not block or block[-1].startswith(" "):
                    block.append(line)
                else:
                    block[-1] += f" {line}"
            filled += ["\n".join(_broken(line, width) for line in block)]
        return "\n\n".join(filled)


def _broken(line: str, width: int) -> str:
    if not line.startswith(" "):
        return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    wrapper = textwrap.TextWrapper(width - 2, subsequent_indent="      ", break_long_words=False)
    wrapper.break_on_hyphens = False
    return " \\\n".join(wrapper.wrap(line))


class Parser(argparse.ArgumentParser):
    """A parser that raises :class:`CommandError` and checks that arguments without a type are valid UTF-8.

    ``takes_command``: whether another program's command line may follow ``--``. ``examples``: example command lines.
    """

    takes_command = False
    examples: Sequence[str] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", Help)
        super().__init__(*args, **options)
        # An argument without a type is sent to the agent, which accepts only UTF-8.
        self.register("type", None, text)

    def add_subparsers(self, **options: Any) -> Any:
        """Add subcommands as argparse does, but pass all words after a command's name to the command's parser."""
        action = super().add_subparsers(**options)
        action.type = raw
        return action

    def error(self, message: str) -> Any:
        """Raise :class:`CommandError` with the parser's message."""
        raise CommandError(f"{message} (see '{self.prog} --help')", USAGE)

    def parse_known_args(  # type: ignore[override]  # of the forms that argparse declares, the one that it uses
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but store the words after ``--`` as ``command`` if the parser takes a command."""
        words = list(args or [])
        if not self.takes_command or "--" not in words:
            return super().parse_known_args(args, namespace)
        at = words.index("--")
        found, rest = super().parse_known_args(words[:at], namespace)
        found.command = words[at + 1 :]
        if not found.command:
            self.error("expected a command behind --")
        return found, rest


def add_command(
    commands: Any,
    name: str,
    summary: str,
    description: str,
    examples: Sequence[str],
    common: argparse.ArgumentParser | None = None,
    **options: Any,
) -> Any:
    """Add a parser for one command.

    ``summary`` describes the command in lists of commands; ``examples`` are command lines.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        parents=[common] if common else [],
        **options,
    )
    parser.examples = examples
    return parser


def connection_options() -> argparse.ArgumentParser:
    """Return a parent parser with the options that select an agent.

    The options are accepted before and after the command.
    """
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parent.add_argument_group("agent and output")
    where = group.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="PATH", type=path, help=f"Unix socket of the agent ({DEFAULT_SOCKET})")
    where.add_argument("--endpoint", metavar="URL", type=some_text, help="http://, https:// or unix:// URL of the API")
    group.add_argument("--token-file", metavar="FILE", type=path, help="file with the API token, for --endpoint")
    text = "file with the CA certificates that verify an https endpoint"
    group.add_argument("--ca-file", metavar="FILE", type=path, help=text)
    group.add_argument("--json", action="store_true", help="print JSON, also for errors")
    group.add_argument("--wide", action="store_true", help="do not cut tables on a terminal")
    return parent


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option --config, which names the configuration file."""
    text = f"configuration file of the agent (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", metavar="FILE", type=path, default=DEFAULT_CONFIG, help=text)


def raw(word: str) -> str:
    """Argument type for arbitrary bytes: a document's value, or words that another parser or program checks later."""
    return word


def path(word: str) -> str:
    """Argument type for a file name, which may contain any bytes."""
    if not word:
        raise argparse.ArgumentTypeError("expected the name of a file, got none")
    return word


def text(word: str) -> str:
    """Argument type for text that is sent to the agent: valid UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"expected UTF-8, got {shown(word)}") from None
    return word


def some_text(word: str) -> str:
    """Argument type for text of at least one character."""
    if not word:
        raise argparse.ArgumentTypeError("expected text, got none")
    return text(word)


def version(word: str) -> str:
    """Argument type for a document version in the agent's notation."""
    if not (word and word.isascii() and word.isprintable() and len(word) <= MAX_KEY):
        raise argparse.ArgumentTypeError(f"expected a version that history lists, got {shown(word)}")
    return word


def prefix(word: str) -> str:
    """Argument type for the beginning of a key, which may be empty."""
    if len(text(word).encode()) > MAX_KEY:
        raise argparse.ArgumentTypeError(f"expected at most {MAX_KEY} bytes, got {len(word.encode())}")
    return word


def key(word: str) -> str:
    """Argument type for a document key."""
    try:
        return check_key(text(word))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(word: str) -> float:
    """Argument type for a duration of at least 0 seconds."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {shown(word)}")
    return number


def number_from(least: int) -> Callable[[str], int]:
    """Build an argument type for an integer of at least ``least``."""

    def number(word: str) -> int:
        found = int(word) if word.isascii() and word.isdigit() and len(word) < 20 else least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {shown(word)}")
        return found

    return number


def wait_for(word: str) -> str:
    """Argument type of --wait: all, majority or a number from 1."""
    if word in ("all", "majority") or (word.isascii() and word.isdigit() and 1 <= int(word[:7]) <= 999_999):
        return word
    raise argparse.ArgumentTypeError(f"expected all, majority or a number of members, got {shown(word)}")
