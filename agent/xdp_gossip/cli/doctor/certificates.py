# SPDX-License-Identifier: MIT
"""Checks the certificates of the API: validity, names, issuers, and whether the agent serves the current
certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import unseen
from .finding import Finding, Subject
from .look import Look, may_not

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SAYS = Subject(
    "certificate",
    unreadable="error",
    mismatch="error",
    expired="error",
    early="error",
    soon="warning",
    names="warning",
    chain="warning",
    served="warning",
)
#: A certificate that expires within this many days should be renewed.
_SOON = 30
_NAME = "name a PEM certificate as api.tls.cert"
_RENEW = "renew it, then systemctl restart xdp-gossip"


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the API's certificates; no findings if the API does not use TLS."""
    path, key = look.files.get("api.tls.cert"), look.files.get("api.tls.key")
    if not path:
        return
    try:
        with open(path, "rb") as stream:
            chain = parse(stream.read(1 << 20))
    except OSError as error:
        yield unseen(path) if may_not(error) else _SAYS("unreadable", f"{path}: {error.strerror}", _NAME)
        return
    except ValueError as error:
        yield _SAYS("unreadable", f"{path}: expected PEM certificates: {error}", _NAME)
        return
    found = [*_times(path, chain), *_names(path, chain[0], look), *_issuers(path, chain, look)]
    if key:
        found += _key(path, key)
    found += _served(path, chain[0], look)
    yield from found
    if not found:
        yield _SAYS.ok(f"{path} holds until {_end(chain[0]):%Y-%m-%d}")


def parse(raw: bytes) -> list[Certificate]:
    """Parse all certificates of a PEM file. Raises ``ValueError`` if the file contains no certificate."""
    from cryptography import x509

    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in raw.split(end)[:-1]]
    if not parts:
        raise ValueError("there is none")
    return [x509.load_pem_x509_certificate(part[part.index(b"-----BEGIN CERTIFICATE-----") :]) for part in parts]


def _times(path: str, chain: list[Certificate]) -> Iterator[Finding]:
    now = datetime.datetime.now(datetime.timezone.utc)
    for certificate in chain:
        who = f"{path}: {_subject(certificate)}"
        end, begin = _end(certificate), _begin(certificate)
        days = (end - now).total_seconds() / 86400
        if end <= now:
            yield _SAYS("expired", f"{who} has expired on {end:%Y-%m-%d %H:%M} UTC, {-days:.0f} days ago", _RENEW)
        elif begin > now:
            text = f"{who} holds from {begin:%Y-%m-%d %H:%M} UTC on only; it is {now:%Y-%m-%d %H:%M} here"
            yield _SAYS("early", text, "date -u; synchronise the clock (timedatectl set-ntp true), or wait")
        elif days < _SOON:
            yield _SAYS("soon", f"{who} expires on {end:%Y-%m-%d %H:%M} UTC, in {days:.0f} days", _RENEW)


def _names(path: str, leaf: Certificate, look: Look) -> Iterator[Finding]:
    """Check that the certificate names the address or the host name by which clients connect."""
    from cryptography import x509

    if look.config is None:
        return
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        text = f"{path} has no subjectAltName: clients refuse it whatever they ask for"
        yield _SAYS("names", text, "issue it with the member's addresses and names (subjectAltName)")
        return
    listen = look.config.api.listen
    address = look.config.node.addr
    if listen is not None and not ipaddress.ip_address(listen.ip).is_unspecified:
        address = listen.ip
    addresses = {str(found) for found in names.get_values_for_type(x509.IPAddress)}
    hosts = {found.lower() for found in names.get_values_for_type(x509.DNSName)}
    if str(ipaddress.ip_address(address)) in addresses or _matches(look.config.node.name.lower(), hosts):
        return
    told = ", ".join(sorted([*addresses, *hosts])) or "nothing"
    text = f"{path} names {told}; members are asked as {address} or {look.config.node.name}"
    yield _SAYS("names", text, f"issue it for IP:{address} too, or ask members by a name that it has")


