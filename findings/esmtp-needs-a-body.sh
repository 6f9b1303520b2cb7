#!/bin/bash
# esmtp 1.2 (Debian 12: esmtp 1.2-18+b1) refuses a mail that has no body.
#
# Input: a mail that ends with its last header field. The body is optional, and with it the empty line ahead of it
# (RFC 5322 section 3.5).
#
# Behaviour: with -t the program says "Failed to parse headers", ends with exit code 65 and sends nothing. With one
# empty line more it sends the same mail.
#
# Output seen:
#   header only: exit code 65, 0 RCPT
#   header and empty line: exit code 0, 1 RCPT
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

install esmtp=1.2-18+b1 libesmtp6=1.1.0-3.1~deb12u1
echo "esmtp 1.2 (esmtp 1.2-18+b1): a mail without a body"
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


def esmtp(port):
    conf = WORK / "esmtprc"
    conf.write_text(f"hostname = 127.0.0.1:{port}\n")
    conf.chmod(0o600)
    return [WORK / "root/usr/bin/esmtp", "-C", conf, "-t", "-i"]


HEADER = "From: a@example.com\nTo: b@example.org\nSubject: hello\n"
as_seen = True
for name, mail, expected in (("header only", HEADER, (65, 0)), ("header and empty line", HEADER + "\n", (0, 1))):
    code, commands, _ = send(mail, esmtp)
    recipients = sum(command.startswith("RCPT ") for command in commands)
    print(f"{name}: exit code {code}, {recipients} RCPT", flush=True)
    as_seen &= (code, recipients) == expected
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
