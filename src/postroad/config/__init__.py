"""What the operator writes: a TOML file, turned into frozen settings or into all its problems at once."""
