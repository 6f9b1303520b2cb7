"""OpenSMTPD and sendmail as neighbours: they relay to a node, submit to it as a user, and take mail from it.

Each has one instance for the module. It hands on to the node what it gets for `plain.test` and `user.test`, and to a
remote of the test what it gets for its own domain, so that the octets on both wires are known.
"""

from __future__ import annotations

import re
import smtplib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener, submission_listener
from tests.peers.harness.process import Program, listens
from tests.peers.harness.remote import Remote
from tests.peers.harness.unpacked import Unpacked

_PASSWORD = "correct horse"
_BODIES = {
    "dots": b".\r\n..\r\n.dot\r\n\r\n.\r\nend\r\n",
    "eight": "Grüße aus Köln, Καλημέρα\r\n".encode(),
    "long": b"x" * 990 + b"\r\n",
    "many": b"y" * 70 + b"\r\n" + b"line\r\n" * 20_000,
}

_SMTPD_CONF = """\
pki opensmtpd.test cert "/etc/smtpd/chain.pem"
pki opensmtpd.test key "/etc/smtpd/key.pem"
table secrets {{ "node" = "alice:{password}" }}
table here {{ "@" = "smtp-user" }}
listen on 127.0.0.1 port {port} hostname opensmtpd.test tls pki opensmtpd.test
action "plain" relay host "smtp://127.0.0.1:{relay}"
action "user" relay host "smtp+tls://node@localhost:{submission}" auth <secrets> mail-from "alice@example.test"
action "lmtp" lmtp "127.0.0.1:{lmtp}" rcpt-to virtual <here>
action "remote" relay host "smtp://127.0.0.1:{remote}"
match from any for domain "plain.test" action "plain"
match from any for domain "user.test" action "user"
match from any for domain "lmtp.test" action "lmtp"
match from any for any action "remote"
"""

_SENDMAIL_MC = """\
divert(-1)
include(`/usr/share/sendmail/cf/m4/cf.m4')
divert(0)
VERSIONID(`test')
OSTYPE(`linux')
define(`confPID_FILE', `/var/run/sendmail.pid')
define(`confDONT_PROBE_INTERFACES', `True')
define(`confDOMAIN_NAME', `sendmail.test')
define(`confSERVER_CERT', `/etc/mail/chain.pem')
define(`confSERVER_KEY', `/etc/mail/key.pem')
define(`confTO_IDENT', `0s')
define(`confTO_QUEUEWARN', `')
define(`confMIN_QUEUE_AGE', `0s')
define(`ESMTP_MAILER_ARGS', `TCP $h {relay}')
define(`SMTP8_MAILER_ARGS', `TCP $h {remote}')
undefine(`SMART_HOST')
FEATURE(`nocanonify')
FEATURE(`no_default_msa')
FEATURE(`promiscuous_relay')
FEATURE(`accept_unresolvable_domains')
FEATURE(`accept_unqualified_senders')
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA')
MAILER(`smtp')
LOCAL_RULE_0
R$* < @ plain.test . > $*\t$#esmtp $@ [127.0.0.1] $: $1 < @ plain.test . > $2
R$* < @ plain.test > $*\t$#esmtp $@ [127.0.0.1] $: $1 < @ plain.test . > $2
R$* < @ $+ . > $*\t$#smtp8 $@ [127.0.0.1] $: $1 < @ $2 . > $3
R$* < @ $+ > $*\t$#smtp8 $@ [127.0.0.1] $: $1 < @ $2 . > $3
"""


@dataclass
class Site:
    node: Node
    remote: Remote
    opensmtpd_port: int
    sendmail_port: int
    authority: Authority
    place: Path

    def log(self) -> str:
        return self.node.log()


@pytest.fixture(scope="module")
def site(place: Path, authority: Authority) -> Iterator[Site]:
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    opensmtpd, sendmail = ports.port(), ports.port()
    node = Node(place / "node", {
        "listener": [
            relay_listener(ports.port()), submission_listener(ports.port()), mx_listener(ports.port()),
            relay_listener(ports.port(), name="lmtp", protocol="lmtp"),
        ],
        "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"users": "users", "failure_delay_s": 0},
        "domain": [local_domain(name) for name in ("plain.test", "user.test", "lmtp.test")],
        "next_hop": [
            next_hop("opensmtpd.example", opensmtpd, tls="may"), next_hop("sendmail.example", sendmail, tls="may"),
        ],
    })
    node.add_user("alice", _PASSWORD, "alice@example.test")
    with Remote() as remote, node:
        yield Site(node, remote, opensmtpd, sendmail, authority, place)


class Server:
    """`program` in its own root folder, listening on `port`."""

    def __init__(self, program: Program, port: int, logs: list[Path]) -> None:
        self.program = program
        self.port = port
        self._logs = logs

    def log(self) -> str:
        return self.program.log() + "".join(path.read_text("utf-8", "replace") for path in self._logs if path.exists())


def _pem(site: Site, root: Unpacked, folder: str, name: str) -> None:
    chain, key = site.authority.certificate(name, "127.0.0.1")
    root.write(f"{folder}/chain.pem", chain.read_text())
    root.write(f"{folder}/key.pem", key.read_text(), 0o600)
    root.write("etc/ssl/certs/ca-certificates.crt", site.authority.file.read_text())
    root.write("etc/ssl/cert.pem", site.authority.file.read_text())


