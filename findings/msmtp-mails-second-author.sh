#!/bin/bash
# msmtp 1.8.23 (Debian 12: msmtp 1.8.23-1) sends the mail to the second author, too.
#
# Input: a mail whose From field has two addresses, with a Sender field, as RFC 5322 section 3.6.2 has it. The authors
# are in no To, Cc or Bcc field.
#
# Behaviour: with -t and --read-envelope-from the program takes the first author as the envelope sender and the second
# one as a recipient. With one author only the address of the To field becomes a recipient.
#
# Output seen:
#   From: a@example.com: MAIL FROM:<a@example.com>, RCPT TO:<b@example.org>
#   From: a@example.com, c@example.com: MAIL FROM:<a@example.com>, RCPT TO:<c@example.com>, RCPT TO:<b@example.org>
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

install msmtp=1.8.23-1 libgsasl18=2.2.0-1+deb12u2 libntlm0=1.6-4 libidn12=1.41-1 libgssglue1=0.7-1.1 \
    libsecret-1-0=0.20.5-3 libglib2.0-0=2.74.6-2+deb12u9
echo "msmtp 1.8.23 (msmtp 1.8.23-1): two authors"
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


def msmtp(port):
    return [
        WORK / "root/usr/bin/msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={port}", "--read-envelope-from",
        "-t",
    ]


AUTHORS = {"a@example.com": [], "a@example.com, c@example.com": ["RCPT TO:<c@example.com>"]}
as_seen = True
for authors, more in AUTHORS.items():
    mail = f"From: {authors}\nSender: a@example.com\nTo: b@example.org\nSubject: hello\n\ntext\n"
    code, commands, _ = send(mail, msmtp)
    paths = [command for command in commands if command.startswith(("MAIL ", "RCPT "))]
    print(f"From: {authors}: {', '.join(paths)}")
    as_seen &= code == 0 and paths == ["MAIL FROM:<a@example.com>", *more, "RCPT TO:<b@example.org>"]
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
