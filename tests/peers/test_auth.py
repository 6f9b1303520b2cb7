"""AUTH with real peers: Dovecot's auth socket and submission proxy, Postfix with Cyrus SASL and with Dovecot's, Perl's
SCRAM, smtplib, swaks, and a node as the client of another."""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.clients import Salting, ScramClient
from postroad.protocol.sasl.step import Hash
from postroad.world.tls_session import channel_binding
from tests.peers.harness import maildir, need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener, submission_listener
from tests.peers.harness.process import until
from tests.peers.harness.swaks import swaks

PASSWORD = "correct, horse=battery"
PLUS, SHA_256, SHA_1 = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"


class Endpoint(BaseHTTPRequestHandler):
    """An authorization server that knows one token."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        right = self.headers["Authorization"] == "Basic " + base64.b64encode(b"mail:hush").decode()
        good = right and body.startswith("token=good-token&")
        answer = {"active": True, "username": "alice", "scope": "smtp", "exp": int(time.time()) + 60}
        octets = json.dumps(answer if good else {"active": False}).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/introspect"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    """Who issues certificates to clients."""
    return trustme.CA()


@pytest.fixture(scope="module")
def node(place: Path, authority: Authority, endpoint: str, clients: trustme.CA) -> Iterator[Node]:
    """Everything that a users file, an authorization server and certificates can do."""
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    (place / "node").mkdir()
    clients.cert_pem.write_to_path(str(place / "node" / "clients.pem"))
    (place / "node" / "introspection.secret").write_text("hush\n")
    node = Node(place / "node", {
        "listener": [
            submission_listener(ports.port()),
            submission_listener(ports.port(), name="submissions", tls="implicit"),
        ],
        "tls": {
            "certificate": str(chain), "key": str(key), "client_certificates": "asked", "client_ca_file": "clients.pem",
        },
        "auth": {
            "users": "users", "failure_delay_s": 0, "certificate_name": "mailbox",
            "introspection": {
                "url": endpoint, "client_id": "mail", "client_secret_file": "introspection.secret", "scope": "smtp",
            },
        },
        "domain": [local_domain(name) for name in ("example.test", *HOPS)],
    })
    node.command("user", "add", "alice", "-a", "alice@example.test", "--scram-sha-1", text=PASSWORD + "\n")
    node.command("user", "add", "carol@example.test", "--no-password")
    with node:
        yield node


def offered(node: Node, authority: Authority) -> list[str]:
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.starttls(context=authority.client_context())
        client.ehlo("client.test")
        return client.esmtp_features["auth"].split()


def test_an_office_behind_one_address_comes_back_all_at_once(node: Node, authority: Authority) -> None:
    """After a restart nobody is known to have logged in; more come than may be looked into at a time."""
    node.restart()
    context, together = authority.client_context(), threading.Barrier(40)

    def login(number: int) -> int:
        with smtplib.SMTP("localhost", node.port, timeout=60) as client:
            client.starttls(context=context)
            client.ehlo("client.test")
            together.wait(60)
            code, _ = client.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode())
            return code

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(login, range(40))) == [235] * 40


def test_all_that_can_be_had_is_offered(node: Node, authority: Authority) -> None:
    names = offered(node, authority)
    assert names == [
        PLUS, "SCRAM-SHA-1-PLUS", SHA_256, SHA_1, "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN",
    ]  # fmt: skip


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(node: Node, mechanism: str) -> None:
    ran = swaks(node.port, "--tls", "--auth", mechanism, "--auth-user", "alice", "--auth-password", PASSWORD,
                "--from", "alice@example.test", "--to", f"swaks-{mechanism.lower()}@example.test")  # fmt: skip
    assert ran.code == 0, ran.transcript
    assert maildir.wait(node.maildir(f"swaks-{mechanism.lower()}@example.test"))


_PERL = r"""
use strict; use warnings; use Authen::SCRAM::Client; use IO::Socket::INET; use Net::SSLeay; use MIME::Base64;
my ($port, $digest, $user, $password) = @ARGV;
my $socket = IO::Socket::INET->new("127.0.0.1:$port") or die "connect: $!";
Net::SSLeay::initialize();
my $ctx = Net::SSLeay::CTX_new() or die; my $ssl = Net::SSLeay::new($ctx);
Net::SSLeay::set_fd($ssl, fileno($socket)); Net::SSLeay::connect($ssl) == 1 or die "TLS";
sub answer {
  my $all = "";
  while (1) { my $line = Net::SSLeay::ssl_read_CRLF($ssl); $all .= $line; last if $line !~ /^\d{3}-/ }
  $all
}
sub say_ { Net::SSLeay::write($ssl, "$_[0]\r\n"); answer() }
answer(); say_("EHLO perl.test");
my $client = Authen::SCRAM::Client->new(username => $user, password => $password, digest => $digest);
my $reply = say_("AUTH SCRAM-$digest " . encode_base64($client->first_msg, ""));
$reply =~ /^334 (.*)\r\n/ or die "first: $reply";
$reply = say_(encode_base64($client->final_msg(decode_base64($1)), ""));
$reply =~ /^334 (.*)\r\n/ or die "final: $reply";
$client->validate(decode_base64($1)) or die "the server is not who it says";
print say_(""); say_("QUIT");
"""


@pytest.mark.parametrize("digest", ["SHA-256", "SHA-1"])
@pytest.mark.parametrize(("password", "right"), [(PASSWORD, True), ("wrong", False)])
def test_perls_scram(node: Node, digest: str, password: str, right: bool) -> None:
    perl = need.program("perl")
    if subprocess.run([perl, "-MAuthen::SCRAM::Client", "-e", "1"], capture_output=True, check=False).returncode:
        need.missing("Perl's Authen::SCRAM is not installed (libauthen-scram-perl)")
    port = str(node.config["listener"][1]["port"])
    ran = subprocess.run(
        [perl, "-e", _PERL, port, digest, "alice", password], capture_output=True, text=True, check=False, timeout=60
    )
    said = ran.stdout + ran.stderr
    assert said.startswith("235 2.7.0") if right else "final: 535 5.7.8" in said, said


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize(("token", "right"), [("good-token", True), ("bad-token", False)])
def test_tokens(node: Node, authority: Authority, mechanism: str, token: str, right: bool) -> None:
    head = "user=alice\x01" if mechanism == "XOAUTH2" else "n,a=alice,\x01"
    message = f"{head}auth=Bearer {token}\x01\x01"
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.starttls(context=authority.client_context())
        client.ehlo("client.test")
        code, said = client.docmd("AUTH", f"{mechanism} {base64.b64encode(message.encode()).decode()}")
        if not right:
            assert code == 334 and json.loads(base64.b64decode(said))["status"] in ("400", "invalid_token")
            code, said = client.docmd("AQ==")
        assert (code, said[:5]) == ((235, b"2.7.0") if right else (535, b"5.7.8"))
        if right:
            client.sendmail("alice@example.test", ["token@example.test"], "Subject: token\r\n\r\nhello\r\n")


@pytest.mark.parametrize(("name", "right"), [("carol@example.test", True), ("eve@example.test", False)])
def test_a_certificate(node: Node, authority: Authority, clients: trustme.CA, name: str, right: bool) -> None:
    context = authority.client_context()
    clients.issue_cert(name).configure_cert(context)
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.starttls(context=context)
        client.ehlo("client.test")
        assert client.esmtp_features["auth"].split()[0] == "EXTERNAL"
        assert client.docmd("AUTH", "EXTERNAL =")[0] == (235 if right else 535)
        if right:
            client.sendmail(name, ["certificate@example.test"], "Subject: x\r\n\r\nhello\r\n")
            node.wait_log("as carol@example.test at submission by EXTERNAL")


def test_successes_and_failures_are_logged_without_passwords(node: Node) -> None:
    swaks(node.port, "--tls", "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "hunter2", "--quit", "AUTH")
    node.wait_log("535 5.7.8 Authentication credentials invalid; account \"alice\"")
    text = node.log_path.read_text()
    assert " by PLAIN" in text and "hunter2" not in text and PASSWORD not in text and "good-token" not in text


# ---- clients: Postfix, another node


def sender(place: Path, port: int, settings: dict[str, str]) -> Postfix:
    if not any(Path("/usr/lib").glob("*/sasl2/libscram.so")):
        need.missing("Cyrus SASL's modules are not installed (libsasl2-modules)")
    return Postfix(place, settings={
        "relayhost": f"[127.0.0.1]:{port}", "smtp_tls_security_level": "encrypt", "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_security_options": "noanonymous", "smtp_sasl_tls_security_options": "noanonymous",
        "smtp_sasl_password_maps": f"inline:{{ {{ [127.0.0.1]:{port} = alice:{PASSWORD} }} }}", **settings,
    })  # fmt: skip


@pytest.mark.parametrize("mechanism", [SHA_256, SHA_1, "PLAIN", "LOGIN"])
def test_postfix_with_cyrus_sasl_submits(node: Node, place: Path, mechanism: str) -> None:
    to = f"cyrus-{mechanism.lower()}@example.test"
    settings = {"smtp_sasl_mechanism_filter": mechanism}
    with sender(place / f"postfix-{mechanism.lower()}", node.port, settings) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=20) as client:
            client.sendmail("alice@example.test", [to], "Subject: via Postfix\r\n\r\nhello\r\n")
        message = maildir.wait(node.maildir(to))[0]
        assert b" with ESMTPSA id " in message
        node.wait_log(f"as alice at submission by {mechanism}\n")


# By the domain of the recipient, so that one node shows them all
HOPS: dict[str, tuple[dict[str, Any], str]] = {
    "strongest.test": ({"password": PASSWORD}, PLUS),
    "pinned.test": ({"password": PASSWORD, "mechanism": SHA_1}, SHA_1),
    "token.test": ({"token_file": "token"}, "OAUTHBEARER"),
    "command.test": ({"token_command": ["/bin/echo", "good-token"], "mechanism": "XOAUTH2"}, "XOAUTH2"),
}


def test_a_node_is_the_client_of_another(node: Node, place: Path, authority: Authority) -> None:
    folder = place / "client"
    folder.mkdir()
    (folder / "token").write_text("good-token\n")
    client = Node(folder, {
        "workers": 1, "listener": [relay_listener(ports.port())],
        "next_hop": [
            next_hop(domain, node.port, tls="verify", username="alice", **settings)
            for domain, (settings, _) in HOPS.items()
        ],
        "outbound": {"tls": {"ca_file": str(authority.file)}},
    })
    with client, smtplib.SMTP("127.0.0.1", client.port, timeout=20) as smtp:
        smtp.sendmail("alice@example.test", [f"ada@{domain}" for domain in HOPS], "Subject: x\r\n\r\nhello\r\n")
        for domain, (_, used) in HOPS.items():
            assert maildir.wait(node.maildir(f"ada@{domain}"))
            node.wait_log(f"as alice at submission by {used}\n")
    assert PASSWORD not in client.log_path.read_text() and "good-token" not in client.log_path.read_text()


# ---- Dovecot


@pytest.fixture(scope="module")
def dovecot(place: Path, node: Node, authority: Authority) -> Iterator[Dovecot]:
    """Its accounts, and a submission proxy in front of the node."""
    relay = {
        "host": "127.0.0.1", "port": str(node.port), "user": "alice", "password": PASSWORD, "ssl": "starttls",
        "ssl_verify": "no",
    }
    with Dovecot(place / "dovecot", users=["dora@example.test", "bob@example.test"], relay=relay) as dovecot:
        yield dovecot


def test_dovecots_submission_proxy(node: Node, dovecot: Dovecot) -> None:
    with smtplib.SMTP("127.0.0.1", dovecot.submission_port, timeout=20) as client:
        client.login("dora@example.test", Dovecot.password)
        client.sendmail("alice@example.test", ["proxied@example.test"], "Subject: proxied\r\n\r\nhello\r\n")
    assert b"Subject: proxied" in maildir.wait(node.maildir("proxied@example.test"))[0]
    node.wait_log("as alice at submission by PLAIN\n")


@pytest.fixture(scope="module")
def behind(place: Path, dovecot: Dovecot, authority: Authority) -> Iterator[Node]:
    """A node whose accounts are Dovecot's."""
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    node = Node(place / "behind", {
        "listener": [submission_listener(ports.port())], "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"dovecot": str(dovecot.auth_path), "timeout_s": 10, "failure_delay_s": 0},
        "domain": [local_domain("example.test")],
    })
    with node:
        yield node


