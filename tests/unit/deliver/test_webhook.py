"""The body of a request, its signature, and what an answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import partial

import pytest

from postroad.deliver.http import judged, retry_after_s
from postroad.deliver.webhook import json_body, message_key, raw_body, secret_of, signature
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.store.content import pieces
from postroad.world.http_link import HttpAnswer
from tests.unit.deliver import world

CONTENT = b"Subject: x\r\n\r\nhello\xff\r\n"
JOB = world.job(CONTENT, (Recipient(Address("ada", "example.org")), Recipient(Address("b\xfc, c", "example.org"))))
TO = {index: recipient.address for index, recipient in enumerate(JOB.envelope.recipients)}
TOP = b"Return-Path: <>\r\n"
NOW_US = 1_700_000_000_000_000


def test_the_vector_of_the_specification() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the example of its text."""
    secret = secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert secret is not None
    body = b'{"test": 2432232314}'
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, (body[:7], body[7:]))
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("line", ["", "whsec_", "geheim!", "whsec_YWJj", "A" * 17])
def test_what_is_no_secret(line: str) -> None:
    assert secret_of(line) is None


def test_the_id_is_of_message_and_recipients() -> None:
    keys = {message_key("mx", JOB.envelope, group) for group in ((0,), (1,), (0, 1))}
    assert len(keys) == 3 and all(key.startswith("msg_") and "." not in key for key in keys)
    assert message_key("mx", JOB.envelope, (0,)) in keys
    assert message_key("other", JOB.envelope, (0,)) not in keys


def test_the_message_as_it_is() -> None:
    body = raw_body(JOB, TO, TOP, partial(pieces, JOB.envelope, CONTENT), len(TOP) + len(CONTENT))
    for _ in range(2):
        assert b"".join(body.read()) == TOP + CONTENT
    assert body.length == len(TOP + CONTENT)
    assert body.fields["Postroad-Sender"] == "ada@example.org"
    assert body.fields["Postroad-Recipients"] == 'ada@example.org, "b%C3%BC%2C c"@example.org'


@pytest.mark.parametrize("size", [0, 1, 2, 3, 49_151, 49_152, 49_153, 200_000])
def test_json_in_pieces(size: int) -> None:
    content = b"\xff" * size

    def read() -> list[bytes]:
        return [content[at : at + 1000] for at in range(0, size, 1000)]

    body = json_body("mx", JOB, TO, "2023-11-14T22:13:20Z", TOP, lambda: iter(read()), len(TOP) + size)
    octets = b"".join(body.read())
    assert len(octets) == body.length
    found = json.loads(octets)
    assert (found["type"], found["timestamp"]) == ("mail.delivery", "2023-11-14T22:13:20Z")
    assert base64.b64decode(found["data"]["message"]) == TOP + content
    assert [each["id"] for each in found["data"]["recipients"]] == [
        message_key("mx", JOB.envelope, (index,)) for index in (0, 1)
    ]
    assert found["data"]["sender"] == "ada@example.org"


@pytest.mark.parametrize(
    ("status", "outcome", "enhanced"),
    [(200, "delivered", "2.0.0"), (204, "delivered", "2.0.0"), (299, "delivered", "2.0.0"), (100, "deferred", "4.3.0"),
     (301, "deferred", "4.3.0"), (304, "deferred", "4.3.0"), (400, "failed", "5.3.0"), (401, "failed", "5.7.1"),
     (404, "failed", "5.1.1"), (408, "deferred", "4.3.2"), (413, "failed", "5.3.4"), (429, "deferred", "4.3.2"),
     (499, "failed", "5.3.0"), (500, "deferred", "4.3.0"), (503, "deferred", "4.3.2"), (600, "deferred", "4.3.0")],
)
def test_what_a_status_means(status: int, outcome: str, enhanced: str) -> None:
    found = judged(HttpAnswer(status, b"so\r\n\x1b it is"), NOW_US, 60)
    assert (found.outcome.value, found.status) == (outcome, enhanced)
    assert found.text == f"HTTP {status}: so ? it is"


@pytest.mark.parametrize(
    ("field", "wait_s"),
    [("", 0), ("30", 30), ("99999999999999", 999999999), ("-5", 0), ("soon", 0), ("1.5", 0),
     ("Tue, 14 Nov 2023 22:14:20 GMT", 60), ("Tue, 14 Nov 2023 22:12:20 GMT", 0), ("\u00b2", 0)],
)
def test_retry_after(field: str, wait_s: float) -> None:
    assert retry_after_s(field, NOW_US) == wait_s


def test_retry_after_has_a_bound() -> None:
    assert judged(HttpAnswer(503, b"", "30"), NOW_US, 60).not_before_us == NOW_US + 30_000_000
    assert judged(HttpAnswer(503, b"", "90"), NOW_US, 60).not_before_us == NOW_US + 60_000_000
    assert judged(HttpAnswer(404, b"", "90"), NOW_US, 60).not_before_us == 0


def test_the_signature_covers_id_time_and_body() -> None:
    secret = b"k" * 24
    expected = hmac.new(secret, b"msg_1.7.body", hashlib.sha256).digest()
    assert signature(secret, "msg_1", 7, [b"bo", b"dy"]) == "v1," + base64.b64encode(expected).decode()
