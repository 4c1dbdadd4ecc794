"""What is on disk: LMDB environments and the files around them. No Trio: every call here is plain and may block."""
