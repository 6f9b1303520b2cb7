#!/bin/bash
# deliverquota over quota: maildrop 2.9.3 (Debian 12: maildrop 2.9.3-2.1) ends with 77, Courier 1.0.16 (courier-base
# 1.0.16-3+b6) with 75.
#
# Input: the same Maildir, quota and message for both. Debian gives either program the name deliverquota (alternatives),
# and both say "Mail quota exceeded."
#
# Behaviour: if the message does not fit, Courier's program ends with 75 (EX_TEMPFAIL): the mail server tries again.
# maildrop's ends with 77 (EX_NOPERM): mail servers return the message at once. A message that fits gives 0 from both.
#
# Output seen:
#   maildrop fits -> 0
#   maildrop over -> 77
#   courier fits -> 0
#   courier over -> 75
#
# Exit code: 0 the behaviour is as written here, 1 it is not, 2 the programs could not be set up.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
chmod 755 "$work"
cd "$work" || exit 2
timeout 120 apt-get -q -o APT::Sandbox::User=root download maildrop=2.9.3-2.1 courier-base=1.0.16-3+b6 >apt.log 2>&1 \
    || { cat apt.log >&2; exit 2; }
for file in *.deb; do dpkg -x "$file" root || exit 2; done

deliver() { # PROGRAM FOLDER OCTETS: the exit code
    { printf 'Subject: hello\n\n'; head -c "$3" /dev/zero | tr '\0' a; echo; } \
        | timeout -k 5 20 "$1" "$2" 1000S >/dev/null 2>&1
    echo $?
}

echo "deliverquota of maildrop 2.9.3-2.1 and of courier-base 1.0.16-3+b6, quota of 1000 octets"
seen=""
for each in maildrop:root/usr/sbin/deliverquota.maildrop courier:root/usr/bin/deliverquota.courier; do
    name=${each%%:*} program=$work/${each#*:}
    [ -x "$program" ] || exit 2
    mkdir -p "$name/new" "$name/cur" "$name/tmp"
    for size in fits:20 over:2000; do
        code=$(deliver "$program" "$work/$name" "${size#*:}")
        echo "$name ${size%%:*} -> $code"
        seen+="$code "
    done
done
if [ "$seen" = "0 77 0 75 " ]; then
    echo "as described"
else
    echo "NOT as described"
    exit 1
fi
