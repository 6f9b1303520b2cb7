"""Postroad: a mail transfer agent that keeps, relays, delivers, reports and traces mail."""

__version__ = "0.1.0"
