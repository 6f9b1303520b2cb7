"""`postroad reports`: what the reports of others say of our mail (docs/reports.md).

It reads the reports that the node has kept, whether it runs or not. What strangers wrote is cleaned before it is
printed. How it fails: what cannot be read is one line on stderr, and exit code 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from postroad.cli.command import end, print_json, time_us
from postroad.cli.options import config_option, json_option, state_dir_of
from postroad.cli.sent_reports import sent
from postroad.cli.trace import WHEN, when_us

if TYPE_CHECKING:
    from postroad.operate.reports import ComplaintSummary, DmarcSummary, TlsSummary, UnreadMail
    from postroad.store.kept_reports import KeptMail, ReportStore

_SINCE: Final = "7d"
_FAILURES_MAX: Final = 50  # failure reports and complaints in a table; --json has all
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _since_option(command: _Command) -> _Command:
    return click.option(
        "--since", default=_SINCE, show_default=True, metavar="WHEN", help=f"Reports that came since then: {WHEN}."
    )(command)


_domain = click.argument("domain", default="", metavar="[DOMAIN]", callback=lambda _, __, value: _canonical(value))
_verified = click.option(
    "--verified", "only_verified", is_flag=True, help="Only reports whose author is who it says (docs/reports.md)."
)


@click.group(invoke_without_command=True)
@_since_option
@json_option
@config_option
@click.pass_context
def reports(context: click.Context, since: str, as_json: bool, config: Path | None) -> None:
    """Show what others report about our mail. Without a command: what came, and what of it could not be read."""
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    from postroad.operate.reports import overview
    from postroad.trust.inbound.keeping import COMPLAINT, DMARC, FAILURE, TLS

    since_us = when_us(since, time_us())
    store = _store(config)
    mails = _mails(store, since_us)
    known = store.counts(since_us) if store.is_there else {}
    counts = {kind: known.get(kind, 0) for kind in (DMARC, TLS, COMPLAINT, FAILURE)}
    found = overview(mails, counts, since_us)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{_many(found.mails, 'mail')} since {_at(found.since_s)}: {_many(counts[DMARC], 'DMARC report')}, "
        f"{_many(counts[TLS], 'TLS report')}, {_many(counts[COMPLAINT], 'complaint')}, "
        f"{_many(counts[FAILURE], 'failure report')}; {_many(found.duplicates, 'report')} known before, "
        f"{_many(found.ordinary, 'mail')} without a report."
    )
    _print_unread(found.unread)


reports.add_command(sent)


@reports.command()
@_domain
@_since_option
@_verified
@json_option
@config_option
@click.pass_obj
def dmarc(
    outer: Path | None, domain: str, since: str, only_verified: bool, as_json: bool, config: Path | None
) -> None:
    """Show who sends in the name of our domains, and with what result.

    DOMAIN means that domain and those below it. DKIM and SPF are "pass" only if they passed for a domain that is
    aligned with the author's. A message passes DMARC if one of them is "pass".
    """
    from postroad.operate.reports import dmarc as summary
    from postroad.trust.inbound.keeping import DMARC, FAILURE

    since_us = when_us(since, time_us())
    store = _store(config or outer)
    mails = _mails(store, since_us)
    of = _reader(store, domain, since_us, only_verified)
    found = summary(of(DMARC), of(FAILURE), mails, since_us, domain)
    if as_json:
        print_json(found)
    else:
        _print_dmarc(found)


def _print_dmarc(found: DmarcSummary) -> None:
    from postroad.cli.table import print_table

    if not found.reports and not found.failures:
        _nothing("DMARC reports", found.domain, found.since_s, found.unread)
        return
    rows = [
        (each.domain, each.source, f"{each.messages}", each.dkim or "-", each.spf or "-", each.disposition or "-",
         ", ".join(each.reporters))
        for each in found.sources
    ]
    print_table(("FROM", "SOURCE", "MESSAGES", "DKIM", "SPF", "DISPOSITION", "REPORTERS"), rows, frozenset({2}))
    share = f" ({found.passed * 100 // found.messages} %)" if found.messages else ""
    click.echo(
        f"\n{_many(found.messages, 'message')} in {_many(found.reports, 'report')} since {_at(found.since_s)}; "
        f"{found.passed} passed DMARC{share}."
    )
    if found.failures:
        click.echo("\nFailure reports, the newest last:")
        print_table(
            ("TIME", "SOURCE", "FAILURE", "AUTHOR", "REPORTER", "SUBJECT"),
            [
                (_at(each.at), each.source, each.failure, each.author, each.reporter, each.subject)
                for each in found.failures[-_FAILURES_MAX:]
            ],
        )
    _print_doubts(found.unverified, found.problems, found.unread)


@reports.command()
@_domain
@_since_option
@_verified
@json_option
@config_option
@click.pass_obj
def tls(outer: Path | None, domain: str, since: str, only_verified: bool, as_json: bool, config: Path | None) -> None:
    """Show how TLS to the hosts of our domains went, by policy, and why it failed."""
    from postroad.operate.reports import tls as summary
    from postroad.trust.inbound.keeping import TLS

    since_us = when_us(since, time_us())
    store = _store(config or outer)
    mails = _mails(store, since_us)
    found = summary(_reader(store, domain, since_us, only_verified)(TLS), mails, since_us, domain)
    if as_json:
        print_json(found)
    else:
        _print_tls(found)


def _print_tls(found: TlsSummary) -> None:
    from postroad.cli.table import print_table

    if not found.reports:
        _nothing("TLS reports", found.domain, found.since_s, found.unread)
        return
    print_table(
        ("DOMAIN", "POLICY", "SUCCESSFUL", "FAILED", "REPORTERS"),
        [
            (each.domain, each.type or "-", f"{each.successful}", f"{each.failed}", ", ".join(each.reporters))
            for each in found.policies
        ],
        frozenset({2, 3}),
    )
    failures = [
        (each.domain, failure.type, failure.host or failure.address or "-", f"{failure.sessions}",
         "; ".join((", ".join(failure.reporters), *failure.said)))
        for each in found.policies for failure in each.failures
    ]  # fmt: skip
    if failures:
        click.echo("\nWhy sessions failed:")
        print_table(("DOMAIN", "REASON", "HOST", "SESSIONS", "REPORTERS AND WHAT THEY SAY"), failures, frozenset({3}))
    _print_doubts(found.unverified, found.problems, found.unread)


@reports.command()
@_domain
@_since_option
@_verified
@click.option("--each", "each_one", is_flag=True, help="Print each complaint, with our message that it is about.")
@json_option
@config_option
@click.pass_obj
def complaints(
    outer: Path | None, domain: str, since: str, only_verified: bool, each_one: bool, as_json: bool,
    config: Path | None,
) -> None:
    """Show complaints of recipients by domain, account and campaign.

    Our message is looked up in the history by its queue id in the Received field, or by its Message-ID. The campaign is
    the message's Feedback-ID or List-Id.
    """
    from postroad.operate.reports import complaints as summary
    from postroad.operate.view import CannotRead, open_history
    from postroad.trust.inbound.keeping import COMPLAINT

    since_us = when_us(since, time_us())
    store = _store(config or outer)
    mails = _mails(store, since_us)
    try:
        history = open_history(state_dir_of(config or outer))
    except CannotRead as error:
        end(str(error))
    found = summary(_reader(store, domain, since_us, only_verified)(COMPLAINT), mails, history, since_us, domain)
    for fault in history.faults:
        click.echo(f"left out: {fault}", err=True)
    if as_json:
        print_json(found)
    else:
        _print_complaints(found, each_one)


def _print_complaints(found: ComplaintSummary, each_one: bool) -> None:
    from postroad.cli.table import print_table

    if not found.complaints:
        _nothing("complaints", found.domain, found.since_s, found.unread)
        return
    if each_one:
        print_table(
            ("TIME", "TYPE", "DOMAIN", "ACCOUNT", "QUEUE ID", "RECIPIENT", "REPORTER", "MESSAGE"),
            [
                (_at(each.at), each.type, each.domain, each.account or "-", each.queue_id or "-",
                 ", ".join(each.recipients) or "-", each.reporter, each.subject or each.message_id)
                for each in found.each
            ],
        )  # fmt: skip
    else:
        print_table(
            ("DOMAIN", "ACCOUNT", "CAMPAIGN", "TYPE", "COMPLAINTS", "LAST", "REPORTERS"),
            [
                (each.domain, each.account or "-", each.campaign or "-", each.type, f"{each.complaints}",
                 _at(each.last), ", ".join(each.reporters))
                for each in found.counts
            ],
            frozenset({4}),
        )  # fmt: skip
    if found.not_looked_up:
        click.echo(f"\n{found.not_looked_up} older complaints were not looked up in the history.")
    _print_doubts(found.unverified, [], found.unread)


@reports.command()
@_since_option
@json_option
@config_option
@click.pass_obj
def unread(outer: Path | None, since: str, as_json: bool, config: Path | None) -> None:
    """List mails to report mailboxes that could not be read, and why. Each went on to its mailbox."""
    from postroad.operate.reports import overview

    since_us = when_us(since, time_us())
    store = _store(config or outer)
    found = overview(_mails(store, since_us), {}, since_us).unread
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Every report was read.")
    else:
        _print_unread(found)


def _print_unread(found: list[UnreadMail]) -> None:
    from postroad.cli.table import print_table

    if not found:
        return
    click.echo("\nNot read, and sent on to the mailbox:" if len(found) > 1 else "\nNot read, and sent on:")
    print_table(
        ("TIME", "QUEUE ID", "CLIENT", "SENDER", "RECIPIENT", "WHY"),
        [
            (_at(each.at), each.queue_id, each.client, each.sender or "<>", each.recipient, each.reason)
            for each in found
        ],
    )


def _print_doubts(unverified: int, problems: list[str], unread: int) -> None:
    if unverified:
        click.echo(f"Of {_many(unverified, 'report')} nobody has verified the author; --verified leaves them out.")
    for problem in problems:
        click.echo(f"Not as it should be: {_clean(problem)}")
    _tell_unread(unread)


def _nothing(what: str, domain: str, since_s: int, unread: int) -> None:
    about = f" about {_clean(domain)}" if domain else ""
    click.echo(f"No {what}{about} came since {_at(since_s)}.", err=True)
    _tell_unread(unread)


def _tell_unread(count: int) -> None:
    if count:
        click.echo(f"{_many(count, 'mail')} could not be read: see `postroad reports unread`.", err=True)


def _reader(store: ReportStore, domain: str, since_us: int, only_verified: bool) -> Callable[[str], Any]:
    """Reports of a kind, as they are asked for."""
    from postroad.store.kept_reports import KeepingFailed

    def read(kind: str) -> Any:
        try:
            found = store.reports(kind, domain, since_us) if store.is_there else ()
            yield from (each for each in found if each.verified or not only_verified)
        except KeepingFailed as error:
            end(str(error))

    return read


def _mails(store: ReportStore, since_us: int) -> list[KeptMail]:
    from postroad.store.kept_reports import KeepingFailed

    try:
        return store.mails(since_us) if store.is_there else []
    except KeepingFailed as error:
        end(str(error))


def _store(config: Path | None) -> ReportStore:
    from postroad.operate.view import CannotRead, open_reports

    try:
        return open_reports(state_dir_of(config))
    except CannotRead as error:
        end(str(error))


def _canonical(written: str) -> str:
    from postroad.mail.address import canonical_domain

    if not written:
        return ""
    try:
        return canonical_domain(written)
    except ValueError:
        raise click.BadParameter(f"{written!r} is not a domain") from None


def _clean(text: str) -> str:
    from postroad.report.text import clean

    return clean(text)


def _at(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
