"""Which answer may be shown to whom, and for how long: the rules that every cache of this room keeps.

Three questions, kept apart. *What was asked?* `fingerprint`: everything that changes the answer. *Who may see it?* `Scope`:
an entry is never visible outside the one it was written in, whatever its fingerprint. *Is it still true?* `CacheControl`:
a lifetime, and the versions of the facts that the answer was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.request import InvalidValue, Request, asked, canonical

_FINGERPRINT_VERSION = "labkit-fingerprint-2"  # a change of the rules below changes every key, so old entries just miss


@dataclass(frozen=True, slots=True)
class Scope:
    """What an answer belongs to: only a request with an equal scope may be shown it.

    `system_version` names whatever shapes answers from outside the request (prompt templates' release, retrieval corpus,
    engine build, adapter). `user` stays empty where users of one tenant with the same permissions may share answers.
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
        """The scope as canonical JSON: equal scopes, and no others, give equal texts."""
        return _json([self.tenant, sorted(self.permissions), self.model, self.system_version, self.user])

    @classmethod
    def from_text(cls, text: str) -> Scope:
        """The scope whose `to_text` gave `text`."""
        tenant, permissions, model, system_version, user = json.loads(text)
        return cls(tenant, frozenset(permissions), model, system_version, user)


def scope_of(request: Request, *, system_version: str = "", per_user: bool = False) -> Scope:
    """The scope of `request`; `per_user` keeps the answers of one tenant's users apart as well."""
    return Scope(request.tenant, request.permissions, request.model, system_version, user=request.user if per_user else "")


def fingerprint(request: Request, *, system_version: str = "") -> str:
    """What is asked, as 64 hexadecimal digits: SHA-256 over a canonical JSON text of everything that changes the answer.

    In it: what `labkit.request.identity` says is asked, model and `system_version`. Not in it: who asks (that is `Scope`).
    Two requests that differ more than they need to miss; two that differ less than they should would get each other's
    answers.

    Raises `InvalidRequest` where `extra` or `response_format` is not JSON.
    """
    what = asked(request) | {"model": request.model, "system_version": system_version}
    return digest(_FINGERPRINT_VERSION, canonical(what))


def digest(*parts: str | bytes) -> str:
    """SHA-256 of `parts` as 64 hexadecimal digits; lengths go in too, so that ("ab", "c") is not ("a", "bc")."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class CacheControl:
    """How one request may use a cache.

    `no_cache`: do not answer from it (what comes is stored). `no_store`: do not keep what comes (a hit is fine).
    `max_age_s`: accept only entries younger than that, in seconds. `ttl_s`: how long what is stored now stays fresh, None
    for as long as its facts hold. `tags`: names to invalidate it by. `facts`: the facts that the answer is made from, with
    the version of each *before* the work began, so that a fact that changes meanwhile makes the entry stale, not wrong.
    Raises `InvalidValue`.
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
    """`value` as JSON in pure ASCII; a NaN, which no JSON reader agrees on, raises ValueError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
