# SPDX-License-Identifier: MIT
"""Every command, program, play and configuration that the documentation shows is run, in a world where it is true.

A new snippet cannot escape: it is run, or stands in exceptions.py with a reason, or its test fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from exceptions import NOT_RUN, outdated, promises, reason
from runners import Place, runner_of, structured, syntax
from snippets import ROOT, Snippet, all_snippets, examples, fences, tracked
from world import HOSTS, PYTHON, SESSION, Failed, World

#: Seconds for one test; a command in it has 120.
pytestmark = pytest.mark.timeout(300)

SNIPPETS = all_snippets()
needs_root = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="needs root, for namespaces"),
]
#: Documents that examples read without having published them.
DOCUMENTS = {
    "motd": "of the documentation's tests",
    "haproxy.cfg": "# of the documentation's tests",
    "shop/settings": '{"currency": "EUR"}',
    "app/limits": '{"requests_per_second": 200}',
}
#: Files that examples name, in the directory where they are run.
FILES = {
    "settings.json": '{"currency": "EUR", "stock_limit": 40}\n',
    "app.yml": "workers: 4\n",
    "tls.key": "of the web servers alone\n",
    # The host on which the first agent runs; there is nobody else to become.
    "hosts.yml": "all: {hosts: {host1: {ansible_connection: local, ansible_become: false, "
    f"ansible_python_interpreter: {PYTHON}}}}}}}\n",
    "documents.yml": "xdp_gossip_documents: {app/motd: {content: Welcome}}\n",
    "INVENTORY": "host1\n",
    "release.pub": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINFhUdhtpM/hKqa3kwmtwXb8OWpj5BRj3koQmeTUrFNq release\n",
}


@pytest.fixture(name="worlds", scope="module")
def fixture_worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Snippet], World]]:
    """The world that a snippet speaks of, made when the first one asks for it."""
    made: dict[str, World] = {}
    read: dict[str, str] = {}

    def world(snippet: Snippet) -> World:
        kind, members = "http", HOSTS
        if snippet.path == "docs/trust.md":
            kind = "trust"
        elif SESSION[0].address in snippet.text:
            kind, members = "session", SESSION
        elif "https://198.18." in snippet.text or snippet.path in ("README.md", "examples/README.md"):
            kind = "https"  # their snippets use files, the README's those of the snippets before
        if kind not in made:
            made[kind] = World(
                tmp_path_factory.mktemp(kind), members, tls=kind in ("https", "trust"), deploys=kind == "trust"
            )
        if read.get(kind) != snippet.path and kind != "session":
            renew(made[kind])
        read[kind] = snippet.path
        return made[kind]

    def renew(one: World) -> None:
        """Each document of the documentation begins with the same documents in the fleet."""
        (one.directory / "seeds.json").write_text(json.dumps(DOCUMENTS))
        script = str(Path(__file__).parent / "seeds.py")
        one.run(PYTHON, script, "/run/xdp-gossip/api.sock", str(one.directory / "seeds.json"), cwd=one.directory)

    try:
        yield world
    finally:
        for one in made.values():
            one.close()


def place_of(snippet: Snippet, world: World) -> Place:
    """A directory for the snippet, with the files that its document names. That of the examples has them already."""
    if snippet.path.startswith("examples/"):
        return Place(world, (ROOT / snippet.path).parent, lambda line: reason(snippet.path, line) is not None)
    directory = world.directory / re.sub(r"\W", "_", snippet.path)
    directory.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    for other in SNIPPETS:
        # A first line such as "# nodelist.yml" gives a snippet a name, by which others of the document call it.
        named = re.match(r"# ([\w.-]+\.(?:yml|yaml|json))\b", other.text)
        if other.path == snippet.path and named:
            (directory / named[1]).write_text(other.text)
    return Place(world, directory, lambda line: reason(snippet.path, line) is not None)


@pytest.mark.parametrize("snippet", [pytest.param(one, id=str(one), marks=needs_root) for one in SNIPPETS])
def test_it_runs(snippet: Snippet, worlds: Callable[[Snippet], World]) -> None:
    runner = runner_of(snippet)
    reasons = [reason(snippet.path, line) for line in snippet.lines]
    if snippet.kind == "sh":
        if all(why and not line.startswith("ansible-playbook ") for line, why in zip(snippet.lines, reasons)):
            pytest.skip("; ".join(dict.fromkeys(why for why in reasons if why)))
    elif reasons[0]:
        if runner is not structured or snippet.kind == "examples":
            pytest.skip(reasons[0])
        runner = syntax
    world = worlds(snippet)
    try:
        output = runner(place_of(snippet, world), snippet.text)
    except Failed:
        print(world.logs())
        raise
    print(output)
    for line in snippet.lines:
        for promise in promises(snippet.path, line):
            assert re.search(promise, output), f"expected output like {promise!r}, got\n{output}"


def test_no_exception_outlives_its_snippet() -> None:
    lines: dict[str, list[str]] = {}
    for snippet in SNIPPETS:
        lines.setdefault(snippet.path, []).extend(snippet.lines)
    assert outdated(lines) == []
    assert ("README.md", "make demo ") in outdated({**lines, "README.md": []})


def test_what_runs_them_instead_is_there() -> None:
    reasons = " ".join(why for starts in NOT_RUN.values() for why in starts.values())
    named = re.findall(r"(?:tests|molecule)/[\w/.]+\w", reasons)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", tracked("plugins/modules/*.py", "plugins/inventory/*.py", "plugins/lookup/*.py"))
def test_every_plugin_has_examples(path: str) -> None:
    snippet = examples(path, (ROOT / path).read_text())
    assert snippet is not None and list(yaml.safe_load_all(snippet.text))


def test_every_document_is_looked_at() -> None:
    documents = {path for path in tracked("*.md") if "```" in (ROOT / path).read_text()}
    assert {"README.md", "docs/ansible.md", "docs/api.md", "docs/cli.md", "docs/toolkit.md"} <= documents
    assert {snippet.path for snippet in SNIPPETS if snippet.kind != "examples"} <= documents


def test_fences_are_found_wherever_they_stand() -> None:
    text = "a\n```sh\none\n```\n  ~~~yaml title\n  two: 2\n\n    three\n  ~~~\n"
    text += "```\nno code\n```\n````text\n```sh\n````\n"
    assert list(fences("d.md", text)) == [
        Snippet("d.md", 3, "sh", "one\n"),
        Snippet("d.md", 6, "yaml", "two: 2\n\n  three\n"),
    ]
    with pytest.raises(ValueError, match=r"d\.md:2: expected the end of this code block"):
        list(fences("d.md", "a\n```sh\none\n"))


def test_what_nobody_can_run_is_an_error() -> None:
    with pytest.raises(Failed, match="got 'ruby'"):
        runner_of(Snippet("d.md", 1, "ruby", "puts 1\n"))
    with pytest.raises(Failed, match="expected a kind of YAML"):
        structured(Place(None, Path()), "image: nginx\n")  # type: ignore[arg-type]
