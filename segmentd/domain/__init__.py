"""The rules of membership: pure functions and values, no async, no I/O.

Standard library and msgspec only. Everything here can be tested with plain calls.
"""
