"""From a read-out to a short rule: library, CMA-ES, pruning, the front."""
