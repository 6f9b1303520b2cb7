"""LMTP under TLS and with a password; Sieve scripts that Dovecot runs when it takes a message."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node, Table
from tests.peers.harness.process import own_to

SIEVE = '''require ["fileinto", "mailbox", "envelope", "subaddress", "reject"];
if header :contains "subject" "invoice" { fileinto :create "Bills"; }
elsif envelope :detail "to" "lists" { fileinto :create "Lists"; }
elsif header :contains "subject" "go away" { reject "not here"; }
'''


@pytest.fixture(scope="module")
def authority(place: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(place / "authority.pem"))
    made.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(place / "dovecot.pem"))
    return made


@pytest.fixture(scope="module")
def dovecot(place: Path, authority: trustme.CA) -> Iterator[Dovecot]:
    need.program("sievec", "/usr/bin/sievec")
    implicit = ports.port()
    made = Dovecot(place / "dovecot", users=["ada@d.example", "bob@d.example"], added=(
        f"ssl = yes\nssl_cert = <{place}/dovecot.pem\nssl_key = <{place}/dovecot.pem\n"
        "service lmtp {\n  inet_listener lmtps {\n    address = 127.0.0.1\n"
        f"    port = {implicit}\n    ssl = yes\n  }}\n}}\n"
        "protocol lmtp {\n  mail_plugins = quota sieve\n}\n"
        f"plugin {{\n  sieve = file:{place}/sieve/%u;active={place}/sieve/%u.sieve\n}}\nrecipient_delimiter = +\n"
        "mail_location = maildir:~/%u\n"
    ))
    made.implicit_port = implicit  # type: ignore[attr-defined]
    (place / "sieve").mkdir()
    (place / "sieve" / "ada@d.example.sieve").write_text(SIEVE)
    for each in (place / "sieve", place / "sieve" / "ada@d.example.sieve"):
        own_to(each, "mail")
    (place / "dovecot" / "mail" / "home").mkdir(parents=True, exist_ok=True)
    own_to(place / "dovecot" / "mail" / "home", "mail")
    with made:
        yield made


def node_for(place: Path, name: str, domain: Table) -> Node:
    settings = {"recipients": "any", "deliver": "lmtp", **domain}
    roots = {"ca_file": str(place / "authority.pem")}
    return Node(place / name, {"domain": [settings], "outbound": {"tls": roots}})


def send(node: Node, to: str, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("sender@d.example", [to], f"Subject: {subject}\r\n\r\nhello\r\n".encode())


@pytest.mark.parametrize("tls", ["verify", "implicit"])
def test_dovecot_under_tls(place: Path, dovecot: Dovecot, tls: str) -> None:
    port = dovecot.implicit_port if tls == "implicit" else dovecot.lmtp_port  # type: ignore[attr-defined]
    with node_for(place, tls, {"name": "d.example", "host": "localhost", "port": port, "tls": tls}) as node:
        send(node, "bob@d.example", f"by {tls}")
        assert dovecot.wait("bob@d.example", of=f"by {tls}")
        node.wait_log("delivered for <bob@d.example>")
        (line,) = [line for line in node.log().splitlines() if "delivered for <bob@d.example>" in line]
        assert "TLSv1" in line, line


def test_a_name_that_is_not_proved(place: Path, dovecot: Dovecot) -> None:
    domain = {"name": "d.example", "host": "127.0.0.1", "port": dovecot.lmtp_port, "tls": "verify"}
    with node_for(place, "unproved", domain) as node:
        send(node, "bob@d.example", "not proved")
        node.wait_log("deferred for <bob@d.example>")
        assert not [each for each in dovecot.messages("bob@d.example") if b"not proved" in each]


def test_sieve(place: Path, dovecot: Dovecot) -> None:
    """The scripts of the users: into a folder, by address extension, and a rejection that Dovecot sends itself."""
    with node_for(place, "sieve-node", {"name": "d.example", "socket": str(dovecot.lmtp_path)}) as node:
        for to, subject in (("ada@d.example", "your invoice"), ("ada+lists@d.example", "news"),
                            ("ada@d.example", "plain"), ("bob@d.example", "invoice for bob")):
            send(node, to, subject)
        assert dovecot.wait("ada@d.example", of="Subject: plain")
        assert dovecot.wait("bob@d.example", of="invoice for bob")
        home = place / "dovecot" / "mail" / "home" / "ada@d.example"
        for folder, words in ((".Bills", b"your invoice"), (".Lists", b"news")):
            assert [words in each for each in maildir.wait(home / folder)] == [True]


class Handler:
    def __init__(self) -> None:
        self.came: list[tuple[str, bool]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.came.append((envelope.rcpt_tos[0], session.authenticated))
        return "250 OK"


async def test_a_server_that_wants_a_password(place: Path, authority: trustme.CA) -> None:
    """As Cyrus wants it over TCP: STARTTLS, AUTH, and only then mail."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place / "dovecot.pem")
    handler, port = Handler(), ports.port()

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"postroad", b"geheim")
        return AuthResult(success=good)

    class Controller(UnthreadedController):
        def factory(self) -> Any:
            return LMTP(handler, hostname="cyrus.test", tls_context=context, auth_required=True,
                        authenticator=authenticate, loop=asyncio.get_running_loop())

    server = await asyncio.get_running_loop().create_server(
        Controller(handler, loop=asyncio.get_running_loop(), hostname="127.0.0.1", port=port).factory, "127.0.0.1", port
    )
    (place / "password").write_text("geheim\n")
    (place / "password").chmod(0o600)
    domain = {"name": "c.example", "host": "localhost", "port": port, "tls": "verify", "username": "postroad",
              "password_file": str(place / "password")}
    node = node_for(place, "cyrus", domain)
    try:
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(send, node, "ada@c.example", "secret")
        await asyncio.to_thread(node.wait_log, "delivered for <ada@c.example>")
        assert handler.came == [("ada@c.example", True)]
        await asyncio.to_thread(node.wait_trace, "ada@c.example", "PLAIN as postroad")
    finally:
        await asyncio.to_thread(node.stop)
        server.close()
