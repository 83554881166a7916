"""Every Python, machine and build that the tests are run on, from one command: `python -m tests.matrix`."""
