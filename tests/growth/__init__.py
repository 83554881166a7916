"""Memory and descriptors over a million frames, ten thousand connections, a hundred thousand errors, and under a
thousand peers that announce what never comes: `python -m tests.growth`."""
