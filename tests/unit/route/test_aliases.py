"""Aliases: the file, and what becomes of recipients (RFC 3461 §5.2.7)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.mail.address import Address
from postroad.mail.envelope import Notify, Recipient
from postroad.mail.event import Event, Expanded
from postroad.mail.expansion import Expansion
from postroad.route.alias_file import AliasLimits, AliasTarget, Homes, parse
from postroad.route.aliases import Aliases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# nothing\n\n   # nor here\n", {}),
        ("root: ada", {"root": (AliasTarget("ada"),)}),
        ("Root:Ada,  bob ,\n", {"root": (AliasTarget("Ada"), AliasTarget("bob"))}),
        ("root: ada,\n\tbob,\n# between\n  carol\nx: y", {
            "root": (AliasTarget("ada"), AliasTarget("bob"), AliasTarget("carol")), "x": (AliasTarget("y"),)}),
        ("root: ada@Example.NET", {"root": (AliasTarget("ada", "example.net"),)}),
        ("a@Example.org: b@example.net", {"a@example.org": (AliasTarget("b", "example.net"),)}),
        ("a@bücher.example: b@bücher.example", {
            "a@xn--bcher-kva.example": (AliasTarget("b", "xn--bcher-kva.example"),)}),
        ("@old.example: @new.example", {"@old.example": (AliasTarget("", "new.example"),)}),
        ("@example.org: catchall", {"@example.org": (AliasTarget("catchall"),)}),
        ("ada: \\ada, archive", {"ada": (AliasTarget("ada", "", True), AliasTarget("archive"))}),
        ('"a, b: c": "x, y"@example.org, z', {"a, b: c": (AliasTarget("x, y", "example.org"), AliasTarget("z"))}),
        ("a: b, b, b", {"a": (AliasTarget("b"),)}),
        ("a: b@[192.0.2.1]", {"a": (AliasTarget("b", "[192.0.2.1]"),)}),
        ("ada: ada", {"ada": (AliasTarget("ada"),)}),
        ("a: b\nb: a, c", {"a": (AliasTarget("b"),), "b": (AliasTarget("a"), AliasTarget("c"))}),
    ],
)  # fmt: skip
def test_files(text: str, expected: dict[str, tuple[AliasTarget, ...]]) -> None:
    assert parse(text, "aliases") == expected
    assert parse(text.replace("\n", "\r\n"), "aliases") == expected


@pytest.mark.parametrize(
    ("text", "lines", "word"),
    [
        ("root ada", [1], "colon"),
        ("\n: ada", [2], "neither"),
        ("a b: ada", [1], "neither"),
        ("@: ada", [1], "neither"),
        ("root:", [1], "missing"),
        ("root: a,,b", [1], "missing"),
        ("root: |/bin/sh", [1], "programs"),
        ('root: "|/bin/sh -c x"', [1], "programs"),
        ("root: /var/mail/root", [1], 'write files = ["aliases"] under [alias_targets]'),
        ("root: :include:/etc/list", [1], "included files"),
        ("root: a b", [1], "not a mailbox"),
        ("root: a@b@c", [1], "not a mailbox"),
        ("root: a@-", [1], "not a mailbox"),
        ('root: "a', [1], "not a mailbox"),
        ('"root: a', [1], "colon"),
        ("root: @-", [1], "not a domain"),
        ("a: x\nb: y\nA: z", [3], "twice, first in line 1"),
        ("a: b\nb: a", [1, 2], "circle"),
        ("x: y\na: b\nb: c\nc: a", [2, 3, 4], "circle"),
        ("@a.example: @b.example\n@b.example: @a.example", [1, 2], "circle"),
        ("a: x\nbad\nworse", [2, 3], "colon"),
    ],
)
def test_wrong_files(text: str, lines: list[int], word: str) -> None:
    found = parse(text, "aliases")
    assert isinstance(found, tuple)
    assert [problem.where for problem in found] == [f"aliases:{line}" for line in lines]
    assert all(word in problem.text and problem.remedy for problem in found)


@given(st.text(alphabet='ab@.:,"\\ \t\n#|', max_size=60))
def test_any_text(text: str) -> None:
    parse(text, "aliases")


FILE = """
postmaster: ada
sales: ada, bob@example.net
team: sales, carol, ada
ada: \\ada, archive
self: self, other
ring1: ring2, carol
ring2: ring1
only@example.org: ada@example.org
only: nobody
"q q": carol
@old.example: @example.org
@catch.example: all@example.net
c1: c2@example.org
c2: c1
"""
LOCAL = ("example.org", "old.example", "catch.example")
BOXES = {"ada@example.org", "carol@example.org", "real@old.example", "postmaster@boxed.example"}


def aliases(tmp_path: Path, text: str = FILE, postmaster: Address | None = None) -> Aliases:
    path = tmp_path / "aliases"
    path.write_text(text)
    made = Aliases(str(path), lambda domain: domain in (*LOCAL, "boxed.example"), "+", postmaster)
    assert made.load() == ()
    return made


def exists(address: Address) -> bool:
    return str(address) in BOXES


def mailbox(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


@pytest.mark.parametrize(
    ("given", "into"),
    [
        ("nobody@example.org", None),
        ("carol@example.org", None),
        ("postmaster@example.org", ["ada@example.org", "archive@example.org"]),
        ("PostMaster@example.org", ["ada@example.org", "archive@example.org"]),
        ("postmaster@example.net", None),  # not ours
        ("ada@example.org", ["ada@example.org", "archive@example.org"]),
        ("ada+x@example.org", ["ada@example.org", "archive@example.org"]),
        ("sales@example.org", ["ada@example.org", "archive@example.org", "bob@example.net"]),
        ("team@example.org",
         ["ada@example.org", "archive@example.org", "bob@example.net", "carol@example.org"]),
        ("self@example.org", ["self@example.org", "other@example.org"]),
        ("ring1@example.org", ["carol@example.org"]),
        ("ring2@example.org", ["carol@example.org"]),
        ("only@example.org", ["ada@example.org", "archive@example.org"]),
        ("only@old.example", ["nobody@example.org"]),  # nobody has no box there: the rule for the domain counts
        ("q q@example.org", ["carol@example.org"]),
        ("whoever@old.example", ["whoever@example.org"]),
        ("Whoever+x@old.example", ["Whoever+x@example.org"]),
        ("real@old.example", None),
        ("x@catch.example", ["all@example.net"]),
        ("c1@example.org", None),  # in a circle: the mailbox itself, never lost
    ],
)  # fmt: skip
def test_expansion(tmp_path: Path, given: str, into: list[str] | None) -> None:
    recipient = Recipient(mailbox(given))
    recipients, events = _both(aliases(tmp_path).expand(7, 99, (recipient,), exists))
    if into is None:
        assert (recipients, events) == ((recipient,), ())
        return
    assert sorted(str(each.address) for each in recipients) == sorted(into)
    assert [(event.id, event.at_us, event.recipient) for event in events] == [(7, 99, str(mailbox(given)))]
    assert sorted(events[0].into) == sorted(into)
    for each in recipients:
        assert each.given == (None if each.address == recipient.address else recipient.address)


@pytest.mark.parametrize(
    ("notify", "single", "several"),
    [
        (Notify.UNSET, Notify.UNSET, Notify.UNSET),
        (Notify.NEVER, Notify.NEVER, Notify.NEVER),
        (Notify.SUCCESS, Notify.SUCCESS, Notify.NEVER),
        (Notify.SUCCESS | Notify.FAILURE, Notify.SUCCESS | Notify.FAILURE, Notify.FAILURE),
        (Notify.FAILURE | Notify.DELAY, Notify.FAILURE | Notify.DELAY, Notify.FAILURE | Notify.DELAY),
    ],
)
def test_parameters_go_along(tmp_path: Path, notify: Notify, single: Notify, several: Notify) -> None:
    # RRVS asks for the owner of the alias, and ends with it (RFC 7293).
    orcpt, parameters = "rfc822;first@example.com", (("X", "y"), ("RRVS", "2014-04-03T23:01:00Z"))
    for name, expected in (("whoever@old.example", single), ("sales@example.org", several)):
        recipient = Recipient(mailbox(name), notify, orcpt, None, parameters)
        for each in aliases(tmp_path).expand(1, 1, (recipient,), exists).recipients:
            assert (each.notify, each.orcpt, each.parameters) == (expected, orcpt, parameters[:1])
            assert each.given == recipient.address


def test_what_the_client_named_first_is_kept(tmp_path: Path) -> None:
    first = Address("Postmaster", "")
    recipient = Recipient(mailbox("postmaster@example.org"), given=first)
    recipients, events = _both(aliases(tmp_path).expand(1, 1, (recipient,), exists))
    assert {each.given for each in recipients} == {first}
    assert events[0].recipient == "Postmaster"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Notify.UNSET, Notify.UNSET, Notify.UNSET),
        (Notify.NEVER, Notify.NEVER, Notify.NEVER),
        (Notify.NEVER, Notify.SUCCESS, Notify.SUCCESS),
        (Notify.UNSET, Notify.SUCCESS, Notify.SUCCESS | Notify.FAILURE | Notify.DELAY),
        (Notify.NEVER, Notify.UNSET, Notify.FAILURE | Notify.DELAY),
        (Notify.FAILURE, Notify.DELAY, Notify.FAILURE | Notify.DELAY),
    ],
)
def test_a_mailbox_is_there_once(tmp_path: Path, one: Notify, other: Notify, both: Notify) -> None:
    pair = (Recipient(mailbox("carol@example.org"), one), Recipient(mailbox("q q@example.org"), other))
    for wanted in (pair, pair[::-1]):
        recipients, _ = _both(aliases(tmp_path).expand(1, 1, wanted, exists))
        assert [str(each.address) for each in recipients] == ["carol@example.org"]
        assert recipients[0].notify == both
    twice = (Recipient(mailbox("x@example.net"), one), Recipient(mailbox("x@example.net"), other))
    recipients, events = _both(Aliases("", lambda domain: True).expand(1, 1, twice, exists))
    assert recipients == (Recipient(mailbox("x@example.net"), both),) and events == ()


def test_without_aliases_nothing_is_touched() -> None:
    recipients = (Recipient(mailbox("a@example.org")), Recipient(mailbox("b@example.org")))
    assert Aliases("", lambda domain: True).expand(1, 1, recipients, exists).recipients is recipients


@pytest.mark.parametrize(
    ("given", "into"),
    [
        ("Postmaster@old.example", "root@example.net"),
        ("postmaster@boxed.example", "postmaster@boxed.example"),
        ("postmaster@example.org", "ada@example.org"),  # an alias of its own
        ("postmaster@example.com", "postmaster@example.com"),  # not ours
        ("x@boxed.example", "x@boxed.example"),
    ],
)
def test_the_postmaster_setting(tmp_path: Path, given: str, into: str) -> None:
    made = aliases(tmp_path, "postmaster@example.org: \\ada", mailbox("root@example.net"))
    recipients, _ = _both(made.expand(1, 1, (Recipient(mailbox(given)),), exists))
    assert [str(each.address) for each in recipients] == [into]


@pytest.mark.parametrize(
    ("name", "known"),
    [("sales@example.org", True), ("sales+x@example.org", True), ("x@old.example", True), ("x@example.org", False),
     ("sales@example.net", False)],
)  # fmt: skip
def test_names(tmp_path: Path, name: str, known: bool) -> None:
    assert aliases(tmp_path).names(mailbox(name)) is known


def test_the_file_is_read_again_and_a_wrong_one_is_not_taken(tmp_path: Path) -> None:
    made = aliases(tmp_path)
    path = tmp_path / "aliases"
    path.write_text("fresh: carol")
    assert made.load() == ()
    assert made.names(mailbox("fresh@example.org")) and not made.names(mailbox("sales@example.org"))
    path.write_text("broken")
    assert [problem.where for problem in made.load()] == [f"{path}:1"]
    assert made.load() == ()  # said once
    assert made.names(mailbox("fresh@example.org"))
    path.write_bytes(b"\xff: x")
    assert "UTF-8" in str(made.load()[0])
    path.unlink()
    assert "no such file" in str(made.load()[0])
    assert made.names(mailbox("fresh@example.org")) and made.refused
    path.write_text("fresh: bob")
    assert made.load() == () and not made.refused


@pytest.mark.slow
def test_a_large_alias(tmp_path: Path) -> None:
    members = ", ".join(f"m{number}@example.net" for number in range(20_000))
    made = aliases(tmp_path, f"all: {members}")
    recipients, events = _both(made.expand(1, 1, (Recipient(mailbox("all@example.org")),), exists))
    assert len(recipients) == 20_000 and isinstance(events[0], Expanded)


# ---- targets at our own domains must be there -----------------------------------------------------------------------

_BOXES = {"ada@one.example", "bob@one.example", "bob@two.example", "archive@one.example"}


def _known(address: Address) -> bool | None:
    """Two domains whose recipients are told, one that has any, and others'."""
    if address.domain == "any.example":
        return True
    if address.domain not in ("one.example", "two.example"):
        return None
    return f"{address.local_part.partition('+')[0]}@{address.domain}" in _BOXES


