"""What TLSA records allow (RFC 7671, RFC 7672): each usage, selector and matching type, and each way to fail."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postroad.mail.tls_policy import Tlsa, TlsFailure
from postroad.trust import certificate
from postroad.trust.dane import fault_of, is_usable, usable

NOW = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
NOW_S = NOW.timestamp()
NAME = ("mx.example.org",)
DAY = datetime.timedelta(days=1)
_KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "middle", "leaf", "other")}


class Made:
    """A certificate, with its key and what signs with it."""

    def __init__(
        self, name: str, signer: Made | None = None, *, key: object = None, ca: bool = False, ends: int = 30,
        names: tuple[str, ...] = NAME, path_length: int | None = None, purpose: x509.ObjectIdentifier | None = None,
        extra: tuple[x509.ExtensionType, ...] = (),
    ) -> None:
        self.key = key or _KEYS.get(name) or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signer is None else signer.certificate.subject)
            .public_key(self.key.public_key())  # type: ignore[union-attr,attr-defined]
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 60 * DAY)
            .not_valid_after(NOW + ends * DAY)
        )
        if ca:
            made = made.add_extension(x509.BasicConstraints(True, path_length), critical=True)
        elif names:
            made = made.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
        if purpose is not None:
            made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        for each in extra:
            made = made.add_extension(each, critical=True)
        by = self if signer is None else signer
        algorithm = None if isinstance(by.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        self.certificate = made.sign(by.key, algorithm)  # type: ignore[arg-type]
        self.der = self.certificate.public_bytes(Encoding.DER)
        self.spki = self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def record(self, usage: int, selector: int, matching_type: int) -> Tlsa:
        octets = self.spki if selector else self.der
        digest = {0: lambda: octets, 1: lambda: hashlib.sha256(octets).digest(),
                  2: lambda: hashlib.sha512(octets).digest()}[matching_type]  # fmt: skip
        return Tlsa(usage, selector, matching_type, digest())


ROOT = Made("root", ca=True)
MIDDLE = Made("middle", ROOT, ca=True)
LEAF = Made("leaf", MIDDLE)
CHAIN = (LEAF.der, MIDDLE.der, ROOT.der)
OTHER = Made("other")


def failure(records: tuple[Tlsa, ...], chain: tuple[bytes, ...] = CHAIN, names: tuple[str, ...] = NAME) -> TlsFailure:
    found = fault_of(usable(records), chain, names, NOW_S)
    return TlsFailure.NO_FAILURE if found is None else found.failure


@pytest.mark.parametrize("matching_type", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize(("usage", "shown"), [(3, LEAF), (2, MIDDLE), (2, ROOT)])
def test_a_record_allows_what_it_names(usage: int, shown: Made, selector: int, matching_type: int) -> None:
    record = shown.record(usage, selector, matching_type)
    assert is_usable(record)
    assert failure((record,)) is TlsFailure.NO_FAILURE
    wrong = OTHER.record(usage, selector, matching_type)
    assert failure((wrong,)) is not TlsFailure.NO_FAILURE
    assert failure((wrong, record)) is TlsFailure.NO_FAILURE  # rolled over


def test_the_authority_need_not_be_sent_if_the_record_has_it() -> None:
    chain = CHAIN[:2]
    assert failure((ROOT.record(2, 0, 1),), chain) is TlsFailure.CERTIFICATE_NOT_TRUSTED
    assert failure((ROOT.record(2, 0, 0),), chain) is TlsFailure.NO_FAILURE
    assert failure((ROOT.record(2, 1, 0),), chain) is TlsFailure.NO_FAILURE


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
    ],
)  # fmt: skip
def test_a_bare_key_of_any_kind_signs(key: object) -> None:
    root = Made("other root", ca=True, key=key)
    leaf = Made("leaf", root)
    assert failure((root.record(2, 1, 0),), (leaf.der,)) is TlsFailure.NO_FAILURE
    assert failure((OTHER.record(2, 1, 0),), (leaf.der,)) is TlsFailure.CERTIFICATE_NOT_TRUSTED


def test_usage_3_wants_neither_name_nor_time() -> None:
    old = Made("leaf", ends=-2, names=("elsewhere.example",))
    assert failure((old.record(3, 1, 1),), (old.der,)) is TlsFailure.NO_FAILURE


@pytest.mark.parametrize(
    ("chain", "names", "expected"),
    [
        ((Made("leaf", MIDDLE, ends=-2), MIDDLE, ROOT), NAME, TlsFailure.CERTIFICATE_EXPIRED),
        ((LEAF, MIDDLE, ROOT), ("mx.example.net",), TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ((LEAF, MIDDLE, ROOT), ("mx.example.net", "mx.example.org"), TlsFailure.NO_FAILURE),
        ((Made("leaf", MIDDLE, names=("*.example.org",)), MIDDLE, ROOT), NAME, TlsFailure.NO_FAILURE),
        ((Made("leaf", MIDDLE, names=("*.org",)), MIDDLE, ROOT), NAME, TlsFailure.CERTIFICATE_HOST_MISMATCH),
        ((Made("mx.example.org", MIDDLE, names=()), MIDDLE, ROOT), NAME, TlsFailure.NO_FAILURE),  # the common name
        ((LEAF, ROOT), NAME, TlsFailure.CERTIFICATE_NOT_TRUSTED),  # a certificate on the way is missing
        ((LEAF, ROOT, MIDDLE), NAME, TlsFailure.NO_FAILURE),  # the order does not matter
        ((Made("leaf", MIDDLE, purpose=ExtendedKeyUsageOID.CLIENT_AUTH), MIDDLE, ROOT), NAME,
         TlsFailure.CERTIFICATE_NOT_TRUSTED),
        ((Made("leaf", MIDDLE, purpose=ExtendedKeyUsageOID.SERVER_AUTH), MIDDLE, ROOT), NAME, TlsFailure.NO_FAILURE),
    ],
)  # fmt: skip
def test_usage_2_wants_names_time_and_a_whole_way(
    chain: tuple[Made, ...], names: tuple[str, ...], expected: TlsFailure
) -> None:
    assert failure((ROOT.record(2, 1, 1),), tuple(each.der for each in chain), names) is expected


@pytest.mark.parametrize(
    "middle",
    [
        Made("middle", ROOT, names=()),  # no authority
        Made("middle", ROOT, ca=True, ends=-1),
        Made("middle", OTHER, ca=True),  # signed by somebody else
        Made("middle", ROOT, ca=True, extra=(x509.NameConstraints([x509.DNSName("example.net")], None),)),
        Made("middle", ROOT, ca=True, extra=(x509.NameConstraints(None, [x509.DNSName("example.org")]),)),
        Made("middle", ROOT, ca=True, extra=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"),)),
    ],
)
def test_an_authority_on_the_way_must_be_one(middle: Made) -> None:
    assert failure((ROOT.record(2, 0, 1),), (LEAF.der, middle.der, ROOT.der)) in (
        TlsFailure.CERTIFICATE_NOT_TRUSTED, TlsFailure.CERTIFICATE_EXPIRED,
    )  # fmt: skip


def test_the_length_of_the_way_is_limited_by_the_authority() -> None:
    root = Made("short root", ca=True, path_length=0)
    middle = Made("middle", root, ca=True)
    leaf = Made("leaf", middle)
    assert failure((root.record(2, 0, 1),), (leaf.der, middle.der, root.der)) is TlsFailure.CERTIFICATE_NOT_TRUSTED
    direct = Made("leaf", root)
    assert failure((root.record(2, 0, 1),), (direct.der, root.der)) is TlsFailure.NO_FAILURE


def test_a_server_that_claims_to_be_the_authority_of_usage_2_is_none() -> None:
    assert failure((LEAF.record(2, 0, 1),)) is not TlsFailure.NO_FAILURE


@pytest.mark.parametrize(
    "record",
    [
        Tlsa(0, 0, 1, b"x" * 32), Tlsa(1, 1, 1, b"x" * 32), Tlsa(4, 1, 1, b"x" * 32), Tlsa(3, 2, 1, b"x" * 32),
        Tlsa(3, 1, 3, b"x" * 32), Tlsa(3, 1, 1, b"x" * 31), Tlsa(3, 1, 2, b"x" * 32), Tlsa(3, 0, 0, b"no certificate"),
        Tlsa(2, 1, 0, b"no key"), Tlsa(2, 1, 0, b""), Tlsa(255, 255, 255, b"x" * 32),
    ],
)  # fmt: skip
def test_what_is_not_known_is_unusable(record: Tlsa) -> None:
    assert not is_usable(record) and usable((record,)) == ()


def test_of_several_digests_the_strongest_counts() -> None:
    """RFC 7671 §9: a weaker one beside it is for others."""
    strong, weak = LEAF.record(3, 1, 2), OTHER.record(3, 1, 1)
    assert usable((weak, strong)) == (strong,)
    assert failure((weak, strong), (OTHER.der,)) is TlsFailure.VALIDATION_FAILURE


@pytest.mark.parametrize("chain", [(), (b"",), (b"no certificate", ROOT.der), (LEAF.der,) * 30])
def test_whatever_is_shown_gets_an_answer(chain: tuple[bytes, ...]) -> None:
    assert failure((ROOT.record(2, 0, 1), OTHER.record(3, 1, 1)), chain) is not TlsFailure.NO_FAILURE


def test_a_key_of_a_kind_that_the_library_does_not_know_is_matched() -> None:
    """RFC 6698 §2.1.2: the octets of the key in the certificate count, whatever its kind."""
    known, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
    shown = Made("leaf")
    der, spki = shown.der.replace(known, unknown), shown.spki.replace(known, unknown)
    assert der != shown.der and certificate.key_of(shown.der) == shown.spki
    record = Tlsa(3, 1, 1, hashlib.sha256(spki).digest())
    assert fault_of((record,), (der,), NAME, NOW_S) is None
    assert failure((record,), (shown.der,)) is TlsFailure.VALIDATION_FAILURE
    assert hashlib.sha256(spki).hexdigest() in certificate.fingerprints(der)


def test_a_certificate_whose_name_cannot_be_read_spoils_no_way() -> None:
    """The library reads a name when it is first asked for it, and raises."""
    broken = Made("broken", ca=True).der.replace(b"broken", b"\xff" * 6)
    record = ROOT.record(2, 0, 1)
    assert fault_of((record,), (CHAIN[0], broken, *CHAIN[1:]), NAME, NOW_S) is None
    leaf = Made("leaf", Made("broken", ca=True)).der.replace(b"broken", b"\xff" * 6)
    assert failure((record,), (leaf, broken)) is TlsFailure.CERTIFICATE_NOT_TRUSTED
