"""DSNs, parsed by Python's email package and looked at field by field."""

from __future__ import annotations

import email
import email.message
import email.policy
import itertools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient, Ret
from postroad.mail.event import Accepted, Reported
from postroad.mail.message import ContentFile
from postroad.mail.reply import Reply
from postroad.mail.report import DsnAction, wants
from postroad.mail.trace import date
from postroad.report import dsn as dsn_module
from postroad.report.dsn import Made, Reporter
from postroad.report.options import ReportOptions
from postroad.report.own_mail import LISTENER, LISTENER_POSTMASTER
from postroad.store.content import head
from postroad.store.values import Stored
from tests.unit.report.material import (
    ALICE,
    CONTENT,
    FAILURE,
    ID,
    NOW_US,
    OPTIONS,
    attempt,
    envelope,
    made,
    recipient,
    report,
)

SUCCESS = Attempt(
    Outcome.DELIVERED, Reach.RECIPIENT, "2.1.5", "", None, transport="maildir", started_us=NOW_US
)
DEFERRAL = Attempt(
    Outcome.DEFERRED, Reach.HOP, "4.4.1", "connection refused", None, "mx.example.net", "192.0.2.9", 25,
    started_us=NOW_US,
)  # fmt: skip


class Parsed:
    """A DSN taken apart."""

    def __init__(self, stored: Stored) -> None:
        self.envelope = stored.envelope
        assert isinstance(stored.content, bytes)
        self.octets = stored.content
        check_octets(self.octets)
        policy = email.policy.default.clone(utf8=True) if stored.envelope.smtputf8 else email.policy.default
        self.message = email.message_from_bytes(self.octets, policy=policy)
        assert not self.message.defects
        assert self.message.get_content_type() == "multipart/report"
        assert self.message.get_param("report-type") == "delivery-status"
        parts = list(self.message.iter_parts())
        self.text_part, self.status_part, *rest = parts
        self.returned = rest[0] if rest else None
        assert len(rest) <= 1
        self.text: str = self.text_part.get_content().replace("\r\n", "\n")
        # Parsed from the raw octets: message/delivery-status is a row of header sections.
        groups = re.split(rb"\r\n\r\n", self.raw_part(1).strip(b"\r\n"))
        headers = [email.message_from_bytes(group + b"\r\n\r\n") for group in groups]
        self.per_message, *self.per_recipient = headers

    def raw_part(self, place: int) -> bytes:
        """The octets of a part's body, decoded by hand from the boundary."""
        boundary = self.message.get_boundary()
        assert boundary is not None
        part = self.octets.split(b"\r\n--" + boundary.encode())[1 + place]
        return part.split(b"\r\n\r\n", 1)[1]


def check_octets(octets: bytes) -> None:
    """What no message may break."""
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert b"\0" not in octets
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert octets.endswith(b"\r\n")


def only(result: Made) -> Parsed:
    assert len(result.accepted) == 1
    return Parsed(result.accepted[0])


# Form


def test_a_failure_field_by_field() -> None:
    about = envelope(recipient(orcpt="rfc822;Bob@Example.NET"), envid="QQ314159", ret=Ret.FULL)
    result = made(report(about.recipients[0]), about=about)
    dsn = only(result)
    message = dsn.message
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.org>"  # as it is parsed
    assert message["To"] == "alice@example.org"
    assert message["Subject"] == "Not delivered: bob@example.net"
    assert message["Date"] == "Mon, 21 Sep 2026 15:13:20 +0000"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message["In-Reply-To"] == message["References"] == "<1@example.org>"
    assert message["Content-Transfer-Encoding"] is None
    number = identifier.text(dsn.envelope.id)
    assert message["Message-ID"] == dsn.envelope.message_id == f"<{number}.report@mx.example.org>"
    assert dict(dsn.per_message) == {
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; mx.example.org",
        "Received-From-MTA": "dns; client.example.org ([192.0.2.7])",
        "Arrival-Date": "Mon, 21 Sep 2026 14:13:20 +0000",
        "X-Postroad-Queue-ID": identifier.text(ID),
    }
    assert [dict(each) for each in dsn.per_recipient] == [
        {
            "Original-Recipient": "rfc822;Bob@Example.NET",
            "Final-Recipient": "rfc822; bob@example.net",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.net",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user here",
            "Last-Attempt-Date": "Mon, 21 Sep 2026 14:14:20 +0000",
        }
    ]
    assert dsn.text_part.get_content_type() == "text/plain"
    assert dsn.text_part.get_content_charset() == "utf-8"
    assert dsn.status_part.get_content_type() == "message/delivery-status"
    assert dsn.returned is not None and dsn.returned.get_content_type() == "message/rfc822"
    assert dsn.raw_part(2) == CONTENT


def test_the_order_of_the_fields() -> None:
    """RFC 3464 §2.2 and §2.3 give the fields in an order, the extension fields last."""
    about = envelope(recipient(orcpt="rfc822;bob@example.net"), envid="1")
    dsn = only(made(report(about.recipients[0], DsnAction.DELAYED, DEFERRAL, until_us=NOW_US), about=about))
    assert dsn.per_message.keys() == [
        "Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date", "X-Postroad-Queue-ID",
    ]  # fmt: skip
    assert dsn.per_recipient[0].keys() == [
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date", "Will-Retry-Until",
    ]  # fmt: skip


