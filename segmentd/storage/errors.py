"""What can be wrong with a data folder or a write. Messages name the folder and what to do."""


class StorageError(Exception):
    """Base: something about the data folder is wrong. The message is for people."""


class FolderLockedError(StorageError):
    """Another process serves this folder."""


class FormatTooNewError(StorageError):
    """The folder was written by a newer segmentd."""


class FolderUnusableError(StorageError):
    """The folder cannot be read or written, or what it holds is damaged."""


class StoreFullError(StorageError):
    """The disk or the LMDB map is full. Nothing was written; the environment is still good."""


class StoreFailureError(StorageError):
    """A write failed in a way that leaves its outcome unknown (I/O error). Write no more; recover by restarting."""
