"""Delivery as the users of the machine, by a node that was started as root and has given its rights up."""

from __future__ import annotations

import os
import pwd
import smtplib
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.process import until
from tests.peers.harness.users import users as made_users

USERS = ("prada", "prbob")
NODE = "prnode"
NAP = f"60.{os.getpid()}"  # seconds, by which a program of this run is told from others

PROGRAM = """#!/bin/sh
{ id -un; id -Gn; env | sort; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; cat; } > "$1/$LOCAL_PART.out"
exit 0
"""


@pytest.fixture(scope="module")
def users() -> Iterator[None]:
    with made_users(*USERS, system=[NODE]):
        yield


@pytest.fixture(scope="module")
def node(place: Path, users: None) -> Iterator[Node]:
    place.chmod(0o755)
    for folder, mode in (("home", 0o755), ("spool", 0o2775), ("out", 0o1777)):
        (place / folder).mkdir()
        (place / folder).chmod(mode)
    mail = pwd.getpwnam("mail")
    os.chown(place / "spool", 0, mail.pw_gid)
    for name in USERS:
        (place / "home" / name).mkdir(mode=0o700)
        os.chown(place / "home" / name, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    program = place / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)

    def domain(name: str, deliver: str, **more: object) -> dict[str, object]:
        return {"name": name, "recipients": "any", "deliver": deliver, "user": "{local_part}", **more}

    settings = {
        "user": NODE,
        "domain": [
            domain("dir.example", "maildir", path=str(place / "home" / "{local_part}" / "Maildir"), quota_size="1M"),
            domain("file.example", "mbox", path=str(place / "spool" / "{local_part}"), user_group="mail"),
            domain("prog.example", "program", command=[str(program), str(place / "out")]),
            domain("slow.example", "program", command=["/bin/sh", "-c", f"sleep {NAP}"]),
            local_domain("sender.example", path=str(place / "sender" / "{local_part}")),
        ],
        "program": {"time_s": 30},
        "queue": {"retry_first_s": 3600},  # mail is tried again when a test says so
    }
    (place / "sender").mkdir()
    os.chown(place / "sender", pwd.getpwnam(NODE).pw_uid, -1)
    (place / "node").mkdir(mode=0o755)
    os.chown(place / "node", pwd.getpwnam(NODE).pw_uid, -1)
    with Node(place / "node", settings) as made:
        yield made


def send(node: Node, *to: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("s@sender.example", to, b"Subject: x\r\n\r\nFrom here\r\nhello\r\n")


def place_of(node: Node) -> Path:
    return node.directory.parent


def owner(path: Path) -> tuple[str, int]:
    state = path.stat()
    return pwd.getpwuid(state.st_uid).pw_name, stat.S_IMODE(state.st_mode)


def test_each_maildir_belongs_to_its_user(node: Node) -> None:
    send(node, *(f"{name}@dir.example" for name in USERS), "prada+lists@dir.example")
    for name, count in zip(USERS, (2, 1), strict=True):
        box = place_of(node) / "home" / name / "Maildir"
        messages = maildir.wait(box, count)
        assert all(b"\nFrom here\nhello\n" in each and b"\nDelivered-To: " in each for each in messages)
        for path in (box, box / "new", *(box / "new").iterdir()):
            assert owner(path)[0] == name and owner(path)[1] & 0o077 == 0
        until(lambda box=box: (box / "maildirsize").exists(), "the quota is written")
        assert (box / "maildirsize").read_text().startswith("1048576S\n")


def test_a_file_below_var_mail(node: Node) -> None:
    send(node, "prada@file.example", "prada@file.example", "prbob@file.example")
    for name in USERS:
        file = place_of(node) / "spool" / name
        until(lambda file=file: file.exists() and b"\n>From here\n" in file.read_bytes(), f"mail in {file}")
        assert owner(file) == (name, 0o660)
        assert file.stat().st_gid == pwd.getpwnam("mail").pw_gid


def test_a_program_is_the_user_with_a_clean_environment(node: Node) -> None:
    send(node, "prada@prog.example")
    file = place_of(node) / "out" / "prada.out"
    until(lambda: file.exists() and b"hello" in file.read_bytes(), "the program ran")
    user, groups, *lines = file.read_text().splitlines()
    assert (user, groups) == ("prada", "prada")
    assert owner(file)[0] == "prada"
    names = {line.partition("=")[0] for line in lines[: lines.index("NoNewPrivs:\t1")]}
    assert names - {"PWD", "_", "OLDPWD"} == {
        "PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "RECIPIENT", "LOCAL_PART", "DOMAIN", "SENDER"
    }  # fmt: skip
    assert "HOME=/home/prada" in lines
    assert int(lines[lines.index("NoNewPrivs:\t1") + 1]) <= 4, "no descriptor of ours"


def test_who_is_no_user_or_a_system_user(node: Node) -> None:
    send(node, "root@dir.example", "daemon@file.example", "nobody-there@dir.example")
    node.wait_log("root has the number 0, which is below 1000")
    node.wait_log("daemon has the number 1, which is below 1000")
    node.wait_log("nobody-there there is no such user")
    send(node, "Pr$ada@dir.example")
    (report,) = dsn.wait(place_of(node) / "sender" / "s", "ada@dir.example")
    assert report.recipients[0]["Status"] == "5.1.1"


def counted(box: Path) -> int:
    """The messages that `maildirsize` counts."""
    _, *lines = (box / "maildirsize").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines)


