"""docs/recipes/mx-before-dovecot.md, with a real Dovecot that has the page's sockets."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.recipe import Machine, Page


def test_the_page_is_true(place: Path, authority: Authority) -> None:
    need.program("swaks")
    need.program("doveadm")
    page = Page("mx-before-dovecot")
    mx = ports.port()
    submission = ports.port()
    machine = Machine(page, place / "machine", {
        "/var/lib/postroad": str(place / "machine/state"),
        "/run/dovecot/": str(place / "dovecot/run") + "/",
        'user = "postroad"\n': "",
        "group = postroad\n": "",
        "protocols = imap lmtp\n": "",  # the harness has them, with ports of its own
        "--server mail.example.org": "--server 127.0.0.1",
        "port = 25\n": f"port = {mx}\n", "--port 25 ": f"--port {mx} ",
        "port = 587\n": f"port = {submission}\n", "--port 587": f"--port {submission}",
        "port = 465\n": f"port = {ports.port()}\n",
        "the password": Dovecot.password,
        "doveadm mailbox": f"doveadm -c {place / 'dovecot/dovecot.conf'} mailbox",
    })  # fmt: skip
    chain, key = authority.certificate("mail.example.org")
    machine.path("/etc/postroad/tls").mkdir()
    shutil.copy(chain, machine.path("/etc/postroad/tls/mail.pem"))
    shutil.copy(key, machine.path("/etc/postroad/tls/mail.key"))
    machine.path("/etc/postroad/tls/mail.key").chmod(0o600)
    added = machine.path("/etc/dovecot/local.conf").read_text()
    from_outside, trace, status, from_user = page.commands("How to see that it works")
    with machine, Dovecot(place / "dovecot", users=["ada@example.org", "bob@example.org"], added=added) as dovecot:
        machine.play("Commands")
        machine.run(from_outside)
        told = machine.until(trace, "delivered")
        assert "250 2.0.0 <bob@example.org>" in told and "Saved" in told
        assert "messages=1" in machine.run(status)
        assert "535" in machine.run(from_user.replace("the password", "not it"), code=None)
        machine.run(from_user)
        assert dovecot.wait("bob@example.org", 2)

        # What can go wrong: an unknown mailbox, and a new one.
        to_new = from_outside.replace("bob@", "carol@")
        assert "550 5.1.1" in machine.run(to_new, code=None)
        with machine.path("/etc/postroad/recipients").open("a") as names:
            names.write("carol\n")
        machine.until(to_new, "250 2.0.0", within_s=30)

        # Dovecot is down: mail waits, a log-in hears 454.
        dovecot.stop()
        machine.run(from_outside)
        machine.until(trace, "deferred")
        assert "454 4.7.0" in machine.run(from_user, code=None)
        dovecot.start()
        machine.run("postroad queue retry --to bob@example.org")
        assert dovecot.wait("bob@example.org", 3)
