"""Optimizees trained side by side, and episodes of them."""
