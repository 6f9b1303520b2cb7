"""The peers by themselves, without Postroad: what the other tests of this folder build on."""

from __future__ import annotations

import smtplib
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.peers.harness import maildir
from tests.peers.harness.certificates import Authority
from tests.peers.harness.counter import Counter
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.exim import Exim
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.remote import DROP, Dialog, Remote
from tests.peers.harness.smtptools import Sink, run_source, source_command
from tests.peers.harness.swaks import swaks


def test_postfix_delivers_and_relays_over_tls(place: Path, authority: Authority) -> None:
    chain, key = authority.certificate("postfix.test")
    settings = maildir_settings(place / "mail", "pf.example", ["alice"]) | {
        "smtpd_tls_security_level": "may", "smtpd_tls_chain_files": f"{key}, {chain}", "tls_append_default_CA": "no",
        "smtp_tls_security_level": "encrypt",
    }
    context = authority.server_context("remote.test", "127.0.0.1")
    with Remote(context=context) as remote:
        settings["relayhost"] = f"[127.0.0.1]:{remote.port}"
        with Postfix(place / "postfix", settings=settings) as postfix:
            ran = swaks(postfix.port, "--tls", "--from", "a@b.test", "--to", "alice@pf.example,bob@else.example")
            assert ran.code == 0, ran.transcript
            assert b"This is a test mailing" in maildir.wait(place / "mail" / "alice")[0]
            assert remote.wait()[0].tls
            assert "550 5.1.1" in swaks(postfix.port, "--to", "nobody@pf.example").transcript


def test_exim_delivers_and_relays(place: Path) -> None:
    with Remote() as remote, Exim(place / "exim", next_port=remote.port) as exim:
        ran = swaks(exim.port, "--from", "a@b.test", "--to", "alice@exim.example,bob@else.example")
        assert ran.code == 0, ran.transcript + exim.log()
        assert maildir.wait(exim.mailbox("alice"))
        assert remote.wait()[0].rcpt[0].startswith("TO:<bob@else.example>")
        assert "no such mailbox" in swaks(exim.port, "--to", "nobody@exim.example").transcript


def test_dovecot_takes_lmtp_and_shows_it_by_imap(place: Path) -> None:
    with Dovecot(place / "dovecot", users=["alice@dc.example"], full=["full@dc.example"]) as dovecot:
        with smtplib.LMTP("127.0.0.1", dovecot.lmtp_port) as lmtp:
            lmtp.sendmail("a@b.test", ["alice@dc.example"], b"Subject: hello\r\n\r\nby LMTP\r\n")
        assert b"Subject: hello" in dovecot.wait("alice@dc.example")[0]


def test_knot_answers(place: Path) -> None:
    with Knot(place / "knot", {"one.example": "@ IN MX 10 mx\nmx IN A 127.0.0.1"}) as knot:
        answer = dns.query.udp(dns.message.make_query("one.example", "MX"), "127.0.0.1", 20, knot.port)
        assert "10 mx.one.example." in answer.answer[0].to_text()


def test_remote_does_as_the_rule_says() -> None:
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        if verb == "RCPT" and "later" in argument:
            return "450 4.2.0 later"
        return DROP if verb == "RCPT" and "drop" in argument else None

    with Remote(rule) as remote:
        with smtplib.SMTP("127.0.0.1", remote.port) as client:
            refused = client.sendmail("a@b.test", ["good@c.test", "later@c.test"], b"x\r\n.y\r\n..z\r\n")
        assert refused == {"later@c.test": (450, b"4.2.0 later")}
        assert remote.transactions[0].content == b"x\r\n.y\r\n..z\r\n"
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)), \
                smtplib.SMTP("127.0.0.1", remote.port) as client:
            client.sendmail("a@b.test", ["drop@c.test"], b"x\r\n")


def test_counter_and_sink_count(place: Path) -> None:
    with Counter(place, record=True) as counter, Sink() as sink:
        run_source(source_command(counter.port, messages=20, sessions=3, recipients=7))
        assert counter.wait_recipients(140) and counter.messages == 20
        assert len(set(counter.message_ids())) == 20
        run_source(source_command(sink.port, messages=20, sessions=3, keep=True))
        assert sink.wait(20)
