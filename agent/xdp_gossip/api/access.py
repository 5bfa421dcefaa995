# SPDX-License-Identifier: MIT
"""Decides who a client of the API is, and what this client may do.

A client is a token (TCP) or a user of the host (Unix socket). A client may do only what its right and its prefixes
permit; everything else is denied. :meth:`Access.configure` replaces tokens and rights while the agent runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..config.access import TOKEN_FILE, SocketRight, TokenConfig, hash_of
from ..core.shown import shown
from ..core.types import MAX_COMMENT
from .accounts import Accounts, Peer
from .errors import Fault, bad_request

_SCHEME = "bearer"
#: Keys of a request under which :func:`identify` stores the client, and the rights by which the client was recognised.
_IDENTITY, _ACCESS = "identity", "access"
FORBIDDEN = "forbidden"


class Right(enum.IntEnum):
    """What a client may do. Each right includes the lower ones. ``PUBLIC``: what clients without any right may do."""

    PUBLIC = 0
    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The right as ``agent.yml`` spells it."""
        return self.name.lower()


@dataclass(frozen=True)
class Identity:
    """A client that has authenticated: a token or a user of the Unix socket.

    ``name``: the token's name, or ``user:NAME`` for a user of the socket; histories and audit records contain it.
    ``prefixes``: the client may use only keys that begin with one of these texts; no prefixes mean all keys.
    ``proof``: the hash of the token, or the user of the socket, by which the client was recognised.
    """

    name: str
    right: Right
    prefixes: tuple[str, ...] = ()
    proof: Any = field(default=None, repr=False)

    @property
    def limited(self) -> bool:
        """Whether the client may use some keys only."""
        return bool(self.prefixes)

    def may_use(self, key: str) -> bool:
        """Whether the client may use the document ``key``."""
        return not self.prefixes or key.startswith(self.prefixes)

    def need(self, right: Right, what: str) -> None:
        """Raise :class:`Fault` 403 if the client does not have the right that the operation ``what`` needs."""
        if self.right < right:
            has = f"has the right {self.right.word}" if self.right else "has no right"
            text = f"{what} needs the right {right.word}; {self.name or 'the client'} {has}"
            raise Fault(403, FORBIDDEN, text, needs=right.word, has=self.right.word if self.right else None)

    def need_key(self, key: str, where: str = "key") -> None:
        """Raise :class:`Fault` 403 if the client may not use the document ``key``; ``where`` names the parameter."""
        if not self.may_use(key):
            wanted = f"a key that begins with {self._shown()}, as {self.name} may use no other"
            text = f"{where}: expected {wanted}, got {shown(key)}"
            raise Fault(403, FORBIDDEN, text, key=key, prefixes=list(self.prefixes))

    def need_all_keys(self, what: str) -> None:
        """Raise :class:`Fault` 403 if the client may use some keys only, but ``what`` concerns all keys."""
        if self.limited:
            text = f"{what} concerns all keys; {self.name} may use only those that begin with {self._shown()}"
            raise Fault(403, FORBIDDEN, text, prefixes=list(self.prefixes))

    def _shown(self) -> str:
        more = len(self.prefixes) - 5
        return " or ".join(self.prefixes[:5]) + (f" or one of {more} other prefixes" if more > 0 else "")

    def narrowed(self, prefix: str) -> tuple[str, ...]:
        """Return the prefixes, in the order of the keys, that select the keys that begin with ``prefix`` and that the
        client may use.
        """
        if not self.prefixes or prefix.startswith(self.prefixes):
            return (prefix,)
        return tuple(sorted(one for one in self.prefixes if one.startswith(prefix)))


#: A client that has not authenticated, and a client of an application without access rules.
NOBODY = Identity("", Right.PUBLIC)


def identity_of(request: web.Request) -> Identity:
    """Return the client of ``request``; :data:`NOBODY` if the client has not authenticated."""
    found = request.get(_IDENTITY)
    return found if isinstance(found, Identity) else NOBODY


