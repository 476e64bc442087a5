"""The fuzz of everything that reads bytes of a stranger: coverage-guided (atheris), each target with its oracle.

`bin/fuzz TARGET` runs one until it is told to stop, `test_fuzz.py` each for a moment.
"""
