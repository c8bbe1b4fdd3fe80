"""What runs take, predicted before anyone spends a GPU-hour (`repro plan`).

`work` counts what a step does from the spec and the model's size; `machine` says what a kind of machine sustains, as
calibrated on it or as assumed; `memory`, `seconds` and `disk` put the two together; `run` makes one row of a run, and
`crossover` says where the loss stops being small beside the towers. Calibration itself is in bench/plan.py. Nothing
here imports torch.
"""
