"""The entry point `postroad`: the operator's commands of `cli`, and `serve`, which runs the node.

Here and not in `cli`, because `serve` needs the node and imports only go downward. Nothing heavy is imported before
a command asks for it.
"""

from __future__ import annotations

from typing import Final

from postroad.cli.cli import CommandEntry, group

_SERVE: Final = CommandEntry("postroad.node.serve", "serve", "Run the node in the foreground.")


def main() -> None:
    """Runs the command that the process was called with."""
    group({"serve": _SERVE})(prog_name="postroad")
