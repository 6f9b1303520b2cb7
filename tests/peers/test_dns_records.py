"""`postroad dns show` and `dns check` against Knot, with other programs as judges of the records."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest
import spf

from postroad.trust import keyring
from postroad.trust.dkim_key import KeyKind
from postroad.world.key_digests import KeyDigest, key_digest
from tests.peers.harness import need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.unpacked import CACHE

pytestmark = pytest.mark.peer

ZONE = "records.example"
HOST = f"mx.{ZONE}"
ADDRESS = "192.0.2.1"
REVERSE = "2.0.192.in-addr.arpa"
POLICY_HOST = f"mta-sts.{ZONE}"


class PolicyServer:
    """Gives one file by HTTPS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.text = b""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/.well-known/mta-sts.txt" else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(server.text)))
                self.end_headers()
                self.wfile.write(server.text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> PolicyServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Place:
    """A node that does not run, its DNS server, and the server of its policy file."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "tls")
        self.certificate, key = self.authority.certificate(HOST)
        self.next_key = self.authority.certificate(f"next.{ZONE}")[1]
        self.policy = PolicyServer(self.authority.server_context(POLICY_HOST))
        self.knot = Knot(folder / "knot", {ZONE: "", REVERSE: "", "other.example": ""}, negative_s=0)
        (folder / "f.pem").write_text(keyring.made("f", keyring.generate(KeyKind.ED25519, 0), 0).private)
        (folder / "f.pem").chmod(0o600)
        self.node = Node(folder / "node", {
            "hostname": HOST,
            "listener": [mx_listener(ports.port())],
            "domain": [local_domain(ZONE)],
            "dns": {"servers": [f"127.0.0.1:{self.knot.port}"], "timeout_s": 2},
            "tls": {
                "certificate": str(self.certificate), "key": str(key), "next_certificates": [str(self.next_key)],
            },
            "mta_sts": {"port": self.policy.port, "ca_file": str(self.authority.file)},
            "mx": {"loopback": True},
            "dkim": {"key": [{"domain": ZONE, "selector": "f", "file": str(folder / "f.pem")}]},
            "report_mailboxes": {"addresses": [f"dmarc@{ZONE}", f"tls-reports@{ZONE}"]},
        })
        self.node.command("dkim", "add", ZONE, "--selector", "a")

    def show(self, *options: str) -> str:
        return self.node.command("dns", "show", ZONE, "--address", ADDRESS, *options)

    def publish(self, text: str, ptr: str = HOST) -> None:
        """What was shown goes into the zone of the domain as it is, and into that of the address."""
        self.knot.change(ZONE, f"{text}\n{POLICY_HOST}. IN A 127.0.0.1\n")
        self.knot.change(REVERSE, f"1 IN PTR {ptr}." if ptr else "")

    def check(self, code: int | None = None) -> dict[tuple[str, str], dict[str, Any]]:
        said = self.node.command("dns", "check", ZONE, "--address", ADDRESS, "--json", code=code)
        return {(each["kind"], each["name"]): each for each in json.loads(said[: said.rindex("]") + 1])}

    def ask(self, name: str, kind: str) -> list[Any]:
        answer = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", 3, self.knot.port)
        return [record for found in answer.answer for record in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("records"))
    with made.knot, made.policy:
        yield made


def _wrong(found: dict[tuple[str, str], dict[str, Any]]) -> set[tuple[str, str]]:
    return {key for key, each in found.items() if each["standing"] == "wrong"}


def test_what_is_shown_is_what_the_check_wants(place: Place) -> None:
    text = place.show()
    place.publish(text)
    place.policy.text = json.loads(place.show("--json"))["policy_file"].encode()
    found = place.check(code=0)
    assert {each["standing"] for each in found.values()} == {"ok", "advice"}
    # Only the DNS server of the test keeps this from being all right: it does not validate.
    assert [key for key, each in found.items() if each["standing"] == "advice"] == [("TLSA", f"_25._tcp.{HOST}")]
    # The keys of the store, and the one that the settings name.
    for selector in ("a-rsa", "a-ed25519", "f"):
        assert ("DKIM", f"{selector}._domainkey.{ZONE}") in found
    assert "not proved by DNSSEC" in found["TLSA", f"_25._tcp.{HOST}"]["told"]
    assert [str(each) for each in place.ask(ZONE, "MX")] == [f"10 {HOST}."]


def test_tlsa_records_are_what_openssl_computes(place: Place) -> None:
    openssl = need.program("openssl")
    place.publish(place.show())
    found = {str(each) for each in place.ask(f"_25._tcp.{HOST}", "TLSA")}
    script = (
        f"({openssl} x509 -in {place.certificate} -noout -pubkey | {openssl} pkey -pubin -outform DER | "
        f"{openssl} dgst -sha256 -r); "
        f"{openssl} pkey -in {place.next_key} -pubout -outform DER | {openssl} dgst -sha256 -r"
    )
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert found == {f"3 1 1 {line.split()[0]}" for line in said.splitlines()}
    assert len(found) == 2


def test_pyspf_passes_what_is_shown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish(place.show())

    def look_up(name: str, kind: str, *_: object, **__: object) -> list[Any]:
        found = place.ask(name.rstrip("."), kind)
        return [
            ((name, kind), each.strings if kind == "TXT" else each.address) for each in found if kind in ("TXT", "A")
        ]

    monkeypatch.setattr(spf, "DNSLookup", look_up)
    for sender, helo in ((f"ada@{ZONE}", HOST), ("", HOST)):
        assert spf.check2(i=ADDRESS, s=sender, h=helo)[0] == "pass"
        assert spf.check2(i="192.0.2.9", s=sender, h=helo)[0] == "fail"


CHECKDMARC = CACHE / "parsedmarc" / "bin" / "python"
CHECKING = """
import json, sys
import dns.resolver
from checkdmarc import dmarc, mta_sts, smtp_tls_reporting, spf
asked = json.load(sys.stdin)
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], asked["port"]
how = {"resolver": resolver, "timeout": 3.0}
json.dump({
    "spf": spf.parse_spf_record(asked["spf"], asked["zone"], **how),
    "dmarc": dmarc.parse_dmarc_record(asked["dmarc"], asked["zone"], **how),
    "sts": mta_sts.parse_mta_sts_record(asked["sts"]),
    "policy": mta_sts.parse_mta_sts_policy(asked["policy"]),
    "reporting": smtp_tls_reporting.parse_smtp_tls_reporting_record(asked["reporting"]),
}, sys.stdout, default=str)
"""


def test_checkdmarc_takes_what_is_shown(place: Place) -> None:
    if not CHECKDMARC.with_name("checkdmarc").exists():
        need.missing("checkdmarc is not installed (make peers installs it)")
    place.publish(place.show())
    names = {"spf": ZONE, "dmarc": f"_dmarc.{ZONE}", "sts": f"_mta-sts.{ZONE}", "reporting": f"_smtp._tls.{ZONE}"}
    asked: dict[str, Any] = {what: b"".join(place.ask(name, "TXT")[0].strings).decode() for what, name in names.items()}
    asked |= {"zone": ZONE, "port": place.knot.port, "policy": json.loads(place.show("--json"))["policy_file"]}
    ended = subprocess.run(
        [CHECKDMARC, "-c", CHECKING], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["spf"]["dns_lookups"], found["spf"]["warnings"]) == (1, [])
    assert all("enforced" in each for each in found["dmarc"]["warnings"])  # p=none is what it warns of
    assert found["sts"]["warnings"] == []
    assert found["policy"]["policy"]["mx"] == [HOST]
    assert found["reporting"]["tags"]["rua"]["value"] == [f"mailto:tls-reports@{ZONE}"]


def test_opendkim_testkey_finds_the_key(place: Place, tmp_path: Path) -> None:
    program = need.program("opendkim-testkey")
    need.root()
    address = ports.address()
    store = json.loads((place.node.state / "dkim" / f"{ZONE}.json").read_bytes())
    [private] = [each["private"] for each in store["keys"] if each["selector"] == "a-rsa"]
    key = tmp_path / "key.pem"
    key.write_text(private)
    key.chmod(0o600)
    (tmp_path / "opendkim.conf").write_text(f"Nameservers {address}\n")
    with Knot(tmp_path / "knot", {ZONE: place.show()}, address=address, port=53):  # it asks no other port
        ended = subprocess.run(
            [program, "-x", str(tmp_path / "opendkim.conf"), "-d", ZONE, "-s", "a-rsa", "-k", str(key), "-vvv"],
            capture_output=True, text=True, check=False, timeout=60,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("before", "after", "place_of", "effect"),
    [
        (f"{ZONE}. IN MX 10 {HOST}.", f"{ZONE}. IN MX 10 other.{ZONE}.", ("MX", ZONE), "does not come to this node"),
        (f"{ZONE}. IN MX 10 {HOST}.", f"{ZONE}. IN MX 0 .", ("MX", ZONE), "nobody can send mail"),
        (f"{ZONE}. IN MX 10 {HOST}.", "", ("MX", ZONE), "address of the domain's own name"),
        (f'"v=spf1 a:{HOST} -all"', '"v=spf1 ip4:192.0.2.9 -all"', ("SPF", ZONE), "refuse or distrust"),
        (f'"v=spf1 a:{HOST} -all"', f'"v=spf1 a:{HOST} -all"\n{ZONE}. IN TXT "v=spf1 -all"', ("SPF", ZONE),
         "refuse or distrust"),
        (f'"v=spf1 a:{HOST} -all"', '"hello"', ("SPF", ZONE), "cannot tell who may send"),
        ('"v=spf1 a -all"', '"v=spf1 -all"', ("SPF", HOST), "reports of this node"),
        ("a-ed25519._domainkey", "b-ed25519._domainkey", ("DKIM", f"a-ed25519._domainkey.{ZONE}"), "does not sign"),
        ("k=ed25519; p=", "k=ed25519; p=AA", ("DKIM", f"a-ed25519._domainkey.{ZONE}"), "does not sign"),
        ("v=DMARC1;", "v=DMARC9;", ("DMARC", f"_dmarc.{ZONE}"), "refuse much mail"),
        ("rua=mailto:dmarc@records.example", "rua=mailto:x@other.example",
         ("DMARC", f"{ZONE}._report._dmarc.other.example"), "nobody sends reports"),
        (f"{HOST}. IN A {ADDRESS}", f"{HOST}. IN A 192.0.2.8", ("A/AAAA", HOST), "leads back"),
        ("v=STSv1; id=", "v=STSv1; id=-", ("MTA-STS", f"_mta-sts.{ZONE}"), "as if it had no MTA-STS"),
        (" IN TLSA 3 1 1 ", " IN TLSA 3 1 1 00", ("TLSA", f"_25._tcp.{HOST}"), "DANE do not deliver"),
    ],
)  # fmt: skip
def test_each_difference_is_named_with_its_effect(
    place: Place, before: str, after: str, place_of: tuple[str, str], effect: str
) -> None:
    text = place.show()
    assert before in text
    changed = text.replace(before, after) if " 3 1 1 " not in before else _cut(text)
    place.publish(changed)
    place.policy.text = json.loads(place.show("--json"))["policy_file"].encode()
    found = place.check(code=1)
    assert place_of in _wrong(found), found
    assert effect in found[place_of]["effect"], found[place_of]
    said = place.node.command("dns", "check", ZONE, "--address", ADDRESS, code=1)
    assert "WRONG" in said
    assert found[place_of]["effect"] in said


def _cut(text: str) -> str:
    """Other digests in the TLSA records."""
    lines = [line[:-8] + "00000000" if " IN TLSA " in line else line for line in text.splitlines()]
    return "\n".join(lines)


def test_tlsa_records_of_an_authority_are_judged_as_senders_do(place: Place) -> None:
    authority = key_digest(str(place.authority.file))
    assert isinstance(authority, KeyDigest)
    others = "\n".join(line for line in place.show().splitlines() if " IN TLSA " not in line)
    place.policy.text = json.loads(place.show("--json"))["policy_file"].encode()
    name = ("TLSA", f"_25._tcp.{HOST}")
    # The node does not send the certificate of the authority, so its digest proves nothing; all of it does.
    for value, wrong in ((f"2 1 1 {authority.sha256}", {name}), (f"2 0 0 {authority.chain[0].hex()}", set())):
        place.publish(f"{others}\n_25._tcp.{HOST}. IN TLSA {value}")
        assert _wrong(place.check()) == wrong
    place.publish(f"{others}\n_25._tcp.{HOST}. IN TLSA 1 1 1 {'ab' * 32}")
    assert "of use for SMTP" in place.check(code=0)[name]["told"]


def test_policy_file_reverse_name_and_a_dns_that_does_not_answer(place: Place) -> None:
    text = place.show()
    place.publish(text, ptr="")
    url = ("MTA-STS", f"https://{POLICY_HOST}/.well-known/mta-sts.txt")
    place.policy.text = b"version: STSv1\r\nmode: enforce\r\nmx: other.example\r\nmax_age: 86400\r\n"
    found = place.check(code=1)
    assert _wrong(found) == {url, ("PTR", ADDRESS)}
    assert "do not deliver to this node" in found[url]["effect"]
    assert "refuse mail from an address" in found["PTR", ADDRESS]["effect"]
    place.policy.text = b"no policy"
    assert "has no version" in place.check(code=1)[url]["told"]
    place.knot.stop()
    try:
        assert {each["standing"] for each in place.check(code=2).values()} == {"unknown"}
    finally:
        place.knot.start()
