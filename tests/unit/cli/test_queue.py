"""`postroad queue` and `postroad trace` as they are called, on a real spool that no node has open."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroad.cli.cli import group
from postroad.cli.opened import STOPPED
from postroad.mail import identifier
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Attempted
from postroad.operate import offline
from postroad.store.sqlite.history import Historian, HistoryOptions
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.store.values import Settlement, Stored, Waiting
from postroad.world.clock import SystemClock
from tests.unit.operate.material import DEFERRED, HOUR, RELAYED, address
from tests.unit.store.sqlite.material import Faults

pytestmark = pytest.mark.slow

CONFIGURATION = """
hostname = "mx.example.org"
state_dir = "state"
[[listener]]
name = "relay"
address = ["127.0.0.1"]
port = 2525
role = "relay"
trusted_networks = ["127.0.0.1"]
[[domain]]
name = "local.example"
recipients = "any"
deliver = "maildir"
path = "mail/{domain}/{local_part}"
"""
CONTENT = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n"


class Site:
    """A folder with configuration and state."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "postroad.toml"
        self.config.write_text(CONFIGURATION)
        self.state = folder / "state"
        (self.state / "spool").mkdir(parents=True, mode=0o700)
        (self.state / "spool").chmod(0o700)

    def call(self, *arguments: str, **options: Any) -> Result:
        runner = CliRunner()
        return runner.invoke(group({}), [*arguments, "--config", str(self.config)], catch_exceptions=False, **options)

    def text(self, *arguments: str) -> str:
        result = self.call(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        result = self.call(*arguments, "--json")
        assert result.stdout, result.output
        return json.loads(result.stdout)

    def fill(self) -> dict[str, int]:
        """Two messages that wait, one held, one fresh, one that has ended."""
        return asyncio.run(self._fill())

    async def _fill(self) -> dict[str, int]:
        clock = SystemClock()
        spool = SqliteSpool(self.state / "spool", (0, 1), SpoolOptions(free_min=0), clock, asyncio.get_running_loop())
        spool.start()
        now_us = clock.now_us()
        ids: dict[str, int] = {}

        async def accept(name: str, shard: int, *recipients: str) -> None:
            made = Envelope(
                spool.new_id(shard), address("alice@example.org"),
                tuple(Recipient(address(each)) for each in recipients), len(CONTENT), now_us - HOUR,
                Peer("192.0.2.7", 1234, "client.example.org", "ESMTPS"), message_id=f"<{name}@example.org>",
            )  # fmt: skip
            ids[name] = made.id
            event = Accepted(
                now_us - HOUR, made.id, "alice@example.org", recipients, len(CONTENT), made.message_id, made.peer
            )
            await _answer(spool.accept, Stored(made, CONTENT), (event,))

        async def settle(name: str, *waiting: Waiting, ended: tuple[int, ...] = (), events: Any = ()) -> None:
            await _answer(spool.settle, Settlement(ids[name], ended, waiting, (), events))

        await accept("deferred", 0, "bob@one.example", "carol@two.example")
        await accept("held", 1, "dave@one.example")
        await accept("fresh", 0, "erin@local.example")
        await accept("relayed", 1, "frank@one.example")
        due_us = now_us + HOUR
        await settle(
            "deferred",
            Waiting(0, due_us, "one.example", 2, text="450 mailbox full", remote="mx.one.example", last_us=now_us),
            Waiting(1, due_us, "two.example", 1, text="421 busy", last_us=now_us),
            events=(Attempted(now_us, ids["deferred"], ("bob@one.example",), "one.example", DEFERRED, 2, due_us),),
        )
        await settle("held", Waiting(0, due_us, "one.example", held=True, text="looks odd"))
        attempted = Attempted(now_us, ids["relayed"], ("frank@one.example",), "one.example", RELAYED)
        await settle("relayed", ended=(0,), events=(attempted,))
        historian = Historian(self.state / "spool", self.state / "history", spool, HistoryOptions(), clock)
        historian.step()  # some of it is moved, the rest stays in the journal
        historian.close()
        await asyncio.get_running_loop().run_in_executor(None, spool.close)
        return ids


def _answer(call: Callable[..., None], *arguments: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(*arguments, future.set_result)
    return future


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_empty_queue(site: Site) -> None:
    assert site.text("queue") == "The queue is empty.\n"
    assert site.json("queue") == []
    for options in (("--messages",), ("--messages", "--held"), ("--destination", "x.example"), ("--to", "@x.example")):
        assert site.text("queue", *options) == "The queue is empty.\n"
    result = site.call("queue", "retry", "--all")
    assert result.exit_code == 1 and "0 recipients" in result.output


def test_no_spool(site: Site) -> None:
    (site.state / "spool").rmdir()
    for arguments in (
        ("queue",), ("queue", "show", "60yrc2q80001"), ("queue", "remove", "--all", "--yes"), ("trace", "a@x"),
    ):  # fmt: skip
        result = site.call(*arguments)
        assert result.exit_code == 1 and "there is no spool" in result.output


def test_a_configuration_that_is_wrong(site: Site) -> None:
    site.config.write_text("nonsense = 1\n")
    assert site.call("queue").exit_code == site.call("trace", "a@x").exit_code == 78


@pytest.mark.parametrize(
    ("mistake", "toml"),
    [("nonsense = 1\n[[listener]]\nrole = 7\n", True), ("[listener\n", False), ("[tls]\nkey = = 1\n", False)],
)
def test_a_mistake_that_does_not_concern_state_dir_hinders_no_look(site: Site, mistake: str, toml: bool) -> None:
    ids = site.fill()
    site.config.write_text(f'state_dir = "state"\n{mistake}')
    for arguments in (("queue",), ("trace", identifier.text(ids["deferred"]))):
        result = site.call(*arguments)
        assert result.exit_code == 0 and "one.example" in result.stdout, result.output
        assert ("this is not TOML" in result.stderr) is not toml
    # Without a node the command does the work itself, which needs all settings.
    assert site.call("queue", "retry", "one.example").exit_code == 78


@pytest.mark.parametrize("text", ["state_dir = 1\n", 'state_dir = ""\n', "[x\nstate_dir = 'state'\n", ""])
def test_a_state_dir_that_cannot_be_known_ends_with_78(site: Site, text: str) -> None:
    site.config.write_text(text)
    assert site.call("queue").exit_code == site.call("trace", "a@x").exit_code == 78


@pytest.mark.parametrize("command", [("check",), ("queue",), ("spool", "check")])
def test_without_a_configuration_both_places_are_named(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)
    monkeypatch.setattr("postroad.cli.options._SYSTEM", tmp_path / "etc" / "postroad.toml")
    result = CliRunner().invoke(group({}), command)
    assert result.exit_code == 78
    assert str(tmp_path / "etc" / "postroad.toml") in result.stderr and f"postroad.toml in {tmp_path}" in result.stderr


def test_looking_does_not_read_all_settings(site: Site) -> None:
    """pydantic and what belongs to the settings takes most of a second to import."""
    code = (
        "import sys; from postroad.cli.cli import group\n"
        f"group({{}})([*sys.argv[1:], '--config', {str(site.config)!r}], standalone_mode=False)\n"
        "print(sorted({'pydantic', 'cryptography', 'asyncio', 'uvloop', 'dns'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "queue"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_by_destination(site: Site) -> None:
    site.fill()
    lines = site.text("queue").splitlines()
    assert lines[0].split() == ["DESTINATION", "COUNT", "HELD", "OLDEST", "NEXT", "CONN", "WAITS", "FOR",
                                "REASON", "OF", "THE", "OLDEST"]  # fmt: skip
    assert [line.split()[:3] for line in lines[1:3]] == [["one.example", "2", "1"], ["two.example", "1", "0"]]
    assert lines[1].endswith("450 mailbox full")
    assert lines[3].startswith("(not tried yet)")
    found = site.json("queue", "--destination", "one.example")
    assert len(found) == 1
    assert (found[0]["count"], found[0]["held"], found[0]["reason"]) == (2, 1, "450 mailbox full")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--messages",), ["deferred", "held", "fresh"]),
        (("--messages", "--destination", "one.example"), ["deferred", "held"]),
        (("--held",), ["held"]),
        (("--not-held",), ["deferred", "fresh"]),
        (("--to", "carol@two.example"), ["deferred"]),
        (("--to", "@one.example"), ["deferred", "held"]),
        (("--from", "alice@example.org"), ["deferred", "held", "fresh"]),
        (("--from", "<>"), []),
        (("--messages", "--limit", "1"), ["deferred"]),
    ],
)
def test_by_message(site: Site, options: tuple[str, ...], names: list[str]) -> None:
    ids = site.fill()
    found = {each["id"] for each in site.json("queue", *options)}
    assert found == {identifier.text(ids[name]) for name in names}
    shown = site.text("queue", *options)
    assert all(id in shown for id in found)


def test_show(site: Site) -> None:
    ids = site.fill()
    deferred, fresh = identifier.text(ids["deferred"]), identifier.text(ids["fresh"])
    shown = site.text("queue", "show", deferred, fresh)
    for text in (f"Message {deferred}", "<carol@two.example>: next attempt", "because: mx.one.example: 450 mailbox",
                 "Subject: Grüße", f"Message {fresh}", "<erin@local.example>: not tried yet"):  # fmt: skip
        assert text in shown
    (found,) = site.json("queue", "show", deferred)
    assert found["message"]["recipients"][0]["attempts"] == 2
    assert [each["state"] for each in found["recipients"]] == ["waiting", "waiting"]
    (found_fresh,) = site.json("queue", "show", fresh)
    assert [each["state"] for each in found_fresh["recipients"]] == ["fresh"]
    assert found["header"][1] == ["Message-ID", "<1@example.org>"]
    result = site.call("queue", "show", identifier.text(ids["relayed"]), fresh)
    assert result.exit_code == 1 and "not in the queue" in result.output and "erin" in result.output


def test_show_takes_the_selectors_of_the_other_commands(site: Site) -> None:
    ids = site.fill()
    deferred = identifier.text(ids["deferred"])

    def shown(*arguments: str) -> list[str]:
        return [each["message"]["id"] for each in site.json("queue", "show", *arguments)]

    for arguments in (
        ("carol@two.example",), ("to:carol@two.example",), ("@two.example",), ("id:" + deferred,),
        ("--to", "@two.example"), (deferred, "--to", "carol@two.example"),
    ):  # fmt: skip
        assert deferred in shown(*arguments), arguments
    assert identifier.text(ids["fresh"]) not in shown("@two.example")
    result = site.call("queue", "show", "@two.example", "nobody@two.example", "--limit", "1")
    assert result.exit_code == 1 and "nobody@two.example: matches nothing in the queue" in result.output
    assert result.output.count("Message ") == 1
    assert site.call("queue", "show").exit_code == 2
    assert "No such mail waits" in site.call("queue", "show", "--from", "x@nowhere.example").output


def _states(site: Site) -> dict[str, str]:
    return {
        row["recipient"]: row["state"]
        for each in site.json("queue", "--messages")
        for row in each["recipients"]
    }


def test_hold_release_retry(site: Site) -> None:
    ids = site.fill()
    deferred = identifier.text(ids["deferred"])
    shown = site.text("queue", "hold", deferred, "--reason", "wait for the boss", "--dry-run")
    assert "held" in shown and _states(site)["bob@one.example"] == "waiting"
    site.text("queue", "hold", deferred, "--reason", "wait for the boss")
    assert _states(site) == {
        "bob@one.example": "held", "carol@two.example": "held", "dave@one.example": "held",
        "erin@local.example": "fresh",
    }  # fmt: skip
    found = site.json("queue", "release", "two.example", "dave@one.example")
    assert [(each["recipient"], each["done"]) for each in found] == [
        ("carol@two.example", True), ("dave@one.example", True),
    ]  # fmt: skip
    result = site.call("queue", "retry", deferred)
    assert "is held: release it" in result.output and "1 recipient, 1 left unchanged" in result.output
    assert _states(site) == {
        "bob@one.example": "held", "carol@two.example": "due", "dave@one.example": "due", "erin@local.example": "fresh",
    }  # fmt: skip


def test_by_destination_also_what_is_fresh(site: Site) -> None:
    site.fill()
    site.text("queue", "hold", "maildir:local.example")
    assert _states(site)["erin@local.example"] == "held"
    (found,) = site.json("queue", "--destination", "maildir:local.example")
    assert (found["count"], found["held"]) == (1, 1)


def test_remove_and_fail(site: Site) -> None:
    ids = site.fill()
    assert site.call("queue", "remove", "--all", input="n\n").exit_code == 1
    assert len(_states(site)) == 4
    site.text("queue", "remove", "--held")
    site.text("queue", "fail", "to:bob@one.example", "--status", "5.7.1", "--reason", "not allowed")
    states = _states(site)
    assert states == {"carol@two.example": "waiting", "erin@local.example": "fresh", "alice@example.org": "fresh"}
    trace = site.text("trace", identifier.text(ids["deferred"]))
    assert "failed     <bob@one.example> by " in trace and "5.7.1 not allowed" in trace
    assert "Report on it:" in trace and "<alice@example.org> will be tried as soon as the node runs" in trace
    assert "was removed at" in site.text("trace", "held@example.org")
    site.text("queue", "remove", "--all", "--yes")
    assert _states(site) == {}


def test_nothing_like_that_in_a_queue_that_is_not_empty(site: Site) -> None:
    site.fill()
    for options in (("--destination", "nosuch"), ("-m", "--destination", "nosuch"), ("--to", "@nosuch")):
        assert site.text("queue", *options) == "No such mail waits.\n"


@pytest.mark.parametrize("filters", [(), ("--from", "alice@example.org"), ("--to", "@one.example", "--held")])
def test_the_question_names_the_filter_and_how_many(site: Site, filters: tuple[str, ...]) -> None:
    site.fill()
    result = site.call("queue", "remove", "--all", *filters, input="n\n")
    what = f"what matches {' '.join(filters)}: " if filters else "everything in the queue: "
    assert result.exit_code == 1 and f"Really remove {what}{1 if '--held' in filters else 4} recipient" in result.stderr
    assert len(_states(site)) == 4
    assert site.call("queue", "remove", "--all", *filters, input="y\n").exit_code == 0
    assert len(_states(site)) == (3 if "--held" in filters else 0)


def test_nothing_is_asked_where_nothing_matches(site: Site) -> None:
    site.fill()
    result = site.call("queue", "remove", "--all", "--to", "@nosuch", input="y\n")
    assert result.exit_code == 1 and result.stderr == "remove: 0 recipients\n"


def test_a_dry_run_says_would(site: Site) -> None:
    site.fill()
    assert "would be removed" in site.text("queue", "remove", "--to", "@two.example", "--dry-run")
    assert "would be tried now" in site.text("queue", "retry", "--to", "@two.example", "--dry-run")
    (line,) = site.json("queue", "remove", "--to", "@two.example", "--dry-run")
    assert (line["done"], line["dry_run"], line["would"], line["text"]) == (False, True, True, "would be removed")
    assert len(_states(site)) == 4
    (line,) = site.json("queue", "remove", "--to", "@two.example")
    assert (line["done"], line["dry_run"], line["would"], line["text"]) == (True, False, False, "removed")


def test_selectors_by_which_nothing_is_meant_are_named(site: Site) -> None:
    site.fill()
    result = site.call("queue", "hold", "carol@two.example", "bogus@x", "nosuch")
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if "nothing in the queue" in line] == [
        "bogus@x: matches nothing in the queue", "nosuch: matches nothing in the queue",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ("queue",), ("queue", "-m"), ("queue", "show", "{deferred}"), ("trace", "bob@one.example"),
        ("queue", "retry", "--all", "--dry-run"), ("queue", "release", "--held"),
    ],
)  # fmt: skip
def test_that_no_node_runs_is_said_where_times_are_told(site: Site, command: tuple[str, ...]) -> None:
    assert STOPPED not in site.call("queue").stderr  # nothing waits
    ids = site.fill()
    arguments = [each.format(deferred=identifier.text(ids["deferred"])) for each in command]
    assert site.call(*arguments).stderr.splitlines().count(STOPPED) == 1
    assert STOPPED not in site.call("queue", "remove", "--held").stderr