HOMES = Homes(("one.example", "two.example"), _known)


@pytest.mark.parametrize(
    "text",
    [
        "info: ada",  # there at one of the domains
        "info: ada+x",
        "info: ada@one.example, eve@any.example, eve@elsewhere.example",
        "info@two.example: bob",
        "staff: info\ninfo: ada",
        "staff@one.example: info@two.example\ninfo: bob",
        "ada: \\ada, archive",
        "ada: ada, archive",
        "x: eve@two.example\n@two.example: bob",
        "@one.example: @two.example",
        "bob@one.example: @two.example",
    ],
)
def test_targets_that_are_there(text: str) -> None:
    assert isinstance(parse(text, "aliases", HOMES), dict)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("x: ada\ninfo: eve", 2, "'info' leads to 'eve' of no local domain"),
        ("info: ada@two.example", 1, "'info' leads to ada@two.example"),
        ("info@two.example: ada", 1, "leads to ada@two.example"),
        ("info: ada, eve@one.example", 1, "eve@one.example"),
        ("eve: \\eve, ada", 1, "'eve'"),
        ("eve: eve, ada", 1, "'eve'"),
        ("info: \\eve\neve: ada", 1, "'eve'"),
        ("ada@one.example: @two.example", 1, "ada@two.example"),
        ("@two.example: catchall", 1, "catchall@two.example"),
    ],
)
def test_targets_that_are_not_there(text: str, line: int, word: str) -> None:
    found = parse(text, "aliases", HOMES)
    assert isinstance(found, tuple) and len(found) == 1
    assert found[0].where == f"aliases:{line}" and word in found[0].text and found[0].remedy


