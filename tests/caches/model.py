"""A cache in plain dicts, and a random driver that holds the store to it, operation by operation.

The model predicts every outcome exactly: hit or the reason of the miss, stored or the reason of the refusal, what each
invalidation takes, what is evicted, all counts and bytes. Beside it stands a judge that knows nothing of caches: each value
names who it was made for, from which facts and when, in a time that never steps back, and no hit may break any of that.

    python -m tests.caches.model --operations 1000000
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from labkit.caches.entry import Entry
from labkit.caches.rules import CacheControl, Scope
from labkit.caches.store import Store

SLACK = 1.0
LIMIT = 6000
TENANTS, PERMISSIONS = ("a", "b", ""), (frozenset(), frozenset({"staff"}))
SCOPES = [Scope(t, p, m) for t in TENANTS for p in PERMISSIONS for m in ("small", "large")]
KEYS = [f"k{i}" for i in range(8)]
LAYERS = ["response", "tool"]
TAGS = ["x", "y", "z"]
FACTS = ["price", "hours"]


@dataclass
class Kept:
    """An entry as the model has it."""

    entry: Entry
    era: int
    epoch: int
    serial: int
    worth: float
    uses: int
    size: int


@dataclass
class Model:
    """What a `Store` promises, without SQL, files or threads."""

    limit: int = LIMIT
    kept: dict[tuple[str, str, Scope], Kept] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: dict.fromkeys(FACTS, "1"))
    epochs: Counter[str] = field(default_factory=Counter)
    changes: list[str | None] = field(default_factory=list)  # the tenant of every invalidation so far, None for all
    era: int = 0
    latest: float = -1e300
    inflation: float = 0.0
    serial: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def at(self, now: float) -> float:
        if now < self.latest - SLACK:
            self.era += 1
            self.latest = now
        self.latest = max(self.latest, now)
        return self.latest

    def ticket(self) -> tuple[int, int]:
        return len(self.changes), self.era

    def get(self, layer: str, scope: Scope, key: str, now: float, control: CacheControl) -> tuple[bytes | None, str | None]:
        value, reason = self._get(layer, scope, key, now, control)
        self.counts[(layer, "hit", "") if reason is None else (layer, "miss", reason)] += 1
        return value, reason

    def _get(self, layer: str, scope: Scope, key: str, now: float, control: CacheControl) -> tuple[bytes | None, str | None]:
        if control.no_cache:
            return None, "no-cache"
        now = self.at(now)
        kept = self.kept.get((layer, key, scope))
        if kept is None:
            return None, "scope" if any(k[:2] == (layer, key) for k in self.kept) else "absent"
        age = now - kept.entry.created
        if kept.era != self.era or age < 0:
            return None, "clock"
        if kept.epoch != self.epochs[scope.tenant]:
            return None, "epoch"
        if kept.entry.lifetime is not None and age >= kept.entry.lifetime:
            return None, "expired"
        if control.max_age_s is not None and age >= control.max_age_s:
            return None, "max-age"
        if any(self.versions[name] != version for name, version in kept.entry.facts.items()):
            return None, "facts"
        kept.uses += 1
        kept.worth = self.inflation + kept.uses * kept.entry.cost / kept.size
        return kept.entry.value, None

    def put(self, entry: Entry, ticket: tuple[int, int], now: float) -> str | None:
        refusal = self._put(entry, ticket, now)
        if refusal:
            self.counts[entry.layer, "refused", refusal] += 1
        return refusal

    def _put(self, entry: Entry, ticket: tuple[int, int], now: float) -> str | None:
        tags = json.dumps(sorted(entry.tags), separators=(",", ":"))
        facts = json.dumps(entry.facts, separators=(",", ":"), sort_keys=True)
        size = len(entry.value) + len(entry.key) + len(entry.scope.to_text()) + len(tags) + len(facts)
        if size > self.limit:
            return "too-large"
        if any(self.versions[name] != version for name, version in entry.facts.items()):
            return "facts"
        since, era = ticket
        stepped = now < self.latest - SLACK
        now = self.at(now)
        if stepped or era != self.era:
            return "clock"
        if any(tenant in (None, entry.scope.tenant) for tenant in self.changes[since:]):
            return "invalidated"
        place = entry.layer, entry.key, entry.scope
        if self.kept.pop(place, None):
            self.counts[entry.layer, "replaced", ""] += 1
        self.serial += 1
        worth = self.inflation + entry.cost / size
        self.kept[place] = Kept(entry, self.era, self.epochs[entry.scope.tenant], self.serial, worth, 1, size)
        self.counts[entry.layer, "stores", ""] += 1
        if self.bytes > self.limit:
            for place, kept in list(self.kept.items()):
                if kept.entry.lifetime is not None and kept.entry.created + kept.entry.lifetime <= now:
                    self._remove(place, "expired")
        while self.bytes > self.limit:
            place = min(self.kept, key=lambda p: (self.kept[p].worth, self.kept[p].serial))
            self.inflation = max(self.inflation, self.kept[place].worth)
            self._remove(place, "evicted")
        return None

    def _remove(self, place: tuple[str, str, Scope], why: str) -> None:
        del self.kept[place]
        self.counts[place[0], why, ""] += 1

    @property
    def bytes(self) -> int:
        return sum(kept.size for kept in self.kept.values())

    def delete(
        self,
        *,
        key: str | None = None,
        tag: str | None = None,
        tenant: str | None = None,
        layer: str | None = None,
        before_epoch: int | None = None,
        dry_run: bool,
    ) -> set[tuple[str, Scope, str]]:
        taken = [
            place
            for place, kept in self.kept.items()
            if (key is None or place[1] == key)
            and (tag is None or tag in kept.entry.tags)
            and (tenant is None or place[2].tenant == tenant)
            and (layer is None or place[0] == layer)
            and (before_epoch is None or kept.epoch < before_epoch)
        ]
        if not dry_run:
            self.changes.append(tenant)
            if tenant is not None and before_epoch is not None:
                self.epochs[tenant] = max(self.epochs[tenant], before_epoch)
            for place in taken:
                self._remove(place, "deleted")
        return {(layer, scope, key) for layer, key, scope in taken}


class Pair:
    """A store and the model, moved together; every method asserts that they agree and that the judge is content."""

    def __init__(self, path: str | Path = ":memory:") -> None:
        self.path = path
        self.model = Model()
        self.store = self._opened()
        self.before: Counter[tuple[str, str, str]] = Counter()  # the counts of stores closed since
        self.true_time = 0.0
        self.clock_error = 0.0
        self.gone: dict[str, float] = {}  # judge: when, in true time, anything about a tenant was last invalidated, by kind
        self.removed: set[bytes] = set()
        self.made = 0

    def _opened(self) -> Store:
        return Store(self.path, limit_bytes=LIMIT, versions=self.model.versions.get, clock_slack_s=SLACK)

    @property
    def now(self) -> float:
        return 1000.0 + self.true_time + self.clock_error

    def take_ticket(self, scope: Scope):
        return scope, self.store.ticket(scope), self.model.ticket(), dict(self.model.versions), self.true_time, self.now

    def get(self, layer: str, scope: Scope, key: str, jitter: float, control: CacheControl) -> None:
        now = self.now - jitter
        expected = self.model.get(layer, scope, key, now, control)
        found = self.store.get(scope, key, now, control, layer=layer)
        actual = (None if found.entry is None else found.entry.value), found.reason
        assert actual == expected, f"{actual} is not {expected}"
        if found.entry is not None:
            self._judge(found.entry.value, layer, scope, key, control)

    def _judge(self, value: bytes, layer: str, scope: Scope, key: str, control: CacheControl) -> None:
        made = json.loads(value)
        assert made["for"] == [layer, scope.to_text(), key], "an answer of somebody else"
        assert value not in self.removed, "an answer from before its invalidation"
        age = self.true_time - made["true_time"]
        for limit in (made["lifetime"], control.max_age_s):
            assert limit is None or age < limit + SLACK, f"an answer {age} s old, {limit} s were allowed"
        assert all(self.model.versions[name] == version for name, version in made["facts"].items()), (
            "an answer from old facts"
        )

    def put(self, taken, layer, key, padding, lifetime, fact_names, tags, cost, jitter=0.0) -> None:
        scope, ticket, model_ticket, versions, true_time, created = taken
        facts = {name: versions[name] for name in fact_names}
        self.made += 1
        made = {"for": [layer, scope.to_text(), key], "lifetime": lifetime, "facts": facts, "true_time": true_time}
        value = json.dumps({**made, "serial": self.made, "padding": "x" * padding}).encode()
        entry = Entry(scope, key, value, created, layer, lifetime, facts, frozenset(tags), cost)
        now = self.now - jitter
        expected = self.model.put(entry, model_ticket, now)
        actual = self.store.put(entry, ticket, now=now)
        assert actual == expected, f"{actual} is not {expected}"

    def delete(self, dry_run: bool, **what) -> None:
        epoch = what.pop("next_epoch", False)
        values = {place: kept.entry.value for place, kept in self.model.kept.items()}
        if epoch:
            expected = self.model.delete(**what, before_epoch=self.model.epochs[what["tenant"]] + 1, dry_run=dry_run)
            removal = self.store.advance_epoch(what["tenant"], dry_run=dry_run)
        else:
            expected = self.model.delete(**what, dry_run=dry_run)
            removal = self.store.delete(**what, dry_run=dry_run)
        assert set(removal.entries) == expected
        assert len(removal.entries) == len(expected)
        if not dry_run:
            self.removed.update(values[layer, key, scope] for layer, scope, key in expected)

    def change_fact(self, name: str) -> None:
        self.model.versions[name] = str(int(self.model.versions[name]) + 1)

    def reopen(self) -> None:
        if self.path != ":memory:":
            self.before += self._counted()
            self.store.close()
            self.store = self._opened()

    def _counted(self) -> Counter[tuple[str, str, str]]:
        counts: Counter[tuple[str, str, str]] = Counter()
        for layer in LAYERS:
            stats = self.store.stats(layer)
            counts[layer, "hit", ""] = stats.hits
            for kind in ("stores", "replaced", "evicted", "expired", "deleted"):
                counts[layer, kind, ""] = getattr(stats, kind)
            counts.update({(layer, "miss", reason): n for reason, n in stats.misses.items()})
            counts.update({(layer, "refused", reason): n for reason, n in stats.refused.items()})
        return counts

    def check(self) -> None:
        """The accounts balance and the file holds what the model holds."""
        assert self.before + self._counted() == +self.model.counts
        assert (len(self.store), self.store.bytes) == (len(self.model.kept), self.model.bytes)
        assert self.store.bytes <= LIMIT
        c = self.model.counts
        net = {"stores": 1, "replaced": -1, "evicted": -1, "expired": -1, "deleted": -1}
        assert sum(sign * c[layer, kind, ""] for kind, sign in net.items() for layer in LAYERS) == len(self.store)
        for layer in LAYERS:
            held = {(e.key, e.scope): (e.value, e.tags) for e in self.store.entries(layer=layer)}
            assert held == {
                (key, scope): (kept.entry.value, kept.entry.tags)
                for (of, key, scope), kept in self.model.kept.items()
                if of == layer
            }

    def close(self) -> None:
        self.store.close()


def random_control(dice: random.Random) -> CacheControl:
    return CacheControl(no_cache=dice.random() < 0.03, max_age_s=dice.choice([None, None, None, 0.0, 2.0, 30.0]))


def drive(pair: Pair, operations: int, dice: random.Random, check_every: int = 500) -> None:
    """Do `operations` random operations on `pair`."""
    tickets = []
    for number in range(operations):
        choice = dice.random()
        if choice < 0.50:
            jitter = dice.choice([0.0, 0.0, dice.uniform(0, 0.9 * SLACK)])
            pair.get(dice.choice(LAYERS), dice.choice(SCOPES), dice.choice(KEYS), jitter, random_control(dice))
        elif choice < 0.80:
            # Half the puts finish work that began some operations ago, with whatever happened since.
            if tickets and dice.random() < 0.5:
                taken = tickets.pop(dice.randrange(len(tickets)))
            else:
                taken = pair.take_ticket(dice.choice(SCOPES))
            pair.put(
                taken, dice.choice(LAYERS), dice.choice(KEYS),
                dice.choice([0, 10, 100, 400, 7000 if dice.random() < 0.05 else 50]),
                dice.choice([None, 1.0, 5, 60.0, 600.0]), dice.sample(FACTS, dice.choice([0, 0, 1, 2])),
                dice.sample(TAGS, dice.randrange(3)), dice.choice([0.0, 0.1, 1.0, 7.0]), dice.choice([0.0, 0.0, 0.5]),
            )  # fmt: skip
        elif choice < 0.86:
            tickets = [*tickets[-5:], pair.take_ticket(dice.choice(SCOPES))]
        elif choice < 0.97:
            pair.true_time += dice.choice([0.0, 0.01, 0.3, 1.0, 5.0, 20.0])
        elif choice < 0.985:
            what = {
                name: dice.choice(options)
                for name, options in (("key", KEYS), ("tag", TAGS), ("tenant", TENANTS), ("layer", LAYERS))
                if dice.random() < 0.4
            }
            pair.delete(dry_run=dice.random() < 0.4, **(what or {"key": dice.choice(KEYS)}))
        elif choice < 0.989:
            pair.delete(dry_run=dice.random() < 0.4, tenant=dice.choice(TENANTS), next_epoch=True)
        elif choice < 0.994:
            pair.change_fact(dice.choice(FACTS))
        elif choice < 0.997:
            # Somebody looks before and after: a step back that nobody's look falls into cannot be seen by anyone.
            for step in (0.0, dice.choice([-1000.0, -30.0, -1.5, 0.5, 30.0])):
                pair.clock_error += step
                pair.get(LAYERS[0], SCOPES[0], KEYS[0], 0.0, CacheControl())
        elif choice < 0.9985:
            pair.reopen()
        if number % check_every == 0:
            pair.check()
    pair.check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="a number to repeat a run's choices with; random by default")
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder) / "cache.db")
        drive(pair, options.operations, random.Random(seed))
        pair.close()
    print(f"{options.operations} operations, {time.perf_counter() - started:.0f} s, all as the model has it")
    for (layer, kind, reason), number in sorted(pair.model.counts.items()):
        print(f"  {layer:9} {kind:9} {reason:12} {number}")


if __name__ == "__main__":
    main()
