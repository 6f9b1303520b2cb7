"""Supervisor, worker and wiring: the only makers of real doors."""
