"""Contexts from files: names, reload, problems, demands; the certificate of a first start. No network: memory BIOs."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
import stat
import time
import warnings
from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography import x509

from postroad.world import tls
from postroad.world.problem import Problem
from postroad.world.self_signed import make_self_signed
from postroad.world.tls import (
    NOBODY,
    CertificateFiles,
    ClientCertificatePolicy,
    ClientCertificates,
    ClientTls,
    ClientTlsOptions,
    Profile,
    Proof,
    ServerTls,
    ServerTlsOptions,
    Version,
    server_tls,
)
from postroad.world.tls_facts import facts_of

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, folder: Path, name: str, *names: str) -> CertificateFiles:
    """Files ``name.pem`` and ``name.key`` for these names."""
    made = authority.issue_cert(*names)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return CertificateFiles(str(certificate), str(key))


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory; both ends, or the error of the first that refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_side=False, server_hostname=name)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    done = {one: False, other: False}
    for _ in range(10):
        for end in done:
            if not done[end]:
                try:
                    end.do_handshake()
                    done[end] = True
                except ssl.SSLWantReadError:
                    pass
        if all(done.values()):
            return one, other
    raise AssertionError("no end of the handshake")


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def presented(server: ServerTls, name: str | None) -> set[str]:
    """The names in the certificate that a client with this name is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    one, _ = shake(server.context(), context, name)
    der = one.getpeercert(binary_form=True)
    assert der is not None
    return set(tls.certificate_names(x509.load_der_x509_certificate(der)))


def made(options: ServerTlsOptions, secret: bytes = b"") -> ServerTls:
    found = server_tls(options, secret)
    assert isinstance(found, ServerTls), found
    return found


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (None, "first.example"),
        ("first.example", "first.example"),
        ("FIRST.example", "first.example"),
        ("second.example", "second.example"),
        ("also.example", "second.example"),
        ("a.wild.example", "*.wild.example"),
        ("a.b.wild.example", "first.example"),
        ("wild.example", "first.example"),
        ("unknown.example", "first.example"),
    ],
)
def test_the_certificate_by_name(authority: trustme.CA, tmp_path: Path, name: str | None, shown: str) -> None:
    server = made(
        ServerTlsOptions(
            (
                issue(authority, tmp_path, "1", "first.example"),
                issue(authority, tmp_path, "2", "second.example", "also.example"),
                issue(authority, tmp_path, "3", "*.wild.example"),
            )
        )
    )
    assert shown in presented(server, name)


def test_reload_takes_new_files_and_sessions_go_on(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "old.example"),)))
    one, other = shake(server.context(), trusting(authority), "old.example")
    assert server.reload() == tls.Reload()
    issue(authority, tmp_path, "1", "new.example")
    assert server.reload() == tls.Reload(taken=True)
    assert server.reload() == tls.Reload()
    assert presented(server, None) == {"new.example"}
    assert one.version() == other.version() == "TLSv1.3"
    one.write(b"still here")


@pytest.mark.parametrize("broken", ["certificate", "key", "mismatch", "gone"])
def test_a_bad_reload_keeps_what_was(authority: trustme.CA, tmp_path: Path, broken: str) -> None:
    files = issue(authority, tmp_path, "1", "old.example")
    other = issue(authority, tmp_path, "2", "other.example")
    server = made(ServerTlsOptions((files,)))
    match broken:
        case "certificate":
            Path(files.certificate).write_text("nonsense\n")
        case "key":
            Path(files.key).write_text("nonsense\n")
        case "mismatch":
            Path(files.key).write_bytes(Path(other.key).read_bytes())
        case "gone":
            Path(files.certificate).unlink()
    found = server.reload()
    assert not found.taken and len(found.problems) == 1
    assert found.problems[0].where == (files.key if broken in ("key", "mismatch") else files.certificate)
    assert server.reload() == tls.Reload()  # said once
    assert presented(server, "old.example") == {"old.example"}
    issue(authority, tmp_path, "1", "new.example")
    assert server.reload().taken
    assert presented(server, None) == {"new.example"}


