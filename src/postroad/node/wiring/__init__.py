"""The wiring of one worker: every room's doors are made here."""
