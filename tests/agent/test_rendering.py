# SPDX-License-Identifier: MIT
"""What a template can see and do, what it is ended for, and what is recorded of what it read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from xdp_gossip.core.types import Address, Document, Member, Record, State, Version
from xdp_gossip.templates.renderer import Renderer, Rendering

HERE = Address.of("198.18.0.1", 8000)


class Documents:
    """What a renderer asks a node list for."""

    def __init__(self, **values: bytes) -> None:
        self.held = {
            key.replace("__", "/"): Document(key.replace("__", "/"), Version(number << 16, HERE), value)
            for number, (key, value) in enumerate(values.items(), 1)
        }
        self.list = [
            Member(HERE, State.ALIVE, 1, 1, Record("b", "data"), 0.0, 0, local=True),
            Member(Address.of("198.18.0.2", 8000), State.ALIVE, 1, 1, Record("a", ""), 0.0, 0),
            Member(Address.of("198.18.0.3", 8000), State.SUSPECT, 0, 0, None, 0.0, 0),
        ]

    def document(self, key: str) -> Document | None:
        return self.held.get(key)

    def documents(self, prefix: str = "") -> list[Document]:
        return [self.held[key] for key in sorted(self.held) if key.startswith(prefix)]

    def members(self) -> list[Member]:
        return self.list

    def local(self) -> Member:
        return self.list[0]


def run(work: Callable[[Renderer], Awaitable[Any]], documents: Documents | None = None, **limits: Any) -> Any:
    async def main() -> Any:
        renderer = Renderer(documents or Documents(), **limits)  # type: ignore[arg-type]
        try:
            return await work(renderer)
        finally:
            await renderer.close()

    return asyncio.run(main())


def render(source: str, documents: Documents | None = None, **limits: Any) -> Rendering:
    found: Rendering = run(lambda renderer: renderer.render(source), documents, **limits)
    return found


DATA = Documents(
    plain="größe".encode(),
    site=b'{"port": 80, "names": ["a"]}',
    more=b"port: 81",
    bad=b"\xff",
    app__x=b"1",
    app__y=b"2",
)


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("{{ document('plain') }}\n", "größe\n"),
        ("{{ document('none', 'x') }}", "x"),
        ("{{ json('site').port + 1 }}", "81"),
        ("{{ yaml('more').port }} {{ yaml('none', {'port': 5}).port }}", "81 5"),
        ("{% for d in documents('app/') %}{{ d.key }}={{ d.value }};{% endfor %}", "app/x=1;app/y=2;"),
        ("{{ nodes | map(attribute='name') | join(',') }} {{ node.addr }}:{{ node.port }}", "a,b 198.18.0.1:8000"),
        ("{% if true %}\nx\n{% endif %}\n", "x\n"),  # as Ansible's template: blocks take their newline along
        ("#jinja2: trim_blocks: False, lstrip_blocks: true\n  {% if true %}\nx\n{% endif %}\n", "\nx\n\n"),
        ("#jinja2: variable_start_string: '[[', variable_end_string: ']]'\n{{ [[ node.name ]]", "{{ b"),
        ("{{ {'a': '<&>'} | tojson }}", '{"a": "<&>"}'),
        # What is no text can be listed, and used as base64.
        ("{% for d in documents('b') %}{{ d.key }}{{ d.value_base64 }};{% endfor %}", "bad/w==;"),
        ("{{ documents('b') | map(attribute='value') | map('default', 'none') | join }}", "none"),
        ("{{ document_base64('bad') }} {{ document_base64('none', 'x') }}", "/w== x"),
        ("{{ ((documents('site') | first).value_base64 | b64decode | from_json).names | to_json }}", '["a"]'),
        ("{{ documents('app/', at_least=2) | length }}", "2"),
        ("{{ documents('app/') | map(attribute='value') | list | to_nice_json(indent=0) }}", '[\n"1",\n"2"\n]'),
        # A document is data, whatever it looks like.
        ("{{ document('hostile') }}", "{{ 7 * 7 }}{% raw %}"),
    ],
)
def test_what_templates_see(source: str, content: str) -> None:
    documents = Documents(hostile=b"{{ 7 * 7 }}{% raw %}")
    documents.held.update(DATA.held)
    made = render(source, documents)
    assert (made.kind, made.content.decode(), made.error) == ("done", content, "")


@pytest.mark.parametrize(
    ("source", "kind", "error"),
    [
        ("a\n{{ document('none') }}", "missing", "document 'none': there is none"),
        ("{{ documents('app/', at_least=3) }}", "missing", "documents 'app/': there are 2, at least 3 are needed"),
        ("{{ documents('app/', at_least='x') }}", "error", "at_least: expected a number, got str"),
        ("{{ (documents('bad') | first).value }}", "error", "'bad': expected UTF-8 text, got another byte at 0 ("),
        ("{{ documents('bad') | to_json }}", "error", "'bad': expected UTF-8 text, got another byte at 0 (value_"),
        ("{{ documents('bad') | to_yaml }}", "error", "'bad': expected UTF-8 text, got another byte at 0 (value_"),
        ("{{ document_base64('none') }}", "missing", "document 'none': there is none"),
        ("#jinja2: trim_blocks: maybe\n", "error", "#jinja2: expected trim_blocks, lstrip_blocks (True or False)"),
        ("#jinja2: loader: x\n", "error", "#jinja2: expected trim_blocks"),
        ("#jinja2: trim_blocks: True\na\n{{ nothing }}", "error", "template: line 3: 'nothing' is undefined"),
        ("#jinja2: trim_blocks: True\n{% if %}", "error", "template: line 2: "),
        ("{{ nothing | mandatory }}", "error", "'nothing' is undefined"),
        ("{{ 'x' | regex_search('x', 'y') }}", "error", "regex_search: expected"),
        ("{{ {} | combine({}, list_merge='x') }}", "error", "combine: list_merge: expected one of"),
        ("a\n{{ nothing }}", "error", "template: line 2: 'nothing' is undefined"),
        ("a\nb\n{{ json('site').ports.x }}", "error", "template: line 3: "),
        ("{% if %}", "error", "template: line 1: "),
        ("{{ json('plain') }}", "error", "document 'plain': expected JSON"),
        ("{{ document('bad') }}", "error", "document 'bad': expected UTF-8 text, got another byte at 0"),
        ("{{ document(5) }}", "error", "document: expected a key as text, got int"),
        # Jinja2's sandbox: no way out of the template, and no change of what it is given.
        ("{{ ''.__class__.__mro__ }}", "error", "unsafe"),
        ("{{ document.__globals__ }}", "error", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "error", "unsafe"),
        ("{{ '{0.__class__}'.format(document) }}", "error", "unsafe"),
        ("{{ nodes.append(1) }}", "error", "unsafe"),
        ("{% include '/etc/passwd' %}", "error", "no loader"),
        ("{{ range(1000000) | list }}", "error", "Range too big"),
    ],
)
def test_what_templates_cannot_do(source: str, kind: str, error: str) -> None:
    made = render(source, DATA)
    assert made.kind == kind and error in made.error and made.content == b""


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROW = "{% set ns = namespace(x='x' * 100000) %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
BACKTRACK = "{{ ('a' * 60 ~ 'b') | regex_search('(a+)+$') }}"
FLOOD = "{% set x = 'x' * 100000 %}{% for a in range(99999) %}{{ x }}{% endfor %}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "limits", "error"),
    [
        (LOOP, {"seconds": 0.7}, "took more than 0.7 s and was ended"),
        (BACKTRACK, {"seconds": 0.7}, "took more than 0.7 s and was ended"),
        (GROW, {"seconds": 60.0, "memory": 128 * 2**20}, "took more than 128 MiB of memory and was ended"),
        (FLOOD, {"seconds": 60.0}, "expected at most 16777216 bytes of output, got more"),
    ],
)
def test_a_template_that_takes_too_much_is_ended_and_the_next_one_is_rendered(
    source: str, limits: dict[str, Any], error: str
) -> None:
    async def work(renderer: Renderer) -> tuple[Rendering, Rendering]:
        first = await renderer.render(source)
        renderer._seconds = 60.0  # the next one has to start a process: that may take a busy machine longer
        return first, await renderer.render("{{ node.name }}")

    first, second = run(work, **limits)
    assert first.kind in ("error", "exceeded") and error in first.error
    assert (second.kind, second.content) == ("done", b"b")


def test_what_was_read_is_recorded_and_compared() -> None:
    documents = Documents(site=b"{}", app__x=b"1")
    source = "{{ document('site') }}{{ document('none', '') }}{{ documents('app/') | length }}{{ nodes | length }}"
    reads = render(source, documents).reads
    site, x = documents.held["site"], documents.held["app/x"]
    assert reads.documents == {"site": str(site.version), "none": None, "app/x": str(x.version)}
    assert [reads.uses(key) for key in ("site", "none", "app/x", "app/new", "other")] == [True] * 4 + [False]
    assert reads.still_true(documents)  # type: ignore[arg-type]

    def changed(key: str) -> bool:
        former = documents.held.get(key)
        documents.held[key] = Document(key, Version(9 << 16, HERE), b"")
        found = not reads.still_true(documents)  # type: ignore[arg-type]
        documents.held.pop(key) if former is None else documents.held.update({key: former})
        return found

    assert [changed(key) for key in ("site", "none", "app/x", "app/new", "other")] == [True] * 4 + [False]
    documents.list = documents.list[:1]
    assert not reads.still_true(documents)  # type: ignore[arg-type]
