"""Maps: files as the programs of Postfix read them, and a real node that uses maps and reads their files again."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.world.clock import SystemClock
from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import replace, until

pytestmark = pytest.mark.peer

# ---- the programs of Postfix -----------------------------------------------------------------------------------------

TEXT = """\
# a comment
ada@example.org  ada.lovelace@example.net
Sales@Example.ORG   Ada, Bob
tabbed\t\ttwo  inner   spaces
long    one
    two
# in between

\tthree
novalue
twice first
TWICE second
back slash\\
next one
"quo ted"@example.org  quoted
trailing   spaces and # no comment
key: colon
@example.net  @example.org
ä@example.org  umlaut
"""
ALIASES = """\
# a comment
postmaster: root
Root:ada, bob@example.org
"quo ted": carol
list: ada,
    bob,
# in between
    carol
\\name: dan
twice: first
twice: second
program: "|/bin/program with arguments"
file: /var/mail/archive
include: :include:/etc/list
"""
CIDR = """\
192.0.2.128/25 upper half
192.0.2.1 one
10.1.2.3/8 host bits
2001:db8::/32 six
[2001:db9::1] nine
!198.51.100.0/24 elsewhere
if 198.51.100.0/28
198.51.100.7 seven
198.51.100.0/24 low
endif
198.51.100.0/24
198.51.100.0/24 rest
"""


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration that the programs of Postfix find complete."""
    folder = tmp_path_factory.mktemp("postfix")
    (folder / "main.cf").write_text("compatibility_level = 3.6\nsmtputf8_enable = yes\nmyhostname = mx.example.org\n")
    return folder


