"""MTA-STS: the record and the policy file (RFC 8461 §3.1, §3.2)."""

from __future__ import annotations

import pytest

from postroad.mail.tls_policy import StsMode, StsPolicy
from postroad.trust import sts
from postroad.trust.sts import StsFault

EXAMPLE = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\n"
    b"max_age: 604800\r\n"
)


def read(octets: bytes) -> tuple[StsPolicy, tuple[str, ...]] | StsFault:
    return sts.read_policy(octets, "example.com", "1")


def policy(octets: bytes) -> StsPolicy:
    found = read(octets)
    assert isinstance(found, tuple), found
    return found[0]


@pytest.mark.parametrize(("texts", "id"), [
    (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),  # the example of §3.1
    (["v=STSv1;id=1"], "1"),
    (["v=STSv1 \t;\t id=1 ;"], "1"),  # erratum 6285: the grammar allows this, the text does not
    (["v=STSv1; x.y-z_1=a:<>~; id=1; id=2"], "1"),
    (["something else", "v=STSv1; id=a", "v=STSv2; id=b", "v=STSv10; id=c"], "a"),
    ([], ""),
    (["v=spf1 -all", "V=STSv1; id=1", " v=STSv1; id=1", "id=1; v=STSv1"], ""),
])  # fmt: skip
def test_the_id_of_a_record(texts: list[str], id: str) -> None:
    assert sts.record_id(texts) == id


@pytest.mark.parametrize(("texts", "fault"), [
    (["v=STSv1; id=1", "v=STSv1; id=1"], "there are 2 records"),
    (["v=STSv1"], "no id"),
    (["v=STSv1;"], "no id"),
    (["v=STSv1; ID=1"], "no id"),
    (["v=STSv1; id="], "1 to 32 letters and digits"),
    (["v=STSv1; id=2024-01-01"], "1 to 32 letters and digits"),
    (["v=STSv1; id = 1"], "a field that is not allowed: 'id = 1'"),
    (["v=STSv1; id=" + "1" * 33], "1 to 32 letters and digits"),
    (["v=STSv1; id=1;; x=1"], "not allowed: ''"),
    (["v=STSv1; id=1; x=a b"], "not allowed: 'x=a b'"),
    (["v=STSv1; id=1; x"], "not allowed: 'x'"),
    (["v=STSv1; id=1; x=ä"], "not ASCII"),
])  # fmt: skip
def test_a_record_that_is_wrong_says_why(texts: list[str], fault: str) -> None:
    found = sts.record_id(texts)
    assert isinstance(found, StsFault) and fault in found.text


def test_the_example_of_the_rfc() -> None:
    found = policy(EXAMPLE)
    assert found == StsPolicy(
        "example.com", "1", StsMode.ENFORCE, ("mail.example.com", "*.example.net", "backupmx.example.com"), 604_800,
        tuple(EXAMPLE.decode().splitlines()),
    )  # fmt: skip
    assert policy(EXAMPLE.replace(b"\r\n", b"\n")) == found  # erratum 6253
    assert policy(EXAMPLE.rstrip()) == found
    assert policy(EXAMPLE.replace(b"\r\n", b" \t\r\n")) == found
    assert policy(EXAMPLE.replace(b": ", b":\t ")).mx == found.mx


@pytest.mark.parametrize(("old", "new", "fault"), [
    (b"version: STSv1\r\n", b"", "no version"),
    (b"STSv1", b"STSv2", "the version 'STSv2', not STSv1"),
    (b"version: ", b"Version: ", "no version"),
    (b"enforce", b"Enforce", "the mode 'Enforce'"),
    (b"enforce", b"report", "the mode 'report'"),
    (b"mode: enforce\r\n", b"", "no mode"),
    (b"604800", b"-1", "no number of seconds"),
    (b"604800", b"1e9", "no number of seconds"),
    (b"604800", "１".encode(), "no number of seconds"),
    (b"604800", b"12345678901", "no number of seconds"),
    (b"max_age: 604800\r\n", b"", "no max_age"),
    (b"max_age:", b"max-age:", "no max_age"),
    (b"mx:", b"nmx:", "has no mx"),
    (b"example", b"ex ample", "no usable mx"),
    (b"STSv1", b"STSv1\xff", "not UTF-8"),
    (b"STSv1", b"STSv1\n" + b"x" * sts.FILE_MAX, "more than 65536 octets"),
    (b"STSv1", b"STSv1" + b"\nx: y" * sts.LINES_MAX, "more than 2000 lines"),
    (b"mx: mail", b"".join(b"mx: %d.example\n" % n for n in range(sts.PATTERNS_MAX)) + b"mx: mail", "more than 500 mx"),
])  # fmt: skip
def test_a_policy_that_is_wrong_says_why(old: bytes, new: bytes, fault: str) -> None:
    found = read(EXAMPLE.replace(old, new))
    assert isinstance(found, StsFault) and fault in found.text


