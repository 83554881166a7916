"""Fuzzing both wings in step: `python -m tests.fuzz`; see CONTRIBUTING.md."""
