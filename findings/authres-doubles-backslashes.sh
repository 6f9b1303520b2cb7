#!/bin/bash
# authres 1.2.0 (PyPI) keeps the backslashes of quoted pairs, and writes each of them as two.
#
# Input: an Authentication-Results field whose values are quoted strings with quoted pairs in them: reason="a \"good\"
# one". By RFC 8601 section 2.2 (value) and RFC 5322 section 3.2.4, the value is: a "good" one. The backslashes
# are not part of it.
#
# Behaviour: reading leaves the backslashes in the value, and writing puts a backslash in front of each backslash and
# each quote. So a field that is read and written has another value, and it grows with each hop: one backslash in front
# of the quote becomes three, then seven.
#
# Output seen:
#   value read: a \"good\" one
#   written once: reason="a \\\"good\\\" one"
#   written twice: reason="a \\\\\\\"good\\\\\\\" one"
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the program could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
python3 -m venv "$work/venv" >/dev/null 2>&1 || exit 2
timeout 120 "$work/venv/bin/pip" install --quiet --disable-pip-version-check authres==1.2.0 >"$work/pip.log" 2>&1 \
    || { cat "$work/pip.log" >&2; exit 2; }
echo "authres 1.2.0: quoted pairs in the values of Authentication-Results"
timeout -k 5 60 "$work/venv/bin/python" - <<'PY'
import sys

from authres import AuthenticationResultsHeader as Field


def reason_in(text):
    return text.partition("reason=")[2].partition(" header.d")[0]


first = Field.parse(r'Authentication-Results: mx.example.org; dkim=pass reason="a \"good\" one" header.d=example.com')
second = Field.parse(str(first))
value = first.results[0].reason
print("value read:", value)
print("written once: reason=" + reason_in(str(first)))
print("written twice: reason=" + reason_in(str(second)))
as_seen = value == r'a \"good\" one' and reason_in(str(first)).count("\\") == 6 and reason_in(str(second)).count("\\") == 14
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
