"""Kinds without a store of their own: static, cidr, and several maps as one (first, union)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec

from postroad.maps.face import NO_ANSWER, Answer, Map, NoAnswer, NotNow, WithKey
from postroad.maps.rules import UsedRules, parse_rules
from postroad.world.problem import Problem

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_RULE: Final = re.compile(r"(!?)\s*(\S+)\s*(.*)", re.DOTALL)
_REMEDY: Final = 'Write "192.0.2.0/24 value".'


class StaticSource:
    """One value for every key."""

    waits = False
    may_keep = True

    def __init__(self, value: str) -> None:
        self._value = value

    def look_up(self, key: str, part: bool = False) -> str:
        return self._value

    def close(self) -> None:
        """Nothing is held."""


class AwaySource:
    """Stands for what cannot be used: nobody can tell now. `why` says what is wrong."""

    waits = False
    may_keep = False

    def __init__(self, why: str) -> None:
        self.away = why

    def look_up(self, key: str, part: bool = False) -> NotNow:
        return NotNow(self.away)

    def close(self) -> None:
        """Nothing is held."""


class FirstSource:
    """Several maps in a row: the first that has the key answers. One that cannot answer now ends it: what the later
    ones say might be wrong."""

    def __init__(self, maps: Sequence[Map]) -> None:
        self.maps = tuple(maps)
        self.waits = any(map.waits for map in maps)

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        for index, map in enumerate(self.maps):
            answer = map.look_up(key, part)
            if answer is None:
                continue
            if isinstance(answer, str | NotNow):
                return answer
            return self._go_on(index, answer, key, part)
        return None

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        for map in self.maps:
            answer = map.known(key, part)
            if answer is not None:
                return answer
        return None

    async def _go_on(self, index: int, pending: Awaitable[Answer], key: str, part: bool) -> Answer:
        answer = await pending
        for map in self.maps[index + 1 :]:
            if answer is not None:
                return answer
            found = map.look_up(key, part)
            answer = found if found is None or isinstance(found, str | NotNow) else await found
        return answer

    def close(self) -> None:
        """The maps are closed by who made them."""


class UnionSource:
    """Several maps at once: all their values, with a comma between them (as unionmap of Postfix)."""

    def __init__(self, maps: Sequence[Map]) -> None:
        self.maps = tuple(maps)
        self.waits = any(map.waits for map in maps)

    def look_up(self, key: str, part: bool = False) -> Answer | Awaitable[Answer]:
        found = [map.look_up(key, part) for map in self.maps]
        answers = [each for each in found if each is None or isinstance(each, str | NotNow)]
        return _joined(answers) if len(answers) == len(found) else self._awaited(found)

    def known(self, key: str, part: bool = False) -> Answer | NoAnswer:
        answers: list[Answer] = []
        for map in self.maps:
            answer = map.known(key, part)
            if isinstance(answer, NoAnswer):
                return NO_ANSWER
            answers.append(answer)
        return _joined(answers)

    async def _awaited(self, found: Sequence[Answer | Awaitable[Answer]]) -> Answer:
        return _joined(
            [each if each is None or isinstance(each, str | NotNow) else await each for each in found]
        )

    def close(self) -> None:
        """The maps are closed by who made them."""


def _joined(answers: Sequence[Answer]) -> Answer:
    for answer in answers:
        if isinstance(answer, NotNow):
            return answer
    values = [answer for answer in answers if isinstance(answer, str)]
    if any(isinstance(value, WithKey) for value in values):
        joined = WithKey(",".join(values))
        joined.of_local_part = any(isinstance(value, WithKey) and value.of_local_part for value in values)
        return joined
    return ",".join(values) if values else None


# ---- cidr -----------------------------------------------------------------------------------------------------------


class CidrRule(msgspec.Struct):
    """One line: a network and its value, or a condition with the rules to its endif. `network`: None matches nothing.
    `line`, `written`: `maps.rules.Rule`."""

    network: IpNetwork | None
    negated: bool
    value: str
    inner: list[CidrRule] | None = None
    line: int = 0
    written: tuple[str, str] = ("", "")


class CidrSource(UsedRules):
    """Networks, in the order of the file (cidr_table(5) of Postfix): the first that holds the address answers."""

    waits = False

    def __init__(self, rules: Sequence[CidrRule], now_us: Callable[[], int]) -> None:
        super().__init__(rules, now_us)
        self._rules = rules

    def look_up(self, key: str, part: bool = False) -> str | None:
        try:
            address = ipaddress.ip_address(key)
        except ValueError:
            return None
        rule = _matched(self._rules, address)
        if rule is None:
            return None
        self.note(rule)
        return rule.value

    def __len__(self) -> int:
        return len(self._rules)

    def close(self) -> None:
        """Nothing is held."""


def _matched(rules: Sequence[CidrRule], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> CidrRule | None:
    for rule in rules:
        # A rule of the other family never matches, negated or not, as in Postfix.
        network = rule.network
        if network is None or address.version != network.version or (address in network) is rule.negated:
            continue
        if rule.inner is None:
            return rule
        found = _matched(rule.inner, address)
        if found is not None:
            return found
    return None


def parse_cidr(
    lines: Iterable[bytes], where: str, now_us: Callable[[], int]
) -> tuple[CidrSource, list[Problem]] | Problem:
    """The rules of a text; lines that are none are told and left out, as in Postfix."""
    found = parse_rules(
        lines,
        where,
        lambda text: _cidr_rule(text, condition=False),
        lambda text: _cidr_rule(text, condition=True),
        lambda: CidrRule(None, False, "", []),
        _REMEDY,
    )
    if isinstance(found, Problem):
        return found
    rules, doubts = found
    return CidrSource(rules, now_us), doubts


def _cidr_rule(text: str, *, condition: bool) -> CidrRule | str:
    found = _RULE.fullmatch(text)
    if found is None:
        return f"{text[:60]!r} is not a rule"
    negated, written, value = found[1] == "!", found[2], found[3].strip()
    try:
        network = ipaddress.ip_network(written.removeprefix("[").replace("]", "", 1))
    except ValueError as error:
        return f"{written[:60]!r} is not a network ({error})"
    if not value and not condition:
        return f"{written[:60]!r} has no value"
    return CidrRule(network, negated, value, [] if condition else None, written=(f"{found[1]}{written}", value))