def test_dovecots_mechanisms_are_offered(behind: Node, authority: Authority) -> None:
    assert offered(behind, authority) == [SHA_256, SHA_1, "PLAIN", "LOGIN"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("password", "answer"), [(Dovecot.password, "235 2.7.0"), ("wrong", "535 5.7.8")])
def test_dovecot_verifies(behind: Node, mechanism: str, password: str, answer: str) -> None:
    ran = swaks(behind.port, "--tls", "--auth", mechanism, "--auth-user", "dora@example.test", "--auth-password",
                password, "--quit", "AUTH")  # fmt: skip
    assert any(line.startswith(answer) for line in ran.replies()), ran.transcript


@pytest.mark.parametrize("mechanism", [SHA_256, SHA_1])
def test_scram_through_dovecot_by_postfix(behind: Node, place: Path, mechanism: str) -> None:
    settings = {
        "smtp_sasl_mechanism_filter": mechanism,
        "smtp_sasl_password_maps":
            f"inline:{{ {{ [127.0.0.1]:{behind.port} = dora@example.test:{Dovecot.password} }} }}",
    }
    to = f"dora-{mechanism.lower()}@example.test"
    with sender(place / f"through-{mechanism.lower()}", behind.port, settings) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=20) as client:
            client.sendmail("dora@example.test", [to], "Subject: via Dovecot\r\n\r\nhello\r\n")
        assert maildir.wait(behind.maildir(to))
        behind.wait_log(f"as dora@example.test at submission by {mechanism}\n")


