"""The inspector of docs/inspectors.md, taken from the page, in a running node: small mail and mail in a file."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postroad import Node, local_domain, relay_listener
from tests.peers.harness.process import folder, until

pytestmark = pytest.mark.peer
PAGE = Path(__file__).parents[2] / "docs" / "inspectors.md"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    with folder("inspectors") as home:
        (home / "stamp.py").write_text(code)
        listener = {**relay_listener(ports.port()), "inspectors": [f"{home}/stamp.py:Stamp"]}
        with Node(home / "n", {"domain": [local_domain("example.test")], "listener": [listener]}) as made:
            yield made


def send(node: Node, subject: str, body: str, name: str) -> str:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        client.ehlo("client.test")
        client.mail("b@c.test")
        client.rcpt(f"{name}@example.test")
        code, text = client.data(f"Subject: {subject}\r\nX-Secret: 1\r\nTo: you\r\n\r\n{body}\r\n")
    return f"{code} {text.decode()}"


@pytest.mark.parametrize(("name", "count"), [("small", 1), ("large", 60_000)])
def test_a_message_is_checked_and_changed(node: Node, name: str, count: int) -> None:
    body = "\r\n".join(["0123456789" * 5] * count)
    said = send(node, name, body, name)
    assert said.startswith("250")
    (octets,) = maildir.wait(node.maildir(f"{name}@example.test"))
    head, _, found = octets.decode().partition("\n\n")
    assert found == body.replace("\r\n", "\n") + "\n"
    assert head.index("X-Checked: ") < head.index("Received: ") < head.index("Subject: ") < head.index("X-Last: yes")
    assert f"\nSubject: [checked] {name}\n" in head and "X-Secret" not in head
    trace = node.command("trace", said.rpartition(" ")[2])
    assert re.search(r"checked +stamp: passed.*octets", trace)
    assert re.search(r"rewritten +added X-Checked; set Subject; removed X-Secret; added X-Last", trace)


def test_what_is_refused_is_not_delivered(node: Node) -> None:
    assert send(node, "bad", "the forbidden word", "refused").startswith("550 5.7.1 We do not want this")
    until(lambda: "We do not want this" in node.log(), "the refusal is in the log")


def test_an_inspector_that_cannot_be_loaded_is_told_by_reload_and_the_old_one_stays(node: Node) -> None:
    before = node.config["listener"]
    node.config["listener"] = [{**before[0], "inspectors": ["nowhere:Nothing"]}]
    node.write()
    assert "nowhere" in node.command("reload", code=78)
    node.config["listener"] = before
    node.write()
    assert send(node, "still", "body", "still").startswith("250")
