"""Finds settings that contradict each other: each key is right by itself, but together they cannot work."""
