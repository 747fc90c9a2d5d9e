"""The policy of a cache lever: how requests may use the cache, and who shares answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.request import InvalidValue, Request

Control = CacheControl | Callable[[Request], CacheControl]


@dataclass(frozen=True)
class CachePolicy:
    """How requests may use a cache, and who shares answers.

    `control` says how a request may use the cache. If answers are made from facts, it must be a function of the request: it
    is called before the work begins, and returns the versions that the facts have then. `system_version` and `per_user` are
    those of `scope_of`. `cache_sampled`: cache also for callers who sample without a seed, so that they may get the same
    sample again. Raises `InvalidValue` for a `control` or `system_version` of the wrong type.
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
        """How `request` may use the cache.

        Raises what `control` raises, and `InvalidValue` if it returns no `CacheControl`.
        """
        if not self.cache_sampled and request.temperature > 0 and request.seed is None:
            return CacheControl(no_cache=True, no_store=True)  # the caller wants varied answers
        wanted = self.control if isinstance(self.control, CacheControl) else self.control(request)
        if not isinstance(wanted, CacheControl):
            raise InvalidValue(f"control gave {wanted!r:.80} for a request; it must give a CacheControl")
        return wanted

    def scope(self, request: Request) -> Scope:
        """Who may see the answer to `request`."""
        return scope_of(request, system_version=self.system_version, per_user=self.per_user)

    def fingerprint(self, request: Request) -> str:
        """The fingerprint of everything that `request` asks."""
        return fingerprint(request, system_version=self.system_version)
