"""sendmail as ordinary users call it, with and without a node: who may what, and what becomes of mail in between."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener
from tests.peers.harness.process import folder, own_to, until
from tests.peers.harness.remote import Remote
from tests.peers.harness.sendmail import NOBODY, Sendmail

MAIL = 8  # the user `mail` of Debian
MESSAGE = b"Subject: %s\n\nhello\n"


class Site:
    """A node as the user `daemon`, started by root, and the program; `remote` gets what is for far.test."""

    def __init__(self, home: Path, remote: Remote) -> None:
        need.root()
        self.sendmail = Sendmail(home)
        self.remote = remote
        (home / "n").mkdir()
        (home / "n" / "aliases").write_text("staff: ann, bob\n")
        self.node = Node(home / "n", {
            "hostname": "example.test", "user": "daemon", "aliases": "aliases",
            "domain": [local_domain("example.test", ["ann", "bob", "nobody", "mail"])],
            "next_hop": [next_hop("far.test", remote.port), next_hop("gone.test", ports.port())],
            "listener": [relay_listener(ports.port())],
            "sendmail": {"folder": str(self.sendmail.folder)},
        })  # fmt: skip
        own_to(home / "n", "daemon")
        self.drop = self.sendmail.folder / "drop"

    def files(self) -> list[str]:
        return sorted(os.listdir(self.drop))

    def arrived(self, subject: str, name: str = "ann") -> bytes:
        return maildir.wait(self.node.maildir(f"{name}@example.test"), of=subject)[0]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with folder("smu") as home, Remote() as remote:
        found = Site(home, remote)
        with found.node:
            yield found


@pytest.fixture
def stopped(site: Site) -> Iterator[Site]:
    """The node does not run; it runs again after the test."""
    site.node.stop()
    yield site
    if not site.node.program.running:
        site.node.start()
    until(lambda: not [name for name in site.files() if name[:2] in ("m-", "x-")], "what was left is taken")


# ---- While the node is down


def test_mail_waits_while_the_node_is_down_and_is_taken_at_its_start(stopped: Site) -> None:
    ended = stopped.sendmail("-v", "ann", message=MESSAGE % b"while-down", uid=NOBODY)
    assert ended.returncode == 0 and b"waits in the drop folder" in ended.stdout
    assert len(stopped.files()) == 1
    stopped.node.start()
    octets = stopped.arrived("while-down")
    assert b"Return-Path: <nobody@example.test>" in octets and b"nobody/uid=65534" in octets
    until(lambda: not stopped.files(), "the file is gone")


def test_the_message_is_on_stable_storage_before_the_program_ends(stopped: Site) -> None:
    """The file is synced before it has its name, and the file system after that."""
    strace = need.program("strace")
    calls = stopped.sendmail.home / "calls"
    ended = subprocess.run(
        [strace, "-f", "-o", str(calls), "-e", "trace=openat,write,fsync,rename,renameat,renameat2,syncfs,exit_group",
         str(stopped.sendmail.path), "ann"],
        input=MESSAGE % b"synced", capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0
    made = [line.split(maxsplit=1)[1] for line in calls.read_text().splitlines()]
    since = next(at for at, call in enumerate(made) if "O_EXCL" in call and '"t-' in call)
    names = [call.partition("(")[0] for call in made[since:]]
    order = [name for name in names if name in ("fsync", "syncfs", "exit_group") or name.startswith("rename")]
    assert [name.rstrip("at2") if name.startswith("rename") else name for name in order] == [
        "fsync", "rename", "syncfs", "exit_group",
    ], made[since:]  # fmt: skip
    assert "O_NOFOLLOW" in made[since]
    assert "write" not in names[names.index("fsync") :]


def test_nobody_can_do_anything_to_the_mail_of_others(stopped: Site) -> None:
    assert stopped.sendmail("ann", message=MESSAGE % b"secret", uid=NOBODY, umask=0).returncode == 0
    (name,) = stopped.files()
    path = stopped.drop / name
    state = path.stat()
    assert (stat.S_IMODE(state.st_mode), state.st_uid) == (0o640, NOBODY)
    assert stopped.drop.stat().st_gid == state.st_gid != NOBODY
    program = f"""
import os
def tried(what, *arguments):
    try:
        what(*arguments)
    except PermissionError:
        print("no", end=" ")
    else:
        print("YES", what, end=" ")
