#!/bin/bash
# msmtp 1.8.23 (Debian 12: msmtp 1.8.23-1) and esmtp 1.2 (Debian 12: esmtp 1.2-18+b1) fail at a reply without text.
#
# Input: a server whose replies are a code alone. RFC 5321 section 4.2 says that the text may be left out: a server then
# should send the space behind the code, and a client must be prepared that it does not.
#
# Behaviour: with the space both send the mail. Without it msmtp calls the reply to EHLO invalid and ends with exit code
# 76. esmtp quits after the reply to EHLO, ends with exit code 70 and reports "0 (null)" in place of a reply.
#
# Output seen:
#   msmtp, "250 ok": exit code 0, EHLO MAIL RCPT DATA QUIT
#   msmtp, "250 ": exit code 0, EHLO MAIL RCPT DATA QUIT
#   msmtp, "250": exit code 76, EHLO
#   esmtp, "250 ok": exit code 0, EHLO MAIL RCPT DATA QUIT
#   esmtp, "250 ": exit code 0, EHLO MAIL RCPT DATA QUIT
#   esmtp, "250": exit code 70, EHLO QUIT
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
    libsecret-1-0=0.20.5-3 libglib2.0-0=2.74.6-2+deb12u9 \
    esmtp=1.2-18+b1 libesmtp6=1.1.0-3.1~deb12u1
echo "msmtp 1.8.23 (msmtp 1.8.23-1) and esmtp 1.2 (esmtp 1.2-18+b1): replies without text"
timeout -k 5 90 python3 - "$work" <<'PY'
import pathlib
import socket
import subprocess
import sys
import threading

WORK = pathlib.Path(sys.argv[1])
ENV = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(map(str, WORK.glob("root/usr/lib/*-linux-gnu")))}


def receive(listener, commands, content, end):
    """One SMTP session that accepts everything; `end` stands behind the code of each 250."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    lines = connection.makefile("rb")
    connection.sendall(b"220 mx.example.org\r\n")
    for line in lines:
        commands.append(line.decode("latin-1").strip())
        verb = line[:4].upper()
        connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250" + end + b"\r\n"))
        if verb == b"DATA":
            content.extend(iter(lines.readline, b".\r\n"))
            connection.sendall(b"250" + end + b"\r\n")


def send(mail, make_command, end):
    """Runs the program with this mail as its input: its exit code, the commands it said and the content it sent."""
    commands, content = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        session = threading.Thread(target=receive, args=(listener, commands, content, end), daemon=True)
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


def msmtp(port):
    return [
        WORK / "root/usr/bin/msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={port}", "--from=a@example.com",
        "-t",
    ]


WHOLE = (0, "EHLO MAIL RCPT DATA QUIT")
SEEN = {
    msmtp: {" ok": WHOLE, " ": WHOLE, "": (76, "EHLO")},
    esmtp: {" ok": WHOLE, " ": WHOLE, "": (70, "EHLO QUIT")},
}
MAIL = "From: a@example.com\nTo: b@example.org\nSubject: hello\n\ntext\n"
as_seen = True
for program, cases in SEEN.items():
    for end, expected in cases.items():
        code, commands, _ = send(MAIL, program, end.encode())
        said = " ".join(command[:4] for command in commands)
        print(f'{program.__name__}, "250{end}": exit code {code}, {said}', flush=True)
        as_seen &= (code, said) == expected
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
