# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away fleet of Debian hosts on one machine, based on systemd-nspawn."""

from __future__ import annotations
