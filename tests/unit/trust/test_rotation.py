"""How keys go from state to state: what the DNS says, the time, and what operators do, in any order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.trust import keyring, rotation
from postroad.trust.dkim_key import KeyKind
from postroad.trust.keyring import DomainKeys, KeyringFault, KeyState, StoredKey
from postroad.trust.rotation import RotationOptions, Sighting, SightKind

_S = 1_000_000
_DAY = rotation.DAY_S * _S
_NOW = 1_764_600_000 * _S
_PRIVATE = {
    KeyKind.RSA: [keyring.generate(KeyKind.RSA, 1_024) for _ in range(2)],
    KeyKind.ED25519: [keyring.generate(KeyKind.ED25519, 0) for _ in range(2)],
}
_OPTIONS = RotationOptions(keep_s=5 * rotation.DAY_S)
_SEEN = Sighting(SightKind.SEEN, 300)


def _key(selector: str, kind: KeyKind = KeyKind.RSA, made_us: int = _NOW, which: int = 0) -> StoredKey:
    return keyring.made(selector, _PRIVATE[kind][which], made_us)


def _domain(*keys: StoredKey) -> DomainKeys:
    return DomainKeys("example.org", keys)


def _states(keys: DomainKeys) -> dict[str, str]:
    return {each.selector: each.state.value for each in keys.keys}


# ---- What a look says


def _record(key: StoredKey) -> str:
    text = keyring.record_text(key)
    assert isinstance(text, str)
    return text


def test_the_record_of_the_key_is_seen() -> None:
    for kind in KeyKind:
        key = _key("s", kind)
        assert rotation.sighting_of(key, "example.org", (_record(key),), 60) == Sighting(SightKind.SEEN, 60)
        # what a name server does to spaces and to other records at the name does not matter
        spaced = _record(key).replace("; ", ";").replace("p=", "p= ")
        assert rotation.sighting_of(key, "example.org", ("v=spf1 -all", spaced), 60).kind is SightKind.SEEN


@pytest.mark.parametrize(
    ("records", "kind", "text"),
    [
        ((), SightKind.MISSING, "there is no TXT record at s._domainkey.example.org"),
        (("v=spf1 -all",), SightKind.WRONG, "is no DKIM key"),
        (("v=DKIM1; p=",), SightKind.WRONG, "was revoked"),
        (("v=DKIM1; p=AAAA",), SightKind.WRONG, "is of no use"),
        ((_record(_key("s", which=1)),), SightKind.WRONG, "has another key"),
        ((_record(_key("s", KeyKind.ED25519)),), SightKind.WRONG, "has another key"),
        ((_record(_key("s")), _record(_key("s", which=1))), SightKind.WRONG, "there are 2 DKIM keys"),
        ((_record(_key("s")).replace("k=rsa", "k=rsa; h=sha1"),), SightKind.WRONG, "allows only the hash sha1"),
        ((_record(_key("s")).replace("k=rsa", "k=rsa; s=other"),), SightKind.WRONG, "is not for mail"),
        ((_record(_key("s"))[:-20],), SightKind.WRONG, "is of no use"),
        ((_record(_key("s")).replace("p=", "p=\\"),), SightKind.WRONG, "is of no use"),
    ],
)
def test_another_record_is_not_taken_for_the_key(records: tuple[str, ...], kind: SightKind, text: str) -> None:
    found = rotation.sighting_of(_key("s"), "example.org", records, 60)
    assert found.kind is kind
    assert text in found.text


# ---- From state to state


def test_the_first_key_signs_when_its_record_is_seen() -> None:
    keys, changes = rotation.after_look(_domain(_key("a")), "a", _SEEN, _NOW + 5, RotationOptions(seen_for_s=9_999))
    assert _states(keys) == {"a": "signing"}
    assert [(each.selector, each.now) for each in changes] == [("a", KeyState.SIGNING)]
    assert (keys.keys[0].since_us, keys.keys[0].ttl_s) == (_NOW + 5, 300)


def test_a_new_key_takes_the_place_of_the_old_one_of_its_kind_in_one_step() -> None:
    keys = _domain(_key("r1", made_us=1), _key("e1", KeyKind.ED25519, 1))
    for selector in ("r1", "e1"):
        keys, _ = rotation.after_look(keys, selector, _SEEN, _NOW, _OPTIONS)
    keys = _domain(*keys.keys, _key("r2", made_us=_NOW, which=1))
    keys, changes = rotation.after_look(keys, "r2", _SEEN, _NOW + 7 * _S, _OPTIONS)
    assert _states(keys) == {"r1": "retired", "e1": "signing", "r2": "signing"}
    assert [(each.selector, each.now.value) for each in changes] == [("r2", "signing"), ("r1", "retired")]
    old = keys.key("r1")
    assert old is not None
    assert old.removable_us == _NOW + 7 * _S + 300 * _S + 5 * _DAY


def test_the_record_of_the_old_key_is_removable_after_its_longest_ttl_and_the_queue() -> None:
    keys = _domain(_key("r1", made_us=1))
    for ttl_s in (40, 86_400, 10):
        keys, _ = rotation.after_look(keys, "r1", Sighting(SightKind.SEEN, ttl_s), _NOW, _OPTIONS)
    keys = _domain(*keys.keys, _key("r2", which=1))
    keys, _ = rotation.after_look(keys, "r2", _SEEN, _NOW, _OPTIONS)
    until_us = _NOW + 86_400 * _S + 5 * _DAY
    assert rotation.after_time(keys, until_us - 1) == (keys, ())
    keys, changes = rotation.after_time(keys, until_us)
    assert _states(keys) == {"r1": "removable", "r2": "signing"}
    assert [each.selector for each in changes] == ["r1"]
    assert rotation.after_time(keys, until_us + _DAY) == (keys, ())


def test_a_new_key_waits_until_its_record_has_been_seen_long_enough() -> None:
    options = RotationOptions(seen_for_s=60)
    keys, _ = rotation.after_look(_domain(_key("r1", made_us=1)), "r1", _SEEN, _NOW, options)
    keys = _domain(*keys.keys, _key("r2", which=1))
    steps = [
        (0, SightKind.SEEN, "waiting"),
        (59, SightKind.UNKNOWN, "waiting"),  # nobody could tell: the time goes on
        (59, SightKind.SEEN, "waiting"),
        (60, SightKind.MISSING, "waiting"),  # a server does not have it: it begins anew
        (61, SightKind.SEEN, "waiting"),
        (120, SightKind.SEEN, "waiting"),
        (121, SightKind.UNKNOWN, "waiting"),
        (121, SightKind.SEEN, "signing"),
    ]
    for at_s, kind, state in steps:
        keys, _ = rotation.after_look(keys, "r2", Sighting(kind, 1), _NOW + at_s * _S, options)
        assert _states(keys)["r2"] == state, at_s


def test_a_clock_that_is_set_back_does_not_keep_a_key_waiting_for_years() -> None:
    options = RotationOptions(seen_for_s=60)
    keys, _ = rotation.after_look(_domain(_key("r1", made_us=1)), "r1", _SEEN, _NOW, options)
    keys = _domain(*keys.keys, _key("r2", which=1))
    for at_us in (_NOW + 900 * _DAY, _NOW, _NOW + 60 * _S):
        keys, _ = rotation.after_look(keys, "r2", _SEEN, at_us, options)
    assert _states(keys)["r2"] == "signing"


@pytest.mark.parametrize("kind", [SightKind.MISSING, SightKind.WRONG, SightKind.UNKNOWN])
def test_a_key_that_signs_goes_on_whatever_the_dns_says_and_the_trouble_is_told(kind: SightKind) -> None:
    keys, _ = rotation.after_look(_domain(_key("a")), "a", _SEEN, _NOW, _OPTIONS)
    keys, changes = rotation.after_look(keys, "a", Sighting(kind, text="it is gone"), _NOW + 5, _OPTIONS)
    assert _states(keys) == {"a": "signing"}
    assert changes == ()
    assert keys.keys[0].trouble == "it is gone"
    keys, _ = rotation.after_look(keys, "a", _SEEN, _NOW + 9, _OPTIONS)
    assert keys.keys[0].trouble == ""


def test_an_earlier_key_never_takes_the_place_of_a_later_one() -> None:
    keys = _domain(_key("r1", made_us=1), _key("r2", made_us=2, which=1))
    keys, changes = rotation.after_look(keys, "r2", _SEEN, _NOW, _OPTIONS)
    assert _states(keys) == {"r1": "removable", "r2": "signing"}
    assert {each.selector: each.now.value for each in changes} == {"r2": "signing", "r1": "removable"}
    assert rotation.after_look(keys, "r1", _SEEN, _NOW + 1, _OPTIONS) == (keys, ())


def test_keys_are_outdated_after_so_many_days_of_signing_unless_a_new_one_waits() -> None:
    options = RotationOptions(rotate_days=30)
    keys = _domain(_key("r1", made_us=1), _key("e1", KeyKind.ED25519, 1))
    assert rotation.outdated(keys, _NOW + 900 * _DAY, options) == ()  # nothing signs
    keys, _ = rotation.after_look(keys, "r1", _SEEN, _NOW, options)
    keys, _ = rotation.after_look(keys, "e1", _SEEN, _NOW + _DAY, options)
    assert rotation.outdated(keys, _NOW + 30 * _DAY - 1, options) == ()
    assert rotation.outdated(keys, _NOW + 30 * _DAY, options) == (KeyKind.RSA,)
    assert set(rotation.outdated(keys, _NOW + 31 * _DAY, options)) == set(KeyKind)
    assert rotation.outdated(keys, _NOW + 900 * _DAY, RotationOptions()) == ()
    keys = _domain(*keys.keys, _key("r2", which=1))
    assert rotation.outdated(keys, _NOW + 31 * _DAY, options) == (KeyKind.ED25519,)


def test_a_clock_that_was_wrong_when_a_key_was_made_does_not_stop_rotation() -> None:
    """The first key says that it was made in years to come."""
    keys, _ = rotation.after_look(_domain(_key("r1", made_us=_NOW + 9_000 * _DAY)), "r1", _SEEN, _NOW, _OPTIONS)
    keys = _domain(*keys.keys, _key("r2", made_us=_NOW, which=1))
    keys, _ = rotation.after_look(keys, "r2", _SEEN, _NOW, _OPTIONS)
    assert [each.state for each in keys.keys] == [KeyState.RETIRED, KeyState.SIGNING]


def test_looks_are_frequent_at_first_and_end_with_signing() -> None:
    key = _key("a")
    assert 0 < rotation.next_look_us(key, 0) <= _NOW
    assert rotation.next_look_us(key, _NOW) == _NOW + 5 * _S
    assert rotation.next_look_us(key, _NOW + 1_000 * _S) == _NOW + 1_100 * _S
    assert rotation.next_look_us(key, _NOW + 90 * _DAY) == _NOW + 90 * _DAY + 600 * _S
    assert rotation.next_look_us(key, 1) == 5 * _S + 1  # the clock was set
    keys, _ = rotation.after_look(_domain(key), "a", _SEEN, _NOW, _OPTIONS)
    assert rotation.next_look_us(keys.keys[0], _NOW) == _NOW + 3_600 * _S
    wrong = msgspec.structs.replace(keys.keys[0], trouble="the DNS did not answer")
    assert rotation.next_look_us(wrong, _NOW) == _NOW + 600 * _S
    for state in (KeyState.RETIRED, KeyState.REMOVABLE):
        assert rotation.next_look_us(msgspec.structs.replace(key, state=state), _NOW) == 0


# ---- What operators do


def test_new_selectors_are_not_taken() -> None:
    keys = _domain()
    seen = set()
    for _ in range(keyring.KEYS_MAX):
        selector = rotation.new_selector(keys, KeyKind.RSA, "20261201")
        assert keyring.selector_fault(selector, "example.org") is None
        seen.add(selector)
        added = rotation.with_new(keys, _key(selector))
        assert isinstance(added, DomainKeys)
        keys = added
    assert len(seen) == keyring.KEYS_MAX
    assert {"rsa20261201", "rsa20261201b"} < seen
    assert isinstance(rotation.with_new(keys, _key("more")), KeyringFault)
    assert isinstance(rotation.with_new(_domain(_key("a")), _key("a")), KeyringFault)
    assert isinstance(rotation.with_new(_domain(), _key("A b")), KeyringFault)


def test_the_last_key_that_signs_is_known() -> None:
    keys = _domain(_key("r1", made_us=1), _key("e1", KeyKind.ED25519, 1), _key("r2", made_us=2, which=1))
    assert not rotation.would_end_signing(keys, ("r1", "e1", "r2"))
    for selector in ("r1", "e1"):
        keys, _ = rotation.after_look(keys, selector, _SEEN, _NOW, _OPTIONS)
    assert not rotation.would_end_signing(keys, ("r1",))
    assert not rotation.would_end_signing(keys, ("r2",))
    assert rotation.would_end_signing(keys, ("r1", "e1"))
    assert _states(rotation.without(keys, ("r1", "r2"))) == {"e1": "signing"}


# ---- Any order of events

_LOOKS = st.tuples(
    st.just("look"), st.integers(0, 9), st.sampled_from(SightKind), st.integers(0, 3_600), st.integers(-600, 90_000)
)
_TIMES = st.tuples(st.just("time"), st.integers(-600, 10 * rotation.DAY_S))
_ADDS = st.tuples(st.just("add"), st.sampled_from(KeyKind), st.integers(0, 1))
_REMOVALS = st.tuples(st.just("remove"), st.integers(0, 9))
_RANK = [KeyState.WAITING, KeyState.SIGNING, KeyState.RETIRED, KeyState.REMOVABLE]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(_LOOKS, _LOOKS, _TIMES, _ADDS, _REMOVALS), max_size=40),
    st.sampled_from([0.0, 60.0, 3_600.0]),
)
def test_whatever_happens_a_domain_that_signs_goes_on_with_one_key_of_each_kind(
    events: list[tuple[object, ...]], seen_for_s: float
) -> None:
    options = RotationOptions(seen_for_s=seen_for_s, keep_s=5 * rotation.DAY_S)
    keys, now_us, made = _domain(), _NOW, 0
    for event in events:
        before = keys
        changes: tuple[rotation.KeyChange, ...] = ()
        seen_selector = ""
        match event:
            case ("add", KeyKind() as kind, int(which)):
                made += 1
                added = rotation.with_new(keys, _key(f"s{made}", kind, now_us + made, which))
                assert isinstance(added, DomainKeys)
                keys = added
            case ("remove", int(place)) if place < len(keys.keys):
                removed = keys.keys[place].selector
                before = keys = rotation.without(keys, (removed,))
            case ("time", int(passed_s)):
                now_us += passed_s * _S
                keys, changes = rotation.after_time(keys, now_us)
            case ("look", int(place), SightKind() as kind, int(ttl_s), int(passed_s)) if place < len(keys.keys):
                now_us += passed_s * _S
                selector = keys.keys[place].selector
                if kind is SightKind.SEEN:
                    seen_selector = selector
                keys, changes = rotation.after_look(keys, selector, Sighting(kind, ttl_s, "x"), now_us, options)
        _check_step(before, keys, changes, seen_selector)
        for each in keys.in_state(KeyState.RETIRED):
            least_us = each.since_us + 5 * _DAY
            assert each.removable_us >= least_us
        assert keyring.decode(keyring.encode(keys)) == keys


def _check_step(
    before: DomainKeys, now: DomainKeys, changes: tuple[rotation.KeyChange, ...], seen_selector: str
) -> None:
    for kind in KeyKind:
        signed = [each for each in before.in_state(KeyState.SIGNING) if each.kind is kind]
        signs = [each for each in now.in_state(KeyState.SIGNING) if each.kind is kind]
        assert len(signs) <= 1
        assert len(signs) >= len(signed)
        if signed and signs[0] != signed[0]:
            assert signs[0].made_us >= signed[0].made_us
    told = {each.selector: each for each in changes}
    for each in now.keys:
        was = before.key(each.selector)
        if was is None:
            continue
        assert _RANK.index(each.state) >= _RANK.index(was.state)
        assert (each.selector in told) == (each.state is not was.state)
        if each.state is KeyState.SIGNING and was.state is KeyState.WAITING:
            assert each.selector == seen_selector  # only at the moment at which its record was seen
        if was.state is KeyState.RETIRED and each.state is KeyState.REMOVABLE:
            assert each.since_us == was.removable_us
