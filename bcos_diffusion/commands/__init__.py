"""The commands that draw, and what they can be told."""
