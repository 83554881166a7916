"""Charts of what was measured, as SVG that can be read on light and on dark ground."""

from __future__ import annotations

import statistics
from io import StringIO
from pathlib import Path
from typing import Any

from .runner import kind_of
from .scale import AXES, growth

#: Text and lines, as they are drawn; in a file they have the colour of the ground that its reader prefers.
INK = "#7a7a7a"
INKS = "<style>svg { color: #555b63 } @media (prefers-color-scheme: dark) { svg { color: #a9b1ba } }</style>"

#: sockframe's wings, the floors, and all others.
COLORS = {"core": "#1a9850", "pure": "#74add1", "floor": "#a0a0a0", "peer": "#d9853b"}

#: Of each kind, what is drawn: the works, side by side.
SHOWN = {
    "decode": ("length 64 B", "length 1 KiB", "CRLF 64 B", "length 1 MiB"),
    "receive": ("length 64 B", "length 1 KiB", "CRLF 64 B", "length 1 MiB"),
    "send": ("length 64 B", "length 1 KiB", "CRLF 64 B", "length 1 MiB"),
    "roundtrip": ("length 64 B", "length 16 KiB"),
    "echo": ("100 x 16, 64 B", "1,000 x 4, 64 B", "100 x 16 of 10,000, 64 B"),
    "memory": ("idle after 64 B", "idle after 256 KiB"),
}


def family(contender: str) -> str:
    """Say which color a contender has."""
    name = contender.partition(",")[0]
    if name in ("core", "pure"):
        return name
    return "floor" if name == "C" or name.startswith(("C ", "bare")) else "peer"


def draw(record: dict[str, Any], folder: Path) -> list[Path]:
    """Draw a chart for each kind that was measured; return the files. Raises `ImportError` without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK,
             "axes.titlecolor": INK, "font.size": 9, "axes.titlesize": 9, "savefig.transparent": True,
             "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "sockframe", "svg.fonttype": "none",
             "legend.frameon": False}
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    first = next(iter(record["pythons"]))
    with pyplot.rc_context(style):
        for kind, rows in record["kinds"].items():
            measured = [row for row in rows if row["ns"] and row["python"] == first]
            figure = lines(pyplot, measured) if kind == "scale" else bars(pyplot, kind, measured)
            if figure is None:
                continue
            drawn.append(folder / f"{kind}.svg")
            text = StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
            drawn[-1].write_text(text.getvalue().replace(INK, "currentColor").replace("<defs>", f"{INKS}<defs>", 1))
            pyplot.close(figure)
    return drawn


def bars(pyplot: Any, kind: str, rows: list[dict[str, Any]]) -> Any:
    """Return a panel for each work that is shown: a bar for each contender, and how far its rounds are apart."""
    works = [work for work in SHOWN[kind] if any(row["work"] == work for row in rows)]
    works = works or list(dict.fromkeys(row["work"] for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    if not works:
        return None
    from matplotlib import ticker

    figure, panels = pyplot.subplots(1, len(works), sharey=True, squeeze=False,
                                     figsize=(1.6 + 1.5 * max(2, len(works)), 0.8 + 0.21 * len(names)))
    for panel, work in zip(panels[0], works, strict=True):
        for row in rows:
            if row["work"] == work:
                figures = [max(figure, 1.0) for figure in row["ns"]]
                median = statistics.median(figures)
                panel.barh(names.index(row["contender"]), median, color=COLORS[family(row["contender"])], height=0.7,
                           xerr=[[median - min(figures)], [max(figures) - median]], ecolor=INK)
                panel.annotate(f" {short(median)}", (max(figures), names.index(row["contender"])), va="center",
                               fontsize=8)
        panel.set_xscale("log")
        longest = max(10, *(max(row["ns"]) for row in rows if row["work"] == work))
        panel.set_xlim(1, longest ** 1.45)  # room for the numbers
        panel.xaxis.set_major_locator(ticker.LogLocator(numticks=4))
        panel.set_title(work)
        panel.set_yticks(range(len(names)), names)
    panels[0][0].invert_yaxis()
    unit = getattr(kind_of(kind), "UNIT", "ns a frame")
    figure.supxlabel(f"{kind}: {unit}, the shorter the better (k: thousands, M: millions)", fontsize=9)
    figure.tight_layout()
    return figure


def short(number: float) -> str:
    """Return a number by three digits, in thousands or millions where it is large."""
    unit = ""
    for larger in ("k", "M"):
        if number >= 999.5:
            number, unit = number / 1000, larger
    return f"{number:.3g}{unit}"


def lines(pyplot: Any, rows: list[dict[str, Any]]) -> Any:
    """Return a panel for each axis along which the work grows, a line for each contender."""
    axes = [axis for axis in AXES if growth(axis, rows)]
    if not axes:
        return None
    figure, panels = pyplot.subplots(1, len(axes), squeeze=False, figsize=(2.55 * len(axes), 2.6))
    for panel, axis in zip(panels[0], axes, strict=True):
        for name, places in growth(axis, rows).items():
            color = COLORS[family(name)]
            panel.plot(list(places), [statistics.median(costs) for costs in places.values()], marker="o",
                       markersize=3, color=color, label=name)
            panel.fill_between(list(places), [min(costs) for costs in places.values()],
                               [max(costs) for costs in places.values()], color=color, alpha=0.25, linewidth=0)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(axis)
        panel.set_ylabel("ns a byte" if axis == "bytes a frame" else "ns a frame")
    panels[0][-1].legend(labelcolor=INK)
    figure.tight_layout()
    return figure
