"""Which records the DNS must have for the mail of a domain that this node handles (`postroad dns show`). Pure.

What always holds: the text can be loaded as part of the zone of the domain. What belongs into another zone (the name of
the node itself, reverse names) stands in comments.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from typing import Final

import msgspec

from postroad.mail.address import is_within
from postroad.mail.tls_policy import StsMode, StsPolicy
from postroad.trust import keyring, sts, zone
from postroad.trust.keyring import DomainKeys, KeyringFault, KeyState, StoredKey
from postroad.world.key_digests import KeyDigest

MX_PREFERENCE: Final = 10
STS_AGE_S: Final = 604_800
SMTP: Final = 25
_OF_DANE: Final = "(only with DNSSEC)"


class NodeFacts(msgspec.Struct, frozen=True):
    """What is known of the node and the domain. `addresses`: from which the node sends; `extra`: those of them that the
    name of the node may not have. `takes_mail`: for the domain. `keys`: those of the store; `file_keys`: those of files
    that sign for the domain, each under its own domain. `certificates`: in use for the name of the node,
    `next_certificates`: to be used next. `reports`: mailboxes for reports."""

    domain: str
    hostname: str
    takes_mail: bool
    addresses: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    keys: DomainKeys | None = None
    file_keys: tuple[DomainKeys, ...] = ()
    certificates: tuple[KeyDigest, ...] = ()
    next_certificates: tuple[KeyDigest, ...] = ()
    reports: tuple[str, ...] = ()
    sts_mode: StsMode = StsMode.TESTING

    def all_keys(self) -> Iterator[tuple[str, StoredKey]]:
        """Each key, with its domain."""
        for keys in (*(() if self.keys is None else (self.keys,)), *self.file_keys):
            yield from ((keys.domain, each) for each in keys.keys)


class ZoneRecord(msgspec.Struct, frozen=True):
    """One record. `value`: as a zone file has it. `text`: of a TXT record. `purpose`: what it is for, in short."""

    name: str
    kind: str
    value: str
    purpose: str
    text: str = ""

    @property
    def line(self) -> str:
        return zone.record(self.name, self.kind, self.value)

    def is_within(self, domain: str) -> bool:
        return is_within(self.name, domain)


class DomainRecords(msgspec.Struct, frozen=True):
    """All records, and the file that MTA-STS needs; `policy_url` "": none is needed. `notes`: for people."""

    domain: str
    records: tuple[ZoneRecord, ...]
    policy_url: str = ""
    policy_file: str = ""
    notes: tuple[str, ...] = ()


def records(node: NodeFacts) -> DomainRecords:
    found = (*_mx(node), *_addresses(node), *_spf(node), *_dkim(node), *_dmarc(node), *_tls(node), *_ptr(node))
    policy = sts_policy(node)
    url = "" if policy is None else sts.policy_url(node.domain)
    text = "" if policy is None else sts.policy_file(policy).decode().replace("\r\n", "\n")
    return DomainRecords(node.domain, found, url, text, tuple(_notes(node)))


def _mx(node: NodeFacts) -> Iterator[ZoneRecord]:
    if node.takes_mail:
        value = f"{MX_PREFERENCE} {node.hostname}."
        yield ZoneRecord(node.domain, "MX", value, "mail for the domain comes to this node")


def _addresses(node: NodeFacts) -> Iterator[ZoneRecord]:
    for address in node.addresses:
        if address not in node.extra:
            kind = "AAAA" if ":" in address else "A"
            yield ZoneRecord(node.hostname, kind, address, "the name of the node leads to it")


def _spf(node: NodeFacts) -> Iterator[ZoneRecord]:
    extra = "".join(f" ip{ipaddress.ip_address(each).version}:{each}" for each in node.extra)
    yield _txt(node.domain, f"v=spf1 a:{node.hostname}{extra} -all", "SPF: this node may send mail of the domain")
    if node.hostname != node.domain:
        yield _txt(node.hostname, f"v=spf1 a{extra} -all", "SPF of the node's own name, for its reports (HELO)")


def _dkim(node: NodeFacts) -> Iterator[ZoneRecord]:
    for domain, each in node.all_keys():
        text = keyring.record_text(each)
        if each.state is not KeyState.REMOVABLE and not isinstance(text, KeyringFault):
            yield _txt(keyring.record_name(each.selector, domain), text, f"DKIM: a key that is {each.state.value}")


def _dmarc(node: NodeFacts) -> Iterator[ZoneRecord]:
    to = report_mailbox(node, "dmarc")
    yield _txt(f"_dmarc.{node.domain}", f"v=DMARC1; p=none; rua=mailto:{to}", "DMARC: what receivers do, and report")
    other = to.rpartition("@")[2]
    if other != node.domain:
        name = f"{node.domain}._report._dmarc.{other}"
        yield _txt(name, "v=DMARC1", "DMARC: the domain of the mailbox takes the reports")


def _tls(node: NodeFacts) -> Iterator[ZoneRecord]:
    if not node.takes_mail:
        return
    policy = sts_policy(node)
    if policy is not None:
        yield _txt(sts.record_name(node.domain), f"v=STSv1; id={policy.id}", "MTA-STS: there is a policy file")
        to = report_mailbox(node, "tls")
        yield _txt(f"_smtp._tls.{node.domain}", f"v=TLSRPTv1; rua=mailto:{to}", "TLS-RPT: reports on failed TLS")
    for each in dict.fromkeys(tlsa_values(node)):
        yield ZoneRecord(tlsa_name(node.hostname), "TLSA", each, f"DANE: the key of the certificate {_OF_DANE}")


def _ptr(node: NodeFacts) -> Iterator[ZoneRecord]:
    for address in node.addresses:
        name = ipaddress.ip_address(address).reverse_pointer
        yield ZoneRecord(name, "PTR", f"{node.hostname}.", f"{address} has the name of the node")


def _txt(name: str, text: str, purpose: str) -> ZoneRecord:
    return ZoneRecord(name, "TXT", zone.txt_value(text), purpose, text)


def tlsa_name(hostname: str) -> str:
    return f"_{SMTP}._tcp.{hostname}"


def tlsa_values(node: NodeFacts) -> tuple[str, ...]:
    return tuple(f"3 1 1 {each.sha256}" for each in (*node.certificates, *node.next_certificates))


def sts_policy(node: NodeFacts) -> StsPolicy | None:
    """The policy that says that this node serves the domain with TLS; None if it does not."""
    if not node.takes_mail or not node.certificates:
        return None
    made = StsPolicy(node.domain, "", node.sts_mode, (node.hostname,), STS_AGE_S)
    id = hashlib.sha256(sts.policy_file(made)).hexdigest()[:20]  # another file has another id (RFC 8461 §3.1)
    return msgspec.structs.replace(made, id=id)


def report_mailbox(node: NodeFacts, word: str) -> str:
    """Where reports go: of the mailboxes for reports, one of the domain if there is one, and with the word in it."""
    best = sorted(node.reports, key=lambda each: (not each.endswith(f"@{node.domain}"), word not in each))
    return best[0] if best else f"postmaster@{node.domain}"


def _notes(node: NodeFacts) -> Iterator[str]:
    if not node.takes_mail:
        yield f"This node takes no mail for {node.domain}: MX, MTA-STS, TLS-RPT and TLSA are not shown."
    elif not node.certificates:
        yield "No certificate is set under [tls]: there are no records for MTA-STS, TLS-RPT and DANE."
    if not node.addresses:
        yield "The node knows no public address of its own: name those from which it sends by --address."
    if not any(node.all_keys()):
        yield f"There are no keys that sign: `postroad dkim add {node.domain}` makes some."
    for each in () if node.keys is None else node.keys.in_state(KeyState.REMOVABLE):
        yield f"The record of the DKIM key {each.selector} is not needed any more."
    yield "SPF: add what else sends mail of the domain. DMARC: p=quarantine or p=reject when the reports look right."


# ---- as text


def zone_text(found: DomainRecords) -> str:
    """The records as lines of the zone of the domain."""
    lines = [zone.comment(f"Records for the mail of {found.domain}. Put them into its zone.")]
    lines += [zone.comment(each) for each in found.notes]
    for each in found.records:
        if each.is_within(found.domain):
            lines += ["", zone.comment(each.purpose), each.line]
    others = [each for each in found.records if not each.is_within(found.domain)]
    if others:
        lines += ["", zone.comment("These records belong into other zones:")]
    for each in others:
        lines += [zone.comment(""), zone.comment(each.purpose), *map(zone.comment, each.line.split("\n"))]
    if found.policy_url:
        lines += ["", zone.comment(f"MTA-STS: a web server must give this file at {found.policy_url} :")]
        lines += [zone.comment(f"    {each}") for each in found.policy_file.splitlines()]
    return "".join(f"{line.rstrip()}\n" for line in lines)
