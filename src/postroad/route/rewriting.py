"""Other addresses for sender, recipients and header fields when mail is accepted, and who gets a copy of it: canonical
maps, masquerading and bcc maps, as cleanup(8) of Postfix has them (docs/rewriting.md).

For each address the maps of its side are asked first, then `canonical_maps`, then masquerading; each only if its
classes say so. Maps are asked again with their result, up to `NESTING_MAX` times. The null sender stays as it is.

What always holds: a question is a function of what it looks up (`maps.asked`); only addr-specs of header fields change
(`protocol.header_addresses`); fields that a DKIM or ARC signature covers stay as they are, unless the settings say
otherwise; a copy is made once for each mailbox. How it fails: a value that is no address, or maps that lead in a
circle, are "not now": mail waits until the map is mended. A message with more than `ADDRESSES_MAX` addresses in its
header fields, with more than `COPIES_MAX` copies, or whose fields become too long, is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import msgspec

from postroad.mail.address import Address, canonical_domain, written_local_part
from postroad.mail.envelope import Peer, Recipient
from postroad.mail.extension import without_extension
from postroad.mail.header_clients import are_meant
from postroad.mail.message import HEADER_MAX
from postroad.mail.rewriting import Rewriting
from postroad.maps.asked import Asked, Entry, answered
from postroad.maps.face import NO_ANSWER, Map, NoAnswer, NotNow
from postroad.maps.steps import rewriting_steps
from postroad.protocol.grammar import parse_mailbox
from postroad.protocol.header_addresses import FieldSide, Spot, replaced, signed, spots
from postroad.route.domains import OwnNames, is_here
from postroad.route.recipients import NAME_MAX
from postroad.route.rewrite_options import (
    ENVELOPE_RECIPIENT,
    ENVELOPE_SENDER,
    HEADER_RECIPIENT,
    HEADER_SENDER,
    RewriteOptions,
)
from postroad.route.table import RoutingTable

NESTING_MAX: Final = 10  # how often maps are asked with their own result
ADDRESSES_MAX: Final = 10_000  # addresses in the header fields of one message
COPIES_MAX: Final = 1_000  # mailboxes that get a copy of one message

Named = Callable[[tuple[str, ...]], tuple[Map, ...]]
Answers = Callable[[Callable[[Asked], Rewriting]], Rewriting | NotNow | Awaitable[Rewriting | NotNow]]
_SIDES: Final = {FieldSide.SENDER: HEADER_SENDER, FieldSide.RECIPIENT: HEADER_RECIPIENT}


class AddressKeys:
    """Maps in which something stands for an address. `is_ours`: whether a domain is ours, so that the local-part alone
    names a mailbox."""

    def __init__(self, maps: tuple[Map, ...], is_ours: Callable[[str], bool], delimiter: str) -> None:
        self._maps = maps
        self._is_ours = is_ours
        self.delimiter = delimiter

    def __bool__(self) -> bool:
        return bool(self._maps)

    @property
    def waits(self) -> bool:
        return any(map.waits for map in self._maps)

    def find(self, address: Address, asked: Asked) -> Entry | NoAnswer | None:
        """What stands for the address; white space may stand around the value."""
        local_part, domain = address.local_part, address.domain
        if len(local_part) > NAME_MAX:
            return None
        steps = rewriting_steps(local_part, domain, self.delimiter, ours=self._is_ours(domain))
        return asked.first(steps, self._maps)


class AddressMaps:
    """Maps of other addresses. `origin`: the domain of results without one. `propagate`: whether an extension that is
    not in a map stays. `nesting_max`: how often they are asked with their own result."""

    def __init__(
        self, keys: AddressKeys, setting: str, *, origin: str, propagate: bool = False, nesting_max: int = 1
    ) -> None:
        self._keys = keys
        self._setting = setting
        self._origin = origin
        self._propagate = propagate
        self._nesting_max = nesting_max

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def waits(self) -> bool:
        return self._keys.waits

    def of(self, address: Address, asked: Asked) -> Address | NoAnswer:
        """The other address of this one, or itself."""
        for _ in range(self._nesting_max):
            found = self._once(address, asked)
            if isinstance(found, NoAnswer):
                return found
            if found == address:
                return address
            address = found
        if self._nesting_max > 1:
            asked.refuse(f"{self._setting} lead in a circle, or too deep, at {address}")
            return NO_ANSWER
        return address

    def _once(self, address: Address, asked: Asked) -> Address | NoAnswer:
        found = self._keys.find(address, asked)
        if found is None or found is NO_ANSWER:
            return address if found is None else NO_ANSWER
        value, key, name = found
        value = value.strip()
        other = self._parsed(value, address, key)
        if other is None:
            asked.refuse(f"map {name}: the value of {key!r} is not a single address: {value[:80]!r}")
            return NO_ANSWER
        return other

    def _parsed(self, value: str, address: Address, key: str) -> Address | None:
        """The address that a value means."""
        if value.startswith("@"):
            try:
                return Address(address.local_part, canonical_domain(value[1:]))
            except ValueError:
                return None
        found = parse_mailbox(value if "@" in value else f"{value}@{self._origin}")
        if found is None or len(str(found)) > NAME_MAX:
            return None
        base = without_extension(address.local_part, self._keys.delimiter)
        written = written_local_part(base)
        if self._propagate and base != address.local_part and key in (written, f"{written}@{address.domain}"):
            return Address(found.local_part + address.local_part[len(base) :], found.domain)
        return found


class Masquerading:
    """Hides hosts behind their domains."""

    def __init__(self, domains: Iterable[str], exceptions: Iterable[str]) -> None:
        self._domains = tuple((name.lstrip("!"), not name.startswith("!")) for name in domains)
        self._exceptions = frozenset(name.lower() for name in exceptions)

    def of(self, address: Address) -> Address:
        if address.local_part.lower() in self._exceptions:
            return address
        domain = address.domain
        for name, hides in self._domains:
            if domain == name:
                return address
            if domain.endswith("." + name):
                return Address(address.local_part, name) if hides else address
        return address


Meant = Callable[[Address], Address]


class Rewriter:
    """The rewriting of one configuration. Make it with `rewriter`. `answered`: as of `maps.asked`; it looks up the
    domains, too, of which `is_ours` asks. `meant`: whom a signed sender means that reports come back to."""

    def __init__(
        self, options: RewriteOptions, named: Named, *, is_ours: Callable[[str], bool], origin: str, delimiter: str,
        ourselves: OwnNames, answered: Answers = answered, meant: Meant | None = None,
    ) -> None:
        self._answered = answered
        self._meant = meant
        self._options = options
        self._is_here = partial(is_here, ourselves)

        def keys(names: tuple[str, ...]) -> AddressKeys:
            return AddressKeys(named(names), is_ours, delimiter)

        canonical = partial(
            AddressMaps, origin=origin, propagate=options.propagate_extensions, nesting_max=NESTING_MAX
        )
        tables = (
            (canonical(keys(options.sender_canonical_maps), "sender_canonical_maps"), options.sender_canonical_classes),
            (canonical(keys(options.recipient_canonical_maps), "recipient_canonical_maps"),
             options.recipient_canonical_classes),
            (canonical(keys(options.canonical_maps), "canonical_maps"), options.canonical_classes),
        )  # fmt: skip
        self._tables = {
            kind: tuple(table for table, classes in tables if table and kind in classes)
            for kind in (ENVELOPE_SENDER, ENVELOPE_RECIPIENT, HEADER_SENDER, HEADER_RECIPIENT)
        }
        self._masquerading = Masquerading(options.masquerade_domains, options.masquerade_exceptions)
        self._masked = frozenset(options.masquerade_classes if options.masquerade_domains else ())
        self._copies = (
            ("sender_bcc_maps", keys(options.sender_bcc_maps)),
            ("recipient_bcc_maps", keys(options.recipient_bcc_maps)),
        )
        self._always = tuple([each for each in map(parse_mailbox, options.always_bcc) if each is not None])
        self._origin = origin
        self.changes_recipients = bool(self._tables[ENVELOPE_RECIPIENT]) or ENVELOPE_RECIPIENT in self._masked
        self.waits_for_recipients = any(table.waits for table in self._tables[ENVELOPE_RECIPIENT])
        self._header = any(self._tables[kind] or kind in self._masked for kind in (HEADER_SENDER, HEADER_RECIPIENT))

    def __call__(
        self, peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
    ) -> Rewriting | Awaitable[Rewriting]:
        """`mail.rewriting.Rewrite`."""
        found: tuple[list[Spot], ...] = ()
        if self._header and are_meant(self._options.header_clients, peer, self._is_here):
            kept: frozenset[bytes] = frozenset()
            if not self._options.signed_fields:
                kept = frozenset().union(*map(signed, sections))
            found = tuple([spots(section, kept) for section in sections])
            if sum(map(len, found)) > ADDRESSES_MAX:
                return Rewriting(reverse_path, recipients, excess=f"its header has more than {ADDRESSES_MAX} addresses")
        made = self._answered(partial(self._question, reverse_path, recipients, sections, found))
        if isinstance(made, Rewriting | NotNow):
            return _finished(made, reverse_path, recipients)
        return _awaited(made, reverse_path, recipients)

    def recipient(self, address: Address, asked: Asked) -> Address:
        """The mailbox that a recipient is turned into. It means nothing if `asked` has stopped."""
        return self._of(address, ENVELOPE_RECIPIENT, asked)

    def _of(self, address: Address, kind: str, asked: Asked) -> Address:
        for table in self._tables[kind]:
            found = table.of(address, asked)
            if isinstance(found, NoAnswer):
                return address
            address = found
        return self._masquerading.of(address) if kind in self._masked else address

    def _question(
        self, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...],
        found: tuple[list[Spot], ...], asked: Asked,
    ) -> Rewriting:
        changes: list[str] = []
        sender = None if reverse_path is None else self._of(reverse_path, ENVELOPE_SENDER, asked)
        if sender != reverse_path:
            changes.append(f"the sender <{reverse_path}> became <{sender}>")
        named = tuple([self._recipient(each, asked) for each in recipients])
        copies = self._copied(sender, named, asked)
        if len(copies) > COPIES_MAX:
            return Rewriting(reverse_path, recipients, excess=f"more than {COPIES_MAX} mailboxes get a copy of it")
        made = sections
        if found:
            changed = [self._changed(each, asked) for each in found]
            if not asked.stopped:
                made = tuple([replaced(section, each) for section, each in zip(sections, changed, strict=True)])
                names = dict.fromkeys(spot.name.decode().title() for each in changed for spot, _ in each)
                if made != sections:
                    changes.append(f"other addresses in {', '.join(names)}")
        if sum(map(len, made)) > max(HEADER_MAX, sum(map(len, sections))):
            excess = f"with its other addresses its header has more than {HEADER_MAX} octets"
            return Rewriting(reverse_path, recipients, excess=excess)
        return Rewriting(sender, named, made, copies, tuple(changes))

    def _recipient(self, recipient: Recipient, asked: Asked) -> Recipient:
        address = self.recipient(recipient.address, asked) if self.changes_recipients else recipient.address
        if address == recipient.address:
            return recipient
        return msgspec.structs.replace(recipient, address=address, given=recipient.given or recipient.address)

    def _changed(self, found: list[Spot], asked: Asked) -> list[tuple[Spot, Address]]:
        """What stands elsewhere; each address is asked for once."""
        known: dict[tuple[Address, FieldSide], Address] = {}
        for spot in found:
            key = (spot.address, spot.side)
            if key not in known:
                known[key] = self._of(spot.address, _SIDES[spot.side], asked)
        named = [(spot, known[spot.address, spot.side]) for spot in found]
        return [(spot, address) for spot, address in named if address != spot.address]

    # -- copies --------------------------------------------------------------------------------------------------------

    def _copied(
        self, sender: Address | None, recipients: tuple[Recipient, ...], asked: Asked
    ) -> tuple[tuple[Address, str], ...]:
        """Who gets a copy, each mailbox once, and by which setting."""
        found: dict[Address, str] = dict.fromkeys(self._always, "always_bcc")
        senders = () if sender is None else (sender,)
        named = [each.address if self._meant is None else self._meant(each.address) for each in recipients]
        for (setting, keys), addresses in zip(self._copies, (senders, named), strict=True):
            if keys:
                for address in addresses:
                    for copy in self._mailboxes(keys, address, asked):
                        found.setdefault(copy, setting)
        return tuple([(self.recipient(address, asked), setting) for address, setting in found.items()])

    def _mailboxes(self, keys: AddressKeys, address: Address, asked: Asked) -> list[Address]:
        """Those that get a copy because of this address."""
        found = keys.find(address, asked)
        if found is None or found is NO_ANSWER:
            return []
        value, key, name = found
        value = value.strip()
        copies: list[Address] = []
        for word in value.replace(",", " ").split():
            copy = parse_mailbox(word if "@" in word else f"{word}@{self._origin}")
            if copy is None:
                asked.refuse(f"map {name}: the value of {key!r} is not a list of addresses: {value[:80]!r}")
                return []
            copies.append(copy)
        return copies


def _finished(
    made: Rewriting | NotNow, reverse_path: Address | None, recipients: tuple[Recipient, ...]
) -> Rewriting:
    return Rewriting(reverse_path, recipients, not_now=made.text) if isinstance(made, NotNow) else made


async def _awaited(
    pending: Awaitable[Rewriting | NotNow], reverse_path: Address | None, recipients: tuple[Recipient, ...]
) -> Rewriting:
    return _finished(await pending, reverse_path, recipients)


def is_ours_in(routing: RoutingTable, origin: str, domain: str) -> bool:
    """Whether the local-part alone names a mailbox of this domain in maps of other addresses."""
    return domain == origin or routing.is_local(domain)


def rewriter(
    options: RewriteOptions, named: Named, *, is_ours: Callable[[str], bool], origin: str, delimiter: str,
    ourselves: OwnNames, answered: Answers = answered, meant: Meant | None = None,
) -> Rewriter | None:
    """None if the settings rewrite and copy nothing."""
    wanted = (
        options.canonical_maps, options.sender_canonical_maps, options.recipient_canonical_maps,
        options.masquerade_domains, options.always_bcc, options.sender_bcc_maps, options.recipient_bcc_maps,
    )  # fmt: skip
    if not any(wanted):
        return None
    return Rewriter(options, named, is_ours=is_ours, origin=origin, delimiter=delimiter, ourselves=ourselves,
                    answered=answered, meant=meant)
