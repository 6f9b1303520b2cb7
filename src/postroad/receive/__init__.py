"""The receive stage: listeners and sessions for SMTP, submission and LMTP.

`listener` owns a listening socket and its sessions, `session` drives one server machine, `transaction` turns what it
was told into a stored message. What other rooms do for them comes in as `doors.Doors`.
"""
