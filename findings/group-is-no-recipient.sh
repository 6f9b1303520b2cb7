#!/bin/bash
# sSMTP 2.64 (Debian 12: ssmtp 2.64-11) and esmtp 1.2 (Debian 12: esmtp 1.2-18+b1) do not know groups of addresses.
#
# Input: a To field with a group, as RFC 5322 section 3.4 has it: "friends: b@example.org, c@example.org;". With -t the
# members of the group are recipients, the name of the group is none.
#
# Behaviour: both take the name with its colon for a part of the first address. esmtp leaves the semicolon at the
# last one. sSMTP drops the last member: c@example.org is not named at all, and the exit code is 0.
#
# Output seen:
#   ssmtp, exit code 0: RCPT TO:<friends: b@example.org>, RCPT TO:<d@example.org>
#   esmtp, exit code 0: RCPT TO:<d@example.org>, RCPT TO:<c@example.org;>, RCPT TO:<friends:b@example.org>
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

install ssmtp=2.64-11 libgnutls-openssl27=3.7.9-2+deb12u7 esmtp=1.2-18+b1 libesmtp6=1.1.0-3.1~deb12u1
echo "sSMTP 2.64 (ssmtp 2.64-11) and esmtp 1.2 (esmtp 1.2-18+b1): a group in the To field"
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


def esmtp(port):
    conf = WORK / "esmtprc"
    conf.write_text(f"hostname = 127.0.0.1:{port}\n")
    conf.chmod(0o600)
    return [WORK / "root/usr/bin/esmtp", "-C", conf, "-t", "-i"]


MAIL = """From: a@example.com
To: friends: b@example.org, c@example.org;, d@example.org
Subject: hello

text
"""
SEEN = {
    ssmtp: ["<friends: b@example.org>", "<d@example.org>"],
    esmtp: ["<d@example.org>", "<c@example.org;>", "<friends:b@example.org>"],
}
as_seen = True
for program, expected in SEEN.items():
    code, commands, _ = send(MAIL, program)
    recipients = [command for command in commands if command.startswith("RCPT ")]
    print(f"{program.__name__}, exit code {code}: {', '.join(recipients)}")
    as_seen &= code == 0 and recipients == [f"RCPT TO:{path}" for path in expected]
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
