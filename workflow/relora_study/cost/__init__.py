"""What a study costs: operations, memory, what jobs ask a scheduler for, and the plan."""
