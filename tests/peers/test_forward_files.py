"""``.forward`` files of users of this machine, in a node and beside Postfix's local(8)."""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import until

NODE = "prnode"
PROGRAM = """#!/bin/sh
{ id -un; env | sort; cat; } > "$1"
"""
# By user: the file, what stands in it, its mode.
FILES = {
    "prfplain": (".forward", "prfto\n", 0o644),
    "prfboth": (".forward", "# kept, too\n\\prfboth, prfto\n", 0o644),
    "prfown": (".forward", "prfown, prfto\n", 0o644),
    "prfempty": (".forward", "", 0o644),
    "prfnote": (".forward", "# nothing\n\n", 0o644),
    "prfworld": (".forward", "prfto\n", 0o666),
    "prfunread": (".forward", "prfto\n", 0o000),
    "prfext": (".forward+lists", "prfto\n", 0o644),
    "prfchain": (".forward", "prfplain\n", 0o644),
    "prfname": (".forward", "prfto@host.example, prfto\n", 0o644),
    "prffile": (".forward", "{home}/box\n", 0o644),
    "prfprog": (".forward", '"|{place}/program {home}/out"\n', 0o644),
    "prfcirc1": (".forward", "prfcirc2\n", 0o644),
    "prfcirc2": (".forward", "prfcirc1\n", 0o644),
    "prfbad": (".forward", "prfto\na b c@@, <<>\n", 0o644),
}
RECIPIENTS = (*FILES, "prfext+lists", "prfext+other", "prfplain+x", "prfto")
# Where the node acts otherwise than Postfix on purpose (docs/aliases.md): Postfix returns such mail to its sender.
OTHERWISE = {"prfcirc1", "prfcirc2", "prfbad"}


def write(home: Path, place: Path, name: str) -> None:
    for old in home.glob(".forward*"):
        old.unlink()
    if name in FILES:
        file, text, mode = FILES[name]
        path = home / file
        path.write_text(text.format(home=home, place=place) if "{" in text else text)
        path.chmod(mode)
        os.chown(path, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)


