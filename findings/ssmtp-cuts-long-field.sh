#!/bin/bash
# sSMTP 2.64 (Debian 12: ssmtp 2.64-11) cuts a header field of more than 2,046 octets.
#
# Input: a mail with a To field of 120 addresses, folded as RFC 5322 says, no line of it longer than 25 octets. The
# whole field has 2,760 octets. A References or DKIM-Signature field can be as long.
#
# Behaviour: with -t the program names all 120 recipients by RCPT, but the To field that it sends ends after 2,046
# octets, in the middle of the 89th address. The rest of the field is lost without a message, the exit code is 0. The
# fields behind it and the body arrive whole.
#
# Output seen:
#   exit code 0, 120 RCPT, 2046 of 2760 octets of the To field, which ends in "user088@example.or"
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
echo "sSMTP 2.64 (ssmtp 2.64-11): a To field of 120 addresses"
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


TO = "To: " + ",\n ".join(f"user{number:03d}@example.org" for number in range(120)) + "\n"
code, commands, text = send(f"From: a@example.com\n{TO}Subject: hello\n\ntext\n", ssmtp)
recipients = sum(command.startswith("RCPT ") for command in commands)
sent = text[text.index("To: "):text.index("\r\nSubject: ")]
whole = TO.strip().replace("\n", "\r\n")
print(f"exit code {code}, {recipients} RCPT, {len(sent)} of {len(whole)} octets of the To field, "
      f'which ends in "{sent.split()[-1]}"')
as_seen = code == 0 and recipients == 120 and len(sent) == 2046 and whole.startswith(sent)
sys.exit(0 if as_seen and text.endswith("\r\n\r\ntext\r\n") else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
