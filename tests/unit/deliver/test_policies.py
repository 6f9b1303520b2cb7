"""TLS policies at real sockets: what a host must show, that nothing is said to one that does not, and what is told."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Hop, HostProof, TlsDemand
from postroad.mail.tls_policy import HostPolicy, PolicyKind, Tlsa, TlsFailure
from tests.unit.deliver.remote import Remote
from tests.unit.deliver.test_opener import Sender, carry, remotes
from tests.unit.deliver.world import job

__all__ = ["remotes"]


class Shown:
    """A server's certificate, and what policies say of it."""

    def __init__(self, authority: trustme.CA, *names: str) -> None:
        made = authority.issue_cert(*names)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.configure_cert(self.context)
        der = x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
        self.sha256 = hashlib.sha256(der).hexdigest()
        self.record = Tlsa(3, 0, 1, hashlib.sha256(der).digest())
        root = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).public_bytes(Encoding.DER)
        self.anchor = Tlsa(2, 0, 0, root)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def hop(remote: Remote, proof: HostProof, policy: HostPolicy, tls: TlsDemand = TlsDemand.ENCRYPT) -> Hop:
    return Hop("localhost", "127.0.0.1", remote.port, 0, tls, proof, None, policy)


WRONG = Tlsa(3, 0, 1, b"\0" * 32)


def dane(*records: Tlsa, names: tuple[str, ...] = ("localhost",)) -> HostPolicy:
    return HostPolicy("dane", PolicyKind.TLSA, "TLSA records", "localhost", records, names)


async def test_a_host_that_shows_what_is_wanted_is_verified(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str
) -> None:
    shown = Shown(authority, "localhost")
    remote = await remotes(tls=shown.context)
    for proof, policy in (
        (HostProof.DANE, dane(WRONG, shown.record)),
        (HostProof.DANE, dane(shown.anchor)),
        (HostProof.NAMES, HostPolicy("verify", names=("x.example", "localhost"))),
        (HostProof.FINGERPRINT, HostPolicy("fingerprint", fingerprints=(shown.sha256,))),
    ):
        tls = TlsDemand.VERIFY if proof is HostProof.NAMES else TlsDemand.ENCRYPT
        courier = await Sender(pool, ca_file).open(hop(remote, proof, policy, tls))
        for _ in range(2):
            (attempt,) = await carry(courier, job())
            assert attempt.outcome is Outcome.RELAYED and attempt.tls_details is not None
            assert attempt.tls_details.verified and attempt.policy is not None
            assert attempt.policy.held and attempt.policy.failure is TlsFailure.NO_FAILURE
            assert attempt.policy.own_address == "127.0.0.1" and attempt.policy.session_us
        courier.close()


@pytest.mark.parametrize("loop", ["implicit", "starttls"])
async def test_nothing_is_said_to_a_host_that_shows_something_else(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, loop: str
) -> None:
    shown = Shown(authority, "other.example")
    implicit = loop == "implicit"
    for proof, policy, failure in (
        (HostProof.DANE, dane(WRONG), TlsFailure.VALIDATION_FAILURE),
        (HostProof.DANE, dane(shown.anchor), TlsFailure.CERTIFICATE_HOST_MISMATCH),
        (HostProof.NAMES, HostPolicy("verify", names=("localhost", ".example.net")),
         TlsFailure.CERTIFICATE_HOST_MISMATCH),
        (HostProof.FINGERPRINT, HostPolicy("fingerprint", fingerprints=("00" * 32,)),
         TlsFailure.CERTIFICATE_NOT_TRUSTED),
    ):  # fmt: skip
        remote = await remotes(tls=shown.context, implicit=implicit)
        tls = TlsDemand.IMPLICIT if implicit else TlsDemand.ENCRYPT
        attempt = await Sender(pool, ca_file).open(hop(remote, proof, policy, tls))
        assert isinstance(attempt, Attempt) and attempt.status == "4.7.5", attempt
        assert attempt.policy is not None and not attempt.policy.held and attempt.policy.failure is failure
        assert attempt.policy.own_address == "127.0.0.1"  # reports name it (RFC 8460 §4.3)
        assert attempt.tls_details is not None and not attempt.tls_details.verified
        assert remote.commands == ([] if implicit else ["EHLO me.test", "STARTTLS"])


