"""`postroad queue retry`, `hold`, `release`, `remove` and `fail`: from options to a request, from its results to words.

`request_of` is pure. `operate.acting` has the request done, by the running node or without one.

How it fails: what cannot be done is one line on stderr and exit code 1; so is a request by which nobody was meant. Each
message's change is one commit, so nothing is half done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from postroad.cli.command import end, print_json, who
from postroad.cli.opened import spool_of, warn_if_stopped
from postroad.cli.options import config_option, filter_options, json_option, settings_of, state_dir_of
from postroad.mail.numbers import counted

if TYPE_CHECKING:
    from postroad.operate.operator import OperatorRequest, OperatorResult

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _action(command: Callable[..., Any]) -> Callable[..., Any]:
    """All that the actions have in common."""
    decorators: tuple[Callable[..., Any], ...] = (
        click.argument("selectors", metavar="SELECTOR...", nargs=-1),
        click.option("--all", "everything", is_flag=True, help="Everything in the queue."),
        filter_options,
        click.option("--dry-run", "-n", is_flag=True, help="Only print what would be done."),
        json_option,
        config_option,
        click.pass_obj,
    )
    for decorator in decorators:
        command = decorator(command)
    return command


def _reason(command: _Command) -> _Command:
    """`--reason TEXT`, handed to the command as `reason`."""
    return click.option("--reason", default="", metavar="TEXT", help="Reason, for log, history and report.")(command)


def _sure(command: _Command) -> _Command:
    """`--yes`, handed to the command as `yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation before --all.")(command)


@click.command()
@_action
def retry(outer: Path | None, **options: Any) -> None:
    """Try now instead of at the next planned time.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _run("retry", outer, **options)


@click.command()
@_reason
@_action
def hold(outer: Path | None, **options: Any) -> None:
    """Stop trying until the mail is released.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _run("hold", outer, **options)


@click.command()
@_action
def release(outer: Path | None, **options: Any) -> None:
    """Release held mail and try it now.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _run("release", outer, **options)


@click.command()
@_sure
@_reason
@_action
def remove(outer: Path | None, **options: Any) -> None:
    """Discard mail without a report to anybody.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _run("remove", outer, **options)


@click.command()
@click.option("--status", default="", metavar="CODE", help="Enhanced status code of the report.  [default: 5.4.7]")
@_sure
@_reason
@_action
def fail(outer: Path | None, **options: Any) -> None:
    """Give up mail; the sender gets a report.

    SELECTOR is a queue id, an address, @domain, or a destination as `postroad queue` lists it.
    """
    _run("fail", outer, **options)


COMMANDS: Final = (retry, hold, release, remove, fail)


class ActionOptions(NamedTuple):
    """What was written after `postroad queue ACTION`. `everything`: --all; `held`: --held or --not-held."""

    selectors: tuple[str, ...] = ()
    everything: bool = False
    destination: str = ""
    sender: str = ""
    recipient: str = ""
    held: bool | None = None
    dry_run: bool = False
    reason: str = ""
    status: str = ""

    @property
    def filters(self) -> str:
        """The filters as they were written."""
        texts = {"--from": self.sender, "--to": self.recipient, "--destination": self.destination}
        written = [f"{option} {text}" for option, text in texts.items() if text]
        written += [] if self.held is None else ["--held" if self.held else "--not-held"]
        return " ".join(written)


def request_of(action: str, options: ActionOptions, by: str) -> OperatorRequest | str:
    """The request that these options mean, or what is wrong with them. `by`: who asks."""
    from postroad.operate import selector
    from postroad.operate.operator import FAILED_STATUS, OperatorAction, OperatorRequest, checked

    selections = selector.selections(options.selectors, everything=options.everything, filtered=bool(options.filters))
    if isinstance(selections, str):
        return selections
    narrowed = tuple(
        selector.narrowed(
            each,
            sender=options.sender,
            recipient=options.recipient,
            destination=options.destination,
            held=options.held,
        )
        for each in selections
    )
    return checked(
        OperatorRequest(
            OperatorAction(action), narrowed, options.dry_run, by, options.reason, options.status or FAILED_STATUS
        )
    )


def _run(
    action: str, outer: Path | None, *, config: Path | None, as_json: bool, yes: bool = False, **written: Any
) -> None:
    """From the options of a command to its end."""
    from postroad.operate import acting

    options = ActionOptions(**written)
    request = request_of(action, options, who())
    if isinstance(request, str):
        raise click.UsageError(request)
    act = partial(_act, config or outer)
    if options.everything and request.action.is_final and not (options.dry_run or yes):
        _confirm(request, options, act, as_json=as_json)
    idle = acting.without_effect(request, options.selectors, act) if len(options.selectors) > 1 else []
    results = act(request)
    _show(results, request, options, as_json=as_json)
    for selector in idle if results else ():
        click.echo(f"{selector}: matches nothing in the queue", err=True)
    if not any(each.done for each in results):
        sys.exit(1)
    if request.action.tries_now:
        warn_if_stopped(config or outer, spool_of(config or outer))


def _act(config: Path | None, request: OperatorRequest) -> list[OperatorResult]:
    from postroad.operate import acting

    try:
        return acting.act(request, state_dir_of(config), lambda: settings_of(config))
    except acting.CannotAct as error:
        end(str(error))


def _confirm(
    request: OperatorRequest,
    options: ActionOptions,
    act: Callable[[OperatorRequest], list[OperatorResult]],
    *,
    as_json: bool,
) -> None:
    """Asks before much mail ends, and says how much. If there is none, the command ends here."""
    from msgspec.structs import replace

    would = act(replace(request, dry_run=True))
    count = sum(each.count for each in would if each.done)
    if not count:
        _show(would, request, options, as_json=as_json)
        sys.exit(1)
    what = f"what matches {options.filters}" if options.filters else "everything in the queue"
    click.confirm(f"Really {request.action.value} {what}: {counted(count, 'recipient')}?", abort=True, err=True)


def _show(results: list[OperatorResult], request: OperatorRequest, options: ActionOptions, *, as_json: bool) -> None:
    from postroad.cli.table import print_table
    from postroad.operate import listing

    if as_json:
        print_json([listing.result_line(each, dry_run=request.dry_run) for each in results])
    elif results:
        print_table(listing.RESULT_HEADINGS, listing.result_rows(results, dry_run=request.dry_run))
    for line in _not_found(results, request, options.selectors):
        click.echo(line, err=True)
    if not as_json:
        click.echo(f"{request.action.value}: {listing.summary(results, request.dry_run)}", err=True)


def _not_found(results: list[OperatorResult], request: OperatorRequest, selectors: tuple[str, ...]) -> Iterable[str]:
    """The messages that are not there; if nothing was found at all, also the selectors."""
    from postroad.mail import identifier

    found = {each.id for each in results}
    for text in (identifier.text(id) for each in request.selections for id in each.ids):
        if text not in found:
            yield f"{text}: not in the queue"
    for written, each in zip(selectors if not results else (), request.selections, strict=False):
        if not each.ids:
            hint = f"; for a recipient domain write @{written}" if each.destination == written else ""
            yield f"{written}: not in the queue{hint}"
