"""The curves of what verbs cost by what is stored, as SVG; the same bytes for the same figures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(
    costs: Mapping[str, Sequence[float]],
    ratios: Mapping[str, Sequence[float]],
    sizes: Sequence[int],
    most: float,
    path: Path,
) -> None:
    """Draw seconds by size, and beside them the ratios to the smallest size with their bound.

    Args:
        costs: Seconds of each verb, in the order of the sizes.
        ratios: Ratio of each verb to the smallest size, in the order of the sizes.
        sizes: How many sessions were stored.
        most: The bound of the ratios.
        path: The file; its ending names the format.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    # Ids and the date would otherwise differ each time.
    matplotlib.rcParams["svg.hashsalt"] = "session_fsm"
    matplotlib.rcParams["font.size"] = 9
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for number, verb in enumerate(costs):
        look = {"marker": "osD^vP"[number % 6], "markersize": 5, "linewidth": 1.3}
        left.plot(sizes, [each * 1e3 for each in costs[verb]], label=verb, **look)
        right.plot(sizes, ratios[verb], label=verb, **look)
    left.set_yscale("log")
    left.set_ylabel("milliseconds, median")
    left.set_title("What one call costs")
    right.axhline(most, color="black", linestyle="--", linewidth=1)
    right.annotate(f"target: at most {most:g} ×", (sizes[0], most), (0, 4),
                   textcoords="offset points")  # fmt: skip
    right.set_ylim(0, max(most * 1.4, *(max(each) * 1.1 for each in ratios.values())))
    right.set_ylabel(f"× the cost with {sizes[0]:,} sessions")
    right.set_title("How it grows")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("sessions stored")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    if path.suffix == ".svg":
        # matplotlib leaves blanks at the ends of lines.
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")
