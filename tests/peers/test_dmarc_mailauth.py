"""mailauth as a second opinion on DMARC: the same records, author domains and identifiers give the same result.

The cases are made by chance from a fixed seed: records at any level of a few names, good ones and bad ones, with
psd=, np=, t= and strict alignment; names that do not answer, do not exist or are aliases. mailauth names the author
domain that has no record that can be used `none`, we name it `permerror`: both apply no policy.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from typing import Any

from postroad.trust.author import Authors
from postroad.trust.dmarc import Identifier, judge
from postroad.trust.results import DKIM, FAIL, NONE, PASS, PERMERROR, SPF
from tests.peers.harness import need
from tests.peers.harness.unpacked import CACHE
from tests.unit.trust.zones import ZoneResolver

CASES = 1_500

_MAILAUTH = """
const { dmarc } = require("mailauth/lib/dmarc");
const failure = (code) => Object.assign(new Error(code), { code });
const resolver = (zones) => async (name, type) => {
  let at = name;
  for (;;) {
    const records = zones[at] || {};
    if ("ERROR" in records) throw failure("ESERVFAIL");
    if (type in records) return records[type].map((each) => (type === "TXT" ? [each] : each));
    if (!("CNAME" in records)) {
      const below = Object.keys(zones).some((each) => each.endsWith("." + at));
      throw failure(Object.keys(records).length || below ? "ENODATA" : "ENOTFOUND");
    }
    at = records.CNAME[0];
  }
};
const one = async ({ zones, author, spf, dkim }) => {
  const asked = { headerFrom: ["x@" + author], spfDomains: spf, dkimDomains: dkim };
  const found = await dmarc({ ...asked, resolver: resolver(zones) });
  const { result, policy } = found.status;
  return { result, applied: result === "fail" ? policy.dmarc : "none", at: found.policyDomain || "" };
};
const cases = JSON.parse(require("fs").readFileSync(0));
Promise.all(cases.map(one)).then((found) => console.log(JSON.stringify(found)));
"""
_NAMES = (
    "com", "example.com", "mail.example.com", "a.mail.example.com", "b.mail.example.com", "other.com", "x.other.com",
    "1.2.3.4.5.6.7.8.9.example.com", "5.6.7.8.9.example.com", "example.org",
)  # fmt: skip
_PARTS = (
    "p=none", "p=quarantine", "p=reject", "sp=none", "sp=quarantine", "sp=reject", "np=none", "np=reject", "t=y", "t=n",
    "psd=y", "psd=n", "psd=u", "adkim=s", "aspf=s", "adkim=r", "rua=mailto:a@b.example", "pct=50", "x=y", "P=REJECT",
)  # fmt: skip
_BAD = ("p=x", "sp=x", "np=", "t=x", "psd=x", "adkim=x", "p", "=", "rua=nobody")


def _record(chance: random.Random) -> str:
    parts = {part.partition("=")[0].lower(): part for part in chance.sample(_PARTS, chance.randint(0, 6))}
    if chance.random() < 0.8:
        parts.setdefault("p", "p=reject")
    if chance.random() < 0.1:
        bad = chance.choice(_BAD)
        parts[bad.partition("=")[0]] = bad
    listed = list(parts.values())
    chance.shuffle(listed)
    version = chance.choice(("v=DMARC1",) * 12 + ("v=dmarc1", "v=DMARC2", "V = DMARC1 "))
    return "; ".join([version, *listed]) + chance.choice(("", ";", " ; "))


def _case(chance: random.Random) -> dict[str, Any]:
    zones: dict[str, dict[str, list[str]]] = {}
    for name in chance.sample(_NAMES, chance.randint(0, 5)):
        kind = chance.random()
        texts = [_record(chance) for _ in range(2 if kind < 0.06 else 1)]
        zones[f"_dmarc.{name}"] = {"ERROR": []} if kind > 0.94 else {"TXT": texts}
    for name in chance.sample(_NAMES, 4):
        kinds: tuple[dict[str, list[str]], ...] = ({"A": ["192.0.2.1"]}, {"CNAME": ["gone.test"]}, {"ERROR": []})
        zones[name] = chance.choices(kinds, (5, 3, 1))[0]
    domains = [chance.choice(_NAMES) for _ in range(3)]
    count = chance.randint(0, 2)
    return {"zones": zones, "author": domains[0], "spf": domains[1:2] if chance.random() < 0.6 else [],
            "dkim": domains[3 - count :] if count else []}  # fmt: skip


async def _ours(case: dict[str, Any]) -> dict[str, str]:
    passed = [Identifier(method, each, PASS) for method in (SPF, DKIM) for each in case[method]]
    found = (await judge(ZoneResolver(case["zones"]), Authors((case["author"],)), passed)).decisive
    unusable = found.result == PERMERROR
    at = found.policy_domain if found.result in (PASS, FAIL) else ""
    return {"result": NONE if unusable else found.result, "applied": found.applied.word, "at": at}


def test_mailauth_says_the_same() -> None:
    node = need.program("node")
    modules = CACHE / "node"
    if not (modules / "node_modules" / "mailauth").is_dir():
        need.missing("mailauth is not installed (make peers installs it)")
    version = int(subprocess.check_output([node, "--version"], timeout=60).lstrip(b"v").split(b".")[0])
    if version < 20:
        need.missing(f"mailauth 7 needs Node.js 20, there is {version}")
    chance = random.Random(9989)
    cases = [_case(chance) for _ in range(CASES)]
    ran = subprocess.run([node, "-e", _MAILAUTH], input=json.dumps(cases).encode(), capture_output=True, check=False,
                         timeout=60, cwd=modules)  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    theirs = json.loads(ran.stdout)
    seen: set[str] = set()
    for case, said in zip(cases, theirs, strict=True):
        if said["result"] not in (PASS, FAIL):
            said["at"] = ""
        ours = asyncio.run(_ours(case))
        assert ours == said, json.dumps(case)
        seen.add(f"{ours['result']} {ours['applied']}")
    assert seen >= {"pass none", "fail none", "fail quarantine", "fail reject", "temperror none", "none none"}
