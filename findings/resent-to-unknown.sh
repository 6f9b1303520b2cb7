#!/bin/bash
# dma 0.13 (Debian 12: dma 0.13-1+b1) and esmtp 1.2 (Debian 12: esmtp 1.2-18+b1) do not know Resent-To.
#
# Input: with -t, a mail that is sent once more: Resent-From, Resent-To and Resent-Date stand above the old fields, which
# stay as they are (RFC 5322 section 3.6.6). Its recipients are those of the Resent fields; the ones in To, Cc and Bcc
# have had the mail before.
#
# Behaviour: both send the mail to the recipient in To once more. The recipient in Resent-To gets nothing, and the exit
# code is 0.
#
# Output seen:
#   dma: exit code 0, RCPT TO:<b@example.org>
#   esmtp: exit code 0, RCPT TO:<b@example.org>
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

install dma=0.13-1+b1 esmtp=1.2-18+b1 libesmtp6=1.1.0-3.1~deb12u1
echo "dma 0.13 (dma 0.13-1+b1) and esmtp 1.2 (esmtp 1.2-18+b1): recipients of a mail with Resent fields"
inside timeout -k 5 90 python3 - <<'PY'
import pathlib
import socket
import subprocess
import sys
import threading
import time

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/srv"}
MAIL = """Resent-From: b@example.org
Resent-To: c@example.org
Resent-Date: Tue, 1 Dec 2026 10:00:00 +0000
From: a@example.com
To: b@example.org
Subject: hello

text
"""
PREPARE = """
rm -rf /var/spool/dma && mkdir -p -m 2775 /var/spool/dma && chown root:mail /var/spool/dma
: >/etc/aliases && mkdir -p -m 1777 /tmp
"""


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


def esmtp(port):
    conf = pathlib.Path("/srv/esmtprc")
    conf.write_text(f"hostname = 127.0.0.1:{port}\n")
    conf.chmod(0o600)
    return ["/usr/bin/esmtp", "-C", conf, "-t"]


as_seen = True
for program in (dma, esmtp):
    code, _, recipients = send(MAIL, program)
    print(f"{program.__name__}: exit code {code}, RCPT TO:{', '.join(recipients)}", flush=True)
    as_seen &= (code, recipients) == (0, ["<b@example.org>"])
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
