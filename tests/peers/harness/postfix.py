"""A private Postfix from Debian's package: its own configuration, queue, data folder, log and port.

It must be started by root (Postfix changes its user by itself). The package's own instance is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import NotReady, listens, own_to, tail, until

_DAEMONS = "/usr/lib/postfix/sbin"

# name, type, private, unprivileged, chroot, wake-up, process limit, command: none in a chroot
_SERVICES = """\
pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
smtp      unix  -  -  n  -     -  smtp
relay     unix  -  -  n  -     -  smtp
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
local     unix  -  n  n  -     -  local
virtual   unix  -  n  n  -     -  virtual
lmtp      unix  -  -  n  -     -  lmtp
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
"""


class Postfix:
    """One instance, listening on 127.0.0.1:`port`.

    `settings` are lines of main.cf that win over the ones below; `services` are further lines of master.cf.
    """

    def __init__(
        self, directory: Path, *, hostname: str = "postfix.test", port: int = 0, address: str = "127.0.0.1",
        settings: Mapping[str, str] | None = None, services: Sequence[str] = (),
    ) -> None:
        need.root()
        self.address = address
        self.port = port or ports.port()
        self.hostname = hostname
        self.directory = directory
        self.queue_directory = directory / "queue"
        self.log_path = directory / "log" / "mail.log"
        self._postfix = need.program("postfix")
        self._write(settings or {}, services)

    def _write(self, settings: Mapping[str, str], services: Sequence[str]) -> None:
        config = self.directory / "etc"
        data = self.directory / "data"
        for path in (self.directory, config, self.queue_directory, data, self.log_path.parent):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        own_to(data, "postfix")
        values = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue_directory),
            "data_directory": str(data),
            "command_directory": "/usr/sbin",
            "daemon_directory": _DAEMONS,
            "maillog_file": str(self.log_path),
            "maillog_file_prefixes": str(self.directory),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": self.hostname,
            "mydomain": self.hostname,
            "myorigin": self.hostname,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_protocols": "ipv4",
            "inet_interfaces": "127.0.0.1",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtpd_tls_security_level": "none",
            "smtp_tls_security_level": "none",
            "disable_dns_lookups": "yes",
            "smtp_host_lookup": "native",
            "smtpd_peername_lookup": "no",
            "smtputf8_enable": "yes",
            "biff": "no",
            **settings,
        }
        (config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
        listener = f"{self.address}:{self.port} inet n - n - - smtpd\n"
        (config / "master.cf").write_text(listener + _SERVICES + "".join(f"{line}\n" for line in services))

    def start(self) -> None:
        started = subprocess.run(
            [self._postfix, "-c", str(self.directory / "etc"), "start"], capture_output=True, text=True, check=False,
            timeout=60,
        )
        if started.returncode != 0:
            raise NotReady(f"postfix did not start:\n{started.stdout}{started.stderr}\n{self.log()}")
        until(lambda: listens(self.address, self.port), f"postfix on port {self.port}\n{self.log()}")

    @property
    def pid(self) -> int:
        """The id of its master process."""
        return int((self.queue_directory / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        try:
            pid = self.pid
        except (OSError, ValueError):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(NotReady):
            until(lambda: not _alive(pid), "postfix has ended", within_s=10)

    def restart(self) -> None:
        self.stop()
        self.start()

    def flush(self) -> None:
        """Tries all that is deferred now."""
        self._run("postqueue", "-f")

    def queue(self) -> list[dict[str, object]]:
        """What it holds, one entry per message."""
        return [json.loads(line) for line in self._run("postqueue", "-j").splitlines()]

    def log(self, lines_max: int = 60) -> str:
        return tail(self.log_path, lines_max)

    def _run(self, name: str, *arguments: str) -> str:
        return subprocess.run(
            [need.program(name), "-c", str(self.directory / "etc"), *arguments], capture_output=True, text=True,
            check=True, timeout=30,
        ).stdout

    def __enter__(self) -> Postfix:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def maildir_settings(base: Path, domain: str, local_parts: Sequence[str]) -> dict[str, str]:
    """Settings of a final recipient: Maildirs `base`/<local-part>/ for these mailboxes of `domain`, others unknown."""
    base.mkdir(parents=True, exist_ok=True)
    own_to(base, "postfix")
    entries = " ".join(f"{{ {local_part}@{domain} = {local_part}/ }}" for local_part in local_parts)
    return {
        "virtual_mailbox_domains": domain,
        "virtual_mailbox_base": str(base),
        "virtual_mailbox_maps": f"inline:{{ {entries} }}",
        "virtual_uid_maps": f"static:{_owner(base)}",
        "virtual_gid_maps": f"static:{base.stat().st_gid}",
    }


def _owner(base: Path) -> int:
    return base.stat().st_uid
