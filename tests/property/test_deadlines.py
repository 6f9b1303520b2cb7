"""Every state in which the courier waits for the remote has a deadline of its own (RFC 5321 §4.5.3.2).

A session is played up to any of its steps; then the remote says no more. Short of the limit of that step nothing
happens, behind it the session has ended, in words that name the step. All limits differ, so that none is taken for
another.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.deliver.courier_context import courier_context
from postroad.deliver.options import DeliverOptions
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.route import Transport
from postroad.protocol.client_events import ConnectionEnded, Step
from postroad.protocol.sending import Security
from tests.unit.deliver.world import HOP, Clock, Loop, Wire, job

OPTIONS = DeliverOptions(
    greeting_s=301, hello_s=302, starttls_s=303, handshake_s=150, connect_s=154, auth_s=305, reset_s=306, mail_s=307,
    rcpt_s=308, data_initiation_s=121, data_block_s=181, data_termination_s=601, quit_s=5, idle_s=3,
)  # fmt: skip
HELLO = "250-mx\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250 CHUNKING"
ANSWERS = {
    Step.GREETING: "220 mx", Step.HELLO: HELLO, Step.STARTTLS: "220 go", Step.RSET: "250 ok", Step.MAIL: "250 ok",
    Step.RCPT: "250 ok", Step.DATA: "354 go", Step.END: "250 ok",
}  # fmt: skip
NAMES = {
    Step.GREETING: "the connection", Step.HELLO: "EHLO", Step.END: "the end of data", Step.HANDSHAKE: "TLS handshake",
    Step.RESPONSE: "challenge", Step.IDLE: "could not go on",
}  # fmt: skip


class Session:
    """A courier whose set-up is done by hand, as the opener does it."""

    def __init__(self, *, lmtp: bool, bdat: bool, refuse_first: bool) -> None:
        options = msgspec.structs.replace(OPTIONS, bdat_size_min=0 if bdat else 1 << 40)
        self.loop, self.wire = Loop(), Wire()
        self.shared = courier_context("me.test", options, Clock(), self.loop, None)  # type: ignore[arg-type]
        self.courier = SmtpCourier(self.shared, Transport.LMTP if lmtp else Transport.SMTP, HOP)
        self.wire.protocol = self.courier
        self.courier.connection_made(self.wire)  # type: ignore[arg-type]
        self.done: list[Any] = []
        self.steps: list[str] = ["hello", "tls", "auth", "login", "released", "mail"]
        self.refuse_first = refuse_first

    def say(self, text: str) -> None:
        self.courier.data_received(f"{text}\r\n".encode())
        self.loop.run()

    def start(self, waiting: Any) -> None:
        """Run what the opener awaits up to where it waits."""
        with contextlib.suppress(StopIteration):
            waiting.send(None)
        waiting.close()

    def next(self) -> None:
        """What the remote, or the opener, or the queue does next."""
        courier, machine = self.courier, self.courier.machine
        step = machine.step
        if step is Step.AUTH:
            self.say("334 eA==" if "login" in self.steps else "235 ok")
        elif step is Step.RESPONSE:
            self.steps.remove("login")
            self.start(courier.respond(b"x"))
        elif step is Step.HANDSHAKE:
            self.steps.remove("tls")
            self.start(courier.tls_started(self.wire))  # type: ignore[arg-type]
        elif step is not Step.IDLE:
            refused = step is Step.RCPT and self.refuse_first
            self.refuse_first = self.refuse_first and not refused
            self.say("550 5.1.1 no" if refused else ANSWERS[step])
        elif "tls" in self.steps:
            self.start(courier.ask_for_tls())
        elif "auth" in self.steps:
            self.steps.remove("auth")
            self.start(courier.authenticate("LOGIN", None))
        elif "released" in self.steps:
            self.steps.remove("released")
            courier.release(Security(), 0, lambda courier: None)
        else:
            courier.carry(job(), lambda job, attempts: self.done.append(attempts))
            self.loop.run()


@settings(max_examples=150, deadline=None)
@given(steps=st.integers(0, 26), lmtp=st.booleans(), bdat=st.booleans(), refuse_first=st.booleans())
def test_each_wait_has_its_own_limit(steps: int, lmtp: bool, bdat: bool, refuse_first: bool) -> None:
    session = Session(lmtp=lmtp, bdat=bdat, refuse_first=refuse_first)
    for _ in range(steps):
        session.loop.advance(1)
        session.next()
    courier, step = session.courier, session.courier.machine.step
    released = "released" not in session.steps
    if step is Step.IDLE:
        limit_s = OPTIONS.idle_s if released else OPTIONS.auth_s
    else:
        limit_s = session.shared.limits_s[step]
    assert courier.alive
    session.loop.advance(limit_s - 0.5)
    assert courier.alive and courier.machine.step is step, "sooner than its limit"
    session.loop.advance(1)
    if step is Step.IDLE and released:
        assert courier.machine.step is Step.QUIT
        return
    assert not courier.alive and session.wire.aborted, "not at its limit"
    text = session.done[-1][0].text if session.done and session.done[-1][0].text else told(courier)
    assert NAMES.get(step, step.name) in text and f"within {limit_s:g} s" in text


def told(courier: SmtpCourier) -> str:
    assert isinstance(courier.ended, ConnectionEnded)
    return courier.ended.result.text


def test_all_steps_have_a_limit_and_those_of_the_rfc_are_not_undercut() -> None:
    """RFC 5321 §4.5.3.2: greeting, MAIL and RCPT 5 minutes, DATA 2, a block of data 3, its end 10."""
    shared = courier_context("me.test", DeliverOptions(), Clock(), Loop(), None)  # type: ignore[arg-type]
    assert set(shared.limits_s) == set(Step)
    assert all(limit_s > 0 for limit_s in shared.limits_s.values())
    least = {
        Step.GREETING: 300, Step.MAIL: 300, Step.RCPT: 300, Step.DATA: 120, Step.CONTENT: 180,
        Step.END: 600, Step.DOT: 600,
    }  # fmt: skip
    assert all(shared.limits_s[step] >= limit_s for step, limit_s in least.items())

