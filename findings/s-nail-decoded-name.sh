#!/bin/bash
# s-nail 14.9.24 (Debian 12: s-nail 14.9.24-2) decodes the name of a recipient and does not quote what comes out.
#
# Input: with -t, recipients whose display name is an encoded word (RFC 2047) that holds a comma, an angle bracket or a
# quotation mark.
#
# Behaviour: the program writes the To field anew. If a name has only ASCII characters when it is decoded, it stands there
# as it is, and not encoded or in quotes, as RFC 5322 section 3.2.4 wants it. So the comma ends an address: a reply to all
# goes to "Smith", too. The envelope is right. A name that comes in quotes keeps its quotes.
#
# Output seen:
#   To: "Smith, Ann" <c@example.org>              -> To: "Smith, Ann" <c@example.org>
#   To: =?utf-8?q?Smith=2C_Ann?= <c@example.org>  -> To: Smith, Ann <c@example.org>
#   To: =?utf-8?q?=3Cx=3E?= <c@example.org>       -> To: <x> <c@example.org>
#   To: =?utf-8?q?5=22?= <c@example.org>          -> To: 5" <c@example.org>"
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

install s-nail=14.9.24-2 libgssapi-krb5-2=1.20.1-2+deb12u5 libkrb5-3=1.20.1-2+deb12u5 \
    libk5crypto3=1.20.1-2+deb12u5 libkrb5support0=1.20.1-2+deb12u5 libkeyutils1=1.6.3-2
echo "s-nail 14.9.24 (s-nail 14.9.24-2): encoded names of recipients"
timeout -k 5 90 python3 - "$work" <<'PY'
import pathlib
import socket
import subprocess
import sys
import threading

WORK = pathlib.Path(sys.argv[1])
LIBRARIES = ":".join(map(str, WORK.glob("root/usr/lib/*-linux-gnu")))
ENV = {"PATH": "/usr/bin:/bin", "HOME": str(WORK), "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": LIBRARIES}


def receive(listener, content, bye):
    """One SMTP session that accepts everything; `bye` is the answer to QUIT."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    lines = connection.makefile("rb")
    connection.sendall(b"220 mx.example.org\r\n")
    for line in lines:
        verb = line[:4].upper()
        connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": bye}.get(verb, b"250 ok\r\n"))
        if verb == b"DATA":
            content.extend(iter(lines.readline, b".\r\n"))
            connection.sendall(b"250 ok\r\n")
        elif verb == b"QUIT":
            break
    connection.close()


def send(mail, bye=b"221 bye\r\n"):
    """Runs the program with this mail as its input: its exit code, what it said and the lines that it sent."""
    content = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        session = threading.Thread(target=receive, args=(listener, content, bye), daemon=True)
        session.start()
        command = [
            WORK / "root/usr/bin/s-nail", "-:/", "-Sv15-compat", "-Ssendwait", "-Ssmtp-auth=none", "-Ssmtp-config=-all",
            f"-Smta=smtp://127.0.0.1:{listener.getsockname()[1]}", f"-SDEAD={WORK / 'dead'}", "-t",
        ]
        run = subprocess.run(command, input=mail.encode(), capture_output=True, timeout=20, env=ENV)
        session.join(20)
    return run.returncode, run.stderr.decode().splitlines(), [line.decode().strip() for line in content]


CASES = {
    '"Smith, Ann"': '"Smith, Ann" <c@example.org>',
    "=?utf-8?q?Smith=2C_Ann?=": "Smith, Ann <c@example.org>",
    "=?utf-8?q?=3Cx=3E?=": "<x> <c@example.org>",
    "=?utf-8?q?5=22?=": '5" <c@example.org>"',
}
as_seen = True
for name, expected in CASES.items():
    given = f"To: {name} <c@example.org>"
    code, _, content = send(f"From: a@example.com\n{given}\nSubject: hello\n\ntext\n")
    sent = [line for line in content if line.startswith("To: ")]
    print(f"{given:45} -> {', '.join(sent)}", flush=True)
    as_seen &= (code, sent) == (0, [f"To: {expected}"])
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
