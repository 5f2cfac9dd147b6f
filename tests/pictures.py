"""Whether all that a figure says can be read: no text beyond its edges."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def cut_off(figure: Figure) -> list[str]:
    """The texts of a figure, laid out before, that its PNG does not show whole."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page, renderer = figure.bbox, canvas.get_renderer()
    beyond = []
    for text in texts_of(figure):
        box = text.get_window_extent(renderer)
        if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1 or box.y1 > page.y1:
            beyond.append(text.get_text())
    return beyond


def texts_of(figure: Figure) -> list[Text]:
    """All that can be seen; of an axis the ticks between its ends alone."""
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
        if not _shown(axes, axis, tick.get_loc())
    }
    found = [text for text in figure.findobj(Text) if text not in ticks]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def _shown(axes: Axes, axis, place: float) -> bool:
    low, high = sorted(axis.get_view_interval())
    return axes.get_visible() and axis.get_visible() and low <= place <= high
