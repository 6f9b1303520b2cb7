"""Authentication put together for one worker from the settings: sources, backends, the authenticator.

It is made at the start, and again at each reload that succeeds; problems are found while the reload is prepared.
Dovecot answers whole exchanges; everything else goes through our own mechanisms.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from postroad.accounts.accounts import Accounts, UsersFileFault
from postroad.accounts.authenticate import USERS, Authenticator, Backend
from postroad.accounts.dovecot import Dovecot
from postroad.accounts.exchange import OwnMechanisms
from postroad.accounts.function import FunctionSource, load
from postroad.accounts.introspection import Introspection
from postroad.accounts.users import Users
from postroad.config import options
from postroad.node.wiring.secret import node_secret
from postroad.node.wiring.tables import first_line
from postroad.world.clock import Clock
from postroad.world.http import Fetch
from postroad.world.network import Network, why
from postroad.world.problem import Problem
from postroad.world.tls_session import bindable

if TYPE_CHECKING:
    from postroad.config.settings import Settings

FETCH_THREADS: Final = 8  # tokens introspected at a time; each waits for the authorization server


def read_accounts(
    settings: Settings, faulty: Callable[[Path, tuple[UsersFileFault, ...]], None]
) -> Accounts | str | None:
    """The accounts of the users file; None if no file is set, a text if it cannot be used."""
    path = settings.auth.users
    if path is None:
        return None
    faults: list[UsersFileFault] = []
    accounts = Accounts(path, faults.extend)
    if faults:
        return "; ".join(placed(path, fault) for fault in faults)
    accounts.faulty = partial(faulty, path)
    return accounts


def placed(path: Path, fault: UsersFileFault) -> str:
    return f"{path}:{fault.line}: {fault.text}" if fault.line else f"{path}: {fault.text}"


def authenticator(
    settings: Settings,
    accounts: Accounts | None,
    *,
    loop: asyncio.AbstractEventLoop,
    clock: Clock,
    entropy: random.Random,
    network: Network,
    fetcher: Callable[[Executor, str], Fetch],
    log: Callable[[str], None],
) -> Authenticator | str | None:
    """The authenticator; None if nobody can authenticate, a text if something is wrong. `fetcher`: HTTP on these
    threads with these roots."""
    auth = options.auth_options(settings)
    try:
        secret = node_secret(Path(settings.state_dir), entropy)
    except OSError as error:
        return f"{error.filename}: {error.strerror}; the node keeps a secret there"
    # Threads of their own, so that an authorization server or a function that is slow does not keep passwords waiting.
    threads = ThreadPoolExecutor(auth.threads, "password")
    function = load(settings.auth.function) if settings.auth.function else None
    if isinstance(function, str):
        return function
    backends: dict[str, Backend] = {}  # by names that say whether the next settings ask the same
    tokens = options.introspection_options(settings)
    if tokens is not None:
        secret_file = settings.auth.introspection.client_secret_file
        if secret_file is not None:
            line = first_line(secret_file)
            if isinstance(line, Problem):
                return str(line)
            tokens = replace(tokens, client_secret=line)
        try:
            fetch = fetcher(ThreadPoolExecutor(FETCH_THREADS, "introspection"), tokens.ca_file)
        except OSError as error:
            return f"{tokens.ca_file}: {why(error)}"
        source = Introspection(tokens, auth, loop, clock, entropy, fetch, log, FETCH_THREADS)
        backends[f"introspection {tokens.url}"] = OwnMechanisms(source, entropy, tokens.scope)
    if settings.auth.dovecot is not None:
        path = str(settings.auth.dovecot)
        backends[f"dovecot {path}"] = Dovecot(path, auth, loop, network, log)
    if function is not None:
        own = ThreadPoolExecutor(auth.threads, "function")
        asked = FunctionSource(function, auth, loop, own, secret, log)
        backends[f"function {settings.auth.function}"] = OwnMechanisms(asked, entropy)
    if accounts is not None:
        elsewhere = settings.auth.dovecot is not None or bool(settings.auth.function)
        users = Users(accounts, auth, loop, entropy, secret, threads, passwords=not elsewhere, log=log)
        backends[USERS] = OwnMechanisms(users, entropy)
    if not backends:
        return None
    return Authenticator(backends, accounts, auth, loop, bindable=bindable())
