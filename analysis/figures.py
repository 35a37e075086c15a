"""The plots: bars of an ablation, few-label curves, errors and losses by epoch, learning rates, confusion matrices.

Each function writes NAME.pdf and NAME.png and returns their paths, an empty list where there is nothing to draw.
"""

import gzip
import math
import textwrap
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from ulmfit.errors import UserError

from . import style
from .archive import Run
from .rendering import MISSING, PAPER_ONLY, dataset_title


def bars(frame: pd.DataFrame, folder: Path, name: str, title: str = "") -> list[Path]:
    """The mean error of each row on one split with its 95% interval, and the paper's number as a mark.

    frame: of one block and split. The reference row is dark, the others light; a missing row says so. A star marks a
    significant difference, as in the tables.
    """
    if not (frame["n_seeds"] > 0).any():
        return []
    with style.figure(0.75 + 0.21 * len(frame)) as (made, [axes]):
        positions = np.arange(len(frame))[::-1]
        measured = (frame["n_seeds"] > 0).to_numpy()
        for position, (_, row) in zip(positions, frame.iterrows()):
            if row["n_seeds"]:
                axes.barh(position, row["error"], height=0.66, edgecolor="black", linewidth=0.5,
                          color=style.REFERENCE if row["reference"] else style.OTHER,
                          hatch="" if row["reference"] else "///")
                axes.plot([row["low"], row["high"]], [position] * 2, color="black", linewidth=1, solid_capstyle="butt")
                for end in (row["low"], row["high"]):
                    axes.plot([end] * 2, [position - 0.14, position + 0.14], color="black", linewidth=1)
        with_paper = frame["paper"].notna().to_numpy()
        if with_paper.any():
            axes.scatter(frame["paper"][with_paper], positions[with_paper], marker="D", s=16, facecolor="white",
                         edgecolor="black", linewidth=0.8, zorder=3, label="paper", clip_on=False)
        right = max(frame["high"].max(), frame["paper"].max() if with_paper.any() else 0)
        axes.set_xlim(0, right * 1.16)
        for position, (_, row) in zip(positions, frame.iterrows()):
            if not row["n_seeds"]:
                said = "" if row["note"] == PAPER_ONLY else MISSING
                axes.text(right * 0.01, position, said, va="center", fontsize=6.5, color=style.MISSING_GREY,
                          style="italic")
            elif row["significant"]:
                end = np.nanmax([row["high"], row["paper"]])
                axes.text(end + right * 0.02, position, "*", va="center", fontsize=9)
        axes.set_yticks(positions, frame["row"])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(frame) - 0.4)
        axes.grid(axis="x")
        axes.set_xlabel(f"{frame['split'].iloc[0]} error (%)" + _seeds(frame["n_seeds"][measured]))
        if title:
            # It begins right of the rows' names, and ends before the legend.
            _title(axes, title, max(24, 48 - frame["row"].str.len().max() - 10 * with_paper.any()))
        if with_paper.any():
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), handletextpad=0.2, borderpad=0, borderaxespad=0.3)
        return style.save(made, folder, name)


def _title(axes, text: str, width: int = 46) -> None:
    """Broken into lines of `width` letters, as the id of a run is longer than a column is wide."""
    axes.set_title(textwrap.fill(text, width), loc="left")


