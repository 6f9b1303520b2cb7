"""``.forward`` files of users of this machine, in a node and beside Postfix's local(8)."""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import replace, until
from tests.peers.harness.users import users as made_users

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
    "prfincl": (".forward", "\\prfincl, :include:{home}/team\n", 0o644),
    "prfincld": (".forward", ":include:{home}/team\n", 0o644),
    "prfincle": (".forward", ":include:{home}/team\n", 0o644),
    "prfinclp": (".forward", ":include:{home}/team\n", 0o644),
    "prfinclo": (".forward", ":include:{home}/../prfto/team\n", 0o644),
    "prfinclr": (".forward", ":include:team\n", 0o644),
    "prfinclw": (".forward", ":include:{home}/team\n", 0o644),
    "prfinclm": (".forward", ":include:{home}/team\n", 0o644),
    "prfinclc": (".forward", ":include:{home}/team\n", 0o644),
}
# By user: a file that his .forward file includes, and its mode. None of prfinclm; prfinclo names that of another user.
INCLUDED = {
    "prfincl": ("# the team\nprfto, prfempty\n", 0o644),
    "prfincld": (":include:{home}/more\nprfempty\n", 0o644),
    "prfincle": ("", 0o644),
    "prfinclp": ('"|{place}/program {home}/out"\n', 0o644),
    "prfinclw": ("prfto\n", 0o666),
    "prfinclc": (":include:{home}/team\nprfto\n", 0o644),
    "prfto": ("prfto\n", 0o644),
}
RECIPIENTS = (*FILES, "prfext+lists", "prfext+other", "prfplain+x", "prfto")
# Where the node acts otherwise than Postfix on purpose (docs/aliases.md): Postfix returns such mail to its sender, or
# uses what is not wrong. Mail for prfincle is gone there.
OTHERWISE = {
    "prfcirc1", "prfcirc2", "prfbad", "prfinclo", "prfinclr", "prfinclw", "prfinclm", "prfinclc", "prfinclp",
    "prfincle",
}
SAID = {  # by user, in the log
    "prfbad": "the .forward file of prfbad is not used, its mail goes to the mailbox: line 2",
    "prfinclo": "/prfto/team: it belongs to the user with the number",
    "prfinclr": "line 1: ':include:team': the path must begin with /",
    "prfinclw": "prfinclw/team: all users can write to it",
    "prfinclm": "prfinclm/team: No such file or directory",
    "prfinclc": "prfinclc/team includes itself",
    "prfinclp": 'prfinclp/team: line 1: \'|',
}


def write(home: Path, place: Path, name: str) -> None:
    for old in home.glob(".forward*"):
        old.unlink()
    if name in FILES:
        file, text, mode = FILES[name]
        path = home / file
        path.write_text(text.format(home=home, place=place) if "{" in text else text)
        path.chmod(mode)
        os.chown(path, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    included = {"team": INCLUDED.get(name), "more": ("prfto\n", 0o644) if name == "prfincld" else None}
    for file, wanted in included.items():
        if wanted is not None:
            (home / file).write_text(wanted[0].format(home=home, place=place))
            (home / file).chmod(wanted[1])
            os.chown(home / file, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)


@pytest.fixture(scope="module")
def users(place: Path) -> Iterator[Path]:
    """The folder of the homes."""
    place.chmod(0o755)
    (place / "home").mkdir(mode=0o755)
    (place / "program").write_text(PROGRAM)
    (place / "program").chmod(0o755)
    homes = {name: place / "home" / name for name in (*FILES, "prfto")}
    with made_users(*homes, system=[NODE], homes=homes):
        for name, home in homes.items():
            home.mkdir(mode=0o755)
            os.chown(home, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
            write(home, place, name)
        yield place / "home"


def settings(place: Path, **changes: object) -> dict[str, object]:
    return {
        "user": NODE,
        "map": [{"name": "users", "kind": "users"}],
        "alias_targets": {"programs": ["forwards"], "files": ["forwards"], "includes": ["forwards"]},
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
    count = len(names) + 5  # some of the files keep a copy, or lead to two mailboxes
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
    if name in SAID:
        node.wait_log(SAID[name])


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
    replace(send_file, "|/nowhere/program\n")
    until(lambda: _waits_for(node, "could not be started"), "a program that is not there waits", pause_s=1)
    replace(send_file, "prfto\n")
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
    changed = settings(users.parent)
    first = changed["domain"][0]  # type: ignore[index]
    for user in ({"user": NODE}, {"user": "", "path": "/tmp/x"}):
        changed["domain"] = [{**first, **user}]
        said = Node(tmp_path / "node", changed).command("check", code=78)
        assert "Only users of this machine, as whom their mail is delivered, have .forward files" in said
    as_root = {key: value for key, value in changed.items() if key != "user"}
    said = Node(tmp_path / "node", as_root).command("check", code=78)
    assert "only the user of the node can have a .forward file, and 'root' cannot" in said
    changed["domain"] = [{**first, "forward_files": False}]
    said = Node(tmp_path / "node", changed).command("check", code=78)
    assert "Targets of .forward files are allowed, but no domain has such files" in said


def test_the_user_of_the_node_needs_no_root(users: Path) -> None:
    """A node that somebody starts as himself, for his own mail."""
    place, name = users.parent, "prfown"
    own, home = place / "own", users / name
    own.mkdir(mode=0o755)
    os.chown(own, pwd.getpwnam(name).pw_uid, -1)
    file = home / ".forward"
    (home / "team").write_text(f"{home}/box\n")
    os.chown(home / "team", pwd.getpwnam(name).pw_uid, -1)
    file.write_text(f'\\{name}, :include:{home}/team, "|{place}/program {home}/out"\n')
    changed = settings(place, domain=[
        {"name": "host.example", "recipients": [name, "other"], "path": f"{home}/{{local_part}}", "forward_files": True}
    ], alias_targets={"programs": ["forwards"], "files": ["forwards", "includes"], "includes": ["forwards"]})
    del changed["user"]
    as_him = [need.program("setpriv"), "--reuid", name, "--regid", name, "--clear-groups", "--"]
    with Node(own, changed, prefix=as_him) as node:
        send(node.port, f"{name}+x", subject="own")
        send(node.port, "other", subject="other")
        maildir.wait(home / name, 1)
        maildir.wait(home / "other", 1)
        out = home / "out"
        until(lambda: out.exists() and "hello" in out.read_text(), "the program ran")
        assert {name, f"LOCAL={name}+x", "EXTENSION=x"} <= {*out.read_text().splitlines()}
        until(lambda: (home / "box").exists() and "to-own." in (home / "box").read_text(), "the file has it")
        replace(file, "other\n")
        until(lambda: _also_goes_to(node, home / "other"), "the changed file is in force", within_s=30, pause_s=1)
    shutil.rmtree(home / name)
    shutil.rmtree(home / "other")
    (home / "team").unlink()
    write(home, place, name)


def _also_goes_to(node: Node, box: Path) -> bool:
    send(node.port, "prfown", subject="again")
    return any("to-again." in path.read_text() for path in box.glob("new/*"))
