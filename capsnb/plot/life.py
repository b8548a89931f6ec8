"""What happens inside a network as it trains: capsules live and die, weights are pulled and pruned, entropy falls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from capsnb.plot.layout import (
    BESIDE,
    distinct,
    labelled,
    layer_names,
    legend_above,
    observed,
    panels,
)
from capsnb.plot.style import BLUE, GREEN, GREY, INK, RED
from capsnb.plot.words import describes

FAINT = 1e-5  # the smallest norm that a series of `life` keeps


@describes("Norm of every capsule, capsules alive, and change of couplings during training, a row per layer")
def network_life(history: Iterable[Mapping[str, Any]], *, names: Sequence[str] | None = None) -> Figure:
    """Norm of every capsule, capsules alive, and dyr against training steps, a row of panels per layer.

    history: rows of a run that watched `capsnb.measure.parse_tree.life`. Capsules dead in the last row are red.
    """
    rows = observed(history, "life")
    steps = [row["step"] for row in rows]
    life = [row["life"] for row in rows]
    count = len(life[0]["mean"])
    shown = names or layer_names(count)
    options = {"sharex": True, "gridspec_kw": {"width_ratios": (3, 2, 2)}}
    figure, found = panels(11, 1.5 * count + 0.6, count, 3, **options)
    titles = ("norm of each capsule (mean)", "capsules alive", "dyr, of its couplings")
    for ax, title in zip(found[0], titles, strict=True):
        ax.set_title(title, loc="left")
    for layer, (norms, alive, moves) in enumerate(found):
        means = np.array([each["mean"][layer] for each in life])  # (rows, I)
        dead = np.array([each["dead"][layer] for each in life], bool)
        _capsules(norms, steps, means, dead[-1])
        norms.set(ylabel=shown[layer], ylim=(0, max(1.0, means.max()) if layer in (0, count - 1) else None))
        living, every = (~dead).sum(1), dead.shape[1]
        alive.step(steps, living, where="post", color=BLUE)
        alive.set(ylim=(-0.04 * every, 1.08 * every))
        style = {"xycoords": "axes fraction", "ha": "right", "fontsize": 9, "color": BLUE}
        alive.annotate(f"{living[-1]} of {every}", (1, 0.06), **style)
        alive.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        if layer < count - 1:
            moves.plot(steps, [each["dyr"][layer] for each in life], color=BLUE)
            moves.set(ylim=(0, 1.1 * max(max(each["dyr"]) for each in life) or 1))
        else:
            style = {"xycoords": "axes fraction", "ha": "center", "color": GREY}
            moves.annotate("the last layer routes nothing", (0.5, 0.5), **style)
            moves.set_yticks([])
    for ax in found[-1]:
        ax.set_xlabel("training step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.align_ylabels(found[:, 0])
    return figure


@describes("What becomes of dead capsules, a column per arm: norms of hidden capsules, and how many are dead")
def revival(arms: Mapping[str, Mapping[int, Mapping[str, Sequence]]], *, at: float, seed: int) -> Figure:
    """What becomes of dead capsules, a column per arm: hidden capsules' norms, and below how many are dead.

    arms: arm -> seed -> the series of `capsnb.measure.parse_tree.life` with its epochs. at: the epoch from which arms
    differ, dashed. Above, one seed: a line per hidden capsule, those dead at the last record up to `at` red. Below, a
    line per seed, the mean of the seeds thick. Raises ValueError for an arm without any seed.
    """
    _refuse_empty(arms)
    figure, (upper, lower) = panels(1 + 2.5 * len(arms), 4.8, 2, len(arms), sharex=True, sharey="row")
    for norms, counts, (name, seeds) in zip(upper, lower, arms.items(), strict=True):
        shown = seeds[seed if seed in seeds else min(seeds)]
        place = sum(epoch <= at for epoch in shown["epoch"]) - 1
        gone = np.concatenate([np.array(layer, bool) for layer in shown["dead"][max(0, place)][1:-1]])
        lines = np.array([np.concatenate(layers[1:-1]) for layers in shown["mean"]])  # (records, capsules)
        _capsules(norms, shown["epoch"], np.maximum(lines, FAINT), gone)
        norms.set(yscale="log", ylim=(FAINT, 1.2))
        norms.set_title(name.replace(", ", ",\n"), loc="left")
        dead = [[sum(map(sum, layers[1:-1])) for layers in each["dead"]] for each in seeds.values()]
        _counts(counts, seeds.values(), dead, lines.shape[1])
        for ax in (norms, counts):
            ax.axvline(at, color=INK, linestyle="--", linewidth=1)
            ax.grid(axis="y", color=GREY, alpha=0.25)
    upper[0].set_ylabel(f"norm of each capsule\n({FAINT:g} stands for less, too)")
    lower[0].set_ylabel("hidden capsules dead")
    figure.align_ylabels()
    shown = {f"{state} at epoch {at:g}": Line2D([], [], color=c) for state, c in (("dead", RED), ("alive", GREEN))}
    legend_above(figure, shown | {"a seed": Line2D([], [], color=BLUE, linewidth=0.8, alpha=0.5)}, 3)
    return figure


@describes("What each parent gets while a network trains, a column per arm, and how many parents starve")
def starving(
    arms: Mapping[str, Mapping[int, Mapping[str, Sequence]]], *, seed: int, value: str = "gradient", level: float = 0.5
) -> Figure:
    """Who starves, a column per arm: each parent's share in one seed, and below how many starve in all seeds.

    arms: arm -> seed -> the series of `capsnb.measure.exposure` with its epochs. value: "gradient" or "coupling", drawn
    in even shares. level: of an even share, dashed; a parent that is below it at any record is red. Below, a line per
    seed, the mean of the seeds thick. Raises ValueError for an arm without any seed.
    """
    _refuse_empty(arms)
    figure, (upper, lower) = panels(1 + 2.3 * len(arms), 4.8, 2, len(arms), sharex=True, sharey="row")
    for lines, counts, (name, seeds) in zip(upper, lower, arms.items(), strict=True):
        shown = seeds[seed if seed in seeds else min(seeds)]
        shares = [np.asarray(each[value], float) * len(each[value][0]) for each in (shown, *seeds.values())]
        _capsules(lines, shown["epoch"], shares[0], (shares[0] < level).any(0))
        lines.axhline(level, color=INK, linestyle="--", linewidth=1)
        lines.set_title(name.replace(", ", ",\n"), loc="left")
        _counts(counts, seeds.values(), [(each < level).sum(1) for each in shares[1:]], shares[0].shape[1])
        for ax in (lines, counts):
            ax.grid(axis="y", color=GREY, alpha=0.25)
    upper[0].set(ylabel=f"share of the {value}\n(1 = even)", ylim=(0, None))
    lower[0].set_ylabel("parents that starve")
    figure.align_ylabels()
    entries = {f"starves (below {level:g})": Line2D([], [], color=RED), "never does": Line2D([], [], color=GREEN)}
    legend_above(figure, entries | {"a seed": Line2D([], [], color=BLUE, linewidth=0.8, alpha=0.5)}, 3)
    return figure


def _refuse_empty(arms: Mapping[str, Mapping[int, Any]]) -> None:
    if empty := [name for name, seeds in arms.items() if not seeds]:
        raise ValueError(f"the arm {empty[0]!r} has no seed to draw.")


def _counts(ax: Axes, seeds: Iterable[Mapping[str, Sequence]], counts: Sequence[Sequence[float]], most: int) -> None:
    _seeds(ax, [(each["epoch"], series) for each, series in zip(seeds, counts, strict=True)], BLUE)
    ax.set(xlabel="epoch", ylim=(-0.02 * most, 1.02 * most))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


@describes("Gradients of the loss at hidden capsules and at their transforms during training")
def hidden_gradients(life: Mapping[str, Sequence], pull: Mapping[str, Sequence], *, at: float) -> Figure:
    """Norms of the loss's gradient at every hidden capsule and at the transforms that leave it, against epochs.

    life, pull: series of `capsnb.measure.parse_tree.life` and of `gradients.pull_of_training`, of one run, with their
    epochs. Capsules dead at the last record up to epoch `at`, dashed, are red. Raises ValueError where the two series
    are not of the same records.
    """
    if list(life["epoch"]) != list(pull["epoch"]):
        raise ValueError("life and pull are not of the same records: their epochs differ.")
    place = max(0, sum(epoch <= at for epoch in life["epoch"]) - 1)
    gone = np.concatenate([np.array(layer, bool) for layer in life["dead"][place][1:-1]])
    figure, (found,) = panels(10, 3.2, columns=2)
    for ax, name, title in zip(found, ("capsule", "transform"), ("at each capsule", "at its transforms"), strict=True):
        layers = slice(1, len(life["dead"][place]) - 1)  # the hidden ones
        _capsules(ax, pull["epoch"], np.array([np.concatenate(row[layers]) for row in pull[name]]), gone)
        ax.axvline(at, color=INK, linestyle="--", linewidth=1)
        ax.set(xlabel="epoch", yscale="log", ylabel="norm of the gradient")
        ax.set_title(title, loc="left")
        ax.grid(axis="y", color=GREY, alpha=0.25)
    shown = {f"{state} at epoch {at:g}": Line2D([], [], color=c) for state, c in (("dead", RED), ("alive", GREEN))}
    legend_above(figure, shown, 2)
    return figure


def _capsules(ax: Axes, steps: Sequence[int], values: np.ndarray, dead: Sequence[bool]) -> None:
    """A thin line per capsule, values (rows, I): green, those dead at the end red and in front."""
    for capsule, gone in enumerate(dead):
        ax.plot(steps, values[:, capsule], color=RED if gone else GREEN, linewidth=1, alpha=0.6, zorder=2 + gone)


@describes("Entropy, and accuracy below it, as networks train")
def training_path(paths: Mapping[str, Sequence[Mapping[str, float]]], *, against: str = "sparsity") -> Figure:
    """Entropy, and accuracy below it, as networks train: against the share of pruned weights (fig. 5), or the epoch.

    paths: name -> rows with epoch, sparsity and accuracy in shares, entropy and bound in bits. The bound, log2 of the
    images per class, is a dotted line in each path's colour. Rows without the column `against` are left out.
    """
    figure, ((upper,), (lower,)) = panels(7.5, 5.2, rows=2, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    scale = 100 if against == "sparsity" else 1
    for name, rows, look in distinct(paths):
        kept = [row for row in rows if row.get(against) is not None]
        x = [scale * row[against] for row in kept]
        upper.plot(x, [row["entropy"] for row in kept], label=name, linewidth=1.5, **look)
        lower.plot(x, [100 * row["accuracy"] for row in kept], linewidth=1.5, **look)
        if all("bound" in row for row in kept):
            upper.plot(x, [row["bound"] for row in kept], color=look["color"], linewidth=1.2, linestyle=":")
    entries = labelled([upper]) | {"most it can be": Line2D([], [], color=GREY, linewidth=1.2, linestyle=":")}
    upper.legend(entries.values(), entries, **BESIDE)
    upper.set(ylabel="entropy (bits)", ylim=(0, None))
    lower.set(ylabel="accuracy +Q (%)", xlabel="weights pruned (%)" if against == "sparsity" else against)
    for ax in (upper, lower):
        ax.grid(color=GREY, alpha=0.25)
    if against == "epoch":
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    return figure


@describes("Entropy of keys, accuracy and even couplings against training and against the pull applied")
def dose_response(
    arms: Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]],
    *,
    shown: Sequence[str] = (),
    doses: Sequence[str] = (),
    published: float | None = None,
) -> Figure:
    """What a pull and a pruning each do to the keys, against the epoch, and at the end against all pulls together.

    arms: name -> seed -> the series of `key_statistics.keys_in_training` with its epochs. Above the share that the
    entropy is of its bound, below the accuracy +Q and the couplings in the bin of 1/J. Left the arms in `shown`, a thin
    line per seed, their mean thick; right the last records of all, the means of `doses`, which differ in the pull
    alone, joined. published: the paper's dose, marked. Arms without seeds are left out.
    """
    rows = {"share": "entropy, % of its bound", "accuracy": "accuracy +Q (%)", "even": "couplings at 1/J (%)"}
    options = {"sharex": "col", "sharey": "row", "gridspec_kw": {"height_ratios": (3, 2, 2)}}
    figure, found = panels(9.5, 6.4, 3, 2, **options)
    looks = {name: (seeds, look) for name, seeds, look in distinct(arms) if seeds}
    for (left, right), (value, label) in zip(found, rows.items(), strict=True):
        means = {}
        for name, (seeds, look) in looks.items():
            if name in shown:
                series = [(each["epoch"], 100 * np.asarray(each[value], float)) for each in seeds.values()]
                _seeds(left, series, look["color"], label=name)
            pulls, ends = zip(*((each["pull"][-1], 100 * each[value][-1]) for each in seeds.values()), strict=True)
            right.scatter(pulls, ends, s=22, alpha=0.8, label=name, zorder=3, **look)
            means[name] = np.mean(pulls), np.mean(ends)
        joined = [means[name] for name in doses if name in means]
        if joined:
            right.plot(*zip(*joined, strict=True), color=INK, linewidth=1.2, zorder=2)
        if published is not None:
            right.axvline(published, color=INK, linestyle="--", linewidth=1.2, label="the paper's dose, at least")
        left.set_ylabel(label)
        for ax in (left, right):
            ax.grid(color=GREY, alpha=0.25)
    found[0, 0].set_ylim(0, 102)
    found[0, 0].set_title("while they learn, mean of seeds", loc="left")
    found[0, 1].set_title("at the end, a point per seed", loc="left")
    found[-1, 0].set_xlabel("epoch")
    found[-1, 1].set_xlabel("all pulls together")
    figure.align_ylabels(found[:, 0])
    legend_above(figure, labelled([found[0, 1]]), 4)
    return figure


def _seeds(ax: Axes, series: Sequence[tuple[Sequence, Sequence]], colour: str, *, label: str | None = None) -> None:
    """A thin line per seed, (x, y), and thick the mean of those records that all have."""
    for x, y in series:
        ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.5)
    shortest = min(len(x) for x, _ in series)
    mean = np.mean([y[:shortest] for _, y in series], axis=0)
    ax.plot(series[0][0][:shortest], mean, color=colour, linewidth=2.2, label=label)
