"""Tables: what the settings say of routing, recipients, aliases and rules, put together for one worker.

A reload replaces them as a whole. Files that change by themselves (aliases, recipients) are looked at now and then.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from postroad.accounts.sender_maps import Owns, SenderMaps
from postroad.check import relay
from postroad.check.known_domains import once_known
from postroad.check.policy import Directory, PolicyOptions, rules
from postroad.check.relay import cannot_look_up, names_a_way
from postroad.config import aliasing, options
from postroad.config.mailboxes import unreachable
from postroad.deliver.credentials import Credentials
from postroad.deliver.options import MaildirOptions
from postroad.mail import verp
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.event import Expanded
from postroad.mail.expansion import Expansion, Passed, excess_status
from postroad.mail.job import WayOut
from postroad.mail.judging import compose
from postroad.mail.owned import Owned
from postroad.mail.policy import ACCEPT, Question, Rule, Rules, Verdict
from postroad.mail.returned import Returned
from postroad.mail.route import Destination, Route
from postroad.mail.routing import Answer, DestinationOf, Found
from postroad.mail.tls_policy import StsPolicies, no_sts
from postroad.maps.asked import AT_ONCE, Asked, Known, answered
from postroad.maps.face import Map, NotNow
from postroad.maps.maps import Maps, make
from postroad.node.wiring.forwards import forwards
from postroad.node.wiring.quota import MailboxRoom, has_quotas
from postroad.protocol.offer import Dialect
from postroad.receive.doors import Members
from postroad.receive.options import ListenerOptions
from postroad.route import demand, mx
from postroad.route.aliases import Aliases
from postroad.route.by_next_hop import ByNextHop
from postroad.route.domain_maps import KnownRoute, mapped_domains
from postroad.route.domains import OwnNames, is_here
from postroad.route.forwards import Forwards
from postroad.route.generic import Naming
from postroad.route.later import Later
from postroad.route.outbound import HopNames, generic_names, outbound
from postroad.route.outlets import OutletOptions
from postroad.route.path_maps import PathRoute
from postroad.route.recipients import Recipients, mailboxes_of
from postroad.route.relocated import Relocated, RelocatedRoute
from postroad.route.report_mailboxes import ReportMailboxes, ReportRoute
from postroad.route.rewrite_options import RelocatedReply
from postroad.route.rewriting import Rewriter, is_ours_in, rewriter
from postroad.route.senders import Senders
from postroad.route.senders import senders as make_senders
from postroad.route.table import RoutingTable
from postroad.route.tls_maps import TlsPolicyMaps
from postroad.route.transport_maps import TransportMaps
from postroad.route.way_out import ways_out
from postroad.world.clock import Clock, SystemClock
from postroad.world.dns import Resolver
from postroad.world.porter_link import Porter
from postroad.world.problem import Problem, unreadable

if TYPE_CHECKING:
    from postroad.config.routing import LocalDomainSection
    from postroad.config.settings import Settings


T = TypeVar("T")
AskNextHop = Callable[[Question, Address], Verdict | Awaitable[Verdict]]

_LED_ON_MAX: Final = 100  # mailboxes that a name such as user%other may lead to
_STOPPED_MAX: Final = 10_000  # mailboxes of which is remembered whether mail can come to them


class _Unknown:
    """Not asked yet."""


_UNKNOWN: Final = _Unknown()


class Tables:
    """See the module. Make it with `build`."""

    def __init__(
        self,
        *,
        routing: RoutingTable,
        recipients: Recipients,
        aliases: Aliases,
        credentials: dict[str, Credentials],
        mx_options: mx.MxOptions,
        ourselves: OwnNames,
        maildir: MaildirOptions,
        maps: Maps,
        transports: TransportMaps | None = None,
        tell: Callable[[str, str], None] = lambda level, text: None,
        senders: Senders | None = None,
        sender_maps: SenderMaps | None = None,
        rewriter: Rewriter | None = None,
        relocated: Relocated | None = None,
        try_new: bool = True,
        sending_maps: tuple[Map, ...] = (),
        names: HopNames | None = None,
        signed_fields: bool = False,
        report_mailboxes: ReportMailboxes | None = None,
        tls_maps: tuple[Map, ...] = (),
    ) -> None:
        self.routing = routing
        self._tls_told = TlsPolicyMaps(tls_maps).told if tls_maps else None
        self.rewriter = rewriter
        self._relocated = relocated  # mailboxes that have moved
        self._try_new = try_new
        self._renames = rewriter is not None and rewriter.changes_recipients
        self._transports = transports
        self.maps = maps
        self._mapped = routing.mapped
        # Whether maps may be asked for a recipient.
        self._has_maps = (
            aliases.has_maps or recipients.has_maps or routing.mapped is not None
            or (relocated is not None and relocated.waits)
        )  # fmt: skip
        self.credentials = credentials
        self._route: DestinationOf = routing.route if transports is None else transports.route
        if relocated is not None:
            self._route = RelocatedRoute(relocated, self._route)
        self._senders = senders
        self.sender_maps = sender_maps
        self.sending_maps = sending_maps
        if routing.mapped is not None:
            self._route = KnownRoute(
                routing.mapped, routing.is_mapped, self._route,
                with_sender=senders is not None or any(each.has_maps for each in (names or {}).values()),
            )
            routing.mapped.changed.append(self._forget)
        if any(each.path_maps for each in (*routing.options.local, *routing.options.mapped_local)):
            self._route = PathRoute(routing.options, maps.named, self._route)
        if report_mailboxes:
            self._route = ReportRoute(report_mailboxes, self._route)
        renaming = outbound(routing.options, names or {})
        self._ways_out = ways_out(routing.options, names or {}, signed_fields=signed_fields)
        waits = any(each.waits for each in (names or {}).values())
        self._naming = Naming(ByNextHop(routing.options, (names or {}).get)) if waits else None
        if renaming is not None:
            renaming = verp.after(renaming)
        self.outbound = renaming if senders is None else senders.outbound(renaming or verp.outbound)
        self.ask_next_hop: AskNextHop | None = None  # set by who can reach next hops
        self.room: MailboxRoom | None = None
        if has_quotas(routing.options):
            self.room = MailboxRoom(
                local=routing.local, mailbox=self._mailbox, named=maps.named, answered=self._answered,
                delimiter=routing.options.detail_delimiter, tell=tell,
            )
        self._recipients = recipients
        self._has_box: Callable[..., bool] = recipients.has_box if relocated is None else self._is_spared
        self._aliases = aliases
        self._mx_options = mx_options
        self._ourselves = ourselves
        self.is_here = partial(is_here, ourselves)  # whether a client is this machine
        self._maildir = maildir
        # What `_nowhere` has found since a file was last taken: for mailboxes, and for them as clients name them.
        self._stopped: dict[Address, Attempt | None] = {}
        self._named: dict[Address, Attempt | None] = {}
        self._edition = recipients.edition, aliases.edition  # of the files by which it was found

    async def hops(
        self, destination: Destination, resolver: Resolver, chance: random.Random, sts: StsPolicies = no_sts
    ) -> Route | Attempt:
        return await mx.hops(destination, resolver, chance, self._mx_options, self._ourselves, sts, self._tls_told)

    def known(self, address: Address) -> bool | NotNow | Awaitable[bool | NotNow | None] | None:
        """Whether a mailbox of ours exists, as a box or as an alias; None if the domain is not ours. An awaitable if
        a map must be waited for."""
        if self._renames:
            return self._answered(partial(self._known_renamed, address))
        if self._has_maps:
            return self._aliases.leads(address) or self._answered(partial(self._known, address))
        mailbox = self.routing.home(address)
        box = self._recipients.known(mailbox)
        if box is None or box:
            return box
        return self._aliases.names(mailbox)

    def is_nobody(self, address: Address) -> bool:
        """Whether it is known at once that the domain is ours and has neither such a mailbox nor such an alias."""
        asked = Known()
        found = self._known_renamed(address, asked) if self._renames else self._known(address, asked)
        return found is False and not asked.stopped

    def _answered(self, question: Callable[[Asked], T]) -> T | NotNow | Awaitable[T | NotNow]:
        """The answer to a question; domains by map that it needs are looked up for it."""
        return answered(question) if self._mapped is None else self._mapped.answered(question)

    def _known(self, address: Address, asked: Asked) -> bool | None:
        mailbox = self.routing.home(address)
        box = self._recipients.known(mailbox, asked)
        return box if box is None or box or asked.stopped else self._names(mailbox, asked)

    def _names(self, mailbox: Address, asked: Asked) -> bool:
        return self._aliases.names(mailbox, asked, partial(self._has_box, asked=asked))

    def _forget(self, domain: str) -> None:
        """Maps say another thing of a domain than before."""
        self._aliases.forget()
        self._stopped.clear()
        self._named.clear()

    def _known_renamed(self, address: Address, asked: Asked) -> bool | None:
        """The same for the mailbox that canonical maps and masquerading make of it. One elsewhere is a good one."""
        assert self.rewriter is not None
        other = self.rewriter.recipient(address, asked)
        if asked.stopped:
            return None
        found = self._known(other, asked)
        if found is not None or other == address:
            return found
        return None if self._known(address, asked) is None else True

    def _exists(self, address: Address) -> relay.Found | Awaitable[relay.Found]:
        found = self.known(address)
        if found is False:
            return self._answered(partial(self._entangled, address))
        if found is None or found is True or isinstance(found, NotNow):
            return bool(found) if not isinstance(found, NotNow) else found
        return self._existing(address, found)

    async def _existing(self, address: Address, pending: Awaitable[bool | NotNow | None]) -> relay.Found:
        found = await pending
        if found is not False:
            return found if isinstance(found, NotNow) else bool(found)
        answer = self._answered(partial(self._entangled, address))
        return answer if isinstance(answer, bool | Attempt | NotNow) else await answer

    def _entangled(self, address: Address, asked: Asked) -> bool | Attempt:
        """Of a mailbox that does not exist: False, or why the alias of its name leads to nobody."""
        mailbox = self.routing.home(address)
        if self.rewriter is not None and self._renames:
            mailbox = self.rewriter.recipient(mailbox, asked)
        why = self._aliases.entangled(mailbox, asked)
        return _has_too_much(mailbox, why) if why else False

    def verified(self, address: Address) -> bool | Awaitable[bool | None] | None:
        """The same for VRFY: None also if nobody can tell now, or only the next hop."""
        if self._recipients.is_open(address.domain):
            return None
        found = self.known(address)
        if found is None or isinstance(found, bool):
            return found
        return None if isinstance(found, NotNow) else _verified(found)

    def owned(self, address: Address) -> Owned | None:
        """Since when a mailbox of ours has its owner; None if the domain is not ours."""
        return self._recipients.owned(self.routing.home(address)) if self.routing.is_local(address.domain) else None

    def destination(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """Where the mail for a recipient goes next (`mail.routing.DestinationOf`), as the parameters of envelope and
        recipient demand it."""
        if recipient.sender is not None:
            envelope = envelope.of(recipient)
        found = self._route(envelope, recipient)
        if self._naming is not None:
            found = self._naming.asked(envelope, recipient, found)
        if envelope.parameters or recipient.parameters:
            if type(found) is Destination:
                return demand.refined(envelope, recipient, found, self.owned(recipient.address))
            if not isinstance(found, Destination | Attempt):
                return Later(partial(self._demanded, envelope, recipient, found))
        return found

    async def _demanded(self, envelope: Envelope, recipient: Recipient, pending: Awaitable[Found]) -> Found:
        found = await pending
        if isinstance(found, Attempt):
            return found
        return demand.refined(envelope, recipient, found, self.owned(recipient.address))

    def way_out(self, destination: Destination) -> WayOut | None:
        """What is changed of header sections on the way to a destination."""
        return None if self._ways_out is None else self._ways_out.of(destination)

    def members(self, address: Address) -> Members | Awaitable[Members]:
        """The mailboxes that an alias of ours leads to; None if there is none. An awaitable if a map must be waited
        for."""
        if self._has_maps:
            return self._answered(partial(self._members, address))
        return self._aliases.members(self.routing.home(address), self._has_box)

    def _members(self, address: Address, asked: Asked) -> list[Address] | None:
        exists = partial(self._has_box, asked=asked)
        return self._aliases.members(self.routing.home(address), exists, asked)

    def expand(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None = None
    ) -> Expansion | Awaitable[Expansion]:
        if self._senders is not None:
            meant, events = self._senders.resolve(id, now_us, recipients)
            if events:
                return _behind(events, self.expand(id, now_us, meant, passed))
        if not self._has_maps:
            at_home = self.routing.at_home(recipients)
            return self._aliases.expand(id, now_us, at_home, self._has_box, passed)
        if len(recipients) == 1 and passed is None:
            address = recipients[0].address
            if self._aliases.leads(address):
                return self._aliases.expand(id, now_us, recipients, self._has_box)
            if self.routing.is_elsewhere(address.domain):
                return Expansion(recipients)
        found = self._answered(partial(self._expand, id, now_us, recipients, passed))
        if isinstance(found, Expansion):
            return found
        return Expansion((), not_now=found.text) if isinstance(found, NotNow) else _expanded(found)

    def expand_at_once(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], most: int = 0
    ) -> Expansion | None:
        """The same for a report of our own; None if a map must be waited for, or if it leads to too many. `most`: how
        many mailboxes an alias may lead to, 0: as many as all mail's."""
        asked: Asked = Known()
        meant, events = (recipients, ()) if self._senders is None else self._senders.resolve(id, now_us, recipients)
        found = self._expand(id, now_us, self.routing.at_home(meant), None, asked, most)
        if asked.stopped or found.excess:
            return Expansion(meant, events) if events else None
        return msgspec.structs.replace(found, events=(*events, *found.events)) if events else found

    def _expand(
        self, id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None, asked: Asked,
        most: int = 0,
    ) -> Expansion:
        exists = partial(self._has_box, asked=asked)
        return self._aliases.expand(id, now_us, self.routing.at_home(recipients), exists, passed, asked, most)

    def rules(
        self, policy: PolicyOptions, listener: ListenerOptions, owns: Owns
    ) -> Rules:
        known = Directory(
            is_local=self.routing.is_local,
            is_relay=self.routing.is_relay,
            recipient=self._exists,
            owns=owns,
            owned=self.owned,
            nowhere=self._nowhere,
            is_own=self.routing.is_own,
            returned=None if self._senders is None else self._returned,
            has_owner=None if self.sender_maps is None else self.sender_maps.has_owner,
            moved=None if self._relocated is None else self._moved,
            try_new=self._try_new,
            verify=self._last_questions(),
            leads_on=self._leads_on,
        )
        made = rules(listener.role, policy, known, lmtp=listener.protocol is Dialect.LMTP)
        return made if self._mapped is None else once_known(made, self.routing.make_known, self._meant)

    def _meant(self, address: Address) -> Address:
        """The mailbox of a recipient that may be a signed sender."""
        found = None if self._senders is None else self._senders.returned(address, is_report=False)
        return address if found is None else found.address

    def _last_questions(self) -> Rule | None:
        """What is asked about a recipient that all else accepts; None for nothing."""
        asked: list[Rule] = [self._verify] if self.verifies else []
        return compose([*asked, self.room] if self.room is not None else asked)

    def _mailbox(self, address: Address, asked: Asked) -> Address | None:
        """By which name a recipient of ours is a mailbox; None if it is an alias, or nobody."""
        mailbox = self.routing.home(address)
        if not self._recipients.has_box(mailbox, asked) or self._aliases.has_name(mailbox, asked):
            return None
        return mailbox

    def _leads_on(self, address: Address) -> bool | NotNow | Awaitable[bool | NotNow]:
        """Whether mail for a mailbox of ours goes on to another host, which may follow a way in the local-part."""
        return self._answered(partial(self._is_led_on, address))

    def _is_led_on(self, address: Address, asked: Asked) -> bool:
        mailbox = self.routing.home(address)
        if self.rewriter is not None and self._renames:
            mailbox = self.rewriter.recipient(mailbox, asked)
        found = self._expand(0, 0, (Recipient(mailbox),), None, asked, _LED_ON_MAX)
        return found.excess != "" or any(
            names_a_way(each.address) and not self.routing.is_local(each.address.domain) for each in found.recipients
        )

    @property
    def verifies(self) -> bool:
        """Whether there are recipients whom only their next hop knows."""
        return self._recipients.are_open

    def _verify(self, question: Question) -> Verdict | Awaitable[Verdict]:
        """The verdict about a recipient that all else accepts, if its domain has recipients whom only its next hop
        knows."""
        address = question.recipient
        if address is None or self.ask_next_hop is None or not self._recipients.is_open(address.domain):
            return ACCEPT
        found = self._answered(partial(self._only_next_hop_knows, address))
        if found is None or isinstance(found, Address | NotNow):
            return self._verify_as(question, address, found)
        return self._verify_later(question, address, found)

    async def _verify_later(
        self, question: Question, address: Address, pending: Awaitable[Address | NotNow | None]
    ) -> Verdict:
        verdict = self._verify_as(question, address, await pending)
        return verdict if isinstance(verdict, Verdict) else await verdict

    def _verify_as(
        self, question: Question, address: Address, mailbox: Address | NotNow | None
    ) -> Verdict | Awaitable[Verdict]:
        if mailbox is None or self.ask_next_hop is None:
            return ACCEPT
        return cannot_look_up(address, mailbox) if isinstance(mailbox, NotNow) else self.ask_next_hop(question, mailbox)

    def _only_next_hop_knows(self, address: Address, asked: Asked) -> Address | None:
        """By which name its next hop knows the recipient, if nobody else does."""
        mailbox = self.routing.home(address)
        if self.rewriter is not None and self._renames:
            mailbox = self.rewriter.recipient(mailbox, asked)
        if asked.stopped or not self._recipients.is_open(mailbox.domain):
            return None
        if self._recipients.is_named(mailbox, asked) or self._aliases.has_name(mailbox, asked):
            return None
        return mailbox

    def _returned(self, address: Address, is_report: bool) -> Returned | None:
        assert self._senders is not None
        return self._senders.returned(address, is_report=is_report)

    def _moved(self, address: Address) -> str | NotNow | Awaitable[str | NotNow | None] | None:
        """Where a mailbox has gone, by its name as the client wrote it or as canonical maps write it. Also where the
        only target of an alias has gone: then no report is needed."""
        return self._answered(partial(self._gone, address))

    def _is_spared(self, address: Address, asked: Asked = AT_ONCE) -> bool:
        """Whether an alias for the whole domain does not count for a mailbox: it has a box, or has moved."""
        assert self._relocated is not None
        return self._recipients.has_box(address, asked) or self._relocated.has_moved(address, asked) is True

    def _gone(self, address: Address, asked: Asked) -> str | None:
        assert self._relocated is not None
        found = self._relocated.find(address, asked)
        if found is None and self.rewriter is not None and self._renames:
            address = self.rewriter.recipient(address, asked)
            found = self._relocated.find(address, asked)
        if asked.stopped or (found is not None and not self._aliases.has_name_in_maps(address, asked)):
            return found
        expansion = self._expand(0, 0, (Recipient(address),), None, asked, most=1)
        ends = [each.address for each in expansion.recipients if each.destination is None]
        return self._relocated.find(ends[0], asked) if len(ends) == 1 and not expansion.excess else None

    def _nowhere(self, address: Address) -> Attempt | None:
        """Why no mail can ever come to a mailbox, or to any of those that its alias leads to; None if it can, or
        if a map would have to be asked: its entries change at any time."""
        if self._renames:
            return None
        if self._has_maps and self.routing.is_local(address.domain):
            return None
        if self._transports is not None:
            mailbox = self.routing.home(address)
            if mailbox is address and not self.routing.is_local(address.domain):  # no alias is looked up there
                return self._unreachable(address)
            return self._judge(self._aliases.standing(mailbox))
        found = self._named.get(address, _UNKNOWN)
        if isinstance(found, _Unknown):
            if len(self._named) >= _STOPPED_MAX:
                self._named.clear()
            found = self._named[address] = self._find(self._aliases.standing(self.routing.home(address)))
        return found

    def _find(self, mailbox: Address) -> Attempt | None:
        found = self._stopped.get(mailbox, _UNKNOWN)
        if isinstance(found, _Unknown):
            if len(self._stopped) >= _STOPPED_MAX:
                self._stopped.clear()
            found = self._stopped[mailbox] = self._judge(mailbox)
        return found

    def _judge(self, mailbox: Address) -> Attempt | None:
        excess = self._aliases.excess(mailbox, self._has_box)
        if excess:
            return _has_too_much(mailbox, excess)
        ends = self._aliases.ends(mailbox, self._has_box) or [mailbox]
        stopped: Attempt | None = None
        for end in ends:
            stopped = self._unreachable(end) if isinstance(end, Address) else None
            if stopped is None:
                return None
        return stopped

    def _unreachable(self, mailbox: Address) -> Attempt | None:
        if self._transports is None:
            return unreachable(self.routing.destination(mailbox), self._maildir, mailbox)
        found = self._transports.at_once(mailbox)
        return None if found is None else unreachable(found, self._maildir, mailbox)

    @property
    def aliases_refused(self) -> bool:
        """Whether the file of aliases is wrong as it stands, so that those from before are in force."""
        return self._aliases.refused

    def look(self) -> tuple[Problem, ...]:
        """Takes files that have changed, if nobody seems to be writing them. What is wrong with them is logged once,
        and the old content stays in force."""
        found = (
            *self._recipients.load(patient=True), *self._aliases.load(self._recipients.edition, patient=True)
        )  # fmt: skip
        if self._senders is not None:
            found += self._senders.load()
        edition = self._recipients.edition, self._aliases.edition
        if edition != self._edition:
            self._edition = edition
            self._aliases.forget()
            self._stopped.clear()
            self._named.clear()
        return found


