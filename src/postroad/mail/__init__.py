"""The nouns of mail: frozen values without I/O, shared by every room.

All are `msgspec.Struct`s that encode as arrays: a field is only ever *appended*, with a default, so that an older
spool stays readable (see docs/decisions/0003-values.md). Times are microseconds since 1970-01-01 UTC (`*_us`).
"""
