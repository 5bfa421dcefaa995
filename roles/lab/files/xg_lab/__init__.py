# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away fleet of Debian hosts on one machine, made with systemd-nspawn."""

from __future__ import annotations
