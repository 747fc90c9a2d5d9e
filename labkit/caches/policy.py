"""What a cache lever is told about the requests it serves, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.request import InvalidValue, Request

Control = CacheControl | Callable[[Request], CacheControl]


@dataclass(frozen=True)
class CachePolicy:
    """How requests may use a cache, and who shares answers.

    `control` says for a request how it may use the cache; where answers are made from facts it must be a function, for it
    is asked before the work begins and its `facts` are the versions then. `system_version` and `per_user` are those of
    `scope_of`. `cache_sampled`: one sample will do for callers who sample without a seed. Raises `InvalidValue`.
    """

    control: Control = field(default_factory=CacheControl)
    system_version: str = ""
    per_user: bool = False
    cache_sampled: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.control, CacheControl) and not callable(self.control):
            raise InvalidValue(f"control is {self.control!r:.80}; give a CacheControl, or a function from a request to one")
        if not isinstance(self.system_version, str):
            raise InvalidValue(f"system_version is {self.system_version!r:.80}; use a text")

    def of(self, request: Request) -> CacheControl:
        """How `request` may use the cache. Raises what `control` does, `InvalidValue` where it gives something else."""
        if not self.cache_sampled and request.temperature > 0 and request.seed is None:
            return CacheControl(no_cache=True, no_store=True)  # the caller asks for variety
        wanted = self.control if isinstance(self.control, CacheControl) else self.control(request)
        if not isinstance(wanted, CacheControl):
            raise InvalidValue(f"control gave {wanted!r:.80} for a request; it must give a CacheControl")
        return wanted

    def scope(self, request: Request) -> Scope:
        """Who may see the answer to `request`."""
        return scope_of(request, system_version=self.system_version, per_user=self.per_user)

    def fingerprint(self, request: Request) -> str:
        """What `request` asks."""
        return fingerprint(request, system_version=self.system_version)
