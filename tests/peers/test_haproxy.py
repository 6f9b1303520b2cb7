"""Postroad behind HAProxy: PROXY headers of both versions, TLS that HAProxy ends, TLS that follows the header."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.haproxy import Front, HaProxy
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import until
from tests.peers.harness.swaks import swaks


@dataclass(frozen=True)
class Pair:
    node: Node
    haproxy: HaProxy
    strict_port: int


@pytest.fixture(scope="module")
def pair(place: Path, authority: Authority) -> Iterator[Pair]:
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    joined, client = place / "server.pem", place / "client.pem"
    joined.write_text(chain.read_text() + key.read_text())
    client_chain, client_key = authority.certificate("client.test", common_name="Ann of client.test")
    client.write_text(client_chain.read_text() + client_key.read_text())
    any_port, v1_port, tls_port, strict_port = (ports.port() for _ in range(4))
    behind = {"proxy_networks": ["127.0.0.1"]}
    node = Node(place / "node", {
        "listener": [
            mx_listener(any_port, name="any", proxy="any", tls="starttls", **behind),
            mx_listener(v1_port, name="one", proxy="v1", tls="none", **behind),
            mx_listener(tls_port, name="tls", proxy="v2", tls="implicit", **behind),
            mx_listener(strict_port, name="strict", proxy="any", proxy_networks=["192.0.2.1"]),
        ],
        "tls": {"certificate": str(chain), "key": str(key)},
        "domain": [local_domain("example.test")],
        "log": {"format": "json"},
    })
    ids = ["unique-id-format %[uuid()]"]
    haproxy = HaProxy(place / "haproxy", [
        Front("v1", v1_port, "send-proxy"),
        Front("v2", any_port, "send-proxy-v2 check inter 500ms"),
        Front("facts", any_port,
              "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,crc32c,unique-id,authority",
              bind=f"ssl crt {joined} ca-file {authority.file} verify optional", lines=ids),
        Front("through", tls_port, "send-proxy-v2"),
        Front("wrong", v1_port, "send-proxy-v2"),
        Front("strict", strict_port, "send-proxy-v2"),
    ])
    with node, haproxy:
        yield Pair(node, haproxy, strict_port)


def _accepted(pair: Pair, subject: str) -> dict[str, object]:
    """The client of the message with this subject, as the log has it, once the message is there."""
    maildir.wait(_box(pair), of=f"Subject: {subject}\n")
    name = f"<{subject}@elsewhere.test>"
    until(lambda: pair.node.logged("accepted", message_id=name), f"{name} in the log")
    client: dict[str, object] = pair.node.logged("accepted", message_id=name)[0]["client"]
    return client


def _box(pair: Pair) -> Path:
    return pair.node.directory / "mail" / "example.test" / "ann"


def _send(client: smtplib.SMTP, subject: str) -> tuple[str, int]:
    client.ehlo("client.test")
    client.sendmail("eve@elsewhere.test", ["ann@example.test"],
                    f"Subject: {subject}\r\nMessage-ID: <{subject}@elsewhere.test>\r\n\r\nhello\r\n")
    assert client.sock is not None
    name: tuple[str, int] = client.sock.getsockname()
    return name


@pytest.mark.parametrize(("front", "protocol"), [("v1", "PROXY v1"), ("v2", "PROXY v2")])
def test_the_client_of_haproxy_is_our_client(pair: Pair, front: str, protocol: str) -> None:
    with smtplib.SMTP("127.0.0.1", pair.haproxy.port(front), timeout=20) as client:
        address, port = _send(client, front)
    told = _accepted(pair, front)
    assert (told["address"], told["port"]) == (address, port)
    via = told["via"]
    assert isinstance(via, dict) and via["protocol"] == protocol
    assert (via["destination"], via["destination_port"]) == ("127.0.0.1", pair.haproxy.port(front))
    assert via["port"] != port


def test_starttls_through_haproxy(pair: Pair) -> None:
    ran = swaks(pair.haproxy.port("v2"), "--to", "ann@example.test", "--from", "eve@elsewhere.test", "--tls",
                "--h-Subject", "starttls", "--h-Message-Id", "<starttls@elsewhere.test>")
    assert ran.code == 0, ran.transcript
    told = _accepted(pair, "starttls")
    assert str(told["tls"]).startswith("TLSv1.3 ") and told["protocol"] == "ESMTPS"


def test_facts_of_the_tls_that_haproxy_ended(pair: Pair, authority: Authority, place: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(place / "client.pem")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    port = pair.haproxy.port("facts")
    with socket.create_connection(("127.0.0.1", port), 20) as plain, context.wrap_socket(
        plain, server_hostname="postroad.test"
    ) as secured:
        cipher = secured.cipher()
        assert cipher is not None
        client = smtplib.SMTP(timeout=20)
        client.sock, client.file = secured, None
        assert client.getreply()[0] == 220
        address, own_port = _send(client, "facts")
        assert not client.has_extn("starttls")  # the session is under TLS already
        client.quit()
    told = _accepted(pair, "facts")
    assert (told["address"], told["port"]) == (address, own_port)
    assert told["tls"] == f"TLSv1.2 {cipher[0]}" and told["protocol"] == "ESMTPS"
    via = told["via"]
    assert isinstance(via, dict)
    assert via["authority"] == "postroad.test" and len(via["unique_id"]) == 36
    assert via["common_name"] == "Ann of client.test"
    text = maildir.wait(_box(pair), of="Subject: facts\n")[0]
    assert f"tls {cipher[0]} (TLSv1.2, SNI postroad.test)".encode() in text
    traced = pair.node.command("trace", "<facts@elsewhere.test>")
    assert via["unique_id"] in traced and "by PROXY v2 of [127.0.0.1]" in traced, traced


def test_implicit_tls_behind_the_header(pair: Pair, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    with smtplib.SMTP_SSL("127.0.0.1", pair.haproxy.port("through"), timeout=20, context=context) as client:
        address, port = _send(client, "through")
    told = _accepted(pair, "through")
    assert (told["address"], told["port"]) == (address, port)
    assert str(told["tls"]).startswith("TLSv1.3 ") and told["listener"] == "tls"


@pytest.mark.parametrize("front", ["wrong", "strict"])
def test_another_version_and_another_proxy_are_closed(pair: Pair, front: str) -> None:
    _is_closed(pair.haproxy.port(front))
    text = "no PROXY header of a version" if front == "wrong" else "not a trusted proxy"
    pair.node.wait_log(text)


def test_without_haproxy_nobody_is_heard(pair: Pair) -> None:
    port = next(each["port"] for each in pair.node.config["listener"] if each["name"] == "any")
    _is_closed(port, b"EHLO client.test\r\n")


def _is_closed(port: int, said: bytes = b"") -> None:
    with contextlib.suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 20) as stream:
        stream.sendall(said)
        assert stream.recv(100) == b""


def test_health_checks_pass(pair: Pair) -> None:
    """HAProxy's own checks (LOCAL) get a greeting: the server stays up, as the mail through it has shown."""
    with smtplib.SMTP("127.0.0.1", pair.haproxy.port("v2"), timeout=20) as client:
        _send(client, "healthy")
    assert _accepted(pair, "healthy")["address"] == "127.0.0.1"
