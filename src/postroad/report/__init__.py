"""Readers of the event stream: delivery status notifications and the log."""
