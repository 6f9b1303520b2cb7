#!/bin/bash
# dkimpy 1.1.8 (PyPI) signs List-Unsubscribe, but not List-Unsubscribe-Post.
#
# Input: a mail of a list with both fields, signed with the fields that dkimpy chooses by itself. RFC 8058 section 4 wants
# a valid DKIM signature that covers both: without it, a receiver must not offer unsubscribing by one click.
#
# Behaviour: List-Unsubscribe is signed, so the choice does know fields of lists; List-Unsubscribe-Post is not. All else
# of the signature is right, so nothing shows the fault until a receiver leaves its button away. dkimpy.sign with
# include_headers signs the field if it is named there.
#
# Output seen:
#   signed by choice: from, to, subject, list-unsubscribe, from
#   signed if named: from, list-unsubscribe, list-unsubscribe-post
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the program could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
python3 -m venv "$work/venv" >/dev/null 2>&1 || exit 2
timeout 180 "$work/venv/bin/pip" install --quiet --disable-pip-version-check dkimpy==1.1.8 dnspython==2.9.2 \
    >"$work/pip.log" 2>&1 || { cat "$work/pip.log" >&2; exit 2; }
openssl genrsa -traditional -out "$work/key" 2048 2>/dev/null || exit 2
echo "dkimpy 1.1.8: which fields of a list's mail are signed"
timeout -k 5 60 "$work/venv/bin/python" - "$work/key" <<'PY'
import pathlib
import sys

import dkim

MAIL = b"""From: a@example.com
To: b@example.org
Subject: news
List-Unsubscribe: <https://lists.example.com/leave/1>
List-Unsubscribe-Post: List-Unsubscribe=One-Click

text
""".replace(b"\n", b"\r\n")


def signed(**options):
    field = dkim.sign(MAIL, b"s", b"example.com", pathlib.Path(sys.argv[1]).read_bytes(), **options)
    tags = dict(tag.split(b"=", 1) for tag in field.partition(b":")[2].replace(b"\r\n ", b"").split(b";"))
    names = {name.strip(): value for name, value in tags.items()}[b"h"]
    return [name.strip().decode().lower() for name in names.split(b":")]


chosen = signed()
named = signed(include_headers=[b"From", b"List-Unsubscribe", b"List-Unsubscribe-Post"])
print("signed by choice:", ", ".join(chosen))
print("signed if named:", ", ".join(named))
field = "list-unsubscribe-post"
sys.exit(0 if "list-unsubscribe" in chosen and field not in chosen and field in named else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