async def test_the_next_host_gets_the_mail_and_the_attempt_tells_of_the_first(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    shown = Shown(authority, "localhost")
    wrong, plain, good = await remotes(tls=shown.context), await remotes(), await remotes(tls=shown.context)
    over = HostPolicy(
        "dane", PolicyKind.TLSA, "DNSSEC", "a.example", failure=TlsFailure.DNSSEC_INVALID, text="nobody knows",
        passed_over=True,
    )  # fmt: skip
    sender = Sender(pool)
    courier = await sender.open(
        Hop("a.example", "127.0.0.1", good.port, 0, TlsDemand.ENCRYPT, HostProof.NOTHING, None, over),
        hop(wrong, HostProof.DANE, dane(WRONG)), hop(plain, HostProof.DANE, dane(WRONG)),
        hop(good, HostProof.DANE, dane(shown.record)),
    )  # fmt: skip
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and attempt.policy is not None and attempt.policy.held
    told = [(each.status, each.policy and each.policy.failure) for each in attempt.tries]
    assert told == [
        ("4.7.5", TlsFailure.DNSSEC_INVALID), ("4.7.5", TlsFailure.VALIDATION_FAILURE),
        ("4.7.4", TlsFailure.STARTTLS_NOT_SUPPORTED),
    ]  # fmt: skip
    # Mail of another domain, whose policy the host satisfies, tries it first: nothing is held against the host.
    courier = await sender.open(
        hop(wrong, HostProof.DANE, dane(shown.record)), hop(good, HostProof.DANE, dane(shown.record))
    )
    (attempt,) = await carry(courier, job())
    assert attempt.remote_port == wrong.port and attempt.tries == ()


async def test_hosts_that_are_passed_over_take_no_place(remotes: Any, pool: ThreadPoolExecutor) -> None:
    remote = await remotes()
    over = HostPolicy("sts", failure=TlsFailure.VALIDATION_FAILURE, text="not named", passed_over=True)
    hops = [
        Hop(f"h{number}", "127.0.0.1", 9, 0, TlsDemand.VERIFY, HostProof.NAME, None, over) for number in range(9)
    ]
    courier = await Sender(pool).open(*hops, Hop("localhost", "127.0.0.1", remote.port))
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and len(attempt.tries) == 9
    assert all(each.policy is not None and each.policy.session_us for each in attempt.tries)  # reports count it once
    alone = await Sender(pool).open(*hops)
    assert isinstance(alone, Attempt) and alone.outcome is Outcome.DEFERRED and alone.status == "4.7.0"
    assert "not named" in alone.text


@pytest.mark.parametrize("names", [("localhost",), ("other.example",)])
async def test_mode_testing_never_keeps_mail(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, names: tuple[str, ...]
) -> None:
    remote = await remotes(tls=Shown(authority, *names).context)
    policy = HostPolicy("sts", PolicyKind.STS, "MTA-STS", "example.net", testing=True)
    courier = await Sender(pool, ca_file).open(hop(remote, HostProof.NAME, policy, TlsDemand.VERIFY))
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and attempt.tls and attempt.policy is not None
    good = names == ("localhost",)
    assert attempt.policy.held is good and attempt.policy.testing
    expected = TlsFailure.NO_FAILURE if good else TlsFailure.CERTIFICATE_HOST_MISMATCH
    assert attempt.policy.failure is expected
    assert remote.connections == (1 if good else 2)


async def test_mode_testing_of_a_host_without_tls(remotes: Any, pool: ThreadPoolExecutor, ca_file: str) -> None:
    remote = await remotes()
    policy = HostPolicy("sts", PolicyKind.STS, "MTA-STS", "example.net", testing=True)
    courier = await Sender(pool, ca_file).open(hop(remote, HostProof.NAME, policy, TlsDemand.VERIFY))
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and not attempt.tls and attempt.policy is not None
    assert not attempt.policy.held and attempt.policy.failure is TlsFailure.STARTTLS_NOT_SUPPORTED


@pytest.mark.parametrize("proof", [HostProof.NAME, HostProof.NOTHING])
@pytest.mark.parametrize("where", ["STARTTLS", "EHLO"])
async def test_mode_testing_of_a_host_whose_tls_breaks(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA, ca_file: str, where: str, proof: HostProof
) -> None:
    """Without a policy the mail goes on without TLS; one for testing must not keep it."""
    remote = await remotes(tls=Shown(authority, "localhost").context)
    if where == "STARTTLS":
        remote.answers[where] = None
    else:
        remote.within[where] = None
    demand = TlsDemand.VERIFY if proof is HostProof.NAME else TlsDemand.MAY
    policy = HostPolicy("sts", PolicyKind.STS, "MTA-STS", "example.net", testing=True)
    courier = await Sender(pool, ca_file).open(hop(remote, proof, policy, demand))
    (attempt,) = await carry(courier, job())
    assert attempt.outcome is Outcome.RELAYED and not attempt.tls and attempt.policy is not None
    assert not attempt.policy.held and attempt.policy.failure is TlsFailure.VALIDATION_FAILURE
    enforced = await Sender(pool, ca_file).open(
        hop(remote, HostProof.NAME, HostPolicy("sts", PolicyKind.STS, "MTA-STS", "example.net"), TlsDemand.VERIFY)
    )
    assert isinstance(enforced, Attempt) and enforced.outcome is Outcome.DEFERRED


async def test_opportunistic_sessions_tell_of_their_tls(
    remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA
) -> None:
    """For reports of domains without a policy (RFC 8460 §4.3, no-policy-found)."""
    policy = HostPolicy("dane", domain="example.net")
    for context, failure in (
        (None, TlsFailure.STARTTLS_NOT_SUPPORTED), (Shown(authority, "x").context, TlsFailure.NO_FAILURE)
    ):  # fmt: skip
        remote = await remotes(tls=context) if context is not None else await remotes()
        courier = await Sender(pool).open(hop(remote, HostProof.NOTHING, policy, TlsDemand.MAY))
        (attempt,) = await carry(courier, job())
        assert attempt.policy is not None and attempt.policy.held and attempt.policy.failure is failure


async def test_versions_and_ciphers_of_a_policy(remotes: Any, pool: ThreadPoolExecutor, authority: trustme.CA) -> None:
    shown = Shown(authority, "localhost")
    shown.context.maximum_version = ssl.TLSVersion.TLSv1_2
    remote = await remotes(tls=shown.context)
    for minimum, done in (("TLSv1.2", True), ("TLSv1.3", False)):
        policy = HostPolicy("encrypt", minimum=minimum)
        found = await Sender(pool).open(hop(remote, HostProof.NOTHING, policy))
        assert isinstance(found, Attempt) is not done
    policy = HostPolicy("encrypt", ciphers="ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
    courier = await Sender(pool).open(hop(remote, HostProof.NOTHING, policy))
    (attempt,) = await carry(courier, job())
    assert attempt.tls.endswith("AES256-GCM-SHA384")


