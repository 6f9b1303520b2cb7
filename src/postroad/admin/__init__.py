"""What the operator sees: the command line. It stands above `config`, and below `node`, which adds `serve` to it."""
