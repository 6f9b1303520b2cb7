"""The folder that the node shares with the users of this machine, and the requests and answers.

The folder has the `SOCKET`, `FACTS` that the node writes for the program, and the `DROP` folder for messages that are
handed over while the node does not take them. Everybody may create files in `DROP`; only the node can list it.

A request, over the socket or in a file of the drop folder, is lines "word value" that end with an empty line, then
`size` octets of content with CRLF line ends. The first line is the verb with the version, such as "submit 1". Answers
are replies as in SMTP, with "354" for "send the content".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERSION: Final = "1"
SOCKET: Final = "socket"
FACTS: Final = "facts"
DROP: Final = "drop"
DROP_MODE: Final = 0o3733  # everybody may create, nobody but the owner may list; new files get the folder's group
WHOLE: Final = "m-"  # how the name of a file begins whose message is complete
PART: Final = "t-"  # the same while it is written
NAME_OCTETS: Final = 16  # of chance in a name
FILE_MODE: Final = 0o640

SUBMIT: Final = "submit"  # the verbs
SMTP: Final = "smtp"
LIST: Final = "list"
FLUSH: Final = "flush"
VERIFY: Final = "verify"
ALIASES: Final = "aliases"

REQUEST_MAX: Final = 1_048_576  # octets of the lines of a request
SIZE_MAX: Final = 104_857_600  # octets of a message if the node has not said how many it takes