def _matches(name: str, hosts: set[str]) -> bool:
    return bool({name, f"*.{name.partition('.')[2]}"} & hosts) or any(host.partition(".")[0] == name for host in hosts)


def _issuers(path: str, chain: list[Certificate], look: Look) -> Iterator[Finding]:
    """Check that each certificate is signed by the next certificate in the file.

    With ``--ca-file``, the last certificate must be signed by a certificate of that file, or be in that file itself.
    """
    authorities: list[Certificate] = []
    if look.ca_file:
        try:
            with open(look.ca_file, "rb") as stream:
                authorities = parse(stream.read(1 << 22))
        except (OSError, ValueError) as error:
            yield _SAYS("chain", f"{look.ca_file}: expected PEM certificates: {error}", "name one as --ca-file")
            return
        yield from _times(look.ca_file, authorities)
    remedy = "put the issuers behind it in api.tls.cert, each behind the one that it signed"
    for number, certificate in enumerate(chain):
        above = chain[number + 1 : number + 2] or authorities
        if above and certificate not in authorities and not any(_signed(certificate, issuer) for issuer in above):
            who = "the next one in the file" if chain[number + 1 :] else look.ca_file
            text = f"{path}: {_subject(certificate)} of {certificate.issuer.rfc4514_string()} is not signed by {who}"
            yield _SAYS("chain", text, remedy)


def _signed(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

    if certificate.issuer != issuer.subject:
        return False
    key, algorithm = issuer.public_key(), certificate.signature_hash_algorithm
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, signed)
    except InvalidSignature:
        # RSA signatures with PSS padding are not verified: a certificate with such a signature is accepted if the
        # issuer's name matches.
        return isinstance(key, rsa.RSAPublicKey) and "pss" in str(certificate.signature_algorithm_oid).lower()
    return True


def _key(path: str, key: str) -> list[Finding]:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(path, key)
    except OSError as error:
        if may_not(error):
            return [unseen(key)]
        text = f"{path} and {key} do not belong together: {error}"
        return [_SAYS("mismatch", text, "name the key of the certificate as api.tls.key")]
    return []


def _served(path: str, leaf: Certificate, look: Look) -> Iterator[Finding]:
    """Check whether the agent serves the certificate on disk, because the agent reads its certificate only at its
    start.
    """
    listen = look.config.api.listen if look.config is not None else None
    if look.status is None or not look.local or listen is None:
        return
    ip = listen.ip
    if ipaddress.ip_address(ip).is_unspecified:
        ip = look.config.node.addr if look.config is not None else ip
    try:
        shown = parse(_fetch(ip, listen.port).encode())[0]
    except (OSError, ValueError) as error:
        yield _SAYS("served", f"{listen} shows no certificate: {error}", "journalctl -u xdp-gossip")
        return
    if shown != leaf:
        ends = f"that ends on {_end(shown):%Y-%m-%d}; {path} ends on {_end(leaf):%Y-%m-%d}"
        text = f"the agent shows another certificate than is on disk, one {ends}"
        yield _SAYS("served", text, "systemctl restart xdp-gossip")


def _fetch(ip: str, port: int) -> str:
    """Fetch the certificate of a TLS server without verifying the certificate's issuer, and return it in PEM.

    Raises ``OSError``.
    """
    import socket

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((ip, port), 5) as plain, context.wrap_socket(plain) as secure:
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(True) or b"")


def _subject(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a subject"


def _end(certificate: Certificate) -> datetime.datetime:
    """Return the time at which the certificate expires, in UTC.

    cryptography 42 deprecates the attributes without a time zone; older versions have only these attributes.
    """
    found = getattr(certificate, "not_valid_after_utc", None)
    return found or certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _begin(certificate: Certificate) -> datetime.datetime:
    found = getattr(certificate, "not_valid_before_utc", None)
    return found or certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)
