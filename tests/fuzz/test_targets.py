"""What is kept for fuzzing breaks nothing, the plain runner runs, and the oracles see what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.protocol.limits import ProtocolLimits
from tests.fuzz import choices, framing, mutating, seeds
from tests.fuzz.__main__ import main
from tests.fuzz.targets import TARGETS, Target

GREETING = b"220 mx\r\n"
OPENED = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_break_nothing(name: str) -> None:
    played = 0
    for place, data in TARGETS[name].inputs():
        try:
            TARGETS[name].check(data)
        except Exception as error:
            error.add_note(f"the input is tests/fuzz/{place}")
            raise
        played += 1
    assert played >= 30


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_in_the_corpus_yet_breaks_nothing(name: str, tmp_path: Path) -> None:
    """Transcripts that came since it was written; and writing it anew gives what it was made from."""
    made = seeds.corpus()[name]
    for each, data in made.items():
        if not (TARGETS[name].corpus / each).exists():
            TARGETS[name].check(data)
    seeds.write(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / name).glob("*")} == made


@pytest.mark.parametrize("name", TARGETS)
def test_the_plain_runner(name: str) -> None:
    tried, failures = mutating.run(TARGETS[name], 7, count=60)
    assert tried == 60 and not failures, failures


def test_the_plain_runner_finds_and_keeps_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(data: bytes, *, hasty: bool = False) -> None:
        assert b"BDAT" not in data

    failing = Target("failing", check, (b"BDAT",))
    _, failures = mutating.run(failing, 1, count=300)
    assert len(failures) == 1 and b"BDAT" in failures[0].data
    assert mutating.run(failing, 1, count=300)[1][0].data == failures[0].data  # one seed replays a run
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "input"
    kept.write_bytes(choices.written(0, 1, 0, b"NOOP\r\n"))
    assert main(["server", "--input", str(kept)]) == 0
    assert main(["grammar", "--plain", "--seconds", "1"]) == 0


def test_a_hasty_run_takes_each_way_in_its_turn() -> None:
    inputs = [b"%d" % number for number in range(1000)]
    taken = [way for data in inputs for way in choices.sampled(["whole", "parted", "octets"], data)]
    assert len(taken) == len(inputs)
    assert 30 < taken.count("octets") < 100 and min(taken.count("whole"), taken.count("parted")) > 350
    assert taken == [way for data in inputs for way in choices.sampled(["whole", "parted", "octets"], data)]


def test_choices_are_read_as_written() -> None:
    data = choices.written(0b101, 9, 700, b"wire")
    read = choices.read(data)
    assert (read.mode, read.stride, read.cut, read.wire) == (0b101, 9, 700, b"wire")
    assert read.on(0) and not read.on(1) and list(read.cuts(4)) == [0]
    assert choices.parted(b"wire", [2, 3, 9]) == [b"wi", b"r", b"e"]
    assert choices.read(b"").wire == b""


@pytest.mark.parametrize(
    "output", [b"250 ok", b"250 ok\n", b"250-a\r\n", b"250-a\r\n251 b\r\n", b"ok\r\n", b"250 a\0\r\n", b"250 a\nb\r\n"]
)
def test_what_is_no_reply_is_seen(output: bytes) -> None:
    with pytest.raises(AssertionError):
        framing.replies(output)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (b"NOOP\r\n", b"250 a\r\n250 b\r\n"),  # a reply to nothing
        (b"NOOP\r\nNOOP\r\n", b"250 a\r\n"),  # a command without one
        (b"NOOP\x01\r\n", b"250 a\r\n"),  # a control character
        (b"DATA\r\n", b"354 go\r\n"),  # nobody to send to
        (OPENED + b"DATA\r\na\n.\r\nRSET\r\n\r\n.\r\n", b"250 a\r\n250 b\r\n354 go\r\n250 c\r\n250 d\r\n"),  # smuggled
        (OPENED + b"DATA\r\na\nb\r\n.\r\n", b"250 a\r\n250 b\r\n354 go\r\n250 c\r\n"),  # a bare LF was taken
        (b"EHLO a\r\n" + OPENED + b"BDAT 6\r\nNOOP\r\n", b"250 a\r\n" * 5),  # a chunk was taken for a command
        (b"BDAT x\r\nNOOP\r\n", b"501 a\r\n250 b\r\n"),  # the chunk's end is unknown
        (b"QUIT\r\nNOOP\r\n", b"221 bye\r\n250 b\r\n"),  # behind the end
    ],
)
def test_what_does_not_belong_together_is_seen(wire: bytes, said: bytes) -> None:
    with pytest.raises(AssertionError):
        framing.Walk(wire, framing.replies(GREETING + said), False, ProtocolLimits()).go()


def test_what_belongs_together() -> None:
    wire = b"LHLO a\r\n" + OPENED + b"RCPT TO:<e@f>\r\nDATA\r\n..a\r\n.b\r\n.\r\nQUIT\r\n"
    said = GREETING + b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 go\r\n250 e\r\n250 f\r\n221 bye\r\n"
    assert framing.Walk(wire, framing.replies(said), True, ProtocolLimits()).go().contents == [b".a\r\nb\r\n"]
