"""MTA-STS end to end: zones on Knot, policies on nginx, mail servers with TLS (Postfix, Exim, and some that are wrong).

Each domain has its own zone, policy host and mail server. Whatever is wrong with a policy host, mail goes as without a
policy; whatever is wrong with a mail server that a policy in force names, mail waits.
"""

from __future__ import annotations

import datetime
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.exim import Exim
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.process import Program, listens
from tests.peers.harness.remote import Remote

POLICY = "version: STSv1\r\nmode: {mode}\r\n{mx}max_age: {age}\r\n"
BROKEN = {  # what is wrong with the policy host, and what the log says of it
    "expired": "certificate has expired", "othername": "Hostname mismatch", "selfsigned": "self-signed certificate",
    "moved": "status 301, and redirections are not followed", "missing": "status 404",
    "html": "the media type is 'text/html'", "large": "more than 65536 octets", "silent": "did not answer",
    "nonsense": "the policy file has no version",
}  # fmt: skip


class Web:
    """nginx with a policy host for each domain, told apart by SNI; and one address that never answers."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.address, self.silent, self.port = ports.address(), ports.address(), ports.port()
        self._directory = directory
        directory.mkdir()
        directory.chmod(0o755)
        self._authority = authority
        self._servers: dict[str, str] = {}
        self._program = Program([need.program("nginx"), "-c", str(directory / "conf")], directory / "log")
        self._mute = socket.create_server((self.silent, self.port))

    def serve(
        self, domain: str, policy: str, *, rule: str = "", certificate: tuple[Path, Path] | None = None
    ) -> None:
        """`rule`: what nginx does instead of sending the policy."""
        folder = self._directory / domain / ".well-known"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mta-sts.txt").write_bytes(policy.encode())
        chain, key = certificate or self._authority.certificate(f"mta-sts.{domain}")
        self._servers[domain] = (
            f"server {{ listen {self.address}:{self.port} ssl; server_name mta-sts.{domain};\n"
            f"ssl_certificate {chain}; ssl_certificate_key {key};\n"
            f"location / {{ {rule or f'root {self._directory / domain};'} }} }}\n"
        )

    def forget(self, domain: str) -> None:
        del self._servers[domain]

    def start(self) -> None:
        (self._directory / "conf").write_text(
            f"daemon off; pid {self._directory}/pid; error_log {self._directory}/error.log; user root; events {{}}\n"
            "http { access_log off; default_type text/plain; types { text/plain txt; }\n"
            f"{''.join(self._servers.values())} }}\n"
        )
        self._program.start()
        self._program.ready(lambda: listens(self.address, self.port), "nginx listens")

    def stop(self) -> None:
        self._program.stop()

    def close(self) -> None:
        self.stop()
        self._mute.close()


@dataclass
class World:
    node: Node
    web: Web
    zones: dict[str, str]
    directory: Path
    postfix: Postfix
    exim: Exim
    remotes: dict[str, Remote]
    knot: Knot


def _zone(web: Web, *mx: str, id: str = "1", silent: bool = False) -> str:
    """`mx`: addresses of mx1, mx2 and so on, with growing preference."""
    hosts = "".join(f"@ IN MX {n}0 mx{n}\nmx{n} IN A {address}\n" for n, address in enumerate(mx, 1))
    if not id:
        return hosts
    return f'{hosts}_mta-sts IN TXT "v=STSv1; id={id};"\nmta-sts IN A {web.silent if silent else web.address}\n'


def _policy(mode: str, *mx: str, age: int = 86_400) -> str:
    return POLICY.format(mode=mode, mx="".join(f"mx: {each}\r\n" for each in mx), age=age)


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    need.program("nginx")
    authority, port = Authority(place / "authority"), ports.port()
    web = Web(place / "web", authority)
    addresses = {name: ports.address() for name in ("postfix", "wrong", "right", "plain", "tls", "common")}
    remotes = {
        "wrong": Remote(address=addresses["wrong"], port=port, context=authority.server_context("other.example")),
        "right": Remote(address=addresses["right"], port=port, context=authority.server_context("mx2.two.example")),
        "plain": Remote(address=addresses["plain"], port=port),
        "common": Remote(address=addresses["common"], port=port, context=_common_name(authority)),
        "tls": Remote(address=addresses["tls"], port=port, context=authority.server_context("mx1.gone.example")),
    }
    zones = {
        "good.example": _zone(web, addresses["postfix"]), "exim.example": _zone(web, "127.0.0.1"),
        "two.example": _zone(web, addresses["wrong"], addresses["right"]),
        "plain.example": _zone(web, addresses["plain"]), "unnamed.example": _zone(web, addresses["plain"]),
        "testing.example": _zone(web, addresses["wrong"]), "untold.example": _zone(web, addresses["plain"]),
        "none.example": _zone(web, addresses["plain"]), "bare.example": _zone(web, addresses["plain"], id=""),
        "common.example": _zone(web, addresses["common"]),
        "gone.example": _zone(web, addresses["tls"]), "moves.example": _zone(web, addresses["plain"]),
        **{f"{name}.example": _zone(web, addresses["plain"], silent=name == "silent") for name in BROKEN},
    }
    web.serve("good.example", _policy("enforce", "mx1.good.example"))
    web.serve("exim.example", _policy("enforce", "*.exim.example"))
    web.serve("two.example", _policy("enforce", "mx1.two.example", "mx2.two.example"))
    web.serve("plain.example", _policy("enforce", "mx1.plain.example"))
    web.serve("unnamed.example", _policy("enforce", "mail.unnamed.example", "*.mx1.unnamed.example"))
    web.serve("testing.example", _policy("testing", "mx1.testing.example"))
    web.serve("untold.example", _policy("testing", "other.untold.example"))
    web.serve("none.example", _policy("none"))
    web.serve("common.example", _policy("enforce", "mx1.common.example"))
    web.serve("gone.example", _policy("enforce", "mx1.gone.example"))
    web.serve("moves.example", _policy("enforce", "mx1.moves.example"))
    for name in BROKEN:
        web.serve(f"{name}.example", _policy("enforce", f"mx1.{name}.example"))
    _break(web, place)
    web.start()
    certificate, key = authority.certificate("mx1.good.example")
    tls = {
        "smtpd_tls_security_level": "may", "smtpd_tls_cert_file": str(certificate), "smtpd_tls_key_file": str(key),
        **maildir_settings(place / "mail", "good.example", ["ada"]),
    }
    postfix = Postfix(place / "postfix", address=addresses["postfix"], port=port, settings=tls)
    exim = Exim(place / "exim", port=port, certificate=authority.certificate("mx1.exim.example"))
    knot = Knot(place / "knot", zones)
    node = Node(place / "node", {
        "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 3, "total_s": 6},
        "routing": {"mx_port": port, "tls": "sts"},
        "mx": {"loopback": True},
        "outbound": {"tls": {"ca_file": str(authority.file)}},
        "mta_sts": {"ca_file": str(authority.file), "port": web.port, "time_s": 3},
        "domain": [local_domain("sender.example")],
    })
    for remote in remotes.values():
        remote.start()
    try:
        with knot, postfix, exim, node:
            yield World(node, web, zones, place, postfix, exim, remotes, knot)
    finally:
        for remote in remotes.values():
            remote.stop()
        web.close()


def _common_name(authority: Authority) -> ssl.SSLContext:
    """A certificate that has the name of its host as common name only."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.certificate("ada@common.example", common_name="mx1.common.example"))
    return context


