"""From the options of `postroad queue ACTION` to the request that they mean."""

from __future__ import annotations

import pytest

from postroad.cli.actions import ActionOptions, request_of
from postroad.mail import identifier
from postroad.operate.operator import FAILED_STATUS, OperatorAction, OperatorRequest
from postroad.operate.selector import MESSAGES_MAX
from postroad.store.values import Selection

ID = identifier.make(1_700_000_000_000_000, 3, 7)


def every(**said: object) -> Selection:
    return Selection(limit=MESSAGES_MAX, **said)  # type: ignore[arg-type]


MEANT: list[tuple[str, ActionOptions, OperatorRequest]] = [
    (
        "retry",
        ActionOptions((identifier.text(ID), "@example.org")),
        OperatorRequest(OperatorAction.RETRY, (every(ids=(ID,)), every(recipient="@example.org")), by="ada"),
    ),
    (
        "hold",
        ActionOptions(everything=True, dry_run=True, reason="a reason"),
        OperatorRequest(OperatorAction.HOLD, (every(),), dry_run=True, by="ada", text="a reason"),
    ),
    (
        "release",
        ActionOptions(held=False, sender="<>"),
        OperatorRequest(OperatorAction.RELEASE, (every(sender="<>", held=False),), by="ada"),
    ),
    (
        "remove",
        ActionOptions(("example.org",), recipient="bo@example.org"),
        OperatorRequest(
            OperatorAction.REMOVE, (every(destination="example.org", recipient="bo@example.org"),), by="ada"
        ),
    ),
    (
        "fail",
        ActionOptions(everything=True, destination="example.org", status="5.7.1"),
        OperatorRequest(OperatorAction.FAIL, (every(destination="example.org"),), by="ada", status="5.7.1"),
    ),
]


@pytest.mark.parametrize(("action", "options", "request_"), MEANT, ids=[each[0] for each in MEANT])
def test_the_request_that_the_options_mean(action: str, options: ActionOptions, request_: OperatorRequest) -> None:
    assert request_of(action, options, "ada") == request_


def test_without_a_status_mail_fails_as_given_up() -> None:
    found = request_of("fail", ActionOptions(everything=True), "ada")
    assert isinstance(found, OperatorRequest) and found.status == FAILED_STATUS


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ActionOptions(), "Write a queue id"),
        (ActionOptions(("example.org",), everything=True), "not both"),
        (ActionOptions(("example.org", "id:x")), "is not a queue id"),
        (ActionOptions(everything=True, status="2.0.0"), "is not the status code of a failure"),
        (ActionOptions(everything=True, reason="two\nlines"), "one line of printable characters"),
    ],
)
def test_options_that_mean_nothing(options: ActionOptions, text: str) -> None:
    found = request_of("fail", options, "ada")
    assert isinstance(found, str) and text in found


def test_the_filters_are_said_as_they_were_written() -> None:
    options = ActionOptions(sender="<>", recipient="@example.org", held=False)
    assert options.filters == "--from <> --to @example.org --not-held"
    assert ActionOptions(everything=True).filters == ""
