"""The report of a sweep: figures, tables, and the page that holds them.

Each function here takes the DataFrame of `repro.results.load` (or any of that shape) and works in a notebook as well:
figures.py returns matplotlib figures, tables.py returns DataFrames, page.py writes the folder.
"""
