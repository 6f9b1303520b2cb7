"""The node as a program: reload, shutdown, privileges, systemd, a worker that dies, a wrong configuration."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import smtplib
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad import __version__
from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import NotReady, folder, listens, own_to, until
from tests.peers.harness.remote import Dialog, Remote


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("node") as path:
        yield path


def _local(home: Path, **settings: object) -> Node:
    return Node(home / "n", {"domain": [local_domain("example.test")], **settings})


def _send(port: int, subject: str, to: str = "a@example.test") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail("b@c.test", [to], f"Subject: {subject}\r\n\r\nhello\r\n")


def test_reload_takes_a_new_configuration_without_dropping_a_session(home: Path) -> None:
    with _local(home) as node, smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("b@c.test")
        assert client.rcpt("a@second.test")[0] == 250, "a relay listener takes mail to anywhere"
        client.rset()
        added = ports.port()
        node.config["listener"].append(mx_listener(added))
        node.config["domain"].append(local_domain("second.test", ["known"]))
        node.reload()
        until(lambda: listens("127.0.0.1", added), f"the new listener\n{node.log()}")
        _send(added, "after the reload", "known@second.test")
        assert maildir.wait(node.maildir("known@second.test"))
        # The session that was open goes on.
        client.sendmail("b@c.test", ["a@example.test"], "Subject: same session\r\n\r\nhello\r\n")
        assert maildir.wait(node.maildir("a@example.test"), of="same session")
        # A listener that is gone from the file takes no more connections.
        node.config["listener"].pop()
        node.reload()
        until(lambda: not listens("127.0.0.1", added), f"the listener is closed\n{node.log()}")


def test_a_listener_that_was_removed_ends_its_sessions_in_order(home: Path) -> None:
    """An idle client hears 421 at once; one in the midst of a message has its answer first. A shutdown meanwhile waits
    for it as for any other."""
    added = mx_listener(ports.port())
    with _local(home, shutdown_s=30) as node:
        node.config["listener"].append(added)
        node.reload()
        until(lambda: listens("127.0.0.1", added["port"]), f"the new listener\n{node.log()}")
        idle = smtplib.SMTP("127.0.0.1", added["port"], timeout=20)
        busy = smtplib.SMTP("127.0.0.1", added["port"], timeout=20)
        busy.ehlo("client.test")
        busy.mail("b@c.test")
        busy.rcpt("a@example.test")
        busy.putcmd("DATA")
        assert busy.getreply()[0] == 354
        node.config["listener"].pop()
        node.reload()
        assert idle.getreply()[0] == 421
        node.wait_log("the new configuration is in force", 2)
        node.program.signal(signal.SIGTERM)
        node.wait_log("stopping")
        busy.send(b"Subject: on a listener that is gone\r\n\r\nhello\r\n.\r\n")
        assert busy.getreply()[0] == 250
        assert busy.getreply()[0] == 421
        idle.close()
        busy.close()


@pytest.mark.parametrize("fault", ["unknown_key = 1\n", "not toml at all [", ""])
def test_reload_refuses_a_wrong_configuration_and_keeps_the_old(home: Path, fault: str) -> None:
    with _local(home) as node:
        good = node.config_path.read_text()
        node.config_path.write_text(fault + (good if fault else ""))
        node.program.signal(signal.SIGHUP)
        node.wait_log("the old one stays in force")
        _send(node.port, "still here")
        assert maildir.wait(node.maildir("a@example.test"), of="still here")
        node.config_path.write_text(good)
        node.program.signal(signal.SIGHUP)
        node.wait_log("the new configuration is in force")


def test_reload_tells_whether_the_configuration_was_taken(home: Path) -> None:
    with _local(home) as node:
        assert node.json("reload") == {"taken": True, "problems": []}
        good = node.config_path.read_text()
        node.config_path.write_text(f"unknown_key = 1\n{good}")
        said = node.command("reload", code=78)
        assert f"{node.config_path}:1" in said and "unknown_key" in said and "the old one stays in force" in said
        told = node.json("status")
        assert told["configuration"]["changed"] and "unknown_key" in told["configuration"]["problems"][0]
        node.config_path.write_text(good)
        assert not node.json("status")["configuration"]["changed"], "it holds again what was loaded"
        node.config["hostname"] = "changed.example.test"
        node.write()
        node.command("reload")
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            assert client.ehlo("c.test")[1].startswith(b"changed.example.test"), "in force when the command ended"
        assert not node.json("status")["configuration"]["problems"]
    assert "not running" in node.command("reload", code=1)


def test_status_tells_of_a_node_and_that_there_is_none(home: Path) -> None:
    with _local(home) as node:
        until(lambda: node.json("status")["state"] == "ready", "the node is ready")
        told = node.json("status")
        assert told["running"] and told["state"] == "ready" and all(worker["ready"] for worker in told["workers"])
        assert told["version"] == __version__
        assert [each["address"] for each in told["listeners"]] == [f"127.0.0.1:{node.port}"]
        admitted = sum(each["sessions_admitted"] for each in told["activity"])
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            client.sendmail("ada@a.test", "ada@example.test", "Subject: counted\r\n\r\n")  # in the log alone
        empty = {"recipients": 0, "held": 0, "destinations": 0, "fresh": 0}
        until(lambda: node.json("status")["queue"] == empty, "the message has been delivered", pause_s=0.2)
        told = node.json("status")
        assert sum(each["sessions_admitted"] for each in told["activity"]) == admitted + 1
        assert "since its start" in node.command("status")
        assert told["configuration"]["file"] == str(node.config_path) and not told["configuration"]["changed"]
        assert told["queue"] == empty
        said = node.command("status")
        assert "runs: ready" in said and f"127.0.0.1:{node.port}" in said
    assert json.loads(node.command("status", "--json", code=None))["running"] is False
    assert "not running" in node.command("status", code=1)


def test_check_and_show_tell_what_the_running_node_has_otherwise(home: Path) -> None:
    with _local(home) as node:
        assert node.json("check")["changes"] == []
        node.config["workers"] = 7
        node.config["queue"] = {**node.config.get("queue", {}), "retry_first_s": 77}
        node.write()
        changed = [{"key": "workers", "restart": True}, {"key": "queue.retry_first_s", "restart": False}]
        assert node.json("check")["changes"] == changed
        said = node.command("check")
        assert "workers differs: the node must be restarted for it" in said
        assert "queue.retry_first_s differs: `postroad reload` takes it" in said
        assert "workers = 7" in node.command("config", "show")
        assert "workers = 7" not in node.command("config", "show", "--loaded")
        assert node.json("config", "show", "--loaded")["workers"] != 7
        assert "a change of `workers` needs a restart" in node.command("reload", code=78)


def test_an_operator_command_waits_for_a_node_that_is_starting(home: Path) -> None:
    """Rather than find nothing in a queue whose workers are not up."""
    node = _local(home, next_hop=[next_hop("*", ports.port())], queue={"retry_first_s": 600, "retry_max_s": 600})
    with node:
        _send(node.port, "waits", to="a@elsewhere.test")
        node.wait_log("deferred for <a@elsewhere.test>")
    node.program = node._program()
    node.program.start()
    try:
        until(lambda: (node.state / "run" / "control").exists(), "the control socket")
        assert [row["done"] for row in node.json("queue", "hold", "--all")] == [True]
        assert node.json("status")["queue"]["held"] == 1
    finally:
        node.stop()


def test_reload_that_puts_a_proxy_in_front_of_a_listener_and_takes_it_away(home: Path) -> None:
    front = mx_listener(ports.port())
    behind = {**front, "proxy": "v1", "proxy_networks": ["127.0.0.1"]}
    with _local(home) as node:
        for count, (listener, header) in enumerate(
            ((front, b""), (behind, b"PROXY TCP4 192.0.2.7 192.0.2.8 50000 25\r\n"), (front, b"")), 1
        ):
            node.config["listener"][1:] = [listener]
            node.reload()
            node.wait_log("reloaded: the new configuration is in force", count)
            with socket.create_connection(("127.0.0.1", front["port"]), 20) as stream:
                stream.sendall(header + b"QUIT\r\n")
                replies = b"".join(iter(lambda: stream.recv(100), b""))
            assert [line[:3] for line in replies.splitlines()] == [b"220", b"221"], (listener, replies)


def test_reload_under_load_loses_nothing(home: Path) -> None:
    with _local(home) as node:
        sent: list[str] = []
        failed: list[OSError] = []
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set() and not failed:
                subject = f"number {len(sent)}."
                try:
                    _send(node.port, subject)
                except OSError as error:  # smtplib's exceptions are among these
                    failed.append(error)
                sent.append(subject)

        sender = threading.Thread(target=send)
        sender.start()
        for number in range(5):
            node.reload()
            node.wait_log("the new configuration is in force", number + 1)
        stop.set()
        sender.join()
        assert not failed, node.log()
        found = b"".join(maildir.wait(node.maildir("a@example.test"), len(sent)))
        assert len(sent) > 5 and all(subject.encode() in found for subject in sent)


def test_mail_to_postmaster_is_taken_though_there_is_no_local_domain(home: Path) -> None:
    """RFC 5321 §4.5.1: from everybody, into a Maildir of the node's own, which `check` names."""
    listener = relay_listener(ports.port(), trusted_networks=["192.0.2.0/24"])
    node = Node(home / "n", {"listener": [listener]})
    names = ("postmaster@postroad.test", "MAILER-DAEMON@postroad.test", "<Postmaster>")
    box = home / "n/state/postmaster"
    assert str(box) in node.command("check", code=None)
    with node, smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        for name in names:
            assert client.mail("b@c.test")[0] == 250
            assert client.docmd("RCPT", f"TO:{name if name[0] == '<' else f'<{name}>'}")[0] == 250
            assert client.rcpt("x@elsewhere.test")[0] == 550, "a stranger"
            assert client.data(f"Subject: {name}\r\n\r\nhello\r\n")[0] == 250
        found = maildir.wait(box, len(names))
        assert {maildir.parse(each)["Delivered-To"] for each in found} == {"postmaster@localhost"}
        node.wait_empty()
        node.command("spool", "check")
    node.start()  # what it left in its folder is no obstacle
    node.stop()


