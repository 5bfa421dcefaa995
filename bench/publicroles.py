# SPDX-License-Identifier: MIT
"""Public Ansible roles for one service, which benchmarks compare with the role of this collection.

The roles come from two PyPI packages that contain whole collections: ``ansible`` contains ``community.zabbix``, and
``debops`` contains ``debops.debops``. Each role runs in a play like the one in the role's documentation, and installs
its service from Debian packages.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .netns import BenchError

#: Maximum seconds for the download of one package. The package ``ansible`` has 50 MB.
_SECONDS = 300.0


@dataclass(frozen=True)
class PublicRole:
    """A public role.

    ``requirement``: the PyPI package that contains the role. ``collections``: the collections that the play needs.
    ``packages``: the Debian packages that the role installs. ``play``: a play that runs the role.
    """

    name: str
    requirement: str
    collections: tuple[str, ...]
    packages: tuple[str, ...]
    play: str


ROLES = (
    PublicRole(
        "zabbix_agent",
        "ansible==13.1.0",
        ("community/zabbix", "ansible/windows", "ansible/posix", "community/general"),
        ("zabbix-agent",),
        """
- hosts: fleet
  become: true
  roles: [community.zabbix.zabbix_agent]
  vars:
    zabbix_manage_repo: false  # Debian's own package
    zabbix_agent_version: 6.0
    zabbix_agent_install_agent_only: true  # Debian has no zabbix-get
    zabbix_agent_server: 198.18.7.1
""",
    ),
    PublicRole(
        "memcached",
        "debops==3.3.2",
        ("debops/debops",),
        ("memcached",),
        """
- hosts: fleet
  become: true
  roles: [debops.debops.memcached]
""",
    ),
)


def fetch(role: PublicRole, collections: Path) -> None:
    """Download the collections of ``role`` to ``collections``/ansible_collections, unless that directory already
    contains them.

    Raises ``BenchError`` if the package cannot be downloaded, or if the package lacks one of the collections.
    """
    target = collections / "ansible_collections"
    if all((target / name).is_dir() for name in role.collections):
        return
    with tempfile.TemporaryDirectory(prefix="xgp-roles-") as work:
        # The benchmark reads only data files from the wheel, so the wheel may be built for any version of Python.
        words = ("--no-deps", "--only-binary", ":all:", "--python-version", "3.13", "--dest", work, role.requirement)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", *words],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{role.requirement}: expected it downloaded within {_SECONDS:g} s") from None
        if done.returncode:
            raise BenchError(f"{role.requirement}: pip download failed: {done.stderr.strip()[-500:]}")
        (wheel,) = Path(work).glob("*.whl")
        for name in role.collections:
            _extract(wheel, name, target / name)


def _extract(wheel: Path, collection: str, target: Path) -> None:
    """Copy the files of ``collection`` (namespace/name) from ``wheel`` to ``target``.

    The collection may be in any directory of the wheel.
    """
    inside = PurePosixPath("ansible_collections", collection).parts
    found = False
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            parts = PurePosixPath(entry.filename).parts
            at = next((at for at in range(len(parts)) if parts[at : at + len(inside)] == inside), None)
            if at is None or entry.is_dir() or ".." in parts:
                continue
            path = target.joinpath(*parts[at + len(inside) :])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(entry))
            found = True
    if not found:
        raise BenchError(f"{wheel.name}: expected the collection {collection.replace('/', '.')}, found none")
