"""The second store: memberships in a Valkey or Redis Cluster, for what one machine cannot hold.

The cluster shards, replicates and fails over; what is here decides what is written, waits until it is safe, and
notices when the owner of a part has changed. Nothing above the seam (`segmentd.runtime.seam`) knows which store runs.
"""
