"""Comparing optimizers: protocol, trials, tuning, statistics, tables."""
