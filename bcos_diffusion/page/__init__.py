"""A page of results: sections of text, tables, charts and pictures, written as one HTML file."""