@pytest.mark.parametrize("filters", [("--to", "@one.example"), ("--not-held",)])
def test_a_filter_before_the_command_is_not_ignored(site: Site, filters: tuple[str, ...]) -> None:
    site.fill()
    result = site.call("queue", *filters, "remove", "--all", "--yes")
    assert result.exit_code == 2 and "after `remove`" in result.output
    assert len(_states(site)) == 4


@pytest.mark.parametrize("option", ["--to", "--from", "--destination"])
@pytest.mark.parametrize(
    "command", [("queue",), ("queue", "remove", "--all", "--yes"), ("queue", "hold"), ("spool", "export", "mail")]
)
def test_an_empty_filter_is_refused(site: Site, command: tuple[str, ...], option: str) -> None:
    site.fill()
    for value in ("", " "):
        result = site.call(*command, option, value)
        assert result.exit_code == 2 and f"{option} is empty" in result.output
    assert len(_states(site)) == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("queue", "hold"), "Write a queue id"),
        (("queue", "hold", "bob@"), "names nothing"),
        (("queue", "hold", "x.example", "--all"), "not both"),
        (("queue", "fail", "x.example", "--status", "2.0.0"), "not the status code of a failure"),
        (("queue", "hold", "x.example", "--reason", "a\nb"), "one line"),
        (("queue", "retry", "x.example", "--yes"), "No such option"),
        (("trace", "a@x", "--since", "last week"), "is not a time"),
        (("trace", "a@x", "--until", "2026-13-01"), "is not a time"),
        (("trace", "@one.example"), "`postroad queue --to @one.example`"),
    ],
)
def test_wrong_usage(site: Site, arguments: tuple[str, ...], text: str) -> None:
    site.fill()
    result = site.call(*arguments)
    assert result.exit_code == 2 and text in result.output
    assert len(_states(site)) == 4


