# SPDX-License-Identifier: MIT
"""The lab's base image: nginx is installed and rests, and another list of packages is another image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "lab"


def test_nginx_is_in_the_image_and_not_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROLE / "files"))
    for name in [name for name in sys.modules if name.split(".")[0] == "xg_lab"]:
        monkeypatch.delitem(sys.modules, name)
    from xg_lab import config, image  # type: ignore[import-not-found]

    settings = {key[4:]: value for key, value in yaml.safe_load((ROLE / "defaults/main.yml").read_text()).items()}
    for key in ("state", "purge_cache", "extra_packages"):
        del settings[key]
    settings["inventory"] = "/var/lib/xdp-gossip-lab/inventory.yml"
    usual = config.Config.from_object(settings)
    assert "nginx-light" in usual.packages and "nginx.service" in image.DISABLED
    fewer = [name for name in settings["packages"] if name != "nginx-light"]
    assert image.image_path(config.Config.from_object({**settings, "packages": fewer})) != image.image_path(usual)
