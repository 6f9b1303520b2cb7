"""What senders ask for beyond delivery, on its whole way: in at one node, over the wire, out at another or at a remote.

No packaged peer has these extensions (Exim 4.96 and Postfix 3.7 have CHUNKING, and no more of them), so Postroad talks
to itself and to scripted remotes; CHUNKING with Exim and Postfix is in `test_exim` and `test_postfix`.
"""

from __future__ import annotations

import email
import smtplib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener, submission_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote
from tests.peers.test_conformance import Talk

_SENDER = "sender@example.test"
_FULL = (
    "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "SIZE 0", "CHUNKING", "BINARYMIME",
    "DELIVERBY 10", "MT-PRIORITY MIXER", "RRVS", "REQUIRETLS",
)
_BINARY = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r.\n\n.\r\n.\r\nQUIT\r\n\xff\xfe end"


@dataclass(frozen=True)
class Road:
    """`node` takes mail from anyone on loopback and relays it; `second` is the last hop for second.example."""

    node: Node
    second: Node
    remotes: dict[str, Remote]

    @property
    def submission(self) -> int:
        return int(self.node.config["listener"][1]["port"])

    def reports(self, subject: str, count: int = 1) -> list[Mapping[str, str]]:
        """The fields of each recipient that the DSNs for `subject` speak of."""
        found = dsn.wait(self.node.maildir(_SENDER), subject, count)
        return [fields for report in found for fields in report.recipients]

    def log(self) -> str:
        return f"{self.node.log()}\n--- second:\n{self.second.log()}"


@pytest.fixture(scope="module")
def road(place: Path, authority: Authority) -> Iterator[Road]:
    context = authority.server_context("localhost", "127.0.0.1")
    remotes = {
        "full": Remote(extensions=_FULL, context=context),
        "tls": Remote(extensions=("PIPELINING", "ENHANCEDSTATUSCODES"), context=context),
        "bare": Remote(extensions=("PIPELINING", "ENHANCEDSTATUSCODES")),
        "limits": Remote(extensions=("PIPELINING", "ENHANCEDSTATUSCODES", "LIMITS MAILMAX=1 RCPTMAX=2")),
        "domains": Remote(extensions=("PIPELINING", "ENHANCEDSTATUSCODES", "LIMITS RCPTDOMAINMAX=1")),
        "later": Remote(_always_later, extensions=("PIPELINING", "ENHANCEDSTATUSCODES", "DELIVERBY")),
    }
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    (place / "recipients").write_text("old since=2010-05-01\nnew since=2024-05-01T12:00:00Z\ndave\n")
    second_port = ports.port()
    tls = {"certificate": str(chain), "key": str(key)}
    second = Node(place / "second", {
        "hostname": "second.test",
        "listener": [mx_listener(second_port)],
        "tls": tls,
        "domain": [local_domain("second.example", [], recipients_file=str(place / "recipients"), since="2000-01-01")],
        "extensions": {"binarymime": True},
    })
    node = Node(place / "node", {
        "listener": [
            relay_listener(ports.port()),
            submission_listener(ports.port(), trusted_networks=["127.0.0.0/8"], trust_network=True, auth=False),
        ],
        "tls": tls,
        "outbound": {"tls": {"ca_file": str(authority.file)}},
        "domain": [local_domain("example.test")],
        "next_hop": [
            *(next_hop(f"{name}.example", remote.port, tls="may") for name, remote in remotes.items()),
            next_hop("second.example", second_port, tls="may"),
            next_hop("others.example", remotes["domains"].port, tls="may"),
        ],
        "extensions": {"binarymime": True, "mt_priority_tunnel": True},
    })
    for remote in remotes.values():
        remote.start()
    with second, node:
        yield Road(node, second, remotes)
    for remote in remotes.values():
        remote.stop()


def _always_later(dialog: Dialog, verb: str, argument: str) -> str | None:
    return "450 4.2.0 not yet" if verb == "RCPT" else None


