"""Relay control: every kind of client against every kind of recipient."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable

import msgspec
import pytest

from postroad.check import policy
from postroad.check.policy import Directory, PolicyOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Peer
from postroad.mail.policy import Question, Role, Rule, Verdict

USERS = {Address("ann", "local.test"), Address("bob", "other.test")}
KNOWN = Directory(
    is_local=lambda domain: domain in ("local.test", "other.test"),
    is_relay=lambda domain: domain == "relay.test",
    recipient=lambda address: address in USERS or (address.domain == "relay.test" and address.local_part != "gone"),
    owns=lambda name, address: (name, str(address)) == ("ann", "ann@local.test"),
)
STRANGER, TRUSTED, ACCOUNT = "stranger", "trusted", "account"


def question(client: str, recipient: str) -> Question:
    local_part, _, domain = recipient.rpartition("@")
    return Question(
        Peer(address="192.0.2.1", identity="ann" if client == ACCOUNT else ""),
        trusted=client == TRUSTED,
        recipient=Address(local_part, domain),
    )


def ask(rule: Rule | None, question: Question) -> str:
    assert rule is not None
    verdict = rule(question)
    assert isinstance(verdict, Verdict)
    return f"{verdict.reply.code} {verdict.reply.status}" if verdict.reply else "ok"


RELAYING, UNKNOWN, NETWORK = "550 5.7.1", "550 5.1.1", "554 5.7.1"


@pytest.mark.parametrize(
    ("role", "client", "ann", "nobody", "postmaster", "relay", "elsewhere"),
    [
        (Role.MX, STRANGER, "ok", UNKNOWN, "ok", "ok", RELAYING),
        (Role.MX, TRUSTED, "ok", UNKNOWN, "ok", "ok", RELAYING),
        (Role.MX, ACCOUNT, "ok", UNKNOWN, "ok", "ok", "ok"),
        (Role.RELAY, STRANGER, "ok", UNKNOWN, "ok", "ok", RELAYING),
        (Role.RELAY, TRUSTED, "ok", UNKNOWN, "ok", "ok", "ok"),
        (Role.RELAY, ACCOUNT, "ok", UNKNOWN, "ok", "ok", "ok"),
        (Role.SUBMISSION, ACCOUNT, "ok", UNKNOWN, "ok", "ok", "ok"),
        (Role.SUBMISSION, STRANGER, NETWORK, NETWORK, "ok", RELAYING, RELAYING),
    ],
)
def test_recipients_by_role_and_client(
    role: Role, client: str, ann: str, nobody: str, postmaster: str, relay: str, elsewhere: str
) -> None:
    rule = policy.rules(role, PolicyOptions(), KNOWN, lmtp=False).rcpt
    recipients = ("ann@local.test", "nobody@local.test", "PostMaster@other.test", "x@relay.test", "x@elsewhere.test")
    answers = [ask(rule, question(client, recipient)) for recipient in recipients]
    assert answers == [ann, nobody, postmaster, relay, elsewhere]


def test_authenticated_accounts_do_not_relay_on_mx_where_that_is_off() -> None:
    rule = policy.rules(Role.MX, PolicyOptions(auth_relays=False), KNOWN, lmtp=False).rcpt
    assert ask(rule, question(ACCOUNT, "x@elsewhere.test")) == RELAYING
    assert ask(rule, question(ACCOUNT, "ann@local.test")) == "ok"


def test_relay_listener_closed_to_strangers_but_for_postmaster() -> None:
    rule = policy.rules(Role.RELAY, PolicyOptions(strangers=False), KNOWN, lmtp=False).rcpt
    assert ask(rule, question(STRANGER, "ann@local.test")) == NETWORK
    assert ask(rule, question(STRANGER, "x@relay.test")) == RELAYING
    assert ask(rule, question(STRANGER, "postmaster@local.test")) == "ok"
    assert ask(rule, question(TRUSTED, "ann@local.test")) == "ok"


@pytest.mark.parametrize("client", [STRANGER, TRUSTED, ACCOUNT])
def test_lmtp_takes_local_recipients_only(client: str) -> None:
    rule = policy.rules(Role.RELAY, PolicyOptions(), KNOWN, lmtp=True).rcpt
    assert ask(rule, question(client, "ann@local.test")) == "ok"
    assert ask(rule, question(client, "nobody@local.test")) == UNKNOWN
    assert ask(rule, question(client, "postmaster@local.test")) == "ok"
    assert ask(rule, question(client, "x@relay.test")) == RELAYING


def test_the_refusal_names_the_mailbox() -> None:
    rule = policy.rules(Role.MX, PolicyOptions(), KNOWN, lmtp=False).rcpt
    assert rule is not None
    verdict = rule(question(STRANGER, "no body@local.test"))
    assert isinstance(verdict, Verdict) and verdict.reply is not None
    assert '<"no body"@local.test>' in verdict.reply.text


@pytest.mark.parametrize(("mailbox", "expected"), [("ann@local.test", "ok"), ("nobody@local.test", UNKNOWN)])
async def test_mailboxes_looked_up_outside(mailbox: str, expected: str) -> None:
    async def known(address: Address) -> bool:
        await asyncio.sleep(0)
        return address in USERS

    rule = policy.rules(
        Role.MX, PolicyOptions(), Directory(KNOWN.is_local, KNOWN.is_relay, known, KNOWN.owns), lmtp=False
    ).rcpt
    assert rule is not None
    pending = rule(question(STRANGER, mailbox))
    assert inspect.isawaitable(pending)
    assert isinstance(pending, Awaitable)
    verdict = await pending
    assert (f"{verdict.reply.code} {verdict.reply.status}" if verdict.reply else "ok") == expected


@pytest.mark.parametrize(
    ("client", "recipient", "answer"),
    [
        (STRANGER, "x@relay.test", "ok"),
        (STRANGER, "gone@relay.test", "550 5.1.1"),  # known not to exist there: refused here, no DSN later
        (STRANGER, "Postmaster@relay.test", "ok"),
        (ACCOUNT, "gone@relay.test", "ok"),  # ours may send anywhere; the next MTA decides
    ],
)
def test_recipients_of_relay_domains_that_are_known_not_to_exist(client: str, recipient: str, answer: str) -> None:
    rule = policy.rules(Role.MX, PolicyOptions(), KNOWN, lmtp=False).rcpt
    assert ask(rule, question(client, recipient)) == answer


@pytest.mark.parametrize("client", [ACCOUNT, TRUSTED])
def test_who_may_relay_hears_at_once_of_what_can_never_go_out(client: str) -> None:
    def nowhere(address: Address) -> Attempt | None:
        literal = address.domain.startswith("[")
        return Attempt(Outcome.FAILED, Reach.DESTINATION, "5.1.2", "not there") if literal else None

    known = msgspec.structs.replace(KNOWN, nowhere=nowhere)
    rcpt = policy.rules(Role.RELAY, PolicyOptions(), known, lmtp=False).rcpt
    assert ask(rcpt, question(client, "x@[192.0.2.1]")) == "550 5.1.2"
    assert ask(rcpt, question(client, "x@elsewhere.test")) == "ok"
    assert ask(rcpt, question(STRANGER, "x@[192.0.2.1]")) == RELAYING


@pytest.mark.parametrize("local_part", ["user%other.test", "other.test!user", "user@other.test", "%", "!"])
@pytest.mark.parametrize("role", [Role.MX, Role.RELAY])
def test_no_stranger_names_a_way_through_a_relay_domain(role: Role, local_part: str) -> None:
    """A host behind us that follows it would relay for him to anywhere (RFC 5321 §F.2; Postfix's
    allow_untrusted_routing = no)."""
    rule = policy.rules(role, PolicyOptions(), KNOWN, lmtp=False).rcpt
    recipient = f"{local_part}@relay.test"
    assert ask(rule, question(STRANGER, recipient)) == RELAYING
    assert ask(rule, question(ACCOUNT, recipient)) == "ok"
    if role is Role.RELAY:
        assert ask(rule, question(TRUSTED, recipient)) == "ok"
    allowed = policy.rules(role, PolicyOptions(untrusted_routing=True), KNOWN, lmtp=False).rcpt
    assert ask(allowed, question(STRANGER, recipient)) == "ok"
    # At a local domain it is a name as any other.
    assert ask(rule, question(STRANGER, f"{local_part}@local.test")) == UNKNOWN
