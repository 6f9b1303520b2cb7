#!/bin/bash
# dma 0.13 (Debian 12: dma 0.13-1+b1) reads only the first line of a folded recipient field.
#
# Input: with -t, To fields that are folded as RFC 5322 section 2.2.3 has it: the next line begins with a space and
# belongs to the same field. Libraries that make mail fold long fields in this way.
#
# Behaviour: recipients on the second line get nothing. If the first line has a recipient, too, the exit code is 0, and
# the field stands whole in the mail that the others get. If the line ends between a name and its address, the program
# takes the name for a recipient, and ends with 65 or 66; then nobody gets the mail.
#
# Output seen (\n: end of line):
#   To: b@example.org, c@example.org -> exit code 0, RCPT TO:<b@example.org>, <c@example.org>
#   To: b@example.org,\n c@example.org -> exit code 0, RCPT TO:<b@example.org>
#   To: Bob <b@example.org>,\n Ann <c@example.org> -> exit code 0, RCPT TO:<b@example.org>
#   To: Bob\n <b@example.org> -> exit code 65, no RCPT, dma: invalid recipient `Bob'
#   To:\n b@example.org -> exit code 66, no RCPT, dma: no recipients
#
# Root must run it on Linux: the paths of the program are fixed, so it gets a root folder of its own, an overlay in
# memory in a mount namespace, with users of its own. Nothing outside it is changed.
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

inside() { # a command in the root folder
    unshare --mount -- sh -c '
        set -e
        over=$1/over; shift
        mkdir "$over" && mount -t tmpfs -o mode=755 over "$over" && mkdir "$over/upper" "$over/work" "$over/root"
        for each in etc usr; do cp -a "$over/../root/$each" "$over/upper/"; done  # not /lib: it is a link
        mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" over "$over/root"
        for each in proc dev; do mount --rbind "/$each" "$over/root/$each"; done
        exec chroot "$over/root" "$@"' sh "$work" "$@"
}

install dma=0.13-1+b1
echo "dma 0.13 (dma 0.13-1+b1): folded recipient fields"
inside timeout -k 5 90 python3 - <<'PY'
import pathlib
import socket
import subprocess
import sys
import threading
import time

ENV = {"PATH": "/usr/bin:/bin"}
PREPARE = """
rm -rf /var/spool/dma && mkdir -p -m 2775 /var/spool/dma && chown root:mail /var/spool/dma
: >/etc/aliases && mkdir -p -m 1777 /tmp
"""
CASES = {
    "b@example.org, c@example.org": (0, ["<b@example.org>", "<c@example.org>"]),
    "b@example.org,\n c@example.org": (0, ["<b@example.org>"]),
    "Bob <b@example.org>,\n Ann <c@example.org>": (0, ["<b@example.org>"]),
    "Bob\n <b@example.org>": (65, []),
    "\n b@example.org": (66, []),
}


def receive(listener, recipients):
    """SMTP sessions that accept everything, one after the other."""
    while True:
        connection, _ = listener.accept()
        connection.settimeout(20)
        lines = connection.makefile("rb")
        connection.sendall(b"220 mx.example.org\r\n")
        for line in lines:
            verb = line[:4].upper()
            connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
            if verb == b"RCPT":
                recipients.append(line.decode().strip().partition(":")[2])
            elif verb == b"DATA":
                list(iter(lines.readline, b".\r\n"))
                connection.sendall(b"250 ok\r\n")
            elif verb == b"QUIT":
                break
        connection.close()


def send(mail, make_command):
    """Runs the program with this mail as its input: its exit code, what it said and the recipients it named."""
    recipients = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=receive, args=(listener, recipients), daemon=True).start()
        command = make_command(listener.getsockname()[1])
        run = subprocess.run(command, input=mail, capture_output=True, text=True, timeout=20, env=ENV)
        time.sleep(1)  # dma has a process for each recipient
    return run.returncode, run.stderr.strip(), sorted(recipients)


def dma(port):
    pathlib.Path("/etc/dma/dma.conf").write_text(f"SMARTHOST 127.0.0.1\nPORT {port}\nMAILNAME client.example.org\n")
    subprocess.run(["sh", "-c", PREPARE], check=True)
    return ["/usr/sbin/dma", "-D", "-t"]  # -D: ends when the mail is sent


as_seen = True
for to, expected in CASES.items():
    field = f"To: {to}".replace(": \n", ":\n")
    code, said, recipients = send(f"From: a@example.com\n{field}\nSubject: hello\n\ntext\n", dma)
    named = f"RCPT TO:{', '.join(recipients)}" if recipients else f"no RCPT, {said}"
    print(f"{field!r} -> exit code {code}, {named}".replace("'To", "To", 1).replace("' ->", " ->"), flush=True)
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
