"""What the program writes, the node reads: the lines of a request."""

from __future__ import annotations

import pytest

from postroad.mail.envelope import Body, Notify, Ret
from postroad.receive import local_request
from postroad.receive.local_request import LocalRequest
from postroad.sendmail import arguments, request
from postroad.sendmail.exits import End


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ann", LocalRequest("submit", None, ("ann",), size=7)),
        ("-f <> ann bob", LocalRequest("submit", "", ("ann", "bob"), size=7)),
        ("-f me@x.test -F Jürgen -t -oem", LocalRequest(
            "submit", "me@x.test", (), "Jürgen", extract=True, mail_errors=True, size=7,
        )),
        ("-N delay,failure -R full -V e -B8bitmime a", LocalRequest(
            "submit", None, ("a",), notify=Notify.DELAY | Notify.FAILURE, ret=Ret.FULL, envid="e",
            body=Body.EIGHT_BIT_MIME, size=7,
        )),
    ],
)  # fmt: skip
def test_the_node_reads_what_the_program_writes(line: str, expected: LocalRequest) -> None:
    octets = request.submit(arguments.read("sendmail", line.split()), 7)
    assert local_request.end(octets) == len(octets) == local_request.end(octets + b"content\n\n")
    assert local_request.end(octets[:-1]) == -1
    assert local_request.read(octets) == expected


def test_a_value_that_is_no_line_is_refused() -> None:
    found = arguments.read("sendmail", ["ann\nto eve"])
    with pytest.raises(End):
        request.submit(found, 0)


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"submit 2\n\n", "version"),
        (b"submit\n\n", "version"),
        (b"become-root 1\n\n", "no such request"),
        (b"submit 1\nfrom a\nfrom b\n\n", "twice"),
        (b"submit 1\nto a\x01\n\n", "control"),
        (b"submit 1\nto a\r\n\n", "control"),
        (b"submit 1\nsize -1\n\n", "size"),
        (b"submit 1\nsize " + b"9" * 30 + b"\n\n", "size"),
        ("submit 1\nsize ٣\n\n".encode(), "size"),
        (b"submit 1\nnotify X\n\n", "notify"),
        (b"submit 1\nenvid " + b"e" * 101 + b"\n\n", "envid"),
        (b"submit 1\nto \xff\n\n", "UTF-8"),
    ],
)
def test_what_is_wrong_is_said(octets: bytes, said: str) -> None:
    found = local_request.read(octets)
    assert isinstance(found, str) and said in found


def test_words_that_are_not_known_are_passed_over() -> None:
    assert local_request.read(b"submit 1\nnew thing\nto a\n\n") == LocalRequest("submit", None, ("a",))
