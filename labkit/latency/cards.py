"""Machines by their datasheets: dense arithmetic, memory bandwidth, memory. Sources: `labkit/data/hardware`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from labkit.data import path as data_path
from labkit.request import InvalidValue

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine or accelerator by its datasheet.

    `bf16`, `fp8` and `int8` are peak dense arithmetic in TFLOP/s (no sparsity); None where the hardware has no such units.
    `bandwidth_gbs` is memory bandwidth in 10⁹ bytes/s, `tdp_w` power in W. `memory_gb` is in 10⁹ bytes and as the driver
    reports it: an "80 GB" H100 has 81,559 MiB, which is 85.52. Raises `InvalidValue` for impossible figures.
    """

    key: str
    name: str
    kind: str
    bf16: float
    fp8: float | None
    int8: float | None
    memory_gb: float
    bandwidth_gbs: float
    tdp_w: float
    source: str

    def __post_init__(self) -> None:
        for field in ("bf16", "fp8", "int8", "memory_gb", "bandwidth_gbs", "tdp_w"):
            value = getattr(self, field)
            if value is None and field in ("fp8", "int8"):
                continue
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                raise InvalidValue(f"{self.name}: {field} is {value!r}; a datasheet figure is a number above 0")
        if not self.source:
            raise InvalidValue(f"{self.name} has no source; say which datasheet its figures are from")
        for field in ("fp8", "int8"):
            value = getattr(self, field)
            # On some chips INT8 is four times as fast as BF16 with FP32 accumulation; on none is the ratio larger.
            if value is not None and value > 4.05 * self.bf16:
                raise InvalidValue(
                    f"{self.name}: {field} is {value / self.bf16:.1f} times bf16; was it printed with sparsity?"
                )

    def flops(self, precision: str = "bf16") -> float:
        """Peak dense FLOP/s for weights of `precision`; a precision without units of its own is computed in BF16."""
        own = {"fp8": self.fp8, "int8": self.int8}.get(precision)
        return TERA * (self.bf16 if own is None else own)

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth, bytes per second."""
        return GIGA * self.bandwidth_gbs

    @property
    def memory(self) -> float:
        """Memory, bytes."""
        return GIGA * self.memory_gb

    def ridge(self, precision: str = "bf16") -> float:
        """FLOP per byte above which arithmetic is the limit, and below which memory bandwidth is the limit."""
        return self.flops(precision) / self.bandwidth


@lru_cache(maxsize=1)
def catalogue() -> MappingProxyType[str, Hardware]:
    """All machines of the catalogue, by key."""
    machines = json.loads(data_path("hardware", "catalogue.json").read_text(encoding="utf-8"))["machines"]
    return MappingProxyType({entry["key"]: read_entry(entry) for entry in machines})


def read_entry(entry: dict[str, Any]) -> Hardware:
    """A catalogue entry as `Hardware`. Raises `InvalidValue` naming a field that is missing, unknown or impossible."""
    names = {field.name for field in fields(Hardware)}
    if missing := sorted(names - entry.keys()):
        raise InvalidValue(f"hardware entry {entry.get('key')!r} lacks {', '.join(missing)}")
    if unknown := sorted(entry.keys() - names):
        raise InvalidValue(f"hardware entry {entry.get('key')!r} has unknown {', '.join(unknown)}")
    return Hardware(**entry)


def hardware(key: str) -> Hardware:
    """The machine with that key; raises `InvalidValue`, listing the known keys, for an unknown one."""
    if key not in catalogue():
        raise InvalidValue(f"no hardware {key!r} in the catalogue; it has {', '.join(catalogue())}")
    return catalogue()[key]
