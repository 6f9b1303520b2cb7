"""Maildir++ quota, subfolders for address extensions, and the file of quotas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.mailbox import detail_folder
from postroad.deliver.maildir import Writer
from postroad.deliver.options import MaildirOptions
from postroad.deliver.quota import QuotaTable, parse_quotas
from postroad.mail.job import Job
from postroad.mail.route import MailboxRules, Quota
from postroad.protocol.sending import Result
from postroad.world.files import Posix
from postroad.world.problem import Problem
from tests.unit.deliver.test_maildir import box, given, mails
from tests.unit.deliver.test_mbox import given as given_mbox
from tests.unit.deliver.test_mbox import put as put_mbox

LATER_US = 60_000_000


def now_us(root: Path) -> int:
    """By the clock of the files."""
    (root / "clock").touch()
    return (root / "clock").stat().st_mtime_ns // 1000


def put(root: Path, quota: Quota, content: bytes = b"Subject: x\r\n\r\n1234567890\r\n", to: str = "ada",
        at_us: int = 0, **rules: Any) -> Result:
    made = given(root, content, (to,))
    destination = msgspec.structs.replace(made.destination, rules=MailboxRules(quota, **rules))
    job: Job = msgspec.structs.replace(made, destination=destination)
    (result,) = Writer("mx", MaildirOptions(), Posix()).deliver(job, at_us or now_us(root))
    return result


def told(root: Path) -> list[str]:
    return (box(root) / "maildirsize").read_text().splitlines()


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    for _ in range(3):
        assert put(tmp_path, Quota(10_000, 100)).status == "2.0.0"
    size = mails(tmp_path)[0].stat().st_size
    assert told(tmp_path) == ["10000S,100C", "0 0", f"{size} 1", f"{size} 1", f"{size} 1"]
    assert put(tmp_path, Quota(0, 7)).status == "2.0.0"
    assert told(tmp_path) == ["7C", f"{3 * size} 3", f"{size} 1"]


def test_without_a_quota_there_is_no_file(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    assert not (box(tmp_path) / "maildirsize").exists()


@pytest.mark.parametrize(("fails", "expected"), [(False, ("deferred", "4.2.2")), (True, ("failed", "5.2.2"))])
def test_a_full_mailbox(tmp_path: Path, fails: bool, expected: tuple[str, str]) -> None:
    for _ in range(2):
        assert put(tmp_path, Quota(messages=2)).status == "2.0.0"
    result = put(tmp_path, Quota(messages=2), over_quota_fails=fails)
    assert (result.outcome.value, result.status) == expected
    assert result.text.endswith("the mailbox is full")
    assert len(mails(tmp_path)) == 2 and not list((box(tmp_path) / "tmp").iterdir())


def test_a_message_that_never_has_room(tmp_path: Path) -> None:
    result = put(tmp_path, Quota(size=80))
    assert (result.outcome.value, result.status) == ("failed", "5.2.3")
    assert mails(tmp_path) == []


def test_the_size_counts_as_written(tmp_path: Path) -> None:
    put(tmp_path, Quota(100_000))
    size = mails(tmp_path)[0].stat().st_size
    assert put(tmp_path, Quota(2 * size)).status == "2.0.0"
    assert put(tmp_path, Quota(2 * size)).status == "4.2.2"
    assert put(tmp_path, Quota(3 * size - 1)).status == "4.2.2"
    assert put(tmp_path, Quota(3 * size)).status == "2.0.0"


def test_what_counts(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    mail = mails(tmp_path)[0]
    mail.rename(box(tmp_path) / "cur" / f"{mail.name}:2,S")
    for place, name in ((".a.b/cur", "1.x,S=500:2,"), (".a.b/new", "2.x"), (".Trash/cur", "3.x,S=9999:2,"),
                        ("cur", "4.x,S=9999:2,ST"), ("tmp", "5.x,S=9999"), (".a.b/cur", ".6")):
        (box(tmp_path) / place).mkdir(parents=True, exist_ok=True)
        (box(tmp_path) / place / name).write_bytes(b"123")
    size = int(mail.name.partition(",S=")[2].partition(",")[0])
    assert put(tmp_path, Quota(100_000)).status == "2.0.0"
    assert told(tmp_path)[1] == f"{size + 503} 3"


@pytest.mark.parametrize("octets", [b"", b"x", b"10000S\n1 1\n1", b"10000S\n1\n", b"10000S\n1 x\n", b"9S\n1 1\n",
                                    b"10000S\n" + b"1 1\n" * 1279, b"10000S\n-1 1\n"])
def test_a_file_that_is_counted_anew(tmp_path: Path, octets: bytes) -> None:
    put(tmp_path, Quota())
    (box(tmp_path) / "maildirsize").write_bytes(octets)
    size = mails(tmp_path)[0].stat().st_size
    assert put(tmp_path, Quota(10_000)).status == "2.0.0"
    assert told(tmp_path)[:2] == ["10000S", f"{size} 1"]


def test_a_file_of_other_programs_is_believed(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    (box(tmp_path) / "maildirsize").write_bytes(b"10000S,5C\n   1000    3\n        -500 -1\n")
    assert put(tmp_path, Quota(10_000, 5)).status == "2.0.0"
    assert told(tmp_path)[1].split() == ["1000", "3"]
    size = mails(tmp_path)[0].stat().st_size
    assert told(tmp_path)[3] == f"{size} 1"


def test_when_it_says_full_it_is_counted_anew_if_it_is_old(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    file = box(tmp_path) / "maildirsize"
    file.write_bytes(b"10000S\n10000 3\n")
    assert put(tmp_path, Quota(10_000)).status == "4.2.2"
    assert put(tmp_path, Quota(10_000), at_us=now_us(tmp_path) + 16 * LATER_US).status == "2.0.0"
    assert told(tmp_path)[1].split()[1] == "1"


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    (tmp_path / "victim").write_bytes(b"")
    (box(tmp_path) / "maildirsize").symlink_to(tmp_path / "victim")
    (tmp_path / "other" / "cur").mkdir(parents=True)
    (tmp_path / "other" / "cur" / "x,S=5000").touch()
    (box(tmp_path) / ".linked").symlink_to(tmp_path / "other")
    assert put(tmp_path, Quota(1_000)).status == "2.0.0"
    assert (tmp_path / "victim").read_bytes() == b""
    assert not (box(tmp_path) / "maildirsize").is_symlink()


def test_the_log_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        put(tmp_path, Quota(messages=10), quota_warning=80)
    (record,) = caplog.records
    assert record.getMessage() == f"{box(tmp_path)} uses 80 % of its quota"


# -- subfolders


@pytest.mark.parametrize(
    ("local_part", "folder"),
    [("ada", ""), ("ada+lists", ".lists"), ("ada+lists.py", ".lists.py"), ("ada+Lists", ".Lists"), ("+lists", ""),
     ("ada+", ""), ("ada+.x", ""), ("ada+x.", ""), ("ada+x..y", ""), ("ada+x/y", ""), ("ada+-x", ""),
     ("ada+a&b", ".a&-b"), ("ada+Entwürfe", ".Entw&APw-rfe"), ("ada+x\n", ""), ("ada+日本", ".&ZeVnLA-")],
)
def test_the_folder_of_an_extension(local_part: str, folder: str) -> None:
    assert detail_folder(local_part, MaildirOptions()) == folder


def test_mail_with_an_extension(tmp_path: Path) -> None:
    put(tmp_path, Quota(), to="ada+lists", detail_folders=True)
    assert len(mails(tmp_path)) == 1 and not (box(tmp_path) / ".lists").exists()
    (box(tmp_path) / ".lists").mkdir()
    result = put(tmp_path, Quota(10_000), to="ada+lists", detail_folders=True)
    assert "/ada/.lists/new/" in result.text
    assert len(list((box(tmp_path) / ".lists" / "new").iterdir())) == 1
    assert told(tmp_path)[2].endswith(" 1")
    put(tmp_path, Quota(), to="ada+lists")
    assert len(mails(tmp_path)) == 2


def test_a_subfolder_that_is_a_link(tmp_path: Path) -> None:
    put(tmp_path, Quota())
    (box(tmp_path) / ".lists").symlink_to(tmp_path)
    assert put(tmp_path, Quota(), to="ada+lists", detail_folders=True).status == "4.3.5"


# -- mbox


def test_a_full_mbox_file(tmp_path: Path) -> None:
    job = given_mbox(tmp_path)
    (tmp_path / "ada").write_bytes(b"x" * 500)

    def with_rules(size_max: int, **rules: Any) -> tuple[str, str]:
        result = put_mbox(job, rules=MailboxRules(**rules), size_max=size_max)
        assert isinstance(result, Result)
        return result.outcome.value, result.status

    assert with_rules(520) == ("deferred", "4.2.2")
    assert with_rules(520, over_quota_fails=True) == ("failed", "5.2.2")
    assert with_rules(50) == ("failed", "5.2.3")
    assert (tmp_path / "ada").read_bytes() == b"x" * 500 and not (tmp_path / "ada.lock").exists()
    assert with_rules(1000) == ("delivered", "2.0.0")


# -- the file of quotas


def test_the_file_of_quotas(tmp_path: Path) -> None:
    file, table = tmp_path / "quotas", QuotaTable()
    file.write_text("# all\nAda size=2K messages=10\nbob messages=0 # none\n\n")
    assert table.of(str(file), "ada", Quota(5)) == Quota(2048, 10)
    assert table.of(str(file), "bob", Quota(5)) == Quota()
    assert table.of(str(file), "carl", Quota(5)) == Quota(5)
    assert table.of("", "ada", Quota(5)) == Quota(5)
    file.write_text("ada size=3K\n")
    os.utime(file, (1, 1))
    assert table.of(str(file), "ada", Quota(5)) == Quota(3072)
    file.write_text("ada size=lots\n")
    os.utime(file, (2, 2))
    assert table.of(str(file), "ada", Quota(5)) == Quota(3072)
    file.unlink()
    assert table.of(str(file), "ada", Quota(5)) == Quota(3072)


@pytest.mark.parametrize("line", ["ada", "ada 5", "ada size=5X", "ada messages=5K", "ada size=5 size", "a size=-1"])
def test_a_line_that_is_no_quota(line: str) -> None:
    found = parse_quotas(f"\n{line}\n", "file")
    assert isinstance(found, Problem) and found.where == "file:2"
