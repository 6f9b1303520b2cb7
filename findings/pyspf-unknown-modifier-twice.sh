#!/bin/bash
# pyspf 2.0.14 (PyPI) calls an SPF record broken that has the same unknown modifier twice.
#
# Input: records with a modifier that no specification defines. RFC 7208 section 6 wants unrecognised modifiers ignored
# wherever and however often they stand in a record; only "redirect" and "exp" may stand there no more than once.
#
# Behaviour: once, the modifier is ignored. Twice, the result is permerror, although the record is valid: a receiver that
# refuses mail with broken records refuses what the domain allows.
#
# Output seen (record: result, explanation):
#   v=spf1 x-note=one +all: pass, sender SPF authorized
#   v=spf1 x-note=one x-other=two +all: pass, sender SPF authorized
#   v=spf1 x-note=one x-note=two +all: permerror, SPF Permanent Error: x-note= MUST appear at most once: x-note=two
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the program could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
python3 -m venv "$work/venv" >/dev/null 2>&1 || exit 2
timeout 180 "$work/venv/bin/pip" install --quiet --disable-pip-version-check pyspf==2.0.14 dnspython==2.9.2 \
    >"$work/pip.log" 2>&1 || { cat "$work/pip.log" >&2; exit 2; }
echo "pyspf 2.0.14: unknown modifiers in an SPF record"
timeout -k 5 60 "$work/venv/bin/python" - <<'PY'
import sys

import spf

found = []
for record in ("v=spf1 x-note=one +all", "v=spf1 x-note=one x-other=two +all", "v=spf1 x-note=one x-note=two +all"):
    query = spf.query(i="192.0.2.1", s="a@example.com", h="mail.example.com")
    result, _, explanation = query.check(spf=record)
    found.append(result)
    print(f"{record}: {result}, {explanation}")
sys.exit(0 if found == ["pass", "pass", "permerror"] else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
