"""A mail server whose package excludes Postfix's: unpacked, and run in a root folder of its own.

The root folder is the machine's own, read only as it were: an overlay in memory holds the package's files, the test's
(`files`, which stand there as they would in /) and all that the program writes, and goes with the program. So each path
that is compiled into the program is right, and nothing outside is changed. It has users of its own, too.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.peers.harness import need

CACHE = need.ROOT / "var" / "peers"

# $1: the folder of the overlay, $2: the package's files; then the command. Each step replaces the one before, so that
# the process keeps its id.
_ENTER = """
set -e
over=$1 package=$2 files=$3; shift 3
mount -t tmpfs -o mode=755 over "$over"
mkdir "$over/upper" "$over/work" "$over/root"
cp -a "$package/." "$files/." "$over/upper/"
mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" over "$over/root"
for each in proc dev tmp; do mount --rbind "/$each" "$over/root/$each"; done
exec chroot "$over/root" "$@"
"""


class Unpacked:
    """`name`: the folder in var/peers. `users`: users that the program needs, with their homes."""

    def __init__(self, name: str, directory: Path, users: Sequence[str] = ()) -> None:
        need.root()
        self._package = CACHE / name
        if not (self._package / ".unpacked").exists():
            need.missing(f"the program {name} is not unpacked in var/peers (make peers does it)")
        self._over = directory / "over"
        self.files = directory / "files"
        self._over.mkdir(parents=True)
        (self.files / "etc").mkdir(parents=True)
        for path in (directory, self._over, self.files, self.files / "etc"):
            path.chmod(0o755)
        self._make_users(users)

    def _make_users(self, users: Sequence[str]) -> None:
        for file, line in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
            target = self.files / "etc" / file
            shutil.copy(f"/etc/{file}", target)
            with open(target, "a") as text:
                text.writelines(line.format(user, 61_000 + place) for place, user in enumerate(users))

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file of the root folder, before it is entered."""
        file = self.files / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def command(self, *command: str) -> list[str]:
        """The command line that enters a new root folder and runs `command` there."""
        return ["unshare", "--mount", "--", "sh", "-c", _ENTER, "sh", str(self._over), str(self._package),
                str(self.files), *command]  # fmt: skip

    @staticmethod
    def inside(pid: int, *command: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs a command in the root folder of a process that has entered one."""
        return subprocess.run(
            ["nsenter", "--target", str(pid), "--mount", "--root", "--", *command],
            input=text, capture_output=True, check=False, timeout=60,
        )
