#!/bin/bash
# s-nail 14.9.24 (Debian 12: s-nail 14.9.24-2) says "message not sent" after the server has accepted the message.
#
# Input: a server that answers the end of the data with 250 and then QUIT with 421, as it may do at any command when it
# must shut down (RFC 5321 sections 3.8 and 4.2.3). With the 250 the server has taken the message over (section 4.1.1.4).
#
# Behaviour: the program takes 421 for a failure of the message. It says "message not sent", ends with exit code 4 and
# saves a copy as a dead letter. Whoever sends it again sends it twice. If the server closes the connection without an
# answer to QUIT, all is well.
#
# Output seen:
#   QUIT answered with 221: 250 after the data, exit code 0, no dead letter
#   QUIT not answered: 250 after the data, exit code 0, no dead letter
#   QUIT answered with 421: 250 after the data, exit code 4, a dead letter, s-nail: ... message not sent
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
echo "s-nail 14.9.24 (s-nail 14.9.24-2): 421 as the answer to QUIT"
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
    "answered with 221": (b"221 bye\r\n", 0, False),
    "not answered": (b"", 0, False),
    "answered with 421": (b"421 mx.example.org shuts down\r\n", 4, True),
}
DEAD = WORK / "dead"
as_seen = True
for name, (bye, expected, expected_dead) in CASES.items():
    code, said, content = send("From: a@example.com\nTo: b@example.org\nSubject: hello\n\ntext\n", bye)
    dead = DEAD.exists()
    DEAD.unlink(missing_ok=True)
    accepted = "250 after the data" if "text" in content else "no data"
    words = [line for line in said if "not sent" in line]
    seen = [accepted, f"exit code {code}", "a dead letter" if dead else "no dead letter", *words]
    print(f"QUIT {name}: {', '.join(seen)}", flush=True)
    as_seen &= (accepted[:3], code, dead, bool(words)) == ("250", expected, expected_dead, expected_dead)
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
