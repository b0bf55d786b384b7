"""Time and memory of every op beside its peers: ``python -m benchmarks report`` and ``pytest benchmarks``."""
