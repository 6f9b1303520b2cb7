"""MTA-STS (RFC 8461, errata 6253, 6285, 7282): the record and the policy file, read and written. Pure.

What always holds: patterns are in lower case; a policy that is given has a mode, a lifetime and, unless its mode is
`none`, at least one pattern that a host can match.

How it fails: a StsFault says what is wrong. What the RFC lets nobody depend on is passed over with a note: lines that
are no pair of name and value, patterns that no host can match (addresses, names with empty labels). Owners write such
things beside what is right, and to drop the whole policy would take the protection away that the rest gives.

Not here: which hosts a policy names (`mail.tls_policy.StsPolicy`), DNS and HTTPS (`trust.sts_fetch`), what is kept and
for how long (`trust.sts_kept`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from postroad.mail.tls_policy import StsMode, StsPolicy

HTTPS: Final = 443
FILE_MAX: Final = 65_536  # octets of a policy file (RFC 8461 §3.3)
AGE_MAX_S: Final = 31_557_600  # RFC 8461 §3.2
PATTERNS_MAX: Final = 500
LINES_MAX: Final = 2_000
NOTES_MAX: Final = 10
_SHOWN_MAX: Final = 60

_VERSION: Final = "STSv1"
# Erratum 6285: text and grammar differ about white space before the first ";". Both forms are taken.
_BEGIN: Final = re.compile(r"v=STSv1[ \t]*(?:;|$)")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_EXTENSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+")
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_AGE: Final = re.compile(r"[0-9]{1,10}")
# Underscores as in `mail.address`. The last label has a letter: an address is no name.
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_PATTERN: Final = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*(?=[a-z0-9_-]*[a-z_]){_LABEL}")


class StsFault(msgspec.Struct, frozen=True):
    """What is wrong with a record or a policy. `text`: for people."""

    text: str


def record_name(domain: str) -> str:
    return f"_mta-sts.{domain}"


def policy_host(domain: str) -> str:
    return f"mta-sts.{domain}"


def policy_url(domain: str, port: int = HTTPS) -> str:
    return f"https://{policy_host(domain)}{'' if port == HTTPS else f':{port}'}/.well-known/mta-sts.txt"


# ---- the record -----------------------------------------------------------------------------------------------------


def record_id(texts: Iterable[str]) -> str | StsFault:
    """The id of the one record among the TXT records of `record_name`; "" if none of them speaks of MTA-STS
    (RFC 8461 §3.1)."""
    found = [text for text in texts if _BEGIN.match(text)]
    if not found:
        return ""
    if len(found) > 1:
        return StsFault(f"there are {len(found)} records with v=STSv1, but there must be one")
    return _id(found[0])


def _id(text: str) -> str | StsFault:
    if not text.isascii():
        return StsFault("the record has characters that are not ASCII")
    _, *fields = [part.strip(" \t") for part in text.split(";")]
    if fields and not fields[-1]:
        fields.pop()  # a ";" may end the record
    id = ""
    for field in fields:
        name, _, value = field.partition("=")
        if name != "id":
            if not _EXTENSION.fullmatch(field):
                return StsFault(f"the record has a field that is not allowed: {_shown(field)}")
        elif not _ID.fullmatch(value):
            return StsFault(f"the id of the record must be 1 to 32 letters and digits, but it is {_shown(value)}")
        else:
            id = id or value  # of a field that is there twice the first counts (§3.2)
    return id or StsFault("the record has no id")


# ---- the policy file ------------------------------------------------------------------------------------------------


def read_policy(octets: bytes, domain: str, id: str) -> tuple[StsPolicy, tuple[str, ...]] | StsFault:
    """The policy of a domain from its file (RFC 8461 §3.2), with notes about what was passed over. `id`: of the record
    by which it was fetched."""
    if len(octets) > FILE_MAX:
        return StsFault(f"the policy file has more than {FILE_MAX} octets")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return StsFault("the policy file is not UTF-8")
    lines = [line.removesuffix("\r").rstrip(" \t") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) > LINES_MAX:
        return StsFault(f"the policy file has more than {LINES_MAX} lines")
    return _policy(lines, domain, id)


def _policy(
    lines: Sequence[str], domain: str, id: str
) -> tuple[StsPolicy, tuple[str, ...]] | StsFault:
    notes: list[str] = []
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        value = value.lstrip(" \t")
        if not line:
            continue
        if not colon or not _FIELD_NAME.fullmatch(name) or not value.isprintable():
            notes.append(f"line {number} is not a name and a value with ':' between them: {_shown(line)}")
        elif name == "mx":
            patterns.append(value.lower())
        else:
            fields.setdefault(name, value)  # of a field that is there twice the first counts
    usable = tuple(dict.fromkeys(pattern for pattern in patterns if is_pattern(pattern)))
    notes += [f"mx: {_shown(pattern)} is not the name of a host" for pattern in patterns if not is_pattern(pattern)]
    fault = _fault(fields, patterns, usable)
    if fault is not None:
        return fault
    age_s = int(fields["max_age"])
    if age_s > AGE_MAX_S:
        notes.append(f"max_age is {age_s}, and counts as {AGE_MAX_S}, the highest value allowed")
    printable = tuple(line for line in lines if line and line.isprintable())
    policy = StsPolicy(domain, id, StsMode(fields["mode"]), usable, min(age_s, AGE_MAX_S), printable)
    return policy, tuple(notes[:NOTES_MAX])


def _fault(fields: dict[str, str], patterns: Sequence[str], usable: Sequence[str]) -> StsFault | None:
    missing = [name for name in ("version", "mode", "max_age") if name not in fields]
    if missing:
        return StsFault(f"the policy file has no {' and no '.join(missing)}")
    if fields["version"] != _VERSION:
        return StsFault(f"the policy file has the version {_shown(fields['version'])}, not {_VERSION}")
    if fields["mode"] not in _MODES:
        return StsFault(f"the policy file has the mode {_shown(fields['mode'])}: {', '.join(_MODES)} are allowed")
    if not _AGE.fullmatch(fields["max_age"]):
        return StsFault(f"max_age of the policy file is no number of seconds: {_shown(fields['max_age'])}")
    if len(usable) > PATTERNS_MAX:
        return StsFault(f"the policy file has more than {PATTERNS_MAX} mx lines")
    if not usable and fields["mode"] != StsMode.NONE.value:
        return StsFault(f"the policy file has no {'usable ' if patterns else ''}mx")
    return None


_MODES: Final = tuple(mode.value for mode in StsMode)


def is_pattern(text: str) -> bool:
    """Whether a lower-case text is the name of a host, or ``*.`` before one."""
    return len(text) <= 255 and _PATTERN.fullmatch(text) is not None


def policy_file(policy: StsPolicy) -> bytes:
    """The file that serves a policy of ours."""
    fields = [("version", _VERSION), ("mode", policy.mode.value), *(("mx", name) for name in policy.mx)]
    return "".join(f"{name}: {value}\r\n" for name, value in (*fields, ("max_age", str(policy.max_age_s)))).encode()


def is_text(content_type: str) -> bool:
    """Whether a Content-Type says text/plain; its parameters do not count (RFC 8461 §3.2)."""
    return content_type.partition(";")[0].strip(" \t").lower() == "text/plain"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")