def _break(web: Web, place: Path) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for name, made in {
        "expired": web._authority._authority.issue_cert("mta-sts.expired.example", not_after=past),
        "othername": web._authority._authority.issue_cert("mta-sts.other.example"),
        "selfsigned": None,
    }.items():
        chain, key = place / f"{name}.pem", place / f"{name}.key"
        if made is None:
            own = trustme.CA()
            own.cert_pem.write_to_path(str(chain))
            own.private_key_pem.write_to_path(str(key))
        else:
            chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
            made.private_key_pem.write_to_path(str(key))
        web.serve(f"{name}.example", _policy("enforce", f"mx1.{name}.example"), certificate=(chain, key))
    there = f"return 301 https://mta-sts.good.example:{web.port}/.well-known/mta-sts.txt;"
    web.serve("moved.example", "", rule=there)
    web.serve("missing.example", "", rule="return 404;")
    web.serve("html.example", "", rule="types { } default_type text/html; return 200 'version: STSv1';")
    web.serve("large.example", "#" * 70_000)
    web.serve("nonsense.example", "hello\n")


def _send(world: World, to: str) -> str:
    """Its Subject."""
    subject = f"to {to} {threading.get_ident()} {datetime.datetime.now(datetime.UTC).timestamp()}"
    with smtplib.SMTP("127.0.0.1", world.node.port, timeout=30) as client:
        client.sendmail("bob@sender.example", [to], f"Subject: {subject}\r\n\r\nhello\r\n")
    return subject


def _has(remote: Remote, subject: str) -> bool:
    return any(subject.encode() in each.content for each in remote.transactions)


def _waits(world: World, to: str, *texts: str) -> None:
    world.node.wait_trace(to, "4.7.", *texts)


def test_postfix_with_the_right_certificate(world: World) -> None:
    _send(world, "ada@good.example")
    maildir.wait(world.directory / "mail" / "ada", 1)
    told = world.node.wait_trace("ada@good.example", "TLS policy sts", "held")
    assert "https://mta-sts.good.example" in told


def test_exim_with_the_right_certificate(world: World) -> None:
    _send(world, "alice@exim.example")
    maildir.wait(world.exim.mailbox("alice"), 1)
    world.node.wait_trace("alice@exim.example", "TLS policy sts", "held")


