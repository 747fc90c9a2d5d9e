"""Which answer may be shown to whom, and for how long: the rules that every cache in this package follows.

There are three separate questions. *What was asked?* `fingerprint` covers everything that changes the answer. *Who may see
it?* `Scope`: an entry is never visible outside the scope it was written in, whatever its fingerprint. *Is it still true?*
`CacheControl` sets a lifetime, and the versions of the facts that the answer was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.request import InvalidValue, Request, asked, canonical

_FINGERPRINT_VERSION = "labkit-fingerprint-2"  # change it with the rules below: all keys change, so old entries miss


@dataclass(frozen=True, slots=True)
class Scope:
    """The group of requests that may share an answer: only a request with an equal scope may be shown it.

    `system_version` names everything outside the request that shapes answers (release of the prompt templates, retrieval
    corpus, engine build, adapter). `user` is empty if the users of one tenant with the same permissions may share answers.
    Raises `InvalidValue` if `permissions` is a single text.
    """

    tenant: str = ""
    permissions: frozenset[str] = frozenset()
    model: str = ""
    system_version: str = ""
    user: str = ""

    def __post_init__(self) -> None:
        given: object = self.permissions
        if isinstance(given, str):
            raise InvalidValue(f"permissions is the text {self.permissions!r}; give a set of permission names")
        object.__setattr__(self, "permissions", frozenset(self.permissions))

    def to_text(self) -> str:
        """The scope as canonical JSON: equal scopes give equal texts, and different scopes different ones."""
        return _json([self.tenant, sorted(self.permissions), self.model, self.system_version, self.user])

    @classmethod
    def from_text(cls, text: str) -> Scope:
        """The scope whose `to_text` gave `text`."""
        tenant, permissions, model, system_version, user = json.loads(text)
        return cls(tenant, frozenset(permissions), model, system_version, user)


def scope_of(request: Request, *, system_version: str = "", per_user: bool = False) -> Scope:
    """The scope of `request`; with `per_user`, users of one tenant do not share answers."""
    return Scope(request.tenant, request.permissions, request.model, system_version, user=request.user if per_user else "")


def fingerprint(request: Request, *, system_version: str = "") -> str:
    """What is asked, as 64 hexadecimal digits: SHA-256 over a canonical JSON text of everything that changes the answer.

    It covers everything that `labkit.request.identity` counts as asked, the model and `system_version`. It does not cover
    who asks (that is `Scope`). If it covered too much, equal questions would miss; if it covered too little, different
    questions would get each other's answers.

    Raises `InvalidRequest` if `extra` or `response_format` is not JSON.
    """
    what = asked(request) | {"model": request.model, "system_version": system_version}
    return digest(_FINGERPRINT_VERSION, canonical(what))


def digest(*parts: str | bytes) -> str:
    """SHA-256 of `parts` as 64 hexadecimal digits; lengths are hashed too, so that ("ab", "c") differs from ("a", "bc")."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class CacheControl:
    """How one request may use a cache.

    `no_cache`: do not answer from the cache (the new answer is still stored). `no_store`: do not keep the new answer (a hit
    is fine). `max_age_s`: accept only entries younger than that, in seconds. `ttl_s`: how long the new answer stays fresh,
    in seconds; None for as long as its facts hold. `tags`: names by which it can be invalidated. `facts`: the facts that the
    answer is made from, each with its version *before* the work began. So if a fact changes meanwhile, the entry is stale
    and never served as current. Raises `InvalidValue` for a negative age, a lifetime that is not above 0, or facts that are
    not texts.
    """

    no_store: bool = False
    no_cache: bool = False
    max_age_s: float | None = None
    ttl_s: float | None = 3600.0
    tags: frozenset[str] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tags: Any = self.tags
        object.__setattr__(self, "tags", frozenset((tags,) if isinstance(tags, str) else tags))
        object.__setattr__(self, "facts", dict(self.facts))
        if self.max_age_s is not None and not self.max_age_s >= 0:
            raise InvalidValue(f"max_age_s is {self.max_age_s}; use seconds from 0, or None for any age")
        if self.ttl_s is not None and not (self.ttl_s > 0 and math.isfinite(self.ttl_s)):
            raise InvalidValue(f"ttl_s is {self.ttl_s}; use seconds above 0, None for no limit, or no_store=True")
        for name, version in self.facts.items():
            if not isinstance(name, str) or not isinstance(version, str):
                raise InvalidValue(f"the fact {name!r} has version {version!r}; both are texts")


def _json(value: Any) -> str:
    """`value` as JSON in pure ASCII. Raises ValueError for a NaN, on which JSON readers do not agree."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
