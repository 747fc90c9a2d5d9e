"""SQLite files that threads and processes share: the common base of the ledger and the caches.

`open_file` opens a file of one `FileKind`, creates it if it is missing, and touches no file of another kind. `SharedFile`
holds the connection that all threads of a process share, and opens another one in a forked process. `transaction` commits or
rolls back. `explain` says what to do about SQLite's errors.
"""

from labkit.sqlite.file import FileKind, Unusable, open_file
from labkit.sqlite.shared import (
    FileTrouble,
    NotOpen,
    ProcessLock,
    SharedFile,
    explain,
    is_damage,
    primary_code,
    transaction,
)

__all__ = [
    "FileKind",
    "FileTrouble",
    "NotOpen",
    "ProcessLock",
    "SharedFile",
    "Unusable",
    "explain",
    "is_damage",
    "open_file",
    "primary_code",
    "transaction",
]
