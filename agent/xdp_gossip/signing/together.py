# SPDX-License-Identifier: MIT
"""Verifies several signatures at the same time, on all processors that this process may use."""

from __future__ import annotations

import _thread
import os
from collections import deque
from collections.abc import Sequence

from .sshsig import verify

#: Minimum number of signatures for each additional thread. A thread costs about as much as one verification.
EACH = 8
#: Maximum number of additional threads.
MAX_THREADS = 3


def verify_all(signatures: Sequence[tuple[bytes, bytes]]) -> list[bytes | ValueError]:
    """Verify signatures (see :func:`.sshsig.verify`); each is a pair of a signature and its message.

    Returns for each signature the public key of the signer, or the error.

    libsodium holds no lock of the interpreter while it verifies, so threads can verify at the same time. The function
    never waits for another thread: what another thread has begun and not finished at the end, the caller verifies
    itself. So the call takes no longer than without threads if no other processor is idle.
    """
    found: list[bytes | ValueError | None] = [None] * len(signatures)
    # Methods of a deque are atomic, so each index is taken once.
    left = deque(range(len(signatures)))

    def work() -> None:
        while True:
            try:
                number = left.pop()
            except IndexError:
                return
            found[number] = _outcome(*signatures[number])

    for _number in range(_threads(len(signatures))):
        try:
            _thread.start_new_thread(work, ())
        except RuntimeError:  # no more threads are allowed, or the program is about to end
            break
    while left:
        try:
            number = left.popleft()
        except IndexError:  # another thread took the last one
            break
        found[number] = _outcome(*signatures[number])
    return [_outcome(*signature) if outcome is None else outcome for outcome, signature in zip(found, signatures)]


def _threads(count: int) -> int:
    return min(count // EACH, MAX_THREADS, len(os.sched_getaffinity(0)) - 1)


def _outcome(blob: bytes, message: bytes) -> bytes | ValueError:
    try:
        return verify(blob, message)
    except ValueError as error:
        return error
