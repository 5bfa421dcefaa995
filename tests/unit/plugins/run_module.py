# SPDX-License-Identifier: MIT
"""Runs a module's ``main`` as ansible-core would, with arguments in and JSON out."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import typing as t

import pytest
from ansible.module_utils import basic
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.reserved import reserved_in

try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:  # ansible-core 2.18

    @contextlib.contextmanager
    def patch_module_args(args: dict[str, t.Any]) -> t.Iterator[None]:
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode()
        try:
            yield
        finally:
            basic._ANSIBLE_ARGS = None


def run_module(name: str, arguments: dict[str, t.Any], check: bool = False, diff: bool = False) -> dict[str, t.Any]:
    """Run ``xdp_gossip_<name>``; returns what it printed, with ``rc`` its exit status and ``output`` the raw text.

    In one process with ansible-core itself, 2.19 and later show warnings on stderr instead of returning them.
    Fails when the result has a name that Ansible gives a meaning of its own.
    """
    module = importlib.import_module("ansible_collections.xdp_gossip.fleet.plugins.modules.xdp_gossip_" + name)
    args = dict(arguments, _ansible_check_mode=check, _ansible_diff=diff, _ansible_remote_tmp="/tmp")
    if "inject_invocation" in basic.PASS_VARS:  # newer ones return the arguments only with -vvv
        args["_ansible_inject_invocation"] = True
    output, errors = io.StringIO(), io.StringIO()
    with patch_module_args(args), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        with pytest.raises(SystemExit) as stopped:
            module.main()
    text = output.getvalue()
    result = json.loads(text)
    assert not reserved_in(result), result
    return dict(result, rc=stopped.value.code or 0, output=text + errors.getvalue())
