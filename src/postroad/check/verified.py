"""Recipients that only the next hop knows: it is asked once by MAIL and RCPT, and its answer is kept.

For domains with `verify`. What always holds:

- A recipient is refused (550 5.1.1) only if the next hop has refused it for good at RCPT. All else that goes wrong
  there (it is down, slow, busy, refuses our sender) is "not known": the client hears 450, or the recipient is accepted,
  as `not_known` says.
- Questions for strangers are bounded: for each client network and for each domain within `VerifyOptions.span_s`, and in
  number under way. What is over a bound is "not known", and the next hop is not asked. The bounds are those of the
  whole node, as exact as the counts of `check.tally`.
- Equal questions under way in a worker are one. A client waits no longer than `wait_s`; the question goes on without
  it, and its answer is kept for when the client comes again.
- An answer that grows old is asked for again before it ends, in the background, while it is still in force.

Not here: how the next hop is asked (`deliver.asking`), where answers are kept (`store.verified`), which recipients are
asked about (`route.recipients`).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from postroad.check.tally import DOMAIN_QUESTIONS, QUESTIONS, UNDER_WAY, Tally
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.policy import ACCEPT, Action, Question, Verdict, reject
from postroad.mail.reply import reply

WINDOW: Final = 4  # of the tally
_NOT_KNOWN_MAX: Final = 50_000  # recipients about whom nobody could tell; the oldest go first
_SHOWN_MAX: Final = 200  # characters of what the next hop said


class NotKnown(enum.Enum):
    """What becomes of a recipient of whom nobody can tell."""

    DEFER = "defer"
    ACCEPT = "accept"


class VerifyOptions(msgspec.Struct, frozen=True):
    """How next hops are asked whether recipients exist."""

    sender: Annotated[
        str, Meta(description="The sender (MAIL FROM) of the questions. \"\": the null sender, `<>`.")
    ] = ""
    wait_s: Annotated[
        float,
        Meta(ge=0, description="How long a client waits for the answer. After that the recipient counts as not known; "
             "the question goes on, and its answer is kept."),
    ] = 6.0
    found_s: Annotated[float, Meta(ge=1, description="How long the node remembers that a recipient exists.")] = (
        31 * 86_400.0
    )
    found_refresh_s: Annotated[
        float, Meta(ge=1, description="After this time the next hop is asked again, while the old answer holds.")
    ] = 7 * 86_400.0
    missing_s: Annotated[
        float, Meta(ge=1, description="How long the node remembers that a recipient does not exist.")
    ] = 3 * 86_400.0
    missing_refresh_s: Annotated[
        float, Meta(ge=1, description="The same as `found_refresh_s`, for recipients that do not exist.")
    ] = 3 * 3_600.0
    not_known_s: Annotated[
        float, Meta(ge=0, description="If the next hop gave no answer: for how long it is not asked again about this "
                    "recipient.")
    ] = 60.0
    not_known: Annotated[
        NotKnown,
        Meta(description="What happens if nobody can tell whether a recipient exists, because the next hop does not "
             "answer or a limit is reached. `defer`: the client must try again (450). `accept`: the recipient is "
             "accepted; the sender gets a report if it does not exist."),
    ] = NotKnown.DEFER
    entries_max: Annotated[int, Meta(ge=100, description="How many answers are kept on the disk.")] = 100_000
    at_once_max: Annotated[
        int, Meta(ge=1, le=1000, description="How many questions are under way at a time, at all next hops.")
    ] = 20
    client_max: Annotated[
        int,
        Meta(ge=1, description="How many questions are asked within `span_s` for the clients of one network "
             "(/24, /64). Trusted and authenticated clients have no limit."),
    ] = 30
    domain_max: Annotated[
        int, Meta(ge=1, description="How many questions are asked within `span_s` about one domain.")
    ] = 300
    span_s: Annotated[float, Meta(ge=1, description="The time for `client_max` and `domain_max`.")] = 600.0


class KnownAnswer(Protocol):
    """An answer."""

    @property
    def found(self) -> bool: ...
    @property
    def at_us(self) -> int: ...
    @property
    def text(self) -> str: ...


Get = Callable[[str], KnownAnswer | None]
Put = Callable[[str, bool, int, str, str], None]
"""mailbox, found, at_us, what the next hop said, who it is"""
Ask = Callable[[Address], Awaitable[Attempt]]
"""Asks the next hop. Never raises; the attempt has been relayed or delivered if it would take the recipient."""
IsAsked = Callable[[Address], bool]
"""Whether only the next hop knows this recipient."""


class RecipientQuestions:
    """See the module. `tally`: the counts of the node. `log`: a line for each answer of a next hop."""

    def __init__(
        self, options: VerifyOptions, *, get: Get, put: Put, ask: Ask, now_us: Callable[[], int],
        log: Callable[[str], None], tally: Tally,
    ) -> None:
        self.options = options
        self._get, self._put, self._ask = get, put, ask
        self._now_us = now_us
        self._log = log
        self._under_way: dict[str, asyncio.Task[Attempt]] = {}
        self._not_known: OrderedDict[str, tuple[int, str]] = OrderedDict()  # until when, and why
        self._tally = tally

    def take(self, options: VerifyOptions) -> None:
        """Settings."""
        self.options = options

    def __call__(self, question: Question, address: Address) -> Verdict | Awaitable[Verdict]:
        """The verdict about a recipient that only its next hop knows."""
        options, now_us = self.options, self._now_us()
        key = _key(address)
        kept = self._get(key)
        until_us, why = self._not_known.get(key, (0, ""))
        if kept is not None:
            age_s = (now_us - kept.at_us) / 1_000_000
            if 0 <= age_s < (options.found_s if kept.found else options.missing_s):
                refresh_s = options.found_refresh_s if kept.found else options.missing_refresh_s
                if age_s >= refresh_s and now_us >= until_us:
                    self._begin(key, address, question)
                return ACCEPT if kept.found else _missing(address, kept.text)
        if now_us < until_us:
            return self._unknown(address, why)
        begun = self._begin(key, address, question)
        return self._unknown(address, begun) if isinstance(begun, str) else self._wait(address, begun)

    def _begin(self, key: str, address: Address, question: Question) -> asyncio.Task[Attempt] | str:
        """The question that is under way now, or why none is."""
        task = self._under_way.get(key)
        if task is not None:
            return task
        if self._tally.sessions(UNDER_WAY) >= self.options.at_once_max:
            return f"{self.options.at_once_max} questions to next hops are under way"
        if not (question.trusted or question.peer.identity) and not self._may(
            QUESTIONS + _network(question.peer.address), self.options.client_max
        ):
            return f"this client has caused {self.options.client_max} questions to next hops"
        if not self._may(DOMAIN_QUESTIONS + address.domain, self.options.domain_max):
            return f"{self.options.domain_max} questions about {address.domain} were asked"
        self._tally.came((UNDER_WAY,))
        task = self._under_way[key] = asyncio.ensure_future(self._run(key, address))
        task.add_done_callback(partial(self._ended, key))
        return task

    def _ended(self, key: str, task: asyncio.Task[Attempt]) -> None:
        """A question is over, also if it was broken off before it began."""
        self._under_way.pop(key, None)
        self._tally.went((UNDER_WAY,))

    def _may(self, key: str, most: int) -> bool:
        """Count one more; whether it is within the limit."""
        now_us = self._now_us()
        if self._tally.windows[WINDOW].total(key, now_us) > most - 1:
            return False
        self._tally.count(WINDOW, key, now_us)
        return True

    async def _run(self, key: str, address: Address) -> Attempt:
        attempt = await self._ask(address)
        now_us, found = self._now_us(), _found(attempt)
        said = attempt.reason[:_SHOWN_MAX]
        who = attempt.remote_name or attempt.transport
        if found is None:
            self._not_known[key] = now_us + int(self.options.not_known_s * 1_000_000), said
            self._not_known.move_to_end(key)
            if len(self._not_known) > _NOT_KNOWN_MAX:
                self._not_known.popitem(last=False)
            self._log(f"whether <{address}> exists is not known: {said}")
        else:
            self._put(key, found, now_us, said, who)
            self._log(f"<{address}> {'exists' if found else 'does not exist'}, says {who}: {said}")
        return attempt

    async def _wait(self, address: Address, task: asyncio.Task[Attempt]) -> Verdict:
        try:
            async with asyncio.timeout(self.options.wait_s):
                attempt = await asyncio.shield(task)
        except TimeoutError:
            return self._unknown(address, f"the next hop gave no answer in {self.options.wait_s:g} s")
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return self._unknown(address, "the question to the next hop was broken off")
        found = _found(attempt)
        if found is None:
            return self._unknown(address, attempt.reason)
        return ACCEPT if found else _missing(address, attempt.reason)

    def _unknown(self, address: Address, why: str) -> Verdict:
        if self.options.not_known is NotKnown.ACCEPT:
            return ACCEPT
        said = reply(450, "4.1.1", f"<{address}>: cannot be verified now, try again later")
        return Verdict(Action.DEFER, said, f"the recipient cannot be verified: {why}"[:_SHOWN_MAX])

    async def close(self) -> None:
        """Breaks off what is under way."""
        tasks = tuple(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def limit_of(key: str, options: VerifyOptions) -> int:
    """The limit of what a key of the tally counts; 0 if it does not count questions."""
    if key == UNDER_WAY:
        return options.at_once_max
    if key.startswith(QUESTIONS):
        return options.client_max
    return options.domain_max if key.startswith(DOMAIN_QUESTIONS) else 0


def _found(attempt: Attempt) -> bool | None:
    """Whether the recipient exists; None if this attempt does not tell."""
    if attempt.outcome in (Outcome.RELAYED, Outcome.DELIVERED):
        return True
    if attempt.outcome is Outcome.FAILED and attempt.reach is Reach.RECIPIENT:
        return False
    return None


def _missing(address: Address, text: str) -> Verdict:
    reason = f"its next hop does not take this recipient: {text}"[:_SHOWN_MAX]
    return reject(550, "5.1.1", f"<{address}>: no such user here", reason)


def _key(address: Address) -> str:
    return f"{address.local_part}@{address.domain}".lower()


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 64), strict=False))