def _has_too_much(alias: Address, excess: str) -> Attempt:
    text = excess.removeprefix(f"<{alias}>: ")
    return Attempt(Outcome.FAILED, Reach.RECIPIENT, excess_status(excess), text)


async def _verified(found: Awaitable[bool | NotNow | None]) -> bool | None:
    answer = await found
    return None if isinstance(answer, NotNow) else answer


async def _expanded(found: Awaitable[Expansion | NotNow]) -> Expansion:
    answer = await found
    return Expansion((), not_now=answer.text) if isinstance(answer, NotNow) else answer


def _behind(events: tuple[Expanded, ...], found: Expansion | Awaitable[Expansion]) -> Expansion | Awaitable[Expansion]:
    """The expansion with these events before its own."""
    if isinstance(found, Expansion):
        return msgspec.structs.replace(found, events=(*events, *found.events))
    return _behind_later(events, found)


async def _behind_later(events: tuple[Expanded, ...], found: Awaitable[Expansion]) -> Expansion:
    answer = await found
    return msgspec.structs.replace(answer, events=(*events, *answer.events))


def _nobody(level: str, text: str) -> None:
    """Takes doubts that nobody wants to hear."""


def build(
    settings: Settings,
    clock: Clock = SystemClock(),  # noqa: B008  # has no state
    tell: Callable[[str, str], None] = _nobody,
    before: Tables | None = None,
    porter: Porter | None = None,
    note: Callable[[str, str], None] = _nobody,
    *,
    starting: bool = False,
) -> Tables | str:
    """The tables, or what is wrong with a file that they need. `before`: those in force, whose maps go on as far as
    their options are the same. `tell`: hears what changes in the files of maps, and what is doubtful there. `porter`:
    reads files of users; `note`: hears of these. `starting`: a node or a worker starts, perhaps again after a crash:
    maps, aliases and mailboxes that cannot be used say "not now" then, and the others work (`note` hears of it)."""
    away: list[Problem] | None = [] if starting else None
    maps = make(options.map_options(settings), clock, tell, None if before is None else before.maps, away)
    if isinstance(maps, tuple):
        return "; ".join(map(str, maps))
    credentials = _credentials(settings)
    if isinstance(credentials, Problem):
        return str(credentials)
    routed = options.routing_options(settings)
    ourselves = options.own_names(settings)
    routing = RoutingTable(routed, ourselves, mapped_domains(routed, maps.named), options.outlet_options(settings))
    maildir = options.deliver_options(settings).maildir
    of_reports = options.report_mailboxes(settings)
    recipients = Recipients(mailboxes_of(routed, maps.named), routing.table_of, of_reports)
    transports = TransportMaps(routing, maps.named(routed.transport_maps)) if routed.transport_maps else None
    origin = aliasing.origin_of(settings)
    is_ours = partial(is_ours_in, routing, origin)
    rewriting = options.rewrite_options(settings)
    relocated = aliasing.relocated_of(settings, routing, maps.named)
    forwards = _forwards(routing, options.outlet_options(settings), porter, note)
    aliases = aliasing.aliases_of(settings, routing, recipients, maps.named, relocated, forwards)
    # The aliases can be judged only if the recipients are known.
    problems = recipients.load(starting=starting)
    if starting or not problems:
        problems += aliases.load(recipients.edition, starting=starting)
    if problems and not starting:
        return "; ".join(map(str, problems))
    for problem in (*(away or ()), *problems):
        note("error", f"{problem} Mail that needs it waits until then (4.3.0).")
    owners = maps.named(settings.auth.sender_maps)
    signed = make_senders(options.srs_options(settings), options.batv_options(settings), routing, clock.now_us)
    if isinstance(signed, tuple):
        return "; ".join(map(str, signed))
    return Tables(
        routing=routing,
        recipients=recipients,
        aliases=aliases,
        credentials=credentials,
        mx_options=options.mx_options(settings),
        ourselves=ourselves,
        maildir=maildir,
        maps=maps,
        transports=transports,
        tell=tell,
        senders=signed,
        sender_maps=SenderMaps(owners, routed.detail_delimiter) if owners else None,
        names=generic_names(routed, maps.named, is_ours=is_ours, origin=origin),
        signed_fields=rewriting.signed_fields,
        try_new=rewriting.relocated_reply is RelocatedReply.TRY,
        relocated=relocated,
        rewriter=rewriter(
            rewriting, maps.named, is_ours=is_ours, origin=origin,
            delimiter=routed.detail_delimiter, ourselves=ourselves,
            answered=answered if routing.mapped is None else routing.mapped.answered,
            meant=None if signed is None else signed.meant,
        ),
        sending_maps=maps.named(settings.sending.limit_maps),
        report_mailboxes=of_reports,
        tls_maps=maps.named(routed.tls_policy_maps),
    )


