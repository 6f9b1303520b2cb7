"""Target `sts`: any octets as TXT record and policy file of MTA-STS, and as the database where policies are kept.

What must hold: nothing raises; a policy names only what can be a host, and is the same after it was written and read
again, by our file and by the database; what is said of a fault is printable; a host that a policy names matches one of
its lines by a plain comparison of labels.
"""

from __future__ import annotations

import re
from itertools import product

import msgspec

from postroad.mail.tls_policy import StsMode
from postroad.store.sts import StsEntry
from postroad.trust import sts
from postroad.trust.sts import StsFault, policy_file, read_policy, record_id
from tests.fuzz import choices

_HOSTS = ("mx.a.example", "a.example", "x.mx.a.example", "192.0.2.1", "a", "")


def check(data: bytes, *, hasty: bool = False) -> None:
    record, _, file = choices.read(data).wire.partition(b"\n\n")
    id = record_id(record.decode("utf-8", "backslashreplace").split("\n"))
    assert (id.text.isprintable() and id.text) if isinstance(id, StsFault) else re.fullmatch("[A-Za-z0-9]{0,32}", id)
    found = read_policy(file, "a.example", "1")
    if isinstance(found, StsFault):
        assert found.text and found.text.isprintable()
        return
    policy, notes = found
    assert all(note.isprintable() for note in notes) and len(notes) <= sts.NOTES_MAX
    assert 0 <= policy.max_age_s <= sts.AGE_MAX_S and (policy.mx or policy.mode is StsMode.NONE)
    assert all(sts.is_pattern(name) and name.isascii() and name == name.lower() for name in policy.mx)
    again = read_policy(policy_file(policy), "a.example", "1")
    assert not isinstance(again, StsFault) and not again[1]
    assert msgspec.structs.replace(again[0], lines=()) == msgspec.structs.replace(policy, lines=())
    entry = StsEntry(policy, 1, 2, 3)
    assert msgspec.json.decode(msgspec.json.encode(entry), type=StsEntry) == entry
    for host in _HOSTS:
        plain = any(_matches(name.split("."), host.split(".")) for name in policy.mx)
        assert policy.names(host) is plain, (policy.mx, host)


def _matches(pattern: list[str], host: list[str]) -> bool:
    if pattern[0] == "*":
        return len(pattern) == len(host) and bool(host[0]) and pattern[1:] == host[1:]
    return pattern == host


_RECORDS = (
    "v=STSv1; id=1", "v=STSv1; id=20160831085700Z;", "v=STSv1;id=1\nv=STSv1;id=2", "v=STSv1 ; x=y ; id=a ;",
    "v=spf1 -all", "v=STSv1; id=" + "9" * 33,
)  # fmt: skip
_FILES = (
    "version: STSv1\r\nmode: enforce\r\nmx: mx.a.example\r\nmx: *.a.example\r\nmax_age: 604800\r\n",
    "version: STSv1\nmode: none\nmax_age: 0",
    "version:STSv1\nmode:testing\nmx:\t*.example \nmax_age: 9999999999\nx.y-z: ä\n\n",
    "version: STSv1\nversion: x\nmode: enforce\nmx: 192.0.2.1\nmx: .a.example\nmax_age: 1",
    "<html>",
    "version: STSv1\nmode: enforce\nmx: " + "a." * 130 + "b\nmx: *.*.b\nmx: *\nmax_age: 9",
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    pairs = product(enumerate(_RECORDS), enumerate(_FILES))
    return {f"{a}-{b}": choices.written(0, 9, a, f"{record}\n\n{file}".encode()) for (a, record), (b, file) in pairs}