tried(os.listdir, {str(stopped.drop)!r})
tried(open, {str(path)!r})
tried(open, {str(path)!r}, "ab")
tried(os.unlink, {str(path)!r})
tried(os.rename, {str(path)!r}, {str(path)!r} + "x")
tried(os.link, {str(path)!r}, {str(path)!r} + "y")
tried(os.chmod, {str(path)!r}, 0o666)
tried(os.rmdir, {str(stopped.drop)!r})
tried(os.rename, {str(stopped.drop)!r}, {str(stopped.drop)!r} + "x")
tried(os.unlink, {str(stopped.sendmail.folder / "socket")!r})
tried(open, {str(stopped.sendmail.folder / "facts")!r}, "ab")
"""
    ended = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", program], capture_output=True, text=True, check=False, user=MAIL, group=MAIL,
        extra_groups=[],
    )
    hard_links = Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "0"
    allowed = 0 if hard_links else 1
    assert ended.stdout.split().count("no") >= 11 - allowed, ended.stdout + ended.stderr
    assert stopped.files() == [name] or not hard_links


def test_a_file_of_another_program_is_set_aside(site: Site) -> None:
    path = site.drop / "m-00ff"
    path.write_bytes(b"not of sendmail")
    path.chmod(0o644)
    until(lambda: "is set aside as b-00ff" in site.node.log(), "it is set aside")
    (site.drop / "b-00ff").unlink()


def test_a_node_that_is_killed_takes_each_message_once(stopped: Site) -> None:
    for number in range(40):
        ended = stopped.sendmail("x@far.test", message=MESSAGE % f"kill-{number}.".encode(), uid=NOBODY)
        assert ended.returncode == 0
    for _ in range(4):
        stopped.node.start()
        until(lambda: len(stopped.files()) < 40 or not stopped.files(), "some are taken")
        stopped.node.kill()
    stopped.node.start()
    until(lambda: not [name for name in stopped.files() if name[:2] in ("m-", "x-")], "all are taken", within_s=60)
    wanted = {f"kill-{number}." for number in range(40)}

    def counts() -> dict[str, int]:
        contents = [each.content.decode() for each in stopped.remote.transactions]
        return {subject: sum(f"Subject: {subject}\r\n" in each for each in contents) for subject in wanted}

    until(lambda: all(counts().values()), "all have arrived", within_s=60)
    # A message that was on its way to the remote when the node was killed may arrive twice (promise 4), but each was
    # accepted once: one queue id for each.
    contents = [each.content.decode() for each in stopped.remote.transactions]
    for subject in wanted:
        ids = {each.partition("SMTP id ")[2].split(maxsplit=1)[0] for each in contents if f"{subject}\r\n" in each}
        assert len(ids) == 1, (subject, ids)


def test_without_a_drop_folder_the_program_says_try_again(stopped: Site) -> None:
    stopped.drop.rename(stopped.drop.with_name("away"))
    try:
        ended = stopped.sendmail("ann", message=MESSAGE % b"lost", uid=NOBODY)
    finally:
        stopped.drop.with_name("away").rename(stopped.drop)
    assert ended.returncode == 75 and b"the node is not running, and there is no drop folder" in ended.stderr
    assert stopped.sendmail("-bp", uid=NOBODY).returncode == 75
    assert stopped.sendmail("-bs", uid=NOBODY).returncode == 75


# ---- With a node


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody-here"], 67, "<nobody-here@example.test>: 550 5.1.1"),
        (["a b@c.test"], 65, "5.1.3"),
        (["-f", "x@@y", "ann"], 77, "The sender is not a mail address"),
        ([], 64, "name a recipient"),
        (["-t"], 75, "No recipient addresses found in message header"),
        (["-oem", "nobody-here"], 0, ""),
    ],
)
def test_what_is_refused_is_said_at_once(site: Site, arguments: list[str], code: int, said: str) -> None:
    ended = site.sendmail(*arguments, message=MESSAGE % b"refused", uid=MAIL)
    assert ended.returncode == code and said in ended.stderr.decode(), ended.stderr
    assert site.files() == []


def test_who_is_refused_is_told_by_mail_and_the_others_get_theirs(site: Site) -> None:
    assert site.sendmail("ann", "nobody-here", message=MESSAGE % b"for-two", uid=MAIL).returncode == 0
    assert site.arrived("for-two")
    report = site.arrived("for-two", "mail")
    assert b"Final-Recipient: rfc822; nobody-here@example.test" in report


def test_a_large_message_and_a_slow_one(site: Site) -> None:
    body = b"".join(b"%09d\n" % number for number in range(300_000))
    assert site.sendmail("ann", message=b"Subject: large-one\n\n" + body, uid=NOBODY).returncode == 0
    assert site.arrived("large-one").endswith(b"\n\n" + body)


def test_a_session_on_standard_input_and_output(site: Site) -> None:
    said = (b"HELO x\nMAIL FROM:<e@x.test>\nRCPT TO:<ann@example.test>\nDATA\nSubject: by-session\n\n..x\n.\n"
            b"NOOP\nQUIT\n")  # fmt: skip
    ended = site.sendmail("-bs", message=said, uid=NOBODY)
    assert [line[:3] for line in ended.stdout.splitlines()] == [
        b"220", b"250", b"250", b"250", b"354", b"250", b"250", b"221",
    ]  # fmt: skip
    assert site.arrived("by-session").endswith(b"\n\n.x\n")
    id = ended.stdout.decode().partition("queued as ")[2].split()[0]
    told = site.node.command("trace", id)
    assert "nobody/uid=65534" in told, told
    cut = site.sendmail("-bs", message=said[:80], uid=NOBODY)
    assert cut.stdout.splitlines()[-1][:3] != b"250" and cut.returncode == 0


def test_mailq_shows_a_user_its_own_mail_and_root_all(site: Site) -> None:
    def is_empty() -> bool:
        return site.sendmail(program=site.sendmail.mailq, uid=NOBODY).stdout == b"Mail queue is empty\n"

    until(is_empty, "what other tests have sent has left the queue")
    for uid, to in ((NOBODY, "one@gone.test"), (MAIL, "two@gone.test")):
        assert site.sendmail(to, message=MESSAGE % b"waits", uid=uid).returncode == 0

    def shown(uid: int | None) -> str:
        return site.sendmail(program=site.sendmail.mailq, uid=uid).stdout.decode()

    until(lambda: "one@gone.test" in shown(NOBODY) and "two@gone.test" in shown(MAIL), "both are listed")
    assert "two@gone.test" not in shown(NOBODY)
    assert "-- 1 Kbytes in 1 Request." in shown(MAIL) and "two@gone.test" in shown(MAIL)
    assert "one@gone.test" in shown(None) and "two@gone.test" in shown(None)
    site.node.command("queue", "remove", "--sender", "nobody@example.test", "--yes", code=None)
    site.node.command("queue", "remove", "--sender", "mail@example.test", "--yes", code=None)


def test_the_queue_is_tried_when_a_user_asks(site: Site) -> None:
    ended = site.sendmail("-q", uid=NOBODY)
    assert (ended.returncode, ended.stdout) == (0, b"The queue is being tried\n")
    ended = site.sendmail("-q", uid=NOBODY)
    assert b"a moment ago" in ended.stdout


def test_what_would_become_of_an_address(site: Site) -> None:
    ended = site.sendmail("-bv", "ann", "x@far.test", uid=NOBODY)
    assert ended.stdout.decode() == "ann@example.test: would be accepted\nx@far.test: would be accepted\n"
    ended = site.sendmail("-bv", "ann", "none")
    assert ended.returncode != 0 and b"goes to maildir:example.test" in ended.stderr and b"550 5.1.1" in ended.stderr


def test_newaliases_says_what_is_wrong(site: Site) -> None:
    run = site.sendmail
    assert run(program=run.newaliases, uid=NOBODY).returncode == 77
    assert run(program=run.newaliases).returncode == 0
    aliases = site.node.directory / "aliases"
    aliases.write_text("staff: ann, bob\nno colon\n")
    ended = run(program=run.newaliases)
    assert ended.returncode == 65 and f"{aliases}:2".encode() in ended.stderr
    aliases.write_text("staff: ann, bob\nall: ann\n")
    assert run("-bi").returncode == 0
    assert run("all", message=MESSAGE % b"by-alias", uid=NOBODY).returncode == 0
    assert site.arrived("by-alias")


def test_who_may_send_and_as_whom(site: Site) -> None:
    def code(*arguments: str, uid: int | None = NOBODY) -> int:
        return site.sendmail(*arguments, message=MESSAGE % b"as-whom", uid=uid).returncode

    def settings(said: str, **given: object) -> None:
        site.node.config["sendmail"] = {"folder": str(site.sendmail.folder), **given}
        before = site.node.log_text().count("reloaded:")
        site.node.reload()
        until(lambda: site.node.log_text().count("reloaded:") > before, said)

    try:
        settings("own", sender="own")
        assert [code("-f", each, "ann") for each in ("eve@x.test", "nobody@example.test", "")] == [77, 0, 0]
        assert code("-f", "eve@x.test", "ann", uid=None) == 0, "root may"
        said = b"HELO x\nMAIL FROM:<eve@x.test>\nQUIT\n"
        assert b"\r\n553 5.7.1" in site.sendmail("-bs", message=said, uid=NOBODY).stdout
        settings("forced", sender="forced")
        assert code("-f", "eve@x.test", "bob") == 0
        assert b"Return-Path: <nobody@example.test>" in site.arrived("as-whom", "bob")
        settings("users", users=["mail"], flush=False, mailq="none")
        assert [code("ann", uid=uid) for uid in (NOBODY, MAIL, None)] == [69, 0, 0]
        assert [site.sendmail(mode, uid=NOBODY).returncode for mode in ("-q", "-bp")] == [77, 77]
        settings("rate", messages_max=1, window_s="1h")
        assert [code("ann"), code("ann"), code("ann", uid=None)] == [0, 0, 0]
        assert len(site.files()) == 2, "what is over the rate waits in the drop folder"
    finally:
        settings("as before")
    until(lambda: not site.files(), "it is taken")


def test_one_user_cannot_take_all_the_places(site: Site) -> None:
    """A user that opens connections and says nothing keeps nobody else from sending."""
    program = f"""