@pytest.mark.parametrize(
    ("minimum", "client", "works"),
    [
        (Version.TLS_1_2, ssl.TLSVersion.TLSv1_2, True),
        (Version.TLS_1_3, ssl.TLSVersion.TLSv1_2, False),
        (Version.TLS_1_3, ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_the_least_version(
    authority: trustme.CA, tmp_path: Path, minimum: Version, client: ssl.TLSVersion, works: bool
) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),), minimum=minimum))
    context = trusting(authority)
    context.maximum_version = client
    if works:
        assert shake(server.context(), context, "a.example")[0].version() == client.name.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError):
            shake(server.context(), context, "a.example")


def test_only_forward_secrecy_by_default(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),)))
    names = {cipher["name"] for cipher in server.context().get_ciphers()}
    assert names and all(name.startswith(("ECDHE-", "DHE-", "TLS_")) for name in names)
    context = trusting(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        shake(server.context(), context, "a.example")


@pytest.mark.parametrize(
    ("asked", "given", "works"),
    [
        (ClientCertificates.NEVER, "none", True),
        (ClientCertificates.ASKED, "none", True),
        (ClientCertificates.ASKED, "good", True),
        (ClientCertificates.ASKED, "stranger", True),
        (ClientCertificates.DEMANDED, "stranger", False),
        (ClientCertificates.DEMANDED, "none", False),
        (ClientCertificates.DEMANDED, "good", True),
    ],
)
def test_client_certificates(
    authority: trustme.CA, tmp_path: Path, asked: ClientCertificates, given: str, works: bool
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    files = issue(authority, tmp_path, "1", "a.example")
    server = made(ServerTlsOptions((files,), askings=(ClientCertificatePolicy(asked, str(roots)),)))
    context = trusting(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the server's refusal is part of the handshake
    if given != "none":
        issuer = authority if given == "good" else trustme.CA()
        issuer.issue_cert("client.example").configure_cert(context)
    if works:
        _, other = shake(server.context(server.options.askings[0]), context, "a.example")
        assert bool(other.getpeercert(True)) is (given != "none" and asked is not ClientCertificates.NEVER)
        assert facts_of(other).verified is (given == "good" and asked is not ClientCertificates.NEVER)
    else:
        with pytest.raises(ssl.SSLError):
            shake(server.context(server.options.askings[0]), context, "a.example")


def test_a_way_of_asking_that_a_reload_has_taken_away_has_no_context(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),)))
    assert server.find(NOBODY) is server.context()
    assert server.find(ClientCertificatePolicy(ClientCertificates.ASKED)) is None


def test_key_and_certificate_in_one_file(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path, "1", "a.example")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(files.certificate).read_bytes() + Path(files.key).read_bytes())
    assert presented(made(ServerTlsOptions((CertificateFiles(str(both)),))), None) == {"a.example"}


def test_all_problems_at_once_with_file_and_remedy(authority: trustme.CA, tmp_path: Path) -> None:
    good = issue(authority, tmp_path, "good", "a.example")
    other = issue(authority, tmp_path, "other", "b.example")
    text = tmp_path / "text"
    text.write_text("hello\n")
    absent = str(tmp_path / "absent")
    found = server_tls(
        ServerTlsOptions(
            (
                good,
                CertificateFiles(absent, good.key),
                CertificateFiles(good.certificate, absent),
                CertificateFiles(str(text), good.key),
                CertificateFiles(good.certificate, str(text)),
                CertificateFiles(good.certificate, other.key),
                CertificateFiles(str(tmp_path), good.key),
                CertificateFiles(good.certificate),
            )
        )
    )
    assert isinstance(found, tuple)
    wheres = [absent, absent, str(text), str(text), other.key, str(tmp_path), good.certificate]
    assert [problem.where for problem in found] == wheres
    assert all(problem.remedy for problem in found)