def test_sigterm_lets_a_transaction_end_and_says_421_to_an_idle_client(home: Path) -> None:
    node = _local(home, shutdown_s=600)  # it does not wait for longer than there is something to wait for
    node.start()
    idle = socket.create_connection(("127.0.0.1", node.port), 20)
    idle.recv(512)
    busy = socket.create_connection(("127.0.0.1", node.port), 20)
    reader = busy.makefile("rb")
    for line in (b"", b"EHLO client.test", b"MAIL FROM:<b@c.test>", b"RCPT TO:<a@example.test>", b"DATA"):
        if line:
            busy.sendall(line + b"\r\n")
        while reader.readline()[3:4] == b"-":
            pass
    node.program.signal(signal.SIGTERM)
    assert idle.recv(512).startswith(b"421 4.3.2"), node.log()
    until(lambda: not listens("127.0.0.1", node.port), "no new connections")
    busy.sendall(b"Subject: in flight\r\n\r\nhello\r\n.\r\n")
    assert reader.readline().startswith(b"250 2."), node.log()
    assert node.program.wait(60) == 0
    node.start()
    assert maildir.wait(node.maildir("a@example.test"), of="in flight")
    node.stop()


def test_sigterm_keeps_what_could_not_be_delivered(home: Path) -> None:
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with Remote(rule) as remote:
        node = _local(home, next_hop=[next_hop("*", remote.port)])
        node.start()
        for number in range(20):
            _send(node.port, f"kept {number}.", "x@else.example")
        node.stop()
        remote.rule = lambda dialog, verb, argument: None
        node.start()
        try:
            remote.wait(20)
            assert len({each.content.split(b"Subject: ")[1].split(b".")[0] for each in remote.transactions}) == 20
        finally:
            node.stop()


