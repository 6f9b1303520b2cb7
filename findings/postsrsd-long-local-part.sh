#!/bin/bash
# postsrsd 1.10 (Debian 12: postsrsd 1.10-2+b1) makes local-parts of more than 64 octets and does not warn.
#
# Input: sender addresses within the limits of RFC 5321 section 4.5.3.1 (local-part 64 octets, domain 255).
#
# Behaviour: the answer is "200" with an address whose local-part holds the old address whole and about 14 octets more.
# So from a sender of about 50 octets on, it has more than 64 octets. A receiver need not accept that, and the forwarded
# mail then fails there, though the sender's own address was in order. The way back works: postsrsd recognises these
# addresses.
#
# Output seen (octets of the local-part):
#   3 at remote.example -> 200, 31
#   34 at remote.example -> 200, 62
#   37 at remote.example -> 200, 65
#   64 at remote.example -> 200, 92
#   64 at a domain of 67 octets -> 200, 145
#   the last one back -> 200, the sender
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

install postsrsd=1.10-2+b1
echo "postsrsd 1.10 (postsrsd 1.10-2+b1): the length of the senders that it makes"
timeout -k 5 90 python3 - "$work" <<'PY'
import pathlib
import signal
import socket
import subprocess
import sys
import time

WORK = pathlib.Path(sys.argv[1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, address):
    """The answer of a tcp table: code and address."""
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port), 20)
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise SystemExit(2)
    with connection, connection.makefile("r") as answers:
        connection.sendall(f"get {address}\n".encode())
        code, _, answer = answers.readline().strip().partition(" ")
    return code, answer


CASES = [
    (3, "remote.example", "remote.example", 31),
    (34, "remote.example", "remote.example", 62),
    (37, "remote.example", "remote.example", 65),
    (64, "remote.example", "remote.example", 92),
    (64, f"{'d' * 59}.example", "a domain of 67 octets", 145),
]
(WORK / "keys").write_text("a key for this script\n")
THERE, BACK = free_port(), free_port()
server = subprocess.Popen([
    WORK / "root/usr/sbin/postsrsd", "-4", f"-s{WORK / 'keys'}", "-dforwarder.example", f"-f{THERE}", f"-r{BACK}",
], stdin=subprocess.DEVNULL)
as_seen = True
try:
    for octets, domain, name, expected in CASES:
        sender = f"{'a' * octets}@{domain}"
        code, made = ask(THERE, sender)
        length = len(made.rpartition("@")[0])
        print(f"{octets} at {name} -> {code}, {length}")
        as_seen &= (code, length) == ("200", expected)
    code, found = ask(BACK, made)
    print(f"the last one back -> {code}, {'the sender' if found == sender else found}")
    as_seen &= (code, found) == ("200", sender)
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(20)
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
