"""Rules for a node whose domains come from maps: a domain is looked up before the rules ask whether it is ours.

What always holds: a map that cannot answer is 451 4.3.0 to RCPT, never a refusal for good and never a relay for
strangers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from postroad.check.relay import cannot_look_up
from postroad.mail.address import Address
from postroad.mail.policy import Question, Rule, Rules, Verdict
from postroad.maps.face import NotNow

MakeKnown = Callable[[str], NotNow | Awaitable[NotNow | None] | None]
"""Has all who ask know what a domain is: None if they do, NotNow if nobody can tell now, else an awaitable of these."""


def once_known(
    rules: Rules, make_known: MakeKnown, meant: Callable[[Address], Address] = lambda address: address
) -> Rules:
    """The same rules; those of MAIL and RCPT wait for the domain of their address. `meant`: the mailbox of a recipient
    that is written in another way, as signed senders are."""
    mail, rcpt = rules.mail, rules.rcpt
    return msgspec.structs.replace(
        rules,
        mail=None if mail is None else _rule(mail, make_known, _bare_sender),
        rcpt=None if rcpt is None else _rule(rcpt, make_known, lambda question: _recipient(question, meant)),
    )


def _recipient(question: Question, meant: Callable[[Address], Address]) -> Address | None:
    return None if question.recipient is None else meant(question.recipient)


def _bare_sender(question: Question) -> Address | None:
    """Of a sender it is only asked whether a domain without a dot is ours (`check.sender.qualified_sender`)."""
    sender = question.reverse_path
    return sender if sender is not None and "." not in sender.domain else None


def _rule(rule: Rule, make_known: MakeKnown, address_of: Callable[[Question], Address | None]) -> Rule:
    def asked(question: Question) -> Verdict | Awaitable[Verdict]:
        address = address_of(question)
        pending = None if address is None else make_known(address.domain)
        if pending is None:
            return rule(question)
        assert address is not None
        return cannot_look_up(address, pending) if isinstance(pending, NotNow) else waited(question, address, pending)

    async def waited(question: Question, address: Address, pending: Awaitable[NotNow | None]) -> Verdict:
        answer = await pending
        if answer is not None:
            return cannot_look_up(address, answer)
        verdict = rule(question)
        return verdict if isinstance(verdict, Verdict) else await verdict

    return asked