def test_what_is_not_there(site: Site) -> None:
    site.fill()
    result = site.call("queue", "retry", "60yrc2q80001")
    assert result.exit_code == 1 and "60yrc2q80001: not in the queue" in result.output
    result = site.call("queue", "remove", "zzz")
    hint = "for a recipient domain write @zzz"
    assert result.exit_code == 1 and result.stderr == f"zzz: not in the queue; {hint}\nremove: 0 recipients\n"
    result = site.call("trace", "nobody@example.com")
    assert result.exit_code == 1 and "Nothing is known about nobody@example.com." in result.output
    assert "It has no mail that never reached this node" in result.output
    assert "`postroad trace IP-ADDRESS` shows what one client did" in result.output


def test_a_spool_that_another_process_has_open(site: Site) -> None:
    site.fill()

    async def beside() -> Result:
        loop = asyncio.get_running_loop()
        spool = SqliteSpool(site.state / "spool", (0,), SpoolOptions(free_min=0), SystemClock(), loop)
        spool.start()
        try:
            assert len(await loop.run_in_executor(None, _states, site)) == 4  # reading works all the same
            return await loop.run_in_executor(None, lambda: site.call("queue", "hold", "x.example"))
        finally:
            await loop.run_in_executor(None, spool.close)

    result = asyncio.run(beside())
    assert result.exit_code == 1 and "another process has it open" in result.output


