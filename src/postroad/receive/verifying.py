"""VRFY and EXPN: what a session tells about mailboxes and aliases, and to whom (RFC 5321 §3.5, §7.3).

What always holds: if a listener is set so, an answer tells nothing (252, or 502); on a submission listener strangers
learn nothing in any case; a reply is ASCII unless the client asked for UTF-8 (RFC 6531 §3.7.4.2). Pure, except for the
doors that are asked.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from postroad.mail.address import Address
from postroad.mail.policy import Action, Role, Verdict
from postroad.mail.reply import Reply, reply
from postroad.maps.face import NotNow
from postroad.protocol.command import Vrfy
from postroad.protocol.grammar import parse_mailbox
from postroad.receive.doors import Members
from postroad.receive.options import Telling
from postroad.receive.replies import CANNOT_VERIFY
from postroad.receive.setup import ListenerSetup

MEMBERS_MAX: Final = 1000  # of an alias that EXPN tells

_NO_ACCESS: Final = reply(550, "5.7.2", "You may not expand lists here")
_NO_LIST: Final = reply(550, "5.1.1", "No such list here")
_NOT_NOW: Final = reply(450, "4.3.0", "Cannot look up lists now; try again later")
_TOO_MANY: Final = reply(252, "2.5.2", "Cannot expand, there are too many; will take mail for the list")


def answer(setup: ListenerSetup, command: Vrfy, *, trusted: bool, identity: str) -> Reply | Awaitable[Verdict]:
    """The answer to VRFY or EXPN; an awaitable of its Verdict if somebody outside must be asked."""
    listener = setup.listener
    expands = command.verb == "EXPN"
    telling = listener.expn if expands else listener.vrfy
    friend = trusted or identity != ""
    if telling in (Telling.OFF, Telling.AMBIGUOUS):
        return CANNOT_VERIFY
    if not friend and (telling is Telling.TRUSTED or listener.role is Role.SUBMISSION):
        return _NO_ACCESS if expands else CANNOT_VERIFY
    mailbox = _mailbox(command.argument, setup.options.default_domain)
    if expands:
        members = None if mailbox is None else setup.doors.knowing.members(mailbox)
        if isinstance(members, Awaitable):
            return _expanded_later(members, utf8=command.smtputf8)
        return _expanded(members, utf8=command.smtputf8)
    if mailbox is None:
        return CANNOT_VERIFY
    known = setup.doors.knowing.known(mailbox)
    if known is None or isinstance(known, bool):
        return _verified(mailbox, known, utf8=command.smtputf8)
    return _awaited(mailbox, known, utf8=command.smtputf8)


def _mailbox(argument: str, default_domain: str) -> Address | None:
    """RFC 5321 §3.5.1: "a user name or a mailbox"; a user name is one of our first domain."""
    text = argument.strip().removeprefix("<").removesuffix(">")
    return parse_mailbox(text if "@" in text else f"{text}@{default_domain}")


def _verified(mailbox: Address, known: bool | None, *, utf8: bool) -> Reply:
    if known is None or not (utf8 or mailbox.is_ascii):
        return CANNOT_VERIFY
    if known:
        return reply(250, "2.1.5", f"<{mailbox}>")
    return reply(550, "5.1.1", f"<{mailbox}>: no such user here")


async def _awaited(mailbox: Address, known: Awaitable[bool | None], *, utf8: bool) -> Verdict:
    return Verdict(Action.ACCEPT, _verified(mailbox, await known, utf8=utf8))


async def _expanded_later(members: Awaitable[Members], *, utf8: bool) -> Verdict:
    return Verdict(Action.ACCEPT, _expanded(await members, utf8=utf8))


def _expanded(members: Members, *, utf8: bool) -> Reply:
    """RFC 5321 §3.5.1: the members, a line each."""
    if members is None:
        return _NO_LIST
    if isinstance(members, NotNow):
        return _NOT_NOW
    if len(members) > MEMBERS_MAX:
        return _TOO_MANY
    if not utf8 and not all(member.is_ascii for member in members):
        return CANNOT_VERIFY
    return Reply(250, "2.1.5", tuple(f"<{member}>" for member in members))
