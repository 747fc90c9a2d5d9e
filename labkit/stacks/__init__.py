"""Stacks as files: what a stack is made of, written as YAML (or JSON), reviewed, compared, and read back.

`save(handler, path, names={"small": small})` writes every lever with its settings; what no file can hold (engines, functions
of your own) goes by a name that you give. `load(path, names=…)` makes an equal stack. Things that several levers share (a
ledger, a store, a breaker) are written once, under `shared`, and are one object again when read.
"""

from labkit.stacks.files import load, save
from labkit.stacks.write import from_data, to_data

__all__ = ["from_data", "load", "save", "to_data"]
