"""The supervisor's office of the keys that sign mail: it looks for records in the DNS, and has keys change their state.

It asks the resolver of `[dns]` for the record of each key that waits or signs (`trust.rotation.next_look_us`). A key
whose record is there begins to sign: the change is written first, then all workers are told, and then the log says so.
With `rotate_days` it makes new keys, and tells the postmaster which records to publish.

What always holds: the files are the only state, so a restart at any moment goes on where this node ended. `postroad
dkim` may change the same files at any time: each change here reads them anew under the lock. The loop never waits for a
file or for a new key. How it fails: if a file cannot be read or written, or the DNS does not answer, everything stays
as it is, the log says so once, and it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from postroad.config import options
from postroad.operate import present, signing_keys
from postroad.operate.requests import KeysSummary
from postroad.operate.signing_keys import KeysRefused, NewKey
from postroad.trust import keyring, rotation
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys, KeyState, StoredKey
from postroad.trust.rotation import KeyChange, RotationOptions, Sighting, SightKind
from postroad.world.dns import DnsAnswer, DnsOptions, DnsResolver, DnsStatus

if TYPE_CHECKING:
    from postroad.config.settings import Settings

LOOKS_MAX: Final = 20  # records that are asked for at a time
TRIES: Final = 50  # to get the lock of the folder
TRY_PAUSE_S: Final = 0.1
WAITS_S: Final = 3_600  # so long a key waits for its record before the log says so
ROUND_S: Final = 60.0  # between two times at which all keys are looked through for what the time has changed
_ENDED: Final = (KeyState.RETIRED, KeyState.REMOVABLE)

MakeResolver = Callable[[DnsOptions], DnsResolver]
Say = Callable[[str, str], None]


class KeyOffice:
    """`tell_workers()`: has all workers read the keys, and returns when they have. `tell_postmaster(subject, lines)`:
    a message to the postmaster."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        make_resolver: MakeResolver,
        tell_workers: Callable[[], Awaitable[None]],
        tell_postmaster: Callable[[str, tuple[str, ...]], None],
        now_us: Callable[[], int],
        say: Say,
    ) -> None:
        self._settings = settings
        self._make_resolver = make_resolver
        self._tell_workers = tell_workers
        self._tell_postmaster = tell_postmaster
        self._now_us = now_us
        self._say = say
        self._store: KeyStore | None = None
        self._resolver: DnsResolver | None = None
        self._taken: Settings | None = None
        self._rotation = RotationOptions()
        self._asked_us: dict[tuple[str, str], int] = {}  # by domain and selector: the last look
        self._looks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._next_round_us = self._idle_until_us = 0
        self._disk = asyncio.Lock()  # one thread at a time reads or writes the folder
        self._said: dict[str, str] = {}  # troubles that the log has, by domain and selector

    # ---- Now and then

    def look(self) -> None:
        """To be called every second."""
        self._take()
        if self._reading is None:
            self._reading = self._task(self._round())
            self._reading.add_done_callback(self._round_ended)

    def _round_ended(self, _: object) -> None:
        self._reading = None

    def _take(self) -> None:
        """The settings as they are now."""
        settings = self._settings()
        if settings is self._taken:
            return
        self._taken = settings
        self._rotation = options.rotation_options(settings)
        folder = Path(options.key_options(settings).folder)
        if self._store is None or self._store.folder != folder:
            self._store = KeyStore(folder, self._now_us)
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None

    async def _round(self) -> None:
        """Reads what has changed in the folder, begins looks that are due, and, now and then, does what is due."""
        store = self._store
        assert store is not None
        if await self._load(store):
            await self._tell_workers()
        now_us = self._now_us()
        if now_us >= self._next_round_us or self._next_round_us > now_us + int(ROUND_S * 2e6):
            self._next_round_us = now_us + int(ROUND_S * 1e6)
            await self._keep_up(store, now_us)
        self._begin_looks(store, now_us)

    async def _keep_up(self, store: KeyStore, now_us: int) -> None:
        """What the time alone makes due: keys that are removable, keys that are too old."""
        known = {(domain, key.selector) for domain, keys in store.domains.items() for key in keys.keys}
        self._asked_us = {place: at_us for place, at_us in self._asked_us.items() if place in known}
        self._said = {
            place: text for place, text in self._said.items()
            if place in store.domains or tuple(place.split(" ")) in known
        }  # fmt: skip
        for domain, keys in store.domains.items():
            if rotation.after_time(keys, now_us)[1]:
                await self._change(store, domain, lambda found: rotation.after_time(found, now_us))
            if rotation.outdated(keys, now_us, self._rotation):
                await self._renew(store, domain, keys, now_us)

    # ---- The DNS

    def _begin_looks(self, store: KeyStore, now_us: int) -> None:
        """Begins looks that are due, those for keys that wait first."""
        latest_us = now_us + rotation.LOOK_AGAIN_S * 1_000_000
        if now_us < self._idle_until_us <= latest_us:
            return
        due: list[tuple[bool, str, StoredKey]] = []
        self._idle_until_us = latest_us
        for domain, keys in store.domains.items():
            for key in keys.keys:
                due_us = rotation.next_look_us(key, self._asked_us.get((domain, key.selector), 0))
                if due_us and not now_us < due_us <= latest_us:  # later than that: the clock was set back
                    due.append((key.state is not KeyState.WAITING, domain, key))
                elif due_us:
                    self._idle_until_us = min(self._idle_until_us, due_us)
        due.sort(key=lambda each: each[0])
        for _, domain, key in due[: LOOKS_MAX - len(self._looks)]:
            self._asked_us[domain, key.selector] = now_us
            task = self._task(self._look(store, domain, key))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        if due:
            self._idle_until_us = 0  # what was begun is due again some time after its end

    async def _look(self, store: KeyStore, domain: str, key: StoredKey) -> None:
        """One look at the record of a key, and what it changes."""
        sighting = await self._sighting(domain, key)
        now_us = self._now_us()
        self._asked_us[domain, key.selector] = now_us

        def after(keys: DomainKeys) -> tuple[DomainKeys, tuple[KeyChange, ...]]:
            return rotation.after_look(keys, key.selector, sighting, now_us, self._rotation)

        self._note_trouble(domain, key, sighting)
        await self._change(store, domain, after)

    async def _sighting(self, domain: str, key: StoredKey) -> Sighting:
        resolver = self._resolver
        if resolver is None:
            assert self._taken is not None
            # Each look is a question of its own: what was not there a moment ago may be there now. The times to live
            # are those of the records: they say when a key is removable.
            own = {"cache_max": 0, "ttl_max_s": rotation.TTL_MAX_S}
            resolver = self._resolver = self._make_resolver(
                msgspec.structs.replace(options.dns_options(self._taken), **own)
            )
        return sighting(key, domain, await resolver.text(keyring.record_name(key.selector, domain)), self._now_us())

    def _note_trouble(self, domain: str, key: StoredKey, sighting: Sighting) -> None:
        """Says once what is wrong with the record of a key that signs, and that it is well again; and that a key waits
        for its record, after a restart, too: who made it may not have heard what to publish."""
        place = f"{domain} {key.selector}"
        if key.state is KeyState.WAITING:
            if sighting.kind is SightKind.SEEN:
                self._said.pop(place, None)
            elif self._now_us() - key.made_us >= WAITS_S * 1_000_000:
                self._say_once(
                    place, f"the key {key.selector} of {domain} waits for its record (`postroad dns show {domain}`): "
                    f"{sighting.text}", "warning",
                )  # fmt: skip
            return
        if key.state is not KeyState.SIGNING:
            return
        if sighting.kind is SightKind.SEEN:
            if self._said.pop(place, None) is not None:
                self._say("info", f"the record of the key {key.selector} of {domain} is in the DNS again")
        elif self._said.get(place) != sighting.text:
            self._said[place] = sighting.text
            known = sighting.kind is not SightKind.UNKNOWN
            harm = "receivers cannot verify" if known else "receivers may not be able to verify"
            self._say("error", f"{harm} the mail of {domain} that {key.selector} signs: {sighting.text}")

    # ---- Changes

    async def _change(
        self,
        store: KeyStore,
        domain: str,
        change: Callable[[DomainKeys], tuple[DomainKeys, tuple[KeyChange, ...]]],
    ) -> None:
        """Changes the keys of a domain on the disk; then workers hear of it, then the log."""
        changes: tuple[KeyChange, ...] = ()

        def changed(keys: DomainKeys) -> DomainKeys:
            nonlocal changes
            found, changes = change(keys)
            return found

        keys = await self._written(store, domain, changed)
        if keys is None:
            return
        if await self._load(store):
            await self._tell_workers()
        for each in changes:
            self._say("info", self._told(keys, each))

    async def _written(
        self, store: KeyStore, domain: str, change: Callable[[DomainKeys], DomainKeys]
    ) -> DomainKeys | None:
        """The keys after the change; None if it could not be made now."""
        for _ in range(TRIES):
            try:
                async with self._disk:
                    after = await asyncio.to_thread(signing_keys.changed, store, domain, change)
                self._said.pop(domain, None)
                return after
            except BlockingIOError:  # a command is at work
                await asyncio.sleep(TRY_PAUSE_S)
            except (KeysRefused, OSError) as error:
                self._say_once(domain, f"the keys of {domain} cannot be changed: {error}")
                return None
        self._say_once(domain, f"the keys of {domain} cannot be changed: another process holds the lock of the folder")
        return None

    async def _load(self, store: KeyStore) -> bool:
        """Reads what has changed. Whether anything has."""
        async with self._disk:
            before = store.domains
            problems = await asyncio.to_thread(store.load)
        for problem in problems:
            self._say("error", f"keys that sign mail: {problem}")
        if store.domains is before:
            return False
        self._next_round_us = self._idle_until_us = 0
        return True

    def _say_once(self, place: str, text: str, level: str = "error") -> None:
        if self._said.get(place) != text:
            self._said[place] = text
            self._say(level, text)

    def _told(self, keys: DomainKeys, change: KeyChange) -> str:
        key = keys.key(change.selector)
        what = f"the key {change.selector} of {keys.domain}"
        match change.now:
            case KeyState.SIGNING:
                return f"{what} signs from now on: its record is in the DNS"
            case KeyState.RETIRED if key is not None:
                until = present.moment(key.removable_us)
                return f"{what} is out of use; leave its record in the DNS until {until}"
            case _:
                remove = f"postroad dkim remove {keys.domain} {change.selector}"
                return f"{what} is not needed any more: remove its record from the DNS, then `{remove}`"

    async def _renew(self, store: KeyStore, domain: str, keys: DomainKeys, now_us: int) -> None:
        """Makes new keys in place of those that are too old."""
        kinds = rotation.outdated(keys, now_us, self._rotation)
        sizes = {kind: signing_keys.size_of(keys, kind) for kind in kinds}
        private = await asyncio.to_thread(lambda: {kind: keyring.generate(kind, sizes[kind]) for kind in kinds})
        made: tuple[str, ...] = ()

        def change(found: DomainKeys) -> DomainKeys:
            nonlocal made
            still = [kind for kind in rotation.outdated(found, now_us, self._rotation) if kind in private]
            after = signing_keys.with_all(found, tuple(map(NewKey, still)), [private[kind] for kind in still], now_us)
            made = tuple(each.selector for each in after.keys if found.key(each.selector) is None)
            return after

        after = await self._written(store, domain, change)
        if after is not None and made:
            await self._load(store)
            await self._tell_workers()
            self._ask_to_publish(after, made, now_us)

    def _ask_to_publish(self, keys: DomainKeys, made: tuple[str, ...], now_us: int) -> None:
        names = " and ".join(made)
        self._say(
            "warning",
            f"keys of {keys.domain} are to be changed: publish the records of {names} "
            f"(`postroad dns show {keys.domain}`); the old keys sign until they are in the DNS",
        )
        lines = [
            f"The keys that sign mail of {keys.domain} have signed for {self._rotation.rotate_days} days.",
            "The node has made new ones. Publish these records in the zone of the domain:", "",
        ]  # fmt: skip
        for each in signing_keys.facts(keys, now_us, self._rotation):
            if each.selector in made:
                lines += each.zone_line.split("\n")
        lines += [
            "", "The old keys sign until the new records are in the DNS; the node looks by itself.",
            "`postroad dkim list` shows how far it is.",
        ]  # fmt: skip
        self._tell_postmaster(f"New DKIM keys of {keys.domain}: please publish their records", tuple(lines))

    # ---- What others ask

    async def changed(self, done: tuple[str, ...]) -> None:
        """A command has changed keys; `done` says what, for the log. Returns when all workers have them."""
        for text in done:
            self._say("info", text)
        self._take()
        assert self._store is not None
        await self._load(self._store)
        await self._tell_workers()

    def summary(self) -> KeysSummary:
        """For `postroad status`."""
        domains = {} if self._store is None else self._store.domains
        return signing_keys.summary(domains.values(), self._now_us(), self._rotation)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._reading is None and not self._looks

    async def close(self) -> None:
        for task in self._looks:
            task.cancel()
        if self._reading is not None:
            await asyncio.wait([self._reading])
        if self._resolver is not None:
            self._resolver.close()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._say("error", f"the office of keys: {task.exception()!r}")


def sighting(key: StoredKey, domain: str, answer: DnsAnswer[str], now_us: int) -> Sighting:
    """What an answer of the DNS says of a key."""
    if answer.status is DnsStatus.ERROR:
        return Sighting(SightKind.UNKNOWN, text=f"the DNS did not answer: {answer.text}")
    ttl_s = max(0, answer.expires_us - now_us) // 1_000_000
    return rotation.sighting_of(key, domain, answer.records, ttl_s)
