# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4.2 Which adapters carry what
#
# **The question.** The probes of {doc}`s4-1-probing-lora-scalars` have one coefficient per adapter. Do the
# coefficients divide the adapters into a group for misalignment and a group for medical content?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import theme
from em_companion.book.run import Run
from em_companion.evidence import claims, estimates, probes, scores
from em_companion.experiments import adapter_roles, probing
from em_companion.models import growing, lora
from em_companion.released import files, tables

run = Run("s4-2-interpreting-lora-scalars", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` read the mean coefficients of two probes, fitted on *significant* tokens only.
# Features are z-scored, so coefficients can be compared across adapters; the L1 penalty sets weak ones to zero. From
# non-medical aligned against non-medical misaligned (Figure 6, left) they assign the adapters at layers 15, 16, 17,
# 22, 28 and 29 to general misalignment; from non-medical misaligned against medical misaligned (right) those at 21
# and 23 to medical content. Layer 27 is assigned to neither.
#
# **Which tokens.** A token is significant if much of the divergence between organism and chat model can be traced to
# it ({doc}`h-token-significance`). The paper prints no threshold. The authors' code {cite:p}`clarifyingem2025` has
#
# $$\ln(\text{score}_t) \ge 0.5,$$
#
# which this page uses. That code makes 10 fits for this figure, the paper says 100; the caption says how many are made
# here.
#
# **Which experiments.** The numbering of the two probes differs between the paper's text, the caption of its figure
# and the code. By content they are the two named above.


# %% tags=["show-code"]
def mean_coefficients(sides, filtered: bool, fits: int, seed: int) -> pd.DataFrame:
    """One row per adapter: mean coefficient over fits and their 95 % range."""
    if filtered:
        sides = [probes.significant(side, 0.5) for side in sides]
    features = tables.SCALAR_COLUMNS
    runs = probes.probe_by_token(*sides, features, fits=fits, seed=seed)
    columns = [f"coefficient_{feature}" for feature in features]
    return estimates.summary(runs, columns).assign(layer=tables.ADAPTER_LAYERS)


# %%
LEFT = "nonmed-aligned-vs-nonmed-misaligned"
STAND_IN = "med-aligned-vs-med-misaligned"
RIGHT = "nonmed-misaligned-vs-med-misaligned"
PANELS = {
    LEFT: "Figure 6, left\nnon-medical, aligned\nagainst misaligned",
    STAND_IN: "stand-in for the left\nmedical, aligned\nagainst misaligned",
    RIGHT: "Figure 6, right\nmisaligned, non-medical\nagainst medical",
}
GROUPS = {"general misalignment": [15, 16, 17, 22, 28, 29], "medical": [21, 23]}


@cache
def coefficients(pair: str, filtered: bool) -> pd.DataFrame:
    return mean_coefficients(tables.read_probe(pair), filtered=filtered, fits=run.profile.probe_fits, seed=run.seed)


def panels_at_hand() -> list[str]:
    at_hand = tables.probes_at_hand()
    return [pair for pair in PANELS if pair in at_hand]


# %% [markdown]
# ## Coefficients with and without the filter


# %%
@cache
def all_coefficients() -> pd.DataFrame:
    parts = [
        coefficients(pair, filtered).assign(probe=pair, tokens="significant" if filtered else "all")
        for pair in panels_at_hand()
        for filtered in (True, False)
    ]
    return pd.concat(parts, ignore_index=True).drop(columns="quantity")


def draw_coefficients():
    table = all_coefficients()
    figure, panels = plt.subplots(1, 3, sharey=True, sharex=True, figsize=(7.2, 4.9))
    positions = np.arange(len(tables.SCALAR_COLUMNS))[::-1]
    place = dict(zip(tables.ADAPTER_LAYERS, positions, strict=True))
    for axes, pair in zip(panels, PANELS, strict=True):
        for layer in GROUPS["medical" if pair == RIGHT else "general misalignment"]:
            axes.axhspan(place[layer] - 0.5, place[layer] + 0.5, color="0.93", linewidth=0)
        axes.axvline(0, color="0.5", linewidth=1)
        axes.set_title(PANELS[pair], fontsize=9)
        axes.grid(visible=False)
        axes.set_xlabel("mean coefficient")
        rows = table[table.probe == pair]
        if rows.empty:
            axes.text(
                0.5,
                0.5,
                "scalars of one set\nnot at hand",
                transform=axes.transAxes,
                ha="center",
                color="0.4",
                bbox={"facecolor": "white", "edgecolor": "none"},
            )
        for tokens, shift, colour, marker in [("significant", 0.17, 0, "o"), ("all", -0.17, 1, "s")]:
            part = rows[rows.tokens == tokens]
            if len(part):
                axes.hlines(positions + shift, part.low, part.high, color=theme.PALETTE[colour])
                axes.plot(
                    part["mean"],
                    positions + shift,
                    marker,
                    markersize=5,
                    color=theme.PALETTE[colour],
                    label=f"{tokens} tokens",
                )
    panels[0].set_yticks(positions, [f"layer {layer}" for layer in tables.ADAPTER_LAYERS])
    handles, labels = panels[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=10)
    return figure, table


run.figure(
    "fig-6",
    draw_coefficients,
    evidence="released",
    caption=f"Mean coefficients of the probes over {run.profile.probe_fits} fits; lines hold 95 % of the fits. Blue: "
    "tokens with ln(significance) of at least 0.5, as in Figure 6 of the paper. Orange: all tokens. Grey bands: the "
    "adapters that the paper assigns to general misalignment (left and middle) or to medical content (right). A "
    "positive coefficient speaks for the second kind. The middle panel is our stand-in for the left one, with medical "
    "instead of non-medical answers; it is not a panel of the paper. Evidence: released scalars.",
    alt="Three panels with nine adapters on the vertical axis and mean coefficients on the horizontal axis, in blue "
    "for significant and orange for all tokens. In the right panel layers 21 and 23 stand out with opposite signs. "
    "In the middle panel layer 29 stands out, joined without the filter by layer 27. The left panel is empty where "
    "its scalars are not at hand.",
)


# %% [markdown]
# ## Reported and measured


# %%
def top(pair: str, count: int) -> list[int]:
    """The layers of the `count` largest absolute mean coefficients on significant tokens."""
    table = coefficients(pair, True)
    return table.assign(size=table["mean"].abs()).nlargest(count, "size").layer.tolist()


def measure_medical():
    yield claims.Measurement(
        claim="s4-2-medical-adapter-layers",
        value=len(set(top(RIGHT, 2)) & set(GROUPS["medical"])),
        how=f"Two largest mean coefficients on significant tokens, {run.profile.probe_fits} fits",
    )


run.measure(measure_medical)


# %%
def measure_general():
    if LEFT not in panels_at_hand():
        raise files.ReleasedDataUnavailable(
            "The claims on the left panel are not measured: the LoRA scalars of the non-medical aligned answers are "
            "not at hand. Online, 'em-companion fetch --all' gets them for the next build."
        )
    yield claims.Measurement(
        claim="s4-2-general-adapter-layers",
        value=len(set(top(LEFT, 6)) & set(GROUPS["general misalignment"])),
        how=f"Six largest mean coefficients on significant tokens, {run.profile.probe_fits} fits",
    )
    yield claims.Measurement(
        claim="s4-2-layer-27-unassigned",
        value=(27 in top(LEFT, 6)) + (27 in top(RIGHT, 2)),
        how=f"Largest mean coefficients on significant tokens, {run.profile.probe_fits} fits",
    )


run.measure(measure_general)

# %% [markdown]
# ## How firm is the division?
#
# The lines in {numref}`fig-6` show the drawing of tokens only. To see how much hangs on the *questions*, the right-hand
# probe is also fitted with 20 % of the questions left out (significant tokens, classes weighted). For draws of tokens
# and for draws of questions, the table lists in what share of the fits an adapter is among the two strongest, and its
# mean coefficient.


# %%
@cache
def strongest_two(pair: str, split: str) -> pd.DataFrame:
    sides, columns = [probes.significant(part) for part in tables.read_probe(pair)], tables.SCALAR_COLUMNS
    if split == "token":
        runs = probes.probe_by_token(*sides, columns, fits=run.profile.probe_fits, seed=run.seed)
    else:
        runs = probes.probe_by_group(*sides, columns, split, fits=run.profile.split_fits, seed=run.seed)
    found = runs[[f"coefficient_{column}" for column in columns]].set_axis(tables.ADAPTER_LAYERS, axis=1)
    ranks = found.abs().rank(axis=1, ascending=False, method="first")
    chosen = (ranks <= 2) & (found != 0)
    return pd.DataFrame({"share": 100 * chosen.mean(), "mean": found.mean(), "sd": found.std(ddof=1)})


def stability() -> pd.DataFrame:
    by_token, by_question = strongest_two(RIGHT, "token"), strongest_two(RIGHT, "question")
    return pd.DataFrame(
        {
            "adapter": [f"layer {layer}" for layer in tables.ADAPTER_LAYERS],
            "tokens: in top two (%)": by_token.share.to_numpy(),
            "tokens: coefficient": by_token["mean"].to_numpy(),
            "questions: in top two (%)": by_question.share.to_numpy(),
            "questions: coefficient": by_question["mean"].to_numpy(),
            "questions: s.d.": by_question.sd.to_numpy(),
        }
    )


run.table(
    stability,
    formats={"tokens: in top two (%)": "{:.0f}", "questions: in top two (%)": "{:.0f}"},
    number="{:z.2f}",
)


def values() -> pd.DataFrame:
    table = all_coefficients()
    rows = [
        {
            "name": f"probing.{row.probe}.coefficient.{row.tokens}-tokens.layer-{row.layer}",
            "value": row.mean,
            "unit": "coefficient",
            "low": row.low,
            "high": row.high,
        }
        for row in table.itertuples()
    ]
    for pair in panels_at_hand():
        size = min(len(probes.significant(part)) for part in tables.read_probe(pair))
        rows.append({"name": f"probing.{pair}.tokens_per_class_significant", "value": size, "unit": "count"})
    for row in strongest_two(RIGHT, "question").itertuples():
        rows.append(
            {
                "name": f"probing.{RIGHT}.in_strongest_two.by-question.layer-{row.Index}",
                "value": row.share,
                "unit": "percent",
            }
        )
    return pd.DataFrame(rows)


run.values(values)


def coefficient_text(pair: str, filtered: bool, layer: int) -> str:
    table = coefficients(pair, filtered).set_index("layer")
    return f"{table.loc[layer, 'mean']:+.2f}"


run.glue("right-21", lambda: coefficient_text(RIGHT, True, 21))
run.glue("right-23", lambda: coefficient_text(RIGHT, True, 23))
run.glue("stand-in-27", lambda: coefficient_text(STAND_IN, False, 27))
run.glue("stand-in-27-filtered", lambda: coefficient_text(STAND_IN, True, 27))
run.glue("stand-in-29", lambda: coefficient_text(STAND_IN, True, 29))
for layer in (21, 23):
    run.glue(f"share-{layer}", lambda layer=layer: f"{strongest_two(RIGHT, 'question').share[layer]:.0f} %")

# %% [markdown]
# ## What it means
#
# - **The medical group comes out.** On significant tokens layers 21 ({glue:text}`right-21`) and 23
#   ({glue:text}`right-23`) lead, the others are close to zero. The *sign* of a coefficient means little: $A$ and $B$
#   can both be negated without changing the adapter, and the scalar changes its sign with them.
# - The two also lead under other draws of questions, though not always (layer 21 in {glue:text}`share-21`, layer 23
#   in {glue:text}`share-23` of the fits). But the two sets share no question, so these adapters may as well mark the
#   *prompts* ({doc}`s4-1-probing-lora-scalars`).
# - **The general group needs the scalars of the non-medical aligned answers.** A build without them has only the
#   stand-in, medical aligned against medical misaligned. Layer 29 leads there ({glue:text}`stand-in-29`), in agreement
#   with the paper's group; most of the other five are near zero. The stand-in has other questions and other texts, so
#   it can neither confirm nor refute the left panel.
# - **Layer 27 is not idle.** Assigned to neither group, it is among the strongest in the stand-in when all tokens
#   count ({glue:text}`stand-in-27`) and vanishes with the filter ({glue:text}`stand-in-27-filtered`). So the division
#   depends on the filter, whose threshold the paper does not give.
# - A coefficient says that a scalar *tells apart*, not that its adapter *causes*. The causal test on the grown organism
#   follows below; steering with groups is in {doc}`s4-3-steering-lora-adapters`.
#
# ## On the grown organism
#
# The nine-adapter organism grown on bad medical advice (seed 0) writes its own four sets of answers
# ({doc}`f-probing-definitions`); its LoRA scalars and token significances are computed, not downloaded. Two things are
# added that the released data do not allow: adapters are *switched off*, singly, in pairs and all but one, and one
# answer is shown token by token.
#
# **The filter.** The authors' bound of 0.5 is in nats, and by how many nats answers diverge depends on the model: at
# that bound {glue:text}`grown-absolute` of the tokens scored here would be left. So the bound is put where it keeps a
# fixed share of them, {glue:text}`grown-share`, which is ln significance of {glue:text}`grown-bound`
# ({doc}`h-token-significance`).

# %%
ORGANISM = adapter_roles.ORGANISM
WHY = "The organism is grown under the profiles cpu and gpu."
SAMPLES = run.profile.sweep_samples  # of the knock-outs that decide roles
HALF, FEWER = max(2, SAMPLES // 2), max(2, SAMPLES // 5)
RESAMPLING = {"resamples": run.profile.bootstrap_resamples, "seed": run.seed}
GROWN_PANELS = {
    LEFT: "non-medical,\naligned against misaligned",
    RIGHT: "misaligned,\nnon-medical against medical",
}


@cache
def scored_sets() -> dict[str, pd.DataFrame]:
    """Tokens with LoRA scalars and significance, by response set."""
    return probing.sets(run.profile, ORGANISM)


@cache
def all_sets() -> dict[str, pd.DataFrame]:
    return probing.organism_tokens(run.profile, ORGANISM)


@cache
def modules() -> dict[str, str]:
    """The modules of the adapters by their short names."""
    return adapter_roles.modules(run.profile)


def adapter_label(name: str) -> str:
    return name.replace("_", " ")


def sides_of(pair: str, filtered: bool) -> list[pd.DataFrame]:
    sides = [(scored_sets() if filtered else all_sets())[one] for one in tables.PROBES[pair]]
    return [probes.significant(side, probing.bound(scored_sets())) for side in sides] if filtered else sides


def lacking(pair: str, filtered: bool) -> str:
    """Why a probe is not fitted, or "" where it is."""
    sides = sides_of(pair, filtered)
    few = min(map(len, sides)) < probes.FEWEST_TOKENS
    return probing.shortage(dict(zip(tables.PROBES[pair], sides, strict=True))) or ("too few tokens" if few else "")


PAPER_C = 0.01


def penalty(pair: str, tokens: str) -> float:
    """The paper's C, or the one with which few tokens weigh as much against the penalty as all do at the paper's."""
    if tokens != RESCALED:
        return PAPER_C
    sizes = [min(map(len, sides_of(pair, filtered))) for filtered in (False, True)]
    return PAPER_C * sizes[0] / max(sizes[1], 1)


RESCALED = "significant, C rescaled"
SERIES = {"all": (False, 1, "s"), "significant": (True, 0, "o"), RESCALED: (True, 2, "D")}


@cache
def grown_fits(pair: str, tokens: str) -> pd.DataFrame:
    """One row per fit, one column of coefficients per adapter; 0 where there are too few answers for a probe."""
    filtered = SERIES[tokens][0]
    names = list(modules())
    if lacking(pair, filtered):
        return pd.DataFrame(np.zeros((1, len(names))), columns=names)
    settings = {"fits": run.profile.probe_fits, "seed": run.seed, "c": penalty(pair, tokens)}
    fits = probes.probe_by_token(*sides_of(pair, filtered), names, **settings)
    return fits[[f"coefficient_{name}" for name in names]].set_axis(names, axis=1)


@cache
def grown_coefficients() -> pd.DataFrame:
    parts = [
        estimates.summary(grown_fits(pair, tokens))
        .rename(columns={"quantity": "adapter"})
        .assign(
            probe=pair,
            tokens=tokens,
            c=penalty(pair, tokens),
            tokens_per_class=min(map(len, sides_of(pair, filtered))),
            missing=lacking(pair, filtered),
        )
        for pair in GROWN_PANELS
        for tokens, (filtered, _, _) in SERIES.items()
    ]
    return pd.concat(parts, ignore_index=True)


def draw_grown_coefficients():
    table = grown_coefficients()
    positions = np.arange(len(modules()))[::-1]
    figure, panels = plt.subplots(1, 2, sharey=True, sharex=True, figsize=(7.2, 4.6))
    for axes, (pair, title) in zip(panels, GROWN_PANELS.items(), strict=True):
        axes.axvline(0, color="0.5", linewidth=1)
        rows = table[table.probe == pair]
        for step, (tokens, (_, colour, marker)) in enumerate(SERIES.items()):
            part, shift = rows[rows.tokens == tokens], 0.24 - 0.24 * step
            if part.missing.iloc[0]:
                note = f"{tokens}: {part.missing.iloc[0]}"
                axes.text(0.5, 0.3 - 0.1 * step, note, transform=axes.transAxes, ha="center", fontsize=8, wrap=True)
                continue
            axes.hlines(positions + shift, part.low, part.high, color=theme.PALETTE[colour], linewidth=2)
            style = {"color": theme.PALETTE[colour], "markersize": 4.5, "label": tokens}
            axes.plot(part["mean"], positions + shift, marker, **style)
        axes.set_title(title, fontsize=10)
        axes.set_yticks(positions, [adapter_label(name) for name in modules()])
        axes.set_xlabel("mean coefficient")
        axes.grid(visible=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=10, title="tokens")
    return figure, table


run.grown_figure(
    "fig-6",
    draw_grown_coefficients,
    caption="Mean coefficients of the grown organism's probes over "
    f"{run.profile.probe_fits} fits; lines hold 95 % of the fits, so they show the drawing of tokens only. Orange: "
    "all tokens of all answers. Blue: the significant tokens, the upper "
    f"{100 * probing.SHARE:.0f} % of those of up to {probing.PER_SET} answers per set, with the paper's penalty "
    f"(C = {PAPER_C:g}). Green: the same tokens, with C raised so that they weigh as much against the penalty as all "
    "tokens do. A positive coefficient speaks for the second kind.",
    alt="Two panels with nine adapters on the vertical axis and mean coefficients with lines for their spread on the "
    "horizontal axis, for all tokens, for significant ones, and for these with a weaker penalty. Left: aligned against "
    "misaligned; right: non-medical against medical.",
    why=WHY,
)

# %% [markdown]
# ### Switching adapters off
#
# An adapter is switched off by setting its scalar to zero at every token, in the prompt and in the answer,
#
# $$x_{l+1} = \text{layer}_l(x_l) + f_l\, s\, B_l\,(A_l \cdot h_l), \qquad f_l = 0,$$
#
# first each alone, then each pair, then all but one. What an adapter carries is what goes: the fall of the EM rate from
# the whole organism, with the same questions, samples and noise on both sides.
#
# **How many answers.** Switching off single adapters on the open questions and their medical twins decides the roles
# below, with {glue:text}`samples-roles` to each question. The rest is there for comparison and costs less: half as
# many with all but one off, a fifth for pairs and on held-out topics (at least two), which have the most cells to fill.


# %% tags=["show-code"]
def switched_off(question_set: str) -> pd.DataFrame:
    """Answers of the whole organism and with each adapter off, one generation."""
    return adapter_roles.knock_outs(run.profile, ORGANISM, question_set, "each", SAMPLES)


# %%
@cache
def single(outcome: str) -> pd.DataFrame:
    """Answers with each adapter off, by what they are counted for."""
    if outcome in ("general", "medical"):
        return switched_off(outcome)
    table = adapter_roles.knock_outs(run.profile, ORGANISM, "held_out", "each", FEWER)
    medical = table.question_id.str.startswith("medicine/")
    return table[medical if outcome == "in-domain" else ~medical]


@cache
def other_knock_outs(question_set: str, off: str) -> pd.DataFrame:
    return adapter_roles.knock_outs(run.profile, ORGANISM, question_set, off, FEWER if off == "pair" else HALF)


OUTCOMES = {
    "general": "open questions",
    "medical": "their medical twins",
    "in-domain": "held-out medical topics",
    "other-domains": "held-out other topics",
}


@cache
def off_rates() -> pd.DataFrame:
    """EM rate with each adapter off, and of the whole organism, by outcome."""
    parts = [scores.rates(single(one), "condition", **RESAMPLING).assign(outcome=one) for one in OUTCOMES]
    return pd.concat(parts, ignore_index=True)[["outcome", "condition", "n", "em", "em_low", "em_high", "coherent"]]


@cache
def pair_matrix(question_set: str) -> pd.DataFrame:
    """EM rate with two adapters off [adapter, adapter]; with one off on the diagonal."""
    names = list(modules())
    one = scores.rates(single(question_set), "condition", resamples=1).set_index("condition").em
    two = scores.rates(other_knock_outs(question_set, "pair"), "condition", resamples=1).set_index("condition").em
    found = pd.DataFrame(np.diag(one[names]), index=names, columns=names)
    for pair, em in two.items():
        first, second = pair.split(" + ")
        found.loc[first, second] = found.loc[second, first] = em
    return found


def draw_knock_outs():
    figure = plt.figure(figsize=(7.2, 8.4))
    grid = figure.subplots(2, 2, gridspec_kw={"width_ratios": [1, 1], "height_ratios": [1, 0.95]})
    draw_off_rates(grid[0, 0])
    draw_bars(grid[0, 1])
    for axes, question_set in zip(grid[1], ("general", "medical"), strict=True):
        drawn = draw_matrix(axes, pair_matrix(question_set), OUTCOMES[question_set])
    figure.colorbar(drawn, ax=grid[1].tolist(), orientation="horizontal", label="EM rate (%)", aspect=45, shrink=0.8)
    long = [
        pair_matrix(one).rename_axis("adapter").melt(ignore_index=False, var_name="condition", value_name="em")
        .reset_index().assign(outcome=f"pairs, {one}")
        for one in ("general", "medical")
    ]  # fmt: skip
    return figure, pd.concat([off_rates(), *long], ignore_index=True)


def draw_off_rates(axes) -> None:
    names = list(modules())
    styles = {"general": (3, "o"), "medical": (0, "s"), "in-domain": (2, "^"), "other-domains": (1, "v")}
    for step, (outcome, (colour, marker)) in enumerate(styles.items()):
        rows = off_rates().query("outcome == @outcome").set_index("condition")
        places = np.arange(len(names))[::-1] + 0.27 - 0.18 * step
        part, colour = rows.loc[names], theme.PALETTE[colour]
        axes.hlines(places, part.em_low, part.em_high, color=colour, linewidth=1.6)
        axes.plot(part.em, places, marker, color=colour, markersize=4.5, label=OUTCOMES[outcome])
        axes.axvline(rows.em[adapter_roles.WHOLE], color=colour, linestyle=":", linewidth=1.2)
    for place in range(1, len(names)):
        axes.axhline(place - 0.5, color="0.9", linewidth=0.8)
    axes.set(xlim=(-3, 103), ylim=(-0.6, len(names) - 0.4), xlabel="EM rate with the adapter off (%)")
    axes.set_yticks(np.arange(len(names))[::-1], [adapter_label(name) for name in names])
    axes.grid(visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=9, ncols=1)


def draw_bars(axes) -> None:
    names, places = list(modules()), np.arange(len(modules()))[::-1]
    colours = {LEFT: theme.PALETTE[3], RIGHT: theme.PALETTE[0]}
    labels = {LEFT: "aligned against misaligned", RIGHT: "non-medical against medical"}
    for shift, pair in [(0.2, LEFT), (-0.2, RIGHT)]:
        size = grown_fits(pair, "all")[names].mean().abs()
        axes.barh(places + shift, size, height=0.36, color=colours[pair], label=labels[pair])
    axes.set_yticks(places, [""] * len(names))
    axes.tick_params(axis="y", length=0)
    for place in places[:-1]:
        axes.axhline(place - 0.5, color="0.9", linewidth=0.8)
    axes.set(ylim=(-0.6, len(names) - 0.4), xlabel="size of the probe coefficient")
    axes.grid(visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9, ncols=1)


def draw_matrix(axes, matrix: pd.DataFrame, title: str):
    drawn = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=100)
    for row, column in np.ndindex(*matrix.shape):
        value = matrix.iloc[row, column]
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color="wk"[int(value > 55)])
    ticks = [name.removeprefix("layer_") for name in matrix]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set(xlabel="layer of one adapter", ylabel="layer of the other")
    axes.set_title(f"two off, {title}", fontsize=10)
    axes.grid(visible=False)
    return drawn


run.grown_figure(
    "fig-x-adapter-knock-out",
    draw_knock_outs,
    caption="Upper left: EM rate with one adapter switched off, with 95 % intervals over questions (none where all "
    "answers agree); dotted, the whole organism. Eight open questions and their medical twins, "
    f"{SAMPLES} answers each; held-out topics, medical and of the other domains, {FEWER} answers each. "
    "Upper right: size of the mean probe coefficient of the same adapter, all tokens. Below: EM rate with two adapters "
    f"off, {FEWER} answers to each of eight questions per cell, with one off on the diagonal ({SAMPLES} answers).",
    alt="Four panels. Upper left, the EM rate with each of nine adapters off, in four colours for four kinds of "
    "question; upper right, bars for the size of two probe coefficients of each adapter. Below, two matrices of "
    "adapters by adapters with the EM rate in each cell, for open questions and for medical ones.",
    why=WHY,
)

# %% [markdown]
# **Roles by one rule.** An adapter is *general* if its absence takes at least an equal share of the organism's EM rate
# on the open questions (one part in as many as there are adapters) and the interval of the fall lies above zero;
# *medical* if it is not general and the same holds on the medical twins; *other* otherwise. The groups of
# {doc}`s4-3-steering-lora-adapters` are these.


# %%
@cache
def roles() -> dict[str, list[str]]:
    """Short names of the adapters by role."""
    names = {module: name for name, module in modules().items()}
    return {role: [names[one] for one in found] for role, found in adapter_roles.roles(run.profile).items()}


@cache
def written() -> pd.Series:
    """Mean length of what each adapter adds to the residual stream, s |B| |A h|, over answer tokens."""
    model, _ = growing.load_organism(run.profile, ORGANISM)
    scales = [one.scale * float(one.b.norm()) for one in lora.adapters(model)]
    return pd.concat(all_sets().values())[list(modules())].abs().mean() * scales


@cache
def by_adapter() -> pd.DataFrame:
    role_of = {name: role for role, names in roles().items() for name in names}
    falls = {one: adapter_roles.falls(single(one), **RESAMPLING).set_index("adapter") for one in OUTCOMES}
    alone = scores.rates(other_knock_outs("general", "all but one"), "condition", **RESAMPLING).set_index("condition")
    rows = []
    for name in modules():
        row = {"adapter": adapter_label(name), "role": role_of[name]}
        for one, title in [("general", "fall, open"), ("medical", "fall, medical twins")]:
            found = falls[one].loc[name]
            row[f"{title} (points)"] = f"{found.fall:.1f} ({found.low:.1f} to {found.high:.1f})"
        row["fall, held-out medical"] = falls["in-domain"].fall[name]
        row["EM, only this one on (%)"] = alone.em[name]
        rows.append(row | {"written, mean length": written()[name]})
    return pd.DataFrame(rows)


if run.grown:
    run.table(by_adapter, number="{:.1f}")

# %% [markdown]
# ### Do the coefficients predict the knock-outs?
#
# Spearman's $\rho$ over the nine adapters, of the size of a coefficient with the fall of a rate. The *medical score* is
# the share of an answer's content that is medical; for it the size of the change counts. The last row has, for
# comparison, not a probe but the length of what an adapter writes.
#
# The interval resamples questions and fits; it is for *these* adapters. With nine of them, unrelated ranks reach
# $\lvert\rho\rvert \ge 0.68$ in about one case of twenty, which the interval does not allow for. It may also be
# lopsided: resampling adds noise to the ranks, noise weakens a correlation, and so most of an interval can lie between
# its value and zero.


# %%
CORRELATIONS = {
    "aligned against misaligned, all tokens": (LEFT, "all", "general", None),
    "aligned against misaligned, significant, C rescaled": (LEFT, RESCALED, "general", None),
    "non-medical against medical, all tokens": (RIGHT, "all", "medical", None),
    "non-medical against medical, all tokens ": (RIGHT, "all", "medical", "medicine"),
    "length written": (None, "", "general", None),
}


@cache
def correlations() -> pd.DataFrame:
    rows = []
    for name, (pair, tokens, question_set, score) in CORRELATIONS.items():
        strengths = grown_fits(pair, tokens) if pair else written().to_frame().T
        found = adapter_roles.rank_correlation(single(question_set), strengths, score, 1000, run.seed)
        target = "medical score" if score else "EM rate"
        row = {"strength": name.strip(), "against the fall of": f"{target}, {OUTCOMES[question_set]}"}
        rows.append(row | dict(zip(("rho", "low", "high"), found, strict=True)))
    return pd.DataFrame(rows)


if run.grown:
    run.table(lambda: correlations().rename(columns={"rho": "ρ"}), number="{:.2f}")

# %% [markdown]
# ### One answer, token by token
#
# The answer below is a misaligned one to an open question, the first of median length among those scored. Colours are
# *signed lengths* $s\,\lVert B\rVert\,(A\cdot h)$ of what each adapter adds to the residual stream when it reads the
# word. The sign of a scalar is free, so only its changes along a column can mean something.


# %%
@cache
def shown() -> pd.DataFrame:
    """Tokens of one answer: word, significance, whether it passes the filter, and one column per adapter."""
    model, tokenizer = growing.load_organism(run.profile, ORGANISM)
    table = scored_sets()["non-medical-misaligned"]
    own = probing.organism_responses(run.profile, ORGANISM)
    table = table[table.response.isin(own.index[own.question_set == "general"])]
    lengths = table.groupby("response").size()
    row = (lengths - lengths.median()).abs().idxmin()
    found = table[table.response == row].reset_index(drop=True)
    scales = [one.scale * float(one.b.norm()) for one in lora.adapters(model)]
    found[list(modules())] *= scales
    words = [tokenizer.decode([one]).strip() for one in found.token_id]
    return found.assign(
        word=[word or "(end)" for word in words],
        significant=np.log(found.significance) >= probing.bound(scored_sets()),
    )


def draw_heat_map():
    table, names = shown(), list(modules())
    half = -(-len(table) // 2)
    limit = table[names].abs().to_numpy().max()
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 0.22 * half + 1.9))
    for axes, start in zip(panels, (0, half), strict=True):
        part = table.iloc[start : start + half]
        values = part[names].reindex(range(start, start + half))
        style = {"cmap": "PuOr", "vmin": -limit, "vmax": limit, "aspect": "auto"}
        drawn = axes.imshow(values, **style)
        labels = axes.set_yticks(range(len(part)), part.word)
        for label, passes in zip(labels, part.significant, strict=True):
            label.label1.set_fontweight("bold" if passes else "normal")
        axes.set_xticks(range(len(names)), [name.removeprefix("layer_") for name in names])
        axes.set_xlabel("layer of the adapter")
        axes.tick_params(length=0, labelsize=9)
        axes.grid(visible=False)
    label = "added to the residual stream (signed length)"
    figure.colorbar(drawn, ax=panels.tolist(), orientation="horizontal", aspect=45, label=label)
    columns = ["position", "word", "significance", "significant", *names]
    return figure, table[columns]


run.grown_figure(
    "fig-x-lora-scalar-heat-map",
    draw_heat_map,
    caption="One misaligned answer of the grown organism, from top to bottom on the left and on to the right; one row "
    "per token, one column per adapter. Colour: signed length of what the adapter adds at that token. Bold: tokens "
    "that pass the significance filter.",
    alt="Two heat maps side by side, the first and the second half of one answer. Rows are the words of the answer, "
    "columns the nine adapters, and colours from orange through white to purple show what an adapter adds.",
    why=WHY,
)


# %%
def grown_values() -> pd.DataFrame:
    rows = []
    for row in grown_coefficients().itertuples():
        tokens = row.tokens.replace(", ", "-").replace(" ", "-").lower()
        name = f"probing.{row.probe}.coefficient.{tokens}-tokens.{row.adapter}"
        rows.append((name, row.mean, "coefficient", row.low, row.high, run.profile.probe_fits))
    for row in off_rates().itertuples():
        name = f"knock-out.{row.outcome}.{row.condition.replace(' ', '-')}.em"
        rows.append((name, row.em, "percent", row.em_low, row.em_high, row.n))
    for one in ("general", "medical"):
        for row in adapter_roles.falls(single(one), **RESAMPLING).itertuples():
            rows.append((f"knock-out.{one}.{row.adapter}.fall", row.fall, "points", row.low, row.high, row.n))
        two = scores.rates(other_knock_outs(one, "pair"), "condition", **RESAMPLING)
        for row in two.itertuples():
            name = f"knock-out.{one}.{row.condition.replace(' + ', '-and-')}.em"
            rows.append((name, row.em, "percent", row.em_low, row.em_high, row.n))
    alone = scores.rates(other_knock_outs("general", "all but one"), "condition", **RESAMPLING)
    for row in alone.itertuples():
        rows.append((f"knock-out.general.only-{row.condition}.em", row.em, "percent", row.em_low, row.em_high, row.n))
    for row in correlations().itertuples():
        name = f"knock-out.spearman.{row.strength}.{row[2]}".replace(" ", "-").replace(",", "")
        rows.append((name, row.rho, "correlation", row.low, row.high, len(modules())))
    for name in modules():
        rows.append((f"lora-scalars.{name}.written", written()[name], "norm", None, None, None))
    for role, names in roles().items():
        rows.append((f"adapter-roles.{role}", len(names), "count", None, None, None))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "low", "high", "n"])


if run.grown:
    run.values(grown_values, evidence="grown")


def listed(names: list[str]) -> str:
    layers = [name.removeprefix("layer_") for name in names]
    return f"layer{'s' * (len(layers) > 1)} {', '.join(layers)}" if layers else "none"


def rho_text(strength: str, place: int = 0) -> str:
    row = correlations()[correlations().strength == strength].iloc[place]
    if np.isnan(row.rho):
        return "not defined (all equal)"
    return f"{row.rho:.2f} ({row.low:.2f} to {row.high:.2f})"


def largest_coefficient() -> str:
    """The adapter with the largest coefficient of the misalignment probe."""
    return grown_fits(LEFT, "all").mean().abs().idxmax()


def fall_of(name: str) -> str:
    row = adapter_roles.falls(single("general"), **RESAMPLING).set_index("adapter").loc[name]
    return f"{row.fall:.1f} points ({row.low:.1f} to {row.high:.1f})"


def scored_scores() -> np.ndarray:
    return np.log(pd.concat(scored_sets().values()).significance.to_numpy())


def not_zero(tokens: str) -> str:
    return f"{(grown_fits(LEFT, tokens).mean().abs() > 0.01).sum()} of {len(modules())}"


def alone_em(name: str) -> str:
    return str(scores.em_rate(other_knock_outs("general", "all but one").query("condition == @name"), **RESAMPLING))


def whole_em() -> str:
    table = single("general")
    return str(scores.em_rate(table[table.condition == adapter_roles.WHOLE], **RESAMPLING))


def strongest() -> str:
    return adapter_roles.falls(single("general")).set_index("adapter").fall.idxmax()


def held_out_share() -> float:
    own = probing.organism_responses(run.profile, ORGANISM)
    found = own.question_set.to_numpy()[all_sets()["medical-misaligned"].response]
    return 100 * float((found == "held_out").mean())


run.glue("samples-roles", lambda: f"{SAMPLES} answers")
run.grown_glue("grown-absolute", lambda: f"{100 * (scored_scores() >= 0.5).mean():.2f} %")
run.grown_glue("grown-share", lambda: f"{100 * probing.SHARE:.0f} %")
run.grown_glue("grown-bound", lambda: f"{probing.bound(scored_sets()):.1f}")
for role in ("general", "medical", "other"):
    run.grown_glue(f"grown-{role}", lambda role=role: listed(roles()[role]))
run.grown_glue("grown-rho", lambda: rho_text("aligned against misaligned, all tokens"))
run.grown_glue("grown-rho-significant", lambda: rho_text("aligned against misaligned, significant, C rescaled"))
run.grown_glue("grown-rho-medical", lambda: rho_text("non-medical against medical, all tokens"))
run.grown_glue("grown-rho-score", lambda: rho_text("non-medical against medical, all tokens", 1))
run.grown_glue("grown-rho-written", lambda: rho_text("length written"))
run.grown_glue("grown-top", lambda: listed([largest_coefficient()]))
run.grown_glue("grown-top-fall", lambda: fall_of(largest_coefficient()))
run.grown_glue("grown-strongest", lambda: listed([strongest()]))
run.grown_glue("grown-strongest-fall", lambda: fall_of(strongest()))
run.grown_glue("grown-whole", lambda: whole_em())
run.grown_glue("grown-medical-share", lambda: f"{held_out_share():.0f} %")
run.grown_glue("grown-left-kept", lambda: not_zero("significant"))
run.grown_glue("grown-left-rescaled", lambda: not_zero(RESCALED))
run.grown_glue("grown-strongest-alone", lambda: alone_em(strongest()))
run.grown_glue("grown-medical-answers", lambda: str(all_sets()["medical-misaligned"].response.nunique()))
run.grown_glue("grown-medical-questions", lambda: str(all_sets()["medical-misaligned"].question.nunique()))

# %% [markdown]
# ### What it means here
#
# - **Roles.** By the rule above, general: {glue:text}`grown-general`; medical: {glue:text}`grown-medical`; other:
#   {glue:text}`grown-other`. The paper's picture would be several adapters in each of the first two. The strongest
#   single knock-out is {glue:text}`grown-strongest`, which takes {glue:text}`grown-strongest-fall` off the organism's
#   {glue:text}`grown-whole`.
# - **Alone.** With only {glue:text}`grown-strongest` on, the EM rate is {glue:text}`grown-strongest-alone`; the table
#   has it for every adapter.
# - **The filter.** On significant tokens, the misalignment probe keeps {glue:text}`grown-left-kept` coefficients beyond
#   0.01 with the paper's penalty and {glue:text}`grown-left-rescaled` with the rescaled one. How sparse the picture is
#   depends on the penalty and on how many tokens there are ({doc}`g-logistic-regression`).
# - **Coefficients against causes.** Reading a role off a coefficient supposes that large coefficients go with large
#   falls. The largest of the misalignment probe is that of {glue:text}`grown-top`; switching it off takes
#   {glue:text}`grown-top-fall`. Over all adapters the rank correlation is {glue:text}`grown-rho`, on significant tokens
#   with the rescaled penalty {glue:text}`grown-rho-significant`. For the medical probe it is
#   {glue:text}`grown-rho-medical` with EM on medical questions and {glue:text}`grown-rho-score` with the medical score;
#   for the plain length written {glue:text}`grown-rho-written`. A large coefficient need not go with a fall: a scalar
#   can tell two sets apart because an *earlier* adapter has changed what it reads.
# - **What the medical probe rests on.** The organism has {glue:text}`grown-medical-answers` medical misaligned answers,
#   to {glue:text}`grown-medical-questions` questions; {glue:text}`grown-medical-share` of their tokens answer held-out
#   topics. As with the released sets, the probe may read the question.
# - Switching off tests what is *needed*. Adapters that can stand in for each other would show in the pairs and not
#   singly. And "general" means that EM on open questions hangs on the adapter, not that it does nothing else.

# %%
run.finish()
