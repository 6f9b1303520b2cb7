"""A node and clients that ask too much of it: limits that hold over all workers, bans, real sockets."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bench.processes import cpu_s

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, relay_listener, submission_listener
from tests.peers.harness.process import Program, folder, until
from tests.peers.harness.swaks import swaks


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("abuse") as path:
        yield path


def node_of(home: Path, **settings: Any) -> Node:
    listeners = [mx_listener(ports.port(), address="0.0.0.0"), relay_listener(ports.port())]
    domain = [local_domain("example.test", ["ann"])]
    return Node(home / "n", {"listener": listeners, "domain": domain, **settings})


class Client:
    """A client by its lines, from an address of its own."""

    def __init__(self, port: int, source: str = "127.0.0.9") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 40, source_address=(source, 0))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def heard(self) -> str:
        """One reply; "" where the connection is over."""
        try:
            while line := self.file.readline():
                if line[3:4] != b"-":
                    return line.decode().strip()
        except ConnectionResetError:
            pass
        return ""

    def say(self, *lines: str) -> str:
        answer = ""
        for line in lines:
            self.socket.sendall(f"{line}\r\n".encode())
            answer = self.heard()
        return answer


def greeting(port: int, source: str = "127.0.0.9") -> str:
    with Client(port, source) as client:
        return client.heard()


def all_hear(port: int, text: str, source: str = "127.0.0.9") -> bool:
    """Whether each of many connections hears this: the kernel spreads them over both workers. A pause after each: one
    that is refused counts, too, until its worker has seen its end, and would stand for one of the others."""
    for _ in range(16):
        if not greeting(port, source).startswith(text):
            return False
        time.sleep(0.15)
    return True


def harvest(port: int, source: str, names: int) -> str:
    """Tries names until it has tried them all or is told to go."""
    with Client(port, source) as client:
        client.heard()
        client.say("EHLO harvest.test", "MAIL FROM:<>")
        for number in range(names):
            answer = client.say(f"RCPT TO:<nobody{number}@example.test>")
            if not answer.startswith("550 5.1.1"):
                return answer
        return "not stopped"


def test_the_limit_of_a_client_holds_over_all_workers(home: Path) -> None:
    with node_of(home, limits={"sessions_per_client_max": 6}) as node, ExitStack() as stack:
        def heard(count: int) -> list[str]:
            return [stack.enter_context(Client(node.port)).heard()[:9] for _ in range(count)]

        assert heard(6) == ["220 postr"] * 6
        until(lambda: all_hear(node.port, "421 4.7.0"), "both workers know of all six")
        assert heard(8) == ["421 4.7.0"] * 8
        assert greeting(node.port, "127.0.0.10").startswith("220")
        assert greeting(int(node.config["listener"][1]["port"])).startswith("220")  # trusted there
        stack.close()
        until(lambda: greeting(node.port).startswith("220"), "room again")


def test_the_rates_of_connections_messages_and_recipients(home: Path) -> None:
    limits = {"rate_s": 600, "connection_rate_max": 6, "message_rate_max": 4, "recipient_rate_max": 5}
    with node_of(home, limits=limits) as node:
        with Client(node.port) as client:
            client.heard()
            client.say("EHLO x.test")
            assert [client.say("RSET", "MAIL FROM:<>")[:9] for _ in range(4)] == ["250 2.1.0"] * 4
            answers = [client.say("RCPT TO:<ann@example.test>")[:9] for _ in range(6)]
            assert answers == ["250 2.1.5"] * 5 + ["450 4.7.1"]
            assert client.say("RSET", "MAIL FROM:<>").startswith("450 4.7.1")
        assert [greeting(node.port)[:3] for _ in range(5)] == ["220"] * 5  # six with the one above
        until(lambda: all_hear(node.port, "421 4.7.0"), "both workers know of all six")
        assert greeting(node.port, "127.0.0.10").startswith("220")


def test_a_harvest_ends_in_a_ban_that_is_listed_lifted_and_kept(home: Path) -> None:
    settings = {
        "limits": {"unknown_recipients_max": 3},
        "bans": {"exempt": [], "offences_max": 3, "time_s": 600},
    }
    node = node_of(home, **settings)
    # Loopback is trusted by the relay listener, and with it exempt everywhere.
    node.config["listener"][1]["trusted_networks"] = ["127.0.0.1"]
    node.write()
    with node:
        for _ in range(3):
            assert harvest(node.port, "127.0.0.9", 10) == "421 4.7.0 Too many unknown recipients"
        until(lambda: greeting(node.port).startswith("421 4.7.0 Your address is banned"), "the ban")
        [ban] = node.json("bans")
        assert ban["subject"] == "127.0.0.9" and "3 sessions" in ban["reason"] and ban["by"] == ""
        assert "127.0.0.9" in node.command("bans")
        assert greeting(node.port, "127.0.0.10").startswith("220")
        node.reload()
        node.wait_log("the new configuration is in force")
        assert greeting(node.port).startswith("421")
        node.renew_worker()  # a worker that comes up hears of it
        until(lambda: all_hear(node.port, "421"), "the ban in both workers")
        node.restart()
        assert greeting(node.port).startswith("421")
        assert "lifted" in node.command("bans", "lift", "127.0.0.9")
        until(lambda: all_hear(node.port, "220"), "no ban any more")
        assert node.json("bans") == []
        assert "is not banned" in node.command("bans", "lift", "127.0.0.9", code=1)


def test_an_operator_bans_while_the_node_runs_and_while_it_is_down(home: Path) -> None:
    node = node_of(home)
    with node:
        with Client(node.port) as client, Client(node.port, "127.0.1.9") as other:
            client.heard(), other.heard()
            client.say("EHLO x.test", "MAIL FROM:<>")
            assert "until" in node.command("bans", "add", "127.0.0.0/24", "--for", "2h", "--reason", "spam")
            assert client.heard() == "421 4.7.0 Your address is banned for now"
            assert other.say("NOOP").startswith("250")
        until(lambda: all_hear(node.port, "421 4.7.0"), "both workers know of the ban")
        assert greeting(int(node.config["listener"][1]["port"]), "127.0.0.9").startswith("220")  # trusted there
    assert [each["reason"] for each in node.json("bans")] == ["spam"]
    assert "lifted" in node.command("bans", "lift", "127.0.0.0/24")
    assert "banned for ever" in node.command("bans", "add", "127.0.0.10", "bob", "--for", "forever")
    with node:
        assert greeting(node.port).startswith("220")
        assert greeting(node.port, "127.0.0.10").startswith("421")
        assert {each["subject"] for each in node.json("bans")} == {"127.0.0.10", "bob"}
        assert "not an address" in node.command("bans", "add", "300.1.2.3", code=1)


def test_guessing_passwords_takes_longer_each_time_and_ends_in_a_ban(home: Path) -> None:
    """swaks, over both workers: failures of one client are one count, however many connections it makes."""
    submission = submission_listener(ports.port(), auth_without_tls=True)
    node = Node(home / "n", {
        "listener": [submission, relay_listener(ports.port(), trusted_networks=["127.0.0.99"])],
        "auth": {"users": "users", "failure_delay_s": 0.1, "failure_delay_max_s": 0.4},
        "bans": {"exempt": [], "failures_max": 6, "time_s": 600},
    })
    node.add_user("ann", "right", "ann@example.test")

    def login(password: str) -> tuple[str, float]:
        began = time.monotonic()
        ran = swaks(node.port, "--local-interface", "127.0.0.9", "--auth", "PLAIN", "--auth-user", "ann",
                    "--auth-password", password, "--quit-after", "AUTH")
        return " ".join(ran.replies()), time.monotonic() - began

    with node:
        assert "235 2.7.0" in login("right")[0]
        tried = [login("wrong") for _ in range(6)]
        assert all("535 5.7.8" in said for said, _ in tried), tried
        assert max(took_s for _, took_s in tried) > 0.4  # one of the workers has seen three of them at least
        until(lambda: "421 4.7.0 Your address is banned" in login("right")[0], "the ban")
        [ban] = node.json("bans")
        assert (ban["subject"], ban["reason"][:25]) == ("127.0.0.9", "6 failed authentications ")
        node.command("bans", "lift", "127.0.0.9")
        until(lambda: "235 2.7.0" in login("right")[0], "no ban any more")
        node.command("bans", "add", "Ann", "--for", "1h")

        def answers() -> set[str]:
            return {login(each)[0].partition("454")[2][:6] for each in ("right", "wrong")}

        until(lambda: answers() == {" 4.7.0"}, "both workers know of the ban of the account")
        node.command("bans", "lift", "ann")
        until(lambda: "235 2.7.0" in login("right")[0], "no ban of the account any more")


def test_an_early_talker_is_noted_or_refused(home: Path) -> None:
    listeners = [
        mx_listener(ports.port(), name="refuse", greet_delay_s=3.0, early_talker="refuse"),
        mx_listener(ports.port(), name="note", greet_delay_s=3.0),
    ]
    domain = [local_domain("example.test", ["ann"])]
    node = Node(home / "n", {"listener": listeners, "domain": domain, "bans": {"exempt": ["127.0.0.1"]}})
    with node:
        refuse, note = (int(each["port"]) for each in listeners)
        ran = swaks(refuse, "--to", "ann@example.test", "--from", "x@y.test")  # who waits is served
        assert ran.code == 0, ran.transcript
        with Client(refuse) as client:
            client.socket.sendall(b"EHLO x.test\r\n")
            assert client.heard().startswith("554 5.5.1") and client.heard() == ""
        with Client(note) as client:
            client.socket.sendall(b"HELO x.test\r\n")
            assert [client.heard()[:3] for _ in range(2)] == ["220", "250"]
        node.wait_log("spoke before the greeting", 2)
        assert "EHLO x.test" in node.log()


def test_new_sessions_hear_421_before_the_descriptors_run_out(home: Path) -> None:
    """A node that may open few files: idle sessions fill it up to its reserve; mail that is under way is delivered, new
    clients hear 421 4.3.2, and all is well again when they have gone."""
    node = node_of(home, workers=1, limits={"files_reserved": 100, "sessions_per_client_max": 1000})
    node.write()
    node.program = Program(
        ["prlimit", "--nofile=300:300", sys.executable, "-m", "postroad", "serve", "--config", str(node.config_path)],
        node.log_path, directory=node.directory,
    )
    node.program.start()
    try:
        node.ready()
        with ExitStack() as stack, Client(node.port, "127.0.0.8") as early:
            early.heard()
            assert early.say("EHLO x.test", "MAIL FROM:<a@b.test>", "RCPT TO:<ann@example.test>").startswith("250")
            heard = []
            for _ in range(400):
                client = stack.enter_context(Client(node.port))
                heard.append(client.heard()[:9])
            admitted = heard.count("220 postr")
            assert 100 < admitted < 200 and heard.count("421 4.3.2") == 400 - admitted, (admitted, set(heard))
            assert early.say("DATA", "Subject: x\r\n\r\nx\r\n.").startswith("250 2.0.0")
            maildir.wait(node.maildir("ann@example.test"), 1)
        until(lambda: greeting(node.port).startswith("220"), "room again")
        assert node.log_path.read_text().count("421 4.3.2") < 10  # a flood does not fill the log
        [worker] = node.workers()
        with open(f"/proc/{worker}/limits") as limits:
            assert any(line.startswith("Max open files") and " 300 " in line for line in limits)
    finally:
        node.stop()


def test_accept_that_has_no_descriptor_left_neither_spins_nor_ends_the_listener(home: Path) -> None:
    """Without a reserve worth its name: what is over is closed, the worker lives on and uses no time for it."""
    node = node_of(home, workers=1, limits={"files_reserved": 32, "sessions_per_client_max": 1000})
    node.write()
    command = ["serve", "--config", str(node.config_path)]
    node.program = Program(
        ["prlimit", "--nofile=120:120", sys.executable, "-m", "postroad", *command], node.log_path,
        directory=node.directory,
    )
    node.program.start()
    try:
        node.ready()
        [worker] = node.workers()
        with ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.socket()).connect(("127.0.0.1", node.port))
            until(lambda: _uses(worker) < 0.5, "the worker uses no time")
        until(lambda: greeting(node.port).startswith("220"), "room again")
        assert node.workers() == [worker]
    finally:
        node.stop()


def _uses(worker: int, for_s: float = 1.0) -> float:
    """The CPU time that the process takes within a second: one that spins takes all of it."""
    before = cpu_s(worker)
    time.sleep(for_s)
    return cpu_s(worker) - before


def test_implicit_tls_is_counted_before_its_handshake(home: Path) -> None:
    """Clients that connect and never begin the handshake take their places, and no more; a flood of them does not keep
    others out."""
    authority = Authority(home)
    chain, key = authority.certificate("localhost", "127.0.0.1")
    listener = mx_listener(ports.port(), name="tls", tls="implicit")
    node = Node(home / "n", {
        "workers": 1, "listener": [listener], "domain": [local_domain("example.test", ["ann"])],
        "limits": {"sessions_per_client_max": 5}, "tls": {"certificate": str(chain), "key": str(key)},
    })
    with node, ExitStack() as stack:
        silent = [stack.enter_context(Client(node.port)) for _ in range(20)]
        until(lambda: sum(_is_closed(client.socket) for client in silent) == 15, "fifteen are turned away")
        context = authority.client_context()
        plain = socket.create_connection(("127.0.0.1", node.port), 10, source_address=("127.0.0.10", 0))
        with plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.recv(100).startswith(b"220")


def _is_closed(sock: socket.socket) -> bool:
    """Whether the other side has closed a connection on which nothing was said, or said its last."""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b"" or _is_closed(sock)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
