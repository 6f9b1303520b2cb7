"""The fixed replies of a session."""

from __future__ import annotations

from typing import Final

from postroad.mail.reply import reply

SENDER_OK: Final = reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK: Final = reply(250, "2.1.5", "Recipient OK")
GO_AHEAD: Final = reply(354, "", "Send the message, end with <CRLF>.<CRLF>")
CHUNK_OK: Final = reply(250, "2.0.0", "Chunk OK")
FORWARDED: Final = reply(250, "2.0.0", "The client of the next message is noted")
CANNOT_VERIFY: Final = reply(252, "2.5.2", "Cannot verify, but will take mail and try to deliver it")  # RFC 5321 §7.3
NOT_OFFERED: Final = reply(502, "5.5.1", "Command not implemented")

NO_MEMORY: Final = reply(452, "4.3.1", "Too much mail is arriving now, come back later")

RIGHT_GONE: Final = reply(451, "4.7.1", "The settings have changed, and with them what you may send; try again later")

# RFC 4954 §6
AUTHENTICATED: Final = reply(235, "2.7.0", "Authentication succeeded")
WRONG_CREDENTIALS: Final = reply(535, "5.7.8", "Authentication credentials invalid")
AUTH_BUSY: Final = reply(454, "4.7.0", "Temporary authentication failure, try again later")

# The last words of a session (RFC 5321 §3.8)
TIMEOUT: Final = reply(421, "4.4.2", "Timeout, closing the connection")
BANNED: Final = reply(421, "4.7.0", "Your address is banned for now")
LEAVING: Final = reply(421, "4.3.2", "The service is shutting down")
CHANGED: Final = reply(421, "4.3.2", "The settings of this service have changed, connect again")
BROKEN: Final = reply(421, "4.3.0", "Internal error, closing the connection")
TOO_MANY_FAILURES: Final = reply(421, "4.7.0", "Too many failed authentications")
NO_MEMORY_LAST: Final = reply(421, "4.3.1", "Too much mail is arriving now, come back later")
NO_ROOM: Final = reply(421, "4.3.2", "Too many connections here now, come back later")
EARLY_TALKER: Final = reply(554, "5.5.1", "You spoke before the greeting (RFC 5321 section 3.1)")
TOO_MANY_UNKNOWN: Final = reply(421, "4.7.0", "Too many unknown recipients")
TOO_MANY_REFUSALS: Final = reply(421, "4.7.0", "Too many refused commands")

UNSURE: Final = reply(451, "4.3.0", "Local error, try again later")
