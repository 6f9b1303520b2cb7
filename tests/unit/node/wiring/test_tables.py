"""What the tables of a node say at RCPT: of mailboxes that are there, and of those to which mail can never come."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.policy import Question, Verdict
from postroad.mail.route import Destination, Transport
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
{top}
[[listener]]
name = "front"
role = "{role}"
protocol = "{protocol}"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "box.test"
recipients = "any"
path = "{folder}/{{domain}}/x-{{local_part}}"
[[domain]]
name = "prog.test"
recipients = "any"
deliver = "program"
command = ["/bin/x", "{{sender}}", "{{local_part}}"]
[[domain]]
name = "dashes.test"
recipients = "any"
deliver = "program"
command = ["/bin/x", "--", "{{local_part}}"]
[[domain]]
name = "lmtp.test"
recipients = "any"
deliver = "lmtp"
host = "127.0.0.1"
[limits]
alias_depth_max = 3
"""


def settings(
    folder: Path, *, aliases: str = "", role: str = "mx", protocol: str = "smtp", more: str = "", top: str = ""
) -> Settings:
    (folder / "aliases").write_text(aliases)
    text = SETTINGS.format(folder=folder, role=role, protocol=protocol, top=f'aliases = "{folder}/aliases"\n{top}')
    found = parse(text + more, folder / "postroad.toml", files=False)
    assert not isinstance(found, list), found
    return found


def tables(made: Settings) -> Tables:
    found = build(made)
    assert not isinstance(found, str), found
    return found


def rcpt(made: Settings, local_part: str, domain: str) -> str:
    """The answer to RCPT of a stranger."""
    (listener,) = options.listener_options(made)
    policy = options.policy_options(made, made.listener[0])
    rule = tables(made).rules(policy, listener, lambda account, address: False).rcpt
    assert rule is not None
    verdict = rule(Question(Peer(address="192.0.2.1"), recipient=Address(local_part, domain)))
    assert isinstance(verdict, Verdict)
    return str(verdict.reply) if verdict.reply is not None else "ok"


NEVER = "550 5.1.3"


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
@pytest.mark.parametrize(
    ("local_part", "domain", "answer"),
    [
        ("ada", "box.test", "ok"),
        ("a" * 254, "box.test", NEVER),  # with "x-" before it no name of a folder
        ("a" * 256, "box.test", NEVER),
        ("a/b", "box.test", NEVER),
        ("..", "box.test", NEVER),
        ("-x", "box.test", NEVER),
        ("a\u202eb", "box.test", NEVER),
        ("postmaster", "box.test", "ok"),
        ("ada", "prog.test", "ok"),
        ("-rf", "prog.test", NEVER),
        ("a\u0085b", "prog.test", NEVER),
        ("a/b", "prog.test", "ok"),
        ("-rf", "dashes.test", "ok"),
        ("a/b", "lmtp.test", "ok"),
        ("-x", "lmtp.test", "ok"),
        ("a\u0085b", "lmtp.test", NEVER),
    ],
)
def test_what_can_never_be_delivered_is_refused_at_rcpt(
    tmp_path: Path, protocol: str, local_part: str, domain: str, answer: str
) -> None:
    assert rcpt(settings(tmp_path, protocol=protocol), local_part, domain).startswith(answer)


def test_the_reply_says_why(tmp_path: Path) -> None:
    said = rcpt(settings(tmp_path), "a/b", "box.test")
    assert "<a/b@box.test>: there can be no such mailbox: its local-part holds a character" in said


@pytest.mark.parametrize("target", ["a/b@box.test", "-rf@prog.test", "x@[192.0.2.9]", "x@[127.0.0.9]"])
def test_a_file_of_aliases_that_lead_to_where_mail_can_never_come_is_not_taken(tmp_path: Path, target: str) -> None:
    found = build(settings(tmp_path, aliases=f"all@box.test: ada@box.test, {target}\n"))
    assert isinstance(found, str) and target in found and "no such mailbox that can get mail" in found


def test_an_alias_whose_targets_depend_on_the_recipient(tmp_path: Path) -> None:
    """"@prog.test" leads to where the file does not show: it is found at RCPT, and left out at expansion."""
    made = settings(tmp_path, aliases="@old.test: @prog.test\n@half.test: @prog.test, @dashes.test\n", more="""
[[domain]]
name = "old.test"
recipients = ["nobody"]
path = "x/{local_part}"
[[domain]]
name = "half.test"
recipients = ["nobody"]
path = "x/{local_part}"
""")
    assert rcpt(made, "ada", "old.test") == "ok"
    assert rcpt(made, "-rf", "old.test").startswith("550 5.1")
    assert rcpt(made, "-rf", "half.test") == "ok"
    expansion = tables(made).expand(1, 1, (Recipient(Address("-rf", "half.test")),))
    assert [str(each.address) for each in expansion.recipients] == ["-rf@dashes.test"]


