"""A private Dovecot: LMTP on TCP and on a Unix socket, IMAP to read what came, its auth socket, a submission proxy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.harness import imap, need, ports
from tests.peers.harness.process import PATIENCE_S, NotReady, Program, accepts, listens, own_to, tail

_CONFIG = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/dovecot.log
info_log_path = {directory}/dovecot.log
protocols = imap lmtp{submission}
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
auth_username_format = %Lu
first_valid_uid = 1
mail_location = maildir:{directory}/mail/%d/%n
mail_plugins = quota
lmtp_rcpt_check_quota = no
lmtp_save_to_detail_mailbox = no
recipient_delimiter = +
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = passwd-file
  args = {directory}/users
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0666
  }}
}}
{further}
plugin {{
  quota = maildir:User quota
}}
"""

_SUBMISSION = """\
service submission-login {{
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class Dovecot:
    """One instance with these `users` (mailboxes), all with the password `password`.

    `lmtp_port` and `imap_port` on 127.0.0.1, `lmtp_path` the Unix socket, `auth_path` that of authentication. `full`:
    users whose quota is used up. `relay`: settings of the submission proxy (``host`` and so on), which then listens on
    `submission_port`. `added`: further configuration, which adds to the one above or changes it.
    """

    password = "secret"

    def __init__(
        self, directory: Path, *, users: Sequence[str], full: Sequence[str] = (),
        relay: Mapping[str, str] | None = None, mechanisms: str = "plain login scram-sha-1 scram-sha-256",
        added: str = "",
    ) -> None:
        need.root()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.lmtp_port = ports.port()
        self.imap_port = ports.port()
        self.lmtp_path = directory / "lmtp"
        self.auth_path = directory / "auth"
        self.config_path = directory / "dovecot.conf"
        self.submission_port = ports.port() if relay is not None else 0
        further = _SUBMISSION.format(port=self.submission_port) if relay is not None else ""
        further += "".join(f"submission_relay_{key} = {value}\n" for key, value in (relay or {}).items())
        further += added
        (directory / "mail").mkdir()
        own_to(directory / "mail", "mail")
        (directory / "users").write_text("".join(
            f"{user}:{{PLAIN}}{self.password}:mail:mail::{directory}/mail/home::"
            f"{'userdb_quota_rule=*:bytes=1' if user in full else ''}\n"
            for user in (*users, *full)
        ))
        self.config_path.write_text(_CONFIG.format(
            directory=directory, mechanisms=mechanisms, lmtp_port=self.lmtp_port, imap_port=self.imap_port,
            further=further, submission=" submission" if relay is not None else "",
        ))
        self._program = Program([need.program("dovecot"), "-F", "-c", str(self.config_path)], directory / "dovecot.out")
        need.program("lmtp", "/usr/lib/dovecot/lmtp")
        need.program("imap", "/usr/lib/dovecot/imap")
        if relay is not None:
            need.program("submission", "/usr/lib/dovecot/submission")

    def start(self) -> None:
        self._program.start()
        self._program.ready(
            lambda: listens("127.0.0.1", self.lmtp_port) and listens("127.0.0.1", self.imap_port)
            and accepts(self.lmtp_path) and accepts(self.auth_path)
            and (not self.submission_port or listens("127.0.0.1", self.submission_port)),
            "dovecot listens",
        )

    def stop(self) -> None:
        self._program.stop()

    def messages(self, user: str) -> list[bytes]:
        """All messages of the user's INBOX, read by IMAP."""
        with imap.session(self.imap_port, user, self.password) as connection:
            return imap.messages(connection, "INBOX")

    def wait(self, user: str, count: int = 1, within_s: float = PATIENCE_S, of: str = "") -> list[bytes]:
        """Waits until the user has `count` messages that contain `of`, and returns these."""
        end = time.monotonic() + within_s
        while True:
            found = [message for message in self.messages(user) if of.encode() in message]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise NotReady(f"{user} has {len(found)} of {count} messages with {of!r}\n{self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return tail(self.directory / "dovecot.log") + self._program.log()

    def __enter__(self) -> Dovecot:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
