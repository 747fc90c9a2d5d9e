"""The open chapter: notebooks call a `Book` for predictions, results, claims, exercises, hints, quizzes and progress."""

from __future__ import annotations

import inspect
import random
import textwrap
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.engines import Engine
from labkit.workbook import bars, claims, recall
from labkit.workbook.bench import Bench, Result
from labkit.workbook.chapters import Chapter, chapter, chapters
from labkit.workbook.claims import Claim
from labkit.workbook.exercise import CheckFailed, Exercise, ExerciseError, Verdict, run_check
from labkit.workbook.kept import to_json
from labkit.workbook.mine import mine_dir, outdated, renewal
from labkit.workbook.paths import chapter_recording, state_dir
from labkit.workbook.prediction import (
    ChoiceQuestion,
    NumberQuestion,
    Question,
    Score,
    Standing,
    cannot_tell,
    reset,
    score_choice,
    score_number,
    standing,
)
from labkit.workbook.progress import CAPTION, HEADER, progress_rows
from labkit.workbook.quiz import Quiz
from labkit.workbook.render import (
    STYLE,
    code_html,
    open_html,
    panel_html,
    show_html,
    show_replaceable,
    show_widget,
    table_html,
    table_text,
    veil_html,
)
from labkit.workbook.rounds import Spread, spread
from labkit.workbook.store import JOURNAL, Journal

if TYPE_CHECKING:
    from labkit.portal import Change

PROFILES = ("ci", "learn", "gpu")
_QUIETER = "Run the measuring cell again in a quieter moment."
T = TypeVar("T")