@pytest.mark.parametrize(
    "options",
    [
        ServerTlsOptions(),
        ServerTlsOptions(ciphers="NO-SUCH-CIPHER"),
        ServerTlsOptions(groups=("no-such-group",)),
        ServerTlsOptions(groups=("X25519", "no-such-group")),
        ServerTlsOptions(askings=(NOBODY, ClientCertificatePolicy(ClientCertificates.ASKED, "/absent/roots"))),
    ],
)
def test_other_problems(authority: trustme.CA, tmp_path: Path, options: ServerTlsOptions) -> None:
    if options != ServerTlsOptions():
        files = issue(authority, tmp_path, "1", "a.example")
        options = msgspec.structs.replace(options, certificates=(files,))
    found = server_tls(options)
    assert isinstance(found, tuple) and len(found) == 1 and found[0].remedy


def test_proof_of_the_name(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),)))
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    client = ClientTls(ClientTlsOptions(ca_file=str(roots)))
    context = client.context(Proof.NAME)
    assert isinstance(context, ssl.SSLContext) and client.context(Proof.NAME) is context
    shake(server.context(), context, "a.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server.context(), context, "b.example")
    strict = ClientTls(ClientTlsOptions()).context(Proof.NAME)
    assert isinstance(strict, ssl.SSLContext)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server.context(), strict, "a.example")
    own = ClientTls(ClientTlsOptions()).context(Proof.NAME, str(roots))
    assert isinstance(own, ssl.SSLContext)
    shake(server.context(), own, "a.example")


@pytest.mark.parametrize("broad", [True, False])
def test_opportunistic_takes_any_certificate(authority: trustme.CA, tmp_path: Path, broad: bool) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),)))
    context = ClientTls(ClientTlsOptions()).context(Proof.NOTHING, broad=broad)
    assert isinstance(context, ssl.SSLContext)
    shake(server.context(), context, "other.example")
    shake(server.context(), context, None)
    assert context.minimum_version == (ssl.TLSVersion.TLSv1 if broad else ssl.TLSVersion.TLSv1_2)


def test_opportunistic_speaks_with_old_servers(authority: trustme.CA, tmp_path: Path) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(old)
    old.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client = ClientTls(ClientTlsOptions())
    broad = client.context(Proof.NOTHING)
    assert isinstance(broad, ssl.SSLContext)
    shake(old, broad, "a.example")
    narrow = client.context(Proof.NOTHING, broad=False)
    assert isinstance(narrow, ssl.SSLContext)
    with pytest.raises(ssl.SSLError):
        shake(old, narrow, "a.example")


@pytest.mark.parametrize(
    "options",
    [
        ClientTlsOptions(ca_file="/absent/roots"),
        ClientTlsOptions(ciphers="NO-SUCH-CIPHER"),
        ClientTlsOptions(opportunistic_ciphers="NO-SUCH-CIPHER"),
        ClientTlsOptions(certificate=CertificateFiles("/absent/certificate")),
    ],
)
def test_problems_of_the_client(options: ClientTlsOptions) -> None:
    assert len(ClientTls(options).problems()) == 1
    assert ClientTls(ClientTlsOptions()).problems() == ()


# -- profiles, groups, tickets -----------------------------------------------------------------------------------------


