"""figures.py: the look does not leak, does not depend on the user's, and files are whole."""

import matplotlib

from ait_jax.summaries import figures


def draw(path):
    with figures.style():
        figure = figures.new_figure(2, 1)
        axes = figure.add_axes((0.2, 0.2, 0.7, 0.5))
        axes.plot([1, 2], [3, 4])
        figures.add_title(axes, "a $title", "below")
        figures.save_png(figure, path)
    return path.read_bytes()


def test_the_users_style_neither_enters_nor_changes(tmp_path):
    first = draw(tmp_path / "a.png")
    with matplotlib.rc_context(
        {"lines.linewidth": 9.0, "axes.facecolor": "red", "savefig.dpi": 30}
    ):
        assert draw(tmp_path / "b.png") == first
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
    assert first.startswith(b"\x89PNG") and b"Software" not in first
    assert int.from_bytes(first[16:20], "big") == 2 * figures.DPI


def test_files_are_written_whole(tmp_path):
    draw(tmp_path / "deep" / "a.png")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
