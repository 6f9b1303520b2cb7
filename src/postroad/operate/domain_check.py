"""Compares what the DNS says of the mail of a domain with what this node needs (`postroad dns check`).

It judges by what receivers and senders would do, not by the letter: any SPF record under which this node passes is
right, and any DMARC record that counts. Each difference is named with its effect. The resolver and HTTPS are handed in.

What always holds: nothing raises, and a DNS that does not answer is never taken for a record that is missing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec

from postroad.mail.address import Address, is_within
from postroad.mail.tls_policy import StsMode, StsPolicy, Tlsa
from postroad.operate import domain_records
from postroad.operate.domain_records import NodeFacts
from postroad.trust import dane, dmarc_record, iprev, keyring, results, rotation, spf, spf_record, sts, tlsrpt_record
from postroad.trust.asking import DnsQuestions
from postroad.trust.dkim_key import DkimKey, parse_key
from postroad.trust.dmarc_walk import Walker
from postroad.trust.keyring import KeyState, StoredKey
from postroad.trust.rotation import SightKind
from postroad.trust.spf import SpfClient
from postroad.trust.sts_fetch import StsFetched
from postroad.world.dns import DnsAnswer, DnsStatus, Resolver
from postroad.world.key_digests import KeyDigest

FetchPolicy = Callable[[str, str], Awaitable[StsFetched]]  # domain, id of the record
MX_MAX: Final = 20


class RecordStanding(enum.Enum):
    """What a finding is worth."""

    OK = "ok"
    ADVICE = "advice"  # nothing is wrong, but something could be better
    WRONG = "wrong"
    UNKNOWN = "unknown"  # the DNS did not answer


class RecordFinding(msgspec.Struct, frozen=True):
    """What was found at one place. `expected`: the records that `postroad dns show` has for it."""

    kind: str
    name: str
    standing: RecordStanding
    told: str
    effect: str = ""
    found: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()


async def check(
    node: NodeFacts, resolver: Resolver, fetch_policy: FetchPolicy, now_us: int
) -> tuple[RecordFinding, ...]:
    """All findings, in the order in which `dns show` has the records."""
    parts = [_spf(node, resolver, now_us), _dkim(node, resolver, now_us), _dmarc(node, resolver)]
    if node.takes_mail:
        parts.insert(0, _mx(node, resolver))
        parts += [_sts(node, resolver, fetch_policy), _tlsrpt(node, resolver), _tlsa(node, resolver, now_us)]
    parts += [_host(node, resolver), _ptr(node, resolver)]
    return tuple(each for part in await asyncio.gather(*parts) for each in part)


class _Place:
    """Makes the findings about one name."""

    def __init__(
        self, kind: str, name: str, answer: DnsAnswer[Any] | None = None, expected: tuple[str, ...] = ()
    ) -> None:
        self._kind, self._name, self._expected = kind, name, expected
        self._found = () if answer is None else tuple(map(str, answer.records))

    def ok(self, told: str) -> RecordFinding:
        return self._made(RecordStanding.OK, told)

    def advice(self, told: str, effect: str = "") -> RecordFinding:
        return self._made(RecordStanding.ADVICE, told, effect)

    def wrong(self, told: str, effect: str) -> RecordFinding:
        return self._made(RecordStanding.WRONG, told, effect)

    def unknown(self, told: str) -> RecordFinding:
        return self._made(RecordStanding.UNKNOWN, told)

    def _made(self, standing: RecordStanding, told: str, effect: str = "") -> RecordFinding:
        return RecordFinding(self._kind, self._name, standing, told, effect, self._found, self._expected)


# ---- Mail comes here


async def _mx(node: NodeFacts, resolver: Resolver) -> list[RecordFinding]:
    answer = await resolver.mx(node.domain)
    expected = (f"{domain_records.MX_PREFERENCE} {node.hostname}.",)
    shown = tuple(f"{each.preference} {each.exchange}." for each in answer.records)
    place = _Place("MX", node.domain, msgspec.structs.replace(answer, records=shown), expected)
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    if not answer.records:
        effect = "other servers send mail for the domain to the address of the domain's own name, or give up"
        return [place.wrong(f"{node.domain} has no MX record", effect)]
    names = [each.exchange for each in answer.records]
    if names == [""]:
        return [place.wrong("the MX record says that the domain takes no mail (null MX)", "nobody can send mail to it")]
    if node.hostname in names:
        best = min(each.preference for each in answer.records)
        mine = min(each.preference for each in answer.records if each.exchange == node.hostname)
        first = "" if mine == best else f"; mail goes to others first (preference {best} before {mine})"
        return [place.ok(f"an MX record names {node.hostname}{first}")]
    same = await _leads_here(node, names[:MX_MAX], resolver)
    if same:
        return [place.ok(f"the MX record names {same}, which leads to an address of this node")]
    effect = "mail for the domain does not come to this node"
    return [place.wrong(f"no MX record names {node.hostname}; they name {', '.join(names[:MX_MAX])}", effect)]


async def _leads_here(node: NodeFacts, names: list[str], resolver: Resolver) -> str:
    """A name that leads to an address of this node; "" if none does."""
    for name in names if node.addresses else ():
        if set((await resolver.addresses(name)).records) & set(node.addresses):
            return name
    return ""


async def _host(node: NodeFacts, resolver: Resolver) -> list[RecordFinding]:
    answer = await resolver.addresses(node.hostname)
    own = tuple(each for each in node.addresses if each not in node.extra)
    place = _Place("A/AAAA", node.hostname, answer, own)
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    if not answer.records:
        effect = "no mail can come to this node by its name, and receivers distrust what it sends"
        return [place.wrong(f"{node.hostname} has no address", effect)]
    found = []
    if answer.followed and node.takes_mail:
        effect = "an MX record must not name an alias (RFC 2181 §10.3); some servers do not send then"
        found.append(place.wrong(f"{node.hostname} is an alias: {answer.chain}", effect))
    missing = [each for each in own if each not in answer.records]
    if missing:
        effect = "SPF by the name of the node, and the check that a name leads back to its address, fail for them"
        found.append(place.wrong(f"{node.hostname} does not lead to {', '.join(missing)}", effect))
    return found or [place.ok(f"{node.hostname} leads to {', '.join(answer.records)}")]


async def _ptr(node: NodeFacts, resolver: Resolver) -> list[RecordFinding]:
    found = []
    for address in node.addresses:
        seen = await iprev.check(address, DnsQuestions(resolver))
        place = _Place("PTR", address, expected=(f"{node.hostname}.",))
        effect = "Gmail, Yahoo and others refuse mail from an address without a name that leads back to it"
        match seen.result:
            case results.PASS if seen.name == node.hostname:
                found.append(place.ok(seen.told))
            case results.PASS:
                found.append(place.advice(seen.told, f"the node greets as {node.hostname}; some filters want one name"))
            case results.TEMPERROR:
                found.append(place.unknown(seen.told))
            case _:
                found.append(place.wrong(seen.told, effect))
    if not node.addresses:
        told = "the node knows no public address of its own; name it by --address"
        found.append(_Place("PTR", node.hostname).advice(told, "neither PTR nor SPF could be checked"))
    return found


# ---- What it sends is believed


async def _spf(node: NodeFacts, resolver: Resolver, now_us: int) -> list[RecordFinding]:
    found = []
    wanted = {each.name: each.text for each in domain_records.records(node).records if each.text.startswith("v=spf1")}
    for name in dict.fromkeys((node.domain, node.hostname)):
        answer = await resolver.text(name)
        shown = msgspec.structs.replace(answer, records=tuple(spf_record.select(answer.records)))
        place = _Place("SPF", name, shown, _addresses(node) if wanted[name] in shown.records else (wanted[name],))
        found += await _spf_of(node, name, place, shown, resolver, now_us)
    return found


def _addresses(node: NodeFacts) -> tuple[str, ...]:
    """What a right SPF record that names the node needs besides."""
    return tuple(f"{node.hostname}. {'AAAA' if ':' in each else 'A'} {each}" for each in node.addresses)


async def _spf_of(
    node: NodeFacts, name: str, place: _Place, answer: DnsAnswer[str], resolver: Resolver, now_us: int
) -> list[RecordFinding]:
    helo = name != node.domain
    what = "reports of this node (null sender)" if helo else f"mail of {name} that this node sends"
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    if not answer.records:
        told, effect = f"{name} has no SPF record", "receivers cannot tell who may send such mail; large ones refuse it"
        return [place.advice(told, effect) if helo else place.wrong(told, effect)]
    refused, unknown = [], []
    for address in node.addresses:
        client = SpfClient(address, node.hostname, node.hostname, now_us // 1_000_000)
        questions = DnsQuestions(resolver)
        judged = await (
            spf.check_helo(client, questions) if helo
            else spf.check_mail_from(client, Address("postmaster", name), questions)
        )  # fmt: skip
        if judged.result == results.TEMPERROR:
            unknown.append(f"{address}: {judged.told}")
        elif judged.result != results.PASS:
            refused.append(f"{address}: {judged.result} ({judged.told})")
    if refused:
        return [place.wrong("; ".join(refused), f"receivers refuse or distrust {what}")]
    if unknown:
        return [place.unknown("; ".join(unknown))]
    read = spf_record.parse(answer.records[0])
    broken = read.text if isinstance(read, spf_record.SpfFault) else ""
    if len(answer.records) > 1:
        broken = f"there are {len(answer.records)} SPF records"
    if broken:
        return [place.wrong(broken, f"receivers treat {what} as if SPF were broken (permerror)")]
    known = f"passes for {', '.join(node.addresses)}" if node.addresses else "can be read; no address to try it with"
    return [place.ok(f"SPF {known}")]


async def _dkim(node: NodeFacts, resolver: Resolver, now_us: int) -> list[RecordFinding]:
    keys = tuple(node.all_keys())
    if not keys:
        effect = "mail of the domain is not signed; Gmail, Yahoo and Microsoft demand it of those who send much"
        return [_Place("DKIM", node.domain).advice("the node has no keys for the domain", effect)]
    return list(await asyncio.gather(*(_dkim_key(domain, each, resolver, now_us) for domain, each in keys)))


async def _dkim_key(domain: str, key: StoredKey, resolver: Resolver, now_us: int) -> RecordFinding:
    name = keyring.record_name(key.selector, domain)
    answer = await resolver.text(name)
    text = keyring.record_text(key)
    place = _Place("DKIM", name, answer, (text,) if isinstance(text, str) else ())
    if answer.status is DnsStatus.ERROR:
        return place.unknown(answer.text)
    if key.state is KeyState.REMOVABLE:
        if any(map(parse_key_or_none, answer.records)):
            return place.advice("the record of an old key is still there", "none; remove it")
        return place.ok("the record of an old key is gone")
    seen = rotation.sighting_of(key, domain, answer.records, max(0, answer.expires_us - now_us) // 1_000_000)
    if seen.kind is SightKind.SEEN:
        told = f"the record has the key that is {key.state.value}"
        testing = any(each.testing for each in map(parse_key_or_none, answer.records) if each is not None)
        if testing:
            return place.advice(told, "t=y: receivers treat signed mail as if it were not signed")
        return place.ok(told)
    effect = {
        KeyState.WAITING: "the key does not sign; the old one, if there is one, goes on",
        KeyState.SIGNING: "receivers cannot verify the mail that this key signs",
        KeyState.RETIRED: "mail that this key has signed and that is still on its way cannot be verified",
    }
    return place.wrong(seen.text, effect[key.state])


def parse_key_or_none(record: str) -> DkimKey | None:
    read = parse_key(record)
    return read if isinstance(read, DkimKey) else None


async def _dmarc(node: NodeFacts, resolver: Resolver) -> list[RecordFinding]:
    name = f"_dmarc.{node.domain}"
    answer = await resolver.text(name)
    to = domain_records.report_mailbox(node, "dmarc")
    place = _Place("DMARC", name, answer, (f"v=DMARC1; p=none; rua=mailto:{to}",))
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    read = dmarc_record.select(answer.records)
    if isinstance(read, str):
        effect = "a record of a domain above may count; without one, Gmail, Yahoo and Microsoft refuse much mail"
        return [place.wrong(read, effect)]
    if not read.usable or read.faults:
        faults = "; ".join(read.faults) or "it cannot be used"
        return [place.wrong(faults, "receivers pass over what is wrong, or the whole record")]
    found = []
    if not read.aggregate:
        found.append(place.advice("it has no rua=", "nobody tells who sends mail in the name of the domain"))
    found += [each for uri in read.aggregate if (each := await _dmarc_target(node, uri, resolver)) is not None]
    if not found:
        found.append(place.ok(f"the DMARC record counts, with p={read.policy.name.lower()}"))
    return found


async def _dmarc_target(node: NodeFacts, uri: str, resolver: Resolver) -> RecordFinding | None:
    """What is wrong with a mailbox of another domain (RFC 9990 §3); None if nothing is."""
    address = dmarc_record.mail_address(uri)
    other = keyring.canonical(address.rpartition("@")[2]) if address else None
    if other is None or await _are_of_one(node.domain, other, resolver):
        return None
    name = f"{node.domain}._report._dmarc.{other}"
    answer = await resolver.text(name)
    place = _Place("DMARC", name, answer, ("v=DMARC1",))
    if answer.status is DnsStatus.ERROR:
        return place.unknown(answer.text)
    if any(map(dmarc_record.is_record, answer.records)):
        return None
    told = f"{other} does not say that it takes reports on {node.domain}"
    return place.wrong(told, f"nobody sends reports to {address}")


async def _are_of_one(domain: str, other: str, resolver: Resolver) -> bool:
    """Whether two domains belong to one organization, as those find it who send reports. If the DNS does not say,
    names count."""
    if domain == other:
        return True
    walker = Walker(DnsQuestions(resolver))
    walks = await walker.walk(domain), await walker.walk(other)
    if any(each.failed for each in walks):
        return is_within(domain, other) or is_within(other, domain)
    return walks[0].organizational == walks[1].organizational


# ---- TLS on the way in


async def _sts(node: NodeFacts, resolver: Resolver, fetch_policy: FetchPolicy) -> list[RecordFinding]:
    name = sts.record_name(node.domain)
    answer = await resolver.text(name)
    policy = domain_records.sts_policy(node)
    place = _Place("MTA-STS", name, answer, () if policy is None else (f"v=STSv1; id={policy.id}",))
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    id = sts.record_id(answer.records)
    if isinstance(id, sts.StsFault):
        return [place.wrong(id.text, "senders treat the domain as if it had no MTA-STS")]
    if not id:
        effect = "somebody on the way can turn TLS off for mail to the domain"
        return [place.advice("there is no MTA-STS record", effect)]
    fetched = await fetch_policy(node.domain, id)
    url = sts.policy_url(node.domain)
    file = _Place("MTA-STS", url, expected=() if policy is None else policy.mx)
    if fetched.policy is None:
        effect = "senders that have no policy in memory go on without MTA-STS; the others by the old policy"
        needed = f"a web server that gives the policy file at {url}; `postroad dns show` prints the file"
        return [_Place("MTA-STS", url, expected=(needed,)).wrong(fetched.text, effect)]
    return list(_sts_file(node, fetched.policy, fetched.notes, file))


def _sts_file(node: NodeFacts, policy: StsPolicy, notes: tuple[str, ...], place: _Place) -> Iterator[RecordFinding]:
    refuses = policy.mode is StsMode.ENFORCE
    harm = "senders that obey MTA-STS do not deliver to this node" if refuses else "senders report failures"
    if policy.mode is StsMode.NONE:
        yield place.advice("the policy file has the mode none", "senders treat the domain as if it had no MTA-STS")
    elif not policy.names(node.hostname):
        yield place.wrong(f"the policy file does not name {node.hostname}; it names {', '.join(policy.mx)}", harm)
    elif not any(_holds(node.hostname, each.names) for each in node.certificates):
        told = f"no certificate of the node has the name {node.hostname}"
        yield place.wrong(told if node.certificates else "the node has no TLS", harm)
    elif notes:
        yield place.advice("; ".join(notes), "senders pass over these lines")
    else:
        yield place.ok(f"the policy file names {node.hostname}, with the mode {policy.mode.value}")


def _holds(host: str, names: tuple[str, ...]) -> bool:
    return any(name in (host, "*." + host.partition(".")[2]) for name in names)


async def _tlsrpt(node: NodeFacts, resolver: Resolver) -> list[RecordFinding]:
    name = f"{tlsrpt_record.PREFIX}{node.domain}"
    answer = await resolver.text(name)
    expected = f"v=TLSRPTv1; rua=mailto:{domain_records.report_mailbox(node, 'tls')}"
    place = _Place("TLS-RPT", name, answer, (expected,))
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    read = tlsrpt_record.select(answer.records)
    if not isinstance(read, str):
        if read.faults:
            return [place.advice("; ".join(read.faults), "reports may not come")]
        return [place.ok(f"reports go to {', '.join(read.uris)}")]
    if not answer.records:
        return [place.advice("there is no TLS-RPT record", "nobody tells when TLS to this node fails")]
    return [place.wrong(read, "nobody sends reports on TLS")]


async def _tlsa(node: NodeFacts, resolver: Resolver, now_us: int) -> list[RecordFinding]:
    name = domain_records.tlsa_name(node.hostname)
    answer = await resolver.tlsa(node.hostname, domain_records.SMTP)
    wanted = tuple(dict.fromkeys(domain_records.tlsa_values(node)))
    place = _Place("TLSA", name, answer, wanted)
    if answer.status is DnsStatus.ERROR:
        return [place.unknown(answer.text)]
    if not answer.records:
        return [place.advice("there are no TLSA records", "senders that use DANE cannot prove this node")]
    unsafe = "" if answer.secure else " (not proved by DNSSEC, so it has no effect for senders)"
    records = dane.usable([Tlsa(each.usage, each.selector, each.matching_type, each.data) for each in answer.records])
    if not records:
        effect = "senders that use DANE demand TLS, but cannot prove this node"
        return [place.advice(f"none of the TLSA records is of use for SMTP{unsafe}", effect)]
    if not node.certificates:
        return [place.wrong(f"there are TLSA records, but the node has no TLS{unsafe}", _DANE_FAILS)]
    found = []
    for each in node.certificates:
        fault = dane.fault_of(records, each.chain, (node.hostname,), now_us // 1_000_000)
        if fault is not None:
            told = f"no TLSA record is that of the certificate in use, {each.path} ({fault.text}){unsafe}"
            found.append(place.wrong(told, _DANE_FAILS))
    for each in node.next_certificates:
        if not _is_ready(each, records, node.hostname, now_us):
            told = f"there is no TLSA record for the next certificate, {each.path}{unsafe}"
            found.append(place.wrong(told, "when it is taken into use, senders that use DANE do not deliver"))
    if found:
        return found
    if not answer.secure:
        return [place.advice(f"the TLSA records are right{unsafe}", "sign the zone, or ask a resolver that validates")]
    return [place.ok("the TLSA records are those of the certificates")]


def _is_ready(next: KeyDigest, records: tuple[Tlsa, ...], hostname: str, now_us: int) -> bool:
    """Whether a certificate, or one of this key, will be proved. If a record names an authority, a key alone does not
    show whether this authority will have issued its certificate: then it is taken to be so."""
    if any(each.data.hex() == next.sha256 for each in records):
        return True
    if next.chain:
        return dane.fault_of(records, next.chain, (hostname,), now_us // 1_000_000) is None
    return any(each.usage == dane.TRUST_ANCHOR for each in records)


_DANE_FAILS: Final = "senders that use DANE do not deliver to this node"
