# SPDX-License-Identifier: MIT
"""The files below examples/ that no command of examples/README.md runs as a whole; test_documentation.py runs those."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from runners import Place, rulebook
from snippets import ROOT, tracked
from world import HOSTS, Failed, World

from tests.support.ports import free_port
from xdp_gossip import AsyncNodeList, Node
from xdp_gossip.templates.renderer import Renderer

EXAMPLES = ROOT / "examples"


def test_the_page_lists_every_example() -> None:
    listed = set(re.findall(r"\]\(([\w./]+)\)", (EXAMPLES / "README.md").read_text()))
    assert {f"examples/{name}" for name in listed} == set(tracked("examples")) - {"examples/README.md"}


def test_examples_are_a_part_of_the_artifact() -> None:
    ignored = yaml.safe_load((ROOT / "galaxy.yml").read_text())["build_ignore"]
    assert not [entry for entry in ignored if entry.startswith("examples")]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nsenter") is None, reason="needs root, for namespaces")
def test_the_sources_of_the_rulebook_tell(tmp_path: Path) -> None:
    world = World(tmp_path, HOSTS, tls=True)
    try:
        output = rulebook(Place(world, tmp_path), (EXAMPLES / "rulebooks" / "shop.yml").read_text())
    except Failed:
        print(world.logs())
        raise
    finally:
        world.close()
    assert '"type"' in output


def render(private_data: str, upstream: bytes | None) -> str:
    """What the upstream is on a node of that private data; ``upstream`` is the document."""

    async def main() -> str:
        port = free_port()
        async with AsyncNodeList(listen_addr="127.0.0.1") as node_list:
            node_list.new(Node("127.0.0.1", port, "here", private_data))
            await node_list.join()
            if upstream is not None:
                await node_list.publish(upstream, "shop/upstream", content_type="json")
            renderer = Renderer(node_list)
            try:
                made = await renderer.render((EXAMPLES / "templates" / "upstream.conf.j2").read_text())
            finally:
                await renderer.close()
        assert made.kind == "done", made
        return made.content.decode()

    return asyncio.run(main())


def test_the_upstream_has_the_web_servers_and_their_port() -> None:
    made = render('{"role": "web"}', b'{"port": 8080, "max_fails": 3}')
    assert made.split() == ["upstream", "shop", "{", "server", "127.0.0.1:8080", "max_fails=3;", "}"]


def test_an_upstream_without_servers_is_still_a_sound_one() -> None:
    made = render('{"role": "db"}', None)
    assert made.split() == ["upstream", "shop", "{", "server", "127.0.0.1:8080", "down;", "}"]
