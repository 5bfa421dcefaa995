# SPDX-License-Identifier: MIT
"""The library as a wheel in somebody's environment: what is in it, and what a type checker sees of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(400)

#: A program, and after ``# ->`` what mypy has to say of a line: a type that it reveals, or the beginning of an error.
#: Pyright reveals the same types, and has an error in the same lines.
PROGRAM = """
from xdp_gossip import AsyncNodeList, Limits, Node, NodeList, ProtocolError, State, Version, Write

node_list = NodeList(amount=4, cycle=1.0, secret_key="s", history=5, limits=Limits(store=10_000_000))
node_list.new(Node("198.18.0.1", 8000, "a"))
reveal_type(node_list.get())  # -> list[xdp_gossip.core.types.Node]
reveal_type(node_list.publish(b"v", "k", expected="019a3c1e5b2f0000@198.18.0.1:1"))  # -> xdp_gossip.nodelist.Published
reveal_type(node_list.publish_many([Write("k", b"v")])[0].document)  # -> xdp_gossip.core.types.Document | None
reveal_type(node_list.members(frozenset({State.DEAD}))[0].state)  # -> xdp_gossip.core.types.State
for change in node_list.watch("app/"):
    reveal_type(change.document)  # -> xdp_gossip.core.types.Document | None
reveal_type(Version.parse("x").wall_ms)  # -> int
NodeList(amout=3)  # -> error: Unexpected keyword argument "amout"
NodeList(history="5")  # -> error: Argument "history" to "NodeList" has incompatible type "str"
node_list.publish("text")  # -> error: Argument 1 has incompatible type "str"; expected "bytes"
node_list.set("198.18.0.1:8000")  # -> error: Argument 1 has incompatible type "str"; expected "Node"
node_list.nothing()  # -> error: "NodeList" has no attribute "nothing"


async def main() -> None:
    async with AsyncNodeList() as other:
        reveal_type(await other.history("k"))  # -> list[xdp_gossip.core.types.Document]
        reveal_type((await other.convergence("k")).converged)  # -> bool
        other.publish(b"v").document  # -> error: "Coroutine[Any, Any, Published]" has no attribute "document"
        try:
            await other.join()
        except ProtocolError as error:
            reveal_type(error.code)  # -> str
"""


def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **more)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "agent", directory / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, directory / "agent")
    assert done.returncode == 0, done.stderr
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """The interpreter of an environment with the wheel, beside the distribution's own packages."""
    environment = wheel.parent / "environment"
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    for words in (
        (sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", environment),
        (*pip, "install", "--quiet", "--no-deps", wheel),
    ):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    return environment / "bin" / "python"


def test_everything_of_the_package_is_in_it(wheel: Path) -> None:
    package = ROOT / "agent" / "xdp_gossip"
    there = {str(path.relative_to(package.parent)) for path in package.rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert "xdp_gossip/py.typed" in there
    with zipfile.ZipFile(wheel) as archive:
        assert not there - set(archive.namelist())


def test_mypy_sees_the_library(python: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context")
    done = run(*mypy, "--python-executable", python, "program.py", cwd=tmp_path)
    said = dict(re.findall(r"^program\.py:(\d+): (error: .*|note: Revealed .*)$", done.stdout, re.MULTILINE))
    assert said, done.stdout + done.stderr
    for number, line in enumerate(PROGRAM.splitlines(), start=1):
        _, found, expected = line.partition("# -> ")
        heard = said.pop(str(number), "")
        if not found:
            assert not heard, (line, heard)
        elif expected.startswith("error: "):
            assert heard.startswith(expected), (line, heard)
        else:
            shown = heard.replace("builtins.", "").replace("Union[", "")
            assert f'Revealed type is "{expected}"' in shown, (line, heard)


def test_pyright_sees_the_library(python: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["program.py"]}')
    pyright = ROOT / ".cache" / "venv" / "quality" / "bin" / "pyright"
    done = run(pyright, "--pythonpath", python, "--outputjson", cwd=tmp_path)
    said: dict[int, list[str]] = {}
    for found in json.loads(done.stdout)["generalDiagnostics"]:
        said.setdefault(found["range"]["start"]["line"], []).append(f"{found['severity']}: {found['message']}")
    assert said, done.stdout + done.stderr
    for number, line in enumerate(PROGRAM.splitlines()):
        _, found, expected = line.partition("# -> ")
        heard = said.get(number, [])
        if not found:
            assert not heard, (line, heard)
        elif expected.startswith("error: "):
            assert any(text.startswith("error: ") for text in heard), (line, heard)
        else:
            short = re.sub(r"\b(?:\w+\.)+(?=\w)", "", expected)
            assert any(text.startswith("information: ") and f'is "{short}"' in text for text in heard), (line, heard)


def test_the_command_of_a_wheel_says_that_it_has_no_data_plane(python: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.yml").write_text("node: {addr: 198.18.0.1}\nallow_insecure: true\n")
    up = (python, "-I", "-m", "xdp_gossip", "dataplane", "up", "--config", tmp_path / "agent.yml")
    done = run(*up, "--directory", tmp_path / "plane", "--user", "root")
    assert done.returncode in (1, 3)
    assert "expected the data plane's sources" in done.stderr and "XDP_GOSSIP_BPF" in done.stderr
    shown = run(python, "-I", "-c", "import inspect, xdp_gossip; print(inspect.signature(xdp_gossip.NodeList))")
    assert shown.stdout.startswith("(amount: 'int' = 3, cycle: 'float' = 6.0, "), shown