def test_its_envelope() -> None:
    """RFC 3461 §6.1: null reverse-path, NOTIFY=NEVER, no RET; the reverse-path as the only recipient."""
    result = made(report(), about=envelope(ret=Ret.FULL, envid="x"))
    made_envelope = result.accepted[0].envelope
    assert made_envelope.reverse_path is None
    assert made_envelope.recipients == (Recipient(ALICE, Notify.NEVER),)
    assert made_envelope.ret is Ret.UNSET and made_envelope.envid == ""
    assert made_envelope.parent == ID
    assert made_envelope.accepted_us == NOW_US + 3_600_000_000
    assert made_envelope.size == len(result.accepted[0].content)  # type: ignore[arg-type]
    assert made_envelope.body is Body.SEVEN_BIT and not made_envelope.smtputf8
    assert made_envelope.peer == Peer(listener=LISTENER)
    reported, accepted = result.events
    assert reported == Reported(NOW_US + 3_600_000_000, ID, ("bob@example.net",), "failed", made_envelope.id)
    assert isinstance(accepted, Accepted)
    assert (accepted.id, accepted.reverse_path, accepted.recipients, accepted.parent) == (
        made_envelope.id, "", ("alice@example.org",), ID,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "of", "words"),
    [
        (DsnAction.FAILED, FAILURE, "could not be delivered"),
        (DsnAction.DELAYED, DEFERRAL, "not yet been delivered"),
        (DsnAction.DELIVERED, SUCCESS, "was delivered"),
        (DsnAction.RELAYED, attempt(outcome=Outcome.RELAYED, status="2.0.0", reply=Reply(250, "", ("ok",))), "handed"),
        (DsnAction.EXPANDED, attempt(outcome=Outcome.DELIVERED, status="2.0.0", reply=None, remote_name="",
                                  remote_address=""), "passed on"),
    ],
)  # fmt: skip
def test_each_action(action: DsnAction, of: Attempt, words: str) -> None:
    to = recipient(notify=Notify.SUCCESS | Notify.FAILURE | Notify.DELAY)
    dsn = only(made(report(to, action, of, until_us=NOW_US + 10**12, into_count=7), about=envelope(to, ret=Ret.FULL)))
    fields = dsn.per_recipient[0]
    assert fields["Action"] == action.value
    assert fields["Status"] == of.status
    assert words in dsn.text.replace("\n", " ")
    assert ("Will-Retry-Until" in fields) is (action is DsnAction.DELAYED)
    assert dsn.returned is not None
    # RFC 3461 §6.2: only the headers where nothing failed, whatever RET says.
    kind = "message/rfc822" if action is DsnAction.FAILED else "text/rfc822-headers"
    assert dsn.returned.get_content_type() == kind
    if action is not DsnAction.FAILED:
        assert dsn.raw_part(2) == CONTENT[: CONTENT.index(b"\r\n\r\n") + 2]


# Whether


def _asked(notify: Notify, action: DsnAction) -> bool:
    """RFC 3461 §4.1 and §5.2.2 to §5.2.6 again, written in another way."""
    if notify == Notify.UNSET:
        return action in (DsnAction.FAILED, DsnAction.DELAYED)
    if notify & Notify.NEVER:
        return False
    needed = {DsnAction.FAILED: Notify.FAILURE, DsnAction.DELAYED: Notify.DELAY}.get(action, Notify.SUCCESS)
    return (notify & needed) == needed


NOTIFIES = [Notify(number) for number in range(16)]


@pytest.mark.parametrize(("notify", "action"), list(itertools.product(NOTIFIES, DsnAction)))
def test_every_notify_with_every_action(notify: Notify, action: DsnAction) -> None:
    to = recipient(notify=notify)
    result = made(report(to, action), about=envelope(to))
    assert bool(result.accepted) is _asked(notify, action) is wants(notify, action)
    if action is DsnAction.FAILED and not result.accepted:
        assert result.events == (
            Reported(NOW_US + 3_600_000_000, ID, ("bob@example.net",), "failed", 0, "the sender asked not to be told"),
        )
    elif not result.accepted:
        assert result.events == ()


@pytest.mark.parametrize("action", [DsnAction.RELAYED, DsnAction.DELIVERED])
def test_the_next_mta_reports_success_itself(action: DsnAction) -> None:
    """RFC 3461 §5.2.1: it has taken NOTIFY with the message."""
    to = recipient(notify=Notify.SUCCESS)
    passed = attempt(outcome=Outcome.RELAYED, status="2.0.0", dsn_passed=True)
    assert made(report(to, action, passed)) == Made()
    assert made(report(to, action, msgspec.structs.replace(passed, dsn_passed=False))).accepted


def test_a_failure_is_told_even_where_the_next_mta_knows_dsn() -> None:
    assert made(report(attempt=attempt(dsn_passed=True))).accepted


