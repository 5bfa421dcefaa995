# SPDX-License-Identifier: MIT
"""Names that Ansible gives a meaning of its own at the top level of a result."""

from __future__ import annotations

import typing as t

#: What a module may return of them: they mean there what Ansible means by them.
MEANT = frozenset(
    (
        "ansible_facts",
        "changed",
        "deprecations",
        "diff",
        "exception",
        "failed",
        "invocation",
        "msg",
        "skipped",
        "warnings",
    )
)

#: The rest: what ansible-core 2.18 to 2.21 writes into a result or reads from one (``executor/task_executor.py``,
#: ``executor/task_result.py``, ``plugins/action``, ``plugins/strategy``, ``plugins/callback``, ``_internal/_task.py``).
_TAKEN = frozenset(
    (
        "add_group",
        "add_host",
        "ansible_async_watchdog_pid",
        "ansible_index_var",
        "ansible_job_id",
        "ansible_loop",
        "ansible_loop_var",
        "ansible_module_results",
        "ansible_notify",
        "ansible_parsed",
        "ansible_stats",
        "async_result",
        "attempts",
        "break_when_result",
        "break_when_suppressed_exception",
        "censored",
        "changed_when_result",
        "changed_when_suppressed_exception",
        "delegated_host",
        "failed_when_result",
        "failed_when_suppressed_exception",
        "false_condition",
        "finished",
        "include",
        "include_args",
        "include_file",
        "item",
        "loop_results",
        "module_stderr",
        "module_stdout",
        "no_log",
        "notify",
        "rc",
        "results",
        "results_file",
        "retries",
        "skip_reason",
        "skipped_reason",
        "started",
        "stderr",
        "stderr_lines",
        "stdout",
        "stdout_lines",
        "unreachable",
    )
)

#: A template that says ``result.items`` gets the method of the dictionary.
_METHODS = frozenset(name for name in dir(dict) if not name.startswith("_"))


def _of_this_core() -> frozenset[str]:
    """What the installed ansible-core says that it takes, where it has a list (2.21 and later)."""
    try:
        from ansible._internal._task import PRESERVE, UnifiedTaskResult
    except ImportError:
        return frozenset()
    taken: set[str] = set(PRESERVE)
    taken.update(UnifiedTaskResult.get_result_key_to_resolved_field_mapping(source_is_module=True))
    for callback in (True, False):
        names = UnifiedTaskResult._get_field_name_to_result_key_mapping(for_callback=callback, for_round_trip=True)
        taken.update(names.values())
    return frozenset(taken)


def reserved() -> frozenset[str]:
    """Every name that no module of ours may return."""
    return (_TAKEN | _METHODS | _of_this_core()) - MEANT


def reserved_in(result: t.Iterable[str]) -> list[str]:
    """Those that a result or a documentation has, of Ansible's and beginning as its internal ones do."""
    taken = reserved()
    return sorted(name for name in result if name in taken or name.startswith(("_ansible_", "ansible_")))
