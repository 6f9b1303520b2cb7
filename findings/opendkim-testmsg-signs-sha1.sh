#!/bin/bash
# opendkim-testmsg 2.11.0~beta2 (Debian 12: opendkim-tools 2.11.0~beta2-8+deb12u1) signs with SHA-1, and without -C it
# prints the end of the signature twice.
#
# Input: a mail and an RSA key of 2048 bits. There is no option for the algorithm.
#
# Behaviour: the field says a=rsa-sha1. RFC 8301 section 3.1 forbids to sign with it, and a verifier that follows it
# counts no such signature. With -C, b= is right. Without it, the last octets of the base64 stand once more behind the
# padding, so that b= is no base64 any more. The program comes with OpenDKIM to test signing, but what it prints is not
# what opendkim makes with the same key.
#
# Output seen:
#   with -C: a=rsa-sha1, octets of base64: 344, behind the padding: none
#   without: a=rsa-sha1, octets of base64: 344, behind the padding: the 6 octets before it, and padding again
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

install opendkim-tools=2.11.0~beta2-8+deb12u1 libopendkim11=2.11.0~beta2-8+deb12u1 libbsd0=0.11.7-2
openssl genrsa -out "$work/key" 2048 2>/dev/null || exit 2
chmod 600 "$work/key"
echo "opendkim-testmsg 2.11.0~beta2 (opendkim-tools 2.11.0~beta2-8+deb12u1): the signature that it prints"
timeout -k 5 60 python3 - "$work" <<'PY'
import pathlib
import subprocess
import sys

WORK = pathlib.Path(sys.argv[1])
MAIL = "From: a@example.com\nTo: b@example.org\nSubject: hello\nDate: Tue, 1 Dec 2026 10:00:00 +0000\n\ntext\n"
LIBRARIES = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": f"{WORK}/root/usr/lib/x86_64-linux-gnu"}


def tags(*options):
    command = [f"{WORK}/root/usr/sbin/opendkim-testmsg", *options, "-d", "example.com", "-s", "s", "-k", f"{WORK}/key"]
    ran = subprocess.run(command, input=MAIL.encode(), capture_output=True, env=LIBRARIES, timeout=20, check=True)
    field = ran.stdout.decode().replace("\r\n", "\n").partition("\nFrom:")[0].partition(":")[2]
    return {name.strip(): "".join(value.split()) for name, _, value in (tag.partition("=") for tag in field.split(";"))}


as_seen = True
for name, options, repeated in (("with -C", ["-C"], False), ("without", [], True)):
    found = tags(*options)
    base64, behind = found["b"][:344], found["b"][344:]
    is_repeated = bool(behind) and base64.endswith(behind)
    told = f"the {len(behind) - 2} octets before it, and padding again" if is_repeated else behind or "none"
    print(f"{name}: a={found['a']}, octets of base64: {len(base64)}, behind the padding: {told}")
    as_seen = as_seen and found["a"] == "rsa-sha1" and base64.endswith("==") and is_repeated == repeated
    as_seen = as_seen and (repeated or not behind)
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
