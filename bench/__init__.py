"""Measurements: side by side with peers in one run, ratios rather than figures."""