class Access:
    """The tokens and the rights of the socket's users, shared by all sockets of one agent."""

    def __init__(
        self,
        token: str | None = None,
        tokens: tuple[TokenConfig, ...] = (),
        socket_rights: tuple[SocketRight, ...] = (),
    ) -> None:
        self._accounts = Accounts()
        self._held: dict[asyncio.Future[None], Identity] = {}
        self._tokens: list[Identity] = []
        self._valid: frozenset[Identity] = frozenset()
        self._socket: tuple[SocketRight, ...] = ()
        self.configure(token, tokens, socket_rights)

    @property
    def has_tokens(self) -> bool:
        """Whether there is a token with which a TCP client can authenticate."""
        return bool(self._tokens)

    def configure(
        self, token: str | None, tokens: tuple[TokenConfig, ...], socket_rights: tuple[SocketRight, ...]
    ) -> None:
        """Replace all tokens and rights. ``token`` is the content of ``api.token_file``, whose right is admin.

        Several tokens may have the same name, and one of them may be the token of the file.
        Streams and waiting requests end if their client's token or rights have changed.
        """
        known = [Identity(TOKEN_FILE, Right.ADMIN, (), hash_of(token).encode())] if token else []
        for one in tokens:
            known.append(Identity(one.name, Right[one.rights.upper()], one.prefixes, one.hash.encode()))
        self._tokens, self._valid, self._socket = list(dict.fromkeys(known)), frozenset(known), socket_rights
        for future, identity in self._held.items():
            if not future.done() and not self.is_valid(identity):
                future.set_result(None)

    def of_token(self, header: str) -> Identity | None:
        """Return the client that sent ``header`` (``Authorization``, RFC 6750); None if no token matches.

        The token is compared with every hash, so that the time tells nothing about which one matched.
        """
        scheme, _space, given = header.partition(" ")
        token = given.strip()
        digest = hash_of(token).encode()
        found: Identity | None = None
        for identity in self._tokens:
            if hmac.compare_digest(identity.proof, digest):
                found = identity
        return found if token and scheme.lower() == _SCHEME else None

    async def of_peer(self, peer: Peer) -> Identity:
        """Return the user ``peer`` of the Unix socket, with the rights of the first entry that names the user."""
        # Root must get an answer even while a directory server of users does not answer.
        await self._accounts.learn(peer, () if peer.is_own else self._socket)
        return self._of_peer(peer)

    def _of_peer(self, peer: Peer) -> Identity:
        name = f"user:{self._accounts.name(peer.uid)}"
        if peer.is_own or not self._socket:
            return Identity(name, Right.ADMIN, (), peer)
        for entry in self._socket:
            if self._accounts.matches(peer, entry):
                return Identity(name, Right[entry.rights.upper()], entry.prefixes, peer)
        return Identity(name, Right.PUBLIC, (), peer)

    def is_valid(self, identity: Identity) -> bool:
        """Whether the client still has exactly the rights that it had when it authenticated."""
        if isinstance(identity.proof, Peer):
            return self._of_peer(identity.proof) == identity
        return identity in self._valid or identity is NOBODY

    @contextlib.contextmanager
    def holding(self, identity: Identity) -> Iterator[asyncio.Future[None]]:
        """Yield a future that completes when the rights of ``identity`` change or its token is removed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.is_valid(identity):
            future.set_result(None)
        self._held[future] = identity
        try:
            yield future
        finally:
            del self._held[future]
            future.cancel()

    def recheck(self, identity: Identity) -> None:
        """Raise :class:`Fault` 401 if the rights of ``identity`` have changed since the request arrived."""
        if not self.is_valid(identity):
            raise Fault(401, "unauthorized", f"the rights of {identity.name} have changed; nothing was done")


def identify(request: web.Request, identity: Identity, access: Access) -> None:
    """Store the client of ``request``, which was recognised by ``access``."""
    request[_IDENTITY], request[_ACCESS] = identity, access


def recheck(request: web.Request) -> None:
    """Raise :class:`Fault` 401 if the rights of the client have changed since ``request`` arrived."""
    access = request.get(_ACCESS)
    if isinstance(access, Access):
        access.recheck(identity_of(request))


def attributed(identity: Identity, author: str, comment: str) -> tuple[str, str]:
    """Return the author and the comment of a new version: the author is the client that has authenticated.

    An ``author`` that the client names becomes the beginning of the comment. Raises :class:`Fault` 400 if the comment
    is then too long.
    """
    # The command line sends the user's own name as the author, if no other author is given.
    if author in ("", identity.name) or f"user:{author}" == identity.name:
        return identity.name, comment
    text = f"[{author}] {comment}" if comment else f"[{author}]"
    if len(text.encode("utf-8", "surrogatepass")) > MAX_COMMENT:
        more = len(text.encode("utf-8", "surrogatepass")) - len(comment.encode("utf-8", "surrogatepass"))
        raise bad_request(
            f"comment: expected at most {MAX_COMMENT - more} bytes, as the author that the request names is put in "
            f"front of it"
        )
    return identity.name, text
