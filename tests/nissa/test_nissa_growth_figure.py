import random
import subprocess
import sys
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_run import synthetic_run

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.growth_figure import growth_figure, save_growth_figure

RUNS = {
    "one_slot": synthetic_run(("features.1",), 16),
    "twelve_slots": synthetic_run(tuple(f"blocks.{i}" for i in range(12)), 16),
    "no_growth": synthetic_run(("a", "b"), 10, plant=0.0),
    "one_epoch": synthetic_run(("a",), 1),
    "one_epoch_without_slots": synthetic_run((), 1),
    "no_slots": synthetic_run((), 8),
    "many_fossils": synthetic_run(("layer3",), 70, plant=1.0, cull=0.0),
    "long_names": synthetic_run(
        (
            "backbone.encoder.layers.11.self_attention.out_projection",
            "backbone.encoder.layers.12.feed_forward.linear_with_a_long_name",
        ),
        20,
        blueprints=("a_blueprint_with_a_name_that_goes_on_and_on", "$x_y$"),
    ),
    "no_metrics": synthetic_run(("a",), 6, metrics=()),
    "loss_only": synthetic_run(("a",), 6, metrics=("loss",)),
    "failed": synthetic_run(("a",), 6, outcome="failed: ValueError: " + "very long " * 40),
}


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_drawn(tmp_path, name):
    png, svg = save_growth_figure(RUNS[name], tmp_path / "new")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().rstrip().endswith("</svg>")
    assert [png.name, svg.name] == ["growth.png", "growth.svg"]


def drawn_texts(figure: Figure) -> Iterator[Text]:
    """Texts that can be seen: tick labels beyond an axis' ends cannot."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high}
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text not in hidden:
            yield text


@pytest.mark.parametrize("name", RUNS)
def test_nothing_leaves_the_paper_and_labels_do_not_touch(name):
    figure = growth_figure(RUNS[name])
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    boxes = []
    for text in drawn_texts(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 > -1, text.get_text()
        assert box.x1 < width + 1, text.get_text()
        assert box.y0 > -1, text.get_text()
        assert box.y1 < height + 1, text.get_text()
        boxes.append((text.get_text(), box.shrunk(0.97, 0.6)))
    for number, (left, one) in enumerate(boxes):
        for right, two in boxes[number + 1 :]:
            assert not one.overlaps(two), (left, right)


@pytest.mark.parametrize("name", ["many_fossils", "long_names"])
def test_svg_is_the_same_byte_for_byte(tmp_path, name):
    files = [save_growth_figure(RUNS[name], tmp_path / str(i)) for i in range(2)]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert files[0][0].read_bytes() == files[1][0].read_bytes()


def test_svg_is_the_same_under_a_users_own_style(tmp_path):
    plain = save_growth_figure(RUNS["one_slot"], tmp_path / "plain")[1].read_bytes()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        styled = save_growth_figure(RUNS["one_slot"], tmp_path / "styled")[1].read_bytes()
    assert plain == styled


def test_no_global_state_is_touched(tmp_path):
    settings = dict(mpl.rcParams)
    random_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    save_growth_figure(RUNS["one_slot"], tmp_path)
    assert dict(mpl.rcParams) == settings
    assert random.getstate() == random_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_pyplot_is_never_imported():
    code = (
        "import sys, esper_lightning.nissa.growth_figure;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nissa_alone_loads_neither_matplotlib_nor_torch():
    code = (
        "import sys, esper_lightning.nissa;"
        "assert not {'matplotlib', 'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_title_says_size_before_and_after_and_the_last_value():
    shown = texts(growth_figure(RUNS["many_fossils"]))
    assert any(t.startswith("1,702 → ") and "val/acc 9" in t for t in shown)
    shown = texts(growth_figure(RUNS["no_growth"]))
    assert any(t.startswith("1,702 parameters, not grown,  val/acc 8") for t in shown)


def test_legend_has_only_what_occurs():
    legend = growth_figure(RUNS["no_growth"]).legends[0]
    assert [t.get_text() for t in legend.get_texts()] == ["dormant"]
    legend = growth_figure(synthetic_run(("a",), 30, plant=1.0, cull=0.0)).legends[0]
    assert {t.get_text() for t in legend.get_texts()} == {
        "planted",
        "dormant",
        "training",
        "blending",
        "shadowing",
        "probationary",
        "fossilized",
    }


def test_fossils_beyond_the_layers_are_counted():
    shown = texts(growth_figure(RUNS["many_fossils"]))
    assert any(t.startswith("and ") and t.endswith(" before") for t in shown)


@pytest.mark.parametrize("cut", [40, 60, 80])
def test_run_that_is_not_over_can_be_drawn(cut):
    growth_figure(synthetic_run(("a", "b", "c"), 20, seed=cut)[:cut])


def test_no_epoch_no_figure(tmp_path):
    with pytest.raises(InvalidArgument, match="no epoch boundary"):
        save_growth_figure(RUNS["one_slot"][:2], tmp_path)
    assert list(tmp_path.iterdir()) == []