def test_aliases_that_turn_out_too_deep_are_refused_at_rcpt(tmp_path: Path) -> None:
    deep = "".join(f"a{number}@box.test: a{number + 1}\n" for number in range(4))
    assert rcpt(settings(tmp_path, aliases=deep), "a0", "box.test").startswith("550 5.4.6")


def test_aliases_of_maps_that_lead_in_a_circle_or_too_deep_are_refused_for_that(tmp_path: Path) -> None:
    """Nobody hears that there is no such user, and it does not count as a guess."""
    entries = {
        "a@few.test": "b@few.test", "b@few.test": "a@few.test", "@one.test": "@two.test", "@two.test": "@one.test",
        "c@few.test": "d", "d@few.test": "e", "e@few.test": "f", "f@few.test": "j", "j@few.test": "eve",
        "g@few.test": "a, eve",
        "h@few.test": "h", "i@few.test": "gone",
    }  # fmt: skip
    more = '[[domain]]\nname = "few.test"\nrecipients = ["eve"]\npath = "/m/{local_part}"\n' + "".join(
        f'[[domain]]\nname = "{name}.test"\ndeliver = "aliases"\n' for name in ("one", "two")
    )
    written = ", ".join(f'"{key} {value}"' for key, value in entries.items())
    more += f'[[map]]\nname = "virtual"\nkind = "inline"\nentries = [{written}]\n'
    top = 'alias_maps = ["virtual"]\npostmaster = "eve@few.test"\n'
    made = settings(tmp_path, more=more, top=top)
    circle = "its aliases lead in a circle"
    for name, domain, said in (
        ("a", "few.test", f"550 5.4.6 <a@few.test>: {circle}"), ("x", "one.test", f"550 5.4.6 <x@one.test>: {circle}"),
        ("c", "few.test", "550 5.4.6 <c@few.test>: more than 3 aliases follow one another"), ("g", "few.test", "ok"),
        ("h", "few.test", "550 5.1.1"), ("i", "few.test", "550 5.1.1"), ("z", "few.test", "550 5.1.1"),
    ):  # fmt: skip
        assert rcpt(made, name, domain).startswith(said), name


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
@pytest.mark.parametrize("name", ["postmaster", "Postmaster", "MAILER-DAEMON", "mailer-daemon"])
def test_the_mailboxes_of_the_node_itself_take_mail(tmp_path: Path, name: str, protocol: str) -> None:
    """RFC 5321 §4.5.1. `hostname` is no local domain: its mail is for the first one's postmaster."""
    made = settings(tmp_path, protocol=protocol)
    assert rcpt(made, name, "mx.home.test") == "ok"
    (recipient,) = tables(made).expand(1, 1, (Recipient(Address(name, "mx.home.test")),)).recipients
    assert recipient.address == Address("postmaster", "box.test")
    assert recipient.given == Address(name, "mx.home.test")
    assert rcpt(made, "ada", "mx.home.test").startswith("550 5.7.1")


ALONE = """
hostname = "mx.home.test"
state_dir = "state"
{top}
[[listener]]
name = "front"
role = "{role}"
address = "127.0.0.1"
port = 2525
trusted_networks = "192.0.2.99"
{more}
"""
SMART = '[[next_hop]]\ndomain = "*"\nhost = "smart.test"\n'


def alone(folder: Path, *, role: str = "relay", top: str = "", more: str = "") -> Settings:
    """A node that has no local domain."""
    found = parse(ALONE.format(role=role, top=top, more=more), folder / "postroad.toml", files=False)
    assert not isinstance(found, list), found
    return found


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("postmaster", "mx.home.test"), ("Postmaster", "mx.home.test"), ("MAILER-DAEMON", "mx.home.test"),
        ("postmaster", "[127.0.0.1]"),
    ],
)  # fmt: skip
def test_without_a_local_domain_the_node_has_a_mailbox_of_its_own(tmp_path: Path, name: str, domain: str) -> None:
    """RFC 5321 §4.5.1: from everybody, a Maildir below `state_dir`."""
    made = alone(tmp_path)
    assert rcpt(made, name, domain) == "ok"
    known = tables(made)
    (recipient,) = known.expand(1, 1, (Recipient(Address(name, domain)),)).recipients
    assert str(recipient.address).lower() == "postmaster@localhost" and recipient.given == Address(name, domain)
    destination = known.destination(Envelope(0, None, (recipient,), 0, 0), recipient)
    assert isinstance(destination, Destination)
    assert (destination.transport, destination.path) == (Transport.MAILDIR, str(tmp_path / "state" / "postmaster"))
    assert rcpt(made, "ada", "mx.home.test").startswith("550 5.7.1")


