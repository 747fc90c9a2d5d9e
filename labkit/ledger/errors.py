"""Errors of the ledger. A row that could not be kept travels in the exception, so that nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.request import LabError

if TYPE_CHECKING:
    from labkit.ledger.row import Row


class InvalidRow(LabError, ValueError):
    """The row holds a value that no ledger can keep."""


class LedgerError(LabError):
    """The ledger at `path` could not be opened, read or appended to.

    `rows` are those that were *not* kept. They can be appended again later, even if nobody can tell whether they are already
    on the disk: a row is kept once per `attempt_id`.
    """

    def __init__(self, message: str, path: str = "", rows: tuple[Row, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.rows = rows

    @property
    def row(self) -> Row | None:
        """The first row that was not kept, or None."""
        return self.rows[0] if self.rows else None