def _at_home(tmp_path: Path, text: str) -> Aliases:
    (tmp_path / "aliases").write_text(text)
    is_local = {"one.example", "two.example", "any.example"}.__contains__
    aliases = Aliases(str(tmp_path / "aliases"), is_local, homes=HOMES)
    assert aliases.load() == ()
    return aliases


def test_a_bare_alias_applies_only_where_a_target_is_there(tmp_path: Path) -> None:
    aliases = _at_home(tmp_path, "info: ada\nall: ada, bob\nstaff: info\n")
    assert [aliases.names(Address(name, "one.example")) for name in ("info", "staff", "all")] == [True, True, True]
    assert [aliases.names(Address(name, "two.example")) for name in ("info", "staff", "all")] == [False, False, True]
    recipients = (Recipient(Address("all", "two.example")),)
    expanded, events = _both(aliases.expand(1, 2, recipients, lambda address: _known(address) is True))
    assert [str(each.address) for each in expanded] == ["bob@two.example"] and events[0].into == ("bob@two.example",)


def test_recipients_that_go_leave_the_aliases_and_are_complained_of_once(tmp_path: Path) -> None:
    aliases = _at_home(tmp_path, "info: archive\n")
    _BOXES.discard("archive@one.example")
    try:
        problems = aliases.load(1)
        assert len(problems) == 1 and "archive" in problems[0].text
        assert aliases.load(1) == ()
        assert not aliases.names(Address("info", "one.example"))
    finally:
        _BOXES.add("archive@one.example")
    assert aliases.load(2) == ()
    assert aliases.names(Address("info", "one.example"))