def asked(postfix: Path, program: str, table: str, key: str) -> str | None:
    done = subprocess.run(
        [need.program(program), "-c", str(postfix), "-q", key, table], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None


def map_of(kind: MapKind, path: Path) -> Maps:
    found = make([MapOptions("it", kind, file=str(path))], SystemClock(), lambda level, text: None)
    assert isinstance(found, Maps), found
    return found


def keys_of(text: str) -> set[str]:
    """Words of a text, and what is near them."""
    words = {word.strip(":,") for word in text.split()}
    words |= {line.split(":")[0].strip('"\\') for line in text.splitlines()}
    return {key for word in words if word for key in (word, word.upper(), word.lower(), word + "x")}


@pytest.mark.parametrize(
    ("program", "kind", "text"),
    [("postmap", MapKind.TEXT, TEXT), ("postalias", MapKind.ALIASES, ALIASES)],
)
def test_a_source_gives_what_the_compiled_table_gives(
    postfix: Path, tmp_path: Path, program: str, kind: MapKind, text: str
) -> None:
    path = tmp_path / "table"
    path.write_text(text)
    subprocess.run([need.program(program), "-c", str(postfix), f"hash:{path}"], check=True, timeout=30,
                   capture_output=True)  # fmt: skip
    ours = map_of(kind, path)["it"]
    keys = sorted(keys_of(text) | {"quo ted", '"quo ted"@example.org'})
    theirs = {key: asked(postfix, program, f"hash:{path}", key) for key in keys}
    found = {key: ours.look_up(key) for key in keys}
    if kind is MapKind.ALIASES:  # postalias writes white space between targets anew; what a target is does not change
        theirs = {key: value and value.replace(" ", "") for key, value in theirs.items()}
        found = {key: (isinstance(value, str) and value.replace(" ", "")) or None for key, value in found.items()}
    assert found == theirs
    assert sum(value is not None for value in theirs.values()) > 15


@pytest.mark.parametrize(("kind", "suffix"), [(MapKind.CDB, "cdb"), (MapKind.LMDB, "lmdb")])
def test_a_table_that_postmap_has_made_is_read(postfix: Path, tmp_path: Path, kind: MapKind, suffix: str) -> None:
    path = tmp_path / "table"
    lines = "".join(f"user{number}@example.org  box{number}\n" for number in range(3000))
    path.write_text(TEXT + lines)
    made = [need.program("postmap"), "-c", str(postfix), f"{suffix}:{path}"]
    subprocess.run(made, check=True, timeout=30, capture_output=True)
    ours = map_of(kind, path.with_suffix(f".{suffix}"))["it"]
    keys = sorted(keys_of(TEXT) | {'"quo ted"@example.org'})
    assert {key: ours.look_up(key) for key in keys} == {
        key: asked(postfix, "postmap", f"{suffix}:{path}", key) for key in keys
    }
    for number in range(0, 3000, 7):
        assert ours.look_up(f"User{number}@example.org") == f"box{number}"
        assert ours.look_up(f"user{number}@example.com") is None


def test_networks_are_matched_as_postmap_matches_them(postfix: Path, tmp_path: Path) -> None:
    path = tmp_path / "networks"
    path.write_text(CIDR)
    ours = map_of(MapKind.CIDR, path)["it"]
    keys = ["192.0.2.200", "192.0.2.1", "10.1.2.3", "10.9.9.9", "2001:db8::5", "2001:db9::1", "198.51.100.7",
            "198.51.100.3", "198.51.100.77", "203.0.113.1", "::ffff:192.0.2.1"]  # fmt: skip
    theirs = {key: asked(postfix, "postmap", f"cidr:{path}", key) for key in keys}
    assert {key: ours.look_up(key) for key in keys} == theirs


REGEXP = r"""
# a comment
/^(.*)@old\.example$/   $1@example.org
/^([^+@]*)\+([^@]*)@ext\.example$/ ${1}=$(2)@x $$
/Case/i                 exact case
/any case/              any
/back\/slash/           slash
|other|                 other delimiter
/(a)\1/                 twice
/^nothing$/
/^one(two/              broken
/^(one)$/               $2
/^text$/                $1text
!/[.@]/                 no dot
if /@cond\./
/^in/                   inner
if !/x@/
/^(deep)/               $1er
endif
endif
if /@never/
/^in/                   wrong
endif
/^[[:digit:]]+\.[[:digit:]]+$/  number
/^list-(.*)-request@/   two
/end/   inner   spaces
"""
REGEXP_ONLY = r"""
/\(basic\)\{2\}/x       $1
/a\+b*/x                plus
/^(x|xy)(yz|z)?@/       longest
/\bword\b/              word
"""
PCRE_ONLY = r"""
/(?<=look)behind/       behind
/a b # comment/x        extended
/^(u+)(u*)@/U           $1
/anchored/A             anchored
/\d{3}-\d{3}/           digits
/(?i)mixed(?-i)X/       mixed
"""
KEYS = (
    "Ada@OLD.example", "ada+lists@ext.example", "Case@x.", "case@x.", "ANY CASE.", "back/slash.", "other.", "aa.",
    "one.", "nothing", "one", "text", "plain", "in@cond.x", "deep@cond.x", "deepx@cond.x", "in@never.x", "12.5",
    "list-a-request@x.", "the end.", "basicbasic.", "a+b.", "ab.", "xyz@x.", "a word.", "sword.", "lookbehind.",
    "behind.", "uuu@x.", "anchored.", "x anchored.", "123-456.", "MIXEDX.", "mixedx.", "", ".",
)  # fmt: skip


@pytest.mark.parametrize("kind", [MapKind.REGEXP, MapKind.PCRE])
def test_patterns_match_as_postmap_matches_them(postfix: Path, tmp_path: Path, kind: MapKind) -> None:
    path = tmp_path / "patterns"
    path.write_text((REGEXP_ONLY if kind is MapKind.REGEXP else PCRE_ONLY) + REGEXP)
    ours = map_of(kind, path)["it"]
    theirs = {key: asked(postfix, "postmap", f"{kind.value}:{path}", key) for key in KEYS if key}
    assert {key: ours.look_up(key) for key in theirs} == theirs


# ---- a node ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "virtual").write_text("sales@example.org  ada, bob\n@old.example  @example.org\n")
    (folder / "people").write_text("ada@example.org 1\nbob@example.org 1\n")
    (folder / "teams").write_text("/^team-(.*)@example\\.org$/ ada\n/^never@/ bob\n")
    made = Node(folder, {
        "listener": [mx_listener(ports.port(), tls="none")], "alias_maps": ["virtual", "teams"],
        "map": [{"name": "virtual", "kind": "text", "file": "virtual"},
                {"name": "people", "kind": "text", "file": "people"},
                {"name": "teams", "kind": "regexp", "file": "teams"}],
        "domain": [local_domain("example.org", [], recipient_maps=["people"]), local_domain("old.example", ["carol"])],
    })  # fmt: skip
    with made:
        yield made


def _send(node: Node, *to: str) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        try:
            return client.sendmail("sender@remote.example", to, "Subject: hello\r\n\r\nhello\r\n")
        except smtplib.SMTPRecipientsRefused as refused:
            return refused.recipients


def test_a_node_expands_aliases_and_knows_recipients_by_maps(node: Node) -> None:
    refused = _send(node, "sales@example.org", "bob+x@old.example", "eve@example.org", "eve@old.example")
    assert {address: code for address, (code, _) in refused.items()} == {"eve@example.org": 550, "eve@old.example": 550}
    maildir.wait(node.maildir("ada@example.org"))
    maildir.wait(node.maildir("bob@example.org"))


def test_a_changed_file_comes_into_force_and_a_broken_one_does_not(node: Node) -> None:
    people = node.directory / "people"
    assert _send(node, "dora@example.org")["dora@example.org"][0] == 550
    replace(people, "ada@example.org 1\nbob@example.org 1\ndora@example.org 1\n")

    def is_known() -> bool:
        return not any(_send(node, "dora@example.org") for _ in range(16))  # the kernel spreads them over both workers

    until(is_known, "both workers know dora", within_s=60, pause_s=0.5)
    replace(people, b"\xff\xff broken\n")
    node.wait_log("the old entries of map people stay in force", within_s=60)
    assert is_known()
    assert "map people" in node.log(1000)


def test_the_counts_of_maps_are_listed(node: Node) -> None:
    _send(node, "sales@example.org")
    found = {each["name"]: each for each in node.json("map", "list")}
    virtual = found["virtual"]
    assert (virtual["kind"], virtual["entries"], virtual["away"]) == ("text", 2, "")
    assert 1 <= virtual["used"] <= 2  # earlier tests have used the other one
    assert virtual["asked"] >= virtual["found"] >= 1 and found["people"]["not_now"] == 0
    assert "virtual" in node.command("map", "list")


def test_which_entries_were_used_is_listed(node: Node) -> None:
    _send(node, "sales@example.org")
    found = {each["key"]: each for each in node.json("map", "entries", "virtual")}
    assert found["sales@example.org"]["used_us"] > 1_700_000_000_000_000 and len(found) == 2
    assert "sales@example.org" not in node.command("map", "entries", "virtual", "--unused")
    assert "sales@example.org" in node.command("map", "entries", "virtual")
    node.command("map", "entries", "nothing", code=1)
    _send(node, "team-x@example.org")
    used, unused = node.json("map", "entries", "teams")
    assert used["key"] == r"line 1: /^team-(.*)@example\.org$/" and used["used_us"] > 1_700_000_000_000_000
    assert (unused["key"], unused["value"], unused["used_us"]) == ("line 2: /^never@/", "bob", 0)


def test_an_operator_asks_a_map_and_is_told_what_is_wrong(node: Node) -> None:
    found = node.json("map", "test", "virtual", "sales+x@example.org")
    assert [(each["step"], each["value"]) for each in found][:2] == [
        ("whole address", None), ("without extension", "ada, bob"),
    ]  # fmt: skip
    assert "whole domain" in node.command("map", "test", "virtual", "x@old.example")
    node.command("map", "test", "virtual", "nobody@example.org", code=1)
    said = node.command("map", "test", "other", "x", code=1)
    assert "There is no map 'other'; the maps are: virtual, people, teams" in said
    replace(node.directory / "people", "ada@example.org 1\nbob\n")
    assert "'bob' has no value" in node.command("check", code=None)


def test_a_reload_takes_changed_maps_and_refuses_wrong_ones(node: Node) -> None:
    replace(node.directory / "people", "ada@example.org 1\nbob@example.org 1\n")
    before = node.config["map"]
    assert _send(node, "fresh@example.org")["fresh@example.org"][0] == 550
    node.config["map"] = [{"name": "virtual", "kind": "inline", "entries": ["fresh@example.org  ada"]}, *before[1:]]
    node.write()
    node.command("reload")
    assert not _send(node, "fresh@example.org")
    assert _send(node, "sales@example.org")["sales@example.org"][0] == 550
    node.config["map"] = [{"name": "virtual", "kind": "text", "file": "gone"}, *before[1:]]
    node.write()
    assert "no such file" in node.command("reload", code=None)
    assert not _send(node, "fresh@example.org")
    node.config["map"] = before
    node.write()
    node.command("reload")
    assert not _send(node, "sales@example.org")
