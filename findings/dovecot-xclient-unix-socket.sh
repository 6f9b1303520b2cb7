#!/bin/bash
# Dovecot 2.3.19.1 (Debian 12: dovecot-lmtpd 1:2.3.19.1+dfsg1-2.1+deb12u7) takes XCLIENT from no client of a Unix socket.
#
# Input: two LMTP listeners of one server, one at 127.0.0.1 and one at a Unix socket. `login_trusted_networks` has all
# networks, IPv4 and IPv6. By this setting Dovecot decides who may use XCLIENT.
#
# Behaviour: over TCP, LHLO offers XCLIENT and the command begins the session anew. A client of the Unix socket has no
# address that a network could contain, so it is not trusted, though it is on the same machine: LHLO does not offer
# XCLIENT, and the answer is 550 5.7.14. A mail server that moves from 127.0.0.1 to the socket then delivers as before,
# but the server behind it no longer hears which client the mail came from.
#
# Output seen:
#   TCP: XCLIENT offered, 220
#   Unix socket: XCLIENT not offered, 550 5.7.14 You are not from trusted IP
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

install dovecot-core=1:2.3.19.1+dfsg1-2.1+deb12u7 dovecot-lmtpd=1:2.3.19.1+dfsg1-2.1+deb12u7 \
    libsodium23=1.0.18-1+deb12u1 libexttextcat-2.0-0=3.4.5-1 liblua5.4-0=5.4.4-3+deb12u1 libstemmer0d=2.2.0-2 \
    libtirpc3=1.3.3+ds-1 libunwind8=1.6.2-3 libwrap0=7.6.q-32 libicu72=72.1-3+deb12u1 libapparmor1=3.0.8-3 \
    libnsl2=1.3.0-2
echo "Dovecot 2.3.19.1 (dovecot-lmtpd 1:2.3.19.1+dfsg1-2.1+deb12u7): XCLIENT over TCP and over a Unix socket"
inside timeout -k 5 90 python3 - <<'PY'
import pathlib
import signal
import socket
import subprocess
import sys
import time

CONF = """
base_dir = /srv/run
state_dir = /srv/state
log_path = /srv/log
protocols = lmtp
ssl = no
default_internal_user = finding-user
default_internal_group = finding-user
default_login_user = finding-login
login_trusted_networks = 0.0.0.0/0 ::/0
userdb {{
  driver = static
  args = uid=finding-user gid=finding-user home=/srv/mail/%n
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener /srv/lmtp {{
    mode = 0600
  }}
}}
"""
SOCKET = "/srv/lmtp"


def write_root(port):
    for name, form in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
        with pathlib.Path("/etc", name).open("a") as text:
            text.writelines(form.format(user, 61_500 + place) for place, user in enumerate(USERS))
    for name in ("run", "srv"):
        pathlib.Path("/", name).mkdir(exist_ok=True)
    pathlib.Path("/srv/conf").write_text(CONF.format(port=port))


def reply(answers):
    lines = [answers.readline().strip()]
    while lines[-1][3:4] == "-":
        lines.append(answers.readline().strip())
    return lines


def connected(family, address):
    for _ in range(100):
        connection = socket.socket(family)
        connection.settimeout(20)
        try:
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
            time.sleep(0.2)
    raise SystemExit(2)


def ask(family, address):
    """Whether LHLO offers XCLIENT, and the answer to it."""
    with connected(family, address) as connection, connection.makefile("r") as answers:
        reply(answers)
        connection.sendall(b"LHLO client.example.org\r\n")
        offered = any(line[4:].startswith("XCLIENT") for line in reply(answers))
        connection.sendall(b"XCLIENT ADDR=192.0.2.7\r\n")
        return offered, reply(answers)[-1]


USERS = ("finding-user", "finding-login")
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]
write_root(PORT)
server = subprocess.Popen(["/usr/sbin/dovecot", "-F", "-c", "/srv/conf"], stdin=subprocess.DEVNULL)
try:
    by_tcp = ask(socket.AF_INET, ("127.0.0.1", PORT))
    by_socket = ask(socket.AF_UNIX, SOCKET)
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(20)
print(f"TCP: XCLIENT {'offered' if by_tcp[0] else 'not offered'}, {by_tcp[1][:3]}")
print(f"Unix socket: XCLIENT {'offered' if by_socket[0] else 'not offered'}, {by_socket[1]}")
as_seen = by_tcp[0] and by_tcp[1].startswith("220 ") and not by_socket[0] and by_socket[1].startswith("550 5.7.14 ")
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