@pytest.mark.parametrize("notify", NOTIFIES)
@pytest.mark.parametrize("action", DsnAction)
def test_never_a_dsn_to_the_null_reverse_path(notify: Notify, action: DsnAction) -> None:
    """RFC 5321 §6.1, RFC 3461 §5.2."""
    to = recipient(notify=notify)
    result = made(report(to, action), about=envelope(to, reverse_path=None))
    assert result.accepted == ()
    if action is DsnAction.FAILED:
        (event,) = result.events
        assert isinstance(event, Reported) and event.report == 0 and "no return address" in event.text
    else:
        assert result.events == ()


POSTMASTER = msgspec.structs.replace(OPTIONS, postmaster="postmaster@example.org")


def test_a_double_failure_goes_to_the_postmaster() -> None:
    to = recipient(notify=Notify.NEVER)
    about = envelope(to, reverse_path=None, peer=Peer(listener=LISTENER))
    dsn = only(made(report(to), about=about, options=POSTMASTER))
    assert dsn.message["To"] == "postmaster@example.org"
    assert dsn.envelope.recipients[0].address == Address("postmaster", "example.org")
    assert dsn.envelope.reverse_path is None
    assert dsn.envelope.peer.listener == LISTENER_POSTMASTER
    assert "postmaster" in dsn.text and "without a return address" in dsn.text.replace("\n", " ")
    # And when that one fails in turn, that is the end, however the postmaster's mail is routed.
    again = made(report(dsn.envelope.recipients[0]), about=dsn.envelope, options=POSTMASTER)
    other = made(report(recipient("p@other.example")), about=dsn.envelope, options=POSTMASTER)
    for result in (again, other):
        assert result.accepted == ()
        (event,) = result.events
        assert isinstance(event, Reported) and event.report == 0 and "postmaster" in event.text


def test_what_cannot_reach_the_postmaster_is_not_reported_to_him() -> None:
    aliased = recipient("p@elsewhere.example", given=Address("postmaster", "example.org"))
    for to in (recipient("postmaster@example.org"), aliased):
        assert made(report(to), about=envelope(to, reverse_path=None), options=POSTMASTER).accepted == ()


def test_one_dsn_for_each_action_with_all_its_recipients() -> None:
    """RFC 3461 §5.2.8: and none names a recipient for whom none would be made."""
    everyone = [
        recipient("a@example.net"),
        recipient("b@example.net"),
        recipient("c@example.net", notify=Notify.NEVER),
        recipient("d@example.net", notify=Notify.SUCCESS),
        recipient("e@example.net"),
    ]
    result = made(
        report(everyone[0]), report(everyone[1]), report(everyone[2]),
        report(everyone[3], DsnAction.DELIVERED, SUCCESS), report(everyone[4], DsnAction.DELAYED, DEFERRAL),
    )  # fmt: skip
    dsns = {each.per_recipient[0]["Action"]: each for each in map(Parsed, result.accepted)}
    named = {action: [each["Final-Recipient"] for each in dsn.per_recipient] for action, dsn in dsns.items()}
    assert named == {
        "failed": ["rfc822; a@example.net", "rfc822; b@example.net"],
        "delivered": ["rfc822; d@example.net"],
        "delayed": ["rfc822; e@example.net"],
    }
    assert len({dsn.envelope.id for dsn in dsns.values()}) == 3
    # They share a commit with what they report on, so they share its shard.
    assert {identifier.shard_of(dsn.envelope.id) for dsn in dsns.values()} == {3}
    assert dsns["failed"].message["Subject"] == "Not delivered: 2 recipients"
    assert not any(b"c@example.net" in dsn.octets for dsn in dsns.values())


# What is returned


BIG = CONTENT + b"x" * 76 + b"\r\n"


@pytest.mark.parametrize(
    ("ret", "size", "full_max", "asked_max", "whole"),
    [
        (Ret.UNSET, len(CONTENT), 10_000, 20_000, True),
        (Ret.UNSET, len(CONTENT), len(CONTENT), 20_000, True),
        (Ret.UNSET, len(CONTENT), len(CONTENT) - 1, 20_000, False),
        (Ret.FULL, len(CONTENT), 0, len(CONTENT), True),
        (Ret.FULL, len(CONTENT), 0, len(CONTENT) - 1, False),
        (Ret.HDRS, len(CONTENT), 10_000, 20_000, False),
    ],
)
def test_how_much_of_the_message(ret: Ret, size: int, full_max: int, asked_max: int, whole: bool) -> None:
    options = msgspec.structs.replace(OPTIONS, full_max=full_max, full_asked_max=asked_max)
    dsn = only(made(report(), about=envelope(ret=ret), options=options))
    assert dsn.returned is not None
    assert dsn.returned.get_content_type() == ("message/rfc822" if whole else "text/rfc822-headers")
    assert dsn.raw_part(2) == (CONTENT if whole else CONTENT[: CONTENT.index(b"\r\n\r\n") + 2])


