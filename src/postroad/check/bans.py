"""Bans: clients that may not connect, and accounts that may not authenticate, until a time; and the file that keeps
them.

A ban names a network (an address is one of a single address) or an account. `Bans` finds the ban of an address however
many there are: one look-up for each length of prefix that occurs, nothing at all if there is no ban.

The file is JSON, `STATE_DIR/bans.json`, written by the supervisor, or by `postroad bans` if no node runs. What always
holds: it is replaced as a whole (written beside, synced, renamed), so it is never half; bans that have expired are
neither found nor written. How it fails: `read` returns a Problem if the file is no list of bans; `write` raises
OSError.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail.account import canonical_account
from postroad.world import files
from postroad.world.problem import Problem

FILE: Final = "bans.json"
BANS_MAX: Final = 100_000  # of them; the one that would end first gives way
_ENDS_MIN: Final = 1_000  # ends of bans that are gone already, before they are cleared away

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ban(msgspec.Struct, frozen=True):
    """One ban. `subject`: a network as `network_of` writes it, or an account with `is_account`.

    `until_us`: when it ends, 0 for never. `by`: who banned, "" for the node itself.
    """

    subject: str
    since_us: int
    until_us: int
    reason: str = ""
    by: str = ""
    is_account: bool = False

    def holds(self, now_us: int) -> bool:
        return not self.until_us or now_us < self.until_us


def network_of(text: str) -> str | None:
    """The network or address as bans name it ("192.0.2.1", "2001:db8::/64"); None for what is neither."""
    try:
        network = ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


def account_of(name: str) -> str:
    """An account as bans name it: in lower case, since what fails to authenticate writes it anyhow."""
    return canonical_account(name).casefold()[:320]


class Bans:
    """The bans in force. One writer. That some end costs what ends, not what there is."""

    def __init__(self, bans: Iterable[Ban] = ()) -> None:
        self._ends: list[tuple[int, bool, str]] = []  # a heap: when, of an account, subject; also of bans that are gone
        self._networks: dict[str, Ban] = {}
        self._accounts: dict[str, Ban] = {}
        self._prefixes: dict[tuple[int, int], dict[int, Ban]] = {}  # (version, length of prefix) → its bits → the ban
        for ban in bans:
            self.add(ban)

    def __len__(self) -> int:
        return len(self._networks) + len(self._accounts)

    def __iter__(self) -> Iterator[Ban]:
        yield from self._networks.values()
        yield from self._accounts.values()

    def add(self, ban: Ban) -> None:
        """Put it in force, in place of one of the same subject."""
        if len(self) >= BANS_MAX:
            self._remove(self._first_to_end() or next(iter(self)))
        if ban.until_us:
            heapq.heappush(self._ends, (ban.until_us, ban.is_account, ban.subject))
            if len(self._ends) > 2 * len(self) + _ENDS_MIN:
                self._ends = [(each.until_us, each.is_account, each.subject) for each in self if each.until_us]
                self._ends.append((ban.until_us, ban.is_account, ban.subject))
                heapq.heapify(self._ends)
        if ban.is_account:
            self._accounts[ban.subject] = ban
            return
        place, bits = _place(ban.subject)
        self._prefixes.setdefault(place, {})[bits] = ban
        self._networks[ban.subject] = ban

    def of_subject(self, subject: str, is_account: bool, now_us: int) -> Ban | None:
        """The ban of just this network or account."""
        ban = (self._accounts if is_account else self._networks).get(subject)
        return ban if ban is not None and ban.holds(now_us) else None

    def lift(self, subject: str) -> Ban | None:
        """Take the ban of a network or an account away; None if there is none."""
        ban = self._networks.get(subject) or self._accounts.get(account_of(subject))
        if ban is not None:
            self._remove(ban)
        return ban

    def _remove(self, ban: Ban) -> None:
        if ban.is_account:
            del self._accounts[ban.subject]
            return
        del self._networks[ban.subject]
        place, bits = _place(ban.subject)
        del self._prefixes[place][bits]
        if not self._prefixes[place]:
            del self._prefixes[place]

    def _first_to_end(self) -> Ban | None:
        """None if none ends."""
        ends = self._ends
        while ends:
            until_us, is_account, subject = ends[0]
            ban = (self._accounts if is_account else self._networks).get(subject)
            if ban is not None and ban.until_us == until_us:
                return ban
            heapq.heappop(ends)  # it was lifted, or another has replaced it
        return None

    def expire(self, now_us: int) -> list[Ban]:
        """Let go of those whose time is over."""
        over = []
        while (ban := self._first_to_end()) is not None and not ban.holds(now_us):
            self._remove(ban)
            over.append(ban)
        return over

    def follow(self, added: Iterable[Ban], lifted: Iterable[str] | None) -> None:
        """Be as another who told what he has changed; `lifted` None: only what he names now is in force."""
        if lifted is None:
            for each in (self._networks, self._accounts, self._prefixes, self._ends):
                each.clear()
        for ban in added:
            self.add(ban)
        for subject in lifted or ():
            self.lift(subject)

    @property
    def networks(self) -> bool:
        """Whether any client is banned."""
        return bool(self._prefixes)

    def of_address(self, address: str, now_us: int) -> Ban | None:
        """A ban that holds for a client's IP address ("" for a Unix socket)."""
        return next(self.all_of_address(address, now_us), None)

    def all_of_address(self, address: str, now_us: int) -> Iterator[Ban]:
        """All bans that hold for it: of itself, and of networks around it."""
        if not self._prefixes or not address:
            return
        parsed = ipaddress.ip_address(address.partition("%")[0])
        bits, length = int(parsed), parsed.max_prefixlen
        for (version, prefix), found in self._prefixes.items():
            if version == parsed.version:
                ban = found.get(bits >> (length - prefix))
                if ban is not None and ban.holds(now_us):
                    yield ban

    def of_account(self, name: str, now_us: int) -> Ban | None:
        if not self._accounts:
            return None
        ban = self._accounts.get(account_of(name))
        return ban if ban is not None and ban.holds(now_us) else None


def _place(subject: str) -> tuple[tuple[int, int], int]:
    network: Network = ipaddress.ip_network(subject)
    bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
    return (network.version, network.prefixlen), bits


def read(state_dir: Path) -> Bans | Problem:
    """The bans of the file; none if there is no file."""
    path = state_dir / FILE
    try:
        return Bans(msgspec.json.decode(path.read_bytes(), type=list[Ban]))
    except FileNotFoundError:
        return Bans()
    except OSError as error:
        return Problem(str(path), f"cannot be read: {error.strerror or error}", "Let the node's user read it.")
    except (msgspec.DecodeError, ValueError) as error:
        return Problem(str(path), f"is not a list of bans: {error}", "Remove the file; this lifts all bans in it.")


def write(state_dir: Path, bans: Iterable[Ban], now_us: int) -> None:
    """Keep what is in force. OSError if it cannot be; the file that was there then stays."""
    octets = msgspec.json.format(msgspec.json.encode([ban for ban in bans if ban.holds(now_us)]), indent=1)
    files.replace(str(state_dir / FILE), octets, 0o640)
