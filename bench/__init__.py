"""Benchmarks of sockframe against its peers: `python -m bench`."""
