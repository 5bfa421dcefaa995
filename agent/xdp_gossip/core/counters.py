# SPDX-License-Identifier: MIT
"""The names of all counters of the engines. Each declared counter starts at 0.

If a counter first appeared with the value 1, Prometheus' ``increase()`` would miss that first event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from .packets import PacketType
from .types import State

#: Name of the counter that counts events whose own counters are not declared in this module. A count of more than 0
#: shows a bug of the agent.
UNDECLARED = "counters_undeclared"

#: Reasons for rejecting a packet (``packets.Rejected``), grouped by the file that raises them.
REJECTED = (
    # wire/native.py, wire/bodies.py
    *("truncated", "malformed", "foreign_version", "foreign_cluster", "bad_mac", "bad_body", "unknown_key"),
    # core/admission.py, core/members/membership.py
    *("own", "stale_time", "unknown_leave", "bad_address", "table_full", "stale_incarnation", "duplicate"),
)

#: Counters of the native engine.
NATIVE = (
    *(f"rx_{kind.name.lower()}" for kind in PacketType),
    *(f"tx_{kind.name.lower()}" for kind in PacketType),
    *(f"rx_{reason}" for reason in REJECTED),
    *("rx_misdirected", "rx_not_running", "rx_unasked_response", "rx_probe_again"),
    *("relayed", "relay_ttl_exceeded"),
    *(f"members_became_{state.value}" for state in State),
    *("members_no_common_family", "members_unreached", "members_withheld", "indirect_acks", "paths_limited"),
    *("alerts_ignored", "alerts_withheld", "edge_rounds_forgiven", "isolations", "members_condemned"),
    *("readmissions_delayed", "refutations_withheld", "signs_of_removed"),
    *("own_stalls", "own_address_conflicts", "refutations", "twins_seen", "name_conflicts", "fleets_met"),
    *("clock_steps", "clocks_apart", "suspends"),
    *("documents_ahead", "documents_expired", "document_conflicts", "documents_withheld"),
    *(f"documents_refused_{why}" for why in ("collected", "early", "future", "too_large", "too_many", "store_full")),
    *("documents_refused_unsigned", "documents_refused_signature"),
    *("batches_dropped", "batches_given_up", "tombstones_collected", "tombstones_dropped"),
    *("chunks_again", "chunks_unwanted", "fetches_corrupt", "fetches_dropped", "fetches_given_up", "fetches_late"),
    *("entry_lists_withheld", "member_lists_withheld", "records_withheld"),
)

#: Counters of the PekoNode engine.
PEKONODE = (
    *("rx_bad_address", "rx_heartbeats", "rx_ignored", "rx_malformed", "rx_oversized", "rx_own", "rx_stale_record"),
    *("rx_swap_requests", "rx_swap_responses", "rx_wrong_key", "tx_packets", "tx_too_large"),
    *("rumors_duplicate", "rumors_full", "rumors_relayed", "updates_known", "infected_trimmed"),
    *("heartbeats", "stalls", "members_full", "records_shortened"),
    *("version_ties", "versions_in_future", "documents_not_restored"),
)


class Counters(dict[str, int]):
    """Counters by name. Every declared counter is present from the start."""

    #: Whether :meth:`add` raises ``KeyError`` for an undeclared name; tests set this attribute to True. If ``strict``
    #: is False, :meth:`add` creates the counter and also counts :data:`UNDECLARED`, so that a missing declaration does
    #: not drop a packet.
    strict: ClassVar[bool] = False

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(dict.fromkeys((*names, UNDECLARED), 0))

    def add(self, name: str, amount: int = 1) -> None:
        """Add ``amount`` to a counter. Raises ``KeyError`` for an undeclared name if :attr:`strict` is set."""
        if name not in self:
            if self.strict:
                raise KeyError(f"counter {name!r}: expected one that is declared")
            self[UNDECLARED] += 1
            self[name] = 0
        self[name] += amount
