"""How much an account, a sender's address or a trusted client may send within an hour and a day.

Counted is what the node has taken: messages, and the recipients that the client named. Refused and held mail does not
count. A limit is asked about at MAIL, at each RCPT, when the content has come, and once more just before the message
counts: other sessions of the same account may have sent while filters, maps and the disk took their time. What always
holds: counts are of the whole node and are kept as `check.tally` says, with windows of an hour and a day; a limit may
be passed by what other workers take within `tally.TELL_S`, and by nothing else. Who is over a limit hears 450 4.7.1, or
the message is held, as the limit says; the office is told (`node.offices.sending`), which tells the postmaster once.

The sender of a stranger may be forged, so only mail of known clients counts for a sender. How it fails: with 451 4.3.0
if a map of limits cannot answer.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from postroad.check.client import client_of
from postroad.check.tally import Tally
from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.extension import without_extension
from postroad.mail.judging import compose
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Rules, Verdict, defer
from postroad.mail.reply import reply
from postroad.maps.asked import Asked, Entry, Known, answered
from postroad.maps.face import NO_ANSWER, Map, NotNow
from postroad.maps.steps import KeyStep, sender_steps

HOUR: Final = 0
DAY: Final = 1
WINDOWS_S: Final = (3_600.0, 86_400.0)
MESSAGES: Final = "m"
RECIPIENTS: Final = "r"
_SPANS: Final = ("an hour", "a day")
_NAME_MAX: Final = 320  # characters of a name that is counted
_UNSURE: Final = reply(451, "4.3.0", "Nobody can tell now how much you may send, try again later")


class Whose(enum.Enum):
    """For whom a limit counts. The first letter stands in the key of the tally."""

    ACCOUNT = "account"
    SENDER = "sender"
    CLIENT = "client"


class Over(enum.Enum):
    """What becomes of mail that is over a limit."""

    REFUSE = "refuse"
    HOLD = "hold"


class SendingLimit(msgspec.Struct, frozen=True):
    """A table `[[sending.limit]]`."""

    whose: Annotated[
        Whose,
        Meta(
            description="Whose mail is counted. `account`: of each account that has logged in, and of each user of "
            "this machine who calls `sendmail`. `sender`: of each address in the reverse-path, without its extension, "
            "if the client has logged in or is trusted. `client`: of each client in a trusted network (an IPv4 "
            "address or an IPv6 /64) that has not logged in.",
        ),
    ]
    who: Annotated[
        tuple[str, ...],
        Meta(
            description="The limit is only for these: names of accounts; mailboxes and domains; addresses and "
            "networks. Unset: for each that no other table names.",
        ),
    ] = ()
    messages_per_hour: Annotated[int, Meta(ge=0, description="The most messages within an hour. 0: no limit.")] = 0
    recipients_per_hour: Annotated[
        int, Meta(ge=0, description="The most recipients of all messages within an hour. 0: no limit.")
    ] = 0
    messages_per_day: Annotated[int, Meta(ge=0, description="The most messages within a day. 0: no limit.")] = 0
    recipients_per_day: Annotated[
        int, Meta(ge=0, description="The most recipients of all messages within a day. 0: no limit.")
    ] = 0
    over: Annotated[
        Over,
        Meta(
            description="What happens to a message that is over a limit. `refuse`: the client hears 450 4.7.1 and "
            "tries again. `hold`: it is taken, and waits until somebody releases it.",
        ),
    ] = Over.REFUSE

    def numbers(self) -> tuple[tuple[int, str, int], ...]:
        """Window, what is counted, and the limit."""
        return (
            (HOUR, MESSAGES, self.messages_per_hour), (HOUR, RECIPIENTS, self.recipients_per_hour),
            (DAY, MESSAGES, self.messages_per_day), (DAY, RECIPIENTS, self.recipients_per_day),
        )  # fmt: skip


class SendingOptions(msgspec.Struct, frozen=True):
    """The table `[sending]`."""

    limits: tuple[SendingLimit, ...] = ()
    limit_maps: Annotated[
        tuple[str, ...],
        Meta(
            description="Maps with limits of single accounts, senders and clients, which win over the tables below. "
            "The key is the account; the address of the sender, or `@domain`; the address of the client. The value is "
            "`none`, or such as `messages_per_hour=100 recipients_per_day=1000 over=hold`; what it does not name has "
            "no limit. If a map cannot answer, the client is told to try again later (451 4.3.0).",
        ),
    ] = ()
    detail_delimiter: str = "+"


class LimitSubject(NamedTuple):
    """Somebody whose mail is counted."""

    whose: Whose
    name: str

    def key(self, what: str) -> str:
        return f"{what}{self.whose.value[0]}{self.name}"


def subject_of(key: str) -> LimitSubject:
    """The subject of a key of the tally."""
    return LimitSubject(next(each for each in Whose if each.value[0] == key[1]), key[2:])


def keys_of(subject: LimitSubject) -> tuple[str, ...]:
    return subject.key(MESSAGES), subject.key(RECIPIENTS)


class SendingLimits:
    """The limits of one worker. `told(key, text)`: somebody has reached a limit, which may be told more than once.
    `is_exempt`: users of this machine who have no limits."""

    def __init__(
        self, tally: Tally, now_us: Callable[[], int], told: Callable[[str, str], None],
        user_of: Callable[[Peer], str] = lambda peer: "",
    ) -> None:
        self._tally = tally
        self._now_us = now_us
        self._told = told
        self._user_of = user_of
        self._options = SendingOptions()
        self._maps: tuple[Map, ...] = ()
        self._kinds: frozenset[Whose] = frozenset()

    def take(self, options: SendingOptions, maps: tuple[Map, ...]) -> None:
        """Settings."""
        self._options, self._maps = options, maps
        self._kinds = frozenset(Whose) if maps else frozenset(limit.whose for limit in options.limits)

    @property
    def is_on(self) -> bool:
        return bool(self._kinds)

    # ---- Counts

    def count(self, peer: Peer, sender: Address | None, recipients: int, messages: int = 1) -> None:
        """Messages that the node has taken; negative numbers take back what came to nothing."""
        now_us = self._now_us()
        for subject in self._subjects(peer, sender):
            for window in (HOUR, DAY):
                self._tally.count(window, subject.key(MESSAGES), now_us, messages)
                self._tally.count(window, subject.key(RECIPIENTS), now_us, recipients)

    def _subjects(self, peer: Peer, sender: Address | None) -> Iterator[LimitSubject]:
        kinds = self._kinds
        if Whose.ACCOUNT in kinds:
            name = canonical_account(peer.identity) if peer.identity else self._user_of(peer)
            if name:
                yield LimitSubject(Whose.ACCOUNT, name[:_NAME_MAX])
        if Whose.SENDER in kinds and sender is not None and peer.is_known:
            base = without_extension(sender.local_part, self._options.detail_delimiter).lower()
            yield LimitSubject(Whose.SENDER, f"{base}@{sender.domain}"[:_NAME_MAX])
        if Whose.CLIENT in kinds and peer.trusted and not peer.identity and peer.address:
            yield LimitSubject(Whose.CLIENT, client_of(peer.address))

    def over(self, peer: Peer, sender: Address | None, recipients: int) -> Verdict:
        """The verdict about one more message that would be taken now, by what is known at once: the rules have waited
        for the maps just before."""
        subjects = tuple(self._subjects(peer, sender))
        return self._verdict(subjects, 1, recipients, True, Known()) if subjects else ACCEPT

    # ---- Rules

    def limited(self, rules: Rules) -> Rules:
        """The rules with the limits behind them."""
        if not self._kinds:
            return rules
        return msgspec.structs.replace(
            rules,
            mail=_behind(rules.mail, self._mail),
            rcpt=_behind(rules.rcpt, self._rcpt),
            message=_behind(rules.message, self._message),
        )

    def _mail(self, question: Question) -> Verdict | Awaitable[Verdict]:
        return self._judge(question, 1, 0, at_end=False)

    def _rcpt(self, question: Question) -> Verdict | Awaitable[Verdict]:
        return self._judge(question, 0, question.recipients + 1, at_end=False)

    def _message(self, question: Question) -> Verdict | Awaitable[Verdict]:
        return self._judge(question, 1, question.recipients, at_end=True)

    def _judge(
        self, question: Question, messages: int, recipients: int, *, at_end: bool
    ) -> Verdict | Awaitable[Verdict]:
        subjects = tuple(self._subjects(question.peer, question.reverse_path))
        if not subjects:
            return ACCEPT
        if not self._maps:
            return self._verdict(subjects, messages, recipients, at_end, Asked())
        found = answered(partial(self._verdict, subjects, messages, recipients, at_end))
        return _settled(found) if isinstance(found, Verdict | NotNow) else _settled_later(found)

    def _verdict(
        self, subjects: tuple[LimitSubject, ...], messages: int, recipients: int, at_end: bool, asked: Asked
    ) -> Verdict:
        limits = [(subject, self._limit(subject, asked)) for subject in subjects]
        if asked.stopped:
            return ACCEPT  # means nothing
        held = ACCEPT
        for subject, limit in limits:
            if limit is None or (limit.over is Over.HOLD and not at_end):
                continue
            text = self._over(subject, limit, messages, recipients)
            if text and limit.over is Over.REFUSE:
                return defer(450, "4.7.1", f"{text[0].upper()}{text[1:]}, try again later", text)
            if text and held is ACCEPT:
                held = Verdict(Action.HOLD, reason=text)
        return held

    def _over(self, subject: LimitSubject, limit: SendingLimit, messages: int, recipients: int) -> str:
        """Which limit so much more would pass, for people; "" for none."""
        now_us = self._now_us()
        for window, what, most in limit.numbers():
            more = messages if what == MESSAGES else recipients
            if not most or not more:
                continue
            key = subject.key(what)
            if self._tally.windows[window].total(key, now_us) + more > most:
                name = "messages" if what == MESSAGES else "recipients"
                text = f"the limit of the {subject.whose.value} {subject.name} is reached: {most} {name} within " \
                       f"{_SPANS[window]}"  # fmt: skip
                self._told(key, text)
                return text
        return ""

    # ---- Which limit

    def _limit(self, subject: LimitSubject, asked: Asked) -> SendingLimit | None:
        found = asked.first(_steps(subject), self._maps) if self._maps else None
        if found is not None:
            return None if found is NO_ANSWER else _parsed(found, subject, asked)
        every: SendingLimit | None = None
        for limit in self._options.limits:
            if limit.whose is not subject.whose:
                continue
            if not limit.who:
                every = every or limit
            elif any(_is_meant(name, subject) for name in limit.who):
                return limit
        return every


def _steps(subject: LimitSubject) -> Iterable[KeyStep]:
    """The keys under which its limit may stand in a map."""
    if subject.whose is not Whose.SENDER:
        return (KeyStep(subject.whose.value, subject.name),)
    local_part, _, domain = subject.name.rpartition("@")
    return sender_steps(local_part, domain, "")


def _behind(rule: Rule | None, limit: Rule) -> Rule | None:
    return compose((rule, limit) if rule is not None else (limit,))


def _settled(found: Verdict | NotNow) -> Verdict:
    return Verdict(Action.DEFER, _UNSURE, found.text) if isinstance(found, NotNow) else found


async def _settled_later(found: Awaitable[Verdict | NotNow]) -> Verdict:
    return _settled(await found)


def _is_meant(name: str, subject: LimitSubject) -> bool:
    match subject.whose:
        case Whose.ACCOUNT:
            return canonical_account(name) == subject.name
        case Whose.SENDER:
            domain = subject.name.rpartition("@")[2]
            if "@" in name:
                return name == subject.name
            return name == domain or (name.startswith(".") and domain.endswith(name))
        case Whose.CLIENT:
            client, network = ipaddress.ip_network(subject.name), ipaddress.ip_network(name)
            return client.version == network.version and client.overlaps(network)


def _parsed(entry: Entry, subject: LimitSubject, asked: Asked) -> SendingLimit | None:
    value, key, name = entry
    found = limit_of(value, subject.whose)
    if isinstance(found, str):
        asked.refuse(f"map {name}: the value of {key!r} is not a limit: {found}")
        return None
    return found


def limit_of(value: str, whose: Whose) -> SendingLimit | str:
    """The limit that a value of a map says, or what is wrong with it."""
    if value.strip().lower() == "none":
        return SendingLimit(whose)
    found: dict[str, object] = {"whose": whose.value}
    for word in value.replace(",", " ").split():
        name, equals, number = word.partition("=")
        if name not in _NUMBERS and name != "over":
            return f"there is no limit {name!r}"
        if not equals or name in found:
            return f"{name!r} needs one number" if name not in found else f"{name!r} is there twice"
        found[name] = int(number) if name in _NUMBERS and number.isascii() and number.isdigit() else number
    if len(found) == 1:
        return "it names nothing"
    try:
        return msgspec.convert(found, SendingLimit)
    except msgspec.ValidationError as error:
        return str(error)


_NUMBERS: Final = ("messages_per_hour", "recipients_per_hour", "messages_per_day", "recipients_per_day")
