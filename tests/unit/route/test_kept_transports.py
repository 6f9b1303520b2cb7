"""What transport maps say of a domain is used again for a moment, and never for longer than it is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.route import Destination
from postroad.mail.routing import key_of
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.route.domain_maps import mapped_domains
from postroad.route.options import LocalDomain, NextHop, RoutingOptions
from postroad.route.table import RoutingTable
from postroad.route.transport_maps import TransportMaps
from postroad.world.clock import SystemClock

OPTIONS = RoutingOptions((LocalDomain("home.test", path="/mail/{local_part}"),))
BY_SENDER = RoutingOptions(next_hops=(NextHop("*", "two.test", senders=("alpha.test",)),))


def maps_of(*options: MapOptions) -> Maps:
    made = make(options, SystemClock(), lambda level, text: None)
    assert isinstance(made, Maps)
    return made


def text_map(path: Path, text: str) -> MapOptions:
    path.write_text(text)
    return MapOptions("ways", MapKind.TEXT, str(path))


def replace(maps: Maps, path: Path, text: str) -> None:
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)
    look(maps)


def look(maps: Maps) -> None:
    for _ in range(2):  # the second one reads what did not change any more
        maps.look(lambda work, done: done(work()))


class Routes:
    def __init__(self, maps: Maps, options: RoutingOptions = OPTIONS) -> None:
        self.maps = maps
        self._transports = TransportMaps(RoutingTable(options), tuple(maps))

    def key(self, to: str, sender: str = "ada@alpha.test", *, released: bool = False) -> str:
        local_part, _, domain = to.rpartition("@")
        mail = Envelope(0, Address(*sender.split("@")), (), 0, 0, Peer())
        found = self._transports.route(mail, Recipient(Address(local_part, domain), released=released))
        assert isinstance(found, Destination | Attempt), found
        return key_of(found) if isinstance(found, Destination) else found.text

    @property
    def asked(self) -> int:
        return self.maps["ways"].asked


async def test_a_domain_is_looked_up_once_for_all_its_mailboxes(tmp_path: Path) -> None:
    routes = Routes(maps_of(text_map(tmp_path / "ways", "a.test smtp:[one.test]\n")))
    for name in ("ada", "bob", "ada+x"):
        assert routes.key(f"{name}@a.test") == "[one.test]:25"
        assert routes.key(f"{name}@b.test") == "b.test"
        assert routes.key(f"{name}@home.test") == "maildir:home.test"
    first = routes.asked
    assert routes.key("eve@a.test") == "[one.test]:25" and routes.key("eve@b.test") == "b.test"
    assert routes.asked == first


async def test_a_file_that_is_replaced_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ways"
    routes = Routes(maps_of(text_map(path, "a.test smtp:[one.test]\n")))
    for text, a, b in (
        ("a.test smtp:[two.test]\n", "[two.test]:25", "b.test"),
        ("b.test smtp:[three.test]\n", "a.test", "[three.test]:25"),
        ("ada@a.test smtp:[four.test]\nb.test smtp:[three.test]\n", "[four.test]:25", "[three.test]:25"),
        ("a.test hold: wait\nb.test error: gone\n", "wait", "gone"),
    ):
        for _ in range(2):
            routes.key("ada@a.test")
            routes.key("ada@b.test")
        replace(routes.maps, path, text)
        assert (routes.key("ada@a.test"), routes.key("ada@b.test")) == (a, b)


async def test_a_file_that_cannot_be_used_leaves_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ways"
    routes = Routes(maps_of(text_map(path, "a.test smtp:[one.test]\n")))
    assert routes.key("ada@a.test") == "[one.test]:25"
    path.write_bytes(b"a.test \xff\xfe\n")
    look(routes.maps)
    assert routes.key("ada@a.test") == "[one.test]:25"


async def test_entries_of_mailboxes_are_never_passed_over(tmp_path: Path) -> None:
    routes = Routes(maps_of(text_map(tmp_path / "ways", "a.test smtp:[one.test]\nbob@a.test smtp:[two.test]\n")))
    for _ in range(2):
        assert routes.key("ada@a.test") == "[one.test]:25"
        assert routes.key("bob@a.test") == routes.key("bob+x@a.test") == "[two.test]:25"


async def test_nothing_is_kept_of_what_the_sender_decides(tmp_path: Path) -> None:
    routes = Routes(maps_of(text_map(tmp_path / "ways", "a.test smtp:[two.test]\n")), BY_SENDER)
    for _ in range(2):
        assert routes.key("ada@b.test", "ada@alpha.test") == "[two.test]:25"
        assert routes.key("ada@b.test", "ada@beta.test") == "b.test"


async def test_mail_that_was_released_is_not_held_again(tmp_path: Path) -> None:
    routes = Routes(maps_of(text_map(tmp_path / "ways", "a.test hold: wait\n")))
    for _ in range(2):
        assert routes.key("ada@a.test") == "wait"
        assert routes.key("ada@a.test", released=True) == "a.test"


@pytest.mark.parametrize("kind", [MapKind.FIRST, MapKind.UNION])
async def test_a_file_within_another_map_counts_at_once_too(tmp_path: Path, kind: MapKind) -> None:
    path = tmp_path / "ways"
    inner = MapOptions("inner", MapKind.TEXT, str(path))
    path.write_text("a.test smtp:[one.test]\n")
    made = maps_of(inner, MapOptions("ways", kind, maps=("inner",)))
    routes = Routes(made)
    assert routes.key("ada@a.test") == "[one.test]:25"
    replace(made, path, "a.test smtp:[two.test]\n")
    assert routes.key("ada@a.test") == "[two.test]:25"


async def test_who_writes_a_local_part_chooses_no_server_that_others_are_sent_to(tmp_path: Path) -> None:
    (tmp_path / "chosen").write_text("/^(.*)@a[.]test$/ smtp:[$1.test]\n")
    chosen = MapOptions("chosen", MapKind.PCRE, str(tmp_path / "chosen"))
    routes = Routes(maps_of(text_map(tmp_path / "ways", "bob@a.test smtp:[x.test]\n"), chosen))
    for _ in range(2):
        assert routes.key("bob@a.test") == "[x.test]:25"
        assert "anybody could choose where mail goes" in routes.key("x@a.test")


async def test_a_domain_that_becomes_ours_ends_what_was_kept_of_it(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("other.test 1\n")
    maps = maps_of(text_map(tmp_path / "ways", "a.test smtp:[one.test]\n"), MapOptions("ours", MapKind.TEXT, str(ours)))
    options = RoutingOptions(mapped_local=(LocalDomain("many", path="/mail/{local_part}", domain_maps=("ours",)),))
    mapped = mapped_domains(options, maps.named)
    assert mapped is not None
    transports = TransportMaps(RoutingTable(options, mapped=mapped), maps.named(("ways",)))

    def key() -> str:
        assert mapped is not None and mapped.make_known("a.test") is None
        mail = Envelope(0, None, (), 0, 0, Peer())
        found = transports.route(mail, Recipient(Address("ada", "a.test")))
        assert isinstance(found, Destination)
        return found.key

    assert key() == key() == "[one.test]:25"
    replace(maps, ours, "a.test 1\n")
    mapped.fresh.clear()
    mapped._kept.clear()  # as if they had grown old
    assert key() == "maildir:a.test"