def limited(authority: trustme.CA, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """A client that has no version above this one."""
    context = trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize(
    ("profile", "version", "ciphers", "works"),
    [
        (Profile.MODERN, ssl.TLSVersion.TLSv1_3, "ALL", True),
        (Profile.MODERN, ssl.TLSVersion.TLSv1_2, "ALL", False),
        (Profile.INTERMEDIATE, ssl.TLSVersion.TLSv1_3, "ALL", True),
        (Profile.INTERMEDIATE, ssl.TLSVersion.TLSv1_2, "ALL", True),
        (Profile.INTERMEDIATE, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA", False),
        (Profile.INTERMEDIATE, ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", False),
        (Profile.OLD, ssl.TLSVersion.TLSv1_3, "ALL", True),
        (Profile.OLD, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA", True),
        (Profile.OLD, ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", True),
        (Profile.OLD, ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0", True),
    ],
)
def test_profiles(
    authority: trustme.CA, tmp_path: Path, profile: Profile, version: ssl.TLSVersion, ciphers: str, works: bool
) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),), profile))
    client = limited(authority, version, ciphers)
    if works:
        shake(server.context(), client, "a.example")
    else:
        with pytest.raises(ssl.SSLError):
            shake(server.context(), client, "a.example")


def test_a_setting_goes_before_the_profile(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path, "1", "a.example")
    server = made(ServerTlsOptions((files,), Profile.MODERN, Version.TLS_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"))
    one, _ = shake(server.context(), limited(authority, ssl.TLSVersion.TLSv1_2, "ALL"), "a.example")
    assert one.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)


def test_groups(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),), groups=("secp384r1",)))
    client = trusting(authority)
    shake(server.context(), client, "a.example")
    client.set_ecdh_curve("prime256v1")
    with pytest.raises(ssl.SSLError):
        shake(server.context(), client, "a.example")


