"""Local delivery by HTTP POST: a signed request for each recipient, or one for all recipients of a job.

2xx delivers. 4xx fails, except 408 and 429, which say "later" (RFC 9110 §15.5.9, RFC 6585 §4); everything else is tried
again. A Retry-After is heeded up to `retry_after_max_s`. Connections are kept (`world.http_link`); requests run on
threads of their own. What always holds: secrets are read again for each request and never logged; a request ends after
`time_s`. How it fails: the mail is deferred if there is no connection, no answer or a broken answer (4.4.1, 4.4.2), or
if a secret cannot be read (4.3.5). If an answer is lost, the next attempt has the same id. Not here: body and signature
(`deliver.webhook`).
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final

import msgspec

from postroad.deliver.courier_context import CourierContext
from postroad.deliver.letter import top
from postroad.deliver.on_a_task import TaskCourier
from postroad.deliver.webhook import HttpBody, json_body, message_key, raw_body, secret_of, signature
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import size
from postroad.mail.route import HttpFormat, HttpTarget, Transport
from postroad.store.content import pieces
from postroad.world.http_link import HttpAnswer, HttpLink, MakeLink, place, tls_context
from postroad.world.problem import Problem, unreadable

_LOG: Final = logging.getLogger(__name__)
_SECRET_MAX: Final = 4096  # characters of a line with a secret
_TEXT_MAX: Final = 500  # characters of an answer that an attempt keeps
_AGAIN: Final = (408, 429)
# What a status says of the mail, for reports; 5.3.0 for all others of 400 to 499.
_STATUS: Final = {
    401: "5.7.1", 403: "5.7.1", 404: "5.1.1", 410: "5.1.1", 413: "5.3.4", 415: "5.6.1", 422: "5.6.0",
}  # fmt: skip

class HttpTools:
    """What all couriers by HTTP share. `pool`: their threads. `ca_file`: what servers must prove, read at first use."""

    def __init__(self, pool: Executor, ca_file: str, make_link: MakeLink = HttpLink) -> None:
        self.pool = pool
        self._make_link = make_link
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def link(self, url: str, step_s: float) -> HttpLink | Problem:
        """A new link; it is not connected yet. On a thread."""
        with self._lock:
            if self._context is None:
                try:
                    self._context = tls_context(self._ca_file)
                except OSError as error:
                    return unreadable(self._ca_file, error)
            return self._make_link(url, self._context, step_s)


class HttpCourier(TaskCourier):
    """Delivers one job at a time. Always usable until closed."""

    def __init__(self, shared: CourierContext, tools: HttpTools, marks: Marks | None = None) -> None:
        super().__init__(shared.loop, set())
        self._shared = shared
        self._tools = tools
        self._marks = marks
        self._link: HttpLink | None = None
        self._idle: asyncio.TimerHandle | None = None

    @property
    def doing(self) -> str:
        return "waits for the answer to an HTTP request"

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. One at a time."""
        if self._idle is not None:
            self._idle.cancel()
        super().carry(job, done)

    def close(self) -> None:
        super().close()
        if self._task is None:
            self._let_go()

    async def _attempts(self, job: Job) -> list[Attempt]:
        target = job.destination.http or HttpTarget()
        groups = [job.recipients] if target.together else [(index,) for index in job.recipients]
        attempts: dict[int, Attempt] = {}
        for group in groups:
            attempts.update(dict.fromkeys(group, await self._request(job, target, group)))
        if self._closed:
            self._let_go()
        else:
            self._idle = self._shared.loop.call_later(self._shared.options.idle_s, self._let_go)
        return [attempts[index] for index in job.recipients]

    async def _request(self, job: Job, target: HttpTarget, group: tuple[int, ...]) -> Attempt:
        started_us = self._shared.clock.now_us()
        try:
            found = await self._answer(job, target, group, started_us)
        except Exception as error:
            _LOG.exception("delivery by %s", job.destination.key)
            found = _deferred("4.3.0", f"internal error: {type(error).__name__}")
        now_us = self._shared.clock.now_us()
        if isinstance(found, HttpAnswer):
            found = judged(found, now_us, self._shared.options.http.retry_after_max_s)
        return msgspec.structs.replace(
            found, remote_name=place(target.url), started_us=started_us, took_us=max(0, now_us - started_us)
        )

    async def _answer(self, job: Job, target: HttpTarget, group: tuple[int, ...], now_us: int) -> HttpAnswer | Attempt:
        loop, limit_s = self._shared.loop, self._shared.options.http.time_s
        if self._link is None:
            made = await loop.run_in_executor(self._tools.pool, self._tools.link, target.url, limit_s)
            if isinstance(made, Problem):
                return _deferred("4.3.5", str(made))
            self._link = made
        link = self._link
        late = loop.call_later(limit_s, link.give_up)
        try:
            found = await loop.run_in_executor(self._tools.pool, self._post, link, job, target, group, now_us)
        finally:
            late.cancel()
        if isinstance(found, Problem):
            self._let_go()
            return _deferred("4.4.2", str(found))
        return found

    def _post(
        self, link: HttpLink, job: Job, target: HttpTarget, group: tuple[int, ...], now_us: int
    ) -> HttpAnswer | Problem | Attempt:
        """On a thread."""
        secret = _line(target.secret_file)
        authorization = _line(target.authorization_file)
        for found in (secret, authorization):
            if isinstance(found, Problem):
                return _deferred("4.3.5", str(found))
        assert isinstance(secret, str) and isinstance(authorization, str)
        key = secret_of(secret) if secret else b""
        if key is None:
            return _deferred("4.3.5", f"{target.secret_file}: its first line is not a secret in Base64")
        try:
            body = self._body(job, target, group, now_us)
            headers = {
                "User-Agent": "Postroad", "Content-Type": body.content_type, **body.fields,
                **self._signed(body, key, job, group, now_us // 1_000_000),
            }
            if authorization:
                headers["Authorization"] = authorization
            return link.request("POST", headers, body.read(), body.length, self._shared.options.http.answer_max)
        except OSError as error:
            return _deferred("4.3.0", f"the content cannot be read: {error.strerror or error}")

    def _signed(self, body: HttpBody, secret: bytes, job: Job, group: tuple[int, ...], at_s: int) -> dict[str, str]:
        key = message_key(self._shared.name, job.envelope, group)
        fields = {"webhook-id": key, "webhook-timestamp": str(at_s)}
        if secret:
            fields["webhook-signature"] = signature(secret, key, at_s, body.read())
        return fields

    def _body(self, job: Job, target: HttpTarget, group: tuple[int, ...], now_us: int) -> HttpBody:
        envelope = job.envelope
        named = dict(zip(job.recipients, (recipient.address for recipient in job.named()), strict=True))
        to = {index: named[index] for index in group}
        fields = top(job, tuple(to.values()), self._marks)
        read, length = partial(pieces, envelope, job.content), len(fields) + size(envelope, job.content)
        if target.format is HttpFormat.RAW:
            return raw_body(job, to, fields, read, length)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_us // 1_000_000))
        return json_body(self._shared.name, job, to, at, fields, read, length)

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def judged(answer: HttpAnswer, now_us: int, retry_after_max_s: float) -> Attempt:
    """What an answer means."""
    said = " ".join(answer.said.decode("utf-8", "backslashreplace").split())
    clean = "".join(char if char.isprintable() else "?" for char in said)[:_TEXT_MAX]
    text = f"HTTP {answer.status}" + (f": {clean}" if clean else "")
    if 200 <= answer.status < 300:
        return Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", text, transport=Transport.HTTP.value)
    if 400 <= answer.status < 500 and answer.status not in _AGAIN:
        status = _STATUS.get(answer.status, "5.3.0")
        return Attempt(Outcome.FAILED, Reach.RECIPIENT, status, text, transport=Transport.HTTP.value)
    wait_s = min(retry_after_s(answer.retry_after, now_us), retry_after_max_s)
    not_before_us = now_us + int(wait_s * 1_000_000) if wait_s > 0 else 0
    status = "4.3.2" if answer.status in (*_AGAIN, 503) else "4.3.0"
    return msgspec.structs.replace(_deferred(status, text), not_before_us=not_before_us)


def retry_after_s(field: str, now_us: int) -> float:
    """What a Retry-After says, in seconds from now: seconds or a date (RFC 9110 §10.2.3). 0 for nothing useful."""
    field = field.strip()
    if field.isascii() and field.isdigit():
        return float(field[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(field).timestamp() - now_us / 1_000_000)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _line(path: str) -> str | Problem:
    """The first line of a file; "" for no file."""
    if not path:
        return ""
    try:
        with open(path, encoding="ascii") as file:
            line = file.readline(_SECRET_MAX).strip()
    except OSError as error:
        return unreadable(path, error)
    except UnicodeDecodeError:
        line = ""
    if not line or not line.isprintable():
        return Problem(path, "has nothing in its first line that can be used", "Write the value there, in ASCII.")
    return line


def _deferred(status: str, text: str) -> Attempt:
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, status, text, transport=Transport.HTTP.value)
