"""The program `sendmail` of Postroad, installed into a folder of its own, and programs that call it.

Programs that know it only as /usr/sbin/sendmail run in a mount namespace of their own, where it stands there.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from postroad.sendmail.install import install
from tests.peers.harness import need

Ended = subprocess.CompletedProcess[bytes]
NOBODY = 65_534


class Sendmail:
    """Installed under `home`/usr for a node whose shared folder is `home`/spool."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "spool"
        self.path = home / "usr/sbin/sendmail"
        self.mailq = home / "usr/bin/mailq"
        self.newaliases = home / "usr/bin/newaliases"
        assert not install(home / "usr", str(self.folder), system_python())

    def __call__(
        self, *arguments: str, message: bytes = b"", uid: int | None = None, program: Path | None = None,
        umask: int = 0o077,
    ) -> Ended:
        """Run it. `uid`: as this user (only root can), else as who runs the test."""
        rights: dict[str, object] = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        return subprocess.run(
            [str(program or self.path), *arguments], input=message, capture_output=True, check=False, timeout=60,
            umask=umask, **rights,  # type: ignore[call-overload]
        )

    def in_place(self, mounts: Mapping[Path, str], command: Sequence[str], *, within_s: float = 60.0) -> Ended:
        """Run a command where our program is /usr/sbin/sendmail, and each of the `mounts` stands at its path."""
        need.root()
        places = {self.home / "usr/lib/postroad/sendmail": "/usr/sbin/sendmail", **mounts}
        mounting = [f"mount --bind {shlex.quote(str(one))} {shlex.quote(at)}" for one, at in places.items()]
        script = " && ".join([*mounting, "exec " + shlex.join(command)])
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=within_s,
        )


def system_python() -> str:
    """One that every user may run."""
    return need.find("python3", "/usr/bin/python3") or sys.executable
