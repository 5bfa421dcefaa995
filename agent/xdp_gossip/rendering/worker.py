# SPDX-License-Identifier: MIT
"""The process that renders: it has Jinja2, and nothing else of the agent but what it asks for through its pipes.

A template that does not end, or eats memory, is ended with this process; the agent starts another. Frames are a length
(4 bytes, big-endian) and msgpack. Documents are only ever data here: nothing of them is compiled as a template.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable

import jinja2
import jinja2.sandbox
import msgpack
import yaml

_LENGTH = struct.Struct(">I")
_NO_DEFAULT = object()


class Missing(Exception):
    """A document that a template needs is not there."""


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """No attribute that begins with an underscore, no change of what is given to it, no loader."""

    def __init__(self) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)


class Pipe:
    """Questions to the agent over two streams."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def read(self) -> Any:
        """The next frame, None at the end."""
        head = self._source.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        return msgpack.unpackb(self._source.read(_LENGTH.unpack(head)[0]), raw=False)

    def write(self, value: Any) -> None:
        """Send a frame."""
        body = msgpack.packb(value, use_bin_type=True)
        self._target.write(_LENGTH.pack(len(body)) + body)
        self._target.flush()

    def ask(self, *question: Any) -> Any:
        """A question and its answer."""
        self.write(["ask", *question])
        return self.read()


def functions(ask: Callable[..., Any]) -> dict[str, Any]:
    """What templates can call."""

    def text(key: str, default: Any = _NO_DEFAULT) -> Any:
        if not isinstance(key, str):
            raise TypeError(f"document: expected a key as text, got {type(key).__name__}")
        value = ask("document", key)
        if value is None:
            if default is _NO_DEFAULT:
                raise Missing(f"document {key!r}: there is none")
            return default
        return decoded(key, value)

    def parsed(parse: Callable[[str], Any], kind: str) -> Callable[..., Any]:
        def function(key: str, default: Any = _NO_DEFAULT) -> Any:
            found = text(key, None) if default is not _NO_DEFAULT else text(key)
            if found is None:
                return default
            try:
                return parse(found)
            except (ValueError, yaml.YAMLError, RecursionError) as error:
                raise ValueError(f"document {key!r}: expected {kind}: {' '.join(str(error).split())[:200]}") from None

        return function

    def documents(prefix: str) -> list[dict[str, Any]]:
        if not isinstance(prefix, str):
            raise TypeError(f"documents: expected a prefix as text, got {type(prefix).__name__}")
        return [
            {"key": key, "version": version, "value": decoded(key, value)}
            for key, version, value in ask("documents", prefix)
        ]

    return {
        "document": text,
        "json": parsed(json.loads, "JSON"),
        "yaml": parsed(yaml.safe_load, "YAML"),
        "documents": documents,
    }


def decoded(key: str, value: bytes) -> str:
    """The text of a document."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"document {key!r}: expected UTF-8 text, got another byte at {error.start}") from None


def render(source: str, most: int, ask: Callable[..., Any]) -> list[Any]:
    """``["done", content]``, or ``["missing" | "error", text]``."""
    environment = Environment()
    try:
        tree = environment.parse(source)
        names = {name.name for name in tree.find_all(jinja2.nodes.Name)}
        values = {name: ask(name) for name in ("nodes", "node") if name in names}
        template = environment.from_string(tree)
        return ["done", _collect(template.generate(**functions(ask), **values), most)]
    except Missing as error:
        return ["missing", str(error)]
    except jinja2.TemplateSyntaxError as error:
        return ["error", f"template: line {error.lineno}: {error.message}"]
    except MemoryError:
        return ["error", "template: it took too much memory"]
    except Exception as error:
        return ["error", f"template: {_line(error)}{' '.join(str(error).split())[:400] or type(error).__name__}"]


def _line(error: BaseException) -> str:
    """Where in the template it happened: the last frame of a compiled template, whose lines Jinja2 maps back."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    return line


def _collect(pieces: Iterator[str], most: int) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece.encode("utf-8")
        if len(content) > most:
            raise ValueError(f"expected at most {most} bytes of output, got more")
    return bytes(content)


def main() -> None:
    """Render what is asked for until the agent closes the pipe."""
    pipe = Pipe(sys.stdin.buffer, sys.stdout.buffer)
    sys.stdout = sys.stderr  # nothing else may come between the frames
    while True:
        job = pipe.read()
        if job is None:
            return
        pipe.write(["begun"])
        pipe.write(render(job["source"], job["most"], pipe.ask))
