#!/bin/bash
# postfix-mta-sts-resolver 1.5.1 (PyPI) takes the last of repeated fields of an MTA-STS policy.
#
# Input: a policy file in which a field stands twice. RFC 8461 section 3.2: of repeated fields other than "mx", all but
# the first are ignored.
#
# Behaviour: the last one counts. So the same file means "enforce, for a day" to a sender that goes by the RFC, and
# "none, for a minute" to a Postfix with this program: it demands nothing of the hosts, and says nothing about it.
#
# Output seen:
#   policy: version STSv1, mode enforce, mx mx.example.org, max_age 86400, mode none, max_age 60
#   taken: mode none, max_age 60, mx mx.example.org
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the program could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
python3 -m venv "$work/venv" >/dev/null 2>&1 || exit 2
timeout 180 "$work/venv/bin/pip" install --quiet --disable-pip-version-check postfix-mta-sts-resolver==1.5.1 \
    aiohttp==3.14.5 aiodns==4.0.4 PyYAML==6.0.4 >"$work/pip.log" 2>&1 || { cat "$work/pip.log" >&2; exit 2; }
echo "postfix-mta-sts-resolver 1.5.1: fields that stand twice in a policy"
timeout -k 5 60 "$work/venv/bin/python" - <<'PY'
import sys

from postfix_mta_sts_resolver.utils import parse_mta_sts_policy

POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 86400\r\nmode: none\r\nmax_age: 60\r\n"

found = parse_mta_sts_policy(POLICY)
print("policy:", ", ".join(POLICY.replace(":", "").splitlines()))
print(f"taken: mode {found['mode']}, max_age {found['max_age']}, mx {' '.join(found['mx'])}")
sys.exit(0 if (found["mode"], found["max_age"]) == ("none", "60") else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