# ---- loops and bounds


def _both(made: Expansion) -> tuple[tuple[Recipient, ...], tuple[Event, ...]]:
    return made.recipients, made.events


def _aliases(tmp_path: Path, text: str, limits: AliasLimits | None = None) -> Aliases:
    (tmp_path / "looped").write_text(text)
    made = Aliases(str(tmp_path / "looped"), lambda domain: domain == "a.test", limits=limits or AliasLimits())
    assert not made.load()
    return made


def _names(addresses: tuple[Address, ...]) -> list[str]:
    return sorted(map(str, addresses))


def _wanted(*names: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(mailbox(name)) for name in names)


def test_the_aliases_that_were_gone_through_are_told_and_an_alias_passed_before_leads_nowhere(tmp_path: Path) -> None:
    made = _aliases(tmp_path, "all: sales, bob\nsales: x@b.test, y@b.test\nself: self\n")
    first = made.expand(1, 1, _wanted("all@a.test"), lambda address: False)
    assert _names(first.through) == ["all@a.test", "sales@a.test"] and not first.stopped
    assert _names(tuple(each.address for each in first.recipients)) == ["bob@a.test", "x@b.test", "y@b.test"]
    assert made.expand(1, 1, _wanted("self@a.test", "z@b.test"), lambda address: False).through == ()

    again = made.expand(1, 1, _wanted("all@a.test"), lambda address: False, first.through.__contains__)
    assert not again.recipients and not again.events and _names(again.stopped) == ["all@a.test"]
    # One that it has been through only on another way is left out, the others are not.
    sales = mailbox("sales@a.test")
    part = made.expand(1, 1, _wanted("all@a.test", "carl@a.test"), lambda address: False, sales.__eq__)
    assert _names(tuple(each.address for each in part.recipients)) == ["bob@a.test", "carl@a.test"]
    assert part.stopped == (sales,) and _names(part.through) == ["all@a.test"]


