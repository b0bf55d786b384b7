"""The report of a sweep: sections from its numbers, and pictures from its models."""
