"""What kind of mail a message says it is."""

from __future__ import annotations

import pytest

from postroad.mail.classes import found


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (b"Subject: x\r\n", ()),
        (b"List-Id: <l.example>\r\n", ("bulk",)),
        (b"LIST-UNSUBSCRIBE: <https://l.example>\r\n", ("bulk",)),
        (b"Precedence: Bulk\r\n", ("bulk", "precedence: bulk")),
        (b"Precedence : junk\r\n", ("bulk",)),
        (b"Precedence: first-class\r\n", ()),
        (b"Auto-Submitted: auto-replied; owner\r\n", ("automatic",)),
        (b"Auto-Submitted: no\r\n", ()),
        (b"Auto-Submitted: No ; x\r\n", ()),
        (b"X-Campaign: spring\r\n", ("x-campaign",)),
        (b"X-Campaigns: spring\r\n", ()),
        (b"Subject: x\r\n List-Id: y\r\n", ()),  # a folded line
        (b"Subject: \xff\r\nX-Campaign:\r\n", ("x-campaign",)),
        (b"Subject: x\r\n\r\nList-Id: in the body\r\n", ()),
        (b"", ()),
    ],
)
def test_classes(section: bytes, expected: tuple[str, ...]) -> None:
    assert found(section, ("automatic", "bulk", "x-campaign", "precedence: bulk")) == expected


def test_what_nobody_asks_for_is_not_told() -> None:
    assert found(b"List-Id: x\r\nX-Campaign: y\r\n", ("automatic",)) == ()
