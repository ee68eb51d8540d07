"""Train a cell: the loop, the resets between cycles, the log, the states, and what happens when a training diverges."""
