"""`postroad user`: the accounts file of `[auth] users` (its format: `accounts.accounts`).

What always holds: the file is replaced as a whole, by a synced copy and a rename, so that the node never reads half of
it and a crash leaves the old or the new one; comments and the other accounts' lines stay as they are. Its mode is 0640;
owner and group stay those of the file before; a new one that root makes has the group of the node (`user`, `group`),
or of its folder if none is set, so that the node can read it. Two commands at once do not undo each other.
Passwords come from a prompt or from standard input, never from the command line, where every user of the machine could
read them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from postroad.cli.options import config_option, end_with, json_option, settings_of, text_at, value_at
from postroad.mail.account import canonical_account

if TYPE_CHECKING:
    from postroad.accounts.accounts import Account
    from postroad.protocol.sasl.scram_keys import ScramKeys
    from postroad.protocol.sasl.step import Hash

_MODE: Final = 0o640
_PASSWORD_LINE_MAX: Final = 8192

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _file_option(command: _Command) -> _Command:
    kind = click.Path(path_type=Path, dir_okay=False)
    text = "The accounts file, if it is not the file that the configuration names."
    return click.option("--file", "file", type=kind, help=text)(command)


@click.group()
def user() -> None:
    """Manage the accounts that may authenticate, and the addresses that they may send from.

    A running node notices a change by itself within moments.
    """


@user.command()
@click.argument("name")
@click.option(
    "--address",
    "-a",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="A mailbox that the account may send from; *@DOMAIN: all of a domain; *: any. May be repeated.",
)
@click.option("--scram-sha-1", is_flag=True, help="Also keep keys for SCRAM-SHA-1, for clients that lack SHA-256.")
@click.option("--no-password", is_flag=True, help="Keep no password: Dovecot, a function or a certificate proves it.")
@config_option
@_file_option
@json_option
def add(
    name: str,
    addresses: tuple[str, ...],
    scram_sha_1: bool,
    no_password: bool,
    config: Path | None,
    file: Path | None,
    as_json: bool,
) -> None:
    """Add the account NAME. The password is read from a prompt or from standard input.

    Without --address, an account whose name is a mailbox may send from this mailbox. Any other account may send from
    its name at account_domain, and from what sender_maps say ([auth]).
    """
    from postroad.accounts.accounts import Account, canonical_address

    name = _checked_name(name)
    path = _file(config, file)
    if canonical_account(name) in _lines(path)[1]:
        _end(f"The account {name!r} already exists; `postroad user password` sets its password.")
    is_mailbox = not (canonical_address(name) or "*").startswith("*")
    if not addresses and not is_mailbox and not _has_other_senders(config, file):
        _end(f"{name!r} is not a mailbox: add --address with the addresses that this account may send from.")
    hashed, keys = ("", ()) if no_password else _secrets(_password(), _hashes(scram_sha_1))
    with _editing(path, _group_of_node(config, file)) as (lines, known):
        if canonical_account(name) in known:
            _end(f"The account {name!r} already exists.")
        account = Account(name, hashed, _checked_addresses(addresses), keys)
        lines.append(_line(account))
    _tell("added", account, f"Added {name}.", as_json)


@user.command()
@click.argument("name")
@click.option("--scram-sha-1", is_flag=True, help="Also keep keys for SCRAM-SHA-1; existing ones are always kept.")
@config_option
@_file_option
@json_option
def password(name: str, scram_sha_1: bool, config: Path | None, file: Path | None, as_json: bool) -> None:
    """Set the password of the account NAME. It is read from a prompt or from standard input."""
    import msgspec

    name = _checked_name(name)
    path = _file(config, file)
    _, before = _found(_lines(path)[1], name)
    old = any(keys.hash.value == "SHA-1" for keys in before.keys)
    hashed, keys = _secrets(_password(), _hashes(scram_sha_1 or old))
    with _editing(path) as (lines, known):
        place, account = _found(known, name)
        lines[place] = _line(msgspec.structs.replace(account, hash=hashed, keys=keys))
    _tell("password set", account, f"The password of {name} is set.", as_json)


@user.command()
@click.argument("name")
@click.argument("addresses", nargs=-1, required=True)
@config_option
@_file_option
@json_option
def addresses(name: str, addresses: tuple[str, ...], config: Path | None, file: Path | None, as_json: bool) -> None:
    """Replace the ADDRESSES that the account NAME may send from."""
    import msgspec

    with _editing(_file(config, file)) as (lines, known):
        place, account = _found(known, _checked_name(name))
        account = msgspec.structs.replace(account, addresses=_checked_addresses(addresses))
        lines[place] = _line(account)
    _tell("addresses set", account, f"{name} may send from {', '.join(addresses)}.", as_json)


@user.command()
@click.argument("name")
@config_option
@_file_option
@json_option
def remove(name: str, config: Path | None, file: Path | None, as_json: bool) -> None:
    """Remove the account NAME."""
    with _editing(_file(config, file)) as (lines, known):
        place, account = _found(known, _checked_name(name))
        del lines[place]
    _tell("removed", account, f"Removed {name}.", as_json)


@user.command("list")
@config_option
@_file_option
@json_option
def list_(config: Path | None, file: Path | None, as_json: bool) -> None:
    """List the accounts with the addresses that they may send from."""
    _, known = _lines(_file(config, file))
    accounts = [account for _, account in known.values()]
    if as_json:
        click.echo(json.dumps([_record(each) for each in accounts]))
        return
    width = max((len(each.name) for each in accounts), default=0)
    for each in accounts:
        click.echo(f"{each.name:{width}}  {', '.join(_may_send(each))}")


def add_account(path: Path, name: str, password: str, addresses: tuple[str, ...]) -> None:
    """Adds an account, or gives the one of this name a new password and addresses. A missing file is made."""
    from postroad.accounts.accounts import Account, hash_password, scram_keys_of

    keys = scram_keys_of(password, _hashes(False))
    account = Account(name, hash_password(password), _checked_addresses(addresses), keys)
    with _editing(path) as (lines, known):
        if canonical_account(name) in known:
            lines[known[canonical_account(name)][0]] = _line(account)
        else:
            lines.append(_line(account))


def _tell(done: str, account: Account, text: str, as_json: bool) -> None:
    """What was done: a line for people on standard error, or an object for programs on standard output."""
    if as_json:
        click.echo(json.dumps({"done": done, **_record(account)}))
    else:
        click.echo(text, err=True)


def _record(account: Account) -> dict[str, object]:
    return {"name": account.name, "addresses": _may_send(account)}


def _may_send(account: Account) -> list[str]:
    return list(account.addresses) or [account.name]


# ---- what the operator gave -----------------------------------------------------------------------------------------


def _checked_name(name: str) -> str:
    from postroad.accounts.accounts import name_fault, prepare

    prepared = prepare(name)
    fault = "an account name must not hold control characters" if prepared is None else name_fault(prepared)
    if prepared is None or fault:
        _end(f"{name!r} cannot be an account: {fault}.")
    return prepared


def _checked_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    from postroad.accounts.accounts import canonical_address

    found = [(each, canonical_address(each)) for each in addresses]
    for given, address in found:
        if address is None or ":" in given:
            _end(f"{given!r} is neither a mailbox, nor *@domain, nor *.")
    return tuple(dict.fromkeys(address for _, address in found if address is not None))


def _password() -> str:
    """From a prompt, asked twice, or the first line of standard input."""
    if sys.stdin.isatty():
        answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return answer
    line = sys.stdin.readline(_PASSWORD_LINE_MAX)
    if not line.rstrip("\r\n"):
        _end("There was no password on standard input.")
    return line.rstrip("\r\n")


def _hashes(sha_1: bool) -> tuple[Hash, ...]:
    """The hash functions to keep SCRAM keys for."""
    from postroad.protocol.sasl.step import Hash

    return (Hash.SHA_256, Hash.SHA_1) if sha_1 else (Hash.SHA_256,)


def _secrets(password: str, hashes: tuple[Hash, ...]) -> tuple[str, tuple[ScramKeys, ...]]:
    """What is kept of a password: its argon2 hash and its SCRAM keys."""
    from postroad.accounts.accounts import hash_password, scram_keys_of

    try:
        return hash_password(password), scram_keys_of(password, hashes)
    except ValueError as error:
        _end(f"This cannot be a password: {error}.")


def _found(known: dict[str, tuple[int, Account]], name: str) -> tuple[int, Account]:
    found = known.get(canonical_account(name))
    if found is None:
        _end(f"There is no account {name!r}; `postroad user list` lists all accounts.")
    return found


def _end(text: str) -> NoReturn:
    raise click.ClickException(text)


# ---- the file -------------------------------------------------------------------------------------------------------


def _file(config: Path | None, given: Path | None) -> Path:
    from postroad.cli.options import config_path
    from postroad.config.load import at

    if given is not None:
        return given.resolve()
    written = text_at(config, "auth", "users")
    if written is not None:  # all else in the configuration may be wrong, or not be there yet
        return (config_path(config).absolute().parent / written).resolve()
    settings = settings_of(config)
    if settings.auth.users is None:
        remedy = 'Add users = "users" under [auth], or give the file by --file'
        end_with([at(config_path(config), ("auth", "users"), "No accounts file is set", remedy)])
    return settings.auth.users.resolve()


def _has_other_senders(config: Path | None, given: Path | None) -> bool:
    """Whether the configuration gives addresses to accounts that have none in the file."""
    if given is not None:
        return False
    return any(value_at(config, "auth", key) for key in ("account_domain", "sender_maps"))


def _group_of_node(config: Path | None, given: Path | None) -> int | None:
    """The group that the node runs as, if it drops the rights of root; None if it does not, or is not known."""
    import grp
    import pwd

    if given is not None or os.geteuid() != 0:
        return None
    user, group = text_at(config, "user"), text_at(config, "group")
    try:
        if user:
            return grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid
    except KeyError:
        missing = f"group {group!r}" if group else f"user {user!r}"
        _end(f"There is no {missing}. Create it, or set another one.")
    return None


def _line(account: Account) -> str:
    from postroad.accounts.accounts import format_line

    return format_line(account)


def _lines(path: Path) -> tuple[list[str], dict[str, tuple[int, Account]]]:
    """The lines of the file, and each account with the place of its line. A missing file has none."""
    from postroad.accounts.accounts import parse, parse_line
    from postroad.config.problem import ConfigProblem

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return [], {}
    except (OSError, UnicodeDecodeError) as error:
        _end(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
    _, faults = parse(text)
    if faults:
        remedy = "Correct the line; a node does not load a file with a faulty line"
        end_with(ConfigProblem(path, fault.line, "", fault.text, remedy) for fault in faults)
    lines = text.split("\n")
    if lines[-1] == "":
        del lines[-1]
    known = {}
    for place, line in enumerate(lines):
        account = parse_line(line.strip()) if line.strip() and not line.strip().startswith("#") else ""
        if not isinstance(account, str):
            known[canonical_account(account.name)] = (place, account)
    return lines, known


@contextmanager
def _editing(path: Path, group: int | None = None) -> Iterator[tuple[list[str], dict[str, tuple[int, Account]]]]:
    """The lines to change in place; written when the block ends without an exception. One editor at a time."""
    import fcntl

    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        _end(f"{path.parent}: {error.strerror}")
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lines, known = _lines(path)
        yield lines, known
        try:
            _replace(path, folder, "".join(f"{line}\n" for line in lines).encode(), group)
        except OSError as error:
            _end(f"{path} cannot be written: {error.strerror}")
    finally:
        os.close(folder)


def _replace(path: Path, folder: int, octets: bytes, group: int | None) -> None:
    import tempfile

    descriptor, copy = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(path, file.fileno(), group)
            os.fchmod(file.fileno(), _MODE)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        os.rename(copy, path)
        os.fsync(folder)
    except BaseException:
        Path(copy).unlink(missing_ok=True)
        raise


def _keep_owner(path: Path, descriptor: int, group: int | None) -> None:
    """`group`: that of a new file; None: its folder's."""
    try:
        before = path.stat()
    except FileNotFoundError:
        if os.geteuid() == 0:
            os.fchown(descriptor, -1, path.parent.stat().st_gid if group is None else group)
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
