"""The widgets a learner answers with: a slider or a choice with a Commit button, a quiz question, a held-back result.

A form owns no state: it passes the learner's choice to a callback and shows the text that the callback returns. Without a
browser nobody presses its button, so a headless run never answers for the learner. The workbook's stylesheet puts the labels
of sliders in a box of the class `FORM` above them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from labkit.workbook.prediction import ChoiceQuestion, NumberQuestion
from labkit.workbook.render import FORM

_WIDE = {"description_width": "initial"}


def number_form(question: NumberQuestion, guess: float | None, locked: bool, commit: Callable[[float], str]) -> w.Widget:
    """A slider over the asked range. Commit is enabled only once the slider has moved, so that no default becomes a guess.

    `guess` is the number committed before, or None; `locked` says that it can no longer change. `commit` takes the number
    and returns the text to show.
    """
    layout = w.Layout(width="min(100%, 36rem)")
    label = f"Your guess ({question.unit})" if question.unit else "Your guess"
    if question.log:
        low, high = math.log10(question.low), math.log10(question.high)
        start = guess if guess is not None else 10 ** ((low + high) / 2)
        slider: Any = w.FloatLogSlider(
            value=start,
            min=low,
            max=high,
            step=(high - low) / 200,
            readout_format=".3g",
            description=label,
            layout=layout,
            style=_WIDE,
        )
    else:
        start = guess if guess is not None else (question.low + question.high) / 2
        step = 10 ** math.floor(math.log10((question.high - question.low) / 100))
        whole = step >= 1 and float(question.low).is_integer()
        slider = w.FloatSlider(
            value=start,
            min=question.low,
            max=question.high,
            step=step,
            readout_format=",.0f" if whole else f",.{max(0, -math.floor(math.log10(step)))}f",
            description=label,
            layout=layout,
            style=_WIDE,
        )
    slider.disabled = locked
    todo = "Move the slider to your guess; then you can commit it."
    return _commit_box([slider], slider, todo, guess is not None, locked, lambda: commit(float(slider.value)))


def choice_form(
    question: ChoiceQuestion, guess: tuple[str, float] | None, locked: bool, commit: Callable[[str, float], str]
) -> w.Widget:
    """Radio buttons and a slider for the confidence, from an even guess (1/n) to certain (1).

    `guess` is the (option, confidence) committed before; without one, no button is chosen. `commit` takes both and returns
    the text to show. Commit is enabled by a change of either, once a button has been chosen.
    """
    even = 1 / len(question.options)
    radio = w.RadioButtons(options=question.options, value=guess[0] if guess else None, layout=w.Layout(width="max-content"))
    sure = w.FloatSlider(
        value=guess[1] if guess else max(even, 0.7),
        min=round(even, 2),
        max=1.0,
        step=0.01,
        readout_format=".0%",
        description="How sure are you?",
        layout=w.Layout(width="min(100%, 36rem)"),
        style=_WIDE,
    )
    radio.disabled = sure.disabled = locked
    return _commit_box(
        [radio, sure],
        radio,
        "Choose an answer; then you can commit it.",
        guess is not None,
        locked,
        lambda: commit(str(radio.value), max(float(sure.value), even)),
    )


def quiz_form(options: tuple[str, ...], last: str | None, choose: Callable[[str], str]) -> w.Widget:
    """Radio buttons with the `last` answer chosen (None: no button), and feedback under them.

    `choose` takes the chosen option and returns the feedback's HTML.
    """
    radio = w.RadioButtons(options=options, value=last, layout=w.Layout(width="max-content"))
    feedback = w.HTML()
    button = w.Button(description="Check", disabled=last is None)

    def pressed(_: Any) -> None:
        feedback.value = choose(str(radio.value))

    def chosen(_: Any) -> None:
        button.disabled = radio.value is None

    radio.observe(chosen, names="value")
    button.on_click(pressed)
    return w.VBox([radio, button, feedback])


def held_back(question: w.Widget, reveal: Callable[[], None]) -> w.Widget:
    """The form of a `question`, in place of its result, with a button that calls `reveal` to show the result without it."""
    button = w.Button(description="Show the result anyway", layout=w.Layout(width="max-content"))
    button.on_click(lambda _: reveal())
    return w.VBox([question, button])


def _commit_box(
    children: list[Any], needed: Any, todo: str, committed: bool, locked: bool, commit: Callable[[], str]
) -> w.Widget:
    """The `children` above a Commit button, beside which stands why it is disabled; `todo` says what enables it."""
    button = w.Button(description="Commit", button_style="primary", disabled=True, tooltip="Fix this prediction")
    status = w.HTML(
        "Locked: the result has been shown."
        if locked
        else "Committed. Until the result is shown, you may change it: move the slider or choose again."
        if committed
        else todo
    )

    def touched(change: Any) -> None:
        if not _is_rounding(change["old"], change["new"]):
            button.disabled = locked or needed.value is None
            if not button.disabled:
                status.value = ""

    def pressed(_: Any) -> None:
        status.value = commit()
        button.disabled = True

    for child in children:
        child.observe(touched, names="value")
    button.on_click(pressed)
    box = w.VBox([*children, w.HBox([button, status])])
    box.add_class(FORM)
    return box


def _is_rounding(old: Any, new: Any) -> bool:
    """Whether a browser only sent a slider's value back in its own floating-point arithmetic, without anybody's hand."""
    return isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=1e-9)
