"""Mailboxes that have moved, to which aliases, copies or waiting mail lead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.expansion import Expansion
from postroad.mail.policy import Question, Verdict
from postroad.mail.route import Destination
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
aliases = "{folder}/aliases"
alias_maps = ["virtual"]
[[listener]]
name = "front"
role = "mx"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "a.test"
recipients = ["ada", "bob"]
path = "{folder}/{{domain}}/{{local_part}}"
[rewrite]
relocated_maps = ["relocated"]
[[map]]
name = "virtual"
kind = "inline"
entries = ["kept@a.test ada", "lost@a.test far@b.test", "@a.test ada"]
[[map]]
name = "relocated"
kind = {kind}
"""
ENTRIES = (
    '"inline"\nentries = ["gone@a.test new@c.test", "bob@a.test new@c.test", "kept@a.test new@c.test",'
    ' "far@b.test farther@c.test", "@old.test the archive", "postmaster@a.test new@c.test"]'
)
ALIASES = "one: gone\ntwo: gone, ada\nboth: gone, bob\n"


def settings(folder: Path, kind: str = ENTRIES, aliases: str = ALIASES) -> Settings:
    (folder / "aliases").write_text(aliases)
    found = parse(SETTINGS.format(folder=folder, kind=kind), folder / "postroad.toml", files=False)
    assert not isinstance(found, list), found
    return found


def tables(made: Settings) -> Tables:
    found = build(made)
    assert not isinstance(found, str), found
    return found


def rcpt(made: Settings, mailbox: str, peer: Peer | None = None, *, trusted: bool = False) -> str:
    (listener,) = options.listener_options(made)
    rule = tables(made).rules(options.policy_options(made, made.listener[0]), listener, lambda name, each: False).rcpt
    assert rule is not None
    verdict = rule(Question(peer or Peer(address="192.0.2.1"), trusted, recipient=Address(*mailbox.split("@"))))
    assert isinstance(verdict, Verdict)
    return str(verdict.reply) if verdict.reply is not None else "ok"


def way(made: Tables, mailbox: str) -> Destination | Attempt:
    async def ask() -> Destination | Attempt:
        found = made.destination(Envelope(1, None, (), 0, 0), Recipient(Address(*mailbox.split("@"))))
        return found if isinstance(found, Destination | Attempt) else await found

    return asyncio.run(ask())


@pytest.mark.parametrize(("mailbox", "answer"), [
    ("gone@a.test", "551 5.1.6 <gone@a.test>: User not local; please try <new@c.test>"),
    ("bob@a.test", "551 5.1.6"),  # who is there, too
    ("one@a.test", "551 5.1.6 <one@a.test>: User not local; please try <new@c.test>"),
    ("lost@a.test", "551 5.1.6 <lost@a.test>: User not local; please try <farther@c.test>"),
    ("two@a.test", "ok"), ("both@a.test", "ok"),
    ("kept@a.test", "ok"),  # the alias in a map counts first, as in Postfix
    ("any@a.test", "ok"), ("postmaster@a.test", "ok"),
    ("any@old.test", "550 5.7.1"),  # strangers do not hear where somebody elsewhere has gone
])  # fmt: skip
def test_what_a_client_hears(tmp_path: Path, mailbox: str, answer: str) -> None:
    assert rcpt(settings(tmp_path), mailbox).startswith(answer)


def test_known_clients_hear_where_somebody_elsewhere_has_gone(tmp_path: Path) -> None:
    made = settings(tmp_path)
    account = Peer(address="192.0.2.1", identity="ada")
    assert rcpt(made, "any@old.test", account).startswith("550 5.1.6 <any@old.test>: User has moved to the archive")
    assert rcpt(made, "any@b.test", account) == "ok"


def test_targets_that_have_moved_stay_targets(tmp_path: Path) -> None:
    """Else the sender would never hear that one member of the list has gone."""
    made = tables(settings(tmp_path))
    found = made.expand(1, 0, (Recipient(Address("two", "a.test")),))
    assert isinstance(found, Expansion)
    assert {str(each.address) for each in found.recipients} == {"gone@a.test", "ada@a.test"}


@pytest.mark.parametrize(("mailbox", "text"), [
    ("gone@a.test", "User has moved to new@c.test"), ("far@b.test", "User has moved to farther@c.test"),
    ("x@old.test", "User has moved to the archive"),
])  # fmt: skip
def test_mail_for_who_has_moved_fails(tmp_path: Path, mailbox: str, text: str) -> None:
    found = way(tables(settings(tmp_path)), mailbox)
    assert isinstance(found, Attempt)
    assert (found.outcome, found.status, found.text) == (Outcome.FAILED, "5.1.6", text)


@pytest.mark.parametrize("mailbox", ["ada@a.test", "postmaster@a.test", "ada@elsewhere.test"])
def test_the_mail_of_all_others_goes_its_way(tmp_path: Path, mailbox: str) -> None:
    assert isinstance(way(tables(settings(tmp_path)), mailbox), Destination)


FUNCTION = '"python"\nfunction = "moves:look_up"'


@pytest.mark.parametrize(("body", "found"), [
    ("return 'new@c.test'", ("failed", "5.1.6")), ("return None", None),
    ("raise OSError('away')", ("deferred", "4.3.0")),
])  # fmt: skip
def test_a_map_that_makes_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, found: tuple[str, str] | None
) -> None:
    name = f"moves_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def look_up(key):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = settings(tmp_path, FUNCTION.replace("moves", name))
    answer = way(tables(made), "ada@a.test")
    if found is None:
        assert isinstance(answer, Destination)
    else:
        assert isinstance(answer, Attempt) and (answer.outcome.value, answer.status) == found


@pytest.mark.parametrize(("aliases", "count"), [("list: gone, ada\n", 0), ("list: nobody, ada\n", 1)])
def test_check_takes_targets_that_have_moved(tmp_path: Path, aliases: str, count: int) -> None:
    text = SETTINGS.format(folder=tmp_path, kind=ENTRIES)
    (tmp_path / "aliases").write_text(aliases)
    found = parse(text, tmp_path / "postroad.toml")
    problems = found if isinstance(found, list) else []
    assert len([each for each in problems if "no such alias" in str(each)]) == count
    assert not isinstance(found, list) or count
