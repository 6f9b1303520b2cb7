#!/bin/bash
# Sisimai 4.25.15 (Debian 12: libsisimai-perl 4.25.15-1) finds nothing in a report about an internationalised recipient.
#
# Input: delivery status notifications (RFC 3464) that say "failed, 5.1.1" of one recipient. RFC 6533 has the address
# type utf-8 for an internationalised address: in a 7-bit report it is "utf-8; b\x{F8}b@example.org", in a report of the
# type message/global-delivery-status the address stands in UTF-8.
#
# Behaviour: the address type is no hindrance, an ASCII address with the type utf-8 is found. The internationalised
# address is found in neither form, and the reader yields no bounce at all, though Action and Status say failed. An
# Original-Recipient field with an ASCII address or an X-Failed-Recipients field in the header of the report does not
# help. In a report about two recipients only the ASCII one is found.
#
# Output seen (recipient, reason, status of each bounce found):
#   rfc822, ASCII: bob@example.org userunknown 5.1.1
#   utf-8, ASCII: bob@example.org userunknown 5.1.1
#   utf-8, 7-bit form: nothing
#   utf-8, 7-bit form, Original-Recipient in ASCII: nothing
#   utf-8, 7-bit form, X-Failed-Recipients in ASCII: nothing
#   utf-8, in UTF-8: nothing
#   both recipients: ann@example.org userunknown 5.1.1
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

install libsisimai-perl=4.25.15-1 libclass-accessor-lite-perl=0.08-3 libjson-perl=4.10000-1
echo "Sisimai 4.25.15 (libsisimai-perl 4.25.15-1): reports about internationalised recipients"
timeout -k 5 90 python3 - "$work" <<'PY'
import pathlib
import subprocess
import sys

WORK = pathlib.Path(sys.argv[1])
READ = r"""
use Sisimai;
my $found = Sisimai->make($ARGV[0]);
print join(", ", map { join(" ", $_->recipient->address, $_->reason, $_->deliverystatus) } @{ $found || [] });
"""
NAMED = r"utf-8; b\x{F8}b@example.org"
FOUND = "bob@example.org userunknown 5.1.1"


def group(recipient):
    return f"""Final-Recipient: {recipient}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

"""


def report(*groups, field="", kind="message/delivery-status"):
    return f"""From: MAILER-DAEMON@mx.example.org
To: a@example.com
Subject: Undelivered mail
Date: Mon, 30 Nov 2026 10:00:00 +0000
Message-ID: <r1@mx.example.org>
{field}MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind.partition("/")[2]}; boundary="b1"

--b1
Content-Type: text/plain

Your mail could not be delivered.

--b1
Content-Type: {kind}

Reporting-MTA: dns; mx.example.org

{"".join(groups)}--b1
Content-Type: message/rfc822

From: a@example.com
To: team@example.org
Subject: hello
Date: Mon, 30 Nov 2026 09:59:00 +0000
Message-ID: <m1@example.com>

text
--b1--
"""


CASES = {
    "rfc822, ASCII": (report(group("rfc822; bob@example.org")), FOUND),
    "utf-8, ASCII": (report(group("utf-8; bob@example.org")), FOUND),
    "utf-8, 7-bit form": (report(group(NAMED)), ""),
    "utf-8, 7-bit form, Original-Recipient in ASCII": (
        report(group(f"{NAMED}\nOriginal-Recipient: rfc822; bob@example.org")), ""),
    "utf-8, 7-bit form, X-Failed-Recipients in ASCII": (
        report(group(NAMED), field="X-Failed-Recipients: bob@example.org\n"), ""),
    "utf-8, in UTF-8": (report(group("utf-8; bøb@example.org"), kind="message/global-delivery-status"), ""),
    "both recipients": (
        report(group(NAMED), group("rfc822; ann@example.org")), "ann@example.org userunknown 5.1.1"),
}
as_seen = True
for number, (name, (text, expected)) in enumerate(CASES.items()):
    path = WORK / f"{number}.eml"
    path.write_text(text, encoding="utf-8")
    run = subprocess.run(
        ["perl", "-I", WORK / "root/usr/share/perl5", "-e", READ, path], capture_output=True, text=True, timeout=20)
    print(f"{name}: {run.stdout or 'nothing'}{run.stderr}")
    as_seen &= run.returncode == 0 and run.stdout == expected
sys.exit(0 if as_seen else 1)
PY
code=$?
case $code in
    0) echo "as described" ;;
    1) echo "NOT as described" ;;
    *) code=2 ;;
esac
exit $code
