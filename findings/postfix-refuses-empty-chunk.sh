#!/bin/bash
# Postfix 3.7.11 (Debian 12: postfix 3.7.11-0+deb12u1) refuses an empty chunk that is not the last one.
#
# Input: "BDAT 0", ahead of the first chunk of a message or between two chunks. The grammar of RFC 3030 has a size of
# one or more digits, so it may be 0, and no rule makes the last chunk the only one that may be empty.
#
# Behaviour: Postfix offers CHUNKING and takes "BDAT 0 LAST", even as the only chunk. Without LAST it answers 551 5.7.1,
# as if a policy refused it, and refuses all chunks behind it in this transaction. So the message of a client that
# sends an empty chunk, to learn if BDAT works or because its source gave no data just then, is refused for good.
#
# Output seen:
#   BDAT 16, BDAT 0 LAST: 250, 250
#   BDAT 0 LAST: 250
#   BDAT 0, BDAT 16 LAST: 551 5.7.1 Null BDAT request, 551
#   BDAT 16, BDAT 0, BDAT 0 LAST: 250, 551 5.7.1 Null BDAT request, 551
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
echo "Postfix 3.7.11 (postfix 3.7.11-0+deb12u1): BDAT with the size 0"
timeout -k 5 90 python3 - "$work" <<'PY'
import os
import pathlib
import pwd
import signal
import smtplib
import socket
import subprocess
import sys
import time

WORK = pathlib.Path(sys.argv[1])
ROOT = WORK / "root"
DAEMONS = ROOT / "usr/lib/postfix/sbin"
OWNED = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace".split()
CHUNK = b"Subject: hello\r\n"
CASES = {
    "BDAT 16, BDAT 0 LAST": ["250", "250"],
    "BDAT 0 LAST": ["250"],
    "BDAT 0, BDAT 16 LAST": ["551 5.7.1 Null BDAT request", "551"],
    "BDAT 16, BDAT 0, BDAT 0 LAST": ["250", "551 5.7.1 Null BDAT request", "551"],
}


def write_instance(port):
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
        "mydestination": "", "relay_domains": "example.org", "relay_transport": "discard", "mynetworks": "127.0.0.0/8",
        "smtpd_peername_lookup": "no", "import_environment": "LD_LIBRARY_PATH MAIL_CONFIG",
    }
    (WORK / "etc/main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    services = ["cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr"]
    services += ["rewrite unix - - n - - trivial-rewrite"]
    services += [f"{name} unix - - n - 0 bounce" for name in ("bounce", "defer", "trace")]
    services += [f"{name} unix - - n - 1 {name}" for name in ("anvil", "proxymap", "discard")]
    services += [f"127.0.0.1:{port} inet n - n - - smtpd", "postlog unix-dgram n - n - 1 postlogd"]
    (WORK / "etc/master.cf").write_text("".join(f"{service}\n" for service in services))


def replies(port, commands):
    """What one transaction with these chunks brings: the whole of a Null BDAT reply, of others the code."""
    found = []
    with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=20) as client:
        assert client.ehlo()[0] == 250 and client.has_extn("chunking")
        client.docmd("MAIL FROM:<a@example.com>")
        client.docmd("RCPT TO:<b@example.org>")
        for command in commands.split(", "):
            client.send(command.encode() + b"\r\n" + (CHUNK if " 16" in command else b""))
            code, text = client.getreply()
            found.append(f"{code} {text.decode()}" if b"Null" in text else str(code))
    return found


def wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
    raise SystemExit(2)


with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]
write_instance(PORT)
LIBRARIES = ":".join(map(str, [DAEMONS.parent, *ROOT.glob("usr/lib/*-linux-gnu")]))
master = subprocess.Popen(
    [DAEMONS / "master", "-d", "-c", WORK / "etc"], env={"LD_LIBRARY_PATH": LIBRARIES, "PATH": "/usr/bin:/bin"},
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
as_seen = True
try:
    wait_for(PORT)
    for commands, expected in CASES.items():
        found = replies(PORT, commands)
        print(f"{commands}: {', '.join(found)}")
        as_seen &= found == expected
finally:
    master.send_signal(signal.SIGTERM)  # it ends its own services
    master.wait(20)
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