@pytest.mark.parametrize("ret", Ret)
@pytest.mark.parametrize("action", DsnAction)
def test_ret_with_every_action(ret: Ret, action: DsnAction) -> None:
    to = recipient(notify=Notify.SUCCESS | Notify.FAILURE | Notify.DELAY)
    dsn = only(made(report(to, action), about=envelope(to, ret=ret)))
    assert dsn.returned is not None
    whole = action is DsnAction.FAILED and ret is not Ret.HDRS
    assert dsn.returned.get_content_type() == ("message/rfc822" if whole else "text/rfc822-headers")


def test_content_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(BIG)
    file = ContentFile(str(path), len(BIG))
    asked: list[int] = []

    def read(about: Envelope, which: ContentFile, limit: int) -> bytes:
        asked.append(limit)
        return head(about, which, limit)

    dsn = only(made(report(), content=file, read=read))
    assert dsn.raw_part(2) == BIG
    options = msgspec.structs.replace(OPTIONS, full_max=10)
    dsn = only(made(report(), content=file, options=options, read=read))
    assert dsn.raw_part(2) == BIG[: BIG.index(b"\r\n\r\n") + 2]
    assert asked == [len(BIG), 262_144]


def test_fields_that_stand_in_the_envelope_are_returned_as_well(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(BIG)
    file, prefix = ContentFile(str(path), len(BIG)), b"Received: from x\r\n\tby y\r\n"
    about = envelope(prefix=prefix)
    assert only(made(report(), about=about, content=file, read=head)).raw_part(2) == prefix + BIG
    options = msgspec.structs.replace(OPTIONS, full_max=len(BIG))  # the message is larger by its prefix
    returned = only(made(report(), about=about, content=file, options=options, read=head)).raw_part(2)
    assert returned == prefix + BIG[: BIG.index(b"\r\n\r\n") + 2]


def test_content_that_is_gone() -> None:
    def read(_: Envelope, __: ContentFile, ___: int) -> bytes:
        raise FileNotFoundError

    for content in (None, ContentFile("/nowhere", 10)):
        dsn = only(made(report(), content=content, read=read))
        assert dsn.returned is None and dsn.per_recipient[0]["Action"] == "failed"


def test_a_huge_header_section_is_cut_at_a_line() -> None:
    content = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 60) for number in range(2000)) + b"\r\nbody\r\n"
    options = msgspec.structs.replace(OPTIONS, header_max=1000)
    returned = only(made(report(), about=envelope(ret=Ret.HDRS), content=content, options=options)).raw_part(2)
    assert returned.endswith(b"y\r\n") and 900 < len(returned) <= 1000
    assert content.startswith(returned)


def test_requiretls_goes_on_and_returns_headers_only() -> None:
    """RFC 8689 §5."""
    about = envelope(ret=Ret.FULL, parameters=(("REQUIRETLS", ""), ("MT-PRIORITY", "3"), ("BY", "10;R")))
    dsn = only(made(report(), about=about))
    assert dsn.envelope.parameters == (("REQUIRETLS", ""), ("MT-PRIORITY", "3"))  # as urgent as what it reports on
    assert dsn.returned is not None and dsn.returned.get_content_type() == "text/rfc822-headers"


EIGHT = "Subject: Grüße\r\n\r\nHällo\r\n".encode()
LATIN = b"Subject: Gr\xfc\xdfe\r\n\r\nH\xe4llo\r\n"
BODY = b"Subject: Hello\r\n\r\nH\xe4llo\r\n"
LONG = b"Subject: Hello\r\n\r\n" + b"x" * 999 + b"\r\n"
LONG_OK = b"Subject: Hello\r\n\r\n" + b"x" * 998 + b"\r\n"
LONG_FIELD = b"Subject: " + b"x" * 1200 + b"\r\n\r\nbody\r\n"
NUL = b"Subject: Hello\r\n\r\nbo\0dy\r\n"
BINARY = b"Subject: Hello\r\n\r\nbo\rdy\n"
UTF8_PATH = Address("älice", "example.org")


