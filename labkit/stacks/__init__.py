"""Stacks as files: a stack written as YAML (or JSON), to be reviewed, compared and read back.

`save(handler, path, names={"small": small})` writes every lever with its settings. What no file can hold (engines, your own
functions) is written as a name that you give. `load(path, names=…)` makes the stack again. An object that several levers
share (a ledger, a store, a breaker) is written once, under `shared`, and is one object again when it is read. It comes back
with its settings, but without what it learned or counted, and without functions that it was given (a store's `versions`).
"""

from labkit.stacks.files import load, save
from labkit.stacks.write import from_data, to_data

__all__ = ["from_data", "load", "save", "to_data"]
