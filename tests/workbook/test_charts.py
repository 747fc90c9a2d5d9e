import re
from pathlib import Path

import altair as alt
import ipywidgets as w
import jupyterlab
import pytest
from jupyterlab.commands import get_app_dir

from labkit.workbook import ChartError, Figure, live_chart, show
from labkit.workbook.charts import MIME, PALETTE, bundle, spec

CHART = alt.Chart(alt.Data(values=[{"a": 1}])).mark_bar().encode(x="a:Q")
LIGHT, DARK = "#ffffff", "#111111"  # JupyterLab's --jp-layout-color0 in its two themes


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", [LIGHT, DARK])
@pytest.mark.parametrize("colour", PALETTE.values(), ids=PALETTE)
def test_every_colour_stands_out_on_both_backgrounds(colour, background):
    assert contrast(colour, background) >= 3


def test_the_contrast_formula_agrees_with_wcag_on_black_and_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_the_installed_jupyterlab_registers_the_mime_type_we_emit():
    static = Path(get_app_dir()) / "static"
    assert jupyterlab.__version__
    scripts = "".join(f.read_text("utf-8", "ignore") for f in static.glob("jlab_core*.js"))
    registered = set(re.findall(r"application/vnd\.vegalite\.v\d\+json", scripts))
    data, _ = bundle(Figure(CHART, "words", "source"))
    assert [kind for kind in data if "vega" in kind] == [MIME]
    assert MIME in registered


def test_a_chart_carries_its_text_alternative_and_keeps_its_own_configuration():
    made = spec(Figure(CHART.configure_axis(labelFontSize=20), "words", "source"))
    assert made["description"] == "words"
    assert made["config"]["axis"]["labelFontSize"] == 20
    assert made["config"]["background"] == "transparent"


@pytest.mark.parametrize(("words", "source"), [("", "s"), (" ", "s"), ("w", "")])
def test_a_chart_without_words_or_source_is_refused(words, source):
    with pytest.raises(ChartError):
        show(CHART, alt=words, source=source)


def test_a_live_chart_redraws_picture_and_words_and_survives_a_failing_setting():
    def make(n):
        if n == 3:
            raise ValueError("three is too many")
        return Figure(alt.Chart(alt.Data(values=[{"a": n}])).mark_bar().encode(x="a:Q"), f"{n} bars", "model")

    _, picture, words = _live(make, n := w.IntSlider(1, 0, 5)).children
    n.value = 2
    assert picture.outputs[0]["data"][MIME]["data"]["values"] == [{"a": 2}]
    assert "2 bars" in words.value
    n.value = 3
    (shown,) = picture.outputs
    assert MIME not in shown["data"]
    assert "three is too many" in shown["data"]["text/html"]
    assert "bars" not in words.value
    n.value = 4
    assert picture.outputs[0]["data"][MIME]["data"]["values"] == [{"a": 4}]
    assert "4 bars" in words.value


def _live(make, control):
    made: list[w.VBox] = []
    before = w.VBox.__init__

    def spy(self, *args, **kwargs):
        before(self, *args, **kwargs)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(w.VBox, "__init__", spy)
        live_chart(make, n=control)
    return made[-1]
