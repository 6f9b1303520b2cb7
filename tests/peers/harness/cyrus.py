"""A private Cyrus IMAP: LMTP on TCP (STARTTLS and a password wanted) and on a Unix socket, IMAP to read what came.

Debian's packages exclude Dovecot's, so they are only unpacked and run in a root folder of their own (`unpacked`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.harness import imap, ports
from tests.peers.harness.process import PATIENCE_S, NotReady, Program, accepts, listens, own_to, tail
from tests.peers.harness.unpacked import Unpacked

_IMAPD = """\
configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus/mail
servername: cyrus.test
virtdomains: userid
defaultdomain: cyrus.test
unixhierarchysep: yes
admins: cyrus
lmtp_admins: postroad
lmtp_downcase_rcpt: yes
sieveusehomedir: false
sievedir: /var/spool/sieve
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_mech_list: PLAIN
lmtpsocket: {directory}/lmtp
tls_server_cert: {directory}/server.pem
tls_server_key: {directory}/server.pem
syslog_prefix: cyrus
"""

_CYRUS = """\
START {{
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -r"
}}
SERVICES {{
  imap cmd="imapd" listen="127.0.0.1:{imap_port}" prefork=0
  lmtp cmd="lmtpd" listen="127.0.0.1:{lmtp_port}" prefork=0
  lmtpunix cmd="lmtpd" listen="{directory}/lmtp" prefork=0
}}
EVENTS {{
}}
"""

# The folders of Cyrus, the passwords, the server; each step replaces the one before, so that the process keeps its id.
_START = """
set -e
mkdir -p /var/lib/cyrus /var/spool/cyrus/mail /var/spool/sieve /run/cyrus/proc /run/cyrus/lock /run/cyrus/socket
for user in {users}; do
  echo {password} | saslpasswd2 -p -c -f /etc/sasldb2 -u "${{user#*@}}" "${{user%@*}}"
done
chown -R cyrus:mail /var/lib/cyrus /var/spool/cyrus /var/spool/sieve /run/cyrus /etc/sasldb2
exec /usr/lib/cyrus/bin/master -M /etc/cyrus.conf -C /etc/imapd.conf
"""


class Cyrus:
    """One instance with these `users` (user@domain), all with the password `password`, as has `postroad`, who may
    deliver by `lmtp_port` on 127.0.0.1. `lmtp_path`: the Unix socket, where everybody may. `full`: users whose
    mailbox may hold 1 KB. `folders`: a folder of a user into which mail with an address extension may go.
    `certificate`: a file with certificate and key of the server."""

    password = "secret"

    def __init__(
        self, directory: Path, *, users: Sequence[str], certificate: Path, full: Sequence[str] = (),
        folders: Mapping[str, str] | None = None,
    ) -> None:
        self._root = Unpacked("cyrus", directory, ["cyrus"])
        self.directory = directory
        self.lmtp_port, self.imap_port = ports.port(), ports.port()
        self.lmtp_path = directory / "lmtp"
        self._users, self._full, self._folders = users, full, folders or {}
        shutil.copy(certificate, directory / "server.pem")
        (directory / "server.pem").chmod(0o644)
        own_to(directory, "mail")
        directory.chmod(0o777)
        words = {"directory": directory, "lmtp_port": self.lmtp_port, "imap_port": self.imap_port}
        self._root.write("/etc/imapd.conf", _IMAPD.format(**words))
        self._root.write("/etc/cyrus.conf", _CYRUS.format(**words))
        accounts = " ".join(["cyrus@cyrus.test", "postroad@cyrus.test", *users, *full])
        start = _START.format(users=accounts, password=self.password)
        self._program = Program(self._root.command("sh", "-c", start), directory / "cyrus.out")

    def start(self) -> None:
        self._program.start()
        self._program.ready(
            lambda: listens("127.0.0.1", self.lmtp_port) and listens("127.0.0.1", self.imap_port)
            and accepts(self.lmtp_path),
            "Cyrus listens",
        )
        self._make_mailboxes()

    def _make_mailboxes(self) -> None:
        with imap.session(self.imap_port, "cyrus", self.password) as connection:
            for user in (*self._users, *self._full):
                name, _, domain = user.partition("@")
                imap.done(connection.create(f"user/{name}@{domain}"))
                if folder := self._folders.get(user):
                    imap.done(connection.create(f"user/{name}/{folder}@{domain}"))
                    imap.done(connection.setacl(f"user/{name}/{folder}@{domain}", "anyone", "p"))
            for user in self._full:
                imap.done(connection.setquota(f"user/{user}", "(STORAGE 1)"))

    def stop(self) -> None:
        self._program.stop()

    def messages(self, user: str, folder: str = "INBOX") -> list[bytes]:
        """All messages of a folder of the user, read by IMAP."""
        with imap.session(self.imap_port, user, self.password) as connection:
            return imap.messages(connection, folder)

    def wait(self, user: str, of: str, folder: str = "INBOX", within_s: float = PATIENCE_S) -> bytes:
        """Waits until the folder has one message that contains `of`, and returns it."""
        end = time.monotonic() + within_s
        while True:
            found = [message for message in self.messages(user, folder) if of.encode() in message]
            if found:
                assert len(found) == 1, found
                return found[0]
            if time.monotonic() > end:
                raise NotReady(f"{user} has no message with {of!r} in {folder}\n{self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return tail(self.directory / "cyrus.out") + self._program.log()

    def __enter__(self) -> Cyrus:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