def _seeds(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    said = str(low) if low == high else f"{low} to {high}"
    return f", {said} seed{'s' * (high > 1)}"


def low_shot(frame: pd.DataFrame, folder: Path, name: str, dataset: str) -> list[Path]:
    """Error on val against the number of labels, on a logarithmic axis, with 95% intervals (the paper's Figure 3).

    A curve is broken at a size that it has no run of. Nothing is drawn where only one size was run.
    """
    every = frame[(frame["dataset"] == dataset) & (frame["split"] == "val")]
    lines = every[every["n_seeds"] > 0]
    if lines["n_labels"].nunique() < 2:
        return []
    curves = list(dict.fromkeys(lines["row"]))
    columns = _columns(curves)
    with style.figure(2.3 + 0.16 * math.ceil(len(curves) / columns)) as (made, [axes]):
        for number, curve in enumerate(curves):
            # With the sizes that were not run: their errors are NaN, which no line goes through.
            own = every[every["row"] == curve].sort_values("n_labels")
            x, kind = own["n_labels"].astype(float), number % len(style.COLOURS)
            errors = np.array([own["error"] - own["low"], own["high"] - own["error"]]).clip(0)
            axes.errorbar(x * _beside(number, len(curves)), own["error"], yerr=errors, color=style.COLOURS[kind],
                          marker=style.MARKERS[kind], linestyle=style.LINES[kind], capsize=1.8, elinewidth=0.7,
                          capthick=0.7, label=curve)
        axes.set_xscale("log")
        _label_ticks(axes, sorted(lines["n_labels"].astype(float).unique()))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_xlabel("labelled training documents")
        axes.set_ylabel("val error (%)")
        _title(axes, dataset_title(dataset, lines["corpus"].iloc[0]) + _seeds(lines["n_seeds"]))
        made.legend(loc="outside lower center", ncols=columns, handlelength=3)
        return style.save(made, folder, name)


def _columns(labels: Iterable[str]) -> int:
    """How many columns of the legend find room beside each other."""
    return 2 if max(map(len, labels)) < 30 else 1


def _beside(number: int, count: int) -> float:
    """A factor near 1 that keeps the intervals of several curves from covering each other."""
    return 1.025 ** (number - (count - 1) / 2)


def _label_ticks(axes, values: Sequence[float]) -> None:
    """Ticks at the sizes that were run; those too near to the last labelled one have no number."""
    axes.set_xticks(values, minor=False)
    span = math.log(max(values) / min(values)) or 1
    labels, last = [], -math.inf
    for value in values:
        place = math.log(value / min(values)) / span
        labels.append(f"{value:,.0f}" if place - last > 0.11 else "")
        last = place if labels[-1] else last
    axes.set_xticklabels(labels)
    axes.minorticks_off()


def errors_by_epoch(rows: dict[str, list[Run]], folder: Path, name: str, title: str = "") -> list[Path]:
    """Validation error after each epoch, the mean over seeds with the range they span (the paper's Figure 4).

    rows: the runs of each line. A line ends at the first epoch that one of its runs did not have; it has a point where
    all were validated. The legend names the band, and each line's seeds where their numbers differ.
    """
    lines = {row: [{epoch["epoch"] + 1: epoch["error"] for epoch in run.epochs() if "error" in epoch} for run in runs]
             for row, runs in rows.items()}
    lines = {row: validated for row, own in lines.items() if (validated := [errors for errors in own if errors])}
    if not lines:
        return []
    counts = pd.Series([len(own) for own in lines.values()])
    if counts.nunique() > 1:
        lines = {f"{row}, n={len(own)}": own for row, own in lines.items()}
    columns = _columns(lines)
    with style.figure(2.1 + 0.16 * math.ceil((len(lines) + 1) / columns)) as (made, [axes]):
        for number, (row, own) in enumerate(lines.items()):
            kind = number % len(style.COLOURS)
            epochs = sorted(set(own[0]).intersection(*own[1:]))
            values = np.array([[errors[epoch] for epoch in epochs] for errors in own])
            axes.plot(epochs, values.mean(axis=0), color=style.COLOURS[kind], linestyle=style.LINES[kind],
                      marker=style.MARKERS[kind], markevery=max(1, len(epochs) // 8), label=row)
            if len(own) > 1:
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=style.COLOURS[kind], alpha=0.18,
                                  linewidth=0)
        _whole_epochs(axes)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("val error (%)")
        _title(axes, title + _seeds(counts))
        handles = axes.get_legend_handles_labels()[0]
        if counts.max() > 1:
            handles.append(Patch(facecolor=style.MISSING_GREY, alpha=0.4, label="mean and range over seeds"))
        made.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3)
        return style.save(made, folder, name)


def _whole_epochs(axes) -> None:
    """Ticks at whole epochs alone; a single epoch stands in the middle."""
    low, high = axes.dataLim.intervalx
    if low == high:
        axes.set_xlim(low - 1, high + 1)
        axes.set_xticks([low])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def training_curves(runs: dict[str, Run], folder: Path, name: str) -> list[Path]:
    """Training and validation loss (nats) after each epoch, a panel a run."""
    rows = {title: run.epochs() for title, run in runs.items()}
    rows = {title: epochs for title, epochs in rows.items() if epochs}
    if not rows:
        return []
    with style.figure(0.5 + 1.45 * len(rows), rows=len(rows)) as (made, panels):
        for axes, (title, epochs) in zip(panels, rows.items()):
            for number, (loss, label) in enumerate((("train_loss", "training"), ("val_loss", "validation"))):
                points = [(epoch["epoch"] + 1, epoch[loss]) for epoch in epochs if loss in epoch]
                axes.plot(*zip(*points), color=style.COLOURS[number], linestyle=style.LINES[number],
                          marker=style.MARKERS[number], markevery=max(1, len(points) // 8), label=label)
            _whole_epochs(axes)
            axes.grid(axis="y")
            axes.set_ylabel("loss (nats)")
            _title(axes, title)
        panels[-1].set_xlabel("epoch")
        made.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=3)
        return style.save(made, folder, name)


def learning_rates(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(rates, trains) of each update as it was run, shape (updates, groups); trains: whether the group was trained.

    Raises UserError when the run has no steps.csv.gz or it cannot be read.
    """
    path = run.folder / "steps.csv.gz"
    if not path.is_file():
        raise UserError(f"{run.id} has no steps.csv.gz; a run of finetune_lm, pretrain_lm or train_clas has")
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            table = pd.read_csv(file, dtype={"groups": str})
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not readable ({error}); make its run again with --overwrite") from error
    rates = table[[column for column in table if column.startswith("lr_")]].to_numpy(dtype=float)
    trains = np.zeros(rates.shape, dtype=bool)
    for row, groups in enumerate(table["groups"]):
        trains[row, [int(group) for group in groups.split("+")]] = True
    return rates, trains


def by_rate(rates: np.ndarray, trains: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    """What `learning_rates` returns, by the groups that are trained at one rate.

    Returns for each set of groups, counted from the last one down ((0,): the last alone, (0, 1): the last two), their
    rate at each update, shape (updates,), NaN where another set or none of them is trained at it. Small sets first.
    """
    groups = rates.shape[1]
    together = trains[:, :, None] & trains[:, None, :] & (rates[:, :, None] == rates[:, None, :])
    sets = together @ (1 << np.arange(groups))  # of each group those with its rate, as bits; 0: frozen
    lines = {}
    for bits in np.unique(sets[sets > 0]):
        members = [group for group in range(groups) if bits >> group & 1]
        lines[tuple(groups - 1 - group for group in reversed(members))] = np.where(
            sets[:, members[0]] == bits, rates[:, members[0]], math.nan)
    return dict(sorted(lines.items(), key=lambda line: (len(line[0]), line[0])))


def _groups(members: tuple[int, ...], groups: int) -> str:
    """A key of `by_rate` in words."""
    low, high = members[0], members[-1]
    if len(members) == groups:
        return "all groups"
    if high == low:
        return f"{low} below" if low else "last group"
    if high - low + 1 > len(members):
        return ", ".join(_groups((member,), groups) for member in members)
    return f"{low} to {high} below" if low else f"last {len(members)} groups"


def schedules(read: dict[str, tuple[np.ndarray, np.ndarray]], folder: Path, name: str) -> list[Path]:
    """The learning rate of each layer group at each update, as it was run, a panel a run; what is frozen has no line.

    read: what `learning_rates` returns, by title. Groups that are trained at one rate are one line, a thick one.
    """
    if not read:
        return []
    panels_lines = {title: {_groups(members, rates.shape[1]): (len(members), line)
                            for members, line in by_rate(rates, trains).items()}
                    for title, (rates, trains) in read.items()}
    sizes = {label: size for lines in panels_lines.values() for label, (size, _) in lines.items()}
    # Single groups first, from the last one down, so that each has the same style in every figure; then the largest.
    labels = sorted(sizes, key=lambda label: (sizes[label] > 1, -sizes[label], label != "last group", label))
    columns = min(3 if max(map(len, labels)) > len("last group") else 4, len(labels))
    with style.figure(0.4 + 1.2 * len(read) + 0.16 * math.ceil(len(labels) / columns),
                      rows=len(read)) as (made, panels):
        handles = {}
        for axes, (title, lines) in zip(panels, panels_lines.items()):
            for label, (size, line) in lines.items():
                kind = labels.index(label) % len(style.COLOURS)
                [handles[label]] = axes.plot(np.arange(len(line)), line, color=style.COLOURS[kind],
                                             linestyle=style.LINES[kind], linewidth=1 if size == 1 else 2)
            axes.set_yscale("log")
            shown = np.concatenate([line[~np.isnan(line)] for _, line in lines.values()])
            if 1 < shown.max() / shown.min() < 10:  # there may be no power of ten to label
                axes.set_yticks([shown.min(), shown.max()])
            axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(axis="y")
            axes.set_ylabel("rate")
            _title(axes, title)
        panels[-1].set_xlabel("update")
        made.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=columns,
                    handlelength=2.6, columnspacing=1.2)
        return style.save(made, folder, name)


def confusion(counts: np.ndarray, classes: list[str], folder: Path, name: str, title: str = "") -> list[Path]:
    """A confusion matrix: a row a true class, a column a predicted one, in % of the row; darker is more.

    counts: shape (classes, classes), summed over seeds where there are several.
    """
    counts = np.asarray(counts, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, totals, out=np.full(counts.shape, math.nan), where=totals > 0)
    size = len(classes)
    with style.figure(3.3) as (made, [axes]):
        axes.imshow(shares, cmap="Greys", vmin=0, vmax=100)
        if size <= 15:
            for row in range(size):
                for column in range(size):
                    if counts[row, column]:
                        axes.text(column, row, f"{shares[row, column]:.0f}" if shares[row, column] >= 0.5 else "<1",
                                  ha="center", va="center", fontsize=7 if size <= 8 else 5.5,
                                  color="white" if shares[row, column] > 55 else "black")
        labels = [label if len(label) <= 12 else label[:11] + "…" for label in classes]
        axes.set_xticks(range(size), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set_yticks(range(size), labels)
        axes.tick_params(length=0)
        for spine in ("top", "right"):
            axes.spines[spine].set_visible(True)
        axes.set_xlabel("predicted class (numbers: % of the true class)")
        axes.set_ylabel("true class")
        _title(axes, title, 34)
        return style.save(made, folder, name)
