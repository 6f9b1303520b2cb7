"""docs/recipes/null-client.md: PHP and sendmail on a machine that only sends."""

from __future__ import annotations

from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote
from tests.peers.harness.sendmail import Sendmail


def test_the_page_is_true(place: Path) -> None:
    need.program("php")
    sendmail = Sendmail(place / "sm")
    with Remote(address=ports.address(), port=ports.port()) as hub:
        machine = Machine(Page("null-client"), place / "machine", {
            "/var/lib/postroad": str(place / "machine/state"),
            "/var/spool/postroad": str(sendmail.folder),
            'user = "postroad"\n': "",
            'host = "hub.example.org"\n': f'host = "{hub.address}"\nport = {hub.port}\ntls = "never"\n',
            "php -r": f"php -d sendmail_path='{sendmail.path} -t -i -f www-data' -r",
            "/usr/sbin/sendmail root": f"{sendmail.path} root",
        })
        by_php, trace, to_root, trace_of_root = machine.page.commands("How to see that it works")
        with machine:
            machine.play("Commands")
            machine.run(by_php)
            told = machine.until(trace, "relayed")
            assert "no-reply@example.org" in told
            machine.run(to_root)
            machine.until(trace_of_root, "relayed")
            assert {each.mail.split()[0] for each in hub.wait(2)} == {
                "FROM:<no-reply@example.org>", "FROM:<ops@example.org>"
            }
            assert [each.rcpt[0].split()[0] for each in hub.transactions] == [
                "TO:<carol@example.net>", "TO:<ops@example.org>"
            ]
            machine.run("systemctl stop postroad")
            machine.run(by_php)
            machine.run("systemctl start postroad")
            hub.wait(3)
