"""SQLite files of our own, which threads and processes share: what the ledger and the caches have in common.

`open_file` opens a file of one `FileKind`, making it where it is missing, and touches no other; `SharedFile` is its
connection for all threads of a process and for what forks from it; `transaction` commits or rolls back; `explain` says what
to do about SQLite's errors.
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
