"""Moving everything from one kind of store to the other, and showing that it has arrived.

Merging is idempotent, so a migration that was interrupted is simply done again. Neither side is served meanwhile.
"""