def test_an_html_page_is_no_policy() -> None:
    assert isinstance(read(b"<!doctype html>\n<html><body>mode: enforce</body></html>\n"), StsFault)
    assert isinstance(read(b""), StsFault)


def test_of_a_field_that_is_there_twice_the_first_counts() -> None:
    found = policy(b"version: STSv1\nmode: none\nmax_age: 9\nmode: enforce\nmax_age: 8\nversion: STSv2\n")
    assert (found.mode, found.max_age_s, found.mx) == (StsMode.NONE, 9, ())


def test_what_is_not_known_is_passed_over() -> None:
    more = b"\r\nnew_field: x y\r\n# a comment\r\nmx: 192.0.2.1\r\nmx: .example\r\nmode"
    found = read(EXAMPLE.replace(b"mode", more))
    assert isinstance(found, tuple)
    assert found[0].mx == policy(EXAMPLE).mx
    assert [each.partition(":")[0] for each in found[1]] == ["line 4 is not a name and a value with '", "mx", "mx"]


def test_the_longest_time_is_a_year() -> None:
    found = read(EXAMPLE.replace(b"604800", b"9999999999"))
    assert isinstance(found, tuple) and found[0].max_age_s == sts.AGE_MAX_S and "9999999999" in found[1][0]


@pytest.mark.parametrize("text", [
    "", "*", "*.", "*.*.example", "a.*.example", "192.0.2.1", "*.2.1", "[192.0.2.1]", "2001:db8::1", "a..example",
    ".example", "example.", "-a.example", "a-.example", "bücher.example", "a.example:25", "a" * 64 + ".example",
    "a." * 127 + "ab",
])  # fmt: skip
def test_what_no_host_can_match(text: str) -> None:
    assert not sts.is_pattern(text)


@pytest.mark.parametrize("text", ["mail", "a.example", "*.a.example", "*.example", "x_1.a-b.example", "1.2.3.a"])
def test_patterns(text: str) -> None:
    assert sts.is_pattern(text)


@pytest.mark.parametrize(("pattern", "host", "matches"), [
    ("mail.example.com", "mail.example.com", True),
    ("mail.example.com", "a.mail.example.com", False),
    ("*.example.com", "mail.example.com", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", "foo.bar.example.com", False),
    ("example.com", "mail.example.com", False),
    ("*.com", "example.com", True),
    ("com", "com", True),
    ("*.com", "com", False),
])  # fmt: skip
def test_which_hosts_a_pattern_names(pattern: str, host: str, matches: bool) -> None:
    assert StsPolicy("example.com", "1", StsMode.ENFORCE, (pattern,), 9).names(host) is matches


@pytest.mark.parametrize(("field", "is_text"), [
    ("text/plain", True), ("Text/Plain; charset=utf-8", True), ("text/plain;charset=iso-8859-1;x", True),
    ("text/plain ;a", True), ("", False), ("text/html", False), ("text/plainer", False),
    ("application/text/plain", False),
])  # fmt: skip
def test_media_types(field: str, is_text: bool) -> None:
    assert sts.is_text(field) is is_text


def test_what_we_serve_is_read_again() -> None:
    ours = StsPolicy("example.com", "1", StsMode.TESTING, ("mx.example.com", "*.example.net"), 86_400)
    served = sts.policy_file(ours)
    assert served == (
        b"version: STSv1\r\nmode: testing\r\nmx: mx.example.com\r\nmx: *.example.net\r\nmax_age: 86400\r\n"
    )
    again = policy(served)
    assert (again.mode, again.mx, again.max_age_s) == (ours.mode, ours.mx, ours.max_age_s)


def test_where_record_and_policy_are() -> None:
    assert sts.record_name("example.com") == "_mta-sts.example.com"
    assert sts.policy_url("example.com") == "https://mta-sts.example.com/.well-known/mta-sts.txt"
    assert sts.policy_url("example.com", 8443) == "https://mta-sts.example.com:8443/.well-known/mta-sts.txt"
