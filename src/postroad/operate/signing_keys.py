"""What operators do with the keys that sign mail, and how the keys are shown. Used by `postroad dkim` and the office.

What always holds: a change is one replaced file, so a command that ends at any moment has done all or nothing to a
domain. Whether a node runs makes no difference to the files; the command tells it of the change afterwards, and a node
that was not told finds it by itself.

How it fails: a KeysRefused says why nothing was changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from postroad.operate.present import moment
from postroad.operate.requests import KeysSummary
from postroad.trust import keyring, rotation
from postroad.trust.dkim_key import KeyKind
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys, KeyringFault, KeyState, StoredKey
from postroad.trust.rotation import RotationOptions
from postroad.trust.zone import txt_record
from postroad.world.problem import Problem

TOLD_MAX: Final = 20  # keys of a summary that are told of in words


class KeysRefused(Exception):
    """Nothing was changed; the text says why."""


class KeyFacts(msgspec.Struct, frozen=True):
    """One key, for people and programs. `state`: as it is now; `next`: what comes next, and who does it. `record`: the
    TXT record; `zone_line`: the same as a zone file has it. Times in microseconds since 1970; 0: not known or none."""

    domain: str
    selector: str
    algorithm: str
    bits: int
    state: str
    since_us: int
    made_us: int
    next: str
    trouble: str
    removable_us: int
    name: str
    record: str
    zone_line: str


def facts(keys: DomainKeys, now_us: int, options: RotationOptions) -> tuple[KeyFacts, ...]:
    """All keys of a domain as they are at this time."""
    keys, _ = rotation.after_time(keys, now_us)
    return tuple(_facts(keys, each, now_us, options) for each in keys.keys)


def _facts(keys: DomainKeys, key: StoredKey, now_us: int, options: RotationOptions) -> KeyFacts:
    private, record = keyring.private_of(key), keyring.record_text(key)
    name = keyring.record_name(key.selector, keys.domain)
    broken = private.text if isinstance(private, KeyringFault) else ""
    text = "" if isinstance(record, KeyringFault) else record
    return KeyFacts(
        domain=keys.domain,
        selector=key.selector,
        algorithm=key.kind.value,
        bits=256 if key.kind is KeyKind.ED25519 else getattr(private, "key_size", 0),
        state=key.state.value,
        since_us=key.since_us,
        made_us=key.made_us,
        next=broken or next_step(keys, key, now_us, options),
        trouble=broken or key.trouble,
        removable_us=key.removable_us,
        name=name,
        record=text,
        zone_line=txt_record(name, text) if text else "",
    )


def next_step(keys: DomainKeys, key: StoredKey, now_us: int, options: RotationOptions) -> str:
    """What comes next for a key, in words."""
    match key.state:
        case KeyState.WAITING if key.seen_us:
            at_us = key.seen_us + int(options.seen_for_s * 1e6)
            return f"its record is in the DNS: it signs from {moment(at_us)}"
        case KeyState.WAITING:
            found = f"; last look: {key.trouble}" if key.trouble else ""
            return f"publish its record (postroad dns show {keys.domain}){found}"
        case KeyState.SIGNING if key.trouble:
            return f"receivers cannot verify what it signs: {key.trouble}"
        case KeyState.SIGNING if options.rotate_days:
            return _until_rotation(keys, key, now_us, options)
        case KeyState.SIGNING:
            return "none"
        case KeyState.RETIRED:
            return f"leave its record in the DNS until {moment(key.removable_us)}"
        case KeyState.REMOVABLE:
            return f"remove its record from the DNS, then postroad dkim remove {keys.domain} {key.selector}"


def _until_rotation(keys: DomainKeys, key: StoredKey, now_us: int, options: RotationOptions) -> str:
    at_us = key.since_us + options.rotate_days * rotation.DAY_S * 1_000_000
    if any(each.kind is key.kind for each in keys.in_state(KeyState.WAITING)):
        return "a new key waits to take its place"
    return f"a new key is made on {moment(max(at_us, now_us))}"


def summary(domains: Iterable[DomainKeys], now_us: int, options: RotationOptions) -> KeysSummary:
    """For the state of the node."""
    counts = dict.fromkeys(KeyState, 0)
    told: list[str] = []
    every = tuple(domains)
    for each in every:
        keys, _ = rotation.after_time(each, now_us)
        for key in keys.keys:
            counts[key.state] += 1
            if len(told) < TOLD_MAX and (key.trouble or key.state in (KeyState.WAITING, KeyState.REMOVABLE)):
                told.append(f"{key.selector} of {keys.domain} ({key.state.value}): "
                            f"{next_step(keys, key, now_us, options)}")  # fmt: skip
    return KeysSummary(
        len(every), counts[KeyState.SIGNING], counts[KeyState.WAITING], counts[KeyState.RETIRED],
        counts[KeyState.REMOVABLE], tuple(told),
    )  # fmt: skip


# ---- Changes


class NewKey(msgspec.Struct, frozen=True):
    """What to make. `selector` "": one is made up."""

    kind: KeyKind
    bits: int = 2_048
    selector: str = ""


def add(
    store: KeyStore, domain: str, wanted: tuple[NewKey, ...], given: keyring.Private | None, now_us: int
) -> DomainKeys:
    """Makes the first keys of a domain, or those of a kind that it has none of. `given`: a key that was made elsewhere.
    Raises KeysRefused, OSError."""
    private = [given or keyring.generate(each.kind, each.bits) for each in wanted]

    def change(keys: DomainKeys) -> DomainKeys:
        for each in wanted:
            present = [key for key in _live(keys) if key.kind is each.kind]
            if present:
                what = "waits for its record" if present[-1].state is KeyState.WAITING else "signs"
                raise KeysRefused(
                    f"{domain} has a key of the kind {each.kind.value} already: {present[-1].selector} {what}. "
                    f"`postroad dkim rotate {domain}` makes a new one in its place"
                )
        return with_all(keys, wanted, private, now_us)

    return changed(store, domain, change)


def rotate(store: KeyStore, domain: str, bits: int, selector: str, now_us: int) -> tuple[DomainKeys, tuple[str, ...]]:
    """Makes a new key for each that signs, unless one waits already. The keys, and the selectors of those that wait.
    Raises KeysRefused, OSError."""
    found = domain_keys(store, domain)
    kinds = rotatable(found)
    if not found.keys:
        raise KeysRefused(f"{domain} has no keys; `postroad dkim add {domain}` makes some")
    if selector and not kinds:
        waiting = ", ".join(each.selector for each in found.in_state(KeyState.WAITING)) or "none"
        raise KeysRefused(f"no key of {domain} needs a new one now; keys that wait for their record: {waiting}")
    private = {kind: keyring.generate(kind, bits or size_of(found, kind)) for kind in kinds}

    def change(keys: DomainKeys) -> DomainKeys:
        still = [kind for kind in rotatable(keys) if kind in private]
        wanted = tuple(NewKey(kind, selector=selector_for(selector, kind, len(still))) for kind in still)
        return with_all(keys, wanted, [private[kind] for kind in still], now_us)

    keys = changed(store, domain, change)
    return keys, tuple(each.selector for each in keys.in_state(KeyState.WAITING))


def rotatable(keys: DomainKeys) -> tuple[KeyKind, ...]:
    """The kinds of keys that sign and have no successor that waits."""
    waiting = {each.kind for each in keys.in_state(KeyState.WAITING)}
    signing = {each.kind for each in keys.in_state(KeyState.SIGNING)}
    return tuple(kind for kind in KeyKind if kind in signing - waiting)


def size_of(keys: DomainKeys, kind: KeyKind) -> int:
    """The bits of a new key in place of the one that signs: as many, but no fewer than 2048."""
    signing = [each for each in keys.in_state(KeyState.SIGNING) if each.kind is kind]
    return max([2_048, *(getattr(keyring.private_of(each), "key_size", 0) for each in signing)])


def selector_for(selector: str, kind: KeyKind, count: int) -> str:
    """The selector of one of `count` keys for which an operator named one."""
    return f"{selector}-{kind.value}" if selector and count > 1 else selector


def remove(store: KeyStore, domain: str, selectors: tuple[str, ...], *, sure: bool) -> tuple[StoredKey, ...]:
    """Removes keys, () for all of the domain. The keys that were removed. Raises KeysRefused, OSError."""
    gone: list[StoredKey] = []

    def change(keys: DomainKeys) -> DomainKeys:
        if not keys.keys:
            raise KeysRefused(f"{domain} has no keys")
        for each in selectors:
            if keys.key(each) is None:
                known = ", ".join(key.selector for key in keys.keys)
                raise KeysRefused(f"{domain} has no key of the selector {each}; it has {known}")
        chosen = selectors or tuple(key.selector for key in keys.keys)
        if rotation.would_end_signing(keys, chosen) and not sure:
            raise KeysRefused(f"Mail of {domain} would not be signed any more. Say --yes if that is what you want")
        gone.extend(key for key in keys.keys if key.selector in chosen)
        return rotation.without(keys, chosen)

    changed(store, domain, change)
    return tuple(gone)


def domain_keys(store: KeyStore, domain: str) -> DomainKeys:
    """The keys of a domain, perhaps none. Raises KeysRefused if its file cannot be used."""
    found = store.domain(domain)
    if isinstance(found, Problem):
        raise KeysRefused(str(found))
    return DomainKeys(domain) if found is None else found


def changed(store: KeyStore, domain: str, change: Callable[[DomainKeys], DomainKeys]) -> DomainKeys:
    """Reads, changes and writes the keys of a domain while nobody else does. Raises KeysRefused, OSError."""
    with store.changing():
        before = domain_keys(store, domain)
        after = change(before)
        if after != before:
            store.write(after)
        return after


def _live(keys: DomainKeys) -> tuple[StoredKey, ...]:
    return keys.in_state(KeyState.WAITING, KeyState.SIGNING)


def with_all(
    keys: DomainKeys, wanted: tuple[NewKey, ...], private: list[keyring.Private], now_us: int
) -> DomainKeys:
    """With new keys, which wait. Raises KeysRefused."""
    day = time.strftime("%Y%m%d", time.gmtime(now_us // 1_000_000))
    for each, one in zip(wanted, private, strict=True):
        selector = each.selector or rotation.new_selector(keys, each.kind, day)
        added = rotation.with_new(keys, keyring.made(selector, one, now_us))
        if isinstance(added, KeyringFault):
            raise KeysRefused(added.text)
        keys = added
    return keys
