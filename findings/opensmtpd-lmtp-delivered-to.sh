#!/bin/bash
# OpenSMTPD 6.8.0p2 (Debian 12: opensmtpd 6.8.0p2-4+b4) writes Delivered-To before it hands a message over by LMTP.
#
# Input: a mail to bob@example.org, and an action "lmtp HOST:PORT rcpt-to", by which the receiver gets the address.
#
# Behaviour: the message comes to the LMTP receiver with a Return-Path field and with Delivered-To of just the
# recipient that RCPT names, above OpenSMTPD's own Received. The sender's copy had neither. A receiver that takes
# Delivered-To with the recipient's own address for the mark of a loop, as programs for local delivery do, takes all of
# this mail for loops.
#
# Output seen:
#   RCPT TO:<bob@example.org>
#   Return-Path: <a@example.com>
#   Delivered-To: bob@example.org
#   Received: from client.example.org (localhost [127.0.0.1])
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

install opensmtpd=6.8.0p2-4+b4 libevent-2.1-7=2.1.12-stable-8+deb12u1 libdb5.3=5.3.28+dfsg2-1
echo "OpenSMTPD 6.8.0p2 (opensmtpd 6.8.0p2-4+b4): what its LMTP delivery hands over"
timeout -k 5 120 python3 - "$work" <<'PY'
import pathlib
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

WORK = pathlib.Path(sys.argv[1])
ENTER = """
set -e
mount -t tmpfs -o mode=755 over "$1/over"
mkdir "$1/over/upper" "$1/over/work" "$1/over/root"
cp -a "$1/root/etc" "$1/root/usr" "$1/root/var" "$1/over/upper/"  # not /lib: it is a link
mount -t overlay -o "lowerdir=/,upperdir=$1/over/upper,workdir=$1/over/work" over "$1/over/root"
for each in proc dev tmp; do mount --rbind "/$each" "$1/over/root/$each"; done
exec chroot "$1/over/root" sh -c "mkdir -p /var/spool/smtpd /run && chmod 711 /var/spool/smtpd && exec smtpd -d"
"""
CONF = """
table here {{ "@" = "finding-user" }}
listen on 127.0.0.1 port {smtp} hostname mx.example.org
action "lmtp" lmtp "127.0.0.1:{lmtp}" rcpt-to virtual <here>
match from any for domain "example.org" action "lmtp"
"""
USERS = ("opensmtpd", "opensmtpq", "finding-user")
recipients, content = [], []


def receive(listener):
    """One LMTP session that accepts everything, for one recipient."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    lines = connection.makefile("rb")
    connection.sendall(b"220 store.example.org LMTP\r\n")
    for line in lines:
        verb = line[:4].upper()
        connection.sendall({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
        if verb == b"RCPT":
            recipients.append(line.decode().strip())
        elif verb == b"DATA":
            content.extend(line.decode().strip() for line in iter(lines.readline, b".\r\n"))
            connection.sendall(b"250 ok\r\n")
        elif verb == b"QUIT":
            break
    connection.close()


def write_root(smtp, lmtp):
    (WORK / "over").mkdir()
    conf = WORK / "root/etc/smtpd.conf"
    conf.write_text(CONF.format(smtp=smtp, lmtp=lmtp))
    conf.chmod(0o600)
    for name, form in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
        file = WORK / "root/etc" / name
        shutil.copy(f"/etc/{name}", file)
        with file.open("a") as text:
            text.writelines(form.format(user, 61_500 + place) for place, user in enumerate(USERS))


def send(port):
    for _ in range(150):
        try:
            client = smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=20)
            break
        except OSError:
            time.sleep(0.2)
    else:
        raise SystemExit(2)
    with client:
        client.sendmail("a@example.com", ["bob@example.org"], "From: a@example.com\r\nSubject: hello\r\n\r\ntext\r\n")


listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(60)
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]
write_root(PORT, listener.getsockname()[1])
session = threading.Thread(target=receive, args=(listener,), daemon=True)
session.start()
server = subprocess.Popen(
    ["unshare", "--mount", "--", "sh", "-c", ENTER, "sh", WORK], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    send(PORT)
    session.join(60)
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(20)
top = content[:3]
print("\n".join(recipients + top))
as_seen = recipients == ["RCPT TO:<bob@example.org>"] and len(top) == 3 and top[2].startswith("Received: from ")
sys.exit(0 if as_seen and top[:2] == ["Return-Path: <a@example.com>", "Delivered-To: bob@example.org"] else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
