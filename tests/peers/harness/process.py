"""Start a program, wait until it is ready, end it: by its id, and only what was started here."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.peers.harness import need

PATIENCE_S: Final = 40.0
"""How long a test waits for something that usually takes milliseconds. Only a test that fails takes so long."""


class NotReady(AssertionError):
    """A program did not come up, or something that was waited for did not happen."""


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder with a short path (107 octets for a Unix socket) that servers may enter after changing their user."""
    path = Path(tempfile.mkdtemp(prefix=f"pr-{name}-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def until(true: Callable[[], object], what: str, *, within_s: float = PATIENCE_S, pause_s: float = 0.01) -> object:
    """Waits until `true()` is true and returns what it gave; raises NotReady, naming `what`, after `within_s`. It is
    asked once more when the time is over: this process itself may have stood still meanwhile."""
    end = time.monotonic() + within_s
    while True:
        is_last = time.monotonic() > end
        value = true()
        if value:
            return value
        if is_last:
            raise NotReady(f"not within {within_s:g} s: {what}")
        time.sleep(pause_s)


def replace(path: Path, text: str | bytes) -> None:
    """Other content for a file that a running program looks at: at no moment is it empty or half."""
    part = path.with_name(f"{path.name}.new")
    part.write_bytes(text.encode() if isinstance(text, str) else text)
    if path.exists():
        state = path.stat()
        part.chmod(state.st_mode & 0o7777)
        with contextlib.suppress(PermissionError):
            os.chown(part, state.st_uid, state.st_gid)
    part.replace(path)


def listens(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def accepts(path: Path) -> bool:
    """Whether something accepts connections on the Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def own_to(path: Path, user: str) -> None:
    """Gives the path to a user whom a peer's package makes; without this user the test cannot run."""
    need.root()
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        need.missing(f"there is no user {user} (make peers makes it)")
        raise AssertionError("unreachable") from None
    os.chown(path, entry.pw_uid, entry.pw_gid)


class Program:
    """One program in the foreground, in a session of its own, its output in a file."""

    def __init__(
        self, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.log_path = log
        self._environment = None if environment is None else {**os.environ, **environment}
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.command[0]} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        # Where pytest is killed, what it started ends with it (util-linux; the same process id: it only executes).
        bound = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                [*bound, *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self._environment, cwd=self._directory, start_new_session=True,
            )

    def ready(self, true: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
        """Waits until `true()`; a program that ended meanwhile raises at once, with its log."""
        try:
            until(lambda: not self.running or true(), what, within_s=within_s)
        except NotReady as error:
            raise NotReady(f"{error}\n{self.log()}") from None
        if not self.running:
            raise NotReady(f"{self.command[0]} ended with {self.exit_code} before {what}\n{self.log()}")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise NotReady(f"{self.command[0]} did not end within {within_s:g} s\n{self.log()}") from None

    def stop(self, within_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL to its whole session where that is not heard."""
        if self._process is None:
            return
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log(self, lines_max: int = 60) -> str:
        """The last lines of its output."""
        return tail(self.log_path, lines_max)


def tail(path: Path, lines_max: int = 60) -> str:
    if not path.exists():
        return f"({path} does not exist)"
    return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines_max:])