class Book:
    """One chapter, opened with a run's parameters. `profile` is 'ci', 'learn' or 'gpu'; `engine` names the engine to use.

    A solved book (`solutions=True`) differs in two ways. `open_chapter` gives it a journal in memory, so that an
    instructor's run never counts as the learner's progress. And it raises `CheckFailed` where a learner would read "not
    yet".
    """

    def __init__(
        self, contents: Chapter, *, profile: str, engine: str, seed: int, solutions: bool, journal: Journal, bench: Bench
    ) -> None:
        self.chapter = contents
        self.profile = profile
        self.engine = engine
        self.seed = seed
        self.solutions = solutions
        self._journal = journal
        self._bench = bench
        self._asked: dict[str, Question] = {}
        self._actual: dict[str, Spread | str] = {}
        self._held: set[str] = set()  # results that this run could not tell
        self._waiting: dict[str, Callable[[], None]] = {}  # what shows the results that wait for a prediction

    def rng(self, name: str) -> random.Random:
        """A random generator for `name` alone. It gives the same numbers in every run with this seed."""
        return random.Random(f"{self.chapter.number}/{self.seed}/{name}")

    def pick(self, *, ci: Any, learn: Any, gpu: Any = None) -> Any:
        """The value for this profile: `ci`, `learn` or `gpu`. Profile 'gpu' takes `learn` when `gpu` is None."""
        if self.profile == "ci":
            return ci
        return gpu if self.profile == "gpu" and gpu is not None else learn

    # Engines and measurements

    async def connect(self, model: str = "small", **arguments: Any) -> Engine:
        """An engine that serves `model`; `arguments` are those of `labkit.engines.connect`.

        Where this machine has none, it is a stand-in that refuses every request: the chapter's measurements are then
        replayed.
        """
        return await self._bench.connect(model, **arguments)

    async def close(self) -> None:
        """Give all engines of this chapter back."""
        await self._bench.close()

    def lacks(self, *needs: str) -> tuple[str, ...]:
        """Which of the `needs`, by default the chapter's, the engines that were connected do not meet."""
        return self._bench.lacks(needs or None)

    async def measure(
        self,
        id: str,
        work: Callable[..., Awaitable[Any]],
        *,
        rounds: int | None = None,
        needs: Collection[str] | None = None,
    ) -> Result[Any]:
        """Measure now, or where the engine does not meet the needs, replay what the chapter's recording holds as `id`.

        `work` is an async function that returns what was measured, as rows of numbers and texts or as values of labkit's
        dataclasses. It takes nothing; with `rounds`, it takes the number of a round, and the result's value is the list of
        what it returned. `needs` are those of this measurement, by default the chapter's. The result has a `value`, and a
        `source` for the foot of a chart. Raises `ExerciseError` when the recording lacks the measurement.
        """
        return await self._bench.measure(id, work, rounds=rounds, needs=needs)

    def track(self, items: Iterable[T], what: str) -> Iterator[T]:
        """The items, under a bar that shows how far work over them is; for any loop that takes more than a moment."""
        return bars.track(items, what, quiet=self.profile == "ci")

    def finding(self, ok: bool | None, if_so: str, if_not: str, cannot_tell: str = "") -> None:
        """State, in markdown, what this run found: `if_so` when `ok`, `if_not` when not.

        None means that the run cannot tell, as `below` says of rounds that overlap: then `cannot_tell` is stated, or a
        sentence that says so.
        """
        from IPython.display import Markdown, display

        unsure = cannot_tell or f"This run cannot tell: its rounds overlap. {_QUIETER}"
        display(Markdown(unsure if ok is None else if_so if ok else if_not))

    # Questions that come back

    def warm_up(self) -> None:
        """Ask two questions of earlier chapters, chosen by `labkit.workbook.recall`; only the first try counts.

        They are of the earlier chapters' quizzes and banks. With the same answers in the journal and the same seed they are
        the same. What is answered here is not part of any chapter's quiz. Raises `ExerciseError` in the first chapter.
        """
        before = [contents for contents in chapters() if contents.number < self.chapter.number]
        there = [recall.Asked(contents.number, quiz) for contents in before for quiz in (*contents.quizzes, *contents.bank)]
        if not there:
            raise ExerciseError(f"chapter {self.chapter.number} has no chapter before it to ask about; take warm_up() out")
        known, visited = recall.answers_of(self._journal), recall.visited(self._journal)
        words = "Two questions from earlier chapters, to keep what you know. The first try counts."
        show_html(panel_html("Warm-up", words), f"Warm-up. {words}")
        for asked in recall.choose(there, known, visited, time.time(), self.rng("warm-up")):
            self._put(asked.quiz, self._first_try(asked.quiz.id), None, f"From chapter {asked.chapter}.")

    def _first_try(self, id: str) -> Callable[[str, bool], None]:
        """Keeps the first of the choices that it is given as the answer of a question that came back."""
        tried: list[str] = []

        def keep(choice: str, right: bool) -> None:
            if not tried:
                self._journal.append(recall.REVIEW, id, choice=choice, ok=right)
            tried.append(choice)

        return keep

    # Predictions

    def predict(
        self, id: str, question: str, *, low: float, high: float, unit: str, log: bool = False, help: str = ""
    ) -> None:
        """Ask for a number between `low` and `high`, in `unit`. Only a pressed Commit button counts as a prediction.

        `log` asks on a logarithmic slider; `help` is text under the question. Raises `ExerciseError` for an id that the
        chapter does not declare and for a range that makes no sense.
        """
        asked = NumberQuestion(self._declared(id, "predictions"), question, low, high, unit, log, help)
        self._asked[id] = asked
        self._ask(id, question, help, f"between {asked.show(low)} and {asked.show(high)}")
        show_widget(self._form(asked))

    def predict_choice(self, id: str, question: str, *, options: tuple[str, ...], help: str = "") -> None:
        """Ask which of `options` will happen, and how sure the learner is. Raises `ExerciseError` as `predict` does."""
        asked = ChoiceQuestion(self._declared(id, "predictions"), question, tuple(options))
        self._asked[id] = asked
        self._ask(id, question, help, " or ".join(asked.options))
        show_widget(self._form(asked))

    def reveal(self, id: str, actual: Any, unit: str = "", *, unsure: str = "") -> None:
        """Show the result beside the prediction, scored.

        `actual` is the option that happened, a number, or a number for each round. None says that this run cannot tell, and
        `unsure` why. Rounds too far apart to judge a guess by, and None, are shown with that sentence; the prediction then
        stays open. On a noisy machine the result of a quiet one stands beside.

        A learner who has not committed yet is asked to commit, or may look anyway; then the result is not scored. Until then
        the outputs of the cells below are folded. Profile 'ci' and solved books show the result at once. Raises
        `ExerciseError` when the prediction was not asked in this run, when `actual` does not fit the question, and when
        `unit` differs from the question's unit.
        """
        asked = self._asked.get(self._declared(id, "predictions"))
        if asked is None:
            raise ExerciseError(f"prediction {id} was not asked in this run; run its book.predict cell first")
        if actual is None:
            if not unsure.strip():
                raise ExerciseError(f"prediction {id} is revealed as unknown; say why with unsure=…")
            self._hold_back(id, asked, unsure)
            return
        value = asked.validate(actual, unit) if isinstance(asked, NumberQuestion) else asked.validate(actual)
        self._bench.revealed(id, value)
        if isinstance(asked, NumberQuestion) and isinstance(value, Spread) and (wide := cannot_tell(asked, value)):
            self._hold_back(id, asked, f"{wide.removesuffix('.')}. {_QUIETER}")
            return
        self._actual[id] = value
        self._held.discard(id)
        if self._open(standing(self._journal, id)):
            self._wait(id, asked, value)
        else:
            show_html(*self._result(id, asked, value))

    def reset(self) -> None:
        """Open this chapter's predictions again, to be made anew when its cells are run again. The journal keeps the old."""
        reset(self._journal, self.chapter.predictions)
        text = "Run the chapter again from its top: its results wait for new predictions. The old ones stay in your journal."
        show_html(panel_html("The predictions of this chapter are open again.", text), text)

    def recap(self) -> None:
        """Show all predictions of the chapter beside their results."""
        rows = []
        for id in self.chapter.predictions:
            asked, value = self._asked.get(id), self._actual.get(id)
            if asked is None:
                rows.append((id, "-", "-", "not run yet"))
                continue
            state = standing(self._journal, id)
            guess = _guess_text(asked, state)
            if value is None:
                rows.append((asked.question, guess, "-", "this run cannot tell" if id in self._held else "not run yet"))
                continue
            if self._open(state):
                rows.append((asked.question, guess, "-", "waits for your prediction"))
                continue
            score = _score(asked, state, value)
            rows.append((asked.question, guess, _text(asked, value), score.words if score else "no prediction"))
        header, caption = ("question", "you predicted", "result", "score"), "Predictions and results"
        again = "To predict once more, run book.reset() in a cell of your own."
        show_html(
            f"{table_html(header, rows, caption)}<small>{again}</small>", f"{table_text(header, rows, caption)}\n{again}"
        )

    # Claims and the bill

    def claim(
        self,
        id: str,
        text: str,
        *,
        claimed: float | tuple[float, float],
        measured: float | Sequence[float],
        unit: str,
        where: str,
        unless: str,
        source: str,
        by: str,
        interval: tuple[float, float] | None = None,
        tolerance: float = 0.0,
    ) -> None:
        """Judge a widely quoted claim by what this chapter measured, and keep the verdict for chapter 17.

        `claimed` is one number or a pair (low, high), in `unit`. `measured` is one number with its `interval`, or a number
        for each round. For the other arguments see `Claim`. Raises `ExerciseError`
        for an id that the chapter does not declare and for values that `Claim` refuses.
        """
        low, high = claimed if isinstance(claimed, tuple) else (claimed, claimed)
        if isinstance(measured, Sequence):
            found = spread(measured)
            measured, interval = found.median, (found.low, found.high)
        made = Claim(
            self._declared(id, "claims"), text, float(low), float(high), float(measured), unit, where, unless, source,
            by, None if interval is None else (float(interval[0]), float(interval[1])), tolerance,
        )  # fmt: skip
        self._journal.append("claim", id, **claims.to_fields(made))
        title = f"“{text}” {made.verdict.capitalize()}."
        parts = (f"Claimed by: {by}", f"Claimed: {made.claimed}. Measured: {made.found}, {where}.", unless, source)
        show_html(
            panel_html(title, "<br>".join(map(escape, parts)), _tone(made.verdict == claims.HOLDS)),
            " ".join((title, *parts)),
            result=True,
        )

    def claims(self) -> None:
        """Show all claims judged so far in all chapters, each with its newest verdict."""
        newest = {entry["item"]: entry for entry in self._journal.entries("claim")}
        judged = [made for id in sorted(newest) if (made := claims.from_entry(newest[id])) is not None]
        header = ("claim", "who claims it", "claimed", "measured", "where", "verdict", "when it is otherwise", "source")
        rows = [(c.text, c.by, c.claimed, c.found, c.where, c.verdict, c.unless, c.source) for c in judged]
        show_html(table_html(header, rows, "Claims, judged"), table_text(header, rows, "Claims, judged"))

    def bill(self, name: str, change: Change, *, of: str, source: str, wrong: float = 0.0) -> None:
        """Add this chapter's line for the feature `of` to the portal's bill, and show the whole chain.

        `change` is what the lever does to the month, as measured here (see `labkit.portal`). `wrong`: more wrong answers
        than before, as a share of the feature's questions. `source` names the measurements and prices. Lines of earlier
        chapters are the learner's own where their journal has them, else those of the chapters' recordings; a line that
        does not pay is `Stays`. Raises `InvalidValue` for values that `Line` refuses.
        """
        from labkit.portal import Line, chain  # computes with arrays, which opening a chapter does not need
        from labkit.workbook import bill

        line = Line(self.chapter.number, name, of, change, source, wrong)
        self._journal.append("bill", bill.item(line), line=to_json(line))
        self._bench.billed(line)
        newest = {entry["item"]: entry for entry in self._journal.entries("bill")}
        own = {item: made for item, entry in newest.items() if (made := bill.from_entry(entry)) is not None}
        recordings = sorted(chapter_recording(self.chapter.notebook).parent.glob("[0-9][0-9]_*.jsonl"))
        earlier = [path for path in recordings if path.name[:2] < self.chapter.number]
        lines = bill.merged(own, bill.recorded(earlier))
        links = chain([one for one, _ in lines])
        said = bill.verdict(next(link for link in links if link.line == line))
        rows = bill.rows(links, [own for _, own in lines])
        caption = "The portal's month, a lever after the other: each line starts where the last one ended"
        show_html(
            table_html(bill.HEADER, rows, caption) + panel_html(f"{name}: {said}") + f"<small>{escape(source)}</small>",
            f"{table_text(bill.HEADER, rows, caption)}\n{name}: {said}\n{source}",
            result=True,
        )

    def on_your_data(self, chapter: str | None = None, *, log: str | PathLike[str] | None = None) -> None:
        """Answer the chapter's question from the reader's own log, with a sentence to paste into a pull request.

        Asked is the file that LABKIT_LOG names, else the one that the reader named last in the form, else `log` (a ledger
        that the chapter filled, say), else the portal's log, which is written by the lab's own traffic on a modelled engine.
        The form below asks any other file. `chapter` asks another chapter's question. A file that cannot be read is shown
        with the reason. Raises `InvalidValue` for a chapter that asks nothing of a log.
        """
        from labkit.workbook import own  # imports the rooms of all chapters, which a headless check does not need

        number = chapter or self.chapter.number
        last = self._journal.last("log", "path")
        mine = own.named_log() or (None if last is None else Path(str(last["path"])))
        if mine is not None:
            found = own.shown(number, mine, "Your log.")
        elif log is not None:
            found = own.shown(number, Path(log), "This chapter's own file.")
        else:
            found = own.shown(number, own.portal_log(self.seed), "The portal's log, made by the lab on a modelled engine.")
        show_html(*found)

        def read(path: str) -> str:
            self._journal.append("log", "path", path=path)
            return own.shown(number, Path(path), "Your log.")[0]

        show_widget(own.form("" if mine is None else str(mine), read))

    # Exercises

    def check(self, id: str, answer: Any) -> None:
        """Check the learner's answer on hidden inputs and show the verdict; of a long build, stage by stage.

        A wrong answer raises nothing, except in a solved book: that raises `CheckFailed` with the verdict. Raises
        `ExerciseError` for an unknown id and for a check that tests nothing.
        """
        verdict = run_check(self.chapter.exercise(id), answer, self.seed)
        self._journal.append("check", id, ok=verdict.ok, blank=verdict.blank, stage=len(verdict.held))
        show_html(_verdict_html(verdict), str(verdict))
        if self.solutions and not verdict.ok:
            raise CheckFailed(str(verdict))

    def hint(self, id: str) -> None:
        """Show one more hint at every call; once all are used, every call shows all of them.

        The hints of a long build are those for the stage in which its last check stopped.
        """
        exercise = self.chapter.exercise(id)
        last = self._journal.last("check", id)
        at = min(int(last.get("stage", 0)), len(exercise.parts) - 1) if last is not None else 0
        hints = exercise.hints_for(at)
        used = sum(1 for entry in self._journal.entries("hint", id) if entry.get("part", 0) == at)
        shown = min(used + 1, len(hints))
        if used < len(hints):
            self._journal.append("hint", id, stage=shown, part=at)
        of = f", stage {at + 1} ({exercise.stages[at].name})" if exercise.stages else ""
        title = f"Exercise {id}{of}: hint {shown} of {len(hints)}"
        listed = hints[:shown]
        html = panel_html(title, "<br>".join(f"{n}. {escape(h)}" for n, h in enumerate(listed, 1)))
        show_html(html, "\n".join([title, *[f"{n}. {h}" for n, h in enumerate(listed, 1)]]))

    def solution(self, id: str) -> None:
        """Show the source of the solution, folded."""
        exercise = self.chapter.exercise(id)
        self._journal.append("solution", id)
        source = _source(exercise)
        show_html(code_html(source, f"A solution of exercise {id} (open me)"), source)

    def reference(self, id: str) -> Any:
        """The object that solves the exercise. Later cells use it, whatever the learner wrote."""
        return self.chapter.exercise(id).reference

    def yours(self, id: str, answer: Any) -> tuple[Any, str]:
        """The learner's own answer and the label "yours" where it passes the check; else the reference, with why.

        So a cell can draw what the learner built, whatever state it is in. Nothing is shown and nothing counts. Raises
        `ExerciseError` for an unknown id.
        """
        exercise = self.chapter.exercise(id)
        if run_check(exercise, answer, self.seed).ok:
            return answer, "yours"
        return exercise.reference, "the reference (yours does not pass yet)"

    def quiz(self, id: str) -> None:
        """Ask the chapter's quiz question `id`, with its options in an order of the book's seed and the id.

        So the right option's place gives nothing away. The journal keeps the chosen option's text, and the first try counts.
        Raises `ExerciseError` for an undeclared id.
        """
        last = self._journal.last("quiz", id)

        def keep(choice: str, right: bool) -> None:
            self._journal.append("quiz", id, choice=choice, ok=right)

        self._put(self.chapter.quiz(id), keep, str(last["choice"]) if last is not None else None)

    def progress(self) -> None:
        """Show for every chapter how many exercises passed, predictions were scored and quiz questions were right.

        Of a quiz question only the first try counts. Of the chapter's questions that came back in warm-ups, the last
        column says how many were right the last time.
        """
        rows = progress_rows(self._journal)
        show_html(table_html(HEADER, rows, CAPTION), table_text(HEADER, rows, CAPTION))

    def _declared(self, id: str, group: str) -> str:
        there: tuple[str, ...] = getattr(self.chapter, group)
        if id not in there:
            raise ExerciseError(
                f"{id!r} is not declared in chapter {self.chapter.number}'s {group}: {', '.join(there) or 'none'}"
            )
        return id

    def _put(self, quiz: Quiz, keep: Callable[[str, bool], None], chosen: str | None, note: str = "") -> None:
        """Show a question with an option `chosen` before, or none, and a `note` on where it comes from.

        `keep` takes each choice, and whether it is right.
        """
        shown = quiz.shown(self.rng(quiz.id))
        asked = f"{quiz.question} {note}".strip()
        show_html(panel_html(quiz.question, escape(note)), "\n".join([asked, *[f"  ( ) {option}" for option in shown]]))

        def choose(choice: str) -> str:
            right = choice == quiz.answer
            keep(choice, right)
            return panel_html("Right." if right else "Not that one. Try again.", escape(quiz.reasons[choice]), _tone(right))

        from labkit.workbook import forms  # imports ipywidgets, which a headless check does not need

        show_widget(forms.quiz_form(shown, chosen if chosen in quiz.reasons else None, choose))

    def _ask(self, id: str, question: str, help: str, answers: str) -> None:
        show_html(panel_html(question, escape(help)), f"Predict {id}: {question} ({answers}) {help}".strip())

    def _commit(self, id: str, fields: dict[str, Any], said: str) -> str:
        if standing(self._journal, id).revealed:
            return "Locked: the result has been shown."
        self._journal.append("commit", id, **fields)
        if show := self._waiting.pop(id, None):
            show()
        return escape(said)

    def _form(self, asked: Question) -> Any:
        """The form that asks for a prediction, with what was committed before."""
        from labkit.workbook import forms  # imports ipywidgets, which a headless check does not need

        id, state = asked.id, standing(self._journal, asked.id)
        if isinstance(asked, NumberQuestion):

            def commit(value: float) -> str:
                return self._commit(id, {"value": value, "unit": asked.unit}, f"Committed: {asked.show(value)}.")

            return forms.number_form(asked, _number(state), state.revealed, commit)

        def commit_choice(value: str, confidence: float) -> str:
            return self._commit(
                id, {"value": value, "confidence": confidence}, f"Committed: {value}, {confidence:.0%} sure."
            )

        chosen = _choice(state)
        if chosen is not None and chosen[0] not in asked.options:
            chosen = None  # the options were reworded since, so the old guess answers another question
        return forms.choice_form(asked, chosen, state.revealed, commit_choice)

    def _open(self, state: Standing) -> bool:
        """Whether results wait: a learner has neither predicted nor looked. Nobody predicts in 'ci' and in solved books."""
        return state.guess is None and not state.revealed and self.profile != "ci" and not self.solutions

    def _wait(self, id: str, asked: Question, value: Spread | str) -> None:
        """Ask once more, in place of the result, which appears as soon as the learner commits, here or above, or looks."""
        from labkit.workbook import forms  # imports ipywidgets, which a headless check does not need

        words = "The result is there and waits for your prediction. Until then, the results below stay folded."
        title = f"No prediction yet: {asked.question}"
        replace = show_replaceable(veil_html(panel_html(title, words)), f"{title} {words}")

        def show() -> None:
            self._waiting.pop(id, None)
            html, text = self._result(id, asked, value)
            replace(open_html(html), text)
            form.close()

        form = forms.held_back(self._form(asked), show)
        self._waiting[id] = show
        show_widget(form)

    def _hold_back(self, id: str, asked: Question, why: str) -> None:
        """Say that this run cannot tell, and what a quiet machine found where that is known. The prediction stays open."""
        self._held.add(id)
        self._actual.pop(id, None)
        beside = self._quiet_words(id, asked)
        body = f"{asked.question} {why[:1].upper()}{why[1:].removesuffix('.')}.{beside}"
        show_html(panel_html("This run cannot tell.", escape(body)), f"This run cannot tell. {body}")

    def _quiet_words(self, id: str, asked: Question) -> str:
        known = self._bench.quiet_result(id)
        return "" if known is None else f" On a quiet machine: {_text(asked, known[0])} ({known[1]})."

    def _result(self, id: str, asked: Question, value: Spread | str) -> tuple[str, str]:
        state = standing(self._journal, id)
        score = _score(asked, state, value)
        self._journal.append(
            "reveal",
            id,
            actual=value.median if isinstance(value, Spread) else value,
            metric=score.metric if score else None,
            score=score.value if score else None,
        )
        result, beside = _text(asked, value), self._quiet_words(id, asked)
        if score is None:
            title, body, tone = f"Result: {result}", "No prediction was made, so nothing is scored.", "info"
        else:
            title, body = f"You predicted {_guess_text(asked, state)}; the result is {result}", score.words
            tone = _tone(score.close)
        body += beside
        return panel_html(title, f"{escape(asked.question)}<br>{escape(body)}", tone), f"{asked.question}\n{title}. {body}"


