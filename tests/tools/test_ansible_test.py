# SPDX-License-Identifier: MIT
"""What runs ansible-test: which ansible-core on which Python, and what is said and counted where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"
sys.path.insert(0, str(CI))

import ansible_env  # noqa: E402
import ansible_test  # noqa: E402
from steps import count_tests  # noqa: E402

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def empty_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Python is to be found, but for what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))


def test_a_stand_in_that_only_complains_is_no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty_places(monkeypatch, tmp_path)
    program(tmp_path / "bin" / "python9.8", "echo 'python9.8: command not found' >&2; exit 127")
    assert ansible_env.find_python(("9.8",)) is None
    real = program(tmp_path / "pyenv" / "versions" / "9.8.1" / "bin" / "python9.8", "echo '9.8 9.8.1 (main)'")
    assert ansible_env.find_python(("9.8",)) == str(real)


def test_one_of_another_version_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty_places(monkeypatch, tmp_path)
    program(tmp_path / "bin" / "python9.8", "echo '9.80 9.80.0 (main)'")
    assert ansible_env.find_python(("9.8",)) is None


def test_the_first_version_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty_places(monkeypatch, tmp_path)
    for version in ("9.7", "9.8"):
        program(tmp_path / "bin" / f"python{version}", f"echo '{version} {version}.0 (main)'")
    assert ansible_env.find_python(("9.9", "9.8", "9.7")) == str(tmp_path / "bin" / "python9.8")


@pytest.mark.parametrize(
    ("name", "requirement"),
    [("2.18", "ansible-core~=2.18.0"), ("2.20", "ansible-core==2.20.*"), ("2.21.5", "ansible-core==2.21.5")],
)
def test_what_a_version_asks_pip_for(name: str, requirement: str) -> None:
    assert ansible_env.core_named(name).requirement == requirement


@pytest.mark.parametrize("name", ["", "2", "2.x", "2.19; rm -rf", "latest", "2.19.1.1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected 2\.18, 2\.19, newest, unpinned or a version") as caught:
        ansible_env.core_named(name)
    assert repr(name) in str(caught.value)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would make environments in a directory of our own."""
    commands: list[list[str]] = []

    def run(command: list[str], **_options: object) -> int:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        return 0

    monkeypatch.setattr(ansible_env, "ROOT", tmp_path)
    monkeypatch.setattr(ansible_env, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(ansible_env, "run", run)
    return commands


def test_an_environment_is_made_once(made: list[list[str]]) -> None:
    directory = ansible_env.environment(sys.executable, "2.19")
    assert directory.name == f"py{HERE}-core2.19"
    assert made[-1][-5:-1] == ["--require-hashes", "--only-binary", ":all:", "--requirement"]
    assert made[-1][-1] == str(CI / "requirements" / "ansible-test-2.19.lock")
    assert len(made) == 2
    assert ansible_env.environment(sys.executable, "2.19") == directory
    assert len(made) == 2


def test_a_changed_lock_makes_an_environment_anew(made: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ansible_env.CACHE.parent / "ansible-test-2.19.lock"
    monkeypatch.setattr(ansible_env, "REQUIREMENTS", lock.parent)
    for text, commands in (("a", 2), ("a", 2), ("b", 4)):
        lock.write_text(text)
        ansible_env.environment(sys.executable, "2.19")
        assert len(made) == commands


def test_a_version_without_a_lock_is_asked_for_by_its_name(made: list[list[str]]) -> None:
    ansible_env.environment(sys.executable, "2.21.5")
    assert made[-1][-1] == "ansible-core==2.21.5"
    assert "--require-hashes" not in made[-1]


def test_the_unpinned_one_is_looked_up_again_after_a_day(made: list[list[str]]) -> None:
    for name in ("2.19", "newest", "unpinned"):
        stamp = ansible_env.environment(sys.executable, name) / ".complete"
        yesterday = time.time() - ansible_env.FRESH - 60
        os.utime(stamp, (yesterday, yesterday))
    made.clear()
    ansible_env.environment(sys.executable, "2.19")
    ansible_env.environment(sys.executable, "newest")
    assert made == []
    ansible_env.environment(sys.executable, "unpinned")
    assert [command[-2:] for command in made] == [[ansible_env.core_named("unpinned").requirement, "--upgrade"]]
    ansible_env.environment(sys.executable, "unpinned")
    assert len(made) == 1


def test_a_failed_installation_is_no_environment(made: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ansible_env, "run", lambda command, **_options: made.append(command) or "pip" in command)
    for _ in range(2):
        with pytest.raises(ansible_env.SetupError, match="cannot be installed"):
            ansible_env.environment(sys.executable, "2.19")
    assert len(made) == 4


def test_the_oldest_python_of_hosts_gets_what_runs_there() -> None:
    plan = ansible_test.plan(["sanity", "units"], "3.11", "3.8")
    assert [(python, arguments[0]) for python, arguments in plan] == [
        ("3.11", "sanity"),
        ("3.11", "units"),
        ("3.8", "sanity"),
        ("3.8", "units"),
    ]
    assert "--test" not in plan[0][1]
    assert [word for word in plan[2][1] if word in ("compile", "import")] == ["compile", "import"]
    assert ansible_test.plan(["units"], "3.11", "3.11") == [("3.11", ["units"])]


def test_only_units_on_the_python_of_ansible_core_are_measured() -> None:
    plan = ansible_test.plan(["sanity", "units"], "3.11", "3.8", coverage=True)
    assert [run for run in plan if "--coverage" in run[1]] == [("3.11", ["units", "--coverage"])]


def run_script(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ansible_test.py where no other Python than the system's is to be found."""
    env = {
        **os.environ,
        "PATH": f"{program(tmp_path / 'bin' / 'shellcheck', 'true').parent}:/usr/bin:/bin",
        "PYENV_ROOT": str(tmp_path / "pyenv"),
        "REPORTS": str(tmp_path / "reports"),
    }
    script = CI / "ansible_test.py"
    return subprocess.run(["/usr/bin/python3", script, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(any(Path(f"/usr/bin/python3.{minor}").exists() for minor in (12, 13, 14)), reason="they are there")
def test_without_a_python_for_it_both_are_skipped_aloud_and_counted_as_that(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--core", "newest")
    assert done.returncode == 0, done.stderr
    assert "SKIPPED sanity with ansible-core newest: it needs one of Python 3.14, 3.13, 3.12" in done.stdout
    assert count_tests(tmp_path / "reports") == (2, 0, 2)


def test_a_named_python_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--core", "newest", "--python", str(tmp_path / "python3.13"))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_a_core_without_pythons_of_its_own_asks_for_one(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--core", "2.20")
    assert done.returncode == 2
    assert "--core 2.20: expected --python" in done.stderr
