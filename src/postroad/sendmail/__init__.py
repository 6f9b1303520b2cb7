"""The program `sendmail`: what a system's programs call to send mail; also `mailq` and `newaliases`.

It is started for each message, so it must start fast: these modules import each other and a few of Python's built-in
modules, but nothing else of Postroad, and nothing that is slow to import (`re`, `typing`, `json`, `socket`). The
program runs with the rights of its caller. It hands a message to the node over a Unix socket (`node_socket`), or, if
the node does not take it now, writes it into the drop folder (`drop_folder`). The node's side is `receive.local_socket`
and `receive.drop`.

Not here: what is in the header section. The node reads recipients out of it, removes Bcc and adds fields.
"""
