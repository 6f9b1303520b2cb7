"""SASL mechanisms without I/O, both ends (RFC 4422): one module for each family, one table of all that we serve.

`step` is the vocabulary between a server mechanism and its host, `mechanisms` the table of the server's side,
`clients` the client's side. Passwords, keys, tokens and certificates are looked up by the host.
"""
