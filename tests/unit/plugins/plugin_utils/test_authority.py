# SPDX-License-Identifier: MIT
"""The certificate authority of a fleet: what it signs is accepted by OpenSSL, and renewed when it has to be."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _authority as authority

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
NAMES = ["127.0.0.1", "fd00::11", "host1.example", "Host1", "a name", "fe80::1%eth0", "127.0.0.1"]


@pytest.fixture(name="ca", scope="module")
def fixture_ca() -> authority.Pair:
    return authority.found("default", NOW)


def greet(tmp_path: t.Any, ca: bytes, host: authority.Pair, name: str) -> str:
    """What comes of a TLS connection by this name: "" or the reason of a refusal."""
    (tmp_path / "host.crt").write_bytes(host.certificate)
    (tmp_path / "host.key").write_bytes(host.key)
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(str(tmp_path / "host.crt"), str(tmp_path / "host.key"))
    trusts = ssl.create_default_context(cadata=ca.decode())
    trusts.verify_flags |= getattr(ssl, "VERIFY_X509_STRICT", 0)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            serves.wrap_socket(theirs, server_side=True).close()
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with trusts.wrap_socket(ours, server_hostname=name):
            return ""
    except ssl.SSLCertVerificationError as exc:
        return exc.verify_message
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_a_host_is_known_by_its_names_and_no_other(tmp_path: t.Any, ca: authority.Pair) -> None:
    host = authority.issue(ca, "host 1", NAMES, NOW)
    for name in ("127.0.0.1", "fd00::11", "host1.example", "host1", "HOST1"):
        assert greet(tmp_path, ca.certificate, host, name) == "", name
    for name in ("127.0.0.2", "host2.example"):
        assert "mismatch" in greet(tmp_path, ca.certificate, host, name), name
    assert greet(tmp_path, authority.found("default", NOW).certificate, host, "127.0.0.1") != ""


def test_a_certificate_is_kept_until_its_last_third(ca: authority.Pair) -> None:
    host = authority.issue(ca, "host1", NAMES, NOW)
    kept, other = ca.certificate, authority.found("default", NOW)
    assert authority.stale(host, kept, NAMES, NOW) == ""
    assert authority.stale(host, kept, list(reversed(NAMES)), NOW) == ""
    assert authority.stale(host, kept, NAMES, NOW + authority.HOST * 2 / 3 - DAY) == ""
    assert "it ends on" in authority.stale(host, kept, NAMES, NOW + authority.HOST * 2 / 3 + DAY)
    assert "other names" in authority.stale(host, kept, [*NAMES, "198.18.0.1"], NOW)
    assert "another authority" in authority.stale(host, other.certificate, NAMES, NOW)
    assert "another one's" in authority.stale(authority.Pair(host.certificate, other.key), kept, NAMES, NOW)
    assert "cannot be read" in authority.stale(authority.Pair(b"", host.key), kept, NAMES, NOW)
    with pytest.raises(ValueError, match="expected a certificate"):
        authority.stale(host, b"rubbish", NAMES, NOW)


def test_no_certificate_outlives_its_authority(ca: authority.Pair) -> None:
    late = NOW + authority.AUTHORITY - 30 * DAY
    host = authority.issue(ca, "host1", NAMES, late)
    # It cannot be renewed beyond that, so it is not made again and again.
    assert authority.stale(host, ca.certificate, NAMES, late + DAY) == ""
    with pytest.raises(ValueError, match="has ended on"):
        authority.issue(ca, "host1", NAMES, NOW + authority.AUTHORITY + DAY)


def test_an_authority_that_does_not_fit(ca: authority.Pair) -> None:
    with pytest.raises(ValueError, match="not the one of the certificate"):
        authority.issue(authority.Pair(ca.certificate, authority.found("x", NOW).key), "host1", NAMES, NOW)
    with pytest.raises(ValueError, match="expected a private key"):
        authority.issue(authority.Pair(ca.certificate, b"x"), "host1", NAMES, NOW)
    assert authority.is_authority(ca.certificate)
    assert not authority.is_authority(authority.issue(ca, "host1", NAMES, NOW).certificate)
