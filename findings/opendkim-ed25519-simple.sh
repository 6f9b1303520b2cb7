#!/bin/bash
# OpenDKIM 2.11.0~beta2 (Debian 12: opendkim 2.11.0~beta2-8+deb12u1) makes Ed25519 signatures that do not verify if the
# header canonicalization is "simple".
#
# Input: a mail, signed in the test mode of opendkim (-t) with a key of each algorithm and each canonicalization, and
# verified by dkimpy 1.1.8 with the public key. "simple" is the default of opendkim's setting Canonicalization.
#
# Behaviour: RSA signatures verify with every canonicalization, Ed25519 signatures with a relaxed header only. dkimpy
# signs and verifies Ed25519 with "simple", so it is not the verifier. opendkim says nothing at signing.
#
# Output seen:
#   opendkim, rsa, simple/simple: good
#   opendkim, rsa, relaxed/simple: good
#   opendkim, ed25519, simple/simple: bad
#   opendkim, ed25519, simple/relaxed: bad
#   opendkim, ed25519, relaxed/simple: good
#   opendkim, ed25519, relaxed/relaxed: good
#   dkimpy, ed25519, simple/simple: good
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

install opendkim=2.11.0~beta2-8+deb12u1 libopendkim11=2.11.0~beta2-8+deb12u1 librbl1=2.11.0~beta2-8+deb12u1 \
    libvbr2=2.11.0~beta2-8+deb12u1 libmilter1.0.1=8.17.1.9-2+deb12u2 liblua5.3-0=5.3.6-2 libopendbx1=1.4.6-16+b1 \
    libmemcached11=1.1.4-1 libhashkit2=1.1.4-1 libunbound8=1.17.1-2+deb12u4 libevent-2.1-7=2.1.12-stable-8+deb12u1 \
    libldap-2.5-0=2.5.13+dfsg-5 libsasl2-2=2.1.28+dfsg-10+deb12u1 libbsd0=0.11.7-2
python3 -m venv "$work/venv" >/dev/null 2>&1 || exit 2
timeout 180 "$work/venv/bin/pip" install --quiet --disable-pip-version-check dkimpy==1.1.8 dnspython==2.9.2 \
    pynacl==1.6.2 >"$work/pip.log" 2>&1 || { cat "$work/pip.log" >&2; exit 2; }
openssl genrsa -out "$work/rsa.pem" 2048 2>/dev/null && openssl genpkey -algorithm ed25519 -out "$work/ed25519.pem" \
    || exit 2
chmod 600 "$work"/*.pem
echo "OpenDKIM 2.11.0~beta2 (opendkim 2.11.0~beta2-8+deb12u1): signatures by algorithm and canonicalization"
timeout -k 5 90 "$work/venv/bin/python" - "$work" <<'PY'
import base64
import pathlib
import re
import subprocess
import sys

import dkim

WORK = pathlib.Path(sys.argv[1])
MAIL = """From: a@example.com
To: b@example.org
Subject: hello
Date: Tue, 1 Dec 2026 10:00:00 +0000

text
"""
ENV = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": f"{WORK}/root/usr/lib/x86_64-linux-gnu:{WORK}/root/usr/lib"}


def record(algorithm):
    command = ["openssl", "pkey", "-in", f"{WORK}/{algorithm}.pem", "-pubout", "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True).stdout
    public = der[-32:] if algorithm == "ed25519" else der
    return f"v=DKIM1; k={algorithm}; p={base64.b64encode(public).decode()}".encode()


def verifies(algorithm, field):
    mail = (field + MAIL).replace("\r\n", "\n").replace("\n", "\r\n").encode()
    return dkim.verify(mail, dnsfunc=lambda name, timeout=5: record(algorithm))


def by_opendkim(algorithm, canonicalization):
    settings = f"Mode s\nDomain example.com\nSelector s\nKeyFile {WORK}/{algorithm}.pem\nSyslog no\n"
    settings += f"SignatureAlgorithm {algorithm}-sha256\nCanonicalization {canonicalization}\n"
    (WORK / "conf").write_text(settings)
    (WORK / "mail").write_text(MAIL)
    command = [f"{WORK}/root/usr/sbin/opendkim", "-x", f"{WORK}/conf", "-vv", "-t", f"{WORK}/mail"]
    ran = subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=20)
    found = re.search(r"hvalue='(.*)'", ran.stdout + ran.stderr, re.DOTALL)
    if found is None:
        print(ran.stdout + ran.stderr)
        raise SystemExit(2)
    return verifies(algorithm, f"DKIM-Signature: {found[1]}\n")


def by_dkimpy():
    der = subprocess.run(
        ["openssl", "pkey", "-in", f"{WORK}/ed25519.pem", "-outform", "DER"], capture_output=True, check=True).stdout
    field = dkim.sign(
        MAIL.replace("\n", "\r\n").encode(), b"s", b"example.com", base64.b64encode(der[-32:]),
        signature_algorithm=b"ed25519-sha256", canonicalize=(b"simple", b"simple"))
    return verifies("ed25519", field.decode())


as_seen = True
for algorithm, canonicalization, expected in (
    ("rsa", "simple/simple", True), ("rsa", "relaxed/simple", True), ("ed25519", "simple/simple", False),
    ("ed25519", "simple/relaxed", False), ("ed25519", "relaxed/simple", True), ("ed25519", "relaxed/relaxed", True),
):
    good = by_opendkim(algorithm, canonicalization)
    print(f"opendkim, {algorithm}, {canonicalization}: {'good' if good else 'bad'}")
    as_seen = as_seen and good == expected
good = by_dkimpy()
print(f"dkimpy, ed25519, simple/simple: {'good' if good else 'bad'}")
sys.exit(0 if as_seen and good else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
