"""JSON for operators: other programs read it, and so do people on a terminal."""

from __future__ import annotations

import json

import pytest

from postroad.cli.command import print_json
from postroad.mail.envelope import Peer
from postroad.mail.event import Refused
from postroad.operate import timeline
from postroad.operate.timeline import Trail

# ESC [ 2 J; CSI as one character of C1, which many terminals obey; an override of the writing direction; a line end.
HOSTILE = "a\x1b[2J\x9b2J\u202egro.elpmaxe\u2028\x7f\U000e0001b"


def test_no_terminal_acts_upon_what_others_put_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"refused": [HOSTILE, "é"]})
    said = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in said) and "é" in said
    assert json.loads(said) == {"refused": [HOSTILE, "é"]}


def test_nor_does_it_upon_a_trail() -> None:
    event = Refused(1, 0, Peer("192.0.2.1", hello=HOSTILE), "RCPT", "550 no", HOSTILE, HOSTILE)
    outlook = timeline.RecipientStatus(HOSTILE, timeline.Fate.FAILED, "has failed", reason=HOSTILE)
    said = timeline.json_of([Trail(1, (event,), (outlook,))]).decode()
    assert said.isprintable()
    assert json.loads(said)[0]["recipients"][0]["recipient"] == HOSTILE