def test_a_dovecot_account_sends_from_its_own_address_only(behind: Node) -> None:
    login = ("--auth", "PLAIN", "--auth-user", "dora@example.test", "--auth-password", Dovecot.password)
    refused = swaks(behind.port, "--tls", *login, "--from", "bob@example.test", "--to", "x@example.test")
    assert any(line.startswith("553 5.7.1") for line in refused.replies()), refused.transcript


def test_identities_do_not_break_dovecots_protocol(behind: Node, authority: Authority) -> None:
    names = ("dora\tuser=bob@example.test", "dora\nOK\t1\tuser=bob@example.test", '"; --', "a" * 900, "\x01t")
    for name in names:
        with smtplib.SMTP("localhost", behind.port, timeout=30) as client:
            client.starttls(context=authority.client_context())
            client.ehlo("client.test")
            message = base64.b64encode(f"\0{name}\0x".encode()).decode()
            assert client.docmd("AUTH", f"PLAIN {message}")[0] in (501, 535), name
            message = base64.b64encode(f"\0dora@example.test\0{Dovecot.password}".encode()).decode()
            assert client.docmd("AUTH", f"PLAIN {message}")[0] == 235, "the connection to Dovecot has not suffered"


def test_a_node_authenticates_to_postfix_with_dovecots_sasl(
    place: Path, dovecot: Dovecot, authority: Authority
) -> None:
    chain, key = authority.certificate("postfix.test", "localhost", "127.0.0.1")
    postfix = Postfix(place / "receiver", settings={
        "default_transport": "discard:", "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_chain_files": f"{key}, {chain}", "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(dovecot.auth_path), "mynetworks": "192.0.2.1",
        "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    })
    used = {"strongest.test": SHA_256, "sha1.test": SHA_1, "plain.test": "PLAIN", "login.test": "LOGIN"}
    client = Node(place / "to-postfix", {
        "workers": 1, "listener": [relay_listener(ports.port())],
        "next_hop": [
            next_hop(domain, postfix.port, tls="verify", username="bob@example.test", password=Dovecot.password,
                     **({} if domain == "strongest.test" else {"mechanism": mechanism}))
            for domain, mechanism in used.items()
        ],
        "outbound": {"tls": {"ca_file": str(authority.file)}},
    })  # fmt: skip
    with postfix, client, smtplib.SMTP("127.0.0.1", client.port, timeout=20) as smtp:
        smtp.sendmail("bob@example.test", [f"ada@{domain}" for domain in used], "Subject: x\r\n\r\nhello\r\n")
        for domain, mechanism in used.items():
            client.wait_log(f"relayed for <ada@{domain}>")
            used_by = f"sasl_method={mechanism}, sasl_username=bob@example.test"
            until(lambda used_by=used_by: used_by in postfix.log_path.read_text(), used_by)  # type: ignore[misc]


def test_a_node_uses_cram_md5_where_a_postfix_has_nothing_else_and_that_is_allowed(
    place: Path, authority: Authority
) -> None:
    """RFC 2195, judged by Dovecot; without the setting the mail waits, and the reason is told."""
    chain, key = authority.certificate("postfix.test", "localhost", "127.0.0.1")
    with Dovecot(place / "cram", users=["bob@example.test"], mechanisms="cram-md5") as dovecot:
        postfix = Postfix(place / "cram-receiver", settings={
            "default_transport": "discard:", "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_chain_files": f"{key}, {chain}", "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(dovecot.auth_path), "mynetworks": "192.0.2.1",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        })
        hops: dict[str, dict[str, Any]] = {"allowed.test": {"cram_md5": True}, "not.test": {}}
        client = Node(place / "to-cram", {
            "workers": 1, "listener": [relay_listener(ports.port())],
            "next_hop": [
                next_hop(domain, postfix.port, tls="verify", username="bob@example.test", password=Dovecot.password,
                         **settings)
                for domain, settings in hops.items()
            ],
            "outbound": {"tls": {"ca_file": str(authority.file)}},
        })  # fmt: skip
        with postfix, client, smtplib.SMTP("127.0.0.1", client.port, timeout=20) as smtp:
            smtp.sendmail("bob@example.test", [f"ada@{domain}" for domain in hops], "Subject: x\r\n\r\nhello\r\n")
            client.wait_log("relayed for <ada@allowed.test>")
            used = "sasl_method=CRAM-MD5, sasl_username=bob@example.test"
            until(lambda: used in postfix.log_path.read_text(), used)
            client.wait_log("offers none of the mechanisms")


# ---- a client that stays away, and a Dovecot that does


def test_when_dovecot_goes_clients_are_told_to_come_back(behind: Node, dovecot: Dovecot, authority: Authority) -> None:
    """Last in the module: it takes Dovecot away."""
    dovecot.stop()
    login = ("--auth", "PLAIN", "--auth-user", "dora@example.test", "--auth-password", Dovecot.password)
    ran = swaks(behind.port, "--tls", *login, "--quit", "AUTH")
    assert any(line.startswith("454 4.7.0") for line in ran.replies()), ran.transcript
    dovecot.start()

    def answers() -> bool:
        return any(line.startswith("235") for line in swaks(behind.port, "--tls", *login, "--quit", "AUTH").replies())

    until(answers, "log-ins are taken again", pause_s=0.2)


def test_a_channel_that_is_not_the_servers_is_refused(node: Node, authority: Authority) -> None:
    """What a man in the middle could pass on: a proof that is bound to another connection (RFC 5802 §6)."""
    context = authority.client_context()
    port = node.config["listener"][1]["port"]
    mine, other = (
        context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        for _ in range(2)
    )

    class Transport:
        def __init__(self, wrapped: ssl.SSLSocket) -> None:
            self._wrapped = wrapped

        def get_extra_info(self, name: str) -> ssl.SSLSocket:
            return self._wrapped

    def talk(line: str) -> str:
        mine.sendall(line.encode() + b"\r\n")
        answer = mine.recv(4096).decode()
        return answer.removeprefix("334 ").strip()

    for bound_to, expected in ((other, "535 5.7.8"), (mine, "v=")):
        binding = channel_binding(Transport(bound_to), "tls-exporter", server_side=False)
        assert binding is not None
        client = ScramClient(Hash.SHA_256, "alice", "nonce", binding_type="tls-exporter", binding=binding)
        if bound_to is other:
            mine.recv(4096)
            talk("EHLO client.test")
        first = talk(f"AUTH {PLUS} {base64.b64encode(client.initial).decode()}")
        salting = client.server_first(base64.b64decode(first))
        assert isinstance(salting, Salting)
        final = client.finish(scram_keys.salted(Hash.SHA_256, PASSWORD, salting.salt, salting.iterations))
        answer = talk(base64.b64encode(final).decode())
        assert (answer if bound_to is other else base64.b64decode(answer).decode()).startswith(expected)
    mine.close()
    other.close()