def open_chapter(
    number: str, *, profile: str = "learn", engine: str = "auto", seed: int = 0, solutions: bool = False
) -> Book:
    """Open the chapter of a two-digit `number` with the parameters of its notebook.

    Raises `ExerciseError` for a wrong parameter or an unknown chapter, `RepositoryNotFound` away from the clone, and
    `PermissionError` when the state folder cannot be created. Each message names the fix.
    """
    if profile not in PROFILES:
        raise ExerciseError(f"profile={profile!r} must be one of {', '.join(PROFILES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ExerciseError(f"seed={seed!r} must be a whole number, 0 or more")
    if not isinstance(solutions, bool):
        raise ExerciseError(f"solutions={solutions!r} must be True or False")
    if not isinstance(engine, str) or not engine:
        raise ExerciseError(f"engine={engine!r} must name an engine; 'auto' chooses the best one this machine has")
    contents = chapter(number)
    journal = Journal(None if solutions else state_dir() / JOURNAL)
    bench = Bench(
        number,
        engine=engine,
        profile=profile,
        needs=contents.needs,
        recording=chapter_recording(contents.notebook),  # away from a clone this stops here, with a fix
        writes=state_dir() / "recordings" / f"{contents.notebook}.jsonl",
        quiet=profile == "ci",
    )
    show_html(STYLE, "")
    if profile != "ci":
        if Path.cwd() == mine_dir() and outdated(contents.notebook):
            show_html(
                panel_html("There is a newer version of this chapter.", renewal(contents.notebook)),
                renewal(contents.notebook),
            )
        bench.prepare()
    return Book(contents, profile=profile, engine=engine, seed=seed, solutions=solutions, journal=journal, bench=bench)


def _number(state: Standing) -> float | None:
    value = state.guess["value"] if state.guess is not None else None
    return float(value) if isinstance(value, int | float) else None


def _choice(state: Standing) -> tuple[str, float] | None:
    if state.guess is None or "confidence" not in state.guess:
        return None
    return str(state.guess["value"]), float(str(state.guess["confidence"]))


def _score(asked: Question, state: Standing, value: Spread | str) -> Score | None:
    if isinstance(asked, NumberQuestion) and isinstance(value, Spread):
        guess = _number(state)
        return None if guess is None else score_number(asked, guess, value)
    choice = _choice(state)
    if isinstance(asked, NumberQuestion) or choice is None or choice[0] not in asked.options:
        return None
    return score_choice(asked, *choice, str(value))


def _text(asked: Question, value: Spread | str) -> str:
    """The result in words, with its interval where there is one."""
    if isinstance(asked, NumberQuestion) and isinstance(value, Spread):
        span = f" ({value.words()})" if value.low < value.high else ""
        return asked.show(value.median) + span
    return str(value)


def _guess_text(asked: Question, state: Standing) -> str:
    if isinstance(asked, NumberQuestion):
        guess = _number(state)
        return "-" if guess is None else asked.show(guess)
    choice = _choice(state)
    return "-" if choice is None else choice[0]


def _tone(good: bool) -> str:
    return "good" if good else "bad"


def _source(exercise: Exercise) -> str:
    try:
        return textwrap.dedent(inspect.getsource(exercise.reference)).strip()
    except (TypeError, OSError):
        return f"{exercise.answer} = {exercise.reference!r}"


def _verdict_html(verdict: Verdict) -> str:
    body = list(map(escape, verdict.standing))
    if verdict.ok:
        body.append(f"{verdict.passed} properties held on hidden inputs.")
        return panel_html(verdict.title, "<br>".join(body), "good")
    body += [escape(verdict.note).replace("\n", "<br>")] if verdict.note else []
    if verdict.failure is not None:
        rows = [("given", verdict.failure.given), ("expected", verdict.failure.expected), ("actual", verdict.failure.actual)]
        body += [f"{name}: <code>{escape(text)}</code>" for name, text in rows]
        body += [escape(verdict.failure.why)] if verdict.failure.why else []
    return panel_html(verdict.title, "<br>".join(body), "bad")
