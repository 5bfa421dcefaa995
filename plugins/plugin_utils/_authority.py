# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: creates the certificate authority of a fleet and issues certificates to hosts.

Keys are ECDSA over P-256, which browsers accept. Keys and certificates are PEM. The library ``cryptography`` is always
installed, because ansible-core depends on it.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing as t

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:  # ansible-core requires cryptography, so only tools for documentation run without it
    pass

#: Lifetime of the certificates of authorities and of hosts. A deployment renews a host's certificate when less than a
#: third of the certificate's lifetime is left.
AUTHORITY = datetime.timedelta(days=20 * 365)
HOST = datetime.timedelta(days=3 * 365)
#: The validity of a certificate begins this long before the certificate is issued, so that a host accepts the
#: certificate even if the host's clock is behind the controller's clock.
EARLY = datetime.timedelta(days=7)

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(r"(?=.{1,253}\Z)%s(\.%s)*\Z" % (_LABEL, _LABEL))


class Pair(t.NamedTuple):
    """A certificate and its private key, both in PEM."""

    certificate: bytes
    key: bytes


def found(cluster: str, now: datetime.datetime) -> Pair:
    """Create a new authority for the fleet ``cluster``. ``now`` is a timezone-aware time in UTC."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("XDP Gossip fleet " + cluster)
    builder = _builder(name, name, key, now, AUTHORITY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue(authority: Pair, host: str, names: t.Sequence[str], now: datetime.datetime) -> Pair:
    """Issue a certificate for ``host`` that is valid for ``names``.

    The certificate contains only those ``names`` that are addresses or DNS names. Raises ``ValueError`` if the
    authority's certificate or key cannot be read, if they do not match, or if the authority's certificate has expired.
    """
    parent = _certificate(authority.certificate)
    parent_key = _private(authority.key)
    if _public(parent.public_key()) != _public(parent_key.public_key()):
        raise ValueError("the key is not the one of the certificate")
    if _end(parent) <= now:
        raise ValueError("the certificate has ended on %s" % _end(parent).strftime("%Y-%m-%d"))
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(host), parent.subject, key, now, min(HOST, _end(parent) - now))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    alternatives = x509.SubjectAlternativeName(_alternatives(names))
    builder = builder.add_extension(alternatives, critical=False)
    parent_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(t.cast(t.Any, parent.public_key()))
    builder = builder.add_extension(parent_id, critical=False)
    algorithm = None if _is_edwards(parent_key) else hashes.SHA256()
    return Pair(_pem(builder.sign(parent_key, algorithm)), _key_pem(key))


def stale(held: Pair, authority: bytes, names: t.Sequence[str], now: datetime.datetime) -> str:
    """Return the reason why a host must replace its certificate ``held`` by a new certificate; "" if the host can keep
    its certificate.

    Raises ``ValueError`` if ``authority`` is not a certificate.
    """
    parent = _certificate(authority)
    try:
        certificate = _certificate(held.certificate)
        if _public(certificate.public_key()) != _public(_private(held.key).public_key()):
            return "its key is another one's"
    except ValueError:
        return "it cannot be read"
    if not _signed_by(certificate, parent):
        return "another authority has signed it"
    if now >= _end(certificate) - HOST / 3 and _end(certificate) < _end(parent):
        return "it ends on %s" % _end(certificate).strftime("%Y-%m-%d")
    try:
        has = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        has = set()
    return "" if has == set(_alternatives(names)) else "it is for other names"


def is_authority(certificate: bytes) -> bool:
    """Return whether the certificate may sign other certificates. Raises ``ValueError`` if ``certificate`` is not a
    certificate.
    """
    try:
        return bool(_certificate(certificate).extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _subject(name: str) -> x509.Name:
    # A common name has at most 64 characters (RFC 5280, appendix A.1). Clients ignore the common name and check the
    # alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - EARLY).not_valid_after(now + life)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: t.Sequence[str]) -> list[x509.GeneralName]:
    kept: list[x509.GeneralName] = []
    for name in names:
        entry: x509.GeneralName
        try:
            entry = x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
        except ValueError:
            if not _NAME.match(name):
                continue
            entry = x509.DNSName(name.lower())
        if entry not in kept:
            kept.append(entry)
    return kept


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as exc:
        raise ValueError("expected a certificate in PEM: %s" % str(exc).split(".", maxsplit=1)[0]) from None


def _private(pem: bytes) -> t.Any:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        why = str(exc).split(".", maxsplit=1)[0]
        raise ValueError("expected a private key in PEM without a passphrase: %s" % why) from None


def _signed_by(certificate: x509.Certificate, parent: x509.Certificate) -> bool:
    if certificate.issuer != parent.subject:
        return False
    key: t.Any = parent.public_key()
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    algorithm = certificate.signature_hash_algorithm
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(t.cast(t.Any, algorithm)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), t.cast(t.Any, algorithm))
        else:
            key.verify(signature, signed)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _is_edwards(key: t.Any) -> bool:
    return type(key).__name__.lstrip("_").startswith("Ed")


def _end(certificate: x509.Certificate) -> datetime.datetime:
    # Versions of cryptography before 42 have only an attribute without a time zone. The value of this attribute is in
    # UTC.
    if hasattr(certificate, "not_valid_after_utc"):
        return t.cast(datetime.datetime, certificate.not_valid_after_utc)
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _public(key: t.Any) -> bytes:
    return t.cast(bytes, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
