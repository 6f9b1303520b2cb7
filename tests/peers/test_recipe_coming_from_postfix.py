"""docs/recipes/coming-from-postfix.md: both configurations of the page give the same answers; its names are true."""

from __future__ import annotations

import re
import smtplib
import subprocess
from pathlib import Path

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote

PAGE = Page("coming-from-postfix")


def test_both_configurations_give_the_same_answers(place: Path) -> None:
    port, stranger = ports.port(), ports.address()
    base = place / "postfix-mail"
    owner = maildir_settings(base, "example.org", ())
    with Remote() as smart_host:
        machine = Machine(PAGE, place / "machine", {
            "/var/lib/postroad": str(place / "machine/state"), "/var/mail/{": str(place / "machine/mail") + "/{",
            "/var/mail/example.org": str(base), 'user = "postroad"\n': "", "192.0.2.0/24": "127.0.0.1/32",
            "/etc/postfix/": f"{place}/machine/etc/postfix/", "port = 25\n": f"port = {port}\n",
            "[smtp.provider.example]:587": f"[127.0.0.1]:{smart_host.port}",
            '"smtp.provider.example"': '"127.0.0.1"', "port = 587\n": f"port = {smart_host.port}\n",
            "--server mail.example.org --port 25 ": f"--server 127.0.0.1:{port} ",
            "virtual_uid_maps = static:5000": f"virtual_uid_maps = {owner['virtual_uid_maps']}",
            "virtual_gid_maps = static:5000": f"virtual_gid_maps = {owner['virtual_gid_maps']}",
        })  # fmt: skip
        lines = machine.path("/etc/postfix/main.cf").read_text().splitlines()[1:]
        names = [re.split(r"\s*=\s*", line, maxsplit=1) for line in lines]
        with Postfix(place / "postfix", settings=dict(names)) as postfix, machine:
            machine.play("Commands")
            theirs, ours = (_answers(each, stranger) for each in (postfix.port, port))
            assert ours == theirs
            assert ours["a stranger to ada"] == 2 and ours["a stranger to elsewhere"] == 5 and ours["large"] == 5
            for folder in (base, place / "machine/mail/example.org"):
                assert len(maildir.wait(folder / "ada", 4)) == 4  # ada, ada+lists, info, sales
                assert len(maildir.wait(folder / "bob", 1)) == 1
            assert len(smart_host.wait(2)) == 2
            need.program("swaks")
            send, trace = PAGE.commands("How to see that it works")
            machine.run(send)
            machine.until(trace, "delivered")


def _answers(port: int, stranger: str) -> dict[str, int]:
    """The first digit of each answer."""
    found = {}
    tries = [("a stranger to ada", "ada@example.org"), ("an extension", "ada+lists@example.org"),
             ("an alias", "info@example.org"), ("an alias of two", "sales@example.org"),
             ("nobody", "nobody@example.org"), ("a stranger to elsewhere", "x@elsewhere.test"),
             ("our network to elsewhere", "x@elsewhere.test")]  # fmt: skip
    for what, to in tries:
        source = (stranger, 0) if "our network" not in what else ("127.0.0.1", 0)
        with smtplib.SMTP("127.0.0.1", port, timeout=30, source_address=source) as client:
            client.ehlo("client.example")
            client.mail("carol@example.net")
            code, _ = client.rcpt(to)
            if code == 250:
                code, _ = client.data(f"Subject: {what}\r\n\r\nhello\r\n")
            found[what] = code // 100
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo("client.example")
        found["large"] = client.mail("carol@example.net", ["SIZE=20971521"])[0] // 100
        found["VRFY"] = client.verify("ada")[0] // 100
    return found


def test_the_table_has_thirty_names_that_postfix_has() -> None:
    table = PAGE.text.partition("## The 30 settings")[2].partition("\n## ")[0]
    names = [name for name in re.findall(r"^\| (\w+) \|", table, re.MULTILINE) if name != "Postfix"]
    assert len(names) == len(set(names)) == 30
    known = subprocess.run([need.program("postconf"), "-d"], capture_output=True, text=True, check=True).stdout
    assert set(names) - set(re.findall(r"^(\w+) =", known, re.MULTILINE)) == set()


def test_the_commands_of_the_table_are_there(place: Path) -> None:
    machine = Machine(PAGE, place / "commands", {})
    table = PAGE.text.partition("## Commands")[2].partition("\n## ")[0]
    commands = {re.split(r" (?:-|[A-Z@])", each)[0] for each in re.findall(r"`(postroad [^`]+)`", table)}
    assert len(commands) >= 10
    for command in sorted(commands):
        machine.run(f"{command} --help")
