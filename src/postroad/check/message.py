"""Rules about the content: loops, fields that may stand there only once, and the author that an account claims."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Final

from postroad.accounts.sender_maps import Owns
from postroad.check.sender import judged
from postroad.mail import trace
from postroad.mail.address import Address
from postroad.mail.message import FIELD_NAME_MAX, fields
from postroad.mail.policy import ACCEPT, Question, Rule, Verdict, reject
from postroad.protocol.mailboxes import mailboxes

# RFC 5322 §3.6: of these fields a message has one at most
_SINGLE: Final = (
    "Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Message-ID", "In-Reply-To", "References", "Subject",
)  # fmt: skip
_NAMES: Final = {name.lower().encode(): name for name in _SINGLE}
_ANY_OF_THEM: Final = re.compile(rb"\r\n(" + b"|".join(_NAMES) + rb")[ \t]{0,%d}:" % FIELD_NAME_MAX)


def hop_limit(hops_max: int) -> Rule:
    """RFC 5321 §6.3: a message with more Received fields than this goes round in circles (554 5.4.6)."""

    def rule(question: Question) -> Verdict:
        if trace.hops(question.head) > hops_max:
            return reject(554, "5.4.6", f"Mail loop: more than {hops_max} Received fields", "mail loop")
        return ACCEPT

    return rule


def single_fields(question: Question) -> Verdict:
    """RFC 5322 §3.6: a message that says twice by whom it is, or to whom, is read in two ways (550 5.6.0)."""
    found = _ANY_OF_THEM.findall(b"\r\n" + question.head.lower())
    if len(found) == len(set(found)):
        return ACCEPT
    name = next(_NAMES[each] for each in _NAMES if found.count(each) > 1)
    return reject(550, "5.6.0", f"More than one {name} field in the header (RFC 5322 section 3.6)", f"several {name}")


def author_owned(owns: Owns) -> Rule:
    """Each mailbox in From is one of the account that sends (550 5.7.1). A message without From claims nobody."""

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        identity = question.peer.identity
        if not identity:
            return ACCEPT
        waiting: list[Verdict | Awaitable[Verdict]] = []
        for field in fields(question.head):
            if field.name.lower() == "from" and field.text:
                for author in mailboxes(field.text) or [None]:
                    if author is None:
                        return _UNREADABLE
                    found = owns(identity, author)
                    if found is False:
                        return _not_owned(author)
                    if found is not True:
                        waiting.append(judged(found, True, _not_owned(author)))
        return _all_accepted(waiting) if waiting else ACCEPT

    return rule


async def _all_accepted(waiting: list[Verdict | Awaitable[Verdict]]) -> Verdict:
    verdicts = [each if isinstance(each, Verdict) else await each for each in waiting]
    return next((verdict for verdict in verdicts if verdict is not ACCEPT), ACCEPT)


_UNREADABLE: Final = reject(550, "5.7.1", "From has no mailbox, or none that can be read", "From not owned")


def _not_owned(author: Address) -> Verdict:
    text = f"From names <{author}>, not an address of the account you authenticated as"
    return reject(550, "5.7.1", text, "From not owned")
