"""The purses against a plain model, under many writers, and when writers are killed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from labkit.budgets import BudgetExhausted, Daily, Monthly, Purses, PursesError, Rolling, Spender, SpendingLimit
from labkit.request import InvalidRequest, InvalidValue

ACME, BOB = Spender("acme", "bob", "chat"), Spender("acme", "eve", "chat")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()


def D(text):
    return Decimal(text)


def purses(*limits, **settings):
    made = Purses(**settings)
    made.allow(*limits)
    return made


def standing(of, spender=ACME, now=NOON):
    (only,) = of.standings(spender, now)
    return only


def test_what_is_held_and_settled_is_left_out_exactly():
    ours = purses(SpendingLimit(D("1"), Monthly(), tenant="acme"))
    first, second = ours.hold(ACME, D("0.3"), NOON), ours.hold(ACME, D("0.7"), NOON)
    with pytest.raises(BudgetExhausted) as refused:
        ours.hold(ACME, D("1e-18"), NOON)
    assert (refused.value.status, refused.value.left, refused.value.needed) == (402, D(0), D("1e-18"))
    assert ours.settle(first, D("0.1"))
    assert not ours.settle(first, D("0.1")), "once"
    assert ours.release(second)
    now = standing(ours)
    assert (now.settled, now.held, now.left) == (D("0.1"), D(0), D("0.9"))
    assert ours.hold(ACME, D("0.9"), NOON)


def test_a_refusal_says_how_much_is_left_and_when_it_fits():
    ours = purses(SpendingLimit(D("1"), Daily(), tenant="*"), SpendingLimit(D("2"), Monthly(), feature="chat"))
    ours.settle(ours.hold(ACME, D("0.75"), NOON), D("0.75"))
    with pytest.raises(BudgetExhausted, match=r"1 USD a day for each tenant 0\.25 are left: 0\.75 are spent") as refused:
        ours.hold(ACME, D("0.5"), NOON)
    assert refused.value.retry_after_s == 12 * 3600
    with pytest.raises(BudgetExhausted, match="more than the whole limit") as refused:
        ours.hold(ACME, D("1.5"), NOON)
    assert refused.value.retry_after_s is None
    assert ours.hold(Spender("other"), D("1"), NOON), "of another tenant, and no chat"


def test_a_limit_of_0_lets_only_free_things_through():
    ours = purses(SpendingLimit(D("0"), Monthly(), tenant="acme"))
    assert ours.hold(ACME, D("0"), NOON)
    with pytest.raises(BudgetExhausted, match="the limit is 0"):
        ours.hold(ACME, D("0.01"), NOON)


def test_whom_no_limit_covers_spends_nothing():
    with pytest.raises(BudgetExhausted, match="no limit covers"):
        purses(SpendingLimit(D("1"), Monthly(), tenant="other")).hold(ACME, D("0"), NOON)


def test_a_name_goes_before_each_and_other_mixes_hold_as_well():
    each, bob = SpendingLimit(D("1"), Daily(), user="*"), SpendingLimit(D("5"), Daily(), user="bob")
    ours = purses(each, bob, SpendingLimit(D("7"), Daily(), tenant="acme"))
    assert ours.hold(ACME, D("5"), NOON)
    assert ours.hold(BOB, D("1"), NOON), "eve's own"
    with pytest.raises(BudgetExhausted, match="tenant 'acme'"):
        ours.hold(Spender("acme", "sue"), D("1.5"), NOON) if ours.drop(each) else None
    assert {str(limit) for limit in ours.limits()} == {
        "5 USD a day for user 'bob'",
        "7 USD a day for tenant 'acme'",
    }


def test_spending_stays_when_a_limit_changes():
    ours = purses(SpendingLimit(D("1"), Daily(), tenant="*"))
    ours.settle(ours.hold(ACME, D("1"), NOON), D("1"))
    ours.allow(SpendingLimit(D("3"), Daily(), tenant="acme"))
    assert standing(ours).left == D("2")


def test_a_cost_counts_where_its_hold_was_made():
    ours = purses(SpendingLimit(D("1"), Monthly(), tenant="acme"))
    late = ours.hold(ACME, D("1"), datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp())
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert standing(ours, now=december).left == 1
    ours.settle(late, D("1"))
    assert (standing(ours, now=december).left, standing(ours).left) == (1, 0)


@pytest.mark.parametrize("seconds", [1, 59, 60, 3600])
def test_a_rolling_limit_holds_in_every_stretch_and_forgets_after_it(seconds):
    ours = purses(SpendingLimit(D("1"), Rolling(seconds), tenant="acme"))
    ours.settle(ours.hold(ACME, D("1"), NOON + 0.5), D("1"))
    step = max(1, seconds // 60)
    with pytest.raises(BudgetExhausted) as refused:
        ours.hold(ACME, D("1"), NOON + 0.5 + seconds - 0.001)
    fits = NOON + 0.5 + seconds - 0.001 + refused.value.retry_after_s
    assert NOON + 0.5 + seconds <= fits <= NOON + 0.5 + seconds + step
    assert ours.hold(ACME, D("1"), fits)


def test_months_and_days_have_their_own_lengths():
    times = [datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2023, 12, 31, 1, tzinfo=UTC)]
    ends = [datetime.fromtimestamp(Monthly().ends(Monthly().bucket(t.timestamp())), UTC) for t in times]
    assert ends == [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)]
    assert Daily().bucket(times[0].timestamp()) == datetime(2024, 2, 29, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: SpendingLimit(1.5, Daily()), "never as a float"),
        (lambda: SpendingLimit(D("-1"), Daily()), "from 0"),
        (lambda: SpendingLimit(D("1"), Daily(), user=""), "None for anybody"),
        (lambda: SpendingLimit(D("1"), "day"), "Daily"),
        (lambda: Rolling(0), "from 1"),
        (lambda: Purses(dead="forget"), "charge"),
        (lambda: purses().hold(ACME, D("NaN"), NOON), "finite"),
    ],
)
def test_settings_that_cannot_work_are_refused(bad, told):
    with pytest.raises(InvalidValue, match=told):
        bad()


@pytest.mark.parametrize("name", [None, 3, "half a letter \ud800"])
def test_a_spender_without_a_proper_name_is_told_so(name):
    with pytest.raises(InvalidRequest, match="tenant is"):
        Spender(name)


@pytest.mark.parametrize("name", ["", 3, "half a letter \ud800"])
def test_a_limit_without_a_proper_name_is_told_so(name):
    with pytest.raises(InvalidValue, match="tenant of a limit is"):
        SpendingLimit(D("1"), Daily(), tenant=name)


def test_sums_are_exact_beyond_28_digits():
    ours = purses(SpendingLimit(D("10000000000000"), Monthly(), tenant="acme"))
    ours.settle(ours.hold(ACME, D("9999999999999.9999999999999999999"), NOON), D("9999999999999.9999999999999999999"))
    assert standing(ours).left == D("1e-19")
    with pytest.raises(BudgetExhausted):
        ours.hold(ACME, D("1.1e-19"), NOON)
    assert ours.hold(ACME, D("1e-19"), NOON)


def test_an_interrupt_leaves_no_hold(monkeypatch):
    """Before a settlement is written, and after a hold was written but not yet handed out."""
    ours = purses(SpendingLimit(D("1"), Monthly(), tenant="acme"))
    hold, writing = ours.hold(ACME, D("0.5"), NOON), Purses._writing

    @contextmanager
    def before(self):
        raise KeyboardInterrupt
        yield

    @contextmanager
    def after(self):
        with writing(self) as connection:
            yield connection
        raise KeyboardInterrupt

    for interrupted, act in (
        (before, lambda: ours.settle(hold, D("0.25"))),
        (after, lambda: ours.hold(ACME, D("0.1"), NOON)),
    ):
        monkeypatch.setattr(Purses, "_writing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            act()
        monkeypatch.undo()
        assert (standing(ours).settled, standing(ours).held) == (D("0.25"), 0)


class AgainstAModel(RuleBasedStateMachine):
    """Random holds and settlements at random times, beside a list of what was held and spent."""

    LIMITS = (
        SpendingLimit(D("1"), Daily(), tenant="*"),
        SpendingLimit(D("2"), Monthly()),
        SpendingLimit(D("0.5"), Rolling(3600), user="u"),
    )
    COVERS = (lambda s: s.tenant, lambda s: "all", lambda s: s.user if s.user == "u" else None)

    def __init__(self):
        super().__init__()
        self.now = datetime(2026, 11, 29, 20, tzinfo=UTC).timestamp()
        self.ours = purses(*self.LIMITS)
        self.entries = []  # [spender, made, usd, hold or None]

    def counted(self, limit, covers, spender):
        account = covers(spender)
        if account is None:
            return None
        same = [e for e in self.entries if covers(e[0]) == account]
        return sum((e[2] for e in same if limit.span.ends(limit.span.bucket(e[1])) > self.now), D(0))

    @rule(seconds=st.sampled_from((0, 1, 59, 60, 3600, 86400)))
    def wait(self, seconds):
        self.now += seconds

    @rule(tenant=st.sampled_from("ab"), user=st.sampled_from("uv"), cents=st.integers(0, 60))
    def hold(self, tenant, user, cents):
        spender, usd = Spender(tenant, user), D(cents) / 100
        counts = [
            (limit, self.counted(limit, covers, spender)) for limit, covers in zip(self.LIMITS, self.COVERS, strict=True)
        ]
        fits = all(count is None or count + usd <= limit.usd for limit, count in counts)
        try:
            self.entries.append([spender, self.now, usd, self.ours.hold(spender, usd, self.now)])
        except BudgetExhausted:
            assert not fits, "a false refusal"
        else:
            assert fits, "overspent"

    @rule(data=st.data(), share=st.integers(0, 10))
    def settle(self, data, share):
        under_way = [e for e in self.entries if e[3] is not None]
        if under_way:
            entry = data.draw(st.sampled_from(under_way))
            usd = entry[2] * share / 10
            assert self.ours.settle(entry[3], usd)
            entry[2:] = [usd, None]

    @invariant()
    def the_standings_are_the_models(self):
        for spender in (Spender("a", "u"), Spender("b", "v")):
            found = {each.limit: each.limit.usd - each.left for each in self.ours.standings(spender, self.now)}
            for limit, covers in zip(self.LIMITS, self.COVERS, strict=True):
                assert found.get(limit) == self.counted(limit, covers, spender)

    def teardown(self):
        self.ours.close()


AgainstAModel.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase


def test_64_threads_never_overspend_and_nothing_is_refused_that_fits(tmp_path):
    """Each holds 0.01 and spends 0.004, as often as it can: in the end less than a hold is left, and nothing is held."""
    with Purses(tmp_path / "p.db") as ours:
        ours.allow(SpendingLimit(D("0.5"), Monthly(), tenant="acme"))
        most, got = [], []

        def spend():
            while True:
                try:
                    hold = ours.hold(ACME, D("0.01"), NOON)
                except BudgetExhausted as error:
                    if standing(ours).held == 0 and error.left < D("0.01"):
                        return
                    time.sleep(0.001)
                    continue
                most.append(standing(ours).left)
                ours.settle(hold, D("0.004"))
                got.append(1)

        threads = [threading.Thread(target=spend) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = standing(ours)
        assert (end.settled, end.held, ours.open_holds()) == (len(got) * D("0.004"), 0, ())
        assert min(most) >= 0
        assert D("0.5") - D("0.01") < end.settled <= D("0.5")


WRITER = """
import sys, time
from decimal import Decimal
from labkit.budgets import BudgetExhausted, Purses, Spender
ours, stuck = Purses(sys.argv[1], dead=sys.argv[4]), sys.argv[2] == "stuck"
print("open", flush=True)
sys.stdin.readline()
spent = 0
while True:
    try:
        hold = ours.hold(Spender("acme"), Decimal("0.01"), float(sys.argv[3]))
    except BudgetExhausted:
        break
    if stuck:
        print("holding", flush=True)
        time.sleep(600)
    ours.settle(hold, Decimal("0.004"))
    spent += 1
