# SPDX-License-Identifier: MIT
"""Reads who may use the API: ``api.tokens`` and ``api.socket_rights`` of the agent's configuration file.

The file contains only the SHA-256 hash of a token. A fast hash is enough, because a token has at least 128 bits of
entropy: nobody can find it by trying tokens.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from ..core.types import MAX_KEY, is_key_prefix
from .reader import Section, show

#: The rights, each of which includes the rights before it.
RIGHTS = ("read", "write", "admin")
#: Maximum number of tokens, of entries for the Unix socket, and of prefixes of one entry. Every request of a TCP client
#: is compared with all tokens.
MAX_TOKENS = 1000
MAX_SOCKET_RIGHTS = 256
MAX_PREFIXES = 64
#: Minimum length of a token, in characters. 22 characters of base64 hold 128 bits.
MIN_TOKEN = 22
#: Name of the token in ``api.token_file``.
TOKEN_FILE = "token_file"

#: Names of tokens. They contain no colon, so no token can have the name of a user of the socket (``user:NAME``).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_WORDS = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
#: A user or a group: a name as useradd(8) accepts it, or a number.
_ACCOUNT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,63}\$?")


@dataclass(frozen=True)
class TokenConfig:
    """One entry of ``api.tokens``. ``hash`` is ``sha256:`` and 64 hex digits. No ``prefixes``: all keys."""

    name: str
    hash: str = field(repr=False)
    rights: str
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SocketRight:
    """One entry of ``api.socket_rights``: either ``user`` or ``group`` is a name or a number, the other is ""."""

    user: str
    group: str
    rights: str
    prefixes: tuple[str, ...] = ()


def hash_of(token: str) -> str:
    """Return the hash of ``token`` in the form of ``api.tokens``."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogateescape')).hexdigest()}"


def new_token() -> str:
    """Return a new random token of 256 bits. Its beginning lets a secret scanner recognise the token."""
    return f"xg_{secrets.token_urlsafe(32)}"


def is_word(token: str) -> bool:
    """Whether ``token`` can be sent in a header: printable ASCII characters without a space."""
    return token.isascii() and token.isprintable() and " " not in token


def tokens(api: Section, single: str) -> tuple[TokenConfig, ...]:
    """Read ``api.tokens``. ``single`` is the token from ``api.token_file``; "" if there is none.

    Several tokens may have one name if they have the same rights and prefixes: while a token is rotated, its client may
    use the old and the new one. The name ``token_file`` means the token in ``api.token_file``, whose right is admin.
    An entry with this name may repeat the token in the file, so that a rotation can replace the content of the file
    before or after it changes the entry.
    """
    found: list[TokenConfig] = []
    granted: dict[str, tuple[str, tuple[str, ...]]] = {TOKEN_FILE: ("admin", ())}
    of_file = hash_of(single) if single else ""
    hashes = {of_file} if single else set()
    for index, item in enumerate(api.items("tokens", MAX_TOKENS)):
        section = Section(api.problems, api.path(f"tokens[{index}]"), item, ("name", "hash", "rights", "prefixes"))
        name, digest = section.text("name", ""), section.text("hash", "")
        rights = _rights(section)
        if not _NAME.fullmatch(name):
            section.expected("name", _NAME_WORDS, show(section.data.get("name")))
        elif granted.setdefault(name, rights) != rights:
            one = "api.token_file, admin" if name == TOKEN_FILE else "the other token of this name"
            section.expected("rights", f"those of {one}, and the same prefixes", f"others for {show(name)}")
        repeats_file = name == TOKEN_FILE and digest == of_file
        if not _HASH.fullmatch(digest):
            # The value is not shown: somebody may have written the token itself.
            got = f"text of {len(digest)} characters" if digest else "nothing"
            section.expected("hash", "sha256: and 64 hex digits in lower case, as xdp-gossip token prints it", got)
        elif digest == hash_of(""):
            # An inventory that hashes a variable which is empty gives this hash; everybody has the token.
            section.expected("hash", "the hash of a token", "that of the empty text")
        elif digest in hashes and not repeats_file:
            section.expected("hash", "the hash of a token that no other entry and not api.token_file has", "its hash")
        hashes.add(digest)
        found.append(TokenConfig(name, digest, *rights))
    return tuple(found)


def socket_rights(api: Section) -> tuple[SocketRight, ...]:
    """Read ``api.socket_rights``."""
    found: list[SocketRight] = []
    for index, item in enumerate(api.items("socket_rights", MAX_SOCKET_RIGHTS)):
        name = api.path(f"socket_rights[{index}]")
        section = Section(api.problems, name, item, ("user", "group", "rights", "prefixes"))
        user, group = _account(section, "user"), _account(section, "group")
        if section.given("user") == section.given("group"):
            section.expected("user", "either user or group", "both" if section.given("user") else "neither")
        elif (user, group) in ((each.user, each.group) for each in found):
            section.expected("user" if user else "group", "one entry for each user and group", show(user or group))
        found.append(SocketRight(user, group, *_rights(section)))
    return tuple(found)


def _account(section: Section, key: str) -> str:
    value = section.data.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return str(value)
    text = section.text(key, "")
    if text and not _ACCOUNT.fullmatch(text):
        section.expected(key, f"the name or the number of a {key}", show(text))
        return ""
    return text


def _rights(section: Section) -> tuple[str, tuple[str, ...]]:
    """Read ``rights`` and ``prefixes``. A prefix that another prefix includes is left out."""
    rights = section.choice("rights", "read", RIGHTS, required=True)
    given: set[str] = set()
    for index, item in enumerate(section.items("prefixes", MAX_PREFIXES)):
        if is_key_prefix(item):
            given.add(str(item))
        else:
            what = f"the beginning of document keys, 1 to {MAX_KEY} bytes, such as app/"
            section.expected(f"prefixes[{index}]", what, show(item))
    if given and rights == "admin":
        section.expected("prefixes", "none with rights: admin, which include all keys", f"{len(given)} prefixes")
    return rights, tuple(
        sorted(one for one in given if not any(one != other and one.startswith(other) for other in given))
    )