@pytest.mark.parametrize(
    ("text", "limits", "word"),
    [
        ("".join(f"a{number}: a{number + 1}\n" for number in range(52)), AliasLimits(), "50 aliases"),
        (f"all: {', '.join(f'u{number}@b.test' for number in range(11))}", AliasLimits(50, 10), "10 mailboxes"),
        ("all: one, two\none: u1@b.test, u2@b.test\ntwo: u3@b.test", AliasLimits(50, 4), "4 mailboxes"),
    ],
)
def test_a_file_whose_aliases_lead_to_too_much_is_not_taken(text: str, limits: AliasLimits, word: str) -> None:
    found = parse(text, "aliases", None, limits)
    assert isinstance(found, tuple) and word in found[0].text


def test_judging_a_file_of_many_wide_aliases_is_bounded() -> None:
    wide = ", ".join(f"u{number}@b.test" for number in range(5_000))
    text = f"wide: {wide}\n" + "".join(f"a{number}: wide\n" for number in range(20_000))
    assert not isinstance(parse(text, "aliases"), tuple)


def test_what_only_shows_at_expansion_is_bounded_there(tmp_path: Path) -> None:
    # "@a.test" is followed for each recipient: the file does not show where it leads
    made = _aliases(tmp_path, "".join(f"a{number}: a{number + 1}@a.test\n" for number in range(9)), AliasLimits(50))
    narrow = Aliases(str(tmp_path / "looped"), lambda domain: True, limits=AliasLimits(3))
    narrow._map = made._map
    deep = narrow.expand(1, 1, _wanted("a0@a.test"), lambda address: False)
    assert not deep.recipients and "3 aliases" in deep.excess
    assert "3 aliases" in narrow.excess(mailbox("a0@a.test"), lambda address: False)
    assert not narrow.excess(mailbox("a7@a.test"), lambda address: False)


