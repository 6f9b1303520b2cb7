"""Private servers of PostgreSQL and MariaDB on loopback ports, each with an empty database `mail`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens, own_to


class Postgres:
    """PostgreSQL, for the user `postroad` with the password `secret`. `url` has no password. `options`: further
    ones of the server."""

    def __init__(self, directory: Path, *options: str) -> None:
        need.root()
        directory.mkdir(parents=True)
        own_to(directory, "postgres")
        self._directory = directory
        self._as = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]
        (directory / "password").write_text("secret\n")
        own_to(directory / "password", "postgres")
        self._run(_postgres("initdb"), "-D", str(directory / "data"), "-U", "postroad", "-A", "scram-sha-256",
                  "--pwfile", str(directory / "password"), "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip
        self.port = ports.port()
        self.url = f"postgresql://postroad@127.0.0.1:{self.port}/postgres"
        self._program = Program(
            [*self._as, _postgres("postgres"), "-D", str(directory / "data"), "-p", str(self.port), "-h", "127.0.0.1",
             "-k", str(directory), "-F", *options],
            directory / "log",
        )  # fmt: skip

    def _run(self, *command: str) -> None:
        subprocess.run([*self._as, *command], check=True, capture_output=True, timeout=60)

    def sql(self, text: str) -> str:
        environment = {**os.environ, "PGPASSWORD": "secret"}
        return subprocess.run(
            [need.program("psql"), self.url, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text], env=environment, check=True,
            capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip

    def start(self) -> None:
        self._program.start()
        self._program.ready(lambda: listens("127.0.0.1", self.port) and self._answers(), "PostgreSQL answers")

    def _answers(self) -> bool:
        try:
            return self.sql("SELECT 1") == "1\n"
        except subprocess.CalledProcessError:
            return False

    def stop(self) -> None:
        if self._program.running:
            self._program.signal(signal.SIGINT)  # does not wait for clients
            self._program.wait()
        self._program.stop()

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _postgres(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else need.program(name)


class Mariadb:
    """MariaDB, for the user `postroad` with the password `secret`. `url` has no password. `options`: further
    ones of the server."""

    def __init__(self, directory: Path, *options: str) -> None:
        need.root()
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        self._directory = directory
        data = directory / "data"
        data.mkdir()
        own_to(data, "mysql")
        subprocess.run(
            [need.program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--user=mysql",
             f"--tmpdir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        self.port = ports.port()
        self.url = f"mysql://postroad@127.0.0.1:{self.port}/mail"
        self.socket = data / "socket"
        self._program = Program(
            [need.program("mariadbd"), "--no-defaults", f"--datadir={data}", "--user=mysql", f"--tmpdir={data}",
             f"--port={self.port}",
             "--bind-address=127.0.0.1", f"--socket={self.socket}", f"--pid-file={data}/pid",
             "--innodb-flush-log-at-trx-commit=0", *options],
            directory / "log",
        )  # fmt: skip
        self._is_made = False

    def sql(self, text: str) -> str:
        program = shutil.which("mariadb") or need.program("mysql")
        return subprocess.run(
            [program, "--no-defaults", f"--socket={self.socket}", "-u", "root", "-N", "-e", text], check=True,
            capture_output=True, text=True, timeout=30,
        ).stdout  # fmt: skip

    def start(self) -> None:
        self._program.start()
        self._program.ready(self._answers, "MariaDB answers", within_s=60)
        if not self._is_made:
            self._is_made = True
            self.sql("CREATE DATABASE mail CHARACTER SET utf8mb4;"
                     "CREATE USER postroad@'127.0.0.1' IDENTIFIED BY 'secret';"
                     "GRANT SELECT ON mail.* TO postroad@'127.0.0.1'")  # fmt: skip

    def _answers(self) -> bool:
        try:
            return self.sql("SELECT 1") == "1\n"
        except subprocess.CalledProcessError:
            return False

    def stop(self) -> None:
        self._program.stop(within_s=20)

    def __enter__(self) -> Mariadb:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
