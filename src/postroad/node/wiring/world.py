"""The outside of a worker, as one value: clock, chance, network, programs, DNS and disk.

A simulation hands in a `World` of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from postroad.store.sqlite.quickness import Quickness
from postroad.store.sqlite.schema import Connect, connect
from postroad.store.sqlite.space import free_octets
from postroad.world.clock import Clock, SystemClock
from postroad.world.dns import DnsOptions, DnsResolver, Resolver
from postroad.world.files import Posix
from postroad.world.http import Fetch, fetcher
from postroad.world.http_link import HttpLink, MakeLink
from postroad.world.network import Network, SystemNetwork
from postroad.world.porter_link import Porter
from postroad.world.programs import Programs, SystemPrograms


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How files are written. `threads`: on threads of their own; else all of it happens on the loop, `commit_s` says
    how long a commit takes, and who made the Assembly has to call `historian.step` now and then (a simulation).
    `quickness`: which commits are made at once on the loop all the same; None: as the disk's own quickness says."""

    connect: Connect = connect
    posix: Posix = field(default_factory=Posix)
    free: Callable[[Path], int] = free_octets
    threads: bool = True
    commit_s: Callable[[], float] | None = None
    quickness: Quickness | None = None


_SYSTEM_DISK: Final = Disk()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the outside is."""

    clock: Clock
    chance: random.Random
    network: Network
    programs: Programs
    resolver: Callable[[DnsOptions], Resolver]
    entropy: random.Random = field(default_factory=random.SystemRandom)  # for nonces and keys: not to be guessed
    fetcher: Callable[[Executor, str], Fetch] = fetcher
    http_link: MakeLink = HttpLink
    disk: Disk = _SYSTEM_DISK
    porter: Porter | None = None


def system_world(chance: random.Random, porter: Porter | None = None) -> World:
    """The real one."""
    clock = SystemClock()
    return World(
        clock=clock,
        chance=chance,
        network=SystemNetwork(),
        programs=SystemPrograms(),
        porter=porter,
        resolver=lambda dns: DnsResolver(dns, clock, chance),
    )
