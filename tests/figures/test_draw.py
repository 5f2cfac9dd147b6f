"""What every figure has to keep to: its finding above it, whole, and nothing cut off."""

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from pictures import cut_off

from offramp.figures import draw as drawing
from offramp.figures.draw import MARGIN, STYLE, draw
from offramp.figures.panels import headline, new_panels


def a_figure(finding: str, name: str = "entropy") -> Figure:
    """Rows with a long name, which reach as far left as any."""
    figure, axes = new_panels()
    axes.barh([f"{name}, with temperatures, chosen together", name], [1, 2])
    headline(figure, finding)
    return figure


def laid_out(figure: Figure) -> Figure:
    ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN).execute(figure)
    return figure


@pytest.mark.parametrize("words", [3, 30, 60])
def test_a_headline_takes_as_many_lines_as_it_needs(words):
    with mpl.rc_context(STYLE):
        figure = laid_out(a_figure(" ".join(["thresholds"] * words)))
        assert cut_off(figure) == []


def test_what_is_cut_off_is_found():
    with mpl.rc_context(STYLE):
        figure = laid_out(a_figure("short"))
        figure.axes[0].text(1.9, 0, "beyond the right edge", in_layout=False)
        assert cut_off(figure) == ["beyond the right edge"]


def test_a_drawn_picture_is_the_same_twice_and_whole(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setitem(drawing.DRAW, "made_up", lambda _: drawn.append(a_figure("x")) or drawn[-1])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw(tmp_path / folder / "made_up.svg", None)
        assert cut_off(drawn[-1]) == []
    for kind in ("svg", "png"):
        first, second = (tmp_path / f / f"made_up.{kind}" for f in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
