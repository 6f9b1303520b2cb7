"""The targets by name, with the words that a mutation may put in, and where their inputs are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.fuzz import bdat, client, dkim, grammar, inbound, porter, server, spf, sts, trust

HERE = Path(__file__).parent

_COMMON = (
    b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\r.\r", b"..", b" ", b"\t", b"\xc3\xa4",
    b"\xff", b"x" * 64,
)  # fmt: skip
_COMMANDS = (
    b"EHLO a.example\r\n", b"LHLO a.example\r\n", b"HELO a.example\r\n", b"MAIL FROM:<a@b.example>\r\n",
    b"MAIL FROM:<> SIZE=9 BODY=BINARYMIME SMTPUTF8\r\n", b"RCPT TO:<c@d.example>\r\n", b"RCPT TO:<nobody@d>\r\n",
    b"DATA\r\n", b"BDAT 3\r\n", b"BDAT 90\r\n", b"BDAT 7 LAST\r\n", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"NOOP\r\n",
    b"QUIT\r\n", b"VRFY x\r\n", b"EXPN x\r\n", b"HELP\r\n", b"ETRN x\r\n", b"STARTTLS\r\n", b"AUTH LOGIN\r\n",
    b"AUTH PLAIN =\r\n", b"*\r\n", b"AHRpbQBzZWNyZXQ=\r\n", b"XCLIENT ADDR=192.0.2.1\r\n", b"XFORWARD NAME=x\r\n",
    b"\x16\x03\x01", b"Subject: x\r\n\r\n", b" LAST",
)  # fmt: skip
_REPLIES = (
    b"220 mx\r\n", b"250 2.0.0 ok\r\n", b"250-mx\r\n", b"250-PIPELINING\r\n", b"250-CHUNKING\r\n", b"250-STARTTLS\r\n",
    b"250-AUTH PLAIN LOGIN\r\n", b"250 XFORWARD NAME\r\n", b"250 SIZE 9\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n",
    b"450 4.2.1 later\r\n", b"452 4.5.3 many\r\n", b"550 5.1.1 no\r\n", b"334 \r\n", b"334 YQ==\r\n", b"235 in\r\n",
    b"535 5.7.8 no\r\n", b"503 no\r\n", b"221 bye\r\n",
)  # fmt: skip
_WORDS = (
    b"MAIL FROM:<", b"RCPT TO:<", b">", b"@", b'"', b"\\", b"[IPv6:", b"]", b"<>", b"a@b.example", b"@a,@b:", b"xn--",
    b" SIZE=1", b" BODY=8BITMIME", b" SMTPUTF8", b" RET=HDRS", b" ENVID=", b" AUTH=", b" AUTH=<>", b" NOTIFY=NEVER",
    b" NOTIFY=SUCCESS,DELAY", b" ORCPT=rfc822;", b" ORCPT=utf-8;", b"\\x{", b"}", b"+0A", b"+2B", b" BY=9;R",
    b" HOLDFOR=9", b" HOLDUNTIL=2030-01-01T00:00:00Z", b" MT-PRIORITY=-3", b" RRVS=2014-04-03T23:01:00Z;C",
    b" REQUIRETLS", b"NAME=", b"ADDR=IPV6:", b"[UNAVAILABLE]", b"PROXY TCP4 ", b"PROXY TCP6 ", b"192.0.2.1 ", b"\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", b"\xe3\x80\x82", b"\xc2\xa0", b"\x85", b"\xe2\x80\xa8",
)  # fmt: skip

_FRAMES = (
    b"\x9b", b"\x9a", b"\x92", b"\x93", b"\xc0", b"\xc2", b"\xc3", b"\xc4\x01x", b"\xcf" + b"\xff" * 8,
    b"\xabdir.example", b"\xacfile.example", b"\xacprog.example", b"\xa3ada", b"\xa2..", b"\xa6../../", b"\xa2-x",
    b"\xa4root", b"\xa1\n", b"\xa1\0", b"\xb0AAAAAAAAAAAAAAAA", b"\xa52.0.0", b"\xa9delivered", b"\xdb\xff\xff\xff\xff",
)  # fmt: skip


_RESULTS = (
    b"mx.example.org", b"; ", b"spf=pass", b" smtp.mailfrom=", b"dkim=fail", b" header.d=", b" header.i=@",
    b" header.b=", b"dmarc=none", b" policy.dmarc=", b" reason=", b"none", b"a.example",
    b"a@b.example", b'"', b"\\", b"(", b")", b"=",
    b"/1", b" 1", b"\r\n ", b"xn--bcher-kva.example", b"b\xc3\xbccher.example",
)  # fmt: skip
_POLICIES = (
    b"v=DMARC1; p=reject", b"; sp=none", b"; np=reject", b"; p=quarantine", b"; psd=y", b"; psd=n", b"; t=y",
    b"; adkim=s", b"; aspf=s", b"; rua=mailto:a@b.example", b"!10m", b",", b"; ruf=", b"; fo=1:d",
    b"; fo=0:1", b";", b"=", b" ",
    b"\n ada@a.b.example.org", b"\n ", b"<a@b.example>", b"@", b'"', b"(", b")", b":", b"a@[192.0.2.1]",
    b"a.b.c.d.e.f.",
)  # fmt: skip
_SIGNATURES = (
    b"DKIM-Signature: ", b"ARC-Seal: i=1; ", b"ARC-Message-Signature: i=1; ",
    b"ARC-Authentication-Results: i=1; x\r\n", b"v=1;", b" a=rsa-sha256;", b" a=ed25519-sha256;",
    b" c=relaxed/relaxed;", b" c=simple;", b" d=example.org;", b" s=e1;", b" h=from:to;", b" h=from:from;", b" bh=",
    b" b=", b" l=0;", b" l=9;", b" t=1;", b" x=2;", b" i=@example.org;", b" q=dns/txt;", b" cv=none;", b" cv=pass;",
    b" cv=fail;", b"v=DKIM1;", b" k=rsa;", b" k=ed25519;", b" p=", b" t=s;", b" t=y;", b" h=sha256;", b" s=email;",
    b" n=x;", b"From: a@example.org\r\n", b";", b"=", b":", b"\r\n ", b"\r\n\t", b" \r\n", b"A" * 43 + b"=",
)  # fmt: skip
_TERMS = (
    b"v=spf1 ", b" a", b" mx", b" ptr", b" -all", b" ~all", b" ?all", b" ip4:192.0.2.0/24", b" ip6:2001:db8::/32",
    b" include:", b" exists:", b" redirect=", b" exp=why.example", b"pass.example", b"fail.example", b"h.example",
    b"loop.example", b"broken.example", b"/24", b"//64", b"%{", b"}", b"%{s}", b"%{l1r+-}", b"%{d2}", b"%{ir}", b"%{p}",
    b"%{H}", b"%%", b"%_", b"%-", b".example", b"\n", b"=", b":",
)  # fmt: skip


_STS = (
    b"v=STSv1; id=1", b"; ", b"=", b"\n\n", b"version: STSv1\n", b"mode: enforce\n", b"mode: testing\n",
    b"mode: none\n", b"mx: ", b"mx: mx.a.example\n", b"*.", b"a.example", b"max_age: 86400\n", b"31557601", b": ", b":",
    b"192.0.2.1",
)  # fmt: skip


_REPORTS = (
    b"<feedback>", b"</feedback>", b"<record>", b"</record>", b"<row>", b"<count>", b"9", b"<source_ip>", b"<domain>",
    b"<!DOCTYPE x>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"&amp;", b"&", b"&#x0;", b"<?xml version='1.0'?>",
    b"<a:b xmlns:a='c'>", b'{"policies":[', b'{"policy":{"policy-domain":"a"}}', b"]}", b"null", b'"', b"\\u0000",
    b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x1f\x8b\x08\0", b"--cut\r\n", b"--cut--", b"Content-Type: ",
    b"multipart/mixed; boundary=cut\r\n", b"message/rfc822\r\n\r\n", b"message/feedback-report\r\n\r\n",
    b"Content-Transfer-Encoding: base64\r\n", b"Feedback-Type: ",
)  # fmt: skip


class Check(Protocol):
    def __call__(self, data: bytes, *, hasty: bool = False) -> None: ...


@dataclass(frozen=True)
class Target:
    """`check` raises where an input breaks a promise; `hasty`: by a sample of what can be compared, so that a long run
    tries more inputs. `words`: pieces that its inputs are made of."""

    name: str
    check: Check
    words: tuple[bytes, ...]

    @property
    def corpus(self) -> Path:
        """Seeds, made by `tests.fuzz.seeds`."""
        return HERE / "corpus" / self.name

    @property
    def found(self) -> Path:
        """What once broke something."""
        return HERE / "found" / self.name

    def inputs(self) -> Iterator[tuple[str, bytes]]:
        """All that is kept, with its name."""
        for folder in (self.corpus, self.found):
            for path in sorted(folder.glob("*")):
                yield f"{folder.parent.name}/{path.name}", path.read_bytes()


TARGETS = {
    target.name: target
    for target in (
        Target("server", server.check, _COMMON + _COMMANDS),
        Target("client", client.check, _COMMON + _REPLIES),
        Target("grammar", grammar.check, _COMMON + _WORDS),
        Target("bdat", bdat.check, _COMMON),
        Target("porter", porter.check, _COMMON + _FRAMES),
        Target("authres", trust.check_authres, _COMMON + _RESULTS),
        Target("sts", sts.check, _COMMON + _STS),
        Target("spf", spf.check, _COMMON + _TERMS),
        Target("dmarc", trust.check_dmarc, _COMMON + _POLICIES),
        Target("reports", inbound.check, _COMMON + _REPORTS),
        Target("dkim", dkim.check, _COMMON + _SIGNATURES),
    )
}
