"""Which mailboxes of our own domains (and of relay domains that name them) exist; others get 550 5.1.1 at RCPT.

What always holds: local-parts are compared without regard to case and without their address extension (``ada+lists`` is
``ada``); ``postmaster`` exists always (RFC 5321 §4.5.1); a file may say since when a mailbox has its owner, and the
settings may say it for a domain (RFC 7293). How it fails: if a file cannot be read, or a line is no mailbox, a Problem
names file and line, and the recipients from before stay in force. If there are none from before, nobody can tell now
whether a mailbox that the settings do not name exists: mail waits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from postroad.mail import wishes
from postroad.mail.address import Address, canonical_domain
from postroad.mail.extension import extension_at
from postroad.mail.owned import Owned
from postroad.maps.asked import AT_ONCE, Asked
from postroad.maps.face import Map
from postroad.maps.simple import AwaySource
from postroad.maps.steps import address_steps, whole_domain_step
from postroad.route.domains import DomainTable
from postroad.route.options import ANY, LocalDomain, RelayDomain, RoutingOptions
from postroad.world.files import Watch, open_file, stamp
from postroad.world.problem import Problem, unreadable

POSTMASTER: Final = "postmaster"
FILE_MAX: Final = 268_435_456  # octets of a file of recipients or aliases
NAME_MAX: Final = 512  # characters of a local-part that is looked up: no command line holds a longer one


class Mailboxes(msgspec.Struct, frozen=True):
    """The mailboxes of one domain: those of `names`, of the file at `path` and of `maps`, or all if `every` is set.
    `delimiter`: begins an address extension, "" for none. `since_us`: since when the domain is ours, 0: not said.
    `many`: they are those of many domains, and names may be ``name@domain``. `verify`: there may be others, whom only
    the next hop knows. `paths`: the maps have the paths of mailboxes, so that no name with a slash is there by them."""

    names: tuple[str, ...] = ()
    path: str = ""
    every: bool = False
    delimiter: str = "+"
    since_us: int = 0
    maps: tuple[Map, ...] = ()
    many: bool = False
    verify: bool = False
    paths: bool = False


def mailboxes_of(
    options: RoutingOptions, named: Callable[[tuple[str, ...]], tuple[Map, ...]] = lambda names: ()
) -> dict[str, Mailboxes]:
    """What the settings tell of local domains and of relay domains, by pattern. `named`: the maps of these names."""
    domains: list[LocalDomain | RelayDomain] = [
        *options.local, *options.relay, *options.mapped_local, *options.mapped_relay
    ]
    return {
        domain.name: Mailboxes(
            domain.recipients, domain.recipients_file, domain.recipients == (ANY,), options.detail_delimiter,
            wishes.date_or_time_us(domain.since) or 0 if isinstance(domain, LocalDomain) else 0,
            named((*domain.recipient_maps, *_path_maps(domain))), bool(domain.domain_maps), domain.verify,
            bool(_path_maps(domain)),
        )
        for domain in domains
    }


def _path_maps(domain: LocalDomain | RelayDomain) -> tuple[str, ...]:
    return domain.path_maps if isinstance(domain, LocalDomain) else ()


class Recipients:
    """The mailboxes of domains by pattern (as `DomainTable` has them). `load` before use. `table_of`: the name of the
    table that serves a domain as one of many (`RoutingTable.table_of`). `further`: mailboxes of
    these domains that exist, too."""

    def __init__(
        self, domains: Mapping[str, Mailboxes], table_of: Callable[[str], str] | None = None,
        further: Container[Address] = (),
    ) -> None:
        self._boxes = {pattern: _Boxes(pattern, mailboxes) for pattern, mailboxes in domains.items()}
        self._table = DomainTable(self._boxes.items())
        self._table_of = table_of
        self._further = further

    def _of(self, domain: str) -> _Boxes | None:
        table = self._table_of(domain) if self._table_of is not None else ""
        return self._boxes[table] if table else self._table.find(domain)

    @property
    def edition(self) -> int:
        """Another number whenever other mailboxes are known."""
        return sum(boxes.taken for boxes in self._boxes.values())

    def load(self, *, patient: bool = False, starting: bool = False) -> tuple[Problem, ...]:
        """Read files that have changed since. What is wrong with them; each state of a file is complained of once.
        `patient`: only files that nobody seems to be writing (`world.files.Watch`). `starting`: there is nothing from
        before."""
        boxes = self._boxes.values()
        return tuple(problem for each in boxes if (problem := each.load(patient, starting=starting)) is not None)

    @property
    def has_maps(self) -> bool:
        return any(boxes.has_maps for boxes in self._boxes.values())

    @property
    def maps(self) -> tuple[Map, ...]:
        """All that are asked for mailboxes."""
        return tuple(map for boxes in self._boxes.values() for map in boxes.maps)

    def has_maps_for(self, domain: str) -> bool:
        """Whether maps say which mailboxes there are."""
        boxes = self._of(domain)
        return boxes is not None and boxes.has_maps

    def known(self, address: Address, asked: Asked = AT_ONCE) -> bool | None:
        """Whether mail for the mailbox is taken; None if nothing is said of its domain. What would have to be waited
        for is taken to be there; `asked` tells of it."""
        boxes = self._of(address.domain)
        if boxes is None:
            return None
        if boxes.holds(address, asked) or fold(address.local_part, "") == POSTMASTER:
            return True
        return address in self._further

    def is_open(self, domain: str) -> bool:
        """Whether there may be mailboxes whom only the next hop knows."""
        boxes = self._of(domain)
        return boxes is not None and boxes.is_open

    @property
    def are_open(self) -> bool:
        """Whether there are such domains."""
        return any(boxes.is_open for boxes in self._boxes.values())

    def is_named(self, address: Address, asked: Asked) -> bool:
        """Whether the mailbox itself was named, so that no next hop need be asked."""
        boxes = self._of(address.domain)
        return boxes is not None and (boxes.names(address, asked) or address in self._further)

    def owned(self, address: Address) -> Owned | None:
        """Since when the mailbox has its owner; None if nothing is said of its domain."""
        boxes = self._of(address.domain)
        return None if boxes is None else boxes.owned(address)

    def has_box(self, address: Address, asked: Asked = AT_ONCE) -> bool:
        """Whether the mailbox was named, or its domain has any: ``postmaster``, too, must have been."""
        boxes = self._of(address.domain)
        return boxes is not None and (boxes.holds(address, asked) or address in self._further)


class _Boxes:
    """The mailboxes of one pattern, as last read."""

    __slots__ = ("_given", "_mailboxes", "_names", "_own", "_pattern", "_watch", "taken")

    def __init__(self, pattern: str, mailboxes: Mailboxes) -> None:
        self._pattern = pattern
        self._mailboxes = mailboxes
        self._given = mailboxes.maps
        self._own = {self._folded(name): 0 for name in mailboxes.names}
        self._names = self._own  # each with the time since when it has its owner
        self._watch = Watch()
        self.taken = 0  # how often the file was

    def _folded(self, name: str) -> str:
        delimiter = self._mailboxes.delimiter
        if not self._mailboxes.many:
            return fold(name.removesuffix(f"@{self._pattern}"), delimiter)
        local_part, at, domain = name.rpartition("@")
        return f"{fold(local_part, delimiter)}@{canonical_domain(domain)}" if at else fold(name, delimiter)

    @property
    def has_maps(self) -> bool:
        return bool(self._mailboxes.maps)

    @property
    def maps(self) -> tuple[Map, ...]:
        return self._mailboxes.maps

    @property
    def is_open(self) -> bool:
        return self._mailboxes.verify and not self._mailboxes.every

    def holds(self, address: Address, asked: Asked) -> bool:
        if self._mailboxes.verify:
            return len(address.local_part) <= NAME_MAX
        return self.names(address, asked)

    def names(self, address: Address, asked: Asked) -> bool:
        local_part, mailboxes = address.local_part, self._mailboxes
        if len(local_part) > NAME_MAX:
            return False
        if mailboxes.every or self._name(address) in self._names:
            return True
        return bool(mailboxes.maps) and self._in_maps(address, asked)

    def _name(self, address: Address) -> str:
        """By which it may stand in `_names`. A table of many domains names mailboxes of all, or ``name@domain``."""
        name = fold(address.local_part, self._mailboxes.delimiter)
        if self._mailboxes.many and name not in self._names:
            return f"{name}@{address.domain}"
        return name

    def _in_maps(self, address: Address, asked: Asked) -> bool:
        """Any value says that the mailbox is there. True also if an answer is missing (`Asked.stopped`)."""
        if self._mailboxes.paths and "/" in address.local_part:
            return False
        steps = address_steps(address.local_part, address.domain, self._mailboxes.delimiter)
        return asked.first((*steps, whole_domain_step(address.domain)), self._mailboxes.maps) is not None

    def owned(self, address: Address) -> Owned:
        since_us = self._names.get(self._name(address), 0)
        return Owned(since_us, self._mailboxes.since_us)

    def load(self, patient: bool, *, starting: bool = False) -> Problem | None:
        path = self._mailboxes.path
        if not path or not self._watch.has_changed(stamp(path), patient=patient):
            return None
        read = read_names(path, "" if self._mailboxes.many else self._pattern, self._mailboxes.delimiter)
        if isinstance(read, Problem):
            if starting:
                away = Map(path, "recipients", AwaySource(f"{read.where}: {read.text}"), _unheard)
                self._mailboxes = replace(self._mailboxes, maps=(*self._mailboxes.maps, away))
            return read
        if any(isinstance(each.source, AwaySource) for each in self._mailboxes.maps):
            self._mailboxes = replace(self._mailboxes, maps=self._given)
        self._names = self._own | read
        self.taken += 1
        return None


def _unheard(text: str) -> None:
    """Nothing can go wrong there."""


def fold(local_part: str, delimiter: str) -> str:
    """The mailbox's name within its domain: lower case, composed, without an address extension. A delimiter at the
    beginning begins none: "+lists" is a mailbox of that name."""
    name = local_part.lower() if local_part.isascii() else unicodedata.normalize("NFC", local_part).lower()
    at = extension_at(name, delimiter)
    return name[:at] if at > 0 else name


def read_text(path: str, size_max: int) -> str | Problem:
    """A file of names in UTF-8, of at most `size_max` octets."""
    try:
        with open_file(path) as file:
            octets = file.read(size_max + 1)
    except OSError as error:
        return unreadable(path, error)
    if len(octets) > size_max:
        return Problem(path, f"has more than {size_max} octets", "Write fewer names into it.")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return Problem(path, "is not in UTF-8", "Save it in UTF-8.")


def read_names(path: str, domain: str, delimiter: str) -> dict[str, int] | Problem:
    """The local-parts in a file: one in each line, ``#`` begins a comment. ``name@domain`` counts for its domain only,
    so that one file may serve several; with `domain` "" it is kept as it is. ``since=2014-04-03`` (or a date-time of
    RFC 3339) behind a name says since when the mailbox has its owner: the value, in microseconds since 1970, else 0."""
    text = read_text(path, FILE_MAX)
    if isinstance(text, Problem):
        return text
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, rest = (*line.partition("#")[0].split(None, 1), "", "")[:2]
        if not word:
            continue
        since_us = _since_us(rest.strip())
        if since_us is None:
            remedy = "Write nothing but since=2014-04-03, or since=2014-04-03T12:00:00Z, after a name."
            return Problem(f"{path}:{number}", f"{f'{word} {rest.strip()}'[:60]!r} is not a mailbox", remedy)
        local_part, at, written = word.rpartition("@")
        if not at:
            local_part, written = word, domain
        if not local_part or len(local_part) > NAME_MAX or not local_part.isprintable():
            return Problem(f"{path}:{number}", f"{word[:60]!r} is not a mailbox", "Write name or name@domain.")
        try:
            place = canonical_domain(written) if at else domain
            if place == domain:
                names[fold(local_part, delimiter)] = since_us
            elif not domain:
                names[f"{fold(local_part, delimiter)}@{place}"] = since_us
        except ValueError:
            return Problem(f"{path}:{number}", f"{written[:60]!r} is not a domain", "Write name or name@domain.")
    return names


def _since_us(text: str) -> int | None:
    """0 for nothing, None for what says no time."""
    if not text:
        return 0
    return wishes.date_or_time_us(text.removeprefix("since=")) if text.startswith("since=") else None
