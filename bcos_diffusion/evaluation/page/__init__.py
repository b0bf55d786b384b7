"""The report of an evaluation as one page that stands alone: the sections of its results."""
