"""Which maps are asked for the owner of a list: those that answer at once."""

from __future__ import annotations

from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.maps.asked import Asked
from postroad.maps.face import Map
from postroad.route.aliases import Aliases


class Source:
    def __init__(self, entries: dict[str, str], waits: bool) -> None:
        self.entries, self.waits = entries, waits
        self.keys: list[str] = []

    def look_up(self, key: str, part: bool = False) -> str | None:
        self.keys.append(key)
        return self.entries.get(key)

    def known(self, key: str, part: bool = False) -> str | None:
        return self.look_up(key, part)

    def close(self) -> None:
        pass


def sender_of(source: Source) -> str:
    map = Map("lists", "kind", source, print)
    aliases = Aliases("", lambda domain: domain == "x.test", maps=(map,))
    found = aliases.expand(1, 1, (Recipient(Address("list", "x.test")),), lambda address: False, asked=Asked())
    return str(found.recipients[0].sender or "")


def test_a_database_is_not_asked_for_owners() -> None:
    entries = {"list@x.test": "ada@y.test", "owner-list@x.test": "bob@y.test"}
    slow, quick = Source(entries, waits=True), Source(entries, waits=False)
    assert sender_of(quick) == "owner-list@x.test"
    assert sender_of(slow) == ""
    assert slow.keys == ["list@x.test"]
