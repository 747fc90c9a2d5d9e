"""The `labkit` command: open the workbook, check the machine, and reach the rooms from a shell.

It holds no logic of its own beyond that check (`doctor.examine`). Rooms are imported when their command runs, so that
`labkit --help` answers at once; errors raised on purpose are printed as one line, without a traceback.
"""

from labkit.cli.app import main

__all__ = ["main"]