@pytest.mark.parametrize(
    ("top", "more", "to"),
    [
        ('postmaster = "ada@elsewhere.test"', "", "ada@elsewhere.test"),
        ("", SMART, "{name}@mx.home.test"),
        ("", '[relay]\ndomains = [".home.test"]\n', "{name}@mx.home.test"),
    ],
)
@pytest.mark.parametrize("name", ["postmaster", "MAILER-DAEMON"])
def test_without_a_local_domain_its_mail_goes_where_it_is_set_to_go(
    tmp_path: Path, top: str, more: str, to: str, name: str
) -> None:
    made = alone(tmp_path, top=top, more=more)
    assert rcpt(made, name, "mx.home.test") == "ok"
    (recipient,) = tables(made).expand(1, 1, (Recipient(Address(name, "mx.home.test")),)).recipients
    assert str(recipient.address) == to.format(name=name)


@pytest.mark.parametrize("boss", ["", "ada@box.test"])
def test_the_name_of_the_node_may_be_a_local_domain(tmp_path: Path, boss: str) -> None:
    made = settings(tmp_path, top=f'postmaster = "{boss}"' if boss else "", more="""
[[domain]]
name = "mx.home.test"
recipients = ["bob"]
path = "x/{local_part}"
""")
    for name in ("postmaster", "MAILER-DAEMON"):
        assert rcpt(made, name, "mx.home.test") == "ok"
        (recipient,) = tables(made).expand(1, 1, (Recipient(Address(name, "mx.home.test")),)).recipients
        assert str(recipient.address) == (boss or "postmaster@mx.home.test")
    assert rcpt(made, "nobody", "mx.home.test").startswith("550 5.1.1")


def test_whether_mail_can_come_to_an_alias_is_judged_once_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tables(settings(tmp_path, aliases="all@box.test: ada@box.test, bob@elsewhere.test\n"))
    judged: list[Address] = []

    def judge(mailbox: Address) -> None:
        judged.append(mailbox)

    monkeypatch.setattr(made, "_judge", judge)
    for _ in range(3):
        assert made._nowhere(Address("all", "box.test")) is None
        made.look()
    assert len(judged) == 1
    (tmp_path / "aliases").write_text("all@box.test: ada@box.test\n")
    made.look()
    made.look()
    assert made._nowhere(Address("all", "box.test")) is None and len(judged) == 2


def test_no_part_of_a_file_that_is_being_written_is_in_force(tmp_path: Path) -> None:
    """Neither of recipients, nor of aliases, nor of included files."""
    files = {name: tmp_path / name for name in ("members", "names")}
    files["members"].write_text("ada@far.test\nbob@far.test\n")
    files["names"].write_text("eve\nfay\n")
    more = '[[domain]]\nname = "few.test"\nrecipients_file = "names"\npath = "/m/{local_part}"\n'
    more += '[alias_targets]\nincludes = ["aliases"]\n'
    aliases = f"all@few.test: :include:{files['members']}, gus@far.test\nx@few.test: eve@few.test\n"
    made = tables(settings(tmp_path, aliases=aliases, more=more.replace('"names"', f'"{files["names"]}"')))

    def state() -> tuple[object, ...]:
        members = made.members(Address("all", "few.test"))
        assert isinstance(members, list)
        return (*(each.local_part for each in members), made.known(Address("fay", "few.test")),
                made.known(Address("x", "few.test")))  # fmt: skip

    before = state()
    assert before == ("ada", "bob", "gus", True, True)
    for path, lines, after in (
        (files["members"], ["ada@far.test", "cyd@far.test"], ("ada", "cyd", "gus", True, True)),
        (files["names"], ["eve", "ian"], ("ada", "cyd", "gus", False, True)),
        (tmp_path / "aliases", ["all@few.test: ada@far.test", "y@few.test: eve@few.test"], ("ada", False, False)),
    ):
        with path.open("w") as file:
            for line in ("", *lines):
                file.write(line + "\n")
                file.flush()
                assert made.look() == () and state() == before
        assert made.look() == made.look() == made.look() == () and state() == after
        before = after



def test_rcpt_and_the_end_of_data_agree_on_how_deep_aliases_may_go(tmp_path: Path) -> None:
    entries = {
        "a": "b", "b": "c", "c": "d", "d": "eve", "wide": "eve, a", "less": "eve, b", "one": "a", "open": "x@far.test",
    }  # fmt: skip
    written = ", ".join(f'"{key}@few.test {value}"' for key, value in entries.items())
    more = '[[domain]]\nname = "few.test"\nrecipients = ["eve"]\npath = "/m/{local_part}"\n'
    more += f'[[map]]\nname = "virtual"\nkind = "inline"\nentries = [{written}]\n'
    made = settings(tmp_path, more=more, top='alias_maps = ["virtual"]\n')
    known = tables(made)
    for name, is_taken in (
        ("a", False), ("b", True), ("c", True), ("wide", False), ("less", False), ("one", False), ("d", True)
    ):  # fmt: skip
        excess = known.expand(1, 1, (Recipient(Address(name, "few.test")),)).excess
        said = rcpt(made, name, "few.test")
        assert (said == "ok") is is_taken is (not excess), f"{name}: {said}, {excess}"