@pytest.mark.parametrize(
    ("content", "changes", "kind", "encoding", "eight_bit"),
    [
        (CONTENT, {}, "message/rfc822", None, False),
        (BODY, {"body": Body.EIGHT_BIT_MIME, "ret": Ret.HDRS}, "text/rfc822-headers", None, False),
        (LATIN, {"body": Body.EIGHT_BIT_MIME, "ret": Ret.HDRS}, "text/rfc822-headers", "quoted-printable", False),
        (LONG_OK, {}, "message/rfc822", None, False),
        (LONG, {}, "text/rfc822-headers", None, False),
        (LONG_FIELD, {}, "text/rfc822-headers", "quoted-printable", False),
        # SMTPUTF8, an ASCII reverse-path: everything has to pass a way back that may not know it (RFC 6533 §4.5)
        (EIGHT, {"smtputf8": True}, "message/global", "quoted-printable", False),
        (EIGHT, {"smtputf8": True, "ret": Ret.HDRS}, "message/global-headers", "quoted-printable", False),
        (CONTENT, {"smtputf8": True}, "message/rfc822", None, False),
        # SMTPUTF8, a UTF-8 reverse-path: the way back must know it
        (EIGHT, {"smtputf8": True, "reverse_path": UTF8_PATH}, "message/global", "8bit", True),
        (EIGHT, {"smtputf8": True, "reverse_path": UTF8_PATH, "ret": Ret.HDRS}, "message/global-headers", "8bit", True),
        (CONTENT, {"smtputf8": True, "reverse_path": UTF8_PATH}, "message/rfc822", None, False),
    ],
)
def test_the_returned_part_and_its_encoding(
    content: bytes, changes: dict[str, Any], kind: str, encoding: str | None, eight_bit: bool
) -> None:
    result = made(report(), about=envelope(**changes), content=content)
    dsn = only(result)
    assert dsn.returned is not None
    assert dsn.returned.get_content_type() == kind
    assert dsn.returned["Content-Transfer-Encoding"] == encoding
    assert dsn.message["Content-Transfer-Encoding"] == ("8bit" if eight_bit else None)
    utf8 = changes.get("reverse_path") is UTF8_PATH
    assert dsn.envelope.smtputf8 is utf8
    assert dsn.envelope.body is (Body.EIGHT_BIT_MIME if eight_bit or utf8 else Body.SEVEN_BIT)
    if dsn.envelope.body is Body.SEVEN_BIT:
        assert dsn.octets.isascii()
    returned = dsn.raw_part(2)
    if encoding == "quoted-printable":
        import quopri

        returned = quopri.decodestring(returned)
    expected = content if kind in ("message/rfc822", "message/global") else content[: content.index(b"\r\n\r\n") + 2]
    assert returned == expected


PARTS = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    b"--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"H\xc3\xa4llo\r\n--x--\r\n"
)


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (BODY, Body.EIGHT_BIT_MIME), (LATIN, Body.EIGHT_BIT_MIME), (PARTS, Body.EIGHT_BIT_MIME),
        (NUL, Body.SEVEN_BIT), (BINARY, Body.BINARY_MIME),
    ],
)  # fmt: skip
@pytest.mark.parametrize("smtputf8", [False, True])
def test_what_is_returned_whole_is_seven_bit(content: bytes, body: Body, smtputf8: bool) -> None:
    """A report about 8-bit mail could not go to hosts without 8BITMIME; RFC 2046 §5.2.1 lets only the parts change."""
    if smtputf8 and content is LATIN:
        return
    dsn = only(made(report(), about=envelope(body=body, smtputf8=smtputf8), content=content))
    assert dsn.octets.isascii() and dsn.envelope.body is Body.SEVEN_BIT
    assert dsn.message["Content-Transfer-Encoding"] is None
    assert dsn.returned is not None and dsn.returned.get_content_type() == "message/rfc822"
    (inner,) = dsn.returned.get_payload()
    leaf = next(part for part in inner.walk() if not part.is_multipart())
    sent = content.partition(b"\r\n\r\n")[2]
    assert leaf.get_payload(decode=True).rstrip() == (b"H\xc3\xa4llo" if content is PARTS else sent.rstrip())


def test_recipients_in_utf8_are_named_to_programs_that_read_reports() -> None:
    """flufl.bounce knows the type rfc822 only; RFC 6533 has utf-8 for such recipients."""
    bob, ann = recipient("bøb@example.net"), recipient("ann@example.net")
    one = only(made(report(bob), about=envelope(bob, smtputf8=True)))
    assert one.message["X-Failed-Recipients"] == "b\\x{F8}b@example.net"
    assert _bounced(one) == {b"b\\x{F8}b@example.net"}
    plain = only(made(report(ann), about=envelope(ann)))
    assert plain.message["X-Failed-Recipients"] is None and _bounced(plain) == {b"ann@example.net"}


def _bounced(dsn: Any) -> set[bytes]:
    scan = pytest.importorskip("flufl.bounce", reason="flufl.bounce is not installed").scan_message
    return set(scan(email.message_from_bytes(dsn.octets)))


