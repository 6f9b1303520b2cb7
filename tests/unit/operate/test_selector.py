"""What operators write, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.mail import identifier
from postroad.operate.selector import MESSAGES_MAX, narrowed, selection
from postroad.store.values import Selection

ID = identifier.make(1_790_000_000_000_000, 1, 0)
TEXT = identifier.text(ID)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (TEXT, {"ids": (ID,)}),
        (TEXT.upper(), {"ids": (ID,)}),
        (f"id:{TEXT}", {"ids": (ID,)}),
        ("<1@example.org>", {"message_id": "<1@example.org>"}),
        ("bob@example.net", {"recipient": "bob@example.net"}),
        ("@example.net", {"recipient": "@example.net"}),
        ("to:bob@example.net", {"recipient": "bob@example.net"}),
        ("from:alice@example.org", {"sender": "alice@example.org"}),
        ("from:<>", {"sender": "<>"}),
        ("example.net", {"destination": "example.net"}),
        ("[192.0.2.1]:25", {"destination": "[192.0.2.1]:25"}),
        ("lmtp:[127.0.0.1]:24", {"destination": "lmtp:[127.0.0.1]:24"}),
        ("maildir:example.org", {"destination": "maildir:example.org"}),
        ("destination:maildir:example.org", {"destination": "maildir:example.org"}),
        ("destination:abcdefghjkmn", {"destination": "abcdefghjkmn"}),
    ],
)
def test_what_is_written(written: str, means: dict[str, Any]) -> None:
    assert selection(written) == Selection(limit=MESSAGES_MAX, **means)


@pytest.mark.parametrize("written", ["", "bob@", "id:xyz", "to:bob", "from:example.org", "id:"])
def test_what_means_nothing(written: str) -> None:
    assert isinstance(selection(written), str)


def test_options_narrow_but_do_not_replace() -> None:
    options: dict[str, Any] = {"sender": "a@b", "recipient": "c@d", "destination": "d", "held": True}
    assert narrowed(Selection(), **options) == Selection(sender="a@b", recipient="c@d", destination="d", held=True)
    own = Selection(sender="x@y", recipient="z@y", destination="y", held=False)
    assert narrowed(own, **options) == own
    nothing: dict[str, Any] = {"sender": "", "recipient": "", "destination": "", "held": None}
    assert narrowed(own, **nothing) == own


def test_an_address_as_the_envelope_has_it() -> None:
    """Quotes that the grammar wants around a local-part need not be written."""
    assert selection("a..b@docomo.test") == Selection(limit=MESSAGES_MAX, recipient='"a..b"@docomo.test')
    assert selection("from:.a@docomo.test") == Selection(limit=MESSAGES_MAX, sender='".a"@docomo.test')
    assert selection("A.b@C.test") == Selection(limit=MESSAGES_MAX, recipient="A.b@C.test")


def test_a_message_id_is_cut_as_that_of_the_envelope_is() -> None:
    assert selection("<" + "x" * 5_000 + "@a>") == Selection(limit=MESSAGES_MAX, message_id="<" + "x" * 997)
