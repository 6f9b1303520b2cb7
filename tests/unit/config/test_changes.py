"""Which keys differ, and which of them need a restart."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from postroad.config import changes, document
from postroad.config.load import parse
from postroad.config.settings import Settings


def settings(text: str) -> Settings:
    state_dir = "" if "state_dir" in text else 'state_dir = "state"\n'
    found = parse(f'hostname = "mx.example.org"\n{state_dir}{text}', Path("postroad.toml"), files=False)
    assert isinstance(found, Settings), found
    return found


@pytest.mark.parametrize(
    ("text", "keys", "restart"),
    [
        ("", [], []),
        ("workers = 2", ["workers"], [True]),
        ('state_dir = "elsewhere"', ["state_dir"], [True]),
        ("[limits]\nnetwork_prefix_ipv4 = 20\nsessions_max = 500",
         ["limits.sessions_max", "limits.network_prefix_ipv4"], [False, True]),
        ("[store]\nwal_max = 2000000", ["store.wal_max"], [True]),
        ("[history]\nkeep_days = 3", ["history.keep_days"], [True]),
        ("[log]\nlevel = \"debug\"", ["log.level"], [False]),
    ],
)  # fmt: skip
def test_what_differs(text: str, keys: list[str], restart: list[bool]) -> None:
    found = changes.differing(document.in_force(settings("")), document.in_force(settings(text)))
    assert sorted(key for key, *_ in found) == sorted(keys)
    assert {key: changes.needs_restart(key) for key, *_ in found} == dict(zip(keys, restart, strict=True))


def test_a_table_that_is_new_and_one_that_is_gone() -> None:
    listener = '[[listener]]\nname = "a"\nport = 2525\nrole = "relay"\ntrusted_networks = ["192.0.2.1"]'
    one, other = document.in_force(settings("")), document.in_force(settings(listener))
    assert {key.partition("]")[0] for key, *_ in changes.differing(one, other)} <= {"listener", "listener[1"}
    assert changes.differing(one, other) and changes.differing(other, one)


def test_a_whole_table_is_one_line() -> None:
    hop = '[[next_hop]]\ndomain = "a.example"\nhost = "x.example"\n'
    one, two = settings(hop), settings(f"{hop}port = 26\n{hop.replace('a.example', 'b.example')}")
    before, after = document.in_force(one), document.in_force(two)
    new = 'next_hop[2] (domain = "b.example")'
    assert changes.summed_up(before, after) == [("next_hop[1].port", "differs"), (new, "is new")]
    assert changes.summed_up(after, before) == [("next_hop[1].port", "differs"), (new, "is gone")]
    first = changes.summed_up(document.in_force(settings("")), before)
    assert first == [('next_hop[1] (domain = "a.example")', "is new")]


def test_the_keys_that_are_named_are_there() -> None:
    for key in (*changes.FIXED, *changes.AT_START):
        attrgetter(key)(settings(""))
