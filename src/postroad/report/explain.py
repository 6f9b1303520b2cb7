"""The part of a DSN that people read: what happened, to whom, what the remote said, what to do next. Pure.

What always holds: no line that others supplied can look like one of ours at the left margin (recipients and replies are
indented), and no control octet is in it (`report.text`). Recipients with the same text share one paragraph, so that the
report about a mailing stays readable.
"""

from __future__ import annotations

import msgspec

from postroad.mail import identifier, trace
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope
from postroad.mail.message import first
from postroad.mail.numbers import counted
from postroad.mail.report import DsnAction, RecipientReport
from postroad.report.encoded_word import decode
from postroad.report.options import ReportOptions
from postroad.report.remedy import Advice, advice
from postroad.report.text import clean, shorten, without_places, wrapped

_REPLY_MAX = 1_000  # characters of a reply in the text; the delivery status holds more
_SUBJECT_MAX = 200


class ReportFacts(msgspec.Struct, frozen=True):
    """All that the text speaks of. `head`: the original's header section. `to_postmaster`: instead of the sender."""

    action: DsnAction
    reports: list[RecipientReport]
    envelope: Envelope
    options: ReportOptions
    head: bytes
    now_us: int
    to_postmaster: bool


def subject(facts: ReportFacts) -> str:
    """The Subject of the DSN, in ASCII: with the recipient if it is one and short."""
    outcome = _SUBJECTS[facts.action]
    if len(facts.reports) == 1:
        recipient = _named(facts.reports[0])
        if recipient.is_ascii and len(str(recipient)) <= 80:
            return f"{outcome}: {clean(str(recipient))}"
        return f"{outcome}: 1 recipient"
    return f"{outcome}: {len(facts.reports)} recipients"


def explanation(facts: ReportFacts) -> list[str]:
    """The lines of the text, without line ends."""
    contact = facts.options.contact or f"postmaster@{facts.options.hostname}"
    lines = [f"This is the mail system at {facts.options.hostname}.", ""]
    lines += wrapped(_headline(facts), "")
    for paragraph, addresses in _paragraphs(facts).items():
        lines.append("")
        lines += [f"  <{address}>" for address in addresses]
        lines += paragraph
    lines.append("")
    lines += _message(facts)
    lines.append("")
    lines += wrapped(
        f"Questions about this report go to {contact}. The details for administrators are in the next part of this "
        f"report; the message is known here as {identifier.text(facts.envelope.id)}.",
        "",
    )
    return lines


def _named(report: RecipientReport) -> Address:
    """The recipient as the sender knows it: before aliases (RFC 3464 §2.3.2, §4.2)."""
    return report.recipient.given or report.recipient.address


def _paragraphs(facts: ReportFacts) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    written: dict[tuple[int, bool, int, int], list[str]] = {}  # most recipients of a mailing share their attempt
    for report in facts.reports:
        shared = (id(report.attempt), report.expired, report.until_us, report.into_count)
        names = written.get(shared)
        if names is None:
            names = written[shared] = found.setdefault(tuple(_paragraph(report, facts)), [])
        names.append(clean(_named(report).readable()))
    return found


def _paragraph(report: RecipientReport, facts: ReportFacts) -> list[str]:
    attempt = report.attempt
    match report.action:
        case DsnAction.FAILED | DsnAction.DELAYED:
            words = _BY_OPERATOR if attempt.transport == "operator" else advice(attempt.status)
            lines = wrapped(_over_time(report, facts) + words.what, "    ")
            lines += _answer(attempt)
            if report.action is DsnAction.FAILED and not facts.to_postmaster:
                lines += wrapped(f"What you can do: {words.remedy}", "    ")
            if report.until_us:
                lines += wrapped(f"We try again until {_date(report.until_us)}.", "    ")
            return lines
        case DsnAction.RELAYED | DsnAction.DELIVERED:
            return _answer(attempt)
        case DsnAction.EXPANDED:
            number = report.into_count
            whom = f" to {counted(number, 'recipient')}" if number else ""
            return wrapped(f"It was passed on{whom}.", "    ")


def _over_time(report: RecipientReport, facts: ReportFacts) -> str:
    if not report.expired:
        return ""
    hours = max(1, round((facts.now_us - facts.envelope.accepted_us) / 3_600_000_000))
    time = f"{hours} hours" if hours < 72 else f"{round(hours / 24)} days"
    return f"It was tried for {time if hours > 1 else 'an hour'}, then given up. The last reason: "


def _answer(attempt: Attempt) -> list[str]:
    """Who said what, as far as anyone said anything."""
    if attempt.reply is not None:
        remote = clean(attempt.remote_name or attempt.remote_address) or "the next mail system"
        if "/" in remote:  # a local socket
            remote = "the local mailbox server"
        said = shorten(clean(str(attempt.reply)), _REPLY_MAX)
        return wrapped(f"{remote} answered: {said}", "    ")
    if attempt.text and not attempt.status.startswith("2"):
        return wrapped(f"In detail: {shorten(clean(without_places(attempt.text)), _REPLY_MAX)}", "    ")
    return []


def _headline(facts: ReportFacts) -> str:
    one = len(facts.reports) == 1
    whom = "the recipient below" if one else f"the {len(facts.reports)} recipients below"
    if facts.to_postmaster:
        return (
            "A message without a return address (most often a report, as this is one) could not be delivered to "
            f"{whom}. The node cannot tell its sender, so this report goes to you, the postmaster. There will be no "
            "further attempt."
        )
    match facts.action:
        case DsnAction.FAILED:
            return f"Your message could not be delivered to {whom}. There will be no further attempt."
        case DsnAction.DELAYED:
            return (
                f"Your message has not yet been delivered to {whom}. It is kept and tried again. You do not have to do "
                "anything, and you should not send it again. You will get a report if it cannot be delivered."
            )
        case DsnAction.DELIVERED:
            return f"Your message was delivered to {whom}. This report was asked for; it does not say that it was read."
        case DsnAction.RELAYED:
            return (
                f"Your message was handed over to another mail system for {whom}, which does not confirm the "
                "delivery. You will hear no more about it unless that system reports a failure."
            )
        case DsnAction.EXPANDED:
            return (
                f"Your message was accepted for {whom} and passed on to everyone that this address stands for. "
                "From now on you will hear only of failures."
            )


def _message(facts: ReportFacts) -> list[str]:
    """What message it is about, as its sender may remember it."""
    lines = ["The message:"]
    title = first(facts.head, b"subject") if facts.head else None
    if title:
        lines += wrapped(f"Subject: {shorten(clean(decode(title)), _SUBJECT_MAX)}", "    ")
    written = first(facts.head, b"date") if facts.head else None
    if written:
        lines += wrapped(f"Date: {shorten(clean(written), 100)}", "    ")
    if facts.envelope.message_id:
        lines += wrapped(f"Message-ID: {shorten(clean(facts.envelope.message_id), 300)}", "    ")
    lines.append(f"    Accepted here: {_date(facts.envelope.accepted_us)}")
    return lines


def _date(at_us: int) -> str:
    return trace.date(at_us // 1_000_000)


_BY_OPERATOR = Advice(
    "The administrator of this mail system has ended the attempts to deliver it.",
    "Ask the contact named below.",
)
_SUBJECTS = {
    DsnAction.FAILED: "Not delivered",
    DsnAction.DELAYED: "Not yet delivered",
    DsnAction.DELIVERED: "Delivered",
    DsnAction.RELAYED: "Handed over",
    DsnAction.EXPANDED: "Passed on",
}
