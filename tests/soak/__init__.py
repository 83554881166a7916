"""A server under many clients that behave, dawdle, vanish and are killed: `python -m tests.soak`."""
