"""Frames: each kind comes out as it went in, and what is no frame is a `BadFrame`, whatever the octets."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest

from postroad.check.bans import Ban
from postroad.mail.tls_policy import StsAnswer, StsMode, StsPolicy, TlsFailure
from postroad.node import frames
from postroad.node.frames import BadFrame, Frame, LanePace
from postroad.node.sockets import Endpoint
from postroad.operate.operator import OperatorAction, OperatorRequest, OperatorResult
from postroad.operate.requests import Activity, Doing, HistoryBehind, LeftAlone
from postroad.protocol.etrn import EtrnKind, Wish
from postroad.store.values import Selection
from postroad.trust.sts_fetch import StsFetched

COUNTS = ({"s": 2, "cnet 192.0.2.0/24": 1}, ((7, {"f192.0.2.1": 3}, {"f192.0.2.1": 1}),))
REQUEST = OperatorRequest(OperatorAction.FAIL, (Selection(ids=(1, 2)), Selection(recipient="a@x")), True, "op", "why")
SETTINGS = {"hostname": "mx.example.org", "listener": [{"name": "a", "port": 25}], "tls": {"ticket_s": 1.5}}
POLICY = StsPolicy("a.example", "1", StsMode.TESTING, ("*.a.example",), 86_400, ("version: STSv1",))
EXAMPLES: tuple[Frame, ...] = (
    frames.TallyTold(COUNTS),
    frames.SendingTold(COUNTS),
    frames.StartQueue(4, Wish(EtrnKind.SUBDOMAINS, "example.org"), "ETRN of ann"),
    frames.BansTold((Ban("192.0.2.0/24", 1, 0, "spam", "root"), Ban("ann", 5, 6, is_account=True)), ("192.0.2.9",)),
    frames.BansTold((), None),
    frames.BansTold((), ()),
    frames.TicketSecretTold(bytes(range(256))),
    frames.Start(3, (3, 7), SETTINGS, (Endpoint("::", 25), Endpoint(path="/run/mx"))),
    frames.Stop(30.0),
    frames.Granted("example.org", 2),
    frames.TokensGranted("example.org", 200),
    frames.PermitWanted("provider:p"),
    frames.TallyForgotten(("f192.0.2.1", "o192.0.2.1")),
    frames.SendingForgotten(("maada", "raada")),
    frames.NoticeWanted("the limit of the account ada is reached"),
    frames.NoticeWanted("New keys", ("publish them", "")),
    frames.KeysChanged(8),
    frames.StsTold("a.example", "1", StsAnswer(POLICY, TlsFailure.STS_WEBPKI_INVALID, "expired", "https://x"), 5, 6),
    frames.StsTold("a.example", "", StsAnswer(), 5),
    frames.StsChanged("a.example"),
    frames.FetchSts(7, "a.example", "1"),
    frames.Prepare(9, SETTINGS),
    frames.Commit((Endpoint("192.0.2.1", 587),)),
    frames.Abandon(),
    frames.Sync(1),
    frames.Operate(2, REQUEST),
    frames.AskPaces(5, ("*", "example.org")),
    frames.AskMapUse(8, "virtual"),
    frames.AskActivity(6),
    frames.QueueStarted(7, (3, None, 0)),
    frames.Ready(),
    frames.Misconfigured("no certificate: grün"),
    frames.Alive(),
    frames.Leaving(),
    frames.AskPermits(("example.org", "provider:p"), 4),
    frames.ReleasePermit(("example.org",)),
    frames.Succeeded(("example.org",), 9),
    frames.OpeningFailed(("example.org",), others=True),
    frames.AskSts("a.example", "1"),
    frames.StsFetchDone(7, StsFetched(POLICY, notes=("line 3 is none",))),
    frames.StsFetchDone(7, StsFetched(None, TlsFailure.STS_POLICY_INVALID, "no mx")),
    frames.LimitReached("maada", "the limit of the account ada is reached"),
    frames.AskTokens("example.org", ("example.org",), 11),
    frames.Prepared(9, "tls.key: no such file"),
    frames.Prepared(9),
    frames.Synced(1),
    frames.Operated(2, (OperatorResult("60yrc2q80001", "a@x", "x", True, "held", 3),)),
    frames.Paces(5, {"x": LanePace(("x", "p"), ("p",), 3, "rate", "no", ("x.org",), (Doing("60yrc2q80001", "DATA"),))}),
    frames.MapUse(8, {"ada@x.org": 1_796_000_000_000_000}),
    frames.ActivityTold(6, Activity(1, 2, 3, 4, (LeftAlone("x", 2, 7, "gone"),), (HistoryBehind(1, 2, "disk"),))),
    frames.QueueCounted(4, None),
    frames.KeysTaken(8),
)


def _readers(frame: Frame) -> list[Any]:
    """Those sides that may hear it."""
    found = []
    if type(frame) in get_args(frames.ToWorker):
        found.append(frames.read_to_worker)
    if type(frame) in get_args(frames.FromWorker):
        found.append(frames.read_from_worker)
    return found


def test_there_is_an_example_of_each_kind() -> None:
    kinds = {*get_args(frames.ToWorker), *get_args(frames.FromWorker)}
    assert {type(frame) for frame in EXAMPLES} == kinds
    assert set(get_args(frames.Answer)) <= set(get_args(frames.FromWorker))


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda frame: type(frame).__name__)
def test_each_kind_comes_out_as_it_went_in(frame: Frame) -> None:
    octets = frames.encode(frame)
    assert _readers(frame)
    for read in _readers(frame):
        assert read(octets) == frame
        for cut in range(len(octets)):
            with pytest.raises(BadFrame, match="cannot be read"):
                read(octets[:cut])


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda frame: type(frame).__name__)
def test_nobody_reads_what_is_not_meant_for_him(frame: Frame) -> None:
    octets = frames.encode(frame)
    for read in {frames.read_to_worker, frames.read_from_worker} - set(_readers(frame)):
        with pytest.raises(BadFrame):
            read(octets)


def test_a_field_of_a_later_version_is_skipped() -> None:
    octets = bytearray(frames.encode(frames.Stop(1.0)))
    octets[0] += 1  # one more pair in the map
    assert frames.read_to_worker(bytes(octets) + b"\xa3new\x93\x01\x02\x03") == frames.Stop(1.0)


def test_octets_by_chance_are_a_frame_or_a_bad_frame() -> None:
    chance = random.Random(20261201)
    bad = 0
    for _ in range(20_000):
        octets = bytearray(frames.encode(chance.choice(EXAMPLES)))
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            place = chance.randrange(len(octets) + 1)
            match chance.randrange(4):
                case 0:
                    del octets[place : place + chance.randrange(1, 9)]
                case 1:
                    octets[place:place] = chance.randbytes(chance.randrange(1, 9))
                case _:
                    octets[place : place + 1] = chance.randbytes(1)
        for read in (frames.read_to_worker, frames.read_from_worker):
            try:
                assert isinstance(read(bytes(octets)), Frame)
            except BadFrame:
                bad += 1
    assert bad > 20_000