def test_a_worker_that_dies_is_started_again_and_its_mail_goes_on(home: Path) -> None:
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with Remote(rule) as remote, _local(home, next_hop=[next_hop("*", remote.port)]) as node:
        for number in range(20):
            _send(node.port, f"shard {number}.", "x@else.example")
        for place in range(2):
            node.renew_worker(place)
            node.ready()
        remote.rule = lambda dialog, verb, argument: None
        remote.wait(20)


def _interpreter(user: str) -> tuple[str, dict[str, str]]:
    """A Python that `user` may run, and what it needs in its environment to find what this one finds."""
    here = {"PYTHONPATH": f"{need.ROOT / 'src'}:{sysconfig.get_path('purelib')}"}
    question = "import sys, msgspec, uvloop, postroad; print(sys.version_info[:2])"
    for candidate in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(PermissionError, FileNotFoundError):
            tried = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False, cwd="/",
                                   env={**os.environ, **here}, user=user, group=user, extra_groups=[])
            if tried.stdout.strip() == str(sys.version_info[:2]):
                return candidate, here
    need.missing(f"there is no Python {sys.version_info[:2]} that the user {user} may run")
    raise AssertionError("unreachable")


def test_started_as_root_it_binds_and_then_drops_to_its_user(home: Path) -> None:
    need.root()
    user = "mail"
    python, environment = _interpreter(user)
    entry = pwd.getpwnam(user)
    address = ports.address()
    node = Node(home / "n", {
        "user": user, "listener": [mx_listener(25, address=address)], "domain": [local_domain("example.test")],
    }, environment=environment, python=python)
    (node.directory / "mail").mkdir()
    own_to(node.directory / "mail", user)
    with node:
        for pid in (node.pid, *node.workers()):
            status = Path(f"/proc/{pid}/status").read_text()
            fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
            assert set(fields["Uid"]) == {str(entry.pw_uid)} and set(fields["Gid"]) == {str(entry.pw_gid)}
            assert fields["CapEff"] == ["0" * 16]
            assert fields["NoNewPrivs"] == ["1"] and fields["Umask"] == ["0027"]
        with smtplib.SMTP(address, 25, timeout=20) as client:
            client.sendmail("b@c.test", ["a@example.test"], "Subject: unprivileged\r\n\r\nhello\r\n")
        assert maildir.wait(node.maildir("a@example.test"))
        assert not [path for path in node.state.rglob("*") if path.exists() and path.stat().st_uid != entry.pw_uid]


