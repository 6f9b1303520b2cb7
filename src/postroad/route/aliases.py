"""Aliases: one recipient becomes others when its message is accepted (RFC 5321 §3.9.1, RFC 3461 §5.2.7).

What always holds: expansion ends, because no mailbox is expanded twice on its way, and `AliasLimits` bound how deep and
how wide it goes; an alias that the message has already come through (`passed`) is not followed again; each mailbox is
there once, and so is each file that an alias names; a program runs once for each alias that names it; the
reverse-path stays (§3.9.1), unless there is an alias ``owner-NAME`` for the alias NAME: then it is this one (RFC 3461
§5.2.7.1; the null reverse-path stays); a recipient that no alias names is passed on as it is; an alias that at its
domain leads only in a circle is the mailbox of its own name, so that no recipient is ever lost; no alias leads to a
mailbox of ours that is not there (one of whose targets none is there takes no mail). Local-parts are compared without
regard to case; ``name+x`` is looked up as such, then as ``name``.

Behind the file of aliases stand maps (`maps.face`): what the file does not name is looked up in them, in the order of
`maps.steps`. A value is a list of targets, as in the file. A method that looks up takes an `Asked`; if this says
afterwards that it stopped, an answer of a map is missing and the result means nothing.

How it fails: if aliases lead to more than they may, nothing is expanded and `Expansion.excess` says so; a file that
is wrong gives Problems (`route.alias_file`), and the aliases from before stay in force; a value of a map that is no
list of targets is NotNow: mail waits until it is mended. If an included file is broken, its old targets stay in
force (`route.includes`). When a node starts, there is nothing from before: an alias that cannot be used is NotNow then,
or, if the file cannot be read at all, each of them.

Where an alias leads is found at RCPT, and used again at the end of data if that comes within a second
(`maps.editions`). So maps are asked once for a message. What leads to many is found anew, and so is all that depends on
the files of users.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from postroad.mail import wishes
from postroad.mail.address import Address
from postroad.mail.envelope import Notify, Recipient, asked_by_both
from postroad.mail.event import Expanded
from postroad.mail.expansion import Expansion, InLoop, Passed
from postroad.mail.extension import extension_at, extension_of
from postroad.mail.route import Destination, Transport
from postroad.maps.asked import AT_ONCE, Asked, Entry
from postroad.maps.editions import MapAnswers
from postroad.maps.face import NO_ANSWER, Map, WithKey
from postroad.maps.simple import AwaySource
from postroad.maps.steps import OWNER, KeyStep, address_steps, whole_domain_step
from postroad.route import outlets
from postroad.route.alias_file import (
    AliasLimits,
    AliasTable,
    AliasTarget,
    AwayTarget,
    Homes,
    OutletTarget,
    parse,
    targets_of,
)
from postroad.route.forwards import Forwards
from postroad.route.includes import IncludingTargets
from postroad.route.outlets import OutletOptions, TargetSource
from postroad.route.recipients import FILE_MAX, NAME_MAX, POSTMASTER, fold, read_text
from postroad.world.files import Watch, stamp
from postroad.world.problem import Problem

Exists = Callable[[Address], bool]
"""Whether a mailbox has a box of its own, which a rule for its whole domain does not take away."""

__all__ = ["AliasLimits", "Aliases", "Exists", "parse"]

_LIMITS: Final = AliasLimits()
MAILER_DAEMON: Final = "mailer-daemon"
_TO_POSTMASTER: Final = (AliasTarget(POSTMASTER),)
_NO_SOURCES: Final[Mapping[str, TargetSource]] = MappingProxyType({})
_PARSED_MAX: Final = 10_000  # values of maps whose targets are remembered
_LEADS_MAX: Final = 10_000  # aliases of which is kept where they lead
_LED_MAX: Final = 10  # ends of an alias of which that is kept


class Outlet(msgspec.Struct, frozen=True):
    """A program or file to which an alias leads. `address`: of the alias that names it."""

    address: Address
    destination: Destination

    def __str__(self) -> str:
        return self.destination.outlet


End = Address | Outlet


class _Lead(msgspec.Struct, frozen=True):
    """Where an alias leads in the end, through which aliases, and the owners of the lists that led there."""

    ends: list[End]
    through: tuple[Address, ...]
    owners: dict[End, Address]


class _Walk:
    """The way through aliases for one message: those that it is led through, and those where it stops, because it has
    been there before. `steps`: those of the recipient who is being expanded."""

    __slots__ = ("_passed", "asked", "circle", "excess", "most", "owners", "steps", "stopped", "through")

    def __init__(self, passed: Passed | None = None, asked: Asked = AT_ONCE, most: int = 0) -> None:
        self._passed = passed
        self.asked = asked
        self.most = most  # ends that who asks wants to hear of; 0: all
        self.steps: dict[Address, None] = {}
        self.owners: dict[End, Address] = {}  # of the list that led to an end of the recipient who is being expanded
        self.through: dict[Address, None] = {}
        self.stopped: dict[Address, None] = {}
        self.excess = ""
        self.circle = False  # whether an alias was reached a second time

    def has_passed(self, alias: Address) -> bool:
        """Note the step to an alias; whether the message has been there before."""
        if self._passed is not None and self._passed(alias):
            self.stopped[alias] = None
            return True
        self.steps[alias] = None
        return False

    @property
    def is_new(self) -> bool:
        """Whether it leads where it leads all messages: this one has been through no alias before."""
        return self._passed is None

    def keep(self) -> None:
        """The steps were taken: the message is led through these aliases."""
        self.through.update(self.steps)
        self.steps.clear()


class Aliases:
    """The aliases of one file ("" for none), read again by `load` when it changes.

    `is_local`: whether a domain is ours: only its mailboxes are looked up. `delimiter`: begins an address extension.
    `postmaster`: who gets the mail to the postmaster of a local domain that has neither such a box nor such an alias.
    `homes`: what is there at our own domains; None: nothing is known of it, and all is taken to be there. `limits`: how
    much aliases may lead to. `hostname`: ours, in canonical form: mail to MAILER-DAEMON there is the postmaster's.
    `maps`: where aliases are looked up that the file does not name. `has_own`: it is not known yet if `hostname` is a
    local domain. `options`: where programs, files and includes may stand; `sources`: of the alias file ("") and of
    maps, by name. `extensions_kept`: which aliases put an address extension on their targets: `aliases`, `alias_maps`.
    `catch_all_first`: whether an alias for a whole domain takes the mail of its boxes, too. `forwards`: the files
    ``.forward`` of users, which count after aliases. `home_maps`: those by which `homes` finds mailboxes.
    """

    def __init__(
        self,
        path: str,
        is_local: Callable[[str], bool],
        delimiter: str = "+",
        postmaster: Address | None = None,
        homes: Homes | None = None,
        limits: AliasLimits = _LIMITS,
        hostname: str = "",
        maps: tuple[Map, ...] = (),
        has_own: bool = False,
        options: OutletOptions = outlets.NOTHING,
        sources: Mapping[str, TargetSource] = _NO_SOURCES,
        extensions_kept: tuple[str, ...] = (),
        catch_all_first: bool = False,
        forwards: Forwards | None = None,
        home_maps: tuple[Map, ...] = (),
    ) -> None:
        self._path = path
        self._is_local = is_local
        self._delimiter = delimiter
        self._postmaster = () if postmaster is None else (AliasTarget(postmaster.local_part, postmaster.domain),)
        self._map: AliasTable = {}
        self._maps = self._given = maps
        self._quick_maps = tuple(map for map in maps if not map.waits)
        self._lenient = False  # whether single aliases, or the whole file, may be away: nothing older is there
        self._reader = IncludingTargets(options)
        self._sources = sources
        self._parsed: OrderedDict[tuple[str, str], tuple[AliasTarget, ...] | str] = OrderedDict()
        self._homes = homes
        self._limits = limits
        self._hostname = hostname
        # Whether there are mailboxes that are aliases anyhow.
        self._extensions_kept = extensions_kept
        self._catch_all_first = catch_all_first
        self._forwards = forwards
        leads: MapAnswers[Address, _Lead] = MapAnswers(_LEADS_MAX, (*maps, *home_maps))
        self._leads = leads if maps and forwards is None and leads.may_keep else None
        own = has_own or forwards is not None or self._postmaster or (hostname and is_local(hostname))
        self._has_own = bool(own)
        self._watch = Watch()
        self.edition = 0  # how often the file was taken
        self.refused = False  # whether the file as it stands was not taken

    def load(self, edition: int = 0, *, patient: bool = False, starting: bool = False) -> tuple[Problem, ...]:
        """Read the file if it, a file that it includes, or what is there at home (of which `edition` tells), has
        changed. What is wrong with it, once; the aliases from before stay then. `patient`: only if nobody seems to be
        writing one of them (`world.files.Watch`). `starting`: there are none from before. Until all is right, an alias
        that cannot be used is "not now", and so is every one if the whole file cannot be used."""
        file = (stamp(self._path), edition) if self._path else ()
        if not self._watch.has_changed((file, self._reader.changes()), patient=patient):
            return ()
        self._watch.taken((file, ()))
        self._reader.begin()
        self._parsed.clear()
        self.forget()
        self._lenient = self._lenient or starting
        away: list[Problem] | None = [] if self._lenient else None
        found = self._read(away) if self._path else {}
        told = (*(away or ()), *self._reader.told())
        self.refused = isinstance(found, tuple)
        if isinstance(found, tuple):
            if starting:
                self._put_away(found[0])
            return (*found, *told)
        self._map, self._maps = found, self._given
        self._quick_maps = tuple(map for map in self._maps if not map.waits)
        self._lenient = any(isinstance(target, AwayTarget) for targets in found.values() for target in targets)
        self.edition += 1
        return told

    def _put_away(self, problem: Problem) -> None:
        """Nothing can be told of any alias: before all maps stands one that says so."""
        file = Map(self._path, "aliases", AwaySource(f"{problem.where}: {problem.text}"), _unheard)
        self._maps = (file, *self._given)
        self._quick_maps = tuple(map for map in self._maps if not map.waits)

    def _usable(self, found: tuple[AliasTarget, ...] | None, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """These targets. If one of them is away, mail waits."""
        for target in found or ():
            if isinstance(target, AwayTarget):
                asked.refuse(target.why)
                return None
        return found

    def _read(self, away: list[Problem] | None) -> AliasTable | tuple[Problem, ...]:
        text = read_text(self._path, FILE_MAX)
        if isinstance(text, Problem):
            return (text,)
        source = self._sources.get("", outlets.ALIASES)
        self._reader.lenient = away is not None
        try:
            return parse(text, self._path, self._homes, self._limits, self._reader, source, away)
        finally:
            self._reader.lenient = False

    def forget(self) -> None:
        """What was found of where aliases lead may be wrong now: other mailboxes or domains are ours."""
        if self._leads is not None:
            self._leads.clear()

    def leads(self, address: Address) -> bool:
        """Whether it is known now where the mailbox leads as an alias: whoever asks for it waits for no map."""
        return self._leads is not None and self._leads.get(address) is not None

    @property
    def has_maps(self) -> bool:
        return bool(self._maps) or self._forwards is not None or self._lenient

    def names(self, address: Address, asked: Asked = AT_ONCE, exists: Exists | None = None) -> bool:
        """Whether an alias takes mail for this mailbox, by its name or for its whole domain. `exists`: as `expand` will
        have it, so that it need not look for the same again."""
        named = self._named(address, asked)
        if named is None and self._whole(address, asked) is None and not self._is_daemon(address):
            return False
        if self._homes is None:
            return True
        if self._leads is not None and exists is not None:
            walk = _Walk(None, asked, _LED_MAX)
            if self._resolve(address, exists, walk, named) and not walk.excess:
                return True
            if isinstance(walk.excess, InLoop) and not asked.stopped:  # as the end of data would find it
                return False
        is_box = self._is_box if asked is AT_ONCE else partial(self._is_box, asked=asked)
        return bool(self._ends(address, is_box, _Walk(None, asked), one=True, named=named))

    def has_name(self, address: Address, asked: Asked) -> bool:
        """Whether an alias stands for this very mailbox."""
        return self._named(address, asked) is not None

    def has_name_in_maps(self, address: Address, asked: Asked) -> bool:
        """Whether maps have an alias for this very mailbox, and not only for its whole domain."""
        if not self._maps or not self._is_local(address.domain) or len(address.local_part) > NAME_MAX:
            return False
        return self._looked_up(address_steps(address.local_part, address.domain, self._delimiter), asked) is not None

    def standing(self, address: Address) -> Address:
        """The mailbox by whose name an alias takes this one's mail: itself, or itself without its address extension."""
        if extension_at(address.local_part, self._delimiter) < 0 or self._extensions_kept:
            return address
        if self._named(address) is not None:
            base = Address(fold(address.local_part, self._delimiter), address.domain)
            if self._named(base) is self._named(address):
                return base
        return address

    def members(self, address: Address, exists: Exists, asked: Asked = AT_ONCE) -> list[Address] | None:
        """The mailboxes that an alias leads to in the end; None if there is no alias of this name."""
        found = self.ends(address, exists, asked)
        return None if found is None else [end for end in found if isinstance(end, Address)]

    def ends(self, address: Address, exists: Exists, asked: Asked = AT_ONCE) -> list[End] | None:
        """The same with programs and files."""
        return self._resolve(address, exists, _Walk(None, asked))

    def steps(
        self, address: Address, exists: Exists, asked: Asked, most: int
    ) -> list[tuple[Address, tuple[Address | Outlet, ...]]]:
        """The aliases on the way from a mailbox, each with its targets as they stand there, for people: up to `most`
        of them, the nearest first."""
        found: list[tuple[Address, tuple[Address | Outlet, ...]]] = []
        todo, seen = deque([address]), {address}
        while todo and len(found) < most:
            current = todo.popleft()
            targets = self._targets(current, exists, asked)
            if targets is None:
                continue
            extension = self._unmatched(current, asked) if self._extensions_kept else ""
            reached: list[Address | Outlet] = []
            for target in targets:
                if isinstance(target, OutletTarget):
                    reached.append(Outlet(current, target.destination))
                    continue
                mailbox = target.of(current)
                if extension and target.local_part:
                    mailbox = Address(f"{mailbox.local_part}{extension}", mailbox.domain)
                reached.append(mailbox)
                if not target.final and mailbox not in seen:
                    seen.add(mailbox)
                    todo.append(mailbox)
            found.append((current, tuple(reached)))
        return found

    def excess(self, address: Address, exists: Exists) -> str:
        """What an alias has too much of; "" if it has not, or is none."""
        walk = _Walk()
        self._resolve(address, exists, walk)
        return walk.excess

    def entangled(self, address: Address, asked: Asked) -> str:
        """Why an alias that exists leads to nobody, if it goes in a circle or too deep; "" otherwise."""
        walk = _Walk(None, asked)
        if self._ends(address, partial(self._is_box, asked=asked), walk):
            return ""
        return walk.excess or (InLoop(f"<{address}>: its aliases lead in a circle") if walk.circle else "")

    def expand(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], exists: Exists, passed: Passed | None = None,
        asked: Asked = AT_ONCE, most: int = 0,
    ) -> Expansion:
        """What becomes of the recipients of message `id`, each mailbox once, with an event for each that was expanded.

        Equal mailboxes that the client gave itself are made one, too. `passed`: whether the message has been led
        through an alias before. `most`: aliases that lead to more than so many are not followed (`Expansion.excess`).
        """
        if not (self._map or self._has_own or self._maps) and (len(recipients) == 1 or _are_different(recipients)):
            return Expansion(recipients)
        result: dict[Hashable, Recipient] = {}
        events: list[Expanded] = []
        walk = _Walk(passed, asked, most)
        twins: dict[tuple[int, str], tuple[Recipient, Expanded, object]] = {}
        count = 0
        for recipient in recipients:
            likeness = self._likeness(recipient.address, exists, asked) if len(recipients) > 1 else None
            key = None if likeness is None else (_identity(likeness), recipient.address.domain)
            twin = twins.get(key) if key is not None else None
            if twin is not None and _is_twin(recipient, twin[0], result):
                ends: Sequence[End] = ()
                into = () if walk.has_passed(recipient.address) else twin[1].into
                walk.keep()
            else:
                found = self._resolve(recipient.address, exists, walk)
                if found is None:
                    _add(result, recipient)
                    continue
                ends, into = found, tuple(map(str, found))
            if into:
                listed = all(end in walk.owners for end in ends) if ends else twin is not None and twin[1].listed
                events.append(Expanded(now_us, id, str(recipient.given or recipient.address), into, listed))
                if key is not None:
                    twins.setdefault(key, (recipient, events[-1], likeness))
            for end in ends:
                _add(result, _became(recipient, end, len(ends), walk.owners.get(end)))
            count += len(into)
            if not walk.excess and count > self._limits.message_recipients_max:
                walk.excess = f"the recipients lead to more than {self._limits.message_recipients_max} mailboxes"
            if walk.excess:
                return Expansion((), excess=walk.excess)
        return Expansion(tuple(result.values()), tuple(events), tuple(walk.through), tuple(walk.stopped))

    def _likeness(self, address: Address, exists: Exists, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """What two mailboxes of a domain share that lead to the same ones, such as `list+1` and `list+2`. A client may
        name a thousand of them in one message; the way behind them is gone once. None: it leads nowhere, or elsewhere
        for each."""
        if self._extensions_kept and extension_of(address.local_part, self._delimiter):
            return None
        targets = self._targets(address, exists, asked)
        return targets if targets is not None and all(target.local_part for target in targets) else None

    def _resolve(
        self, address: Address, exists: Exists, walk: _Walk, named: tuple[AliasTarget, ...] | None = None
    ) -> list[End] | None:
        """The mailboxes that an alias leads to in the end; None if it is none, or leads only to itself."""
        if self._leads is not None and walk.is_new:
            lead = self._leads.get(address)
            if lead is not None and not 0 < walk.most < len(lead.ends):
                walk.owners = lead.owners
                walk.through.update(dict.fromkeys(lead.through))
                return lead.ends
        before = len(walk.stopped)
        walk.owners = {}
        ends = self._ends(address, exists, walk, named=named)
        if ends is None or ends == [address] or not (ends or walk.excess or len(walk.stopped) > before):
            walk.steps.clear()
            return None
        if self._leads is not None and walk.is_new and not walk.excess and len(ends) <= _LED_MAX:
            self._leads.keep(address, _Lead(ends, tuple(walk.steps), walk.owners), walk.asked)
        walk.keep()
        return ends

    def _ends(
        self, address: Address, exists: Exists, walk: _Walk, *, one: bool = False,
        named: tuple[AliasTarget, ...] | None = None,
    ) -> list[End] | None:
        """Where an alias leads in the end: programs, files, and mailboxes, of ours only those that there are. None
        if it is none. `one`: the first that is found is enough. `named`: the targets by its name, if they were
        looked up before."""
        targets = named or self._targets(address, exists, walk.asked)
        if targets is None:
            return None
        if walk.has_passed(address):
            return []
        ends: dict[End, None] = {}
        seen = {address}
        todo = [(address, targets, 1, None if one else self._owner(address, None, walk.asked))]
        while todo:
            current, targets, depth, owner = todo.pop()
            if depth > self._limits.alias_depth_max:
                walk.excess = self._limits.fault(depth, 0, str(address))
                return []
            if walk.most and len(ends) + len(targets) > walk.most:
                walk.excess = f"<{address}> leads to more than {walk.most} mailboxes"
                return []
            extension = self._unmatched(current, walk.asked) if self._extensions_kept else ""
            for target in targets:
                if isinstance(target, OutletTarget):
                    outlet = Outlet(current, target.destination)
                    ends.setdefault(outlet)
                    if owner is not None:
                        walk.owners.setdefault(outlet, owner)
                    if one:
                        return list(ends)
                    continue
                reached = target.of(current)
                if extension and target.local_part:
                    reached = Address(f"{reached.local_part}{extension}", reached.domain)
                # Its own name among its targets is the mailbox itself, as \name is.
                following = None if target.final else self._following(reached, current, targets, exists, walk.asked)
                if reached == current and following is not None:  # the file of the user, behind his alias
                    todo.append((reached, following, depth + 1, owner))
                elif following is None:
                    if self._homes is None or self._is_there(reached, walk.asked):
                        ends.setdefault(reached)
                        if owner is not None:
                            walk.owners.setdefault(reached, owner)
                        if one:
                            return list(ends)
                elif reached not in seen:
                    seen.add(reached)
                    if not walk.has_passed(reached):
                        owned = None if one else self._owner(reached, owner, walk.asked)
                        todo.append((reached, following, depth + 1, owned))
                else:
                    walk.circle = True
            walk.excess = walk.excess or self._limits.fault(depth, max(len(ends), len(seen)), str(address))
            if walk.excess:
                return []
        return list(ends)

    def _following(
        self, reached: Address, current: Address, targets: tuple[AliasTarget, ...], exists: Exists, asked: Asked
    ) -> tuple[AliasTarget, ...] | None:
        """The targets behind a target. None if it is a mailbox: also the own name of an alias, unless its user has a
        file ``.forward``."""
        if reached != current:
            return self._targets(reached, exists, asked)
        if self._forwards is None or not exists(reached):
            return None
        found = self._forwards.targets(reached, asked)
        return None if found is targets else found

    def _owner(self, address: Address, before: Address | None, asked: Asked) -> Address | None:
        """The owner of a list, if it has one; else that of the list which led to it. An owner has none."""
        if not self._reader.owners or not (self._map or any(map.may_begin(OWNER) for map in self._quick_maps)):
            return before
        for name in dict.fromkeys((fold(address.local_part, ""), fold(address.local_part, self._delimiter))):
            if not name.startswith(OWNER):
                owner = Address(OWNER + name, address.domain)
                if self._exactly(owner, asked) is not None:
                    return owner
        return before

    def _exactly(self, address: Address, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """The targets of an alias of this very name at a domain of ours, which has no address extension. Maps that
        have to be waited for are not asked: that would be two more questions to a database for each message to an
        alias."""
        name = address.local_part
        found = self._map.get(f"{name}@{address.domain}") or self._map.get(name)
        if self._lenient:
            found = self._usable(found, asked)
        if found is None and self._quick_maps:
            return self._looked_up(address_steps(name, address.domain, ""), asked, self._quick_maps)
        return found

    def _is_there(self, address: Address, asked: Asked) -> bool:
        return self._known(address, asked) is not False

    def _is_box(self, address: Address, asked: Asked = AT_ONCE) -> bool:
        return self._known(address, asked) is True

    def _known(self, address: Address, asked: Asked) -> bool | None:
        if self._homes is None:
            return None
        return self._homes.known(address) if asked is AT_ONCE else self._homes.known(address, asked)

    def _targets(self, address: Address, exists: Exists, asked: Asked) -> tuple[AliasTarget, ...] | None:
        if not self._is_local(address.domain):
            return None  # at once: most targets and recipients are elsewhere
        found = self._named_here(address, asked)
        box = found is None and exists(address)
        if found is not None:
            return found
        if box:
            found = self._whole(address, asked) if self._catch_all_first else None
            return found if found is not None or self._forwards is None else self._forwards.targets(address, asked)
        if self._postmaster and fold(address.local_part, "") == POSTMASTER:
            return self._postmaster
        if self._is_daemon(address):
            return _TO_POSTMASTER
        return self._whole(address, asked)

    def _is_daemon(self, address: Address) -> bool:
        """Whether answers to our reports go there, whose name is a local domain."""
        if address.domain != self._hostname or fold(address.local_part, "") != MAILER_DAEMON:
            return False
        return self._is_local(address.domain)

    def _named(self, address: Address, asked: Asked = AT_ONCE) -> tuple[AliasTarget, ...] | None:
        """The targets of an alias for this very mailbox."""
        return self._named_here(address, asked) if self._is_local(address.domain) else None

    def _named_here(self, address: Address, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """The same at a domain that is known to be ours."""
        aliases = self._map
        if not (aliases or self._maps) or len(address.local_part) > NAME_MAX:
            return None
        found = self._in_file(aliases, address) if aliases else None
        if self._lenient:
            found = self._usable(found, asked)
        if found is None and self._maps:
            return self._looked_up(address_steps(address.local_part, address.domain, self._delimiter), asked)
        return found

    def _in_file(self, aliases: AliasTable, address: Address) -> tuple[AliasTarget, ...] | None:
        name = fold(address.local_part, "")
        found = aliases.get(f"{name}@{address.domain}") or aliases.get(name)
        if found is None and self._delimiter:
            base = fold(name, self._delimiter)
            if base != name:
                found = aliases.get(f"{base}@{address.domain}") or aliases.get(base)
        return found

    def _unmatched(self, address: Address, asked: Asked) -> str:
        """The address extension that the alias for this mailbox says nothing of, if it is kept; else ""."""
        extension = extension_of(address.local_part, self._delimiter)
        if not extension or not self._is_local(address.domain):
            return ""
        whole, base = fold(address.local_part, ""), fold(address.local_part, self._delimiter)
        if f"{whole}@{address.domain}" in self._map or whole in self._map:
            return ""
        if f"{base}@{address.domain}" in self._map or base in self._map:
            return extension if "aliases" in self._extensions_kept else ""
        if "alias_maps" not in self._extensions_kept:
            return ""
        for step in address_steps(address.local_part, address.domain, self._delimiter):
            if self._looked_up((step,), asked) is not None:
                return extension if "without extension" in step.what else ""
        return ""

    def _whole(self, address: Address, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """The targets of an alias for its whole domain."""
        if not self._is_local(address.domain):
            return None
        found = self._map.get(f"@{address.domain}")
        if self._lenient:
            found = self._usable(found, asked)
        if found is None and self._maps:
            return self._looked_up((whole_domain_step(address.domain),), asked)
        return found

    def _looked_up(
        self, steps: Iterable[KeyStep], asked: Asked, maps: tuple[Map, ...] | None = None
    ) -> tuple[AliasTarget, ...] | None:
        """The targets that a map has under the first of these keys."""
        found = asked.first(steps, self._maps if maps is None else maps)
        return None if found is None or found is NO_ANSWER else self._parse(found, asked)

    def _parse(self, entry: Entry, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """The targets in a value; equal values give the same tuple (`_likeness`)."""
        value, key, name = entry
        source = outlets.KEYS if isinstance(value, WithKey) else self._sources.get(name, outlets.SERVICES)
        place = (value, f"{source.place} {source.by}")
        found = self._parsed.get(place)
        if found is None:
            found = self._parsed[place] = targets_of(value, self._reader, source)
            if len(self._parsed) > _PARSED_MAX:
                self._parsed.popitem(last=False)
        if isinstance(found, str):
            asked.refuse(f"map {name}: the value of {key!r} cannot be used as an alias: {found}")
            return None
        return self._usable(found, asked) if self._lenient else found


def _unheard(text: str) -> None:
    """Nothing can go wrong there."""


def _identity(value: object) -> int:
    """Its own as long as the value is kept."""
    return id(value)


def _is_twin(recipient: Recipient, other: Recipient, result: Mapping[Hashable, Recipient]) -> bool:
    """Whether all that this one leads to is there already by the other one, which leads to the same."""
    return recipient.notify is other.notify and recipient.address not in result


def _are_different(recipients: tuple[Recipient, ...]) -> bool:
    return len({recipient.address for recipient in recipients}) == len(recipients)


def _became(recipient: Recipient, end: End, count: int, owner: Address | None) -> Recipient:
    """What a recipient is at one of the `count` ends of its alias. The mailbox as the client named it is kept.

    RFC 3461 §5.2.7.2: a single one has all parameters; §5.2.7.3 (c): several have all but the wish to hear of success,
    which the "expanded" report of the alias grants. RRVS= is about the owner of the alias, and ends with it (RFC 7293).
    """
    given = recipient.given
    address = end if isinstance(end, Address) else end.address
    if given is None and address != recipient.address:
        given = recipient.address
    notify = recipient.notify if count == 1 else _without_success(recipient.notify)
    parameters = recipient.parameters
    if parameters and end != recipient.address:
        parameters = tuple(pair for pair in parameters if pair[0] != wishes.RRVS)
    destination = None if isinstance(end, Address) else end.destination
    if owner is not None:  # RFC 3461 §5.2.7.1 (b): nothing of the client's is passed on
        return Recipient(address, destination=destination, sender=owner)
    return msgspec.structs.replace(
        recipient, address=address, notify=notify, given=given, parameters=parameters, destination=destination
    )


def _without_success(notify: Notify) -> Notify:
    """RFC 3461 §5.2.7.3 (c). Where success was all that was asked for, nothing is (an absent NOTIFY would ask for
    failures)."""
    if not notify & Notify.SUCCESS:
        return notify
    return notify & ~Notify.SUCCESS or Notify.NEVER


def _add(result: dict[Hashable, Recipient], recipient: Recipient) -> None:
    """One more recipient; one for a mailbox that is there already brings its NOTIFY with it."""
    key: Hashable = recipient.address
    if recipient.destination is not None and recipient.destination.outlet:
        key = recipient.destination.key
        if recipient.destination.transport is Transport.PROGRAM:
            key = (recipient.address, key)
    there = result.get(key)
    if there is None:
        result[key] = recipient
    elif there.sender is not None and recipient.sender is None:
        result[key] = recipient  # who is named beside the list has the mail of its sender
    elif there.notify is not recipient.notify:
        result[key] = msgspec.structs.replace(there, notify=asked_by_both(there.notify, recipient.notify))
