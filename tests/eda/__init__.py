# SPDX-License-Identifier: MIT
"""The event source for Event-Driven Ansible: alone, with misbehaving members, with real agents, in ansible-rulebook."""
