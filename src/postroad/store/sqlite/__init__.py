"""The engine that keeps spool and history in SQLite files; its names for values are those of `store`."""
