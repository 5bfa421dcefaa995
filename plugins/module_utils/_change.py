# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: compares the wanted state of a document with the document in the fleet, and writes the
document. Python 3.8 or later.
"""

from __future__ import annotations

import base64
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import diff_text
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import Question
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._expiry import to_renew
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, digest_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import SEALED, parse_envelope
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish


class Conflict(Exception):
    """Raised if the document does not have the version ``if_version``. ``actual`` is the document's version, or
    ``absent``.
    """

    def __init__(self, wish: Wish, actual: str) -> None:
        self.key = wish.key
        self.expected = str(wish.if_version)
        self.actual = actual
        super().__init__(
            "document %r was not written: expected version %s, the fleet has %s"
            % (clip(self.key), clip(self.expected), clip(self.actual))
        )


class Change:
    """A change to one document, after which the document has the state that ``wish`` describes.

    The constructor reads the document from the fleet and plans the change. ``apply`` writes the document.
    """

    def __init__(self, wish: Wish, fleet: Fleet) -> None:
        self.wish = wish
        self._fleet = fleet
        if wish.rollback_to is not None:
            try:
                kept = fleet.version(wish.key, wish.rollback_to)
            except ConfigError as exc:
                raise ConfigError("rollback_to: %s" % exc) from None
            wish.value, wish.content_type, wish.type_counts = kept[1], kept[0]["content_type"], True
        self._held, self._value, self.planned = self._look()
        self.written = False
        #: True if the change was sent but no answer arrived, so that the change may have been written.
        self.uncertain = False
        self.previous: str | None = self._held.get("version")
        self.version = self.previous
        self.digest = None if wish.value is None else digest_of(wish.value)
        #: Who signed the current version, as the member says; ``None`` for a document without a signature.
        self.signed_by: t.Any = self._held.get("signed_by")

    @property
    def lineage(self) -> list[str]:
        """The version that a new version replaces, or that of the document's deletion, and the versions before it."""
        return self._fleet.lineages.get(self.wish.key, [])

    def _look(self) -> tuple[dict[str, t.Any], bytes | None, bool]:
        """Read the document. Returns the document's description and value, and whether the document must be written."""
        wish = self.wish
        held, value = self._fleet.read(wish.key) or ({}, None)
        retyped = wish.value is not None and wish.type_counts and wish.content_type != held.get("content_type")
        #: True if the content is unchanged and the document is written only to renew its expiry.
        self._renewed = (
            value is not None and wish.value == value and to_renew(held.get("expires"), wish.expires, self._fleet.now)
        )
        self._retyped = retyped
        #: True if the content is unchanged and the document is written because another key, or none, has signed it.
        self._resigned = value is not None and wish.value == value and wish.signer not in (None, _key_of(held))
        return held, value, retyped or self._renewed or self._resigned or wish.value != value

    def check(self) -> None:
        """Raise ``Conflict`` if a change is planned and the document does not have the version ``if_version``."""
        actual = self.previous or "absent"
        if self.planned and self.wish.if_version not in (None, actual):
            raise Conflict(self.wish, actual)

    def apply(self) -> None:
        """Write the planned change.

        Raises ``Conflict`` if another publisher has written the document since this module read it, and ``ClientError``
        if the change was not written or its outcome is unknown.
        """
        wish = self.wish
        try:
            if wish.rollback_to is not None:
                answer = self._fleet.rollback(
                    wish.key, wish.rollback_to, wish.if_version, wish.author, wish.comment, wish.expires
                )
            elif wish.value is None:
                answer = self._fleet.delete(wish.key, wish.if_version, {"author": wish.author, "comment": wish.comment})
            else:
                about = dict(self._kind(), author=wish.author, comment=wish.comment)
                if wish.expires:
                    about["expires_in"] = str(wish.expires)
                answer = self._fleet.write(wish.key, wish.value, wish.if_version, about)
        except Unreachable as exc:
            self.unanswered(exc)
            raise
        except ApiError as exc:
            if exc.code != "version_mismatch":
                raise
            self._overtaken(str(exc.details.get("actual") or "absent"))
        else:
            self.done(answer)

    def _kind(self) -> dict[str, str | None]:
        """Return the request's parameter for the document's type: either the content type, or a file suffix from which
        the agent derives the type.

        The agent and not this module derives the type, because only the agent knows the document's type at the moment
        of the write.
        """
        if self.wish.content_type is not None:
            return {"content_type": self.wish.content_type}
        return {"suffix": self.wish.suffix} if self.wish.suffix else {}

    def entry(self) -> dict[str, t.Any]:
        """Return the planned change as an entry for ``Fleet.write_many``."""
        wish = self.wish
        entry: dict[str, t.Any] = {"key": wish.key}
        if wish.value is None:
            entry["delete"] = True
        else:
            entry.update(self._kind())
            try:
                entry["value"] = wish.value.decode("utf-8")
            except UnicodeDecodeError:
                entry["value_base64"] = base64.b64encode(wish.value).decode("ascii")
            if wish.expires:
                entry["expires_in"] = wish.expires
        if wish.if_version == "absent":
            entry["if_absent"] = True
        elif wish.if_version is not None:
            entry["if_version"] = wish.if_version
        return entry

    def signed_entry(self, signed: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return the document as an entry of a signed request. ``signed`` contains ``read`` and ``expires``."""
        entry = dict(self.entry(), read=signed["read"])
        entry.pop("expires_in", None)
        if self.wish.value is not None:
            entry["expires"] = signed["expires"]
        return entry

    def done(self, answer: dict[str, t.Any]) -> None:
        """Store the member's answer to the planned change."""
        self.written = answer["changed"]
        self.version = answer["version"]
        self.signed_by = answer["signed_by"]
        self.planned = False

    def unanswered(self, problem: Unreachable) -> None:
        """Record that no member answered; ``problem`` says whether the change may have been written."""
        self.uncertain = problem.maybe_applied
        self.planned = not problem.maybe_applied

    def look_again(self) -> None:
        """Read the document again after another publisher has written the document."""
        self._held, self._value, self.planned = self._look()
        self.previous = self.version = self._held.get("version")
        self.signed_by = self._held.get("signed_by")

    def _overtaken(self, actual: str) -> None:
        """Read the document again after a write that failed because another publisher wrote first. Raises ``Conflict``
        if the document differs from the wanted state.
        """
        held, _value, self.planned = self._look()
        if self.planned:
            raise Conflict(self.wish, actual)
        self.version, self.signed_by = held.get("version"), held.get("signed_by")

    def diff(self, sensitive: bool) -> dict[str, str]:
        """Return the diff of the document in the form that Ansible shows."""
        key, value = self.wish.key, self.wish.value
        shown = {
            "before_header": "%s (%s)" % (key, self.previous or "absent"),
            "after_header": key if value is not None else "%s (absent)" % key,
            # Content that is sealed now may have been a secret in clear text before.
            "before": diff_text(self._value, self._held.get("digest"), sensitive or self.wish.content_type == SEALED),
            "after": diff_text(value, self.digest, sensitive),
        }
        if (self.planned or self.written) and value == self._value:
            notes = ""
            if self._retyped:
                types = (key, clip(str(self._held.get("content_type"))), self.wish.content_type)
                notes += "%s: content type %s -> %s\n" % types
            if self._renewed:
                until = "in %d s" % self.wish.expires if self.wish.expires else "never"
                notes += "%s: expires %s -> %s\n" % (key, clip(str(self._held.get("expires") or "never")), until)
            if self._resigned:
                keys = (key, clip(_key_of(self._held) or "nobody"), self.wish.signer)
                notes += "%s: signed by %s -> %s\n" % keys
            shown["prepared"] = notes
        return shown

    def result(self, predicted: bool = False) -> dict[str, t.Any]:
        """Return the module's result for this document. With ``predicted`` (check mode), the result describes a planned
        change as if the module had already made this change.
        """
        foreseen = predicted and self.planned
        shown: dict[str, t.Any] = {
            "key": self.wish.key,
            "changed": self.written or foreseen,
            "version": None if foreseen else self.version,
            "previous_version": self.previous,
            "digest": self.digest,
            "signed_by": None if foreseen else self.signed_by,
            "sealed": self._sealed(),
        }
        if self.wish.value is not None:
            shown["size"] = len(self.wish.value)
        return shown

    def _sealed(self) -> dict[str, t.Any] | None:
        """Return what everybody may know of the envelope that the task publishes; ``None`` for another content."""
        if self.wish.value is None or self.wish.content_type != SEALED:
            return None
        try:
            return parse_envelope(self.wish.value).describe()
        except ValueError:  # the member will refuse it, and says why
            return None

    def question(self) -> Question:
        """Return the question whether members have this document. If the document should be absent, return the question
        whether members have deleted it.
        """
        if self.wish.value is None:
            return Question(self.wish.key, self.version, absent=True)
        return Question(self.wish.key, self.version, self.digest)


def _key_of(held: t.Mapping[str, t.Any]) -> str | None:
    """Return the fingerprint of the key that signed a document; ``None`` if nobody did."""
    found = held.get("signed_by")
    key = found.get("key") if isinstance(found, dict) else None
    return key if isinstance(key, str) else None
