"""Learned baselines: an LSTM optimizer (L2LGD2) and its distilled formula (Symbolic L2O)."""
