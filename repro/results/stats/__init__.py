"""Statistics of tables of results: where growing the batch stops paying, and which of two tables is ahead.

Each function takes a table in the shape of `repro.results.tables.load` and works in a notebook as well.
docs/saturation.md explains the methods. Accuracies are percent and differences points in all that this room returns.
"""
