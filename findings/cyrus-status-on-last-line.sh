#!/bin/bash
# Cyrus 3.6.1 (Debian 12: cyrus-imapd 3.6.1-4+deb12u5) puts the enhanced status on the last line of an LMTP reply only.
#
# Input: by LMTP, RCPT for a mailbox that does not exist. LHLO has offered ENHANCEDSTATUSCODES, and then RFC 2034
# section 4 wants the enhanced status at the beginning of each line of a reply.
#
# Behaviour: the reply has three lines. The first two have the code 550 and text, and only the third has 5.1.1 behind the
# code. A client that looks at the first line finds no status, so it must guess one for its report; and a client that
# removes the status of the first line from all lines leaves it in the text.
#
# Output seen:
#   250-ENHANCEDSTATUSCODES
#   550-Mailbox unknown.  Either there is no mailbox associated with this
#   550-name or you do not have authorization to see it.
#   550 5.1.1 User unknown
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
        for each in etc usr var; do cp -a "$over/../root/$each" "$over/upper/"; done  # not /lib: it is a link
        mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" over "$over/root"
        for each in proc dev; do mount --rbind "/$each" "$over/root/$each"; done
        exec chroot "$over/root" "$@"' sh "$work" "$@"
}

install cyrus-imapd=3.6.1-4+deb12u5 cyrus-common=3.6.1-4+deb12u5 libical3=3.0.16-1+b1 libjansson4=2.14-2 \
    libldap-2.5-0=2.5.13+dfsg-5 libpcre3=2:8.39-15 libpq5=15.20-0+deb12u1 libsasl2-2=2.1.28+dfsg-10+deb12u1 \
    libsqlite3-0=3.40.1-2+deb12u2 libxapian30=1.4.22-1 libxml2=2.9.14+dfsg-1.3~deb12u6 \
    libgssapi-krb5-2=1.20.1-2+deb12u5 libk5crypto3=1.20.1-2+deb12u5 libkrb5-3=1.20.1-2+deb12u5 \
    libkrb5support0=1.20.1-2+deb12u5 libkeyutils1=1.6.3-2 libnsl2=1.3.0-2 libtirpc3=1.3.3+ds-1 libwrap0=7.6.q-32 \
    libicu72=72.1-3+deb12u1
echo "Cyrus 3.6.1 (cyrus-imapd 3.6.1-4+deb12u5): the enhanced status in a reply of several lines"
inside timeout -k 5 90 python3 - <<'PY'
import pathlib
import signal
import socket
import subprocess
import sys
import time

IMAPD = """
configdirectory: /srv/cyrus
proc_path: /srv/proc
mboxname_lockpath: /srv/lock
defaultpartition: default
partition-default: /srv/mail
servername: store.example.org
admins: cyrus
"""
CYRUS = """
START {
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -r"
}
SERVICES {
  lmtp cmd="lmtpd" listen="/srv/lmtp" prefork=0
}
EVENTS {
}
"""
PREPARE = "mkdir -p /srv/cyrus /srv/proc /srv/lock /srv/mail /run && chown -R cyrus:mail /srv"


def write_root():
    for name, line in (("passwd", "cyrus:x:61500:8::/nonexistent:/bin/sh\n"), ("group", "cyrus:x:61500:\n")):
        with pathlib.Path("/etc", name).open("a") as text:
            text.write(line)
    pathlib.Path("/etc/imapd.conf").write_text(IMAPD)
    pathlib.Path("/etc/cyrus.conf").write_text(CYRUS)
    subprocess.run(["sh", "-c", PREPARE], check=True)


def reply(answers):
    lines = [answers.readline().strip()]
    while lines[-1][3:4] == "-":
        lines.append(answers.readline().strip())
    return lines


def connected():
    for _ in range(150):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        try:
            connection.connect("/srv/lmtp")
            return connection
        except OSError:
            connection.close()
            time.sleep(0.2)
    raise SystemExit(2)


def replies(*commands):
    with connected() as connection, connection.makefile("r") as answers:
        found = [reply(answers)]
        for command in commands:
            connection.sendall(f"{command}\r\n".encode())
            found.append(reply(answers))
    return found


write_root()
server = subprocess.Popen(
    ["/usr/lib/cyrus/bin/master", "-M", "/etc/cyrus.conf", "-C", "/etc/imapd.conf"],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    _, hello, sender, refused = replies(
        "LHLO client.example.org", "MAIL FROM:<a@example.com>", "RCPT TO:<nobody@example.org>")
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(20)
offered = [line for line in hello if line[4:] == "ENHANCEDSTATUSCODES"]
print("\n".join(offered + refused))
with_status = ["5.1.1" in line for line in refused]
as_seen = offered and sender[0].startswith("250") and with_status == [False, False, True]
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
