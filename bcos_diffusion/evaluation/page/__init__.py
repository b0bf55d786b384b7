"""The report of an evaluation as one page that stands alone: sections from results, and HTML from sections."""
