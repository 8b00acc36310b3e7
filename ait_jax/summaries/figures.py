"""The common look of the plots, and PNG files with the same bytes every time.

Figures are drawn without pyplot or a display, with matplotlib's own defaults whatever the user's
matplotlibrc says. matplotlib is imported on first use.
"""

import contextlib
import io
import warnings
from collections.abc import Generator
from typing import Any

from ait_jax.runtime import files

DPI = 150
INK, FAINT_INK, GRID = "#222222", "#666666", "#E4E4E4"
# They differ in lightness as well as in hue, for color-blind readers and gray prints.
VERMILION, SKY, NAVY, GREY = "#D55E00", "#56B4E9", "#1B3A6B", "#B9B9B9"

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT_INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT_INK,
    "ytick.color": FAINT_INK,
}


@contextlib.contextmanager
def style() -> Generator[None, None, None]:
    """Gives matplotlib its defaults and our look for the block."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Scripts that the font lacks are drawn as boxes; a warning for each would be noise.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of `width` x `height` inches that draws with Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_title(axes: Any, title: str, subtitle: str) -> None:
    """Writes a bold line and a faint one above the axes, both flush left."""
    place = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(title, xytext=(0, 26), fontsize=12, fontweight="bold", **place)
    axes.annotate(subtitle, xytext=(0, 10), fontsize=9, color=FAINT_INK, **place)


def save_png(figure: Any, path: Any) -> None:
    """Writes the figure whole or not at all; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())
