"""What the settings say against each other: each key is right by itself, together they cannot work."""