def test_a_host_with_another_name_is_passed_over_for_the_next(world: World) -> None:
    subject = _send(world, "a@two.example")
    found = world.remotes["right"].wait_for(lambda each: subject.encode() in each.content)
    assert found.tls and not _has(world.remotes["wrong"], subject)
    world.node.wait_trace("a@two.example", "mx1.two.example", "certificate-host-mismatch")


@pytest.mark.parametrize(("domain", "text"), [
    ("plain.example", "does not offer STARTTLS"), ("unnamed.example", "does not name mx1.unnamed.example"),
    ("common.example", "its certificate has no DNS names"),
])  # fmt: skip
def test_mail_waits_if_no_host_satisfies_the_policy(world: World, domain: str, text: str) -> None:
    subject = _send(world, f"a@{domain}")
    _waits(world, f"a@{domain}", text)
    assert not any(_has(each, subject) for each in world.remotes.values())


@pytest.mark.parametrize(("domain", "remote", "text"), [
    ("testing.example", "wrong", "certificate-host-mismatch"), ("untold.example", "plain", "validation-failure"),
])  # fmt: skip
def test_for_testing_mail_goes_and_the_history_tells(world: World, domain: str, remote: str, text: str) -> None:
    subject = _send(world, f"a@{domain}")
    world.remotes[remote].wait_for(lambda each: subject.encode() in each.content)
    world.node.wait_trace(f"a@{domain}", "the mail went on (testing)", text)


@pytest.mark.parametrize("domain", ["none.example", "bare.example"])
def test_without_a_policy_mail_goes(world: World, domain: str) -> None:
    subject = _send(world, f"a@{domain}")
    world.remotes["plain"].wait_for(lambda each: subject.encode() in each.content)


@pytest.mark.parametrize("name", BROKEN)
def test_a_policy_that_cannot_be_had_holds_no_mail(world: World, name: str) -> None:
    subject = _send(world, f"a@{name}.example")
    world.remotes["plain"].wait_for(lambda each: subject.encode() in each.content)
    world.node.wait_log(BROKEN[name])


def test_the_dry_run_shows_what_mail_meets(world: World) -> None:
    good = world.node.json("dns", "policy", "good.example")
    assert good["goes"] and good["sts"]["id"] == "1" and good["sts"]["fetched"] and not good["mx"]["secure"]
    (host,) = good["hosts"]
    assert host["held"] and host["starttls"] and host["chain"][0]["names"] == ["mx1.good.example"]
    assert host["chain"][0]["state"] == "valid"
    text = world.node.command("dns", "policy", "plain.example", code=1)
    assert "enforce, mx mx1.plain.example" in text and "does not offer STARTTLS" in text
    assert "Now: mail would wait (4.7.x)" in text
    text = world.node.command("dns", "policy", "testing.example")
    assert "other.example" in text and "for testing" in text
    text = world.node.command("dns", "policy", "moved.example")
    assert "redirections are not followed" in text and "sts-policy-fetch-error" in text
    two = world.node.json("dns", "policy", "a@two.example")
    assert [each["takes"] for each in two["hosts"]] == [False, True]
    assert two["hosts"][0]["failure"] == "certificate-host-mismatch" and "mx2.two.example" in two["outcome"]


def test_a_policy_outlives_its_record_its_server_and_the_node(world: World) -> None:
    """And a new one that says `none` lets the mail go. It ends the module: it changes the zones."""
    subject = _send(world, "a@gone.example")
    tls = world.remotes["tls"]
    assert tls.wait_for(lambda each: subject.encode() in each.content).tls
    held = _send(world, "a@moves.example")
    _waits(world, "a@moves.example", "does not offer STARTTLS")
    world.node.stop()
    tls.extensions.remove("STARTTLS")
    world.web.stop()
    world.web.forget("gone.example")
    world.web.serve("moves.example", _policy("none"))
    world.web.start()
    world.knot.stop()
    changed = dict(world.zones)
    changed["gone.example"] = _zone(world.web, tls.address, id="")
    changed["moves.example"] = _zone(world.web, world.remotes["plain"].address, id="2")
    knot = Knot(world.directory / "knot2", changed)
    world.node.config["dns"] = {**world.node.config["dns"], "servers": [f"127.0.0.1:{knot.port}"]}
    world.node.write()
    with knot:
        world.node.start()
        subject = _send(world, "b@gone.example")
        _waits(world, "b@gone.example", "does not offer STARTTLS")
        assert not _has(tls, subject)
        text = world.node.command("dns", "policy", "gone.example", code=1)
        assert "the node knows until" in text and "its policy cannot be had" in text
        world.remotes["plain"].wait_for(lambda each: held.encode() in each.content)
        world.node.wait_log("the MTA-STS policy of moves.example is none")
        world.node.stop()
