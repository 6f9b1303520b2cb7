"""XCLIENT and XFORWARD in a session: who may, what changes, and what does not."""

from __future__ import annotations

import pytest

from postroad.check.client import ClientOptions
from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.mail.event import Refused, SessionEnded
from postroad.mail.policy import ACCEPT, Question, Role, Rules, Verdict, reject
from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions
from tests.unit.receive.fakes import Client, House, opened
from tests.unit.receive.test_session import MESSAGE, content

PROXY = ("192.0.2.1", 50_000)


def house(role: Role = Role.RELAY, dialect: Dialect = Dialect.SMTP, **more: object) -> House:
    networks = ("192.0.2.0/28", "203.0.113.0/28", "198.51.100.0/28", "unix")
    listener = ListenerOptions(
        "front", role, dialect, trusted_networks=("203.0.113.0/24",), xclient_networks=networks,
        xforward_networks=networks,
    )  # fmt: skip
    return House(listener=listener, **more)  # type: ignore[arg-type]


def send(client: Client, sender: str = "a@b.test") -> None:
    client.say("EHLO a.test\r\n")
    client.codes(f"MAIL FROM:<{sender}>", "RCPT TO:<ann@local.test>", "DATA")
    assert client.say(MESSAGE + b".\r\n").startswith("250")


@pytest.mark.parametrize("name", ["XCLIENT", "XFORWARD"])
def test_it_is_announced_to_those_only_who_may(name: str) -> None:
    served = house()
    assert name in served.client(PROXY).say("EHLO a.test\r\n")
    assert name in served.client("/run/socket").say("EHLO a.test\r\n")
    stranger = served.client(("192.0.2.99", 1))
    assert name not in stranger.say("EHLO a.test\r\n")
    assert stranger.codes(f"{name} ADDR=203.0.113.1") == ["500 5.5.2"]
    assert served.loop.timers and not stranger.transport.closed


@pytest.mark.parametrize("name", ["XCLIENT", "XFORWARD"])
def test_a_named_client_that_may_not_speak_for_others_cannot_go_on_doing_so(name: str) -> None:
    """A proxy such as nginx passes on what its client says next: that client must not name itself anyone."""
    client = opened(house())
    assert client.codes("XCLIENT ADDR=203.0.113.99 LOGIN=ann") == ["220 mx.local.test"]
    assert name not in client.say("EHLO a.test\r\n")
    assert client.codes(f"{name} ADDR=203.0.113.1") == ["500 5.5.2"]


def test_the_client_is_another() -> None:
    served = house()
    client = opened(served)
    answer = client.say("XCLIENT NAME=c.example ADDR=203.0.113.9 PORT=77 LOGIN=ann HELO=c DESTADDR=192.0.2.8\r\n")
    assert answer == "220 mx.local.test ESMTP Postroad"
    assert client.codes("MAIL FROM:<>", "EHLO proxy.test") == ["503 5.5.1", "250 XFORWARD"]
    send(client, "ann@local.test")
    peer = served.spool.stored[0].envelope.peer
    via = Via("XCLIENT", *PROXY, "192.0.2.8")
    assert peer == Peer("203.0.113.9", 77, "c", "ESMTPA", "", "ann", "front", via, "c.example", trusted=True)
    assert b"Received: from c (c.example [203.0.113.9])\r\n\tby " in content(served)
    client.hang_up()
    assert served.clients.sessions == 0
    ended = [event for event in served.logged if isinstance(event, SessionEnded)]
    assert ended[0].peer.address == "203.0.113.9"


def test_trust_follows_the_address() -> None:
    served = house()
    client = opened(served)
    assert client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<x@elsewhere.test>") == ["250 2.1.0", "550 5.7.1"]
    client.codes("RSET", "XCLIENT ADDR=203.0.113.9", "EHLO a.test")
    assert client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<x@elsewhere.test>") == ["250 2.1.0", "250 2.1.5"]
    client.codes("RSET", "XCLIENT ADDR=198.51.100.1", "EHLO a.test")
    assert client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<x@elsewhere.test>") == ["250 2.1.0", "550 5.7.1"]


def test_an_unknown_address_is_nobody_and_no_unix_socket() -> None:
    listener = ListenerOptions(
        "front", Role.RELAY, trusted_networks=("unix",), xclient_networks=("192.0.2.0/24",)
    )
    client = opened(House(listener=listener))
    client.codes("XCLIENT ADDR=[UNAVAILABLE]", "EHLO a.test")
    assert client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<x@elsewhere.test>") == ["250 2.1.0", "550 5.7.1"]


