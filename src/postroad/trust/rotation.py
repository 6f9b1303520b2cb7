"""How the keys of a domain go from state to state (`trust.keyring`). Pure: time and answers of the DNS are handed in.

A key signs from the moment at which its record has been in the DNS for `seen_for_s`. At this moment, in the same value,
every other key of its kind that signs is retired: it is out of use at once. Its record must stay, because mail that it
has signed is verified when it arrives, and that may be as late as queues keep mail; it is removable after the time to
live of its record plus the longest time for which this node's queue waits.

What always holds:
- A domain that signs goes on signing, whatever the DNS says: a record that is missing, wrong or cannot be asked for
  keeps a new key waiting, and never takes one out of use that signs.
- At most one key of a kind signs after a change of state. Keys are never removed here.
- A key that was made later takes the place of the earlier ones, never the other way round. An earlier one that still
  waits then will never sign.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from postroad.trust.dkim_key import DkimKey, KeyFault, KeyKind, is_key, parse_key
from postroad.trust.keyring import (
    KEYS_MAX,
    DomainKeys,
    KeyringFault,
    KeyState,
    StoredKey,
    private_of,
    record_name,
    selector_fault,
)

DAY_S: Final = 86_400
TTL_MAX_S: Final = 30 * DAY_S  # more is taken for this
LOOK_FIRST_S: Final = 5  # after a key was made, its record is looked for often, then less often
LOOK_LAST_S: Final = 600
LOOK_AGAIN_S: Final = 3_600  # the record of a key that signs, unless something was wrong with it


class RotationOptions(msgspec.Struct, frozen=True):
    """When keys are changed for new ones. `keep_s`: the longest time for which the queue keeps mail."""

    rotate_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3_650,
            description="After so many days of signing, the node makes a new key in place of a key, and tells the log "
            "and the postmaster which record to publish. The old key signs until the new record is in the DNS. 0: keys "
            "are only changed by `postroad dkim rotate`.",
        ),
    ] = 0
    seen_for_s: Annotated[
        float,
        Meta(
            ge=0,
            le=30 * DAY_S,
            description="How long the record of a new key must be seen in the DNS before the key takes the place of "
            "an old one. More than 0 gives name servers that lag behind the time to have it.",
        ),
    ] = 0.0
    keep_s: float = 432_000.0


class SightKind(enum.Enum):
    """What a look at the DNS came to."""

    SEEN = "seen"  # the record is there, and is this key's
    MISSING = "missing"
    WRONG = "wrong"  # there is something else
    UNKNOWN = "unknown"  # nobody could tell


class Sighting(msgspec.Struct, frozen=True):
    """One look at the record of a key. `ttl_s`: how long the answer counts. `text`: what is wrong, for people."""

    kind: SightKind
    ttl_s: int = 0
    text: str = ""


def sighting_of(key: StoredKey, domain: str, records: tuple[str, ...], ttl_s: int) -> Sighting:
    """What the TXT records at the name of a key say of it. No records: the name is not there, or has none."""
    name = record_name(key.selector, domain)
    found = [each for each in records if is_key(each)]
    if not records:
        return Sighting(SightKind.MISSING, text=f"there is no TXT record at {name}")
    if not found:
        return Sighting(SightKind.WRONG, text=f"the TXT record at {name} is no DKIM key")
    if len(found) > 1:
        return Sighting(SightKind.WRONG, text=f"there are {len(found)} DKIM keys at {name}; verifiers take any of them")
    read = parse_key(found[0])
    if isinstance(read, KeyFault):
        return Sighting(SightKind.WRONG, text=f"the record at {name} is of no use: {read.text}")
    private = private_of(key)
    if isinstance(private, KeyringFault):
        return Sighting(SightKind.UNKNOWN, text=private.text)
    if not _is_public_of(read, private):
        return Sighting(SightKind.WRONG, text=f"the record at {name} has another key")
    return Sighting(SightKind.SEEN, min(max(ttl_s, 0), TTL_MAX_S))


def _is_public_of(read: DkimKey, private: object) -> bool:
    return bool(private.public_key() == read.public)  # type: ignore[attr-defined]  # one of the two kinds of keys


class KeyChange(msgspec.Struct, frozen=True):
    """What has become of a key: its state before and now."""

    selector: str
    before: KeyState
    now: KeyState


def after_look(
    keys: DomainKeys, selector: str, sighting: Sighting, now_us: int, options: RotationOptions
) -> tuple[DomainKeys, tuple[KeyChange, ...]]:
    """After one look at the record of a key."""
    key = keys.key(selector)
    if key is None or key.state is KeyState.REMOVABLE:
        return keys, ()
    key = _noted(key, sighting, now_us)
    keys = _with(keys, key)
    if sighting.kind is SightKind.SEEN and key.state is KeyState.WAITING and may_sign(keys, key, now_us, options):
        return _promoted(keys, key, now_us, options)
    return keys, ()


def _noted(key: StoredKey, sighting: Sighting, now_us: int) -> StoredKey:
    match sighting.kind:
        case SightKind.SEEN:
            seen_us, ttl_s = min(key.seen_us or now_us, now_us), max(key.ttl_s, sighting.ttl_s)
            return replace(key, seen_us=seen_us, ttl_s=ttl_s, trouble="")
        case SightKind.MISSING | SightKind.WRONG:
            return replace(key, seen_us=0, trouble=sighting.text)
        case SightKind.UNKNOWN:  # says nothing of the record
            return replace(key, trouble=sighting.text)


def may_sign(keys: DomainKeys, key: StoredKey, now_us: int, options: RotationOptions) -> bool:
    """Whether a key whose record has just been seen may sign. The first of its kind need not wait: nothing signs."""
    others = [each for each in keys.in_state(KeyState.SIGNING) if each.kind is key.kind]
    if any(_is_later(keys, each, key) for each in others):
        return False
    return not others or now_us - key.seen_us >= int(options.seen_for_s * 1e6)


def _promoted(
    keys: DomainKeys, key: StoredKey, now_us: int, options: RotationOptions
) -> tuple[DomainKeys, tuple[KeyChange, ...]]:
    changes = [KeyChange(key.selector, key.state, KeyState.SIGNING)]
    found = []
    for each in keys.keys:
        if each.selector == key.selector:
            each = replace(each, state=KeyState.SIGNING, since_us=now_us)
        elif each.kind is key.kind and each.state is KeyState.SIGNING:
            changes.append(KeyChange(each.selector, each.state, KeyState.RETIRED))
            each = replace(
                each, state=KeyState.RETIRED, since_us=now_us, removable_us=now_us + kept_us(each, options), trouble=""
            )
        elif each.kind is key.kind and each.state is KeyState.WAITING and _is_later(keys, key, each):
            # It will never sign.
            changes.append(KeyChange(each.selector, each.state, KeyState.REMOVABLE))
            each = replace(each, state=KeyState.REMOVABLE, since_us=now_us, trouble="")
        found.append(each)
    return replace(keys, keys=tuple(found)), tuple(changes)


def kept_us(key: StoredKey, options: RotationOptions) -> int:
    """How long the record of a key must stay after the key has signed last."""
    return (key.ttl_s * 1_000_000) + int(options.keep_s * 1e6)


def after_time(keys: DomainKeys, now_us: int) -> tuple[DomainKeys, tuple[KeyChange, ...]]:
    """What the time alone has changed: keys that were retired long enough ago are removable."""
    over = [each for each in keys.in_state(KeyState.RETIRED) if each.removable_us <= now_us]
    for each in over:
        keys = _with(keys, replace(each, state=KeyState.REMOVABLE, since_us=each.removable_us))
    return keys, tuple(KeyChange(each.selector, KeyState.RETIRED, KeyState.REMOVABLE) for each in over)


def outdated(keys: DomainKeys, now_us: int, options: RotationOptions) -> tuple[KeyKind, ...]:
    """The kinds of keys in whose place new ones are due by `rotate_days`, and none waits yet."""
    if not options.rotate_days:
        return ()
    waiting = {each.kind for each in keys.in_state(KeyState.WAITING)}
    before_us = now_us - options.rotate_days * DAY_S * 1_000_000
    due = {each.kind for each in keys.in_state(KeyState.SIGNING) if each.since_us <= before_us}
    return tuple(kind for kind in KeyKind if kind in due - waiting)


def next_look_us(key: StoredKey, asked_us: int) -> int:
    """When to look at the record of a key again; `asked_us`: when that was done last, 0: not yet. 0: never."""
    match key.state:
        case KeyState.WAITING:
            age_s = max(0, asked_us - key.made_us) // 1_000_000
            pause_s = min(max(LOOK_FIRST_S, age_s // 10), LOOK_LAST_S)
        case KeyState.SIGNING:
            pause_s = LOOK_LAST_S if key.trouble else LOOK_AGAIN_S
        case KeyState.RETIRED | KeyState.REMOVABLE:
            return 0
    return asked_us + pause_s * 1_000_000 if asked_us else 1


def _with(keys: DomainKeys, key: StoredKey) -> DomainKeys:
    return replace(keys, keys=tuple(key if each.selector == key.selector else each for each in keys.keys))


def _is_later(keys: DomainKeys, one: StoredKey, other: StoredKey) -> bool:
    """Whether a key was made after another one. Their places say so, whatever the clock said when they were made."""
    selectors = [each.selector for each in keys.keys]
    return selectors.index(one.selector) > selectors.index(other.selector)


# ---- What operators do


def new_selector(keys: DomainKeys, kind: KeyKind, day: str) -> str:
    """A selector that the domain does not have, by kind and day (YYYYMMDD)."""
    stem = f"{_STEMS[kind]}{day}"
    taken = {each.selector for each in keys.keys}
    names = (stem, *(f"{stem}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"), *map(f"{stem}-{{}}".format, _MORE))
    return next(name for name in names if name not in taken)


_STEMS: Final = {KeyKind.RSA: "rsa", KeyKind.ED25519: "ed"}
_MORE: Final = range(1, 1_000)


def with_new(keys: DomainKeys, new: StoredKey) -> DomainKeys | KeyringFault:
    """With one more key, which waits."""
    fault = selector_fault(new.selector, keys.domain)
    if fault is not None:
        return fault
    if keys.key(new.selector) is not None:
        return KeyringFault(f"{keys.domain} has a key of the selector {new.selector} already")
    if len(keys.keys) >= KEYS_MAX:
        return KeyringFault(f"{keys.domain} has {KEYS_MAX} keys already: remove old ones")
    return replace(keys, keys=(*keys.keys, new))


def without(keys: DomainKeys, selectors: tuple[str, ...]) -> DomainKeys:
    return replace(keys, keys=tuple(each for each in keys.keys if each.selector not in selectors))


def would_end_signing(keys: DomainKeys, selectors: tuple[str, ...]) -> bool:
    """Whether mail of the domain is signed now, and would not be without these keys."""
    signing = keys.in_state(KeyState.SIGNING)
    return bool(signing) and all(each.selector in selectors for each in signing)