def test_all_recipients_of_a_message_together_are_bounded(tmp_path: Path) -> None:
    made = _aliases(tmp_path, "a: u1@b.test, u2@b.test\nb: u3@b.test, u4@b.test\n", AliasLimits(50, 10, 3))
    assert not made.expand(1, 1, _wanted("a@a.test"), lambda address: False).excess
    assert "more than 3" in made.expand(1, 1, _wanted("a@a.test", "b@a.test"), lambda address: False).excess


def _counting(tmp_path: Path, text: str, limits: AliasLimits) -> tuple[Aliases, list[Address]]:
    """The aliases, and which mailboxes were asked for."""
    asked: list[Address] = []

    def known(address: Address) -> bool | None:
        asked.append(address)
        return None if address.domain != "a.test" else address.local_part == "ada"

    (tmp_path / "aliases").write_text(text)
    made = Aliases(str(tmp_path / "aliases"), lambda domain: domain == "a.test", homes=Homes(("a.test",), known),
                   limits=limits)  # fmt: skip
    assert not made.load()
    asked.clear()
    return made, asked


def test_many_extensions_of_one_alias_are_followed_once(tmp_path: Path) -> None:
    """A stranger who names a list a thousand times costs no more than one who names it once."""
    made, asked = _counting(tmp_path, f"list: {', '.join(f'u{number}@b.test' for number in range(50))}", AliasLimits())
    names = [f"list+{number}@a.test" for number in range(200)]
    found = made.expand(1, 1, _wanted(*names), lambda address: False)
    assert len(found.recipients) == 50 and len(asked) == 50
    assert [event.recipient for event in found.events if isinstance(event, Expanded)] == names
    assert {str(alias) for alias in found.through} == set(names)


def test_extensions_of_one_alias_keep_what_each_asked_for(tmp_path: Path) -> None:
    made, _ = _counting(tmp_path, "list: ada, u@b.test", AliasLimits())
    wanted = (Recipient(mailbox("list+1@a.test"), Notify.NEVER), Recipient(mailbox("list+2@a.test"), Notify.DELAY))
    found = made.expand(1, 1, wanted, lambda address: False)
    assert [each.notify for each in found.recipients] == [Notify.DELAY, Notify.DELAY]
    stopped = made.expand(1, 1, _wanted("list+1@a.test", "list+2@a.test"), lambda address: False,
                          lambda alias: alias.local_part == "list+2")  # fmt: skip
    assert len(stopped.recipients) == 2 and [str(alias) for alias in stopped.stopped] == ["list+2@a.test"]


def test_mailboxes_count_as_often_as_a_recipient_leads_to_them(tmp_path: Path) -> None:
    """Each way to them is told in the history, so it must be bounded, too."""
    made, _ = _counting(tmp_path, f"list: {', '.join(f'u{number}@b.test' for number in range(10))}",
                        AliasLimits(50, 10, 25))  # fmt: skip
    assert not made.expand(1, 1, _wanted("list+1@a.test", "list+2@a.test"), lambda address: False).excess
    three = _wanted("list+1@a.test", "list+2@a.test", "list+3@a.test")
    assert "more than 25" in made.expand(1, 1, three, lambda address: False).excess


