"""Processes, checkpoints, progress and time: knows nothing of tasks or rules."""
