"""Slow and plain implementations that the tests compare with; they share no code with the package."""
