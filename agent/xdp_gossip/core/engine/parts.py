# SPDX-License-Identifier: MIT
"""Creates the parts of a member and connects them."""

from __future__ import annotations

import random

from ..admission import Admission
from ..detector import Detector
from ..dispatcher import Dispatcher
from ..documents.metadata import Metadata
from ..documents.table import DocumentTable
from ..identity import Identity
from ..kernel_view import KernelView
from ..members.membership import Membership
from ..members.ring import RelayRing
from ..members.timing import Timing
from ..observers.answers import Answers
from ..observers.cuts import Cuts
from ..observers.edges import Edges
from ..observers.readmission import Readmission
from ..observers.rings import Rings
from ..outbox import Local, Outbox
from ..packets import Codec
from ..paths import Paths
from ..peer_selection import PeerSelection
from ..queries import Queries
from ..settings import Settings
from ..signers import Signers
from ..sync.anti_entropy import AntiEntropy
from ..sync.catchup import CatchUp
from ..sync.fetch import Fetcher
from ..sync.nodelists import NodeLists
from ..sync.records import NodeRecords
from ..sync.supply import Supply
from ..timers import Timers
from ..types import Node, Record
from ..unknown_keys import UnknownKeys


class Parts:
    """All parts of a member that uses the native wire format.

    ``node``: the local node. ``codec``: encodes and decodes packets (``wire.native.NativeCodec``). ``rng``: the source
    of all randomness. ``incarnation``: a number higher than the incarnation of any earlier run; the store supplies it.
    ``agent_version`` and ``plane`` (the name of the transport) become part of the local node's record. ``signers``: the
    rules of signed documents; None: no document needs a signature. ``sealing``: fingerprint of the key with which this
    host opens sealed documents; empty if it has none.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        codec: Codec,
        rng: random.Random,
        incarnation: int,
        *,
        agent_version: str = "",
        plane: str = "",
        signers: Signers | None = None,
        sealing: bytes = b"",
    ) -> None:
        self.settings = settings
        self._rng = rng
        signers = signers or Signers()
        stamp = (incarnation, 0)
        own = (settings.zone, signers.digest, tuple(sorted(codec.keys)), sealing)
        record = Record(node.name, node.private_data, agent_version, plane, stamp, *own)
        self._codec = codec
        self._local = Local(node, record, incarnation)
        table = DocumentTable()
        self._membership = Membership(node.address, settings.limits.nodes, rng, settings.zone)
        self._timing = Timing(settings, self._membership)
        self._out = Outbox(codec, self._local, self._membership, self._timing, lambda: table.digest, rng)
        self.documents = Metadata(node.address, settings, self._out, table, signers)
        self._detector = Detector(self._local, self._membership, self._out, self._timing)
        rings = Rings()
        observing = (self._local, self._membership, self._detector, rings, self._out)
        self._edges, self._cuts = Edges(*observing, self._timing), Cuts(*observing)
        self._readmission = Readmission()
        waits = (settings.wait_for_members, settings.expects_seeds)
        self._catch_up = CatchUp(self._local, self._membership, self.documents, self._out, self._timing, *waits)
        frame = settings.size
        self._supply = Supply(table, self._out, frame)
        self._fetcher = Fetcher(self.documents, self._out, self._supply, self._membership, settings.limits.documents)
        self._lists = NodeLists(
            self._local, self._membership, self._detector, self._out, self._timing, frame, self._catch_up
        )
        self._anti_entropy = AntiEntropy(
            self._local,
            self._membership,
            self._lists,
            self.documents,
            self._fetcher,
            self._supply,
            self._out,
            self._timing,
            frame,
            self._catch_up,
        )
        self._admission = Admission(
            codec,
            self._local,
            self._membership,
            self._detector,
            self._anti_entropy,
            self._out,
            self._timing,
            settings.max_clock_drift,
        )
        self._identity = Identity(self._local, self._membership, self._out, self._timing)
        self._records = NodeRecords(self._local, self._membership, self._identity, self._out, frame)
        self._paths = Paths(self._membership, self._out, self._identity.shared)
        self._admission.on_stale_run = self._identity.stale_run
        self._timers = Timers()
        self._selection = PeerSelection(
            self._local,
            self._membership,
            self._detector,
            self._anti_entropy,
            self._records,
            self._out,
            self._timing,
            self._timers,
            rng,
        )
        self._unknown_keys = UnknownKeys(
            self._membership,
            self._timing,
            self._selection.seeds.contacts,
            lambda: self._edges.isolated,
            self._out,
        )
        self._admission.on_unknown_key = self._unknown_keys.note
        self._anti_entropy.on_alias = self._selection.seeds.is_alias
        self._kernel_view = KernelView(
            self._membership, self._admission, self._detector, self._selection, self._records, self._out, self._timing
        )
        self._queries = Queries(self.documents, self._out)
        self._dispatcher = Dispatcher(
            codec,
            self._admission,
            self._membership,
            self._detector,
            self._selection,
            self._anti_entropy,
            self._lists,
            self._fetcher,
            self._supply,
            self._records,
            self._queries,
            self._kernel_view,
            self._identity,
            self._paths,
            self._edges,
            Answers(self._out),
            self._cuts,
            self._out,
            self._timing,
            self._catch_up,
        )
        self._ring = RelayRing(self._membership, self._timing)
