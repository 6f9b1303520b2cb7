"""Mail out of one node into files and into another node, which delivers it: while the first runs, and when it is down.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.process import folder, until
from tests.peers.harness.remote import Dialog, Remote


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("spool") as path:
        yield path


@pytest.mark.parametrize("running", [True, False])
def test_exported_imported_delivered(home: Path, running: bool) -> None:
    def later(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with Remote(later) as closed, Remote() as open_:
        first = Node(home / "first", {"workers": 2, "next_hop": [next_hop("*", closed.port)],
                                      "queue": {"retry_first_s": 3600}})  # fmt: skip
        bodies = {f"m{n}": b"Subject: m%d\r\n\r\n" % n + b"x" * 70 + b"\r\n" * (1 if n else 800_000) for n in range(4)}
        with first:
            for name, body in bodies.items():
                with smtplib.SMTP("127.0.0.1", first.port, timeout=30) as client:
                    client.sendmail("s@src.test", [f"{name}@else.test", f"{name}@local.test"], body)
            until(lambda: sum(each["count"] for each in first.json("queue") if each["destination"]) == 8,
                  f"all wait\n{first.log()}", pause_s=0.2)  # fmt: skip
            first.command("queue", "hold", "m3@else.test")
            if running:
                first.command("spool", "export", str(home / "mail"), "--all")
        if not running:
            first.command("spool", "export", str(home / "mail"), "--all")
        first.command("spool", "check")
        second = Node(home / "second", {"domain": [local_domain("local.test")],
                                        "next_hop": [next_hop("else.test", open_.port)]})  # fmt: skip
        with second:
            refused = second.command("spool", "import", str(home / "mail"), code=1)
            assert "stop it first" in refused
        assert len(second.json("spool", "import", str(home / "mail"), "--dry-run")) == 4
        second.command("spool", "import", str(home / "mail"))
        second.command("queue", "retry", "--all")  # else all wait until the first node would have tried them
        with second:
            for name in bodies:
                [found] = maildir.wait(second.maildir(f"{name}@local.test"), of=name)
                assert found.replace(b"\n", b"\r\n").endswith(bodies[name]), name
            until(lambda: len(open_.transactions) == 3, f"the rest is relayed\n{second.log()}")
            names = sorted(each.content.split(b"Subject: ")[1][:2] for each in open_.transactions)
            assert names == [b"m0", b"m1", b"m2"]
            until(lambda: len(second.json("queue", "--messages")) == 1, "the others have left the queue", pause_s=0.2)
            [waits] = second.json("queue", "--messages")
            assert [each["recipient"] for each in waits["recipients"] if each["state"] == "held"] == ["m3@else.test"]
            second.command("queue", "release", "--all")
            until(lambda: len(open_.transactions) == 4, "what was held is relayed when it is released")
            until(lambda: second.json("queue") == [], "nothing is left", pause_s=0.2)
