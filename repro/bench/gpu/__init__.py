"""repro bench gpu: everything that needs a GPU, in minutes. docs/gpu.md says how to read it.

A section is a function of a Place (place.py), run in a process of its own by the driver (driver.py).
"""