def _forwards(
    routing: RoutingTable, outlets: OutletOptions, porter: Porter | None, tell: Callable[[str, str], None]
) -> Forwards | None:
    """The files of users, if a domain has such users."""
    having = [each for each in (*routing.options.local, *routing.options.mapped_local) if each.forward_files]
    if not having:
        return None
    own = frozenset(each.name for each in having if not each.user)

    def table_of(domain: str) -> str:
        local = routing.local(domain) if domain else None
        return (local.table or local.name) if local is not None and local.forward_files else ""

    return forwards(porter, table_of, outlets, routing.options.detail_delimiter, tell, own)


def _credentials(settings: Settings) -> dict[str, Credentials] | Problem:
    """Account and server by the name that a destination gives."""
    found: dict[str, Credentials] = {}
    for hop in settings.next_hop:
        if not hop.username:
            continue
        password = hop.password
        if hop.password_file is not None:
            read = first_line(hop.password_file)
            if isinstance(read, Problem):
                return read
            password = read
        token_file = str(hop.token_file) if hop.token_file is not None else ""
        found[options.credentials_name(hop)] = Credentials(
            hop.username, password, hop.auth_without_tls, hop.mechanism, token_file, hop.token_command, hop.cram_md5,
            str(hop.password_file) if hop.password_file is not None else "",
        )  # fmt: skip
    for domain in settings.domain:
        if domain.username and domain.password_file is not None:
            read = first_line(domain.password_file)
            if isinstance(read, Problem):
                return read
            found[options.lmtp_credentials_name(domain)] = Credentials(
                domain.username, read, without_tls=_is_local_server(domain), password_file=str(domain.password_file)
            )
    return found


def _is_local_server(domain: LocalDomainSection) -> bool:
    """Whether the LMTP server of a domain is on this machine."""
    hosts = [server.host for server in options.servers_of(domain)]
    here = (host == "localhost" or host == "::1" or host.startswith("127.") for host in hosts)
    return domain.socket is not None or (bool(hosts) and all(here))


def first_line(path: Path) -> str | Problem:
    """The first line of a file that holds a password."""
    try:
        return path.read_text("utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        return unreadable(str(path), error)
    except UnicodeDecodeError:
        return Problem(str(path), "is not in UTF-8", "Save it in UTF-8.")


