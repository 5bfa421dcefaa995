# SPDX-License-Identifier: MIT
"""The worker process that renders templates with Jinja2. The process receives all its input from the agent through
pipes. If a template takes too long or uses too much memory, the agent kills this process and starts another one. Each
frame is a length (4 bytes, big-endian) followed by a msgpack value. The process never compiles a document as a
template.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Callable

import jinja2
import jinja2.sandbox
import msgpack
import yaml

from .filters import FILTERS, TESTS

_LENGTH = struct.Struct(">I")
_NO_DEFAULT = object()
#: First line of a template with Jinja2 options, as in Ansible. The line is not part of the output.
_HEADER = re.compile(r"#jinja2:(?P<options>[^\n]*)\n?")
_STRINGS = tuple(f"{kind}_{end}_string" for kind in ("block", "variable", "comment") for end in ("start", "end"))
_FLAGS = ("trim_blocks", "lstrip_blocks")


class Missing(Exception):
    """Raised if a document that a template needs does not exist."""


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A Jinja2 sandbox. Templates cannot access attributes that begin with an underscore, cannot change their input and
    cannot include other templates.

    The defaults are those of Ansible's module ``template``; for example, the newline after a block is removed.
    ``options``, from the first line of the template, override the defaults.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        settings = {"trim_blocks": True, "keep_trailing_newline": True, **options}
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False, **settings)
        self.filters.update(FILTERS)
        self.tests.update(TESTS)


class Pipe:
    """A connection to the agent: frames over two streams."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def read(self) -> Any:
        """Read the next frame; None at the end of the stream."""
        head = self._source.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        return msgpack.unpackb(self._source.read(_LENGTH.unpack(head)[0]), raw=False)

    def write(self, value: Any) -> None:
        """Send ``value`` as one frame."""
        body = msgpack.packb(value, use_bin_type=True)
        self._target.write(_LENGTH.pack(len(body)) + body)
        self._target.flush()

    def ask(self, *question: Any) -> Any:
        """Send a request to the agent and return its answer."""
        self.write(["ask", *question])
        return self.read()


def functions(ask: Callable[..., Any]) -> dict[str, Any]:
    """Return the functions that templates can call. These functions send their requests to the agent with ``ask``."""

    def held(key: str, optional: bool) -> bytes | None:
        if not isinstance(key, str):
            raise TypeError(f"document: expected a key as text, got {type(key).__name__}")
        value: bytes | None = ask("document", key)
        if value is None and not optional:
            raise Missing(f"document {key!r}: there is none")
        return value

    def text(key: str, default: Any = _NO_DEFAULT) -> Any:
        value = held(key, default is not _NO_DEFAULT)
        return default if value is None else decoded(key, value)

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

    def encoded(key: str, default: Any = _NO_DEFAULT) -> Any:
        value = held(key, default is not _NO_DEFAULT)
        return default if value is None else base64.b64encode(value).decode()

    def documents(prefix: str, at_least: int = 0) -> list[dict[str, Any]]:
        if not isinstance(prefix, str):
            raise TypeError(f"documents: expected a prefix as text, got {type(prefix).__name__}")
        if not isinstance(at_least, int):
            raise TypeError(f"documents: at_least: expected a number, got {type(at_least).__name__}")
        found = [Listed(*item) for item in ask("documents", prefix)]
        if len(found) < at_least:
            raise Missing(f"documents {prefix!r}: there are {len(found)}, at least {at_least} are needed")
        return found  # type: ignore[return-value]

    return {
        "document": text,
        "document_base64": encoded,
        "json": parsed(json.loads, "JSON"),
        "yaml": parsed(yaml.safe_load, "YAML"),
        "documents": documents,
    }


class Listed(dict):  # type: ignore[type-arg]
    """One document below a prefix, with the keys key, version, value and value_base64. The class computes value_base64
    on first use.

    If the document is not text, ``value`` is undefined, so a template fails only if it uses ``value``.
    """

    def __init__(self, key: str, version: str, value: bytes) -> None:
        text: Any
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            text = jinja2.StrictUndefined(hint=f"{_no_text(key, error)} (value_base64 has it)")
        super().__init__(key=key, version=version, value=text)
        self._value = value

    def __missing__(self, name: str) -> str:
        if name != "value_base64":
            raise KeyError(name)
        return base64.b64encode(self._value).decode()


def decoded(key: str, value: bytes) -> str:
    """Decode a document as UTF-8. Raises a ``ValueError`` whose text contains ``key``."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{_no_text(key, error)} (document_base64() has it)") from None


def _no_text(key: str, error: UnicodeDecodeError) -> str:
    return f"document {key!r}: expected UTF-8 text, got another byte at {error.start}"


def header(source: str) -> tuple[dict[str, Any], str]:
    """Split a template into the options of its first line and the remaining text. Raises ``ValueError``."""
    first = _HEADER.match(source)
    if first is None:
        return {}, source
    options: dict[str, Any] = {}
    for pair in first["options"].split(","):
        name, _, value = (part.strip() for part in pair.partition(":"))
        flag = {"true": True, "false": False}.get(value.lower())
        text = value[1:-1] if len(value) > 2 and value[0] == value[-1] and value[0] in "'\"" else ""
        if name in _FLAGS and flag is not None:
            options[name] = flag
        elif name in _STRINGS and text:
            options[name] = text
        else:
            wanted = f"{', '.join(_FLAGS)} (True or False) or {', '.join(_STRINGS)} (in quotes)"
            raise ValueError(f"#jinja2: expected {wanted}, got {pair.strip()[:100]!r}")
    return options, source[first.end() :]


def render(source: str, most: int, ask: Callable[..., Any]) -> list[Any]:
    """Render the template ``source``. Returns ``["done", content]``, or ``["missing" | "error", text]``."""
    # Number of lines that ``header`` removed before the template was parsed.
    before = 0
    try:
        options, body = header(source)
        before = source.count("\n") - body.count("\n")
        source = body
        environment = Environment(options)
        tree = environment.parse(source)
        names = {name.name for name in tree.find_all(jinja2.nodes.Name)}
        values = {name: ask(name) for name in ("nodes", "node") if name in names}
        template = environment.from_string(tree)
        return ["done", _collect(template.generate(**functions(ask), **values), most)]
    except Missing as error:
        return ["missing", str(error)]
    except jinja2.TemplateSyntaxError as error:
        return ["error", f"template: line {error.lineno + before}: {error.message}"]
    except MemoryError:
        return ["error", "template: it took too much memory"]
    except Exception as error:
        text = " ".join(str(error).split())[:400] or type(error).__name__
        return ["error", f"template: {_line(error, before)}{text}"]


def _line(error: BaseException, before: int) -> str:
    """Return the number of the template line in which ``error`` occurred, as a prefix for the error message.

    Jinja2 gives the stack frames of a compiled template the line numbers of its source. The innermost of these stack
    frames has the line of the error.
    """
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = f"line {trace.tb_lineno + before}: "
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
    """Render templates until the agent closes the pipe."""
    pipe = Pipe(sys.stdin.buffer, sys.stdout.buffer)
    # A call of print() must not write to the pipe that carries the frames.
    sys.stdout = sys.stderr
    while True:
        job = pipe.read()
        if job is None:
            return
        pipe.write(["begun"])
        pipe.write(render(job["source"], job["most"], pipe.ask))
