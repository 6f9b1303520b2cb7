"""What ``.forward`` files say, and what aliases make of them."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.route import Destination, Transport
from postroad.maps.asked import answered
from postroad.maps.face import Map
from postroad.route.alias_file import AliasTarget, OutletTarget
from postroad.route.aliases import Aliases
from postroad.route.forward_includes import gathered, texts_in, value_of
from postroad.route.forwards import Forwards, forward_targets, source_of, stands_in
from postroad.route.outlets import OutletOptions, permitted
from postroad.world.forward_file import ForwardFile

ALL = OutletOptions(programs=("forwards",), files=("forwards",))
SOURCE = source_of("h.example", "ada")


class Files:
    """The texts by key."""

    waits = False

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def look_up(self, key: str, part: bool = False) -> str | None:
        text = self.texts.get(key.removesuffix("@h.example"))
        return None if text is None else value_of(text)

    def close(self) -> None: ...


def made(options: OutletOptions = ALL, path: str = "", **texts: str) -> tuple[Aliases, list[str]]:
    told: list[str] = []
    files = Forwards(
        Map(".forward", "forward", Files(texts), told.append), lambda domain: domain if domain == "h.example" else "",
        options, "+", lambda level, text: told.append(text),
    )  # fmt: skip
    aliases = Aliases(path, lambda domain: domain.endswith(".example"), forwards=files)
    aliases.load()
    return aliases, told


def ends(aliases: Aliases, name: str, domain: str = "h.example") -> list[str]:
    found = answered(
        lambda asked: aliases.expand(1, 1, (Recipient(Address(name, domain)),), lambda address: True, None, asked)
    )
    return sorted(each.name for each in found.recipients)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("", ()), ("# nobody\n\n", ()), ("bob", ("bob",)), ("bob, carol\n# x\n\tdan\n", ("bob", "carol", "dan")),
        ("\\ada, bob@far.example", ("\\ada", "bob@far.example")),
    ],
)  # fmt: skip
def test_targets(text: str, targets: tuple[str, ...]) -> None:
    wanted = tuple(
        AliasTarget(*each.removeprefix("\\").partition("@")[::2], final=each.startswith("\\")) for each in targets
    )
    assert forward_targets(text, SOURCE, ALL) == wanted


@pytest.mark.parametrize("text", ["bob\na b c@@", ":include:/etc/passwd", "|", '"|/bin/x', "|/bin/x; y", "x/../y@@"])
def test_what_is_wrong_is_said_with_its_line(text: str) -> None:
    assert str(forward_targets(text, SOURCE, ALL)).startswith("line ")
    aliases, told = made(ada=text)
    assert ends(aliases, "ada") == ["ada@h.example"] and "the mail goes to the mailbox" not in told
    assert ends(aliases, "ada") == ["ada@h.example"] and len(told) == 1


def test_programs_and_files_only_where_allowed() -> None:
    text = '"|/usr/bin/x a", /home/ada/box, /home/ada/dir/'
    aliases, _ = made(ada=text)
    assert ends(aliases, "ada") == ["/home/ada/box", "/home/ada/dir/", "|/usr/bin/x a"]
    aliases, told = made(OutletOptions(programs=("aliases",), files=("aliases",)), ada=text)
    assert ends(aliases, "ada") == ["ada@h.example"] and 'programs = ["forwards"]' in told[0]


def test_where_mail_goes() -> None:
    aliases, _ = made(
        ada="bob", bob="\\bob, carol@far.net", one="one, two", same="same+x", a="b", b="a",
        both="both@h.example, a@far.net",
    )
    assert ends(aliases, "ada") == ["bob@h.example", "carol@far.net"]
    assert ends(aliases, "ada+x") == ["ada+x@h.example"]  # this look-up is the reader's, who knows extensions
    assert ends(aliases, "one") == ["one@h.example", "two@h.example"]
    assert ends(aliases, "same") == ["same+x@h.example"]
    assert ends(aliases, "a") == ["a@h.example"]  # a circle: nothing is lost
    assert ends(aliases, "both") == ["a@far.net", "both@h.example"]
    assert ends(aliases, "ada", "other.example") == ["ada@other.example"]


def test_after_aliases(tmp_path: object) -> None:
    path = f"{tmp_path}/aliases"
    with open(path, "w") as file:
        file.write("ada: ada, dan\nlist: ada2, dan2\nraw: \\ada2\n")
    aliases, _ = made(ada="x@far.net", ada2="y@far.net", path=path)
    assert ends(aliases, "ada") == ["dan@h.example", "x@far.net"]
    assert ends(aliases, "list") == ["dan2@h.example", "y@far.net"]
    assert ends(aliases, "raw") == ["ada2@h.example"]


def test_the_text_must_name_the_very_program() -> None:
    wanted = Destination("", Transport.PROGRAM, command=("/bin/x", "a b"))
    assert stands_in("bob, \"|/bin/x 'a b'\"", SOURCE, ALL, wanted)
    for text in ("", "bob", "|/bin/x", "|/bin/x a b", "/bin/x", "a b c@@, |/bin/x 'a b'"):
        assert not stands_in(text, SOURCE, ALL, wanted)
    assert not stands_in("|/bin/x 'a b'", SOURCE, OutletOptions(files=("forwards",)), wanted)
    assert stands_in("/h/box", SOURCE, ALL, Destination("", Transport.MBOX, path="/h/box"))
    assert not stands_in("/h/box/", SOURCE, ALL, Destination("", Transport.MBOX, path="/h/box"))


def test_equal_programs_of_two_users_are_two_destinations() -> None:
    aliases, _ = made(ada="|/bin/x, /tmp/box", bob="|/bin/x, /tmp/box")
    recipients = (Recipient(Address("ada", "h.example")), Recipient(Address("bob", "h.example")))
    found = aliases.expand(1, 1, recipients, lambda address: True)
    assert len({each.destination.key for each in found.recipients if each.destination is not None}) == 4


def test_included_files() -> None:
    texts = {"/h/team": "bob\n# x\n:include:/h/more, carol", "/h/more": "dan@far.net", "/h/round": ":include:/h/round"}
    allowed = OutletOptions(programs=("forwards",), includes=("forwards",))

    def found(text: str, options: OutletOptions = allowed) -> str:
        targets = forward_targets(text, SOURCE, options, texts)
        return targets if isinstance(targets, str) else " ".join(f"{each.local_part}@{each.domain}" for each in targets)

    assert found("x\n:include:/h/team") == "x@ bob@ dan@far.net carol@"
    assert found(":include:/h/team, bob") == "bob@ dan@far.net carol@"
    assert 'write includes = ["forwards"] under' in found(":include:/h/team", ALL)
    assert found("\n:include:/h/round") == "line 2: /h/round: line 1: /h/round includes itself"
    assert found(":include:h/team") == "line 1: ':include:h/team': the path must begin with /"
    assert found(":include:/h/other") == "line 1: '/h/other' was not read"
    texts["/h/more"] = "dan\nx@@y"
    assert found(":include:/h/team") == "line 1: /h/team: line 3: /h/more: line 2: 'x@@y' is not a mailbox"


def test_a_program_of_an_included_file_needs_both_places() -> None:
    wanted = Destination("", Transport.PROGRAM, command=("/bin/x",))
    allowed = OutletOptions(programs=("forwards", "includes"), includes=("forwards",))
    assert stands_in(":include:/h/p", SOURCE, allowed, wanted, {"/h/p": "|/bin/x"})
    for places in (("forwards",), ("includes",)):
        only = OutletOptions(programs=places, includes=("forwards",))  # type: ignore[arg-type]
        assert not stands_in(":include:/h/p", SOURCE, only, wanted, {"/h/p": "|/bin/x"})
    assert not stands_in(":include:/h/p", SOURCE, allowed, wanted, {"/h/p": "|/bin/y"})
    assert not stands_in(":include:/h/p", SOURCE, ALL, wanted, {"/h/p": "|/bin/x"})


def test_what_is_gathered_has_limits() -> None:
    asked: list[str] = []

    def endless(path: str) -> ForwardFile:
        asked.append(path)
        return ForwardFile(f":include:{path}x, :include:{path}")

    found = gathered(ForwardFile("bob, :include:/h/a\n:include:relative, :include:/h/\x01"), endless)
    assert found.text is None and "more than 20 files" in found.fault and asked[:2] == ["/h/a", "/h/ax"]
    three = ForwardFile(":include:/a, :include:/b, :include:/c")
    big = gathered(three, lambda path: ForwardFile("x" * 16_000))
    assert "more than 32768 octets together" in big.fault
    away = gathered(ForwardFile(":include:/a"), lambda path: ForwardFile(not_now="stale"))
    assert (away.text, away.fault, away.not_now) == (None, "", "stale")
    plain = ForwardFile("bob")
    assert gathered(plain, endless) == plain
    whole = gathered(ForwardFile(":include:/a"), lambda path: ForwardFile("é\n"))
    assert texts_in(value_of(whole.text or "", whole.included)) == (":include:/a", (("/a", "é\n"),))


def test_the_user_of_the_node_needs_no_porter() -> None:
    source = source_of("h.example", "ada", is_own=True)
    (target,) = forward_targets("|/bin/x", source, ALL)
    assert isinstance(target, OutletTarget)
    stored = target.destination
    assert (stored.rules.user, stored.place, stored.domain) == ("", "forwards", "aliases")
    assert permitted(stored, ALL) == stored
    refused = permitted(stored, OutletOptions(programs=("aliases",)))
    assert isinstance(refused, str) and 'does not have "forwards"' in refused
