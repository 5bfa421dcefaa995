# SPDX-License-Identifier: MIT
"""Callback plugin: appends the duration of each task, on all its hosts, to the file that the environment variable
TASK_TIMES names.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_times
type: aggregate
short_description: Writes the duration of each task to a file
version_added: 0.1.0
description:
  - Appends one JSON object for each task to a file.
  - The object contains the name of the task and the seconds until the next task began.
"""


class CallbackModule(CallbackBase):
    """Measures the seconds from the start of a task to the start of the next task, or to the end of the last play."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"

    def __init__(self) -> None:
        super().__init__()
        self._running: tuple[str, float] | None = None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Write the duration of the previous task, which has ended on all hosts, and start to measure ``task``."""
        self._note()
        self._running = (task.get_name(), time.monotonic())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the duration of the last task."""
        self._note()

    def _note(self) -> None:
        if self._running is not None:
            name, began = self._running
            with open(os.environ["TASK_TIMES"], "a", encoding="utf-8") as file:
                file.write(json.dumps({"task": name, "seconds": time.monotonic() - began}) + "\n")
            self._running = None