def test_an_account_belongs_to_its_client() -> None:
    served = house(Role.SUBMISSION)
    client = opened(served)
    client.codes("XCLIENT ADDR=198.51.100.1 LOGIN=ann", "EHLO a.test")
    assert client.codes("MAIL FROM:<ann@local.test>", "RSET") == ["250 2.1.0", "250 2.0.0"]
    client.codes("XCLIENT PORT=9", "EHLO a.test")
    assert client.codes("MAIL FROM:<ann@local.test>", "RSET") == ["250 2.1.0", "250 2.0.0"]
    client.codes("XCLIENT ADDR=198.51.100.2", "EHLO a.test")
    assert client.codes("MAIL FROM:<ann@local.test>") == ["530 5.7.0"]


def test_a_port_belongs_to_the_address_that_it_was_told_with() -> None:
    client = opened(house())
    peers = []
    for attributes in ("ADDR=203.0.113.9", "PORT=77", "NAME=c.example", "ADDR=203.0.113.10"):
        client.say("EHLO proxy.test\r\n")
        assert client.say(f"XCLIENT {attributes}\r\n").startswith("220 ")
        dialog = client.session._dialog
        assert dialog is not None
        peers.append(dialog.who().port)
    assert peers == [0, 77, 77, 0], "never the proxy's own"


def test_limits_count_the_client_that_was_named() -> None:
    served = house(clients=ClientOptions(sessions_per_client_max=1))
    first, second = opened(served), served.client(("192.0.2.2", 1))
    second.say("EHLO a.test\r\n")
    assert first.codes("XCLIENT ADDR=198.51.100.1") == ["220 mx.local.test"]
    assert second.codes("XCLIENT ADDR=198.51.100.1") == ["421 4.7.0"]
    assert second.transport.closed
    second.hang_up()
    first.hang_up()
    assert served.clients.sessions == 0


def test_the_connect_rules_judge_the_client_that_was_named() -> None:
    def rule(context: Question) -> Verdict:
        return reject(554, "5.7.1", "not you", "listed") if context.peer.address == "198.51.100.1" else ACCEPT

    served = house(rules=Rules(connect=rule))
    client = opened(served)
    assert client.codes("XCLIENT ADDR=198.51.100.1", "EHLO a.test", "QUIT") == ["554 5.7.1", "503 5.5.1", "221 2.0.0"]
    refused = [event for event in served.recorded if isinstance(event, Refused)]
    assert [(event.phase, event.peer.address) for event in refused] == [("CONNECT", "198.51.100.1")]


def test_proto_smtp_is_told_in_the_trace_field() -> None:
    served = house()
    client = opened(served)
    client.codes("XCLIENT PROTO=SMTP HELO=old")
    send(client)
    assert b"from old ([192.0.2.1])" in content(served) and b" with SMTP id " in content(served)


def test_xforward_adds_up_and_lasts_for_one_message() -> None:
    served = house()
    client = opened(served)
    assert client.codes(
        "XFORWARD NAME=o.example ADDR=203.0.113.1 PORT=[UNAVAILABLE]", "XFORWARD IDENT=4F1 SOURCE=REMOTE PORT=9"
    ) == ["250 2.0.0", "250 2.0.0"]
    client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>")
    # It changes nothing of who may do what.
    assert client.codes("RCPT TO:<x@elsewhere.test>", "XFORWARD IDENT=late", "DATA") == [
        "550 5.7.1", "503 5.5.1", "354 Send",
    ]  # fmt: skip
    client.say(MESSAGE + b".\r\n")
    send(client)
    first, second = (stored.envelope.peer for stored in served.spool.stored)
    assert first.forwarded == Forwarded("o.example", "203.0.113.1", 9, "", "", "4F1", "REMOTE")
    assert first.address == "192.0.2.1" and second.forwarded is None
    assert b"203.0.113.1" not in content(served)


@pytest.mark.parametrize("reset", ["RSET", "EHLO a.test", "XCLIENT PORT=1\r\nEHLO a.test"])
def test_xforward_is_forgotten_by(reset: str) -> None:
    served = house()
    client = opened(served)
    client.codes("XFORWARD IDENT=4F1", *reset.split("\r\n"))
    send(client)
    assert served.spool.stored[0].envelope.peer.forwarded is None


def test_over_lmtp_too() -> None:
    served = house(dialect=Dialect.LMTP)
    client = served.client(PROXY)
    answer = client.say("LHLO a.test\r\n")
    assert "XCLIENT" in answer and "XFORWARD" in answer
    assert client.codes("XCLIENT ADDR=203.0.113.9") == ["220 mx.local.test"]
    client.codes("LHLO a.test", "XFORWARD IDENT=4F1")
    client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "RCPT TO:<bob@local.test>", "DATA")
    assert client.say(MESSAGE + b".\r\n").count("250 2.0.0 Ok: queued") == 2
    peer = served.spool.stored[0].envelope.peer
    assert (peer.address, peer.protocol) == ("203.0.113.9", "LMTP")
    assert peer.forwarded is not None and peer.forwarded.ident == "4F1"
