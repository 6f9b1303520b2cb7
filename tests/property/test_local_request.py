"""Whatever a user sends as a request, the node reads it or says what is wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postroad.receive import local_request
from postroad.receive.local_head import prepared
from postroad.receive.local_request import LocalRequest
from postroad.sendmail import arguments, request
from postroad.sendmail.exits import End

_LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"to a@b.test", b"from x", b"size 7", b"notify never", b"envid e", b"extract yes"]),
    ),
    max_size=8,
)


@given(_LINES)
def test_any_lines_are_read_or_refused(lines: list[bytes]) -> None:
    octets = b"\n".join([b"submit 1", *lines, b"", b""])
    end = local_request.end(octets)
    assert 0 < end <= len(octets)
    found = local_request.read(octets[:end])
    assert isinstance(found, str | LocalRequest)


@given(st.lists(st.text(max_size=20), max_size=8))
def test_a_command_line_says_to_the_node_what_it_says_or_is_refused(words: list[str]) -> None:
    try:
        found = arguments.read("sendmail", words)
        octets = request.submit(found, 3)
    except End:
        return
    read = local_request.read(octets)
    if isinstance(read, LocalRequest):
        assert list(read.recipients) == found.recipients
        assert (read.sender, read.extract, read.mail_errors, read.size) == (
            found.sender, found.extract, found.mail_errors, 3,
        )  # fmt: skip


@given(st.binary(max_size=200), st.booleans())
def test_any_header_section_is_made_ready(octets: bytes, extract: bool) -> None:
    content = octets.replace(b"\r", b"").replace(b"\n", b"\r\n")
    made = prepared(
        b"To: " + content, extract=extract, domain="h.test", author="me@h.test", name="N", date="d", message_id="<m>"
    )
    assert b"\r\n" in made.octets and not (made.recipients and not extract)
    again = prepared(
        made.octets, extract=False, domain="h.test", author="me@h.test", name="N", date="d", message_id="<m>"
    )
    assert again.octets == made.octets
