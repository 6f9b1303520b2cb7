"""What the settings of the checks where mail comes from say: of each listener, and under [checks]."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.check.origin_options import CheckMode, Quarantine
from postroad.config.finding import Finding
from postroad.config.listening import ListenerSection
from postroad.config.locate import Path
from postroad.config.settings import Settings

CHECKS = ("spf", "dkim", "dmarc", "arc", "iprev")


def find(settings: Settings) -> Iterator[Finding]:
    """Settings without effect, and a redirection without a mailbox."""
    for index, listener in enumerate(settings.listener):
        yield from _of(listener, ("listener", index))
    checks = settings.checks
    if checks.arc_forwarders and all(each.check_mode("arc") is CheckMode.OFF for each in settings.listener):
        text = "This has no effect: no listener looks at ARC"
        yield Finding((("checks", "arc_forwarders"),), text, 'Add arc = "mark" to the [[listener]], or remove this')
    ours = checks.authserv_id or settings.hostname
    if ours in checks.believed_authserv_ids:
        text = f"{ours!r} is the name of this node itself, whose fields are removed from mail of strangers"
        remedy = "Name hosts in front of this node only, and give them another authserv-id"
        yield Finding((("checks", "believed_authserv_ids"), ("checks", "authserv_id")), text, remedy)


def _of(listener: ListenerSection, here: Path) -> Iterator[Finding]:
    redirects = listener.quarantine is Quarantine.REDIRECT
    if redirects and not listener.quarantine_to:
        yield Finding(
            ((*here, "quarantine"),),
            "There is no mailbox to which mail in quarantine goes",
            'Add quarantine_to = "quarantine@example.org"',
        )
    given = listener.model_fields_set
    if "quarantine_to" in given and listener.quarantine_to and not redirects:
        text = 'This has no effect without quarantine = "redirect"'
        yield Finding(((*here, "quarantine_to"),), text, 'Add quarantine = "redirect", or remove it')
    if "quarantine_field" in given and listener.quarantine is Quarantine.HOLD:
        text = 'This has no effect without quarantine = "field" or "redirect"'
        yield Finding(((*here, "quarantine_field"),), text, 'Add quarantine = "field", or remove it')
    if "quarantine" in given and listener.check_mode("dmarc") is not CheckMode.ENFORCE:
        text = 'This has no effect without dmarc = "enforce"'
        yield Finding(((*here, "quarantine"), (*here, "dmarc")), text, 'Add dmarc = "enforce", or remove it')
    enforces = any(listener.check_mode(name) is CheckMode.ENFORCE for name in CHECKS)
    if "temporary_failure" in given and not enforces:
        text = 'This has no effect: no check of this listener is set to "enforce"'
        yield Finding(((*here, "temporary_failure"),), text, 'Set a check to "enforce", or remove it')
