"""A private Exim: the binary of Debian's package, unpacked and never installed, with a configuration of its own.

The binary is copied into the instance's folder and names itself with `exim_path`, so that nothing in /etc or /usr is
touched. It needs the user Debian-exim, whose name is compiled in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens, own_to, tail

CACHE = need.ROOT / "var" / "peers" / "exim"
_USER = "Debian-exim"

_CONFIG = """\
primary_hostname = {hostname}
exim_path = {directory}/exim4
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
exim_user = {user}
exim_group = {user}
deliver_drop_privilege = true
never_users =
keep_environment =
local_interfaces = <; [127.0.0.1]:{port}
daemon_smtp_ports = {port}
host_lookup =
rfc1413_hosts =
domainlist local_domains = {domain}
localpartlist mailboxes = {mailboxes}
acl_smtp_rcpt = acl_rcpt
acl_smtp_mail = accept
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
allow_utf8_domains = true
message_size_limit = {size_max}
{tls}
{main}

begin acl
acl_rcpt:
  deny domains = +local_domains
       !verify = recipient
       message = no such mailbox here
  accept

begin routers
local:
  driver = accept
  domains = +local_domains
  local_parts = +mailboxes
  transport = maildir
relay:
  driver = manualroute
  domains = ! +local_domains
  route_list = * "127.0.0.1::{next_port}"
  self = send
  transport = remote

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {directory}/mail/$local_part_data
  create_directory
  return_path_add
  user = {user}
  group = {user}
remote:
  driver = smtp
{remote}

begin retry
* * F,1h,1s
"""


class Exim:
    """One instance on 127.0.0.1:`port`: Maildirs for `mailboxes` of `domain`, all else to 127.0.0.1:`next_port`.

    `main` are further main options, `remote` further options of the transport to the next hop; `size_max`: the largest
    message that it takes.
    """

    def __init__(
        self, directory: Path, *, hostname: str = "exim.test", domain: str = "exim.example",
        mailboxes: Sequence[str] = ("alice", "bob"), next_port: int = 25, certificate: tuple[Path, Path] | None = None,
        main: Sequence[str] = (), remote: Sequence[str] = (), port: int = 0, size_max: str = "100M",
    ) -> None:
        need.root()
        binary = need.program("exim4", str(CACHE / "usr" / "sbin" / "exim4"))
        self.port = port or ports.port()
        self.domain = domain
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        for name in ("spool", "log", "mail"):
            (directory / name).mkdir()
            own_to(directory / name, _USER)
        shutil.copy(binary, directory / "exim4")
        (directory / "exim4").chmod(0o755)
        tls = "tls_advertise_hosts ="
        if certificate is not None:
            key = directory / "key.pem"
            shutil.copy(certificate[1], key)
            own_to(key, _USER)
            tls = f"tls_advertise_hosts = *\ntls_certificate = {certificate[0]}\ntls_privatekey = {key}"
        config = directory / "exim.conf"
        config.write_text(_CONFIG.format(
            hostname=hostname, directory=directory, user=_USER, port=self.port, domain=domain, next_port=next_port,
            mailboxes=" : ".join(mailboxes), tls=tls, size_max=size_max, main="\n".join(main),
            remote="\n".join(f"  {line}" for line in remote),
        ))
        self._command = [str(directory / "exim4"), "-C", str(config)]
        self._program = Program([*self._command, "-bdf", "-q1s"], directory / "exim.out")

    def mailbox(self, local_part: str) -> Path:
        """The Maildir of one mailbox."""
        return self.directory / "mail" / local_part

    def start(self) -> None:
        self._program.start()
        self._program.ready(lambda: listens("127.0.0.1", self.port), "exim listens")

    def stop(self) -> None:
        self._program.stop()

    def queue_count(self) -> int:
        return int(subprocess.run([*self._command, "-bpc"], capture_output=True, text=True, check=True).stdout)

    def log(self) -> str:
        """Main log, panic log and output."""
        parts = [self._program.log()]
        folder = self.directory / "log"
        parts += [tail(folder / name) for name in sorted(os.listdir(folder))]
        return "\n".join(parts)

    def __enter__(self) -> Exim:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