def resumed(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """A handshake with the ticket of an earlier one; the client's end, with the tickets that it was given read."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_side=False, server_hostname="a.example", session=session)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (one, other, one, other):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    with contextlib.suppress(ssl.SSLWantReadError):
        one.read()
    return one


def test_tickets_until_their_keys_have_served_their_time(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path, "1", "a.example")
    server = made(ServerTlsOptions((files,), ticket_s=600))
    client = trusting(authority)
    session = resumed(server.context(), client, None).session
    assert session is not None and session.has_ticket
    assert not server.rotate(1000.0) and not server.rotate(1599.0)
    again = resumed(server.context(), client, session)
    assert again.session_reused
    assert server.rotate(1600.0) and not server.rotate(1601.0)
    assert not resumed(server.context(), client, again.session).session_reused


def test_workers_with_one_secret_take_up_each_others_tickets(authority: trustme.CA, tmp_path: Path) -> None:
    options = ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),))
    client = trusting(authority)
    one, other, stranger = (made(options, secret) for secret in (b"s" * 32, b"s" * 32, b"t" * 32))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client.maximum_version = client.minimum_version = version
        session = resumed(one.context(), client, None).session
        assert resumed(other.context(), client, session).session_reused
        assert not resumed(stranger.context(), client, session).session_reused
    session = resumed(one.context(), client, None).session
    assert one.rotate(1.0, b"u" * 32) and not one.rotate(2.0, b"u" * 32)
    assert not resumed(one.context(), client, session).session_reused
    assert not resumed(other.context(), client, resumed(one.context(), client, None).session).session_reused
    assert other.rotate(9.0, b"u" * 32)
    assert resumed(other.context(), client, resumed(one.context(), client, None).session).session_reused


def test_a_shared_ticket_vouches_for_nothing_that_was_not_looked_at(authority: trustme.CA, tmp_path: Path) -> None:
    """One of a listener that asks for no client certificate is of no use at one that demands it, nor one of other
    roots or another certificate of ours."""
    files, roots = issue(authority, tmp_path, "1", "a.example"), tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    demanding, asking = (
        ClientCertificatePolicy(ClientCertificates.DEMANDED, str(roots)),
        ClientCertificatePolicy(ClientCertificates.ASKED, str(roots)),
    )
    options = ServerTlsOptions((files,), askings=(NOBODY, demanding, asking))
    server, other = made(options, b"s" * 32), made(options, b"s" * 32)
    nobody = trusting(authority)
    unproved = resumed(server.context(asking), nobody, None).session
    assert resumed(other.context(asking), nobody, unproved).session_reused
    with pytest.raises(ssl.SSLError):  # a whole handshake, for which it has no certificate
        resumed(other.context(demanding), nobody, unproved)
    client = trusting(authority)
    authority.issue_cert("client@example.org").configure_cert(client)
    session = resumed(server.context(), client, None).session
    assert not resumed(other.context(demanding), client, session).session_reused
    proved = resumed(server.context(demanding), client, None).session
    assert resumed(other.context(demanding), client, proved).session_reused
    trustme.CA().cert_pem.write_to_path(str(roots), append=True)
    changed = made(options, b"s" * 32)
    assert not resumed(changed.context(demanding), client, proved).session_reused
    assert resumed(changed.context(), client, session).session_reused
    issue(authority, tmp_path, "1", "a.example")
    assert not resumed(made(options, b"s" * 32).context(), client, session).session_reused


def test_a_ticket_ends_with_the_files_of_its_time(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),)))
    client = trusting(authority)
    session = resumed(server.context(), client, None).session
    issue(authority, tmp_path, "1", "a.example")
    assert server.reload().taken
    assert not resumed(server.context(), client, session).session_reused


def test_without_tickets_nothing_is_taken_up_again(authority: trustme.CA, tmp_path: Path) -> None:
    server = made(ServerTlsOptions((issue(authority, tmp_path, "1", "a.example"),), tickets=0))
    client = trusting(authority)
    for _ in range(2):
        one = resumed(server.context(), client, None)
        assert one.session is None or not one.session.has_ticket
        if one.session is not None:
            assert not resumed(server.context(), client, one.session).session_reused


# -- the certificate of a first start ---------------------------------------------------------------------------------


def test_a_self_signed_certificate(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "new" / "c.pem"), str(tmp_path / "keys" / "k.pem")
    names = ["mx.example.org", "localhost", "127.0.0.1"]
    before = os.umask(0)
    try:
        assert make_self_signed(names, certificate, key, NOW) is None
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert os.listdir(tmp_path / "new") == ["c.pem"] and os.listdir(tmp_path / "keys") == ["k.pem"]
    server = made(ServerTlsOptions((CertificateFiles(certificate, key),)))
    assert presented(server, None) == set(names)
    client = ClientTls(ClientTlsOptions(ca_file=certificate)).context(Proof.NAME)
    assert isinstance(client, ssl.SSLContext)
    for name in names:
        shake(server.context(), client, name)
    validity = tls.validity_s(certificate)
    assert isinstance(validity, tuple)
    begins, expires = validity
    assert begins < time.time()
    assert isinstance(expires, int) and expires > NOW.timestamp() + 3600 * 86_400


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    assert make_self_signed(["a.example"], str(certificate), str(key), NOW) is None
    before = certificate.read_bytes(), key.read_bytes()
    assert make_self_signed(["b.example"], str(certificate), str(key), NOW) is None
    assert (certificate.read_bytes(), key.read_bytes()) == before
    certificate.unlink()  # as after a crash between the two
    assert make_self_signed(["b.example"], str(certificate), str(key), NOW) is None
    assert key.read_bytes() == before[1]
    assert presented(made(ServerTlsOptions((CertificateFiles(str(certificate), str(key)),))), None) == {"b.example"}


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    key = tmp_path / "k.pem"
    key.write_text("no key\n")
    found = make_self_signed(["a.example"], str(tmp_path / "c.pem"), str(key), NOW)
    assert isinstance(found, Problem) and found.where == str(key)
    found = make_self_signed(["a.example"], str(key / "c.pem"), str(tmp_path / "k2.pem"), NOW)
    assert isinstance(found, Problem) and str(key) in found.where and found.remedy


def test_expiry_of_no_certificate(tmp_path: Path) -> None:
    assert isinstance(tls.validity_s(str(tmp_path / "absent")), Problem)
