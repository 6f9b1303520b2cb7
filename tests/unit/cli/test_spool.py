"""`postroad spool` as it is called: check, repair, and mail out to files and in again."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from postroad.mail import identifier, wishes
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Envelope, Notify, Peer, Recipient, Ret
from postroad.store.sqlite import schema
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.values import Selection, Waiting
from postroad.world.clock import SystemClock
from tests.unit.cli.test_queue import CONTENT, Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _spool(site: Site) -> SpoolReader:
    return SpoolReader(site.state / "spool")


def _rows(site: Site, id: str) -> tuple[Waiting, ...]:
    number = identifier.parse(id)
    loaded = _spool(site).load(number) if number is not None else None
    assert loaded is not None
    return loaded.waiting


def _change(site: Site, statement: str, shard: int = 0) -> None:
    connection = sqlite3.connect(schema.database(site.state / "spool", shard), isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_sound_spool(site: Site) -> None:
    ids = site.fill()
    assert len(ids) >= 4
    text = site.text("spool", "check")
    assert text.count(", sound") == 2
    assert site.json("spool", "check")["set_aside"] == []
    assert "nothing to repair" in site.text("spool", "repair")


def test_no_spool_is_said(site: Site) -> None:
    (site.state / "spool").rmdir()
    result = site.call("spool", "check")
    assert result.exit_code == 1 and "there is no spool" in result.output


def test_damage_is_told_and_repaired(site: Site) -> None:
    site.fill()
    before = len(_spool(site).select(Selection()))
    _change(site, "DELETE FROM content WHERE id = (SELECT min(id) FROM content)")
    path = schema.database(site.state / "spool", 1)
    octets = path.read_bytes()
    path.write_bytes(b"x" * 8192 + octets[8192:])
    found = site.call("spool", "check")
    assert found.exit_code == 1 and "its content is not there" in found.output and "spool repair" in found.output
    shards = site.json("spool", "check")["shards"]
    assert [[each["kind"] for each in one["findings"]] for one in shards] == [["no-content"], ["damaged"]]
    dry = site.call("spool", "repair", "--dry-run")
    assert dry.exit_code == 1 and site.json("spool", "check")["shards"] == shards
    repaired = site.call("spool", "repair")
    assert "saved" in repaired.stdout and "held:" in repaired.stdout
    assert len(_spool(site).select(Selection())) == before
    again = site.json("spool", "check")
    # A message without its content stays a finding until it is removed, and so does what was set aside.
    assert [[each["kind"] for each in one["findings"]] for one in again["shards"]] == [["no-content"], []]
    assert len(again["set_aside"]) == 1
    assert site.call("spool", "check").exit_code == 1


@pytest.mark.parametrize("command", [["repair"], ["import", "."]])
def test_what_writes_needs_a_node_that_is_stopped(
    site: Site, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill()
    monkeypatch.setattr("postroad.operate.control.is_running", lambda state_dir: True)
    result = site.call("spool", *command)
    assert result.exit_code == 1 and "stop it first" in result.output


def _other(tmp_path: Path) -> Site:
    folder = tmp_path / "other"
    folder.mkdir()
    return Site(folder)


def test_out_and_in_again(site: Site, tmp_path: Path) -> None:
    """All that waits comes to the other spool: envelopes, contents and states, under new queue ids."""
    site.fill()
    folder = tmp_path / "mail"
    lines = site.json("spool", "export", str(folder), "--all")
    was = {id: _spool(site).load(id) for id in _spool(site).select(Selection())}
    assert len(lines) == len(was) and all(line["done"] for line in lines)
    assert sorted(path.suffix for path in folder.iterdir()) == [".eml"] * len(was) + [".json"] * len(was)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    other = _other(tmp_path)
    dry = other.json("spool", "import", str(folder), "--dry-run")
    assert all(each["done"] and not each["id"] for each in dry) and not list((other.state / "spool").iterdir())
    imported = other.json("spool", "import", str(folder))
    assert len(imported) == len(was) and all(each["done"] for each in imported)
    for each in imported:
        old, new = identifier.parse(each["was"]), identifier.parse(each["id"])
        assert old is not None and new is not None and old != new
        before, after = was[old], _spool(other).load(new)
        assert before is not None and after is not None
        waited = [before.envelope.recipients[row.index] for row in before.waiting] or before.envelope.recipients
        assert list(after.envelope.recipients) == list(waited)
        for name in ("reverse_path", "accepted_us", "peer", "body", "envid", "message_id", "size", "parameters"):
            assert getattr(after.envelope, name) == getattr(before.envelope, name), name
        assert _spool(other).content(new) == _spool(site).content(old) == CONTENT
        assert [(row.held, row.due_us) for row in after.waiting] == [(row.held, row.due_us) for row in before.waiting]
        assert "imported from files" in other.text("trace", each["id"]) or other.json("trace", each["id"])
    assert other.text("spool", "check").count("messages, sound") == 1
    other.text("queue", "retry", "--all")  # what waits for a time of the other node need not
    now_us = SystemClock().now_us()
    rows = [row for each in imported for row in _rows(other, each["id"])]
    assert rows and all(row.held or row.due_us <= now_us for row in rows)
    # Once more by mistake: nothing is doubled.
    again = other.call("spool", "import", str(folder))
    assert again.exit_code == 0 and "was imported before" in again.output
    assert len(_spool(other).select(Selection())) == len(was)
    assert other.call("spool", "import", str(folder), "--again").exit_code == 0
    assert len(_spool(other).select(Selection())) == 2 * len(was)
    # And what is there already is not written over.
    assert site.call("spool", "export", str(folder), "--all").exit_code == 1


TRACE = (
    b"Received: from client.example ([192.0.2.7])\r\n"
    b"\tby mx.example.org with ESMTPS id 1; Fri, 27 Nov 2026 10:50:00 +0000\r\n"
)
OLD_US = 1_795_774_200_000_000
ANN = Address("ann", "example.org")
OLD_PEER = Peer("192.0.2.7", 40123, "client.example", "ESMTPS", identity="ann@example.org")


def _old(reverse_path: Address | None, *recipients: Recipient, **fields: Any) -> Envelope:
    return Envelope(0, reverse_path, recipients, 0, OLD_US, **fields)


def _to(address: str, **fields: Any) -> Recipient:
    return Recipient(Address(*address.split("@")), **fields)


EXPORTED_IN_NOVEMBER: dict[str, tuple[Envelope, bytes, tuple[Waiting, ...]]] = {
    "fresh": (
        _old(
            ANN, _to("bob@one.example", notify=Notify.FAILURE | Notify.DELAY, orcpt="rfc822;bobby@one.example"),
            _to("carol@two.example"), peer=OLD_PEER, ret=Ret.HDRS, envid="QQ314159", body=Body.EIGHT_BIT_MIME,
        ),
        TRACE + b"Message-ID: <fresh@example.org>\r\n\r\nfresh\r\n",
        (),
    ),
    "deferred": (
        _old(
            ANN, _to("b@two.example"), _to("c@three.example", given=Address("team", "local.example")),
            peer=OLD_PEER, parameters=(("MT-PRIORITY", "3"),),
        ),
        TRACE + b"Message-ID: <deferred@example.org>\r\n\r\nlater\r\n",
        (
            Waiting(0, OLD_US + 3_600_000_000, "two.example", 2, delay_reported=True, status="4.4.1", text="no answer"),
            Waiting(1, OLD_US, "three.example", held=True, text="by us"),
        ),
    ),
    "report": (_old(None, _to("ann@example.org")), b"Subject: failed\r\nMessage-ID: <report@example.org>\r\n\r\n"
               b"it failed\r\n", ()),
    "large": (
        _old(ANN, _to("d@four.example"), peer=OLD_PEER),
        TRACE + b"Message-ID: <large@example.org>\r\n\r\n" + b"0123456789\r\n" * 60,
        (),
    ),
    "utf8": (
        _old(Address("ö", "example.org"), _to("é@xn--fu-xka.example"), smtputf8=True, body=Body.EIGHT_BIT_MIME),
        "Subject: grüße\r\nMessage-ID: <utf8@example.org>\r\n\r\nö\r\n".encode(),
        (),
    ),
}  # fmt: skip


def test_an_export_of_the_build_of_november_is_imported_whole(site: Site, tmp_path: Path) -> None:
    """The files were written by `postroad spool export` of the build of 2026-11-27, from a spool of its own."""
    folder = tmp_path / "mail"
    shutil.copytree(Path(__file__).with_name("exported_2026_11_27"), folder)
    imported = site.json("spool", "import", str(folder))
    assert len(imported) == len(EXPORTED_IN_NOVEMBER) and all(each["done"] for each in imported)
    left = dict(EXPORTED_IN_NOVEMBER)
    for each in imported:
        id = identifier.parse(each["id"])
        assert id is not None
        loaded = _spool(site).load(id)
        assert loaded is not None
        name = loaded.envelope.message_id.partition("@")[0].strip("<")
        envelope, octets, waiting = left.pop(name)
        envelope = replace(envelope, id=id, size=len(octets), message_id=f"<{name}@example.org>")
        assert replace(loaded.envelope, long_lines=False) == envelope, name
        assert not loaded.envelope.parent, "the message that it reports on is not in this spool"
        assert _spool(site).content(id) == octets, name
        assert all(row.held or row.due_us <= SystemClock().now_us() for row in loaded.waiting), "its time has passed"
        known = tuple(replace(row, due_us=0, last_us=0, remote="") for row in loaded.waiting)
        assert known == tuple(replace(row, due_us=0) for row in waiting), name
    assert not left
    assert site.text("spool", "check").count("messages, sound") == 1


@pytest.mark.parametrize(("wish", "said"), [("HOLDFOR", "99999"), ("HOLDUNTIL", "2099-01-01T00:00:00Z")])
@pytest.mark.parametrize("due_us", [0, 1])
def test_what_is_to_be_released_later_is_not_released_by_the_import(
    site: Site, tmp_path: Path, wish: str, said: str, due_us: int
) -> None:
    ids = site.fill()
    folder = tmp_path / "mail"
    site.text("spool", "export", str(folder), identifier.text(ids["fresh"]))
    [path] = folder.glob("*.json")
    exported = json.loads(path.read_text())
    exported["parameters"] = [[wish, said]]
    exported["recipients"][0]["due_us"] = due_us
    path.write_text(json.dumps(exported))
    other = _other(tmp_path)
    [line] = other.json("spool", "import", str(folder))
    new = identifier.parse(line["id"])
    loaded = _spool(other).load(new) if new is not None else None
    assert loaded is not None
    release_us = wishes.release_us(loaded.envelope)
    assert release_us > exported["accepted_us"] + 90_000_000_000
    assert [(row.due_us, row.held) for row in loaded.waiting] == [(release_us, False)]


def test_a_time_that_has_passed_is_now(site: Site, tmp_path: Path) -> None:
    """Where nobody waits for a time to come the message is fresh; where somebody does, the others are due now."""
    ids = site.fill()
    folder = tmp_path / "mail"
    site.text("spool", "export", str(folder), identifier.text(ids["deferred"]))
    [path] = folder.glob("*.json")
    exported = json.loads(path.read_text())
    later_us = exported["recipients"][1]["due_us"]
    exported["recipients"][0]["due_us"] = 1
    for due_us in (later_us, 1):
        exported["recipients"][1]["due_us"] = due_us
        path.write_text(json.dumps(exported))
        other = tmp_path / ("other" if due_us == later_us else "third")
        other.mkdir()
        [line] = Site(other).json("spool", "import", str(folder), "--again")
        new = identifier.parse(line["id"])
        loaded = SpoolReader(other / "state" / "spool").load(new) if new is not None else None
        assert loaded is not None and len(loaded.waiting) == (2 if due_us > 1 else 0)
        if loaded.waiting:
            assert loaded.waiting[1].due_us == later_us > loaded.waiting[0].due_us > exported["accepted_us"]


def test_import_makes_the_spool_of_a_node_that_has_never_run(site: Site, tmp_path: Path) -> None:
    site.fill()
    site.text("spool", "export", str(tmp_path / "mail"), "--all")
    other = _other(tmp_path)
    (other.state / "spool").rmdir()
    other.state.rmdir()
    assert other.json("spool", "import", str(tmp_path / "mail"), "--dry-run")
    assert not other.state.exists()
    assert all(each["done"] for each in other.json("spool", "import", str(tmp_path / "mail")))
    assert len(_spool(other).select(Selection())) == len(_spool(site).select(Selection()))


def test_only_what_is_meant_is_exported(site: Site, tmp_path: Path) -> None:
    ids = site.fill()
    one = identifier.text(next(iter(ids.values())))
    assert [line["id"] for line in site.json("spool", "export", str(tmp_path / "a"), one)] == [one]
    held = site.json("spool", "export", str(tmp_path / "b"), "--held")
    assert len(held) == 1
    nothing = site.call("spool", "export", str(tmp_path / "c"), "--to", "nobody@nowhere.example")
    assert nothing.exit_code == 1
    assert site.call("spool", "export", str(tmp_path / "d")).exit_code == 2


@pytest.fixture
def exported(site: Site, tmp_path: Path) -> Path:
    site.fill()
    site.text("spool", "export", str(tmp_path / "mail"), "--all")
    return tmp_path / "mail"


def _edit(folder: Path, **changes: Any) -> None:
    path = sorted(folder.glob("*.json"))[0]
    value = json.loads(path.read_text())
    for name, new in changes.items():
        if name in value["recipients"][0]:
            value["recipients"][0][name] = new
        else:
            value[name] = new
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format": "other-1"}, "format"),
        ({"unknown": 1}, "unknown"),
        ({"address": "a@x.example>\r\nRCPT TO:<b@y.example"}, "is not an address"),
        ({"address": ""}, "is not an address"),
        ({"reverse_path": "not an address"}, "is not an address"),
        ({"recipients": []}, "recipients"),
        ({"notify": ["SOMETIMES"]}, "SOMETIMES"),
        ({"envid": "a\r\nb"}, "control character"),
        ({"orcpt": "rfc822;a\0"}, "control character"),
        ({"parameters": [["SIZE", "1\r\nDATA"]]}, "control character"),
        ({"body": "9BIT"}, "9BIT"),
        ({"accepted_us": -5}, "accepted_us"),
        ({"accepted_us": "soon"}, "accepted_us"),
        ({"id": "short"}, "queue id"),
        ({"size": 7}, "not what was exported"),
        ({"sha256": "0" * 64}, "not what was exported"),
    ],
)
def test_an_envelope_that_is_not_as_it_should_be_imports_nothing(
    exported: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    _edit(exported, **changes)
    other = _other(tmp_path)
    result = other.call("spool", "import", str(exported))
    assert result.exit_code == 1 and word in result.output and "nothing was imported" in result.output
    assert not list((other.state / "spool").iterdir())


@pytest.mark.parametrize(
    ("octets", "word"),
    [(None, "No such file"), (b"Subject: x\n\nbody\n", "not what was exported"), (b"", "not what was exported")],
)
def test_content_that_is_not_as_it_should_be(
    exported: Path, tmp_path: Path, octets: bytes | None, word: str
) -> None:
    path = sorted(exported.glob("*.eml"))[0]
    path.unlink()
    if octets is not None:
        path.write_bytes(octets)
    result = _other(tmp_path).call("spool", "import", str(exported))
    assert result.exit_code == 1 and word in result.output and path.name in result.output


def test_content_with_line_ends_of_unix_is_refused_with_the_remedy(exported: Path, tmp_path: Path) -> None:
    import hashlib

    path = sorted(exported.glob("*.eml"))[0]
    octets = b"Subject: x\n\nbody\n"
    path.write_bytes(octets)
    _edit(exported, size=len(octets), sha256=hashlib.sha256(octets).hexdigest())
    result = _other(tmp_path).call("spool", "import", str(exported))
    assert result.exit_code == 1 and "CRLF" in result.output and "unix2dos" in result.output


@pytest.mark.parametrize(
    ("octets", "taken"),
    [
        (b" by mx.example.com; Mon\r\nSubject: x\r\n\r\nbody\r\n", False), (b"Hello\r\n", False),
        (b"From ada Mon\r\nSubject: x\r\n\r\n", False), (b"\r\nHello\r\n", True), (b"Subject : x\r\n", True),
    ],
)  # fmt: skip
def test_content_that_would_go_on_with_a_field_of_ours_is_refused(
    exported: Path, tmp_path: Path, octets: bytes, taken: bool
) -> None:
    """Delivery puts Return-Path and Delivered-To on top of it."""
    import hashlib

    sorted(exported.glob("*.eml"))[0].write_bytes(octets)
    _edit(exported, size=len(octets), sha256=hashlib.sha256(octets).hexdigest())
    result = _other(tmp_path).call("spool", "import", str(exported))
    assert (result.exit_code == 0) is taken
    assert taken or "does not begin with a header field" in result.output


def test_a_message_without_its_content_is_exported_as_far_as_it_goes(site: Site, tmp_path: Path) -> None:
    site.fill()
    _change(site, "DELETE FROM content")
    result = site.call("spool", "export", str(tmp_path / "mail"), "--all")
    assert result.exit_code == 1 and "only its envelope" in result.output
    back = _other(tmp_path).call("spool", "import", str(tmp_path / "mail"))
    assert back.exit_code == 1 and "exported without its content" in back.output


def test_large_content_goes_through_files(site: Site, tmp_path: Path) -> None:
    ids = site.fill()
    one = identifier.text(next(iter(ids.values())))
    site.text("spool", "export", str(tmp_path / "mail"), one)
    octets = b"Subject: large\r\n\r\n" + b"x" * 78 + b"\r\n" + (b"y" * 78 + b"\r\n") * 40_000
    (tmp_path / "mail" / f"{one}.eml").write_bytes(octets)
    import hashlib

    _edit(tmp_path / "mail", size=len(octets), sha256=hashlib.sha256(octets).hexdigest())
    other = _other(tmp_path)
    [line] = other.json("spool", "import", str(tmp_path / "mail"))
    new = identifier.parse(line["id"])
    assert new is not None
    content = _spool(other).content(new)
    assert not isinstance(content, bytes) and content is not None and content.size == len(octets)
    assert Path(content.path).read_bytes() == octets
