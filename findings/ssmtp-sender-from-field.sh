#!/bin/bash
# sSMTP 2.64 (Debian 12: ssmtp 2.64-11) makes a wrong envelope sender of some valid From fields.
#
# Setting: FromLineOverride=YES, with which the program takes the envelope sender from the From field.
#
# Behaviour: a field name in small letters ("from:", the same name for RFC 5322) becomes a part of the address, and a
# From field with two authors becomes one sender with a comma in it. Both are no address that MAIL FROM may have
# (RFC 5321). The program takes no notice of the Sender field.
#
# Output seen:
#   From: a@example.com                -> MAIL FROM:<a@example.com>
#   from: a@example.com                -> MAIL FROM:<from: a@example.com>
#   From: a@example.com, c@example.com -> MAIL FROM:<a@example.com, c@example.com>
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

install ssmtp=2.64-11 libgnutls-openssl27=3.7.9-2+deb12u7
echo "sSMTP 2.64 (ssmtp 2.64-11) with FromLineOverride=YES"
timeout -k 5 90 python3 - "$work" <<'PY'
import pathlib
import socket
import subprocess
import sys
import threading

WORK = pathlib.Path(sys.argv[1])
ENV = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(map(str, WORK.glob("root/usr/lib/*-linux-gnu")))}


def receive(listener, commands, content):
    """One SMTP session that accepts everything."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    lines = connection.makefile("rb")
    connection.sendall(b"220 mx.example.org\r\n")
    for line in lines:
        commands.append(line.decode("latin-1").strip())
        verb = line[:4].upper()
        connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
        if verb == b"DATA":
            content.extend(iter(lines.readline, b".\r\n"))
            connection.sendall(b"250 ok\r\n")


def send(mail, make_command):
    """Runs the program with this mail as its input: its exit code, the commands it said and the content it sent."""
    commands, content = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        session = threading.Thread(target=receive, args=(listener, commands, content), daemon=True)
        session.start()
        command = make_command(listener.getsockname()[1])
        run = subprocess.run(
            command, input=mail.encode(), stdout=subprocess.DEVNULL, timeout=20, env={"HOME": str(WORK), **ENV})
        session.join(2 if run.returncode else 20)
    return run.returncode, commands, b"".join(content).decode()


def ssmtp(port):
    conf = WORK / "conf"
    conf.write_text(f"mailhub=127.0.0.1:{port}\nhostname=client.example.org\nFromLineOverride=YES\n")
    return [WORK / "root/usr/sbin/ssmtp", "-C", conf, "-t", "-i"]


SEEN = {
    "From: a@example.com": "<a@example.com>",
    "from: a@example.com": "<from: a@example.com>",
    "From: a@example.com, c@example.com": "<a@example.com, c@example.com>",
}
as_seen = True
for field, expected in SEEN.items():
    code, commands, _ = send(f"{field}\nSender: a@example.com\nTo: b@example.org\nSubject: hello\n\ntext\n", ssmtp)
    sender = next((each for each in commands if each.startswith("MAIL ")), "no MAIL")
    print(f"{field:34} -> {sender}")
    as_seen &= code == 0 and sender == f"MAIL FROM:{expected}"
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