def test_utf8_addresses() -> None:
    """RFC 6533 §3: 7-bit forms in message/delivery-status, the address itself in message/global-delivery-status."""
    to = recipient("bøb@example.net", orcpt="utf-8;b\\x{F8}b@example.net")
    refused = attempt(reply=Reply(550, "5.1.1", ("kein Empfänger",)))
    dsn = only(made(report(to, attempt=refused), about=envelope(to, smtputf8=True)))
    assert dsn.status_part.get_content_type() == "message/delivery-status"
    assert dsn.raw_part(1).isascii()
    fields = dsn.per_recipient[0]
    assert fields["Final-Recipient"] == "utf-8; b\\x{F8}b@example.net"
    assert fields["Original-Recipient"] == "utf-8;b\\x{F8}b@example.net"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 kein Empf\\x{E4}nger"
    assert "bøb@example.net" in dsn.text and "Empfänger" in dsn.text
    dsn = only(made(report(to, attempt=refused), about=envelope(to, smtputf8=True, reverse_path=UTF8_PATH)))
    status = dsn.raw_part(1).decode()
    assert dsn.status_part.get_content_type() == "message/global-delivery-status"
    assert dsn.status_part["Content-Transfer-Encoding"] == "8bit"
    assert "Final-Recipient: utf-8; bøb@example.net\r\n" in status
    assert "Original-Recipient: utf-8;bøb@example.net\r\n" in status
    assert "Diagnostic-Code: smtp; 550 5.1.1 kein Empfänger\r\n" in status
    assert b"To: \xc3\xa4lice@example.org\r\n" in dsn.octets
    assert dsn.message["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize(
    ("orcpt", "seven", "eight"),
    [
        ("rfc822;a@b", "rfc822;a@b", "rfc822;a@b"),
        ("utf-8;ä@b", "utf-8;\\x{E4}@b", "utf-8;ä@b"),
        ("utf-8;a\\x{20}b@c", "utf-8;a\\x{20}b@c", "utf-8;a b@c"),
        ("utf-8;a\\x{D800}@c", "utf-8;a\\x{5C}x{D800}@c", "utf-8;a\\x{D800}@c"),
        ("utf-8;a\\x{zz}@c", "utf-8;a\\x{5C}x{zz}@c", "utf-8;a\\x{zz}@c"),
        ("utf-8;a\\x{0D}\\x{0A}X: y@c", "utf-8;a\\x{20}\\x{20}X:\\x{20}y@c", "utf-8;a  X: y@c"),
        ("x400;/G=Bob/", "x400;/G=Bob/", "x400;/G=Bob/"),
        ("bob", "unknown; bob", "unknown; bob"),
    ],
)
def test_original_recipients(orcpt: str, seven: str, eight: str) -> None:
    to = recipient(orcpt=orcpt)
    for path, expected in ((ALICE, seven), (UTF8_PATH, eight)):
        dsn = only(made(report(to), about=envelope(to, smtputf8=True, reverse_path=path)))
        assert f"Original-Recipient: {expected}\r\n" in dsn.raw_part(1).decode()


def test_what_the_sender_named_is_reported_not_what_an_alias_made_of_it() -> None:
    """RFC 3464 §2.3.2, §4.2."""
    to = recipient("secret@hidden.example", given=Address("info", "example.org"))
    dsn = only(made(report(to)))
    assert dsn.per_recipient[0]["Final-Recipient"] == "rfc822; info@example.org"
    assert b"hidden" not in dsn.octets


# Fields


@pytest.mark.parametrize(
    ("of", "remote", "diagnostic"),
    [
        (FAILURE, "dns; mx.example.net", "smtp; 550 5.1.1 no such user here"),
        (attempt(reply=Reply(554, "", ("go away",))), "dns; mx.example.net", "smtp; 554 go away"),
        (
            attempt(reply=Reply(550, "5.7.1", ("first", "second"))),
            "dns; mx.example.net",
            "smtp; 550-5.7.1 first 550 5.7.1 second",
        ),
        (attempt(remote_name=""), "dns; [192.0.2.9]", "smtp; 550 5.1.1 no such user here"),
        (
            attempt(remote_name="", remote_address="2001:db8::1"),
            "dns; [IPv6:2001:db8::1]",
            "smtp; 550 5.1.1 no such user here",
        ),
        (attempt(remote_name="/run/lmtp", remote_address="/run/lmtp"), None, "smtp; 550 5.1.1 no such user here"),
        (attempt(reply=None, text="connection refused"), "dns; mx.example.net", "x-postroad; connection refused"),
        (attempt(reply=None, text="", remote_name="", remote_address=""), None, None),
    ],
)
def test_remote_and_diagnostic(of: Attempt, remote: str | None, diagnostic: str | None) -> None:
    fields = only(made(report(attempt=of))).per_recipient[0]
    assert fields["Remote-MTA"] == remote
    assert fields["Diagnostic-Code"] == diagnostic


def test_fields_that_are_there_only_if_their_fact_is() -> None:
    """RFC 3461 §6.3 (a), (d); RFC 3464 §2.3.7, §2.3.9."""
    dsn = only(made(report(attempt=attempt(started_us=0), until_us=NOW_US), about=envelope(peer=Peer(), message_id="")))
    assert "Original-Envelope-Id" not in dsn.per_message and "Received-From-MTA" not in dsn.per_message
    assert "Original-Recipient" not in dsn.per_recipient[0]
    assert "Last-Attempt-Date" not in dsn.per_recipient[0] and "Will-Retry-Until" not in dsn.per_recipient[0]
    assert dsn.message["In-Reply-To"] is None and dsn.message["References"] is None


def test_a_host_without_a_full_name_is_no_dns_name() -> None:
    """RFC 3461 §6.3 (b)."""
    dsn = only(made(report(), options=ReportOptions(hostname="laptop")))
    assert dsn.per_message["Reporting-MTA"] == "x-local-hostname; laptop"


@pytest.mark.parametrize(("status", "printed"), [("", "5.0.0"), ("5.1.1\r\nX: y", "5.0.0"), ("5.7.509", "5.7.509")])
def test_a_status_is_a_status(status: str, printed: str) -> None:
    assert only(made(report(attempt=attempt(status=status)))).per_recipient[0]["Status"] == printed


