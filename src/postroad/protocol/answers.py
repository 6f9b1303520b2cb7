"""The replies of the server machine itself, if a client breaks syntax, order or a limit (RFC 5321 §4.2.2, §4.2.3).

Not here: replies whose text depends on the session (221 and 421 begin with our name), replies of rules, and those about
the syntax of arguments (`grammar`).
"""

from __future__ import annotations

from typing import Final

from postroad.mail.reply import reply

OK: Final = reply(250, "2.0.0", "Ok")
CANNOT_VRFY: Final = reply(252, "2.0.0", "Cannot VRFY user, but will accept message and attempt delivery")  # §3.5.3
READY_FOR_TLS: Final = reply(220, "2.0.0", "Ready to start TLS")
UNKNOWN: Final = reply(500, "5.5.2", "Command not recognized")
OTHER_DIALECT: Final = reply(500, "5.5.1", "Not a command of this protocol")  # RFC 2033 §4.1
LINE_TOO_LONG: Final = reply(500, "5.5.2", "Command line too long")  # RFC 5321 §4.5.3.1.9
AUTH_TOO_LONG: Final = reply(500, "5.5.6", "Authentication exchange line is too long")  # RFC 4954 §6
BAD_OCTETS: Final = reply(500, "5.5.2", "Control characters in a command line")
NO_ARGUMENT: Final = reply(501, "5.5.4", "No arguments allowed")
BAD_HELLO: Final = reply(501, "5.5.4", "Syntax: a domain or an address literal must follow")
NOT_IMPLEMENTED: Final = reply(502, "5.5.1", "Command not implemented")
NOT_BINARY: Final = reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT")  # RFC 3030 §3
TLS_ACTIVE: Final = reply(503, "5.5.1", "TLS is active already")
AUTHENTICATED: Final = reply(503, "5.5.1", "Already authenticated")  # RFC 4954 §4
NEEDS_EHLO: Final = reply(503, "5.5.1", "Bad sequence of commands, send EHLO first")
NO_SERVICE: Final = reply(503, "5.5.1", "No service here")  # RFC 5321 §3.1
BAD_MECHANISM: Final = reply(504, "5.5.4", "Mechanism not offered")  # RFC 4954 §4
BAD_BASE64: Final = reply(501, "5.5.2", "Not base64")  # RFC 4954 §4
CANCELLED: Final = reply(501, "5.7.0", "Authentication cancelled")
NEEDS_TLS: Final = reply(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 §4
NEEDS_AUTH: Final = reply(530, "5.7.0", "Authentication required")  # RFC 4954 §6
MECHANISM_NEEDS_TLS: Final = reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
TOO_MANY_RECIPIENTS: Final = reply(452, "4.5.3", "Too many recipients")  # RFC 5321 §4.5.3.1.10, RFC 3463 §3.6
TOO_MANY_DOMAINS: Final = reply(452, "4.5.3", "Too many domains of recipients")  # RFC 9422: RCPTDOMAINMAX
NOT_ANY_MORE: Final = reply(451, "4.3.2", "Our settings have changed and a parameter is not offered any more, say EHLO")
NO_VALID_RECIPIENTS: Final = reply(554, "5.5.1", "No valid recipients")  # RFC 5321 §3.3
IMPROPER_PIPELINING: Final = reply(554, "5.5.0", "Improper command pipelining")