def test_trace(site: Site) -> None:
    ids = site.fill()
    shown = site.text("trace", "<relayed@example.org>")
    assert "said: 250 2.0.0 ok queued" in shown and "<frank@one.example> was taken by mx.example.net" in shown
    shown = site.text("trace", "alice@example.org")
    assert shown.count("What comes next:") == 4
    shown = site.text("trace", "carol@two.example", "--since", "2h")
    assert "<carol@two.example> will be tried at" in shown and "<bob@one.example> will" not in shown
    assert site.call("trace", "alice@example.org", "--until", "30m").exit_code == 1  # all were made just now
    assert site.text("trace", "alice@example.org", "--since", "yesterday").count("What comes next:") == 4
    (found,) = site.json("trace", identifier.text(ids["fresh"]))
    assert found["recipients"][0]["fate"] == "waiting" and found["events"][0]["kind"] == "accepted"
    assert len(site.json("trace", "alice@example.org", "--limit", "2")) == 2


def test_a_damaged_shard_is_said(site: Site) -> None:
    site.fill()
    path = site.state / "spool" / "01.db"
    for each in site.state.glob("spool/01.db*"):
        each.unlink()
    path.write_bytes(b"this is no database" * 1000)
    result = site.call("queue")
    assert result.exit_code == 0 and "one.example" in result.stdout and "left out" in result.stderr


def test_a_disk_that_keeps_failing_is_said_and_ends_the_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill()
    faults = Faults()
    monkeypatch.setattr("postroad.store.sqlite.spool.SqliteSpool", partial(SqliteSpool, connect=faults.connect))
    monkeypatch.setattr(offline, "DISK_FAILS_S", 0.5)
    before = _states(site)
    faults.at = lambda sql: sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" else None
    found = site.call("queue", "remove", "--all", "--yes")
    assert found.exit_code != 0 and "could not be stored" in found.output, found.output
    faults.at = lambda sql: None
    assert _states(site) == before
