"""Rivals of the exact explanation, each usable alone on any pipeline of ours, B-cos or ordinary."""
