"""Whether mailboxes have room, asked at RCPT after all else accepts the recipient: by maps, and by our own Maildirs.

What always holds: a map that cannot answer, or says what means nothing, refuses nobody; the log says so, once until it
says something else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from postroad.check.room import full, means_nothing, verdict_of
from postroad.mail.address import Address
from postroad.mail.policy import ACCEPT, Question, Verdict
from postroad.maps.asked import Asked
from postroad.maps.face import NO_ANSWER, Map, NotNow
from postroad.maps.options import MapKind
from postroad.maps.steps import KeyStep, address_steps
from postroad.route.options import LocalDomain, OverQuota, RoutingOptions

IsFull = Callable[[Address, int], Awaitable[bool]]
"""Whether the Maildir of a mailbox has no room for so many octets."""
Answered = Callable[[Callable[[Asked], str | None]], "str | NotNow | Awaitable[str | NotNow | None] | None"]


def has_quotas(options: RoutingOptions) -> bool:
    """Whether anything is to be asked at RCPT."""
    return any(each.quota_maps or each.quota_at_rcpt for each in (*options.local, *options.mapped_local))


class MailboxRoom:
    """See the module. `local`: the table of a domain, None if it is not ours. `mailbox`: by which name a recipient is a
    mailbox; None if it is none, or an alias. `named`: the maps of these names. `answered`: asks a question of maps."""

    def __init__(
        self, *, local: Callable[[str], LocalDomain | None], mailbox: Callable[[Address, Asked], Address | None],
        named: Callable[[tuple[str, ...]], tuple[Map, ...]], answered: Answered, delimiter: str,
        tell: Callable[[str, str], None],
    ) -> None:
        self._local = local
        self._mailbox = mailbox
        self._named = named
        self._answered = answered
        self._delimiter = delimiter
        self._tell = tell
        self._told = ""
        self.is_full: IsFull | None = None  # set by who can look into Maildirs

    def __call__(self, question: Question) -> Verdict | Awaitable[Verdict]:
        address = question.recipient
        local = None if address is None else self._local(address.domain)
        if address is None or local is None or not (local.quota_maps or local.quota_at_rcpt):
            return ACCEPT
        maps = self._named(local.quota_maps)
        found = self._answered(partial(self._value, address, question.size or 0, maps))
        if not local.quota_at_rcpt and (found is None or isinstance(found, str | NotNow)):
            return self._meant(found, address, question, local)
        return self._wait(found, address, question, local)

    def _value(self, address: Address, size: int, maps: tuple[Map, ...], asked: Asked) -> str | None:
        mailbox = self._mailbox(address, asked)
        if mailbox is None or asked.stopped:
            return None
        for map in maps:
            if map.kind == MapKind.POLICY.value:
                steps: Iterable[KeyStep] = (KeyStep("mailbox and size", f"{mailbox} {size}"),)
            else:
                named = address_steps(mailbox.local_part, mailbox.domain, self._delimiter)
                steps = (step for step in named if "@" in step.key)
            found = asked.first(steps, (map,))
            if found is not None:
                return None if found is NO_ANSWER else found[0]
        return None

    def _meant(
        self, found: str | NotNow | None, address: Address, question: Question, local: LocalDomain
    ) -> Verdict:
        if isinstance(found, NotNow):
            self._say(f"recipients are accepted although nobody knows whether their mailboxes have room: {found.text}")
            return ACCEPT
        if found is None:
            return ACCEPT
        fails = local.over_quota is OverQuota.FAIL
        if means_nothing(found):
            self._say(f"a quota map says {found[:100]!r} of <{address}>, which has no meaning: it is accepted")
        return verdict_of(found, address, question.size or 0, fails=fails) or ACCEPT

    async def _wait(
        self, found: str | NotNow | Awaitable[str | NotNow | None] | None, address: Address, question: Question,
        local: LocalDomain,
    ) -> Verdict:
        if found is not None and not isinstance(found, str | NotNow):
            found = await found
        verdict = self._meant(found, address, question, local)
        if verdict is not ACCEPT or not local.quota_at_rcpt or self.is_full is None:
            return verdict
        if await self.is_full(address, question.size or 0):
            return full(address, fails=local.over_quota is OverQuota.FAIL)
        return ACCEPT

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell("warning", text)
