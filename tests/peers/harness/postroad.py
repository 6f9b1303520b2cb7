"""A Postroad node: its configuration as a file, the real program as a process, its command line for questions.

The configuration is a mapping as TOML has it: tables are mappings, arrays of tables lists of mappings. Ports are chosen
by the test, so that a peer can be told of them before the node starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.peers.harness import ports
from tests.peers.harness.process import PATIENCE_S, NotReady, Program, accepts, listens, tail, until

Table = dict[str, Any]

# Two workers, whatever the machine has, and retries that a test can wait for. Where mail comes from is not checked: a
# test that wants it names a DNS server, too.
DEFAULTS: Final[Mapping[str, Any]] = {
    "hostname": "postroad.test", "state_dir": "state", "workers": 2, "shutdown_s": 5,
    "checks": {"exempt_networks": ["0.0.0.0/0", "::/0"]},
    "queue": {"retry_first_s": 1, "retry_jitter": 0.0, "backoff_first_s": 1, "backoff_max_s": 2},
}


class Node:
    """One node. `settings` win over `defaults`, table by table; change `config` and call `write` for a new one.

    The state is in `directory`/state, the log in `directory`/postroad.log. Without `listener` in `settings` there is
    one relay listener for loopback, on `port`.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any] | None = None, *, prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None, python: str = sys.executable,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self.directory = directory
        self.config_path = directory / "postroad.toml"
        self.log_path = directory / "postroad.log"
        self.state = directory / "state"
        self.config: Table = dict(DEFAULTS if defaults is None else defaults)
        for key, value in (settings or {}).items():
            if isinstance(value, Mapping) and isinstance(self.config.get(key), Mapping):
                self.config[key] = {**self.config[key], **value}
            else:
                self.config[key] = value
        if "listener" not in self.config:
            self.config["listener"] = [relay_listener(ports.port())]
        self._prefix = list(prefix)
        self._environment = environment
        self._python = python
        self.write()
        self.program = self._program()

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(self.config["listener"][0]["port"])

    @property
    def pid(self) -> int:
        """The supervisor's id; with a `prefix` that does not replace itself, the prefix's."""
        return self.program.pid

    def write(self) -> None:
        """Writes the configuration as it stands now."""
        self.config_path.write_text(toml(self.config))

    def start(self) -> None:
        self.program = self._program()
        self.program.start()
        self.ready()

    def ready(self, within_s: float = 60.0) -> None:
        """Waits until each listener greets."""
        self.program.ready(self._greets_everywhere, "the node greets on all listeners", within_s=within_s)

    def stop(self, within_s: float = PATIENCE_S) -> None:
        """SIGTERM, and waits until it is gone."""
        if self.program.running:
            self.program.signal(signal.SIGTERM)
            self.program.wait(within_s)
        self.program.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """kill -9 of the supervisor and all workers at once, as a power cut would end them."""
        found = [self.pid, *self.workers()]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):  # a worker that has ended by itself
                os.kill(pid, signal.SIGKILL)
        self.program.wait()
        until(lambda: not any(alive(pid) for pid in found), "all processes of the node are gone")

    def workers(self) -> list[int]:
        """The ids of the worker processes."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill_worker(self, place: int = 0) -> int:
        """kill -9 of one worker; its id."""
        pid = self.workers()[place]
        os.kill(pid, signal.SIGKILL)
        return pid

    def renew_worker(self, place: int = 0) -> None:
        """kill -9 of one worker, and waits until another one has its place and is ready."""
        gone = self.kill_worker(place)
        until(lambda: gone not in self.workers(), "the worker is gone")
        until(lambda: self.json("status")["state"] == "ready", f"a new worker is ready\n{self.log()}", pause_s=0.2)

    def reload(self) -> None:
        """Writes the configuration and sends SIGHUP."""
        self.write()
        self.program.signal(signal.SIGHUP)

    # -- command line ---------------------------------------------------------------------------------------------

    def command(self, *arguments: str, code: int | None = 0, text: str = "") -> str:
        """Runs ``postroad ARGUMENTS --config FILE``; what it printed. `code`: the right exit code, None for any."""
        ended = subprocess.run(
            [sys.executable, "-m", "postroad", *arguments, "--config", str(self.config_path)],
            input=text, capture_output=True, text=True, check=False, timeout=60,
        )
        said = f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        assert code is None or ended.returncode == code, f"{said}\n{self.log()}"
        return ended.stdout + (ended.stderr if code != 0 else "")

    def json(self, *arguments: str) -> Any:
        """The same with --json, as values."""
        return json.loads(self.command(*arguments, "--json"))

    def add_user(self, name: str, password: str, *addresses: str) -> None:
        options = [option for address in addresses for option in ("--address", address)]
        self.command("user", "add", name, *options, text=password + "\n")

    # -- what can be seen from outside ----------------------------------------------------------------------------

    def maildir(self, address: str) -> Path:
        """Where a local domain made by `local_domain` keeps the mail of a mailbox."""
        local_part, _, domain = address.rpartition("@")
        return self.directory / "mail" / domain / local_part

    def log(self, lines_max: int = 80) -> str:
        """The last lines of its log and of what it printed."""
        return tail(self.log_path, lines_max) if self.log_path.exists() else ""

    def wait_log(self, text: str, count: int = 1, within_s: float = PATIENCE_S) -> None:
        """Waits until the log holds `text` that often."""
        try:
            until(lambda: self.log_path.read_text("utf-8", "replace").count(text) >= count, f"{text!r} in the log",
                  within_s=within_s)
        except NotReady as error:
            raise NotReady(f"{error}\n{self.log()}") from None

    def log_text(self) -> str:
        """All of its log, without a line that is being written."""
        text = self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""
        return text[: text.rfind("\n") + 1]

    def logged(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """The events of this kind with these fields, from a log in JSON."""
        found: list[dict[str, Any]] = []
        for line in self.log_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("kind") == kind and all(event.get(name) == value for name, value in fields.items()):
                found.append(event)
        return found

    def wait_trace(self, name: str, *texts: str, within_s: float = PATIENCE_S) -> str:
        """Waits until `postroad trace NAME` tells all of `texts`: what came of a delivery is known to it a little later
        than to who got the mail. What it says."""
        said = ""

        def tells() -> bool:
            nonlocal said
            said = self.command("trace", name, code=None)
            return all(text in said for text in texts)

        try:
            until(tells, f"{texts} in the history of {name}", within_s=within_s, pause_s=0.2)
        except NotReady as error:
            raise NotReady(f"{error}\n{said}\n{self.log()}") from None
        return said

    def wait_empty(self, within_s: float = PATIENCE_S) -> None:
        """Waits until nothing is in its queue. A message leaves the queue a little after who gets it has it."""
        until(lambda: self.json("queue") == [], "the queue is empty", within_s=within_s, pause_s=0.2)

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _program(self) -> Program:
        return Program(
            [*self._prefix, self._python, "-m", "postroad", "serve", "--config", str(self.config_path)],
            self.log_path, environment=self._environment, directory=self.directory,
        )

    def _greets_everywhere(self) -> bool:
        return all(_greets(listener) for listener in self.config["listener"])


def relay_listener(port: int, **settings: Any) -> Table:
    """A listener that takes mail from loopback to anywhere."""
    return {"name": "relay", "address": "127.0.0.1", "port": port, "role": "relay",
            "trusted_networks": ["127.0.0.0/8"], **settings}


def mx_listener(port: int, **settings: Any) -> Table:
    """A listener that takes mail for our own domains from anyone."""
    return {"name": "mx", "address": "127.0.0.1", "port": port, "role": "mx", "dsn_for_strangers": True, **settings}


def submission_listener(port: int, **settings: Any) -> Table:
    """A listener for users."""
    return {"name": "submission", "address": "127.0.0.1", "port": port, "role": "submission", **settings}


def local_domain(name: str, recipients: str | Sequence[str] = "any", **settings: Any) -> Table:
    """A local domain with Maildirs where `Node.maildir` looks for them."""
    many = [recipients] if isinstance(recipients, str) else list(recipients)
    return {"name": name, "recipients": many, "deliver": "maildir", "path": "mail/{domain}/{local_part}", **settings}


def next_hop(domain: str, port: int, **settings: Any) -> Table:
    """All mail for `domain` goes to 127.0.0.1:`port`, in the plain unless set otherwise."""
    return {"domain": domain, "host": "127.0.0.1", "port": port, "tls": "never", **settings}


def toml(config: Mapping[str, Any]) -> str:
    """The mapping as TOML. Values are texts, numbers, truths and lists of these."""
    return "".join(_lines(config, ()))


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if _is_table(value)}
    for key, value in table.items():
        if key not in inner:
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
    for key, value in inner.items():
        name = ".".join((*path, key))
        for each in value if isinstance(value, list) else [value]:
            yield f"\n[[{name}]]\n" if isinstance(value, list) else f"\n[{name}]\n"
            yield from _lines(each, (*path, key))


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
    )


def _greets(listener: Mapping[str, Any]) -> bool:
    """Whether the listener says 220; one with implicit TLS or behind a proxy only needs to accept."""
    address = str(listener["address"])
    if address.startswith("unix:"):
        return accepts(Path(address.removeprefix("unix:")))
    if listener.get("tls") == "implicit" or listener.get("proxy", "none") != "none":
        return listens(address, int(listener["port"]))
    try:
        with socket.create_connection((address, int(listener["port"])), 10) as probe:
            probe.settimeout(10)
            greeting = probe.recv(512)
            probe.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220")
    except OSError:
        return False


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
