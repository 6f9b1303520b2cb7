"""docs/recipes/backup-mx.md, with a real DNS server that has the page's records."""

from __future__ import annotations

from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote


def test_the_page_is_true(place: Path) -> None:
    need.program("swaks")
    page = Page("backup-mx")
    first, port, port_of_mx = ports.address(), ports.port(), ports.port()
    [records] = page.outputs("In the DNS")
    zones = {"example.org": f"{records}\nmail IN A {first}", "example.net": "backup IN A 127.0.0.1"}
    with Knot(place / "knot", zones) as knot:
        machine = Machine(page, place / "machine", {
            "/var/lib/postroad": str(place / "machine/state"),
            'user = "postroad"\n': "",
            "--server backup.example.net": "--server 127.0.0.1",
            "port = 25\n": f"port = {port}\n", "--port 25": f"--port {port}",
        }, added=f"""
[dns]
servers = ["127.0.0.1:{knot.port}"]
[routing]
mx_port = {port_of_mx}
[mx]
loopback = true
""")  # fmt: skip
        send, queue, trace, retry = page.commands("How to see that it works")
        with machine:
            machine.play("Commands")
            machine.run(send)
            assert "will be tried at" in machine.until(trace, "deferred")
            waiting = machine.run(queue)
            assert "no connection to mail.example.org" in waiting
            assert "550 5.1.1" in machine.run(send.replace("bob@", "nobody@"), code=None)
            with Remote(address=first, port=port_of_mx) as primary:
                machine.run(retry)
                [taken] = primary.wait()
                assert taken.rcpt == ("TO:<bob@example.org>",)
            machine.until(trace, "relayed")
