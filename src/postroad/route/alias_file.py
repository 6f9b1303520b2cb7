"""Reads a file of aliases, in the manner of aliases(5). Pure.

    # a comment
    postmaster: ada
    sales@example.org: ada, "bob b"@example.net,
        carol            a line that begins with white space goes on with the one before
    ada: \\ada, archive   \\name is the mailbox itself and not looked up again
    @old.example: @new.example

A name is a local-part (of every local domain), a mailbox, or ``@domain``: all mailboxes of the domain that have neither
an alias nor a box of their own. A target is a local-part (of the recipient's own domain), a mailbox, or ``@domain``
(the same local-part there). Programs, files, Maildirs and ``:include:`` are targets if the settings allow it
(`route.outlets`); what an included file holds stands in the place of the target (`route.includes`).

A target at one of our own domains must be a box or an alias there (`Homes`); a bare target of a bare name, at one of
them at least.

How it fails: with Problems that name file and line; a file with any is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from postroad.mail.address import Address, canonical_domain
from postroad.mail.expansion import InLoop
from postroad.mail.route import Destination
from postroad.protocol.grammar import parse_mailbox
from postroad.route import outlets
from postroad.route.outlets import OutletOptions, TargetSource
from postroad.route.recipients import NAME_MAX, fold
from postroad.world.problem import Problem


class AliasTarget(msgspec.Struct, frozen=True):
    """`local_part` "" is that of the recipient who is expanded, `domain` "" its domain. `final`: not looked up."""

    local_part: str
    domain: str = ""
    final: bool = False

    def of(self, address: Address) -> Address:
        """The mailbox that it is for this recipient."""
        return Address(self.local_part or address.local_part, self.domain or address.domain)


class OutletTarget(AliasTarget, frozen=True, kw_only=True):
    """A program, a file or a Maildir. The recipient keeps the name of the alias that names it."""

    destination: Destination


class AwayTarget(AliasTarget, frozen=True, kw_only=True):
    """Stands for targets that cannot be used now: mail to the alias waits. `why`: what is wrong."""

    why: str


AliasTable = Mapping[str, tuple[AliasTarget, ...]]
"""Targets by name: ``local-part``, ``local-part@domain`` or ``@domain``; local-parts folded, domains canonical."""


class AliasLimits(msgspec.Struct, frozen=True):
    """How much aliases may lead to."""

    alias_depth_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="How many aliases may follow one another, each leading to the next.",
        ),
    ] = 50
    alias_recipients_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="The most mailboxes that one alias may lead to. An alias file in which an alias leads to "
            "more is not loaded.",
        ),
    ] = 50_000
    message_recipients_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="The most mailboxes that all recipients of a message may lead to together, once their "
            "aliases are expanded. A mailbox counts once for each recipient that leads to it. A message "
            "with more is refused (554 5.2.4).",
        ),
    ] = 100_000

    def fault(self, depth: int, width: int, name: str) -> str:
        """What an alias that is so deep and so wide has too much of; "" for nothing."""
        if depth > self.alias_depth_max:
            return InLoop(f"<{name}>: more than {self.alias_depth_max} aliases follow one another")
        if width > self.alias_recipients_max:
            return f"<{name}>: the alias leads to more than {self.alias_recipients_max} mailboxes"
        return ""


class Homes(msgspec.Struct, frozen=True):
    """Our own domains. `known`: whether a mailbox is there; None if it is not ours or any is. It may also be called
    with an `Asked`, by which it then looks up. `delimiter`: begins an address extension."""

    domains: tuple[str, ...]
    known: Callable[..., bool | None]
    delimiter: str = "+"


_LIMITS: Final = AliasLimits()
_STEPS_MAX: Final = 2_000_000  # names that are followed while a file is judged; what is left is judged at expansion

# Up to a colon or a comma that stands outside of a quoted string (RFC 5321 §4.1.2).
_NAME: Final = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^":])*):(.*)')
_SPACED: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"\s])+')
_WORD: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])*')


class Targets(Protocol):
    """Reads one word of a list of targets."""

    def read(self, word: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        """The targets that it stands for (several if it includes a file), or what is wrong with it."""


class PlainTargets:
    """Without included files."""

    def __init__(self, options: OutletOptions = outlets.NOTHING) -> None:
        self._options = options
        self.owners = options.owners

    def read(self, word: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        if outlets.is_include(word):
            fault = outlets.include(word, source, self._options)
            return self._included(outlets.include_path(word), source) if fault is None else fault
        is_outlet = outlets.is_outlet(word) and not (source.place == "keys" and parse_mailbox(word) is not None)
        found = self._outlet(word, source) if is_outlet else _target(word)
        return found if isinstance(found, str) else (found,)

    def _included(self, path: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        """The targets in a file, or what is wrong with it."""
        return f"{path}: files are not included here"

    def _outlet(self, word: str, source: TargetSource) -> OutletTarget | str:
        found = outlets.outlet(word, source, self._options)
        return found if isinstance(found, str) else OutletTarget("", final=True, destination=found)


_PLAIN: Final = PlainTargets()


def parse(
    text: str, path: str, homes: Homes | None = None, limits: AliasLimits = _LIMITS, reader: Targets = _PLAIN,
    source: TargetSource = outlets.ALIASES, away: list[Problem] | None = None,
) -> AliasTable | tuple[Problem, ...]:
    """The aliases in a text, or all that is wrong with it. Without `homes`, targets may be what they like. `away`: if
    given, what is wrong with a single alias is put there, and its target is an `AwayTarget`."""
    problems: list[Problem] = []
    found: dict[str, tuple[AliasTarget, ...]] = {}
    lines: dict[str, int] = {}
    for number, line in _logical_lines(text):
        where = f"{path}:{number}"
        read = _alias(line, reader, source)
        if isinstance(read, str):
            problem, name = Problem(where, read, _remedy(line)), _name(line)
            if away is None or name is None:
                problems.append(problem)
            else:
                lines.setdefault(name, number)
                _set_away(found, name, problem, away)
        elif read[0] in found:
            remedy = "Put all targets into one of the two lines."
            problem = Problem(where, f"{read[0]!r} is given twice, first in line {lines[read[0]]}", remedy)
            if away is None:
                problems.append(problem)
            else:
                _set_away(found, read[0], problem, away)
        else:
            found[read[0]] = read[1]
            lines[read[0]] = number
    for name, problem in _together(found, path, lines, homes, limits, alone=not problems):
        if away is None:
            problems.append(problem)
        else:
            _set_away(found, name, problem, away)
    return tuple(problems) if problems else found


def _set_away(
    found: dict[str, tuple[AliasTarget, ...]], name: str, problem: Problem, away: list[Problem]
) -> None:
    """An alias that cannot be used."""
    found[name] = (AwayTarget("", final=True, why=f"{problem.where}: {problem.text}"),)
    away.append(problem)


def _together(
    found: AliasTable, path: str, lines: Mapping[str, int], homes: Homes | None, limits: AliasLimits, *, alone: bool
) -> list[tuple[str, Problem]]:
    """What is wrong with aliases as they follow one another, each with the name of the alias. `alone`: nothing else is
    wrong with the file, of which it could be a consequence that a target is missing."""
    problems: list[tuple[str, Problem]] = []
    for name in circles(found):
        text, remedy = f"{name!r} leads in a circle and never to a mailbox", "Let one of them lead to a mailbox."
        problems.append((name, Problem(f"{path}:{lines[name]}", text, remedy)))
    for name, fault in excessive(found, limits):
        remedy = "Use a mailing list manager, or raise alias_recipients_max or alias_depth_max in [limits]."
        problems.append((name, Problem(f"{path}:{lines[name]}", fault, remedy)))
    if homes is not None and alone and not problems:
        for name, target in missing(found, homes):
            text = f"{name!r} leads to {target}: there is no such alias, and no such mailbox that can get mail"
            remedy = "Correct the name, or add the mailbox to `recipients` of its domain."
            problems.append((name, Problem(f"{path}:{lines[name]}", text, remedy)))
    return problems


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, without comments; each with its first line's number."""
    first, parts = 0, list[str]()
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if raw[0] in " \t" and parts:
            parts.append(stripped)
            continue
        if parts:
            yield first, " ".join(parts)
        first, parts = number, [stripped]
    if parts:
        yield first, " ".join(parts)