print(spent, flush=True)
"""


@pytest.mark.parametrize("dead", ["charge", "release"])
def test_killed_writers_leak_nothing(tmp_path, dead):
    """Two of four processes are killed while they hold; the others spend what is left, and no hold is left over."""
    path = tmp_path / "p.db"
    ours = Purses(path, dead=dead)
    ours.allow(SpendingLimit(D("0.2"), Monthly(), tenant="acme"))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), kind, str(NOON), dead],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for kind in ("stuck", "stuck", "spends", "spends")
    ]
    try:
        assert [writer.stdout.readline() for writer in started] == ["open\n"] * 4
        for writer in started[:2]:
            writer.stdin.write("go\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "holding\n"
        assert len(ours.open_holds()) == 2
        assert ours.reclaim() == 0, "they live"
        for writer in started[:2]:
            writer.send_signal(signal.SIGKILL)  # and it is not waited for: a zombie is dead, too
        for writer in started[2:]:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        spent = sum(int(writer.stdout.readline()) for writer in started[2:]) * D("0.004")
    finally:
        for writer in started:
            writer.kill()
            writer.communicate()
    ours.reclaim()
    end = standing(ours)
    lost = D("0.02") if dead == "charge" else D(0)
    assert (end.held, end.lost, end.settled, ours.open_holds()) == (0, lost, spent, ())
    assert end.settled + end.lost <= D("0.2")
    assert len(ours.lost_holds()) == 2 * (dead == "charge")
    for hold in ours.lost_holds():
        assert ours.settle(hold, D("0.001")), "its bill has come"
    assert (standing(ours).lost, standing(ours).settled) == (0, spent + lost / 10)


STORM = """
import json, os, random, signal, sys, time
from decimal import Decimal
from labkit.budgets import BudgetExhausted, Purses, Spender
path, seed, now = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ours = Purses(path, busy_timeout=120)
bill = os.open(path + ".bill", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
spender = [Spender("acme", f"u{i}") for i in range(4)]

def write(number):
    rng = random.Random(f"{seed} {number}")
    while True:
        usd = Decimal(rng.choice(("0.01", "0.02", "0.05")))
        who = spender[number % 4]
        try:
            hold = ours.hold(who, usd, now)
        except BudgetExhausted as error:
            if not any(each.held for each in ours.standings(who, now)):
                return
            time.sleep(0.01 * rng.random())
            continue
        cost = usd * rng.choice((0, 4, 10)) / 10
        os.write(bill, f"{cost}\\n".encode())  # what the provider bills, whoever dies after this
        ours.settle(hold, cost)

pids = []
for number in range(64):
    pid = os.fork()
    if not pid:
        write(number)
        os._exit(0)
    pids.append(pid)
victims, alive, killed, most = random.Random(seed).sample(pids, 24), set(pids), 0, 0
while alive:
    time.sleep(0.01)
    for each in (one for who in spender for one in ours.standings(who, now)):
        most = max(most, (each.settled + each.held + each.lost) / each.limit.usd)
    if victims and victims[-1] in alive:
        os.kill(victims[-1], signal.SIGKILL)
    victims = victims[:-1]
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            break
        assert status in (0, signal.SIGKILL), status
        killed += status == signal.SIGKILL
        alive.discard(pid)
print(json.dumps({"most": str(most), "killed": killed}))
"""


def test_64_processes_of_which_some_are_killed_never_overspend_and_leak_nothing(tmp_path, dice):
    """At every moment settled + held + lost is within every limit; in the end all that was billed is, nothing is held, and
    too little is left for another request."""
    path = tmp_path / "p.db"
    ours = Purses(path)
    ours.allow(
        SpendingLimit(D("2"), Monthly(), tenant="acme"),
        SpendingLimit(D("0.6"), Rolling(3600), user="*"),
        SpendingLimit(D("0.3"), Daily(), tenant="acme", user="u3"),
    )
    command = [sys.executable, "-c", STORM, str(path), str(dice.getrandbits(30)), str(NOON)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] > 0
    assert D(found["most"]) <= 1
    ours.reclaim()
    assert ours.open_holds() == ()
    billed = sum(map(D, path.with_suffix(".db.bill").read_text().split()), D(0))
    standings = [ours.standings(Spender("acme", f"u{i}"), NOON) for i in range(4)]
    (all_of,) = {each for each in standings[0] if each.limit.tenant == "acme"}
    assert billed <= all_of.settled + all_of.lost <= D("2")
    assert all_of.lost == sum((hold.usd for hold in ours.lost_holds()), D(0))
    assert all(min(each.left for each in of_one) < D("0.05") for of_one in standings)


def writer(path, kind="stuck", dead="charge", before=()):
    """A process that opens the purses and waits for a line."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", WRITER, str(path), kind, str(NOON), dead],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process):
    process.stdin.write("go\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_process_of_another_container_is_known_alive_and_dead(tmp_path):
    """Its process id means nothing here."""
    unshare = shutil.which("unshare")
    before = [unshare or "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if unshare is None or subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system makes no namespaces of process ids: holders in another container were not tried")
    ours = Purses(tmp_path / "p.db")
    ours.allow(SpendingLimit(D("0.01"), Monthly(), tenant="acme"))
    with writer(tmp_path / "p.db", before=before) as process:
        assert (process.stdout.readline(), told(process)) == ("open\n", "holding\n")
        assert ours.reclaim() == 0
        process.kill()
        process.stdout.read()  # until the inner process has ended too
        until = time.monotonic() + 30
        while not ours.reclaim() and time.monotonic() < until:
            time.sleep(0.01)
    assert (ours.open_holds(), len(ours.lost_holds())) == ((), 1)


def test_a_process_stays_known_whatever_else_it_opens_and_closes(tmp_path):
    """A process loses all its locks on a file with any handle of it that it closes; so none is closed."""
    path = tmp_path / "p.db"
    ours = Purses(path)
    ours.allow(SpendingLimit(D("0.02"), Monthly(), tenant="acme"))
    hold = ours.hold(ACME, D("0.02"), NOON)
    for _ in range(3):
        Purses(path).close()
        gc.collect()
    assert ours.reclaim() == 0, "its own"
    with writer(path, "spends") as process:
        assert (process.stdout.readline(), told(process)) == ("open\n", "0\n"), "refused, as the holder lives"
    ours.settle(hold, D("0.01"))
    with writer(path, "spends") as process:
        assert (process.stdout.readline(), told(process)) == ("open\n", "1\n")


def test_a_forked_process_holds_for_itself(tmp_path):
    ours = Purses(tmp_path / "p.db")
    ours.allow(SpendingLimit(D("1"), Monthly(), tenant="acme"))
    mine = ours.hold(ACME, D("0.25"), NOON)
    ready, told_ready = os.pipe()
    pid = os.fork()
    if not pid:
        found = ours.reclaim()  # its parent lives
        ours.hold(ACME, D("0.5"), NOON)
        os.write(told_ready, bytes([found]))
        time.sleep(600)
    assert os.read(ready, 1) == b"\0"
    assert (ours.reclaim(), len(ours.open_holds())) == (0, 2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert ours.reclaim() == 1
    assert ours.open_holds() == ((mine.id, D("0.25")),)


def test_a_folder_in_which_no_process_can_sign_is_told(tmp_path):
    (tmp_path / "p.db-holders").mkdir()
    with pytest.raises(PursesError, match=r"cannot lock a byte of .*p\.db-holders"):
        Purses(tmp_path / "p.db")


def test_a_file_in_trouble_refuses_and_settles_later(tmp_path):
    path = tmp_path / "p.db"
    ours = Purses(path, busy_timeout=0.05)
    ours.allow(SpendingLimit(D("1"), Monthly(), tenant="acme"))
    hold = ours.hold(ACME, D("0.5"), NOON)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PursesError, match="busy_timeout"):
        ours.settle(hold, D("0.25"))
    with pytest.raises(PursesError):
        ours.hold(ACME, D("0.1"), NOON)
    other.execute("ROLLBACK")
    assert (standing(ours).settled, standing(ours).held) == (D("0.25"), 0)
    other.close()
    ours.close()
    with pytest.raises(PursesError, match="is closed"):
        ours.hold(ACME, D("0.1"), NOON)