def test_ipv6_client() -> None:
    dsn = only(made(report(), about=envelope(peer=Peer("2001:db8::2", 1, "[IPv6:2001:db8::2]", "ESMTP"))))
    assert dsn.per_message["Received-From-MTA"] == "dns; [IPv6:2001:db8::2] ([IPv6:2001:db8::2])"


# Text


def test_the_text_says_what_happened_to_whom_what_was_said_and_what_to_do() -> None:
    text = only(made(report())).text
    for expected in (
        "This is the mail system at mx.example.org.",
        "<bob@example.net>",
        "This mailbox does not exist.",
        "mx.example.net answered: 550 5.1.1 no such user here",
        "What you can do: Check the address",
        "Subject: Hello",
        "postmaster@mx.example.org",
        identifier.text(ID),
    ):
        assert expected in text, expected
    assert max(map(len, text.splitlines())) <= 78


def test_an_expired_message_says_so() -> None:
    days = 5 * 86_400_000_000
    expired = report(attempt=attempt(status="4.4.1", reply=None, text="connection refused"), expired=True)
    text = " ".join(only(made(expired, now_us=NOW_US + days)).text.split())
    assert "It was tried for 5 days, then given up." in text
    assert "could not be reached" in text and "connection refused" in text


def test_a_subject_in_encoded_words_is_readable() -> None:
    content = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?utf-8?B?IGF1cyBVbG0=?=\r\n\r\n"
    assert "Subject: Grüße aus Ulm" in only(made(report(), content=content)).text


def test_the_same_reason_is_told_once() -> None:
    everyone = [recipient(f"user{number}@example.net") for number in range(1000)]
    dsn = only(made(*[report(each) for each in everyone], about=envelope(*everyone)))
    assert [each["Final-Recipient"] for each in dsn.per_recipient] == [
        f"rfc822; user{number}@example.net" for number in range(1000)
    ]
    assert dsn.text.count("This mailbox does not exist.") == 1
    assert all(f"<user{number}@example.net>" in dsn.text for number in range(1000))
    assert "the 1000 recipients below" in dsn.text.replace("\n", " ")


# Hostile


HOSTILE = [
    "a\r\nBcc: evil@example.com",
    "a\nX: y",
    "a\rX: y",
    "a\r\n\r\nbody",
    "a\0b",
    "\x1b[31mred\x1b[0m",
    "\x85next",
    "\u2028line",
    "\u202eoverride",
    "ünïcödé",
    "x" * 5000,
    "word " * 1000,
    " " * 2000 + "x",
    "x" * 990 + " " + "y" * 990,
    "ü" * 3000,
    "(comment\\",
    '"quoted',
    "=?utf-8?Q?=0D=0AX:_y?=",
    "--report/",
    "\ud800",
    "",
]


def _hostile(text: str) -> tuple[Envelope, Recipient, Attempt]:
    to = Recipient(Address(text or "x", "example.net"), orcpt=f"rfc822;{text}")
    about = envelope(
        to,
        reverse_path=Address(text or "x", "example.org"),
        envid=text,
        message_id=f"<{text}@x>",
        peer=Peer(text or "x", 1, text, text, text, text, text),
        smtputf8=not text.isascii(),
    )
    of = Attempt(Outcome.FAILED, Reach.HOP, "5.0.0", text, Reply(550, "5.0.0", (text, text)), text, text)
    return about, to, of


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("with_reply", [True, False])
@pytest.mark.parametrize("action", [DsnAction.FAILED, DsnAction.DELAYED])
def test_nothing_can_be_injected(text: str, with_reply: bool, action: DsnAction) -> None:
    about, to, of = _hostile(text)
    if not with_reply:
        of = msgspec.structs.replace(of, reply=None)
    safe = text.encode("utf-8", "replace")
    content = b"Subject: " + re.sub(rb"[\r\n\0]", b"", safe) + b"\r\nDate: x\r\n\r\n"
    dsn = only(made(report(to, action, of), about=about, content=content))
    allowed = {
        "from", "to", "subject", "date", "message-id", "in-reply-to", "references", "auto-submitted", "mime-version",
        "content-type", "content-transfer-encoding",
    }  # fmt: skip
    names = [name.lower() for name in dsn.message.keys()]  # noqa: SIM118
    assert len(names) == len(set(names)) and set(names) <= allowed
    assert set(dsn.per_message.keys()) <= {
        "Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date", "X-Postroad-Queue-ID",
    }  # fmt: skip
    (fields,) = dsn.per_recipient
    assert set(fields.keys()) <= {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date",
    }  # fmt: skip
    status = dsn.raw_part(1)
    assert status.decode().replace("\r\n", "").isprintable()
    if not dsn.envelope.smtputf8:
        assert status.isascii()
    assert not any(char not in "\n" and not char.isprintable() for char in dsn.text)
    assert not any(line.strip() == b"" and line != b"" for line in status.split(b"\r\n"))


def test_content_that_knows_the_boundary() -> None:
    plain = only(made(report()))
    boundary = plain.message.get_boundary()
    assert boundary is not None
    content = CONTENT + b"\r\n--" + boundary.encode() + b"--\r\n--" + boundary.encode() + b"/1\r\n"
    dsn = only(made(report(), content=content))
    assert dsn.message.get_boundary() not in (boundary, f"{boundary}/1")
    assert dsn.raw_part(2) == content