@pytest.fixture(scope="module")
def users(place: Path) -> Iterator[Path]:
    """The folder of the homes."""
    need.root()
    place.chmod(0o755)
    (place / "home").mkdir(mode=0o755)
    (place / "program").write_text(PROGRAM)
    (place / "program").chmod(0o755)
    made = []
    try:
        for name in (*FILES, "prfto", NODE):
            try:
                pwd.getpwnam(name)
                continue
            except KeyError:
                system = ["--system"] if name == NODE else []
            home = place / "home" / name
            add = [need.program("useradd"), "--no-create-home", *system, "--home-dir", str(home), name]
            subprocess.run(add, check=True)
            made.append(name)
            if name != NODE:
                home.mkdir(mode=0o755)
                os.chown(home, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
                write(home, place, name)
        yield place / "home"
    finally:
        for name in made:
            subprocess.run(["userdel", name], check=False, capture_output=True)


def settings(place: Path, **changes: object) -> dict[str, object]:
    return {
        "user": NODE,
        "map": [{"name": "users", "kind": "users"}],
        "alias_targets": {"programs": ["forwards"], "files": ["forwards"]},
        "domain": [
            {
                "name": "host.example", "recipient_maps": ["users"], "deliver": "maildir", "path": "{home}/Maildir",
                "user": "{local_part}", "forward_files": True,
            },
            local_domain("sender.example", path=str(place / "sender" / "{local_part}")),
        ],
        **changes,
    }


@pytest.fixture(scope="module")
def node(users: Path) -> Iterator[Node]:
    place = users.parent
    for name in ("node", "sender"):
        (place / name).mkdir(mode=0o755)
        os.chown(place / name, pwd.getpwnam(NODE).pw_uid, -1)
    with Node(place / "node", settings(place)) as started:
        yield started


def send(port: int, name: str, *, subject: str = "") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        content = f"Subject: to-{subject or name}.\r\nMessage-ID: <{subject or name}@x>\r\n\r\nhello\r\n"
        client.sendmail("s@sender.example", [f"{name}@host.example"], content.encode())


def held(home: Path) -> list[str]:
    """The subjects in the mailbox and the files of a user."""
    files = [*(home / "Maildir" / "new").glob("*"), home / "box", home / "out"]
    lines = [line for each in files if each.is_file() for line in each.read_text().splitlines()]
    return sorted(f"{line.partition('to-')[2]}" for line in lines if line.startswith("Subject: to-"))


def clear(users: Path) -> None:
    for home in users.iterdir():
        shutil.rmtree(home / "Maildir", ignore_errors=True)
        for name in ("box", "out"):
            (home / name).unlink(missing_ok=True)


def everything(users: Path) -> dict[str, list[str]]:
    return {home.name: held(home) for home in sorted(users.iterdir())}


def test_the_final_mailboxes_are_those_of_postfix(users: Path, node: Node) -> None:
    names = [each for each in RECIPIENTS if each not in OTHERWISE]
    clear(users)
    configured = {
        "mydestination": "host.example", "myorigin": "host.example", "recipient_delimiter": "+", "alias_maps": "",
        "home_mailbox": "Maildir/", "local_recipient_maps": "",
    }  # fmt: skip
    count = len(names) + 2  # two of the files keep a copy
    with Postfix(users.parent / "postfix", settings=configured) as postfix:
        for name in names:
            send(postfix.port, name)
        until(lambda: sum(map(len, everything(users).values())) >= count, "Postfix delivered", within_s=40)
        wanted = everything(users)
    clear(users)
    for name in names:
        send(node.port, name)
    until(lambda: everything(users) == wanted, f"the node delivered as Postfix: {wanted}", within_s=40)


ALIASES = {
    "prflist": "prfplain, prfempty, prfboth",
    "prfown": "prfown, prfempty",  # its own name: here and there the file of the user counts then
    "prfnest": "prflist, prffile",
}


def test_aliases_before_files_as_in_postfix(users: Path) -> None:
    place = users.parent
    clear(users)
    entries = ", ".join(f"{{{name} = {targets}}}" for name, targets in ALIASES.items())
    configured = {
        "mydestination": "host.example", "myorigin": "host.example", "recipient_delimiter": "+",
        "alias_maps": f"inline:{{{entries}}}", "home_mailbox": "Maildir/", "local_recipient_maps": "",
    }  # fmt: skip
    with Postfix(place / "postfix-aliases", settings=configured) as postfix:
        for name in ALIASES:
            send(postfix.port, name)
        until(lambda: sum(map(len, everything(users).values())) >= 10, "Postfix delivered", within_s=40)
        wanted = everything(users)
    clear(users)
    (place / "aliases").mkdir(mode=0o755)
    os.chown(place / "aliases", pwd.getpwnam(NODE).pw_uid, -1)
    file = place / "aliases" / "list"
    file.write_text("".join(f"{name}: {targets}\n" for name, targets in ALIASES.items()))
    with Node(place / "aliases", settings(place, aliases=str(file))) as node:
        for name in ALIASES:
            send(node.port, name)
        until(lambda: everything(users) == wanted, f"the node delivered as Postfix: {wanted}", within_s=40)


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_what_postfix_returns_goes_to_the_mailbox(users: Path, node: Node, name: str) -> None:
    clear(users)
    send(node.port, name, subject=f"otherwise-{name}")
    until(lambda: any(each for each in everything(users).values()), "it is delivered")
    assert {home: found for home, found in everything(users).items() if found} == {name: [f"otherwise-{name}."]}
    if name == "prfbad":
        node.wait_log("the .forward file of prfbad is not used, its mail goes to the mailbox: line 2")


def test_a_program_runs_as_the_user(users: Path, node: Node) -> None:
    clear(users)
    send(node.port, "prfprog+x", subject="program")
    out = users / "prfprog" / "out"
    until(lambda: out.exists() and "hello" in out.read_text(), "the program ran")
    lines = out.read_text().splitlines()
    assert lines[0] == "prfprog" and {"LOCAL=prfprog+x", "EXTENSION=x", "USER=prfprog"} <= {*lines}
    assert pwd.getpwuid(out.stat().st_uid).pw_name == "prfprog"
    assert "expanded   <prfprog+x@host.example> into <|" in node.command("trace", "prfprog+x@host.example")


def test_what_the_file_does_not_name_any_more_is_not_used(users: Path, node: Node) -> None:
    clear(users)
    home = users / "prfprog"
    send_file = home / ".forward"
    send_file.write_text("|/nowhere/program\n")
    until(lambda: _waits_for(node, "could not be started"), "a program that is not there waits", pause_s=1)
    send_file.write_text("prfto\n")
    node.command("queue", "retry", "--all")
    until(lambda: "does not name this program or file any more" in node.command("trace", "prfprog+gone@host.example"),
          "the file is read again")
    write(home, users.parent, "prfprog")


def _waits_for(node: Node, text: str) -> bool:
    send(node.port, "prfprog+gone", subject="gone")
    return text in node.command("trace", "prfprog+gone@host.example")


def test_without_permission_programs_and_files_are_not_used(users: Path, node: Node) -> None:
    place = users.parent
    clear(users)
    (place / "strict").mkdir(mode=0o755)
    os.chown(place / "strict", pwd.getpwnam(NODE).pw_uid, -1)
    with Node(place / "strict", settings(place, alias_targets={})) as strict:
        for name in ("prfprog", "prffile", "prfplain"):
            send(strict.port, name)
        for name in ("prfprog", "prffile", "prfto"):
            maildir.wait(users / name / "Maildir", 1)
        strict.wait_log('write programs = ["forwards"] under [alias_targets]')
        assert not (users / "prfprog" / "out").exists() and not (users / "prffile" / "box").exists()


def test_mail_that_comes_back_by_a_forward_ends(users: Path, node: Node) -> None:
    """A user's mail goes to Postfix, which sends it back by an alias of its own."""
    place = users.parent
    clear(users)
    (place / "back").mkdir(mode=0o755)
    os.chown(place / "back", pwd.getpwnam(NODE).pw_uid, -1)
    port = ports.port()
    back = {
        "mydestination": "", "virtual_alias_domains": "far.example", "relayhost": f"[127.0.0.1]:{port}",
        "virtual_alias_maps": "inline:{x@far.example=prfto@host.example}",
    }  # fmt: skip
    file = users / "prfto" / ".forward"
    with Postfix(place / "postfix-back", settings=back) as postfix:
        ways = {"next_hop": [next_hop("far.example", postfix.port)], "listener": [mx_listener(port, tls="none")]}
        with Node(place / "back", settings(place, **ways)) as looping:
            file.write_text("x@far.example\n")
            os.chown(file, pwd.getpwnam("prfto").pw_uid, -1)
            send(looping.port, "prfto", subject="round")
            looping.wait_log("5.4.6")
            until(lambda: "5.4.6" in postfix.log(200), "Postfix heard that it is a loop")
            reports = maildir.wait(place / "sender" / "s", 1, of="5.4.6")
            assert reports and held(users / "prfto") == []
    file.unlink()


def test_check_says_what_cannot_be(users: Path, tmp_path: Path) -> None:
    changed = settings(users.parent, alias_targets={"includes": ["forwards"]})
    domain = dict(changed["domain"][0], user=NODE)  # type: ignore[index]
    changed["domain"] = [domain]
    said = Node(tmp_path / "node", changed).command("check", code=78)
    assert "forward_files" in said and "cannot include other files" in said