def _remedy(line: str) -> str:
    """What to do about a line that cannot be read. What is wrong with a program or a file says it by itself."""
    found = _NAME.fullmatch(line)
    if found is not None and any(outlets.is_outlet(word) or outlets.is_include(word) for word in words(found[2])):
        return "See docs/aliases.md for programs, files and included files."
    return 'Write "name: target, target" (docs/aliases.md).'


def _name(line: str) -> str | None:
    """The name of the alias in a line, if there is one."""
    found = _NAME.fullmatch(line)
    return None if found is None else _key(found[1].strip())


def _alias(line: str, reader: Targets, source: TargetSource) -> tuple[str, tuple[AliasTarget, ...]] | str:
    """A name and its targets, or what is wrong."""
    found = _NAME.fullmatch(line)
    if found is None:
        return f"{line[:60]!r} has no colon after the name"
    name = _key(found[1].strip())
    if name is None:
        return f"{found[1].strip()[:60]!r} is neither a local-part nor a mailbox nor @domain"
    targets: dict[AliasTarget, None] = {}
    for word in words(found[2]):
        read = reader.read(word, source)
        if isinstance(read, str):
            return read
        targets.update(dict.fromkeys(read))
    return name, tuple(targets)


def targets_of(
    value: str, reader: Targets = _PLAIN, source: TargetSource = outlets.ALIASES
) -> tuple[AliasTarget, ...] | str:
    """The targets in a value of a map, or what is wrong with it. White space divides them, too, as in virtual(5)."""
    targets: dict[AliasTarget, None] = {}
    for part in words(value):
        for word in _SPACED.findall(part) or ("",):
            read = reader.read(word, source)
            if isinstance(read, str):
                return read
            targets.update(dict.fromkeys(read))
    return tuple(targets)


