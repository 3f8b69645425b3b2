"""What growing saves against the horizon: one curve, with everything counted. `python -m benchmarks.horizon --help`."""
