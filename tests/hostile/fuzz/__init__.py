"""Fuzzing: one function a target, which raises where a promise is broken, and a small corpus that it begins with."""