def _send(
    port: int, to: list[str], subject: str, *, mail: tuple[str, ...] = (), rcpt: tuple[str, ...] = (),
    head: bytes = b"", tls: Authority | None = None,
) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        if tls is not None:
            client.starttls(context=tls.client_context())
            client.ehlo("client.test")
        content = head + f"Subject: {subject}\r\n\r\n".encode() + b"hello\r\n"
        client.sendmail(_SENDER, to, content, mail, rcpt)


# ---- BINARYMIME and CHUNKING (RFC 3030)


def _send_binary(port: int, to: str, subject: bytes, size: int = 0) -> bytes:
    content = b"Subject: %b\r\n" % subject + _BINARY + bytes(range(256)) * (size // 256)
    with Talk(port) as client:
        client(f"MAIL FROM:<{_SENDER}> BODY=BINARYMIME", f"RCPT TO:<{to}>")
        assert client.octets(b"BDAT 20\r\n" + content[:20]).startswith("250 2.0.0")
        assert client.octets(b"BDAT %d LAST\r\n" % (len(content) - 20) + content[20:]).startswith("250 2.0.0")
    return content


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_binary_mail_goes_through_two_nodes_octet_for_octet(road: Road, size: int) -> None:
    content = _send_binary(road.node.port, "dave@second.example", b"binary %d" % size, size)
    (octets,) = maildir.wait(road.second.maildir("dave@second.example"), of=f"binary {size}", within_s=40)
    assert octets.endswith(content)
    content = _send_binary(road.node.port, "a@full.example", b"to a remote %d" % size, size)
    taken = road.remotes["full"].wait_for(lambda each: b"to a remote %d\r\n" % size in each.content)
    assert taken.content.endswith(content) and " BODY=BINARYMIME" in taken.mail


def test_binary_mail_that_the_next_hop_cannot_take_is_converted(road: Road) -> None:
    content = _send_binary(road.node.port, "a@bare.example", b"nowhere binary")
    taken = road.remotes["bare"].wait_for(lambda each: b"nowhere binary" in each.content)
    assert "BINARYMIME" not in taken.mail and b"\0" not in taken.content
    assert email.message_from_bytes(taken.content).get_payload(decode=True) == content.partition(b"\r\n\r\n")[2]
    with Talk(road.node.port) as client:
        client(f"MAIL FROM:<{_SENDER}> BODY=BINARYMIME", "RCPT TO:<a@bare.example>")
        assert client("DATA").startswith("503 5.5.1")


# ---- REQUIRETLS (RFC 8689)


def test_mail_that_requires_tls_goes_through_two_nodes_under_proved_tls(road: Road, authority: Authority) -> None:
    _send(road.node.port, ["dave@second.example"], "required", mail=("REQUIRETLS",), tls=authority)
    (octets,) = maildir.wait(road.second.maildir("dave@second.example"), of="Subject: required")
    assert octets.count(b" with ESMTPS id ") == 2
    taken_before = len(road.remotes["full"].transactions)
    _send(road.node.port, ["a@full.example"], "required too", mail=("REQUIRETLS",), tls=authority)
    taken = road.remotes["full"].wait_for(lambda each: b"required too" in each.content)
    assert taken.tls and taken.mail.endswith(" REQUIRETLS") and len(road.remotes["full"].transactions) > taken_before


@pytest.mark.parametrize(("domain", "status"), [("tls.example", "5.7.30"), ("bare.example", "5.7.10")])
def test_mail_that_requires_tls_is_returned_where_it_cannot_be_had(
    road: Road, authority: Authority, domain: str, status: str
) -> None:
    subject = f"required at {domain}"
    _send(road.node.port, [f"a@{domain}"], subject, mail=("REQUIRETLS", "RET=FULL"), tls=authority)
    (report,) = dsn.wait(road.node.maildir(_SENDER), subject)
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("failed", status)
    assert report.returned == "text/rfc822-headers"  # §5: RET=FULL is disregarded
    assert "MAIL" not in road.remotes[domain.partition(".")[0]].counts or not [
        each for each in road.remotes[domain.partition(".")[0]].transactions if subject.encode() in each.content
    ]


def test_a_report_on_mail_that_requires_tls_requires_it_where_it_can(road: Road, authority: Authority) -> None:
    """RFC 8689 §5: said to who offers it, and no reason to lose the report where nobody does."""
    for domain, said in (("full.example", " REQUIRETLS"), ("later.example", "")):
        road.remotes["later"].rule = lambda dialog, verb, argument: None
        sender = f"ret@{domain}"
        with smtplib.SMTP("127.0.0.1", road.node.port, timeout=20) as client:
            client.starttls(context=authority.client_context())
            client.sendmail(sender, ["a@bare.example"], f"Subject: back to {domain}\r\n\r\nx\r\n", ["REQUIRETLS"])
        remote = road.remotes[domain.partition(".")[0]]
        marks = (f"back to {domain}".encode(), b"delivery-status")
        taken = remote.wait_for(lambda each, marks=marks: all(mark in each.content for mark in marks))  # type: ignore[misc]
        assert taken.mail.startswith("FROM:<>") and (" REQUIRETLS" in taken.mail) is bool(said)
        assert b"text/rfc822-headers" in taken.content
    road.remotes["later"].rule = _always_later


def test_requiretls_is_not_offered_without_tls(road: Road) -> None:
    with Talk(road.node.port) as client:
        assert client(f"MAIL FROM:<{_SENDER}> REQUIRETLS").startswith("555 5.5.4")


# ---- DELIVERBY (RFC 2852)


def test_the_time_goes_along_and_relaying_is_told(road: Road) -> None:
    _send(road.node.port, ["a@full.example"], "in time", mail=("BY=3600;RT",))
    taken = road.remotes["full"].wait_for(lambda each: b"Subject: in time" in each.content)
    by = next(word for word in taken.mail.split() if word.startswith("BY="))
    seconds, _, mode = by.removeprefix("BY=").partition(";")
    assert 3500 < int(seconds) <= 3600 and mode == "RT"
    (fields,) = road.reports("Subject: in time")
    assert fields["Action"] == "relayed"  # T, though nobody asked to hear of success


def test_a_message_to_be_returned_goes_to_nobody_who_does_not_keep_the_time(road: Road) -> None:
    _send(road.node.port, ["a@bare.example"], "no keeper", mail=("BY=3600;R",))
    (fields,) = road.reports("no keeper")
    assert (fields["Action"], fields["Status"]) == ("failed", "5.3.3")
    _send(road.node.port, ["a@bare.example"], "keeper or not", mail=("BY=3600;N",))
    (fields,) = road.reports("keeper or not")
    assert fields["Action"] == "relayed"
    _send(road.node.port, ["a@full.example"], "too little time", mail=("BY=9;R",))
    (fields,) = road.reports("too little time")
    assert (fields["Action"], fields["Status"]) == ("failed", "5.4.7")


def test_when_the_time_is_over_it_is_returned_or_told(road: Road) -> None:
    began = time.monotonic()
    _send(road.node.port, ["a@later.example"], "return me", mail=("BY=4;R",))
    _send(road.node.port, ["a@later.example"], "tell me", mail=("BY=4;N",))
    (failed,) = road.reports("return me")
    assert (failed["Action"], failed["Status"]) == ("failed", "5.4.7")
    (delayed,) = road.reports("tell me")
    assert (delayed["Action"], delayed["Status"]) == ("delayed", "4.4.7")
    assert time.monotonic() - began >= 3.5
    (report,) = dsn.wait(road.node.maildir(_SENDER), "return me")
    assert "Deliver-By-Date" in report.per_message
    (tried_on,) = road.node.json("queue", "--to", "a@later.example", "--messages")
    assert "tell me" in road.node.command("queue", "show", tried_on["id"])


# ---- FUTURERELEASE (RFC 4865)


def test_what_is_to_be_released_later_waits_in_the_queue(road: Road) -> None:
    _send(road.submission, ["an-hour@full.example"], "much later", mail=("HOLDFOR=3600",))
    (message,) = road.node.json("queue", "--to", "an-hour@full.example", "--messages")
    (waiting,) = message["recipients"]
    assert waiting["state"] == "waiting" and "as the client asked" in waiting["reason"] and waiting["attempts"] == 0
    shown = road.node.command("queue", "show", message["id"])
    assert "HOLDFOR=3600" in shown and "to be released at" in shown
    released_s = time.time() + 6
    _send(road.submission, ["a@full.example"], "later", mail=("HOLDFOR=6",))
    road.node.restart()  # it is kept
    road.remotes["full"].wait_for(lambda each: b"Subject: later" in each.content)
    assert time.time() >= released_s - 1
    with Talk(road.node.port) as client:
        assert client(f"MAIL FROM:<{_SENDER}> HOLDFOR=3").startswith("555 5.5.4")  # submission only


# ---- MT-PRIORITY (RFC 6710, RFC 6758)


def test_the_priority_goes_along_or_through_the_tunnel(road: Road) -> None:
    _send(road.node.port, ["a@full.example", "a@bare.example"], "urgent", mail=("MT-PRIORITY=4",))
    taken = road.remotes["full"].wait_for(lambda each: b"Subject: urgent" in each.content)
    assert taken.mail.endswith(" MT-PRIORITY=4") and not taken.content.startswith(b"MT-Priority")
    assert b"PRIORITY 4;" in taken.content.partition(b"Subject")[0]
    taken = road.remotes["bare"].wait_for(lambda each: b"Subject: urgent" in each.content)
    assert "MT-PRIORITY" not in taken.mail and taken.content.startswith(b"MT-Priority: 4\r\nReceived: ")
    _send(road.node.port, ["a@full.example"], "tunnelled", head=b"MT-Priority: 3\r\n")
    taken = road.remotes["full"].wait_for(lambda each: b"tunnelled" in each.content)
    assert taken.mail.endswith(" MT-PRIORITY=3") and b"MT-Priority" not in taken.content


def test_a_stranger_is_not_urgent(road: Road) -> None:
    with Talk(road.second.port) as client:
        assert client(f"MAIL FROM:<{_SENDER}> MT-PRIORITY=9").startswith("250 2.3.6 0 is the new priority")


# ---- LIMITS (RFC 9422)


def test_the_limits_of_the_next_hop_are_obeyed(road: Road) -> None:
    to = [f"r{number}@limits.example" for number in range(5)]
    _send(road.node.port, to, "within limits")
    taken = road.remotes["limits"].wait(3)
    assert sorted(len(each.rcpt) for each in taken) == [1, 2, 2]
    assert all(sum(line.startswith("MAIL") for line in dialog.lines) <= 1 for dialog in road.remotes["limits"].dialogs)
    with smtplib.SMTP("127.0.0.1", road.node.port, timeout=20) as client:
        client.ehlo("client.test")
        assert client.esmtp_features["limits"] == "RCPTMAX=1000"


def test_a_session_has_no_more_domains_than_the_next_host_takes(road: Road) -> None:
    """RFC 9422 §4.3: the other domain goes by another session, at once, without a failure for anybody."""
    to = ["a@domains.example", "b@others.example", "c@domains.example"]
    _send(road.node.port, to, "two domains")
    remote = road.remotes["domains"]

    def taken() -> list[list[str]]:
        return [each.rcpt for each in list(remote.transactions) if b"two domains" in each.content]

    until(lambda: sum(map(len, taken())) == 3, "all recipients taken", within_s=20)
    sessions = [
        {line.partition("@")[2] for line in dialog.lines if line.startswith("RCPT")} for dialog in remote.dialogs
    ]
    assert [len(domains) for domains in sessions if domains] == [1, 1], sessions
    assert "deferred" not in road.node.command("trace", to[1])


# ---- RRVS (RFC 7293)


def test_a_mailbox_that_has_another_owner_now(road: Road) -> None:
    asked = "RRVS=2014-04-03T23:01:00Z"
    _send(road.node.port, ["old@second.example"], "same owner", rcpt=(asked,))
    assert maildir.wait(road.second.maildir("old@second.example"), of="same owner")
    _send(road.node.port, ["new@second.example"], "other owner", rcpt=(asked,))
    (fields,) = road.reports("other owner")
    assert (fields["Action"], fields["Status"]) == ("failed", "5.7.17") and "550 5.7.17" in fields["Diagnostic-Code"]
    _send(road.node.port, ["dave@second.example"], "other domain", rcpt=("RRVS=1999-04-03T23:01:00Z",))
    (fields,) = road.reports("other domain")
    assert fields["Status"] == "5.7.18"
    head = b"Require-Recipient-Valid-Since: new@second.example; Thu, 3 Apr 2014 23:01:00 +0000\r\n"
    _send(road.second.port, ["new@second.example"], "in the header", head=head)
    road.second.wait_log("5.7.17", 2)
    assert not [each for each in maildir.raw(road.second.maildir("new@second.example")) if b"in the header" in each]


def test_the_question_for_the_owner_goes_along_or_comes_back(road: Road) -> None:
    asked = "RRVS=2014-04-03T23:01:00Z"
    _send(road.node.port, ["a@full.example"], "still ann", rcpt=(asked,))
    taken = road.remotes["full"].wait_for(lambda each: b"still ann" in each.content)
    assert taken.rcpt == (f"TO:<a@full.example> {asked}",)
    _send(road.node.port, ["a@bare.example"], "bob or nobody", rcpt=(f"{asked};R",))
    (fields,) = road.reports("bob or nobody")
    assert fields["Status"] == "5.7.19"
    _send(road.node.port, ["a@bare.example"], "bob if you can", rcpt=(f"{asked};C",))
    taken = road.remotes["bare"].wait_for(lambda each: b"bob if you can" in each.content)
    field = b"Require-Recipient-Valid-Since: a@bare.example;\r\n\tThu, 3 Apr 2014 23:01:00 +0000\r\n"
    assert taken.content.startswith(field)


# ---- SMTPUTF8 with DSN (RFC 6531 to 6533)


def test_original_recipients_in_utf8(road: Road) -> None:
    with Talk(road.node.port) as client:
        client("MAIL FROM:<ü@example.test> SMTPUTF8 RET=HDRS ENVID=a+2Bb",
               "RCPT TO:<ö@full.example> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;ä\\x{2B}x@origin.test",
               "RCPT TO:<a@bare.example> ORCPT=utf-8;j\\x{FC}rgen@origin.test", "DATA")
        client("Subject: utf8 way\r\n\r\nhello\r\n.")
    taken = road.remotes["full"].wait_for(lambda each: b"utf8 way" in each.content)
    assert taken.mail.endswith(" SMTPUTF8 RET=HDRS ENVID=a+2Bb")
    assert taken.rcpt == ("TO:<ö@full.example> NOTIFY=SUCCESS,FAILURE ORCPT=utf-8;ä\\x{2B}x@origin.test",)
    until(lambda: maildir.raw(road.node.maildir("ü@example.test")), "the DSN for the sender in UTF-8")
    octets = maildir.wait(road.node.maildir("ü@example.test"), of="utf8 way")[0]
    assert b"message/global-delivery-status" in octets  # the sender's own address is in UTF-8: so may the report be
    assert "Original-Recipient: utf-8;jürgen@origin.test".encode() in octets and b"Status: 5.6.7" in octets
