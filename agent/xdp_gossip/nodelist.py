# SPDX-License-Identifier: MIT
"""CONTRACT SKETCH of the facade (being implemented): the HTTP API and the CLI rely on these names.

class AsyncNodeList:
    def __init__(self, amount=3, cycle=6, buffer=0, size=16384, timeout=0, secret_key="", protocol="UDP",
                 listen_addr="0.0.0.0", is_print=False, *, wire="native", cluster="default", keys=(), state_dir=None,
                 max_clock_drift=60.0, limits=..., rng=None)
    def new(self, node: Node) -> None            # seed's New
    async def join(self) -> None                 # seed's Join: opens sockets, starts
    def set(self, node: Node) -> None            # seed's Set
    def get(self) -> list[Node]                  # seed's Get: present nodes, local first
    def stop(self) / start(self) -> bool         # seed's Stop/Start
    async def publish(self, data: bytes, key="default", *, expected=None, absent=False, content_type="raw",
                      author="", comment="") -> Published     # fsynced when it returns
    async def delete(self, key, *, expected=None) -> Published
    def read(self, key="default") -> bytes       # seed's Read; b"" when there is none
    async def leave(self) -> bool
    async def close(self) -> None
    # beyond the seed
    def members(self, states=PRESENT|None) -> list[Member]
    def document(self, key) -> Document | None;  def documents(self, prefix="") -> list[Document]
    async def history(self, key) -> list[Document]            # newest first
    def update_node(self, name=None, private_data=None) -> bool
    def status(self) -> dict                     # GET /v1/status of docs/contracts.md
    async def convergence(self, key=None, version=None, digest=None, wait="all", timeout=0.0) -> Convergence
    revision: int                                # grows with every change
    async def changes(self, since: int, timeout: float, prefix="") -> Changes   # .revision .gap .changes
    keys: list of (id, state)
Errors: NotReadyError (call before new()/join()), core.interface.ProtocolError.
"""
