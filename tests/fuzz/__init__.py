"""Fuzzing: targets that take any octets and raise AssertionError where a promise is broken.

`python -m tests.fuzz TARGET --seconds N` runs one, under atheris (coverage guided) where it is installed, else with a
plain mutating runner. `corpus/TARGET` holds seeds, `found/TARGET` every input that once broke something; the tests
here play both, so what was found stays found.
"""
