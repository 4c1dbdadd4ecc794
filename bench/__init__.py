"""Benchmarks: segmentd beside what a user would pick instead, in one run, on the same work. See README.md."""
