"""The keys under which an address or a domain may stand in a map, the most exact first. Pure.

The order is Postfix's (virtual(5), access(5)): for an address the whole of it, then without its extension, then the
local-part alone with and without its extension, then the domain.

What always holds: a local-part stands in a key as in an address, quoted if it must be (``"a b"@example.org``), as in
Postfix. So a value that a pattern or a query makes of a key has no other addresses in it, whatever the local-part is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from postroad.mail.address import is_ip_address, unquoted, written_local_part
from postroad.mail.extension import without_extension

OWNER: Final = "owner-"  # begins the alias of who keeps a list; most maps have none


class KeyStep(NamedTuple):
    """One key. `part`: it is a part only, which patterns are not matched with (`maps.face`)."""

    what: str
    key: str
    part: bool = False


def _written(local_part: str, delimiter: str) -> tuple[str, str]:
    """The local-part and the same without its extension, as they stand in keys."""
    base = without_extension(local_part, delimiter)
    written = written_local_part(local_part)
    return written, written if base == local_part else written_local_part(base)


def address_steps(local_part: str, domain: str, delimiter: str) -> Iterator[KeyStep]:
    """For a mailbox of ours: as an alias, or as a recipient."""
    local_part, base = _written(local_part, delimiter)
    yield KeyStep("whole address", f"{local_part}@{domain}")
    if base != local_part:
        yield KeyStep("without extension", f"{base}@{domain}", True)
    yield KeyStep("local-part", local_part, True)
    if base != local_part:
        yield KeyStep("local-part without extension", base, True)


def rewriting_steps(local_part: str, domain: str, delimiter: str, *, ours: bool) -> Iterator[KeyStep]:
    """For another name of a mailbox, as canonical(5) and generic(5) have it. `ours`: the local-part alone names it,
    too."""
    if ours:
        yield from address_steps(local_part, domain, delimiter)
    else:
        local_part, base = _written(local_part, delimiter)
        yield KeyStep("whole address", f"{local_part}@{domain}")
        if base != local_part:
            yield KeyStep("without extension", f"{base}@{domain}", True)
    yield whole_domain_step(domain)


def whole_domain_step(domain: str) -> KeyStep:
    """For all mailboxes of a domain."""
    return KeyStep("whole domain", f"@{domain}", True)


def sender_steps(local_part: str, domain: str, delimiter: str) -> Iterator[KeyStep]:
    """For who may send from an address."""
    local_part, base = _written(local_part, delimiter)
    yield KeyStep("whole address", f"{local_part}@{domain}")
    if base != local_part:
        yield KeyStep("without extension", f"{base}@{domain}", True)
    yield whole_domain_step(domain)


def domain_steps(domain: str, *, part: bool = True) -> Iterator[KeyStep]:
    """For a domain and those above it, which stand with a dot in front: ``.example.org`` means all below it."""
    yield KeyStep("domain", domain, part)
    rest = domain
    while "." in rest:
        rest = rest.partition(".")[2]
        yield KeyStep("parent domain", f".{rest}", True)


def transport_steps(local_part: str, domain: str, delimiter: str, *, whole_domains: bool = True) -> Iterator[KeyStep]:
    """For where the mail of a mailbox goes, as transport(5) has it. `whole_domains`: also what stands for more than the
    mailbox. What stands for many domains never means an address literal."""
    yield KeyStep("whole address", f"{local_part}@{domain}")
    local_part, base = _written(local_part, delimiter)
    if base != local_part:
        yield KeyStep("without extension", f"{base}@{domain}", True)
    if whole_domains and domain.startswith("["):
        yield KeyStep("domain", domain, True)
    elif whole_domains:
        yield from domain_steps(domain)
        yield KeyStep("everything", "*", True)


def steps_of(key: str, delimiter: str) -> Iterator[KeyStep]:
    """For a key as an operator writes it: an address, an IP address or a domain."""
    written, at, domain = key.rpartition("@")
    local_part = unquoted(written)
    if at and local_part and domain:
        yield from address_steps(local_part, domain, delimiter)
        yield whole_domain_step(domain)
        yield from domain_steps(domain)
    elif is_ip_address(key) or "." not in key or key.startswith((".", "@")):
        yield KeyStep("key", key)
    else:
        yield from domain_steps(key, part=False)
