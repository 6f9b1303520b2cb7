"""How much an account, a sender's address or a trusted client may send within an hour and a day.

Counted is what the node has taken: messages, and the recipients that the client named. Refused and held mail does not
count. What a limit holds has counts and limits of its own, because it fills the disk until somebody releases it; it
counts when the limit has judged it, also if something else refuses it then.

A limit is asked about at MAIL, at each RCPT, when the content has come, and once more just before the message counts:
other sessions of the same account may have sent while filters, maps and the disk took their time. What always holds:
counts are of the whole node and are kept as `check.tally` says, with windows of an hour and a day; a limit may be
passed by what other workers take within `tally.TELL_S`, and by nothing else. Who is over a limit hears 450 4.7.1, or
the message is held, as the limit says; the office is told (`node.offices.sending`), which tells the postmaster once.

The last judgement asks no map: it takes the limit that the map gave when the content had come. The sender of a stranger
may be forged, so only mail of known clients counts for a sender. How it fails: with 451 4.3.0 if a map of limits cannot
answer.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import OrderedDict
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
from postroad.maps.asked import AT_ONCE, Asked, Entry, Known, answered
from postroad.maps.face import NO_ANSWER, Map, NoAnswer, NotNow
from postroad.maps.steps import KeyStep, sender_steps

HOUR: Final = 0
DAY: Final = 1
WINDOWS_S: Final = (3_600.0, 86_400.0)
MESSAGES: Final = "m"
RECIPIENTS: Final = "r"
HELD: Final = "h"  # messages that a limit has held
HELD_SIZE: Final = "z"  # their octets
_FOUND_MAX: Final = 10_000  # limits by map that are remembered for the last judgement
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
    held_max: Annotated[
        int,
        Meta(ge=0, description="With `over = \"hold\"`: the most messages that this limit holds within a day. What is "
             "over this is refused (450 4.7.1). 0: no limit."),
    ] = 1000
    held_size_max: Annotated[
        int, Meta(ge=0, description="The same for the octets of these messages. 0: no limit.")
    ] = 1_073_741_824

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
    return tuple(map(subject.key, (MESSAGES, RECIPIENTS, HELD, HELD_SIZE)))


class _Holds(NamedTuple):
    """The finding that the limit of a subject holds a message."""

    subject: LimitSubject
    text: str


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
        self._found: OrderedDict[LimitSubject, SendingLimit | None] = OrderedDict()  # by map, the last answers

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

    def over(self, peer: Peer, sender: Address | None, recipients: int, size: int) -> Verdict:
        """The verdict about one more message that would be taken now, with the limits by which the rules have judged
        it before."""
        limits = [(subject, self._limit_before(subject)) for subject in self._subjects(peer, sender)]
        if any(isinstance(limit, NoAnswer) for _, limit in limits):
            return Verdict(Action.DEFER, _UNSURE, "nobody can tell any more which limit holds for this message")
        known = [(subject, limit) for subject, limit in limits if not isinstance(limit, NoAnswer)]
        return self._counted(self._verdict(known, 1, recipients, size), size)

    def _limit_before(self, subject: LimitSubject) -> SendingLimit | NoAnswer | None:
        """The limit that was found for the last message of a subject."""
        if subject in self._found:
            return self._found[subject]
        known = Known()
        limit = self._limit(subject, known)
        return NO_ANSWER if known.stopped else limit

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
        return self._judge(question, 1, 0)

    def _rcpt(self, question: Question) -> Verdict | Awaitable[Verdict]:
        return self._judge(question, 0, question.recipients + 1)

    def _message(self, question: Question) -> Verdict | Awaitable[Verdict]:
        return self._judge(question, 1, question.recipients, question.size)

    def _judge(
        self, question: Question, messages: int, recipients: int, size: int | None = None
    ) -> Verdict | Awaitable[Verdict]:
        """`size`: of the whole message, None before it is there."""
        subjects = tuple(self._subjects(question.peer, question.reverse_path))
        if not subjects:
            return ACCEPT
        if not self._maps:
            limits = [(subject, self._limit(subject, AT_ONCE)) for subject in subjects]
            return self._counted(self._verdict(limits, messages, recipients, size), size)
        found = answered(partial(self._limits, subjects))
        if isinstance(found, list | NotNow):
            return self._judged(found, messages, recipients, size)
        return self._judged_later(found, messages, recipients, size)

    def _limits(
        self, subjects: tuple[LimitSubject, ...], asked: Asked
    ) -> list[tuple[LimitSubject, SendingLimit | None]]:
        return [(subject, self._limit(subject, asked)) for subject in subjects]

    def _judged(
        self, found: list[tuple[LimitSubject, SendingLimit | None]] | NotNow, messages: int, recipients: int,
        size: int | None,
    ) -> Verdict:
        if isinstance(found, NotNow):
            return Verdict(Action.DEFER, _UNSURE, found.text)
        for subject, limit in found:
            self._found[subject] = limit
            self._found.move_to_end(subject)
        while len(self._found) > _FOUND_MAX:
            self._found.popitem(last=False)
        return self._counted(self._verdict(found, messages, recipients, size), size)

    async def _judged_later(
        self, pending: Awaitable[list[tuple[LimitSubject, SendingLimit | None]] | NotNow], messages: int,
        recipients: int, size: int | None,
    ) -> Verdict:
        return self._judged(await pending, messages, recipients, size)

    def _verdict(
        self, limits: list[tuple[LimitSubject, SendingLimit | None]], messages: int, recipients: int, size: int | None
    ) -> Verdict | _Holds:
        holds: _Holds | None = None
        for subject, limit in limits:
            if limit is None:
                continue
            over = limit.over
            if over is Over.HOLD and self._is_full(subject, limit, size or 0):
                over = Over.REFUSE
            if over is Over.HOLD and (size is None or holds is not None):
                continue
            text = self._over(subject, limit, messages, recipients)
            if text and over is not limit.over:
                text += "; no more of its messages are held"
                self._told(subject.key(HELD), text)
            if text and over is Over.REFUSE:
                return defer(450, "4.7.1", f"{text[0].upper()}{text[1:]}, try again later", text)
            if text:
                holds = _Holds(subject, text)
        return ACCEPT if holds is None else holds

    def _counted(self, found: Verdict | _Holds, size: int | None) -> Verdict:
        """The verdict; a message that it holds counts from now on."""
        if isinstance(found, Verdict):
            return found
        now_us = self._now_us()
        self._tally.count(DAY, found.subject.key(HELD), now_us)
        self._tally.count(DAY, found.subject.key(HELD_SIZE), now_us, size or 0)
        return Verdict(Action.HOLD, reason=found.text)

    def _is_full(self, subject: LimitSubject, limit: SendingLimit, size: int) -> bool:
        """Whether so many messages of a subject are held that one more must not be."""
        total, now_us = self._tally.windows[DAY].total, self._now_us()
        if limit.held_max and total(subject.key(HELD), now_us) + 1 > limit.held_max:
            return True
        return limit.held_size_max > 0 and total(subject.key(HELD_SIZE), now_us) + size > limit.held_size_max

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
        if name == "over" and number not in _OVERS:
            return f"over may be refuse or hold, not {number!r}"
        found[name] = int(number) if name in _NUMBERS and number.isascii() and number.isdigit() else number
    if len(found) == 1:
        return "it names nothing"
    try:
        return msgspec.convert(found, SendingLimit)
    except msgspec.ValidationError as error:
        return str(error)


_OVERS: Final = tuple(each.value for each in Over)
_NUMBERS: Final = (
    "messages_per_hour", "recipients_per_hour", "messages_per_day", "recipients_per_day", "held_max", "held_size_max"
)  # fmt: skip
