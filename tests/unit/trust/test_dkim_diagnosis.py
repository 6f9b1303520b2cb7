"""What happened to a message since it was signed: what is told is true, and proved."""

from __future__ import annotations

import pytest

from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_diagnosis import diagnose
from postroad.trust.dkim_head import body_start
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.unit.trust.dkim_parts import NOW_S, Zone, keys, rsa, verify, zone_of
from tests.unit.trust.test_dkim import refield

MESSAGE = (
    b"From: ada@example.org\r\nTo: bob@example.net,\r\n carol@example.net\r\nSubject: Dinner\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    b"Hello  J\xc3\xbcrgen,\r\n\r\nFrom here on \r\n.one line\r\n\r\n"
)
FIELDS_RIGHT = "The signed header fields are as they were signed."
BODY_RIGHT = "The body is as it was signed."
SIMPLE = SigningOptions(head=Canonicalization.SIMPLE, body=Canonicalization.SIMPLE)


def told(old: bytes, new: bytes, options: SigningOptions, key: SigningKey, dns: Zone | None = None) -> tuple[str, ...]:
    whole = DkimSigner((key,), options).sign_content(MESSAGE, NOW_S) + MESSAGE
    assert old in whole
    whole = whole.replace(old, new, 1)
    (result,) = verify(whole, dns or zone_of(keys()))
    start = body_start(whole)
    return diagnose(result, whole[: start - 2], whole[start:])


@pytest.mark.parametrize("key", keys(), ids=["rsa", "ed25519"])
@pytest.mark.parametrize("options", [SigningOptions(), SIMPLE], ids=["relaxed", "simple"])
@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        (
            b".one line\r\n\r\n",
            b".one line\r\n\r\n--\r\nThe list\r\n",
            ("3 lines were added at the end of the body, after line 4: '--'", FIELDS_RIGHT),
        ),
        (b"Hello", b"WARNING\r\n\r\nHello", ("2 lines were added at the top of the body: 'WARNING'", FIELDS_RIGHT)),
        (
            b"J\xc3\xbcrgen",
            b"J\xfcrgen",
            ("The body was changed on the way: its charset was utf-8 and is latin-1 now.", FIELDS_RIGHT),
        ),
        (
            b"From here",
            b">From here",
            ("The body was changed on the way: lines that begin with From got a >.", FIELDS_RIGHT),
        ),
        (
            b".one",
            b"..one",
            ("The body was changed on the way: a dot was doubled at the beginning of lines.", FIELDS_RIGHT),
        ),
        (b"one line", b"two lines", ("The body has changed. How cannot be told from its hash.", FIELDS_RIGHT)),
        (
            b"Subject: Dinner",
            b"Subject: [list] Dinner",
            (BODY_RIGHT, "A tag was put into the subject: 'Subject: [list] Dinner'"),
        ),
        (
            b"Subject: Dinner",
            b"Subject: Dinner\r\nSubject: Lunch",
            (BODY_RIGHT, "A field was added after the message was signed: 'Subject: Lunch'"),
        ),
        (
            b"Encoding: 8bit",
            b"Encoding: 7bit",
            (BODY_RIGHT, "Content-Transfer-Encoding was 8bit when the message was signed."),
        ),
        (
            b"Subject: Dinner",
            b"Subject: Lunch",
            (
                BODY_RIGHT,
                "A signed header field, or the signature's own field, has changed. Which cannot be told from a hash.",
                "Signed, and not in the message (removed, or never there): reply-to, date, cc, message-id, "
                "mime-version, content-type.",
            ),
        ),
    ],
)
def test_what_happened(
    old: bytes, new: bytes, sentences: tuple[str, ...], options: SigningOptions, key: SigningKey
) -> None:
    assert told(old, new, options, key) == sentences


def test_another_key() -> None:
    other = Zone({"r1._domainkey.example.org": public_record(rsa(1024))})
    assert told(b"x", b"x", SigningOptions(), keys()[0], other) == (
        BODY_RIGHT,
        "The signature was made with another key than the one in the DNS, or b= was changed.",
    )


COPY = "From:Ada=20<ada@example.org>|\r\n Subject:A=20=20message=20"
ANOTHER = (b"Subject: A  message \r\n", b"Subject: Another\r\n")


@pytest.mark.parametrize(
    ("copy", "changes", "sentence"),
    [
        (COPY, (ANOTHER,), "By the copy in z=, 'Subject:A  message ' was changed into 'Subject: Another'."),
        (
            COPY,
            (ANOTHER, (b"Ada <ada@example.org>", b"Eve <eve@example.org>")),
            "By the copy in z=, 'From:Ada <ada@example.org>' was changed into 'From: Eve <eve@example.org>' and "
            "'Subject:A  message ' was changed into 'Subject: Another'.",
        ),
        (COPY, ((ANOTHER[0], b""),), "By the copy in z=, 'Subject:A  message ' was removed."),
        # A copy that is not what was signed proves nothing.
        ("Subject:Lunch", (ANOTHER,), "A signed header field, or the signature's own field, has changed."),
        ("=", (ANOTHER,), "A signed header field, or the signature's own field, has changed."),
        ("Subject:A=20message|Subject:x", (ANOTHER,), "A signed header field, or the signature's own field, has"),
        ("Subject:=ZZ=", (ANOTHER,), "A signed header field, or the signature's own field, has changed."),
    ],
)
def test_fields_that_the_signer_has_copied(copy: str, changes: tuple[tuple[bytes, bytes], ...], sentence: str) -> None:
    whole = refield(z=copy)
    assert verify(whole, zone_of(keys()))[0].passes
    for old, new in changes:
        assert old in whole
        whole = whole.replace(old, new, 1)
    (result,) = verify(whole, zone_of(keys()))
    start = body_start(whole)
    sentences = diagnose(result, whole[: start - 2], whole[start:])
    assert any(each.startswith(sentence) for each in sentences), sentences


def test_nothing_to_tell() -> None:
    whole = DkimSigner((keys()[1],), SigningOptions()).sign_content(MESSAGE, NOW_S) + MESSAGE
    (result,) = verify(whole, zone_of(keys()))
    assert diagnose(result, whole[: body_start(whole) - 2], whole[body_start(whole) :]) == ()
    (missing,) = verify(whole, Zone({}))
    assert diagnose(missing, b"", b"") == ()