def test_a_link_of_the_user_leads_nowhere(node: Node) -> None:
    """A user who replaces his Maildir by a link to another's gets no mail there, and neither does the other."""
    box = place_of(node) / "home" / "prbob" / "Maildir"
    had = len(maildir.raw(box))
    send(node, "prbob@dir.example")
    maildir.wait(box, had + 1)
    until(lambda: counted(box) == had + 1, "the quota is written")  # after which the delivery leaves the folder alone
    before = len(maildir.raw(place_of(node) / "home" / "prada" / "Maildir"))
    box.rename(box.with_name("away"))
    box.symlink_to(place_of(node) / "home" / "prada" / "Maildir")
    send(node, "prbob@dir.example")
    node.wait_log("'Maildir' is a symbolic link or no folder")
    assert len(maildir.raw(place_of(node) / "home" / "prada" / "Maildir")) == before
    box.unlink()
    box.with_name("away").rename(box)
    node.command("queue", "retry", "prbob@dir.example")
    maildir.wait(box, had + 2)


def test_nobody_but_the_porter_has_roots_rights(node: Node) -> None:
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    uids = {}
    for pid in [str(node.pid), *children]:
        line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("Uid:"))
        uids[Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2]] = line.split()[1]
    assert uids.pop(b"postroad.node.porter") == "0"
    assert set(uids.values()) == {str(pwd.getpwnam(NODE).pw_uid)}


def test_a_reload_that_changes_users_is_refused(node: Node) -> None:
    before = node.config["domain"]
    node.config["domain"] = [{**each, "user": "prbob"} if "user" in each else each for each in before]
    node.reload()
    node.wait_log("a change of deliveries as other users needs a restart")
    node.config["domain"] = before
    node.reload()
    node.wait_log("the new configuration is in force")


def test_a_node_that_is_not_root_says_so(node: Node) -> None:
    found = subprocess.run(
        ["setpriv", "--reuid", NODE, "--regid", NODE, "--clear-groups", sys.executable, "-m", "postroad", "check",
         "--config", str(node.config_path)],
        capture_output=True, text=True, check=False, timeout=60, cwd="/",
    )
    # a node runs: who checks need not be who starts
    assert found.returncode == 0, found.stderr


def test_programs_end_with_the_node_and_the_porter_too(node: Node) -> None:
    send(node, "prada@slow.example")
    until(lambda: sleeping(), "the program runs")
    porter = next(
        int(pid) for pid in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
        if b"postroad.node.porter" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    node.stop(within_s=40)
    until(lambda: not sleeping(), "the program has ended")
    until(lambda: not Path(f"/proc/{porter}").exists(), "the porter has ended")


def sleeping() -> bool:
    """Whether a program of ours runs as the user."""
    uid = pwd.getpwnam("prada").pw_uid
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.stat().st_uid in (uid, 0) and path.read_bytes() == f"sleep\0{NAP}\0".encode():
                return True
        except OSError:
            continue
    return False
