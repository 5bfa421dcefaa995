# SPDX-License-Identifier: MIT
"""What a guest gets of this tree: the agent, the programs' sources, and the tests that run inside."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernels.distributions import Distribution, root
from tests.kernels.matrix import compiled

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: pytest and what it needs, all in Python: a distribution's root has none.
_PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging")
_CONFTEST = """def pytest_runtest_logreport(report):
    if report.failed:
        print(report.longreprtext, flush=True)
"""
#: First line of a guest's command: the guest has no BCC, and loads the program container that ``compile_ahead`` made.
AHEAD = "mount -t tmpfs none /usr/lib/python3/dist-packages/bcc || exit 1\n"


def lay_out(share: Path, *scripts: str) -> None:
    """Copy the product into ``share``/product, and scripts of this directory beside it."""
    share.mkdir(parents=True, exist_ok=True)
    for name in ("agent", "bpf"):
        ignored = shutil.ignore_patterns("__pycache__", "build")
        shutil.copytree(REPOSITORY / name, share / "product" / name, ignore=ignored)
    for name in scripts:
        shutil.copy(HERE / name, share)


def lay_out_tests(share: Path, names: Sequence[str]) -> None:
    """Copy parts of ``tests/`` into ``share``/product, with the pytest that runs now and settings for it."""
    for name in names:
        source, target = REPOSITORY / "tests" / name, share / "product" / "tests" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    packages = Path(pytest.__file__).resolve().parents[1]
    for name in _PYTEST:
        shutil.copytree(packages / name, share / "pytest" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(packages / "py.py", share / "pytest")
    # Emulation knows no time limits of a real machine, and the marks are those of pyproject.toml.
    marks = "".join(f"    {name}: {name}\n" for name in ("slow", "root", "variant"))
    text = f"[pytest]\npythonpath = agent .\naddopts = -p no:cacheprovider\nmarkers =\n{marks}"
    (share / "product" / "pytest.ini").write_text(text)
    # A guest may be ended before pytest comes to its summary.
    (share / "product" / "conftest.py").write_text(_CONFTEST)


@functools.cache
def _programs(distribution: Distribution) -> bytes:
    return compiled(distribution)


def compile_ahead(share: Path, distribution: Distribution) -> None:
    """Do what takes long under emulation: compile the programs (see ``AHEAD``), and all Python that was laid out.

    Both by the distribution's own compilers. Raises ``Unavailable``.
    """
    (share / "product" / "bpf" / "programs.xgp").write_bytes(_programs(distribution))
    inside = root(distribution)
    # A namespace of its own, so that the mount ends with the command.
    script = f'mount --bind "{share}" "{inside}/share" && exec chroot "{inside}" python3 -m compileall -q /share'
    done = subprocess.run(
        ("unshare", "--mount", "sh", "-c", script),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{distribution.suite}: compileall: {done.stdout}{done.stderr}"