def test_content_without_a_line_end_or_a_body() -> None:
    for content in (b"", b"Subject: x", b"\r\nbody", b"Subject: x\r\n"):
        assert only(made(report(), content=content)).per_recipient[0]["Action"] == "failed"


# The reporter


def test_the_reporter_tells_expired_delayed_and_ended_apart() -> None:
    ids = iter(range(ID + 1024, ID + 10**6, 1024))
    reporter = Reporter(OPTIONS, lambda: NOW_US + 7_200_000_000, lambda shard: next(ids))
    about = envelope()
    stored, events = reporter(about, [(0, DEFERRAL)], delayed=True, content=CONTENT, until_us=NOW_US + 10**12)
    (fields,) = Parsed(stored[0]).per_recipient
    assert fields["Action"] == "delayed" and fields["Will-Retry-Until"] == "Sat, 3 Oct 2026 04:00:00 +0000"
    assert [type(event) for event in events] == [Reported, Accepted]
    expired = msgspec.structs.replace(DEFERRAL, outcome=Outcome.FAILED)
    stored, _ = reporter(about, [(0, expired)], delayed=False, content=CONTENT, until_us=0)
    dsn = Parsed(stored[0])
    assert (dsn.per_recipient[0]["Action"], dsn.per_recipient[0]["Status"]) == ("failed", "4.4.1")
    assert "It was tried for 2 hours, then given up." in " ".join(dsn.text.split())
    assert reporter(about, [(0, SUCCESS)], delayed=False, content=CONTENT, until_us=0) == ((), ())


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        (("BY", "120;R"), f"Deliver-By-Date: {date(NOW_US // 1_000_000 + 120)}"),
        (("HOLDFOR", "3600"), "Future-Release-Request: for;3600"),
        (("HOLDUNTIL", "2027-01-01T00:00:00Z"), "Future-Release-Request: until;2027-01-01T00:00:00Z"),
    ],
)
def test_what_was_asked_of_the_time(parameter: tuple[str, str], line: str) -> None:
    """RFC 2852, RFC 4865: in the per-message fields."""
    dsn = only(made(report(), about=envelope(parameters=(parameter,))))
    assert line in dsn.octets.decode().split("\r\n")


@pytest.mark.parametrize(
    ("notify", "passed", "count"), [(Notify.UNSET, True, 1), (Notify.FAILURE, True, 1), (Notify.NEVER, True, 0)]
)
def test_the_reporter_tells_of_relaying_where_the_time_is_traced(notify: Notify, passed: bool, count: int) -> None:
    """RFC 2852, though the next MTA knows DSN and nobody asked to hear of success."""
    about = envelope(recipient(notify=notify), parameters=(("BY", "120;RT"),))
    relayed = attempt(outcome=Outcome.RELAYED, status="2.0.0", dsn_passed=True, by_passed=passed)
    reporter = Reporter(OPTIONS, lambda: NOW_US, lambda shard: ID + 1)
    stored, _ = reporter(about, [(0, relayed)], delayed=False, content=CONTENT, until_us=0)
    assert len(stored) == count
    assert all(b"Action: relayed" in bytes(each.content) for each in stored)  # type: ignore[arg-type]


def test_reports_to_strangers_that_are_too_many_are_not_made_and_the_history_says_so() -> None:
    asked: list[str] = []

    def refusal(to: Address, now_us: int) -> str:
        asked.append(str(to))
        return "more than 3 reports to this address"

    for peer, told in ((Peer(address="192.0.2.1"), False), (Peer(identity="ann"), True), (Peer(trusted=True), True)):
        result = dsn_module.make(
            [report()], envelope(peer=peer), CONTENT, OPTIONS, now_us=1, new_id=lambda shard: 9, read=head,
            refusal=refusal,
        )  # fmt: skip
        assert bool(result.accepted) is told
        said = [event for event in result.events if isinstance(event, Reported)]
        assert [(event.report > 0, event.action) for event in said] == [(told, "failed")]
        assert told or "more than 3" in said[0].text
    assert asked == ["alice@example.org"], "only strangers are counted"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/var/mail/archive: the disk is full", "the disk is full"),
        ("the program could not be started: /usr/local/bin/secret: Permission denied",
         "the program could not be started: Permission denied"),
        ("the program ended with 1: a/b: /c", "the program ended with 1: a/b: /c"),
        ("the mailbox is locked: the file /var/mail/ada.lock (pid 7)", "the mailbox is locked: a lock file (pid 7)"),
    ],
)  # fmt: skip
def test_paths_of_mailboxes_and_programs_are_nobodys_business(text: str, told: str) -> None:
    of = Attempt(Outcome.FAILED, Reach.RECIPIENT, "4.3.0", text, transport="program")
    dsn = only(made(report(attempt=of)))
    assert " ".join(dsn.per_recipient[0]["Diagnostic-Code"].split()) == f"x-postroad; {told}"
    assert b"/usr/local" not in dsn.octets and b"/var/mail" not in dsn.octets