def words(text: str) -> Iterator[str]:
    """The words between commas; a comma at the very end is forgiven."""
    at = 0
    while True:
        found = _WORD.match(text, at)
        assert found is not None  # it matches the empty text, too
        at = found.end() + 1
        word = found[0].strip()
        if found.end() >= len(text):
            if word or not text.strip():
                yield word
            return
        yield word + text[found.end()] if text[found.end()] == '"' else word


def _key(name: str) -> str | None:
    if name.startswith("@"):
        domain = _domain(name[1:])
        return None if domain is None else f"@{domain}"
    address = _mailbox(name)
    if address is None or len(address.local_part) > NAME_MAX:
        return None
    local_part = fold(address.local_part, "")
    return f"{local_part}@{address.domain}" if address.domain else local_part


def _target(word: str) -> AliasTarget | str:
    """A target, or what is wrong with it."""
    if not word:
        return "a target is missing"
    if word.startswith("@"):
        domain = _domain(word[1:])
        return f"{word[:60]!r} is not a domain" if domain is None else AliasTarget("", domain)
    final = word.startswith("\\")
    address = _mailbox(word.removeprefix("\\"))
    if address is None:
        return f"{word[:60]!r} is not a mailbox"
    return AliasTarget(address.local_part, address.domain, final)


def _mailbox(word: str) -> Address | None:
    """A mailbox, or a local-part alone, whose domain is then ""."""
    address = parse_mailbox(word)
    if address is not None and address.domain:
        return address
    alone = parse_mailbox(f"{word}@{_ANY_DOMAIN}")
    return None if alone is None else Address(alone.local_part, "")


_ANY_DOMAIN: Final = "domain.invalid"


def _domain(text: str) -> str | None:
    try:
        return canonical_domain(text)
    except ValueError:
        return None


def circles(aliases: AliasTable) -> Iterator[str]:
    """The names that lead to no mailbox at all, only around among themselves.

    Names are followed as they are written: local-parts among local-parts, mailboxes among mailboxes. What only shows at
    a certain domain is seen at expansion.
    """
    for name in aliases:
        todo, seen = [name], {name}
        leads_out = False
        while todo and not leads_out:
            current = todo.pop()
            for target in aliases[current]:
                key = _followed(target)
                if target.final or key == current or key not in aliases:
                    leads_out = True
                    break
                if key not in seen:
                    seen.add(key)
                    todo.append(key)
        if not leads_out:
            yield name


def excessive(aliases: AliasTable, limits: AliasLimits) -> Iterator[tuple[str, str]]:
    """The names that lead to more than they may, each with what is too much. They are followed as in `circles`."""
    left = _STEPS_MAX
    for name in aliases:
        todo, seen = [(name, 1)], {name}
        fault = ""
        while todo and not fault and left > 0:
            current, depth = todo.pop()
            left -= len(aliases[current])
            for target in aliases[current]:
                key = _followed(target)
                if key not in seen:
                    seen.add(key)
                    if key in aliases and not target.final:
                        todo.append((key, depth + 1))
            fault = limits.fault(depth, len(seen) - 1, name)
        if fault:
            yield name, fault


def _followed(target: AliasTarget) -> str:
    if isinstance(target, OutletTarget):
        return target.destination.key
    local_part = fold(target.local_part, "")
    return f"{local_part}@{target.domain}" if target.domain else local_part


def missing(aliases: AliasTable, homes: Homes) -> Iterator[tuple[str, str]]:
    """Each name with each target of it that is at home with us, and is neither a box nor another alias there."""
    for name, targets in aliases.items():
        local_part, _, domain = name.rpartition("@") if "@" in name else (name, "", "")
        places = [Address(local_part, each) for each in ((domain,) if domain else homes.domains)]
        for target in targets:
            if isinstance(target, OutletTarget | AwayTarget):
                continue
            reached = [target.of(place) for place in places]
            if not reached or not reached[0].local_part:
                continue  # what "@new.example" means for all of "@old.example" depends on the recipient
            if not any(_is_there(aliases, homes, name, target, each) for each in reached):
                yield name, str(reached[0]) if target.domain or domain else f"{target.local_part!r} of no local domain"


def _is_there(aliases: AliasTable, homes: Homes, name: str, target: AliasTarget, reached: Address) -> bool:
    if homes.known(reached) is not False:
        return True
    return not target.final and any(key in aliases and key != name for key in keys(reached, homes.delimiter))


def keys(address: Address, delimiter: str) -> tuple[str, ...]:
    """The names under which an alias for this mailbox may stand, the most exact first."""
    whole = fold(address.local_part, "")
    names = dict.fromkeys((whole, fold(whole, delimiter)))
    return (*(key for name in names for key in (f"{name}@{address.domain}", name)), f"@{address.domain}")
