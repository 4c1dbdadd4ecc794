"""The real runtime under a seed: one process, virtual time, a disk that loses what was not synced, named faults."""
