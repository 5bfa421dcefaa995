# SPDX-License-Identifier: MIT
"""The lab's base images: what makes one of its own, which host has which, and where their packages come from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "lab"


MACHINE = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the lab, imported anew."""
    monkeypatch.syspath_prepend(str(ROLE / "files"))
    for name in [name for name in sys.modules if name.split(".")[0] == "xg_lab"]:
        monkeypatch.delitem(sys.modules, name)


def settings(**changed: Any) -> Any:
    """The lab's settings at the role's defaults, but for those ``changed``."""
    from xg_lab import config  # type: ignore[import-not-found]

    defaults = {key[4:]: value for key, value in yaml.safe_load((ROLE / "defaults/main.yml").read_text()).items()}
    for key in ("state", "purge_cache", "extra_packages"):
        del defaults[key]
    defaults["inventory"] = "/var/lib/xdp-gossip-lab/inventory.yml"
    return config.Config.from_object({**defaults, **changed})


def test_nginx_is_in_the_image_and_not_enabled() -> None:
    from xg_lab import image  # type: ignore[import-not-found]

    usual = settings()
    assert "nginx-light" in usual.packages and "nginx.service" in image.DISABLED
    fewer = [name for name in usual.packages if name != "nginx-light"]
    assert image.image_paths(settings(packages=fewer)) != image.image_paths(usual)


def test_a_host_has_the_release_at_its_place_and_the_list_starts_again() -> None:
    from xg_lab import image  # type: ignore[import-not-found]

    mixed = settings(hosts=5, suites=["bookworm", "bookworm", "trixie"])
    assert [host.suite for host in mixed.wanted()] == ["bookworm", "bookworm", "trixie", "bookworm", "bookworm"]
    assert [path.name.split("-")[1] for path in image.image_paths(mixed)] == ["bookworm", "trixie"]
    # One host less changes no other host, and neither does a release that no host has.
    assert image.image_paths(settings(hosts=2, suites=["bookworm", "bookworm", "trixie"])) == image.image_paths(
        settings()
    )


@pytest.mark.parametrize(
    ("suites", "told"),
    [
        (["bookworm", "Debian 13"], "lab_suites: 'Debian 13': expected a Debian release name such as bookworm"),
        ([], "lab_suites: (): expected at least one Debian release name such as bookworm"),
        ("bookworm", "lab_suites: expected a list"),
    ],
)
def test_releases_that_are_none_are_refused(suites: Any, told: str) -> None:
    from xg_lab.system import LabError  # type: ignore[import-not-found]

    with pytest.raises(LabError) as refused:
        settings(suites=suites)
    assert str(refused.value) == told


@pytest.mark.parametrize(
    ("suite", "own", "expected"),
    [
        ("bookworm", "bookworm", ["/debian bookworm", "/debian bookworm-updates", "-security bookworm-security"]),
        ("trixie", "bookworm", ["/debian trixie", "/debian trixie-updates", "-security trixie-security"]),
        # Another distribution: mmdebstrap knows Debian's mirrors itself.
        ("trixie", "", []),
        ("trixie", "noble", []),
    ],
)
def test_another_release_comes_from_the_mirrors_of_the_machine(
    tmp_path: Path, suite: str, own: str, expected: list[str]
) -> None:
    from xg_lab import sources  # type: ignore[import-not-found]

    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(MACHINE)
    found = sources.package_sources(suite, "", tmp_path, own)
    assert [line.partition("mirror.example/debian")[2] for line in found] == [
        f"{words.removeprefix('/debian')} main" for words in expected
    ]
    assert all("[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" in line for line in found[:2])


@pytest.mark.parametrize(
    ("release", "expected"),
    [("ID=debian\nVERSION_CODENAME=trixie\n", "trixie"), ('ID="ubuntu"\nVERSION_CODENAME=noble\n', ""), ("\n", "")],
)
def test_the_release_of_the_machine(tmp_path: Path, release: str, expected: str) -> None:
    from xg_lab import sources  # type: ignore[import-not-found]

    (tmp_path / "os-release").write_text(release)
    assert sources._own_suite(tmp_path / "os-release") == expected
