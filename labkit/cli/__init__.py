"""The `labkit` command: open the workbook, check the machine, and reach the rooms from a shell.

It holds no logic of its own beyond that check (`doctor.examine`). A command imports its room when it runs, so that
`labkit --help` answers at once. Errors that the lab raises on purpose are printed as one line, without a traceback.
"""

from labkit.cli.app import main

__all__ = ["main"]