import socket, sys
held = []
for _ in range(200):
    each = socket.socket(socket.AF_UNIX)
    each.connect({str(site.sendmail.folder / "socket")!r})
    held.append(each)
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY,
        extra_groups=[],
    ) as holding:
        assert holding.stdout is not None and holding.stdout.readline() == b"held\n"
        ended = site.sendmail("-v", "ann", message=MESSAGE % b"beside", uid=MAIL)
        assert ended.returncode == 0 and b"queued as" in ended.stdout, ended.stdout
        holding.communicate()


@pytest.mark.parametrize(
    "octets",
    [b"\n\n", b"submit 1\n\n", b"\xff" * 100 + b"\n\n", b"submit 1\nto ann\nsize 9999999999\n\n", b"list 1\n\nmore",
     b"submit 1\nto ann\nsize 5\n\nhello and more", b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_octets_that_are_no_request_get_an_answer(site: Site, octets: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(site.sendmail.folder / "socket"))
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR)
        said = b""
        while piece := client.recv(4096):
            said += piece
    assert said[:1] in (b"2", b"3", b"4", b"5") or b"\n\n" not in octets


def test_a_node_that_never_was_root_has_a_folder_as_safe() -> None:
    need.root()
    setpriv = need.program("setpriv")
    with folder("smp") as home:
        sendmail = Sendmail(home)
        (home / "own").mkdir()
        own_to(home / "own", "daemon")
        sendmail.folder.symlink_to(home / "own" / "spool")
        node = Node(home / "n", {
            "hostname": "example.test", "domain": [local_domain("example.test", ["ann"])],
            "listener": [relay_listener(ports.port())], "sendmail": {"folder": str(home / "own" / "spool")},
        }, prefix=[setpriv, "--reuid", "daemon", "--regid", "daemon", "--clear-groups", "--"])  # fmt: skip
        own_to(home / "n", "daemon")
        node.start()
        node.stop()
        drop = home / "own" / "spool" / "drop"
        assert stat.S_IMODE(drop.stat().st_mode) == 0o3733 and drop.stat().st_uid == 1
        assert sendmail("ann", message=MESSAGE % b"plain-node", uid=NOBODY).returncode == 0
        (name,) = os.listdir(drop)
        assert (drop / name).stat().st_gid == drop.stat().st_gid
        try:
            node.start()
            assert maildir.wait(node.maildir("ann@example.test"), of="plain-node")
            assert sendmail("-v", "ann", message=MESSAGE % b"plain-socket", uid=MAIL).returncode == 0
            assert b"mail/uid=8" in maildir.wait(node.maildir("ann@example.test"), of="plain-socket")[0]
        finally:
            node.stop()