def _opensmtpd(site: Site) -> Server:
    root = Unpacked("opensmtpd", site.place / "opensmtpd", ["opensmtpd", "opensmtpq", "smtp-user"])
    _pem(site, root, "etc/smtpd", "opensmtpd.test")
    listeners = site.node.config["listener"]
    root.write("etc/smtpd.conf", _SMTPD_CONF.format(
        port=site.opensmtpd_port, relay=listeners[0]["port"], submission=listeners[1]["port"],
        remote=site.remote.port, password=_PASSWORD, lmtp=listeners[3]["port"],
    ), 0o600)
    prepare = "mkdir -p /var/spool/smtpd /run && chmod 711 /var/spool/smtpd && exec /usr/sbin/smtpd -d -v"
    return Server(Program(root.command("sh", "-c", prepare), site.place / "opensmtpd.log"), site.opensmtpd_port, [])


def _sendmail(site: Site) -> Server:
    root = Unpacked("sendmail", site.place / "sendmail", ["smmta", "smmsp"])
    _pem(site, root, "etc/mail", "sendmail.test")
    root.write("etc/mail/test.mc", _SENDMAIL_MC.format(
        port=site.sendmail_port, relay=site.node.port, remote=site.remote.port,
    ))
    # Without a name that has a dot it waits for a minute before it begins.
    root.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}.test {socket.gethostname()}\n")
    prepare = (
        "cd /etc/mail && m4 test.mc > sendmail.cf && echo root: nobody > aliases && mkdir -p /var/spool/mqueue"
        " && chmod 700 /var/spool/mqueue && exec /usr/libexec/sendmail/sendmail -bD -q1s"
    )
    return Server(Program(root.command("sh", "-c", prepare), site.place / "sendmail.log"), site.sendmail_port, [])


@pytest.fixture(scope="module", params=[_opensmtpd, _sendmail], ids=["opensmtpd", "sendmail"])
def server(request: pytest.FixtureRequest, site: Site) -> Iterator[Server]:
    made: Server = request.param(site)
    made.program.start()
    try:
        made.program.ready(lambda: listens("127.0.0.1", made.port), "it listens", within_s=60)
        yield made
    finally:
        made.program.stop()


def _message(subject: str, body: bytes, line: str = "MIME-Version: 1.0") -> bytes:
    head = f"From: alice@example.test\r\nTo: bob@plain.test\r\nSubject: {subject}\r\nMessage-ID: <{subject}@c.test>\r\n"
    head += f"Date: Mon, 30 Nov 2026 12:00:00 +0000\r\n{line}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    return f"{head}Content-Transfer-Encoding: 8bit\r\n\r\n".encode() + body


def _send(port: int, recipient: str, message: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("alice@example.test", [recipient], message, ["BODY=8BITMIME"])


def _body(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").partition(b"\n\n")[2].replace(b"\n", b"\r\n")


@pytest.mark.parametrize("name", _BODIES)
def test_it_relays_to_the_node(site: Site, server: Server, name: str) -> None:
    subject = f"to-node-{server.port}-{name}"
    _send(server.port, "bob@plain.test", _message(subject, _BODIES[name]))
    (octets,) = maildir.wait(site.node.maildir("bob@plain.test"), of=f"Subject: {subject}", within_s=60)
    assert _body(octets) == _BODIES[name]


@pytest.mark.parametrize("name", _BODIES)
def test_it_takes_mail_of_the_node(site: Site, server: Server, name: str) -> None:
    domain = "opensmtpd.example" if server.port == site.opensmtpd_port else "sendmail.example"
    subject = f"of-node-{server.port}-{name}"
    _send(site.node.port, f"bob@{domain}", _message(subject, _BODIES[name]))
    found = site.remote.wait_for(lambda each: f"Subject: {subject}".encode() in each.content, within_s=60)
    assert _body(found.content) == _BODIES[name]
    assert found.rcpt[0].upper().startswith(f"TO:<BOB@{domain.upper()}>")
    (received,) = re.findall(rb"Received: (?:[^\r\n]|\r\n[ \t])*by (?:opensmtpd|sendmail)\.test[^;]*", found.content)
    assert b"postroad.test" in received


@pytest.mark.parametrize("server", [_opensmtpd], ids=["opensmtpd"], indirect=True)
def test_it_submits_with_starttls_and_auth(site: Site, server: Server) -> None:
    _send(server.port, "bob@user.test", _message("as-a-user", _BODIES["eight"]))
    (octets,) = maildir.wait(site.node.maildir("bob@user.test"), of="Subject: as-a-user", within_s=60)
    assert _body(octets) == _BODIES["eight"]
    assert " with ESMTPSA id " in maildir.parse(octets)["Received"]


@pytest.mark.parametrize("server", [_opensmtpd], ids=["opensmtpd"], indirect=True)
def test_by_lmtp_its_delivered_to_is_no_loop(site: Site, server: Server) -> None:
    """It writes Delivered-To with the address that it hands on, before it hands it on."""
    _send(server.port, "bob@lmtp.test", _message("by-lmtp", _BODIES["eight"]))
    (octets,) = maildir.wait(site.node.maildir("bob@lmtp.test"), of="Subject: by-lmtp", within_s=60)
    assert octets.lower().count(b"delivered-to: bob@lmtp.test") == 2, "OpenSMTPD's, and ours"
    assert _body(octets) == _BODIES["eight"]
