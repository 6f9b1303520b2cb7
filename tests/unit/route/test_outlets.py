"""Programs, files and included files as targets: how they are written, and where they may stand."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Notify, Recipient
from postroad.mail.event import Expanded
from postroad.mail.route import Destination, Transport
from postroad.maps.asked import Asked
from postroad.maps.face import Map
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.route.alias_file import AliasLimits, AliasTarget, OutletTarget
from postroad.route.aliases import Aliases
from postroad.route.includes import IncludingTargets
from postroad.route.options import RoutingOptions
from postroad.route.outlets import ALIASES, SERVICES, OutletOptions, TargetSource, outlet, source_of, words
from postroad.route.table import RoutingTable, stored
from postroad.world.clock import SystemClock

ALL = OutletOptions(("aliases",), ("aliases",), ("aliases", "includes"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/bin/true", ("/bin/true",)),
        ("/usr/lib/mailman/mail/mailman post list", ("/usr/lib/mailman/mail/mailman", "post", "list")),
        ("/bin/x  'a b' \"c d\" e'f'g ''", ("/bin/x", "a b", "c d", "efg", "")),
        ("/bin/x 'a;b|c$d' \"a;b\" {recipient} a#b a=~b", ("/bin/x", "a;b|c$d", "a;b", "{recipient}", "a#b", "a=~b")),
        ("", "words"),
        ("true", "whole path"),
        ("IFS=' ' /bin/x", "whole path"),
        ("/bin/../bin/x", "whole path"),
        ("/bin/x a; /bin/y", "for a shell"),
        ("/bin/x a > /tmp/y", "for a shell"),
        ("/bin/x $HOME", "for a shell"),
        ('/bin/x "$HOME"', "for a shell"),
        ("/bin/x a\\ b", "for a shell"),
        ("/bin/x ~ada", "for a shell"),
        ("/bin/x #ada", "for a shell"),
        ("/bin/x 'a", "quotation mark"),
        ("/bin/x --to={recipient}", "whole argument"),
        ("/bin/x " + "a " * 100, "words"),
    ],
)
def test_a_command_is_divided_as_a_shell_would(command: str, expected: tuple[str, ...] | str) -> None:
    found = words(command)
    if isinstance(expected, str):
        assert isinstance(found, str) and expected in found
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("word", "key", "path"),
    [
        ('"|/bin/x a"', "program:|/bin/x a", ""),
        ('|"/bin/x a"', "program:|/bin/x a", ""),
        ("|/bin/x", "program:|/bin/x", ""),
        ("/var/mail/a", "mbox:/var/mail/a", "/var/mail/a"),
        ('"/var/my mail/a"', "mbox:/var/my mail/a", "/var/my mail/a"),
        ("/home/ada/Maildir/", "maildir:/home/ada/Maildir/", "/home/ada/Maildir"),
        ("/dev/null", "discard:/dev/null", "/dev/null"),
    ],
)
def test_what_stands_for_a_mailbox(word: str, key: str, path: str) -> None:
    found = outlet(word, ALIASES, ALL)
    assert isinstance(found, Destination)
    assert (found.key, found.path) == (key, path)
    assert found.rules.user == ""


@pytest.mark.parametrize(
    "word",
    ["/", "//", "/a//b", "/a/../b", "/a/./b", "/var/mail/{local_part}", "/var/mail/a.lock", '"/var/mail', '"|/bin/x',
     "/var/\x07", "/" + "x" * 5000, "|", "| "],
)
def test_what_cannot_be_a_target(word: str) -> None:
    assert isinstance(outlet(word, ALIASES, ALL), str)


@pytest.mark.parametrize(("word", "key"), [("|/bin/x", "programs"), ("/var/mail/a", "files")])
@pytest.mark.parametrize("place", ["aliases", "includes", "services"])
def test_each_place_has_its_own_right(word: str, key: str, place: str) -> None:
    source = TargetSource(place)  # type: ignore[arg-type]
    others = tuple(each for each in ("aliases", "includes", "services") if each != place)
    refused = outlet(word, source, OutletOptions(programs=others, files=others))  # type: ignore[arg-type]
    assert isinstance(refused, str) and f'write {key} = ["{place}"] under [alias_targets]' in refused
    assert isinstance(outlet(word, source, OutletOptions(**{key: (place,)})), Destination)  # type: ignore[arg-type]
    assert isinstance(outlet("/dev/null", source, OutletOptions()), Destination)


def test_as_whom_they_are_used() -> None:
    options = OutletOptions(("aliases",), ("aliases",), user="nobody", as_owner=True)
    one, other = source_of(options, "aliases", "/etc/aliases"), source_of(options, "services")
    assert one == TargetSource("aliases", "owner:/etc/aliases", "nobody")
    assert other == TargetSource("services", "aliases", "nobody")
    found = outlet("|/bin/x", one, options)
    assert isinstance(found, Destination)
    assert (found.key, found.domain, found.rules.user) == (
        "program:owner:/etc/aliases:|/bin/x", "owner:/etc/aliases", "nobody",
    )  # fmt: skip


def aliases(path: Path, text: str, options: OutletOptions = ALL, maps: tuple[Map, ...] = (), **more: object) -> Aliases:
    path.write_text(text)
    found = Aliases(
        str(path), lambda domain: domain == "example.org", options=options, maps=maps,
        sources={"": ALIASES, "file": ALIASES, "sql": SERVICES}, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.load() == ()
    return found


def expand(made: Aliases, *names: str, asked: Asked | None = None) -> tuple[tuple[Recipient, ...], tuple[object, ...]]:
    recipients = tuple(Recipient(Address(name, "example.org"), Notify.SUCCESS) for name in names)
    found = made.expand(1, 2, recipients, lambda address: False, None, asked or Asked())
    return found.recipients, found.events


def test_each_program_is_a_delivery_and_each_file_is_one(tmp_path: Path) -> None:
    made = aliases(
        tmp_path / "aliases",
        'list: "|/bin/x 1", "|/bin/x 2", /archive, ada\nroot: list\nother: "|/bin/x 1", /archive\n',
    )
    recipients, events = expand(made, "root", "other")
    assert [(str(each.address), each.name, str(each.given)) for each in recipients] == [
        ("list@example.org", "|/bin/x 1", "root@example.org"),
        ("list@example.org", "|/bin/x 2", "root@example.org"),
        ("list@example.org", "/archive", "root@example.org"),
        ("ada@example.org", "ada@example.org", "root@example.org"),
        ("other@example.org", "|/bin/x 1", "None"),
    ]
    assert [each.destination.transport if each.destination else None for each in recipients] == [
        Transport.PROGRAM, Transport.PROGRAM, Transport.MBOX, None, Transport.PROGRAM
    ]
    assert all(Notify.SUCCESS not in each.notify for each in recipients)  # RFC 3461 §5.2.7.3 (c)
    assert events[0] == Expanded(
        2, 1, "root@example.org", ("|/bin/x 1", "|/bin/x 2", "/archive", "ada@example.org")
    )
    assert made.names(Address("other", "example.org"))
    assert made.members(Address("list", "example.org"), lambda _: False) == [Address("ada", "example.org")]


def test_what_nobody_wants_to_have(tmp_path: Path) -> None:
    (found,), _ = expand(aliases(tmp_path / "aliases", "null: /dev/null", OutletOptions()), "null")
    assert found.destination is not None
    assert stored(found.destination, OutletOptions()).outcome.value == "delivered"  # type: ignore[union-attr]


def test_included_files_are_read_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"# a comment\nada, bob\n\n:include:{second}\n")
    second.write_text("carol@example.net,\n  dave\n")
    made = aliases(tmp_path / "aliases", f"list: :include:{first}\n")

    def names() -> list[str]:
        return [each.name.partition("@")[0] for each in expand(made, "list")[0]]

    assert names() == ["ada", "bob", "carol", "dave"]
    assert made.load() == ()
    second.write_text("erin\n")
    assert made.load() == ()
    assert names() == ["ada", "bob", "erin"]
    second.write_text("fred\ngood bad\n")
    (problem,) = made.load()
    assert problem.where == f"{second}:2" and "stay in force" in problem.remedy
    assert names() == ["ada", "bob", "erin"]
    assert made.load() == (), "it is told once"
    second.unlink()
    (problem,) = made.load()
    assert problem.where == str(second)
    assert names() == ["ada", "bob", "erin"] and not made.refused
    second.write_text("gina\n")
    assert made.load() == ()
    assert names() == ["ada", "bob", "gina"]


def test_a_file_that_was_never_read_well_is_a_problem_of_the_alias(tmp_path: Path) -> None:
    path, list_ = tmp_path / "aliases", tmp_path / "list"
    path.write_text(f"a: b\nlist: :include:{list_}\n")
    made = Aliases(str(path), lambda domain: True, options=ALL)
    (problem,) = made.load()
    assert problem.where == f"{path}:2" and f"{list_}: there is no such file" in problem.text and made.refused
    list_.write_text("|/bin/x\n")
    (problem,) = made.load()
    assert f'{list_}:1: \'|/bin/x\': programs are not allowed here; write programs = ["includes"]' in problem.text
    list_.write_text(f"ada\n:include:{list_}\n")
    (problem,) = made.load()
    assert f"{list_} includes itself" in problem.text
    list_.write_text("ada\n")
    assert made.load() == () and not made.refused


def test_the_remedy_fits_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_text("info: ada bob\nlist: |/bin/x\nmembers: ada, :include:/nowhere\n")
    form, program, include = Aliases(str(path), lambda domain: True).load()
    assert form.remedy.startswith('Write "name: target, target"')
    assert program.remedy == include.remedy == "See docs/aliases.md for programs, files and included files."


def test_included_files_are_bounded(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / str(number)).write_text(f":include:{tmp_path}/{number + 1}\n")
    (tmp_path / "25").write_text("ada\n")
    reader = IncludingTargets(ALL)
    found = reader.read(f":include:{tmp_path}/0", ALIASES)
    assert isinstance(found, str) and "more than 20 files include one another" in found
    reader.begin()
    assert reader.read(f":include:{tmp_path}/10", ALIASES) == (AliasTarget("ada"),)
    (tmp_path / "wide").write_text("".join(f"u{number}\n" for number in range(100)))
    path = tmp_path / "aliases"
    path.write_text(f"list: :include:{tmp_path}/wide\n")
    made = Aliases(str(path), lambda domain: True, options=ALL, limits=AliasLimits(alias_recipients_max=50))
    (problem,) = made.load()
    assert "more than 50" in problem.text


class Values:
    waits = False

    def __init__(self, **values: str) -> None:
        self.values = values

    def look_up(self, key: str, part: bool = False) -> str | None:
        return self.values.get(key.partition("@")[0])

    def close(self) -> None:
        pass


def test_values_of_maps_obey_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "members").write_text("bob\n")
    values = Values(one='"|/bin/x a"', two=f":include:{tmp_path}/members", three="|/bin/y")
    made = aliases(tmp_path / "aliases", "a: b\n", maps=(Map("file", "text", values, print),))
    assert [each.name for each in expand(made, "one", "two")[0]] == ["|/bin/x a", "bob@example.org"]
    (tmp_path / "members").write_text("carol\n")
    os.utime(tmp_path / "members", ns=(1, 1))
    assert made.load() == ()
    assert [each.name for each in expand(made, "two")[0]] == ["carol@example.org"]
    made = aliases(tmp_path / "aliases", "a: b\n", maps=(Map("sql", "postgresql", values, print),))
    asked = Asked()
    expand(made, "three", asked=asked)
    assert asked.stopped and asked.not_now is not None
    assert 'write programs = ["services"]' in asked.not_now.text


@pytest.mark.parametrize(
    ("word", "allowed", "outcome"),
    [
        ("|/bin/x a", OutletOptions(programs=("aliases",)), ""),
        ("|/bin/x a", OutletOptions(files=("aliases",)), "programs under [alias_targets] does not have \"aliases\""),
        ("|/bin/x a", OutletOptions(programs=("services",)), "programs under [alias_targets] does not have"),
        ("/archive", OutletOptions(files=("aliases", "includes")), ""),
        ("/archive/", OutletOptions(programs=("aliases",)), "files under [alias_targets] does not have"),
        ("/archive", OutletOptions(), "files of aliases are not allowed any more"),
    ],
)
def test_what_was_stored_must_still_be_allowed(word: str, allowed: OutletOptions, outcome: str) -> None:
    found = outlet(word, ALIASES, ALL)
    assert isinstance(found, Destination)
    recipient = Recipient(Address("a", "example.org"), destination=found)
    table = RoutingTable(RoutingOptions(), outlets=allowed)
    answer = table.route(Envelope(1, None, (recipient,), 1, 1), recipient)
    if outcome:
        assert isinstance(answer, Attempt)
        assert (answer.outcome, answer.status) == (Outcome.DEFERRED, "4.3.5")
        assert outcome in answer.text and "/bin/x" not in answer.text and "/archive" not in answer.text
    else:
        assert answer is found
    older = msgspec.structs.replace(found, place="")  # of a version that did not store the place
    kinds = allowed.programs if found.transport is Transport.PROGRAM else allowed.files
    assert isinstance(stored(older, allowed), Destination if kinds else Attempt)


def test_what_was_stored_is_used_as_the_user_of_now() -> None:
    before = OutletOptions(("aliases", "includes"), user="old", as_owner=True)
    found = outlet("|/bin/x a", source_of(before, "aliases", "/etc/aliases"), before)
    assert isinstance(found, Destination) and found.key == "program:owner:/etc/aliases:|/bin/x a"
    assert stored(found, before) is found
    now = stored(found, OutletOptions(("aliases",), user="new"))
    assert isinstance(now, Destination)
    assert (now.key, now.domain, now.rules.user) == ("program:|/bin/x a", "aliases", "new")
    assert (now.command, now.outlet, now.place) == (found.command, found.outlet, "aliases")


def test_an_outlet_is_no_circle_and_nothing_that_is_missing(tmp_path: Path) -> None:
    made = aliases(tmp_path / "aliases", "self: self, |/bin/x\na: b\nb: a, /archive\n")
    assert [each.name for each in expand(made, "self")[0]] == ["self@example.org", "|/bin/x"]
    assert [each.name for each in expand(made, "a")[0]] == ["/archive"]
    assert isinstance(made.ends(Address("b", "example.org"), lambda _: False), list)
    assert OutletTarget("", destination=Destination("a", Transport.MBOX)) != AliasTarget("")


def test_a_list_with_an_owner_has_its_own_sender(tmp_path: Path) -> None:
    text = "list: ada, sub, |/bin/x\nowner-list: boss, ada\nsub: bob, \\carol\nowner-sub@example.org: dora\n"
    text += "plain: list\n"
    made = aliases(tmp_path / "aliases", text)

    def senders(*names: str) -> dict[str, str]:
        return {each.name.partition("@")[0]: str(each.sender or "") for each in expand(made, *names)[0]}

    by_list = {
        "ada": "owner-list@example.org", "|/bin/x": "owner-list@example.org",
        "bob": "owner-sub@example.org", "carol": "owner-sub@example.org",
    }  # fmt: skip
    assert senders("list") == senders("list+x") == senders("plain") == by_list
    assert senders("list", "ada") == senders("ada", "list") == {**by_list, "ada": ""}
    assert senders("owner-list") == {"boss": "", "ada": ""}
    assert all(each.notify is Notify.UNSET for each in expand(made, "list")[0])
    without = aliases(tmp_path / "aliases", text, OutletOptions(("aliases",), owners=False))
    assert {each.sender for each in expand(without, "list")[0]} == {None}


def test_the_owner_may_stand_in_a_map(tmp_path: Path) -> None:
    values = Values(list="ada,bob", **{"owner-list": "boss"})
    made = aliases(tmp_path / "aliases", "a: b\n", maps=(Map("file", "text", values, print),))
    assert {str(each.sender) for each in expand(made, "list")[0]} == {"owner-list@example.org"}


@pytest.mark.parametrize("in_place", ["fifo", "folder", "link"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, in_place: str) -> None:
    members = tmp_path / "members"
    members.write_text("bob\n")
    made = aliases(tmp_path / "aliases", f"list: :include:{members}\n")
    members.unlink()
    if in_place == "fifo":  # who may write to its folder could do that, and all mail would stand still
        os.mkfifo(members)
    elif in_place == "folder":
        members.mkdir()
    else:
        members.symlink_to("/dev/zero")
    (problem,) = made.load()
    assert "members" in problem.where and "old targets stay in force" in problem.remedy
    assert [each.name for each in expand(made, "list")[0]] == ["bob@example.org"]


PATTERNS = r"""
/^(.*)@old\.test$/        $1@new.test
/^(.*)@bare\.test$/       $1
/^run-(.*)@run\.test$/    |/bin/x $1
/^fixed@run\.test$/       |/bin/x
/^(.*)@members\.test$/    :include:/etc/$1
"""
FREE = OutletOptions(("services",), ("services",), ("services",))


@pytest.mark.parametrize(
    ("local_part", "domain", "ends"),
    [
        ("ada", "old.test", "ada@new.test"),
        ("victim@far.test,y", "old.test", '"victim@far.test,y"@new.test'),  # else a relay for everybody
        ("victim@far.test y", "old.test", '"victim@far.test y"@new.test'),
        ('x", "victim@far.test', "old.test", r'"x\", \"victim@far.test"@new.test'),
        ("/C=de/O=x/", "old.test", "/C=de/O=x/@new.test"),
        ("|/bin/sh", "old.test", "|/bin/sh@new.test"),
        ("|/bin/sh -c x", "bare.test", None),
        ("|/bin/sh", "bare.test", None),
        ("/etc/passwd", "bare.test", None),
        (":include:/etc/passwd", "bare.test", None),
        ("run-a", "run.test", None),
        ("fixed", "run.test", "|/bin/x"),
        ("passwd", "members.test", None),
    ],
)
def test_what_a_stranger_writes_adds_no_target_to_a_pattern(
    tmp_path: Path, local_part: str, domain: str, ends: str | None
) -> None:
    (tmp_path / "patterns").write_text(PATTERNS)
    found = make((MapOptions("patterns", MapKind.PCRE, file=str(tmp_path / "patterns")),), SystemClock(), print)
    assert isinstance(found, Maps)
    made = Aliases("", lambda name: name != "new.test", options=FREE, maps=found.named(("patterns",)))
    asked = Asked()
    recipients = (Recipient(Address(local_part, domain)),)
    expansion = made.expand(1, 0, recipients, lambda address: False, None, asked)
    assert [each.name for each in expansion.recipients] == ([str(recipients[0].address)] if ends is None else [ends])
    assert asked.stopped is (ends is None)  # then the message waits, and the log says why
