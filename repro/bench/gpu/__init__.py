"""repro bench gpu: what only a GPU can tell, in minutes. docs/gpu.md says how to read it.

A section is a function of a Place (rows.py), run in a process of its own by the driver (driver.py).
"""