def test_systemd_is_told_of_ready_reloading_and_stopping(home: Path) -> None:
    path = home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        path.chmod(0o777)
        notified.settimeout(20)
        node = Node(home / "n", {"domain": [local_domain("example.test")]}, environment={"NOTIFY_SOCKET": str(path)})
        node.start()
        said = [notified.recv(4096).decode()]
        assert "READY=1" in said[0]
        node.reload()
        while not (said[-1] != said[0] and "READY=1" in said[-1]):
            said.append(notified.recv(4096).decode())
            if len(said) > 2 and "READY=1" in said[-1]:
                break
        assert any("RELOADING=1" in each for each in said)
        node.stop()
        while "STOPPING=1" not in said[-1]:
            said.append(notified.recv(4096).decode())


def test_a_wrong_configuration_is_told_with_all_its_faults(home: Path) -> None:
    node = _local(home)
    text = node.config_path.read_text()
    node.config_path.write_text("wrokers = 2\n" + text.replace('role = "relay"', 'role = "realy"'))
    for command in ("check", "serve"):
        said = node.command(command, code=78)
        assert "wrokers" in said and "workers" in said and "realy" in said
        assert "postroad.toml:1:" in said or "line 1" in said


def test_a_port_in_use_is_told_with_its_listener(home: Path) -> None:
    node = _local(home)
    with socket.create_server(("127.0.0.1", node.port)):
        node.program.start()
        code = node.program.wait()
    assert code in (1, 78) and str(node.port) in node.log() and "in use" in node.log().lower()


def test_two_nodes_do_not_share_a_state_folder(home: Path) -> None:
    with _local(home) as node:
        other = Node(home / "n2", {"state_dir": str(node.state), "listener": [relay_listener(ports.port())]})
        other.program.start()
        assert other.program.wait() == 1
        assert str(node.state) in other.log()
        _send(node.port, "undisturbed")


def test_the_whole_node_killed_starts_again_with_all_it_had(home: Path) -> None:
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with Remote(rule) as remote:
        node = _local(home, next_hop=[next_hop("*", remote.port)])
        node.start()
        for number in range(10):
            _send(node.port, f"kept {number}.", "x@else.example")
        node.kill()
        remote.rule = lambda dialog, verb, argument: None
        node.start()
        try:
            remote.wait(10)
        except NotReady as error:
            raise AssertionError(f"{error}\n{node.log()}") from None
        finally:
            node.stop()
