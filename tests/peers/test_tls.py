"""TLS with real peers: openssl s_client (versions, SNI, client certificates, resumption), new files under live
sessions, and many handshakes beside a session without TLS."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, relay_listener
from tests.peers.harness.process import until


@pytest.fixture(scope="module")
def node(place: Path, authority: Authority) -> Iterator[Node]:
    need.program("openssl")
    first, first_key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    other, other_key = authority.certificate("other.test")
    shown, _ = authority.certificate("client.test")
    with Node(place / "node", {
        "workers": 1,
        "listener": [
            mx_listener(ports.port()),
            relay_listener(
                ports.port(), name="partners", tls="implicit", trusted_networks=["192.0.2.0/24"],
                client_certificates="asked", client_ca_file=str(authority.file),
                trusted_certificates=[_fingerprint(shown)],
            ),
        ],
        "tls": {"certificate": str(first), "key": str(first_key),
                "further": [{"certificate": str(other), "key": str(other_key)}]},
        "domain": [local_domain("example.test")],
    }) as started:
        yield started


def _fingerprint(certificate: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    ).stdout.strip().partition("=")[2]


def _s_client(node: Node, *arguments: str, listener: int = 0) -> str:
    """What openssl says of a session that says EHLO and QUIT."""
    port = node.config["listener"][listener]["port"]
    start = [] if listener else ["-starttls", "smtp"]
    ran = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *start, "-crlf", *arguments],
        input="EHLO client.test\nQUIT\n", capture_output=True, text=True, check=False, timeout=30,
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("version", "works"), [("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False), ("-tls1", False)]
)
def test_versions(node: Node, version: str, works: bool) -> None:
    old = ["-cipher", "ALL:@SECLEVEL=0"] if not works else []
    said = _s_client(node, version, *old)
    assert ("Cipher is (NONE)" not in said and "Cipher is" in said) is works, said


@pytest.mark.parametrize(("name", "shown"), [("postroad.test", "postroad.test"), ("other.test", "other.test"),
                                             ("unknown.test", "postroad.test")])
def test_a_certificate_for_each_name(node: Node, authority: Authority, name: str, shown: str) -> None:
    said = _s_client(node, "-servername", name, "-CAfile", str(authority.file), "-verify_hostname", shown)
    assert "Verify return code: 0 (ok)" in said, said


def test_a_session_is_taken_up_again_with_its_ticket(node: Node, place: Path) -> None:
    ticket = str(place / "ticket")
    assert "New, TLSv1.2" in _s_client(node, "-tls1_2", "-sess_out", ticket)
    assert "Reused, TLSv1.2" in _s_client(node, "-tls1_2", "-sess_in", ticket)


def test_whichever_worker_a_client_comes_back_to_takes_its_ticket_up(place: Path, authority: Authority) -> None:
    need.program("openssl")
    certificate, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    with Node(place / "workers", {
        "workers": 3, "listener": [mx_listener(ports.port())],
        "tls": {"certificate": str(certificate), "key": str(key)}, "domain": [local_domain("example.test")],
    }) as several:
        ticket = str(place / "shared-ticket")
        assert "New, TLSv1.2" in _s_client(several, "-tls1_2", "-sess_out", ticket)
        for _ in range(8):
            assert "Reused, TLSv1.2" in _s_client(several, "-tls1_2", "-sess_in", ticket)


def test_a_client_certificate_is_trusted_and_told(node: Node, authority: Authority) -> None:
    port = node.config["listener"][1]["port"]
    context = authority.client_context()
    with smtplib.SMTP_SSL("localhost", port, context=context, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("a@b.test")
        assert client.rcpt("x@elsewhere.test")[0] == 550, "without its certificate it is a stranger"
    context.load_cert_chain(*authority.certificate("client.test"))
    with smtplib.SMTP_SSL("localhost", port, context=context, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("a@b.test")
        assert client.rcpt("x@elsewhere.test")[0] == 250
        client.rset()
        client.sendmail("a@b.test", ["facts@example.test"], "Subject: facts\r\n\r\nhello\r\n")
    message = maildir.parse(maildir.wait(node.maildir("facts@example.test"))[0])
    received = " ".join(str(message["Received"]).split())
    assert "tls TLS_AES_256_GCM_SHA384 (TLSv1.3, 256 bits, SNI localhost)" in received
    assert "client certificate" in received and ", verified)" in received
    fingerprint = _fingerprint(authority.certificate("client.test")[0]).replace(":", "").lower()
    until(lambda: fingerprint in node.log(), "the fingerprint in the log")
    assert fingerprint in node.command("trace", "facts@example.test")


def test_new_files_under_live_sessions(authority: Authority, place: Path) -> None:
    """RFC 3207 session and all: it goes on, and the next one is shown the new certificate."""
    need.program("openssl")
    live = place / "renewing"
    live.mkdir()

    def put(name: str) -> None:
        chain, key = authority.certificate(name, "localhost", "127.0.0.1")
        (live / "k.pem").write_bytes(key.read_bytes())
        (live / "c.pem").write_bytes(chain.read_bytes())

    put("postroad.test")
    tls = {"certificate": str(live / "c.pem"), "key": str(live / "k.pem")}
    with (
        Node(place / "renewed", {
            "listener": [mx_listener(ports.port())], "tls": tls, "domain": [local_domain("example.test")],
        }) as node,
        smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client,
    ):  # fmt: skip
        client.starttls(context=authority.client_context())
        client.ehlo("client.test")
        put("renewed.test")
        asked = "-CAfile", str(authority.file), "-verify_hostname", "renewed.test"
        until(lambda: "Verify return code: 0 (ok)" in _s_client(node, *asked), "the new one is shown", within_s=40)
        node.wait_log("new certificates are in force", within_s=40)
        client.sendmail("a@b.test", ["live@example.test"], "Subject: live\r\n\r\nhello\r\n")
        assert maildir.wait(node.maildir("live@example.test"))


def test_silent_clients_hold_up_no_handshake(node: Node, authority: Authority) -> None:
    """Clients that send half a ClientHello have no turn."""
    port = node.config["listener"][1]["port"]
    silent = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
    try:
        for each in silent:
            each.sendall(b"\x16\x03\x01\x02\x00\x01")
        with smtplib.SMTP_SSL("localhost", port, context=authority.client_context(), timeout=20) as client:
            assert client.noop()[0] == 250
    finally:
        for each in silent:
            each.close()


def test_many_handshakes_at_once(node: Node) -> None:
    """All come to their end, and a session without TLS has its answers meanwhile."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = node.config["listener"][1]["port"]
    greeted: list[bytes] = []

    def shake() -> None:
        with socket.create_connection(("127.0.0.1", port), 30) as plain, context.wrap_socket(plain) as stream:
            greeted.append(stream.recv(512))

    threads = [threading.Thread(target=shake) for _ in range(40)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as plain:
            assert plain.noop()[0] == 250
    assert len(greeted) == 40 and all(each.startswith(b"220 ") for each in greeted)
