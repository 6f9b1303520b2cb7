#!/bin/bash
# nullmailer 2.2 (Debian 12: nullmailer 1:2.2-4) takes the quotes off a local part that needs them.
#
# Input: a mail to "b c"@example.org; RFC 5321 and RFC 5322 allow a space in a local part only within quotes.
#
# Behaviour: nullmailer-inject writes the To field anew without the quotes, and without them the address stands in the
# envelope, too; the program that speaks SMTP says it as it is. Both are no valid address any more. With another
# character that needs quotes (a comma) the quotes stay in the field, and only the envelope is wrong.
#
# Output seen:
#   field: To: b c@example.org, "d,e"@example.org
#   envelope: b c@example.org, d,e@example.org
#   RCPT TO:<b c@example.org>
#   RCPT TO:<d,e@example.org>
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

install nullmailer=1:2.2-4
echo "nullmailer 2.2 (nullmailer 1:2.2-4): recipients with a quoted local part"
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


NULLMAILER = WORK / "root/usr"
MAIL = """From: a@example.com
To: "b c"@example.org, "d,e"@example.org
Subject: hello
Date: Mon, 30 Nov 2026 10:00:00 +0000
Message-ID: <1@example.com>

text
"""
inject = subprocess.run(
    [NULLMAILER / "bin/nullmailer-inject", "-n", "-v"], input=MAIL, capture_output=True, text=True, timeout=20,
    env={**ENV, "HOSTNAME": "client.example.org"},
)
envelope, _, mail = inject.stdout.partition("\n\n")
recipients = envelope.split("\n")[1:]
field = next((line for line in mail.split("\n") if line.startswith("To: ")), "no To field")
print(f"field: {field}")
print(f"envelope: {', '.join(recipients)}", flush=True)
quoted = 'To: b c@example.org, "d,e"@example.org'
as_seen = field == quoted and recipients == ["b c@example.org", "d,e@example.org"]

(WORK / "queued").write_text(inject.stdout)
SAY = 'HELOHOST=client.example.org exec "$0" --host=127.0.0.1 --port="$1" </dev/null 3<"$2"'  # 3: the mail


def smtp(port):
    return ["bash", "-c", SAY, NULLMAILER / "lib/nullmailer/smtp", str(port), WORK / "queued"]


_, commands, _ = send("", smtp)
named = [command for command in commands if command.startswith("RCPT ")]
print("\n".join(named))
as_seen &= named == ["RCPT TO:<b c@example.org>", "RCPT TO:<d,e@example.org>"]
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
