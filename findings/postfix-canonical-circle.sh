#!/bin/bash
# Postfix 3.7.11 (Debian 12: postfix 3.7.11-0+deb12u1) says in its log "message not accepted", and accepts the message.
#
# Input: a table that exchanges two mailboxes, "ann@example.org bob@example.org" and "bob@example.org ann@example.org".
# As an address that a table has given is looked up again, this is a circle. The table is asked once as canonical_maps
# and once as virtual_alias_maps.
#
# Behaviour: in virtual_alias_maps the circle brings 451 4.6.0 at the end of the data, and the warning "message not
# accepted, try again later" in the log. In canonical_maps the log has the same warning. But the client gets 250, and
# the message goes to ann@example.org at once, as if the table had no entry for her.
#
# Output seen:
#   virtual_alias_maps: 451 4.6.0 Alias expansion error
#   virtual_alias_maps, log: warning: unreasonable virtual_alias_maps map nesting for ann@example.org -- message not
#       accepted, try again later
#   virtual_alias_maps, the next host gets: nothing
#   canonical_maps: 250 2.0.0 Ok
#   canonical_maps, log: warning: unreasonable canonical_maps map nesting for ann@example.org -- message not
#       accepted, try again later
#   canonical_maps, the next host gets: RCPT TO:<ann@example.org>
#
# Root must run it: Postfix changes its user. It starts an instance of its own in its own folders, on 127.0.0.1.
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the program could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM

install() { # packages as NAME=VERSION, unpacked under $work/root
    chmod 755 "$work"
    (cd "$work" && timeout 120 apt-get -q -o APT::Sandbox::User=root download "$@" >apt.log 2>&1) \
        || { cat "$work/apt.log" >&2; exit 2; }
    for file in "$work"/*.deb; do dpkg -x "$file" "$work/root" || exit 2; done
}

install postfix=3.7.11-0+deb12u1 libdb5.3=5.3.28+dfsg2-1 libicu72=72.1-3+deb12u1 \
    libsasl2-2=2.1.28+dfsg-10+deb12u1 libnsl2=1.3.0-2 libtirpc3=1.3.3+ds-1
echo "Postfix 3.7.11 (postfix 3.7.11-0+deb12u1): a circle in canonical_maps"
timeout -k 5 90 python3 - "$work" <<'PY'
import os
import pathlib
import pwd
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

WORK = pathlib.Path(sys.argv[1])
ROOT = WORK / "root"
DAEMONS = ROOT / "usr/lib/postfix/sbin"
OWNED = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace".split()
PAIR = "ann@example.org bob@example.org\nbob@example.org ann@example.org\n"
PARAMETERS = ("virtual_alias_maps", "canonical_maps")


def write_instance(ports, next_host):
    """Configuration and queue; users and groups are ones that each Debian has."""
    owner = pwd.getpwnam("mail").pw_uid
    for name in ("etc", "data", "queue", "queue/pid"):
        (WORK / name).mkdir()
    for name in OWNED:
        (WORK / "queue" / name).mkdir(mode=0o700)
        os.chown(WORK / "queue" / name, owner, -1)
    os.chown(WORK / "data", owner, -1)
    values = {
        "compatibility_level": "3.6", "queue_directory": WORK / "queue", "data_directory": WORK / "data",
        "command_directory": ROOT / "usr/sbin", "daemon_directory": DAEMONS, "shlib_directory": DAEMONS.parent,
        "meta_directory": WORK / "etc", "mail_owner": "mail", "setgid_group": "games", "maillog_file": WORK / "log",
        "maillog_file_prefixes": WORK, "myhostname": "mx.example.org", "inet_protocols": "ipv4", "alias_maps": "",
        "mydestination": "", "relay_domains": "example.org", "relay_transport": f"smtp:[127.0.0.1]:{next_host}", "mynetworks": "127.0.0.0/8",
        "smtpd_peername_lookup": "no", "import_environment": "LD_LIBRARY_PATH MAIL_CONFIG",
    }
    (WORK / "etc/main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    (WORK / "etc/table").write_text(PAIR)
    services = ["qmgr unix n - n 300 1 qmgr", "rewrite unix - - n - - trivial-rewrite", "smtp unix - - n - - smtp"]
    services += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
    services += [f"{name} unix - - n - 1 {name}" for name in ("anvil", "proxymap", "scache")]
    for name, port in ports.items():
        services += [f"{name} unix n - n - 0 cleanup -o {name}=texthash:{WORK}/etc/table"]
        services += [f"127.0.0.1:{port} inet n - n - - smtpd -o cleanup_service_name={name}"]
    services += ["cleanup unix n - n - 0 cleanup", "postlog unix-dgram n - n - 1 postlogd"]
    (WORK / "etc/master.cf").write_text("".join(f"{service}\n" for service in services))


def receive(listener, recipients):
    """One SMTP session that accepts everything."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    lines = connection.makefile("rb")
    connection.sendall(b"220 next.example.org\r\n")
    for line in lines:
        verb = line[:4].upper()
        connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
        if verb == b"RCPT":
            recipients.append(line.decode().strip())
        elif verb == b"DATA":
            list(iter(lines.readline, b".\r\n"))
            connection.sendall(b"250 ok\r\n")
        elif verb == b"QUIT":
            break
    connection.close()


def reply_to_message(port):
    """What the end of the data is answered with."""
    with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=20) as client:
        client.ehlo()
        client.mail("a@example.com")
        assert client.rcpt("ann@example.org")[0] == 250
        code, text = client.data("From: a@example.com\r\nSubject: hello\r\n\r\ntext\r\n")
    return f"{code} {text.decode().partition(': queued')[0]}"


def warning(parameter):
    """The first warning about this table; the log may come a moment later than the reply."""
    for _ in range(100):
        for line in (WORK / "log").read_text().splitlines():
            if f"unreasonable {parameter} map nesting" in line:
                return f"warning: {line.partition('warning: ')[2].partition(': ')[2]}"  # without the queue id
        time.sleep(0.1)
    return "nothing"


def wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
    raise SystemExit(2)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
recipients = []
threading.Thread(target=receive, args=(listener, recipients), daemon=True).start()
PORTS = {parameter: free_port() for parameter in PARAMETERS}
write_instance(PORTS, listener.getsockname()[1])
LIBRARIES = ":".join(map(str, [DAEMONS.parent, *ROOT.glob("usr/lib/*-linux-gnu")]))
master = subprocess.Popen(
    [DAEMONS / "master", "-d", "-c", WORK / "etc"], env={"LD_LIBRARY_PATH": LIBRARIES, "PATH": "/usr/bin:/bin"},
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
seen = []
try:
    for parameter, port in PORTS.items():
        wait_for(port)
        reply = reply_to_message(port)
        for _ in range(100 if reply.startswith("250") else 0):
            if recipients:
                break
            time.sleep(0.1)
        got = ", ".join(recipients) or "nothing"
        said = warning(parameter)
        print(f"{parameter}: {reply}")
        print(f"{parameter}, log: {said}")
        print(f"{parameter}, the next host gets: {got}", flush=True)
        seen.append((reply[:3], "message not accepted" in said, got))
finally:
    master.send_signal(signal.SIGTERM)  # it ends its own services
    master.wait(20)
sys.exit(0 if seen == [("451", True, "nothing"), ("250", True, "RCPT TO:<ann@example.org>")] else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