def test_rcpt_follows_an_alias_no_further_than_to_the_first_mailbox(tmp_path: Path) -> None:
    made, asked = _counting(tmp_path, f"list: {', '.join(f'u{number}@b.test' for number in range(50))}", AliasLimits())
    assert made.names(mailbox("list@a.test")) and set(asked) == {mailbox("u0@b.test")}
    assert made.standing(mailbox("list+7@a.test")) == mailbox("list@a.test")
    assert made.standing(mailbox("ada+7@a.test")) == mailbox("ada+7@a.test")


def test_a_wide_alias_is_read_in_linear_time() -> None:
    text = "list: " + ", ".join(f"u{number}@b.test" for number in range(100_000))
    found = parse(text, "aliases")
    assert not isinstance(found, tuple) or "50000" in found[0].text


def test_a_key_without_bound_is_not_looked_up(tmp_path: Path) -> None:
    made = _aliases(tmp_path, "all: u1@b.test\n")
    endless = Address("all+" + "x" * 1_000_000, "a.test")
    assert not made.names(endless) and made.members(endless, lambda address: False) is None
    assert isinstance(parse(f"{'x' * 600}: u1@b.test", "aliases"), tuple)


@pytest.mark.parametrize(
    ("recipient", "ends"),
    [
        ("sales+x", {"ada+x@example.org", "far+x@example.net"}), ("sales", {"ada@example.org", "far@example.net"}),
        ("exact+x", {"ada@example.org"}), ("exact+y", {"carl+y@example.org"}),
        ("bob+l", {"bob+l@example.org", "archive+l@example.org"}),
        ("any+x@caught.example", {"ada@example.org"}), ("any+x@moved.example", {"any+x@example.net"}),
        ("more+1", {"ada+z+1@example.org"}), ("first+1", {"ada+1@example.org"}),
    ],
)  # fmt: skip
def test_an_extension_is_kept_where_set(tmp_path: Path, recipient: str, ends: set[str]) -> None:
    (tmp_path / "aliases").write_text(
        "sales: ada, far@example.net\nexact+x: ada\nexact: carl\nbob: bob, archive\nmore: ada+z\nfirst: second\n"
        "second: ada\n@caught.example: ada@example.org\n@moved.example: @example.net\n"
    )
    local = ("example.org", "caught.example", "moved.example")
    for kept in ((), ("alias_maps",), ("aliases",)):
        aliases = Aliases(str(tmp_path / "aliases"), local.__contains__, extensions_kept=kept)
        assert aliases.load() == ()
        local_part, _, domain = recipient.partition("@")
        address = Address(local_part, domain or "example.org")
        found = aliases.expand(1, 0, (Recipient(address),), lambda address: False)
        expected = ends if kept == ("aliases",) else {re.sub(r"(\+\w)@", "@", end) for end in ends}
        if domain == "moved.example" or "+z" in str(ends):
            expected = ends if kept == ("aliases",) or domain else {"ada+z@example.org"}
        assert {str(each.address) for each in found.recipients} == expected
    twins = (Recipient(Address("first+1", "example.org")), Recipient(Address("first+2", "example.org")))
    found = aliases.expand(1, 0, twins, lambda address: False)
    assert {str(each.address) for each in found.recipients} == {"ada+1@example.org", "ada+2@example.org"}


@pytest.mark.parametrize("first", [False, True])
def test_a_catch_all_takes_the_mail_of_mailboxes_only_where_set(tmp_path: Path, first: bool) -> None:
    (tmp_path / "aliases").write_text("bob@example.org: bob@example.org\n@example.org: all@example.org\n")
    aliases = Aliases(
        str(tmp_path / "aliases"), "example.org".__eq__, postmaster=Address("root", "example.net"),
        catch_all_first=first,
    )  # fmt: skip
    assert aliases.load() == ()
    for name, end in (("ada", "all" if first else "ada"), ("bob", "bob"), ("all", "all"), ("eve", "all")):
        found = aliases.expand(
            1, 0, (Recipient(Address(name, "example.org")),), lambda each: each.local_part in ("ada", "bob", "all")
        )
        assert [str(each.address) for each in found.recipients] == [f"{end}@example.org"]
