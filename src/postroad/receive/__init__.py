"""The receive stage: listeners and sessions for SMTP, submission and LMTP.

`listener` owns a listening socket and its sessions, `session` is one connection, `dialog` answers its commands,
`intake` takes its transactions and asks the rules, `acceptance` stores the message. The doors to other rooms come in as
`doors.Doors`.
"""
