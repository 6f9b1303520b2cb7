"""LMTP clients of others towards our listener: Dovecot's LMTP proxy, Postfix's client, Python's."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import Program, listens, tail

_PROXY = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
auth_username_format = %Lu
lmtp_proxy = yes
passdb {{
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port={to} proxy_timeout=20
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={directory}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class DovecotProxy:
    """Dovecot with no mailboxes: what comes by LMTP goes by LMTP to 127.0.0.1:`to`."""

    def __init__(self, directory: Path, to: int) -> None:
        need.root()
        need.program("lmtp", "/usr/lib/dovecot/lmtp")
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        self.port = ports.port()
        self._log = directory / "dovecot.log"
        config = directory / "dovecot.conf"
        config.write_text(_PROXY.format(directory=directory, port=self.port, to=to))
        self._program = Program([need.program("dovecot"), "-F", "-c", str(config)], directory / "dovecot.out")

    def log(self) -> str:
        return tail(self._log) + self._program.log()

    def __enter__(self) -> DovecotProxy:
        self._program.start()
        self._program.ready(lambda: listens("127.0.0.1", self.port), "dovecot listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()


@dataclass(frozen=True)
class House:
    node: Node
    dovecot: DovecotProxy
    postfix: Postfix
    lmtp_port: int


@pytest.fixture(scope="module")
def house(place: Path, authority: Authority) -> Iterator[House]:
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    lmtp_port = ports.port()
    networks = ["127.0.0.0/8"]
    node = Node(place / "node", {
        "listener": [mx_listener(
            lmtp_port, name="lmtp", protocol="lmtp", tls="starttls", xclient_networks=networks,
            xforward_networks=networks,
        )],
        "tls": {"certificate": str(chain), "key": str(key)},
        "domain": [local_domain("example.test", ["ann", "bob", "grün"])],
        "log": {"format": "json"},
    })
    postfix = Postfix(place / "postfix", settings={
        "transport_maps": f"inline:{{ {{ example.test = lmtp:inet:[127.0.0.1]:{lmtp_port} }} }}",
        "lmtp_tls_security_level": "encrypt",
        "lmtp_send_xforward_command": "yes",
    })
    dovecot = DovecotProxy(place / "dovecot", lmtp_port)
    with node, dovecot, postfix:
        yield House(node, dovecot, postfix, lmtp_port)


def _box(house: House, name: str) -> Path:
    return house.node.directory / "mail" / "example.test" / name


def _lmtp(port: int, *said: bytes) -> list[bytes]:
    """The code of one reply behind each of these, LHLO before them."""
    with socket.create_connection(("127.0.0.1", port), 20) as stream, stream.makefile("rwb") as lines:
        lines.readline()
        lines.write(b"LHLO client.test\r\n")
        lines.flush()
        while lines.readline()[3:4] == b"-":
            pass
        codes = []
        for octets in said:
            lines.write(octets)
            lines.flush()
            codes.append(lines.readline()[:3])
        return codes


def test_dovecots_proxy_has_a_reply_for_each_recipient(house: House) -> None:
    codes = _lmtp(
        house.dovecot.port,
        b"MAIL FROM:<eve@elsewhere.test>\r\n", b"RCPT TO:<ann@example.test>\r\n", b"RCPT TO:<no@example.test>\r\n",
        b"RCPT TO:<bob@example.test>\r\n", b"DATA\r\n",
        b"Subject: by dovecot\r\n\r\nhello\r\n...dots\r\n.\r\n", b"", b"QUIT\r\n",
    )  # fmt: skip
    assert codes == [b"250", b"250", b"550", b"250", b"354", b"250", b"250", b"221"]
    for name in ("ann", "bob"):
        text = maildir.wait(_box(house, name), of="Subject: by dovecot")[0]
        assert b" with LMTP" in text and text.endswith(b"hello\n..dots\n")


def test_postfix_over_lmtp_and_tls_with_dsn_and_utf8(house: House) -> None:
    with smtplib.SMTP("127.0.0.1", house.postfix.port, timeout=20) as client:
        client.ehlo("client.test")
        client.sendmail(
            "eve@elsewhere.test", ["ann@example.test", "grün@example.test"],
            "Subject: by postfix grün\r\n\r\nhello\r\n".encode(), ["SMTPUTF8", "ENVID=Q1", "RET=HDRS"],
            ["NOTIFY=FAILURE"],
        )
    for name in ("ann", "grün"):
        text = maildir.wait(_box(house, name), of="Subject: by postfix")[0]
        assert b" with UTF8LMTPS" in text, text
    house.node.wait_log('"envid":"Q1"')


def test_bdat_with_a_reply_for_each_recipient(house: House) -> None:
    """Over a real socket: two chunks in one group with all else."""
    group = (
        b"MAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<no@example.test>\r\nRCPT TO:<bob@example.test>\r\n"
        b"BDAT 21\r\nSubject: chunked\r\n\r\nxBDAT 6 LAST\r\nhell\r\nQUIT\r\n"
    )
    codes = _lmtp(house.lmtp_port, group, *[b""] * 7)
    assert codes == [b"250", b"250", b"550", b"250", b"250", b"250", b"250", b"221"]
    for name in ("ann", "bob"):
        assert maildir.wait(_box(house, name), of="Subject: chunked")[0].endswith(b"\nxhell\n")
