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
from collections.abc import Iterator, Sequence
from pathlib import Path
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
#: Maximum characters of an error. The error of a sealed document lists its recipients.
_MOST_ERROR, _MOST_UNOPENED = 400, 2000


class Missing(Exception):
    """Raised if a document that a template needs does not exist. ``name``: the key or the prefix."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


class TooLong(ValueError):
    """Raised if the output of a template is too long."""


class Unopened(Exception):
    """Raised if a template needs a sealed document that this host cannot open."""


class Opener:
    """Opens sealed documents with the key of this host.

    ``sealing``: cluster, name of the node, and file of its key; None if the host has no key. The private key is read
    from its file when the first sealed document is opened.
    """

    def __init__(self, sealing: Sequence[str] | None = None) -> None:
        self._sealing = sealing
        self._key: bytes | None = None
        #: Keys of the documents that were opened, in order.
        self.opened: dict[str, None] = {}

    def __call__(self, key: str, value: bytes) -> bytes:
        """Return the content of the sealed document ``key``. Raises :class:`Unopened`."""
        # Imported late, because most hosts render no sealed document.
        from ..sealing import envelope, hpke, keys

        told = f"document {key!r}: it is sealed"
        if self._sealing is None:
            raise Unopened(f"{told}, and this host has no sealing key: set state_dir, and seal it for this host")
        cluster, name, path = self._sealing
        try:
            if self._key is None:
                self._key = keys.load(Path(path))
            content = envelope.open_envelope(cluster, key, value, self._key).content
        except envelope.NotRecipient as error:
            raise Unopened(f"{told}{_not_for(name, error.names)}") from None
        except (keys.KeyFileError, FileNotFoundError) as error:
            raise Unopened(f"{told}, and the key of this host cannot be read: {error}") from None
        except hpke.OpenError as error:
            raise Unopened(f"{told}, and cannot be opened: {error}; publish it again") from None
        except ValueError as error:
            raise Unopened(f"{told}, and its envelope is damaged: {error}; publish it again") from None
        self.opened[key] = None
        return content


def _not_for(name: str, names: Sequence[str]) -> str:
    if name in names:
        text = f" for {name}, but for another key than this host has now: the host was rebuilt, or lost its state_dir"
        return f"{text}; seal it again, for example with the playbook reseal"
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    text = f" for {listed}, and this host ({name}) is not among the recipients: publish it with this host in"
    return f"{text} sealed_for, or remove the template from this host"


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


def functions(ask: Callable[..., Any], opener: Callable[[str, bytes], bytes]) -> dict[str, Any]:
    """Return the functions that templates can call. These functions send their requests to the agent with ``ask``, and
    open sealed documents with ``opener``.
    """

    def held(key: str, optional: bool) -> bytes | None:
        if not isinstance(key, str):
            raise TypeError(f"document: expected a key as text, got {type(key).__name__}")
        found = ask("document", key)
        if found is None:
            if not optional:
                raise Missing(f"document {key!r}: there is none", key)
            return None
        value, sealed = found
        return opener(key, value) if sealed else value

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
        found = [as_listed(opener, *item) for item in ask("documents", prefix)]
        if len(found) < at_least:
            raise Missing(f"documents {prefix!r}: there are {len(found)}, at least {at_least} are needed", prefix)
        return found  # type: ignore[return-value]

    return {
        "document": text,
        "document_base64": encoded,
        "json": parsed(json.loads, "JSON"),
        "yaml": parsed(yaml.safe_load, "YAML"),
        "documents": documents,
    }


def as_listed(opener: Callable[[str, bytes], bytes], key: str, version: str, value: bytes, sealed: bool) -> Listed:
    """Return one document below a prefix. A template fails only if it uses a document that cannot be opened."""
    if not sealed:
        return Listed(key, version, value)
    try:
        return Listed(key, version, opener(key, value))
    except Unopened as error:
        return Listed(key, version, b"", str(error))


class Listed(dict):  # type: ignore[type-arg]
    """One document below a prefix, with the keys key, version, value and value_base64. The class computes value_base64
    on first use.

    If the document is not text, ``value`` is undefined, so a template fails only if it uses ``value``. ``unopened``:
    why a sealed document has no value on this host.
    """

    def __init__(self, key: str, version: str, value: bytes, unopened: str = "") -> None:
        text: Any
        self._unopened = unopened
        try:
            text = jinja2.StrictUndefined(hint=unopened) if unopened else value.decode("utf-8")
        except UnicodeDecodeError as error:
            text = jinja2.StrictUndefined(hint=f"{_no_text(key, error)} (value_base64 has it)")
        super().__init__(key=key, version=version, value=text)
        self._value = value

    def __missing__(self, name: str) -> str:
        if name != "value_base64":
            raise KeyError(name)
        if self._unopened:
            raise Unopened(self._unopened)
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


def render(source: str, most: int, ask: Callable[..., Any], opener: Callable[[str, bytes], bytes]) -> list[Any]:
    """Render the template ``source``. Returns ``["done", content]``, or ``["missing" | "error", text]``.

    The text of an error goes to the log, to the API and to other members. It contains nothing of a sealed document that
    the template has opened.
    """
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
        return ["done", _collect(template.generate(**functions(ask, opener), **values), most)]
    except Missing as error:
        # The template may have made the key of the content of a sealed document.
        secret = _opened(opener) and error.name not in source
        return ["missing", f"a document is missing; {_opened(opener)}" if secret else str(error)]
    except jinja2.TemplateSyntaxError as error:
        return ["error", f"template: line {error.lineno + before}: {error.message}"]
    except MemoryError:
        return ["error", "template: it took too much memory"]
    except Exception as error:
        longest = _MOST_UNOPENED if isinstance(error, Unopened) else _MOST_ERROR
        text = " ".join(str(error).split())[:longest] or type(error).__name__
        if _opened(opener) and not isinstance(error, (Unopened, TooLong)):
            # Many errors quote the value that caused them, and those of YAML the line.
            text = f"{type(error).__name__}; {_opened(opener)}"
        return ["error", f"template: {_line(error, before)}{text}"]


def _opened(opener: Callable[[str, bytes], bytes]) -> str:
    """Why the text of an error is not shown; "" if the template has opened no sealed document."""
    keys = list(opener.opened) if isinstance(opener, Opener) else []
    return f"the error may quote the sealed document {keys[0]!r}, so it is not shown" if keys else ""


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
            raise TooLong(f"expected at most {most} bytes of output, got more")
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
        pipe.write(render(job["source"], job["most"], pipe.ask, Opener(job.get("sealing"))))
