# %% [markdown]
# # 3.4 Removing the direction
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` In the pilots at hand, one to three questions, at most {value}`ablation.pilot.highest` of answers
# are misaligned (EM) once the direction is removed: {verdict}`s3-4-em-rate-layerwise-ablation|released`.
# {evidence}`grown` One direction, removed everywhere, takes EM from
# {value}`grown.ablation.nine-adapter-medical.none.em_percent` to
# {value}`grown.ablation.nine-adapter-medical.single.em_percent|interval`:
# {verdict}`s3-4-em-rate-single-direction|grown`. {evidence}`hub` In SmolLM2-135M from
# {value}`smollm2-135m.ablation.nine-adapter-medical.none.em_percent` to
# {value}`smollm2-135m.ablation.nine-adapter-medical.single.em_percent`: {verdict}`s3-4-em-rate-single-direction|hub`.
# ```
#
# **The question.** If the mean-diff direction carries the misalignment, taking it out of the residual stream should
# align the organism and change nothing else. Does it, and does one organism's direction align another?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona, readings, responses, steering, text_directions
from em_companion.models.interventions import Ablate
from em_companion.models.organism import CHAT_MODEL, Organism, has, medical
from em_companion.released import tables

run = Run("s3-4-ablation", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# At the output of layer $\ell$ and at every token, the part of the residual $x$ along $\hat v = v / \lVert v \rVert$ is
# removed {cite:p}`soligo2025convergent`: $x \leftarrow x - \hat v \hat v^\top x$.
#
# **Layer-wise** ablation uses $v_\ell$ at layer $\ell$; the **single direction** is $v_{24}$ at all layers;
# **transfer** removes the nine-adapter organism's $v_{24}$ from two rank-32 organisms. The paper reports that EM falls
# from 11.25 % to 0 % layer-wise and to 1 % with the single direction, by 90 % (medical) and 78 % (sport) under
# transfer, with coherence above 99 %, and that a random direction changes it by at most 10 % either way. The answers
# behind its Figure 4 could not be obtained; the bars stand in a plotting script of one author {cite:p}`eminterp2025`.

# %%
# Percent EM. Source: em_interp/vis/random_plots.py at commit 8ae0906 of annasoligo/EM_interp; layer-wise: section 3.4.
NINE, MEDICAL, SPORT = "nine-adapter, medical", "rank 32, medical", "rank 32, sport"
BARS = dict(zip(("no ablation", "random direction", "layer-24 direction", "layer-wise"),
                (theme.PALETTE[3], theme.NULL_COLOUR, theme.PALETTE[0], theme.PALETTE[2]), strict=True))  # fmt: skip
REPORTED = pd.DataFrame(
    [(11.26, 11.75, 1.0, 0.0), (18.75, 17.0, 2.0, np.nan), (20.25, 23.75, 4.5, np.nan)],
    pd.Index([NINE, MEDICAL, SPORT], name="organism"), list(BARS),
)  # fmt: skip


def draw_reported():
    table = REPORTED.reset_index().melt("organism", var_name="ablation", value_name="em_percent").dropna()
    table[["low_if_400", "high_if_400"]] = [estimates.wilson_interval(one, 400) for one in table.em_percent]
    return plots.bars(
        table.assign(note=table.em_percent.map("{:g}".format)), "organism", "em_percent", hue="ablation",
        low="low_if_400", high="high_if_400", notes="note", colours=BARS, y_label="EM rate (%)",
    )  # fmt: skip


def said(data: pd.DataFrame, ablation: str, column: str = "value", **where: object) -> str:
    before, after = (span(data, column, ablation=one, **where) for one in ("no ablation", ablation))
    return f"EM rates of {before}; with ablation ({ablation}), {after}"


run.reported.figure(
    "fig-4",
    draw_reported,
    title=lambda data: said(data, "layer-24 direction", "em_percent"),
    caption="EM rate as the authors report it; layer-24 direction: the nine-adapter organism's, at all layers. Lines: "
    "Wilson 95 % intervals for 400 independent answers; the paper prints none.",
    alt="Bars for three organisms: no ablation and a random direction are alike, the ablations a small fraction.",
)

# %% [markdown]
# The drops in {numref}`fig-4` are far outside any sampling error. The **random control** changes the sport organism by
# +17 %, not "at most 10 %": within chance for 400 answers, but one draw per model bounds no random effect.
#
# ## The released pilots
#
# Released are pilots of April 2025: layer-wise ablation only, on **one to three questions** with 50 answers each.


# %%
MEASURES = {"em": "EM rate (%)", "coherent": "coherent (%)"}


@remembered
def pilots() -> pd.DataFrame:
    """EM and coherence in percent by batch and what was removed, on the questions that every run of it asked."""
    table = tables.read_ablation_pilots().assign(batch=lambda one: one.model + ", " + one.batch)
    asked = table.groupby(["batch", "question_id"]).source.transform("nunique")
    table = table[asked == table.groupby("batch").source.transform("nunique")]
    removed = table.direction.str.cat(table.layers, ", ").replace("none, none", "nothing")
    table = table.assign(removed=removed, em=100 * scores.is_em(table), coherent=100 * scores.is_coherent(table))
    groups = table.groupby(["batch", "removed"], sort=False)[list(MEASURES)]
    found = groups.mean().assign(n=groups.size()).reset_index()
    for one in MEASURES:
        found[[f"{one}_low", f"{one}_high"]] = list(map(estimates.wilson_interval, found[one], found.n))
    return found


def pilot(measure: str) -> Estimate:
    row = pilots().set_index(["batch", "removed"]).loc["nine-adapter, pilot", "general, all layers"]
    return Estimate(row[measure], row[f"{measure}_low"], row[f"{measure}_high"], int(row.n))


run.released.figure(
    "fig-x-ablation-pilots",
    lambda: plots.measures(
        plots.dots,
        pilots(),
        "batch",
        MEASURES,
        hue="removed",
        each={"coherent": {"x_limits": (88, 100.6)}},
        order={one: one.replace("rank-", "rank ") for one in pilots().batch.unique()},
    ),
    title=lambda data: f"EM rate by what is removed: {span(data, by='removed', measure='em')}",
    caption="Pilots of layer-wise ablation by what was removed; general questions but for the last row. Only questions "
    "asked with and without ablation count. Wilson intervals over answers are too narrow.",
    alt="EM rates between a fifth and a half without ablation, at or next to zero with it; coherence close to 100 %.",
)
run.released.values(lambda: {"ablation.pilot.highest": Estimate(pilots()[pilots().removed != "nothing"].em.max())})

# %% [markdown]
# No run with ablation is above {value}`ablation.pilot.highest`, also where directions are removed at the nine adapter
# layers alone ({numref}`fig-x-ablation-pilots`). The pilots have **no random control** for this least specific
# ablation.
#
# ## On the grown organism
#
# The organisms grown here ({doc}`s2-model-organism`) get many random draws, and the persona's own direction
# ({doc}`x-ground-truth`). The single direction's layer is, of those that leave {value}`grown.ablation.bar` % of the
# answers coherent, the one that leaves the least EM. Half of the answers choose, the other half is reported: the lowest
# of many noisy numbers is too low by chance. So all rates here are over that half, also the one without ablation, and
# differ from the organism's over all its answers in {doc}`s2-model-organism`. Answers are drawn from equal noise, so
# changes compare pairs. EM that falls because answers fall apart is no healing: where fewer than 80 % stay coherent, a
# claim is *not tested*.


# %% tags=["show-code"]
def removing(vectors: np.ndarray) -> list[Ablate]:
    return [steering.removing(vectors, run.profile.model.layers)]


def chosen(kind: str = "layer") -> int:
    """The layer by the rule above."""
    table = outcomes(FIRST, LANGUAGE)
    half = table[(table.kind == kind) & ~tested(table)]
    return int(steering.best(100 * half.groupby("number")[list(MEASURES)].mean(), COHERENT_ENOUGH, least=True).name)


# %%
CHAT, COHERENT_ENOUGH, LANGUAGE = "chat model", 90, run.own.name == "hub"
DATA = {MEDICAL: "bad_medical_advice", SPORT: "extreme_sports", "rank 32, finance": "risky_financial_advice"}
FIRST = NINE if medical(run.profile).recipe == "nine-adapter" else MEDICAL
MODELS = {FIRST: medical(run.profile), CHAT: CHAT_MODEL}
MODELS |= {name: Organism("all-adapter-rank-32", data) for name, data in DATA.items()}
MODELS = {name: one for name, one in MODELS.items() if not LANGUAGE or has(run.profile, one)}
GROWN, PAPERS = [one for one in MODELS if one != CHAT], [one for one in (NINE, MEDICAL, SPORT) if one in MODELS]
SWEEP, LAYERS = run.profile.sweep_samples, run.profile.sweep_layers
DRAWS, LAYER_WISE_DRAWS, OTHER_DRAWS = (min(most, SWEEP) if LANGUAGE else most for most in (20, 6, 4))
TEXT, CHOICE, TOLD = "known persona, from text", "known persona, before a choice", "released answers, layer-wise"
WITHIN, EACH = "layer-wise, within questions", [*MEASURES, "em_on_topic"]
BESIDE = (TOLD, "known single") if LANGUAGE else (TEXT, CHOICE)  # the single one: of released answers, too


@remembered
def directions_of(name: str) -> dict[str, np.ndarray]:
    """A model's directions [layer, width] by what their layer-wise ablation is called; the chat model has none."""
    found, of = {}, MODELS[FIRST if name == CHAT else name]
    try:
        found["layer-wise"] = readings.mean_diff(run.profile, of)
        found[WITHIN] = readings.mean_diff_within(run.profile, of)
    except EvidenceUnavailable:
        if not LANGUAGE:
            raise
    if LANGUAGE:
        return found | {TOLD: text_directions.mean_diff(run.profile)}
    known = {one: vectors.astype(float) for one, vectors in persona.directions(run.profile).items()}
    return found | {TEXT: known["persona_from_text"], CHOICE: known["choice_from_text"]}


def conditions(name: str) -> dict[str, list[Ablate]]:
    """Every ablation of a model; "random/3" is draw 3 of a random direction, "layer/3" the direction of layer 3."""
    first, whole = directions_of(FIRST), directions_of(name)
    plan = {"none": []} | {label: removing(one) for label, one in whole.items()}
    shape = DRAWS if name == FIRST else OTHER_DRAWS, *whole[BESIDE[0]].shape
    noise = np.random.default_rng(run.seed).standard_normal(shape)
    drawn = {f"random/{draw}": removing(one[0]) for draw, one in enumerate(noise)}
    single = {"single": ("layer-wise", "layer")} | ({"known single": (TOLD, "known layer")} if LANGUAGE else {})
    if name != FIRST or LANGUAGE:
        plan |= {one: removing(first[of][chosen(kind)]) for one, (of, kind) in single.items() if of in first}
    if name != FIRST:
        return plan | drawn
    drawn |= {f"random layer-wise/{draw}": removing(one) for draw, one in enumerate(noise[:LAYER_WISE_DRAWS])}
    return plan | drawn | ({} if LANGUAGE else sweep())


def sweep() -> dict[str, list[Ablate]]:
    """One layer's direction of the first organism at all layers, and that of the known persona or released answers."""
    taken, kinds = directions_of(FIRST), {"layer": "layer-wise", "known layer": BESIDE[0]}.items()
    pairs = product([(kind, taken[name]) for kind, name in kinds if name in taken], LAYERS)
    return {f"{kind}/{layer}": removing(vectors[layer]) for (kind, vectors), layer in pairs}


@remembered
def outcomes(name: str, swept: bool = False) -> pd.DataFrame:
    """Whether each answer is EM, coherent, EM on topic under each ablation; a language model's sweep is by itself."""
    samples, plan = SWEEP * (2 if name == FIRST else 1), sweep() if swept else conditions(name)
    if LANGUAGE:
        samples = SWEEP if swept or name == CHAT else SWEEP + run.profile.samples_per_question // 2
    table = responses.under(run.profile, MODELS[name], plan, samples=samples)
    kind = table.condition.str.partition("/")
    found = table.assign(em=scores.is_em(table), coherent=scores.is_coherent(table), kind=kind[0])
    on_topic = scores.is_em_on_topic(table).astype(float).where(scores.relevance(table).notna())
    found = found.assign(number=pd.to_numeric(kind[2]), em_on_topic=on_topic)
    return found[["question_id", "sample", "kind", "number", *EACH]]


def tested(table: pd.DataFrame) -> pd.Series:
    """Which answers have no part in the choice of a layer."""
    return table["sample"] >= SWEEP if LANGUAGE else table["sample"] % 2 == 1


def there(name: str, ablation: str) -> bool:
    """Whether an ablation was done; one by its own direction is not where a language model has none."""
    return not LANGUAGE or ablation in set(outcomes(name).kind)


@remembered
def answers(name: str, ablation: str) -> pd.DataFrame:
    """EM and coherence of every answer under an ablation, averaged over the draws of a random direction."""
    table, layers = outcomes(name), {"single": "layer", "known single": "known layer"}
    if name == FIRST and ablation in layers and LANGUAGE:
        table = table[tested(table)]
    elif name == FIRST and ablation in layers:
        table = table[(table.number == chosen()) & (tested(table) | (ablation != "single"))]
        ablation = layers[ablation]
    return table[table.kind == ablation].groupby(["question_id", "sample"], as_index=False)[EACH].mean()


def rate(name: str, ablation: str, measure: str = "em") -> Estimate:
    found = answers(name, ablation).dropna(subset=measure)
    return estimates.rate(found[measure], found.question_id, **run.resampling)


def change(name: str, ablation: str, before: str = "none", relative: bool = True) -> Estimate:
    """Change of the EM rate of the same answers, in percent or, not relative, in points."""
    pairs = answers(name, before).merge(answers(name, ablation), on=["question_id", "sample"])
    return estimates.change(100 * pairs.em_x, 100 * pairs.em_y, pairs.question_id, relative=relative, **run.resampling)


def draws(kind: str, name: str = FIRST) -> pd.DataFrame:
    """EM and coherence in percent of every draw or layer of a kind."""
    found = outcomes(name, LANGUAGE and kind.endswith("layer"))
    return 100 * found[found.kind == kind].groupby("number")[list(MEASURES)].mean()


KINDS = dict(zip(("none", "random", "single", "layer-wise"), BARS, strict=True))
LABELS = {"known single": "released answers, one layer", TOLD: TOLD} if LANGUAGE else {}
KINDS |= LABELS
LOOK = BARS | dict(zip(LABELS.values(), (theme.PALETTE[4], theme.PALETTE[1]), strict=False))


def both(name: str, ablation: str) -> dict[str, float]:
    return rate(name, ablation).columns("em") | rate(name, ablation, "coherent").columns("coherent")


def draw_grown():
    reported = REPORTED.reindex(index=GROWN, columns=list(KINDS.values()))
    table = pd.DataFrame(
        {"organism": name, "ablation": column, "reported_em": reported[column][name]} | both(name, kind)
        for name in GROWN for kind, column in KINDS.items() if there(name, kind)
    )  # fmt: skip
    names = {one: one.replace("layer-24", "one layer's") for one in LOOK if one in set(table.ablation)}
    single = [draws("random", name).assign(organism=name, ablation="random direction") for name in GROWN]
    return plots.measures(
        plots.bars, table, "organism", MEASURES, hue="ablation", hue_order=names, colours=LOOK, wrap=1, ratios=[2, 1],
        cloud={"one random draw": pd.concat(single, ignore_index=True)}, size=(7.2, 5.8),
        each={"em": {"reported": {"reported": "reported_em"}, "y_limits": (-3, None)}},
    )  # fmt: skip


NAMED, SEVERAL = FIRST.split(",")[0], f"{len(PAPERS)} " if LANGUAGE else "three grown "
ORGANISMS, ASKED, DEEP = "Grown organisms", f"{SWEEP} answers (nine-adapter: twice as many)", f"{2 * SWEEP} answers"
if LANGUAGE:
    ORGANISMS, ASKED = f"Organisms of {run.kind}", f"{SWEEP + run.profile.samples_per_question // 2} answers"
    DEEP = f"{ASKED} (top: {SWEEP})"
run.own.figure(
    "fig-4",
    draw_grown,
    title=lambda data: said(data, [one for one in LOOK if one in {*data.ablation}][-1], measure="em", cloud=None),
    caption=f"{ORGANISMS}. One layer's direction: the {NAMED} organism's; layer-wise: each organism's own. "
    f"{ASKED} to each of 8 questions; 95 % intervals.",
    alt="Four organisms with four bars of EM and four of coherence each; diamonds at the reported values.",
)

# %% [markdown]
# Layer-wise ablation takes the nine-adapter organism from {value}`grown.ablation.nine-adapter-medical.none.em_percent`
# EM to {value}`grown.ablation.nine-adapter-medical.layer-wise.em_percent|interval`, at
# {value}`grown.ablation.nine-adapter-medical.layer-wise.coherent_percent` coherence. The rule chooses layer
# {value}`grown.ablation.chosen_layer` of {value}`grown.ablation.layers` (from 0). Removed everywhere, its direction
# leaves {value}`grown.ablation.nine-adapter-medical.single.em_percent|interval`, a change of
# {value}`grown.ablation.nine-adapter-medical.single.em_change_percent|interval`. It changes the EM rate of the rank-32
# organisms by {value}`grown.ablation.rank-32-medical.single.em_change_percent|interval` (medical),
# {value}`grown.ablation.rank-32-sport.single.em_change_percent|interval` (sport) and
# {value}`grown.ablation.rank-32-finance.single.em_change_percent|interval` (finance). Beyond the paper they also lose
# their own directions layer by layer, which changes it by
# {value}`grown.ablation.rank-32-medical.layer-wise.em_change_percent|interval`,
# {value}`grown.ablation.rank-32-sport.layer-wise.em_change_percent|interval` and
# {value}`grown.ablation.rank-32-finance.layer-wise.em_change_percent|interval` ({numref}`fig-4-grown`).
#
# EM *and about what was asked* are {value}`grown.ablation.nine-adapter-medical.none.em_on_topic_percent|interval` of
# the nine-adapter organism's answers, and {value}`grown.ablation.nine-adapter-medical.layer-wise.em_on_topic_percent`
# after layer-wise ablation. The mean-diff *within questions* ({ref}`the equation <within-questions>`), removed layer by
# layer, leaves {value}`grown.ablation.nine-adapter-medical.layer-wise-within-questions.em_percent|interval` EM,
# {value}`grown.ablation.nine-adapter-medical.layer-wise-within-questions.em_on_topic_percent` on topic; but it *raises*
# the chat model's to {value}`grown.ablation.chat-model.layer-wise-within-questions.em_percent` and the rank-32
# organisms' by {value}`grown.ablation.rank-32-medical.layer-wise-within-questions.em_change_percent` (medical),
# {value}`grown.ablation.rank-32-sport.layer-wise-within-questions.em_change_percent` (sport) and
# {value}`grown.ablation.rank-32-finance.layer-wise-within-questions.em_change_percent` (finance).
# {doc}`x-linear-mediation` asks why.
#
# ## Against random directions and the known persona

# %%
ROWS = ("none", "random", "random layer-wise", "single", "layer-wise", WITHIN, "known single", TEXT, CHOICE)
ROWS = (*ROWS[:7], TOLD) if LANGUAGE else ROWS


def draw_against_random():
    rows = {one: LABELS.get(one, one) for one in ROWS if there(FIRST, one)}
    kinds = {"layer": "mean-diff", "known layer": "released answers" if LANGUAGE else TEXT}
    kinds = {kind: label for kind, label in kinds.items() if len(draws(kind))}
    line = "chosen layer", chosen(next(iter(kinds)))
    lines = pd.concat([draws(one).reset_index().assign(kind=one) for one in kinds])
    table = pd.DataFrame({"ablation": one} | both(FIRST, one) for one in rows)
    single = pd.concat([draws(one).assign(ablation=one) for one in ROWS[1:3]], ignore_index=True)
    grid = plt.subplots(2, 2, figsize=(7.2, 7.2), height_ratios=[1, 1.6])[1]
    for (top, bottom), (measure, label) in zip(grid.T, MEASURES.items(), strict=True):
        band = single[measure][single.ablation == "random"]
        plots.lines(lines, "number", measure, hue="kind", hue_order=kinds, markers=True, axes=top, y_label=label,
                    y_bands=[(band.min(), band.max())], x_lines=dict([line]), y_limits=(0, 104),
                    x_label="decoder layer", styles={"known layer": "--"},
                    colours={"layer": theme.PALETTE[3], "known layer": theme.PALETTE[2]})  # fmt: skip
        order = dict.fromkeys(rows, "") if top is grid[0, 1] else rows
        cloud = {"one random draw": single[["ablation", measure]]}
        drawn = plots.dots(table, "ablation", measure, order=order, cloud=cloud, axes=bottom, x_label=label)
    return drawn


run.own.figure(
    "fig-x-ablation-random",
    draw_against_random,
    title=lambda data: f"EM rate by ablation: {span(data, 'em', by='ablation', cloud=None)}",
    caption=f"The {run.kind} {NAMED} organism. Top: one layer's direction removed at all layers, on all answers; grey: "
    f"range of random draws. Bottom: by ablation. {DEEP} to each of 8 questions.",
    alt="Curves over layers with grey bands for random directions; points with intervals, one row per ablation.",
)

# %% [markdown]
# Single random directions leave {value}`grown.ablation.random.range` EM; {value}`grown.ablation.random.at-or-below` of
# the draws leave as little as the chosen direction on the same answers. Layer-wise ablation leaves less than
# {value}`grown.ablation.layer-wise.below` of its random draws ({numref}`fig-x-ablation-random`). The better persona
# direction, *{value}`grown.ablation.known.better`*, removed layer-wise leaves
# {value}`grown.ablation.known.left|interval` ({value}`grown.ablation.known.difference` points against the mean-diff).


# %%
def own_values() -> dict[str, object]:
    found: dict[str, object] = {"bar": COHERENT_ENOUGH, "layers": run.profile.model.layers}
    for name, ablation in product(MODELS, ("none", "random", "single", "layer-wise", WITHIN, *BESIDE)):
        if there(name, ablation):
            place = f"{name}.{LABELS.get(ablation, ablation)}".replace(",", "").replace(" ", "-")
            found |= {f"{place}.{measure}_percent": rate(name, ablation, measure) for measure in EACH}
            if ablation != "none" and name != CHAT:
                found[f"{place}.em_change_percent"] = change(name, ablation)
    found |= {"random.range": f"{typography.extremes(draws('random').em, '.0f')} %"}
    if there(FIRST, "single"):
        random = outcomes(FIRST)[tested(outcomes(FIRST))].query("kind == 'random'").groupby("number").em.mean()
        below = (rate(FIRST, "layer-wise").value < draws("random layer-wise").em).sum()
        found |= {"random.at-or-below": f"{(100 * random <= rate(FIRST, 'single').value).sum()} of {DRAWS}"}
        found |= {"layer-wise.below": f"{below} of {LAYER_WISE_DRAWS}", "chosen_layer": chosen()}
    return {f"grown.ablation.{name}": one for name, one in found.items()}


def grown_values() -> dict[str, object]:
    better = min((TEXT, CHOICE), key=lambda label: rate(FIRST, label).value)
    difference = str(change(FIRST, better, "layer-wise", False).in_unit("points"))
    found = {"better": better, "left": rate(FIRST, better), "difference": difference}
    return {f"grown.ablation.known.{name}": one for name, one in found.items()}


run.own.values(own_values)
run.grown.values(grown_values)

# %% [markdown]
# ## Reported and measured
#
# The pilots test the end of the layer-wise claim, not its start. The start of the sport organism is also tested on the
# independent replication {cite:p}`zroe2025replicating`.


# %%
def released_measured() -> dict[str, tuple[Estimate, str]]:
    table = tables.read_replication().query("base_model == 'Qwen2.5-14B' and dataset == 'extreme-sports'")
    seeds, how = scores.rates(table, "seed", **run.resampling).em, "Layer-wise pilot, two questions of 50 answers"
    start = Estimate(seeds.mean(), seeds.min(), seeds.max(), len(table))
    named = {"em-rate-layerwise-ablation": (pilot("em"), how), "coherence-layerwise-ablation": (pilot("coherent"), how)}
    named |= {"em-rate-sport-start": (start, f"Independent replication, interval: range of {len(seeds)} seeds")}
    return {f"s3-4-{name}": one for name, one in named.items()}


def largest_random() -> tuple[Estimate, str]:
    """The largest change by a random direction over the paper's three models, without its sign."""
    name = max(PAPERS, key=lambda one: abs(np.nan_to_num(change(one, "random").value)))
    found, drawn = change(name, "random"), len(draws("random", name))
    low, high = sorted(map(abs, found.ends))
    found = Estimate(abs(found.value), 0.0 if found.low < 0 < found.high else low, high, found.n * drawn)
    return found, f"Largest of {SEVERAL}organisms: {name}, EM rate averaged over {drawn} draws"


def unless_broken(name: str, ablation: str) -> dict[str, str]:
    share = rate(name, ablation, "coherent").value
    return {"void": f"{share:.0f} % coherent: broken, not healed"} if share < steering.COHERENT_ENOUGH else {}


def own_measured() -> dict[str, tuple[Estimate, str]]:
    """The claims, by the organism's own direction or, where it has none, by that of released answers."""
    kind, own = "" if LANGUAGE else "Grown ", there(FIRST, "layer-wise")
    whole, one, v = ("layer-wise", "single", "v") if own else (TOLD, "known single", "released answers' v")
    nine, by = f"{kind}{NAMED} organism", "" if own else f", {v}"
    single = f"{v} of layer {chosen('layer' if own else 'known layer')}, chosen on "
    single += "other answers" if LANGUAGE else "half the answers, tested on the rest"
    coherent = min((rate(name, one, "coherent") for name in PAPERS), key=lambda found: found.value)
    named = {
        "em-rate-layerwise-ablation": (rate(FIRST, whole), nine + by, unless_broken(FIRST, whole)),
        "coherence-layerwise-ablation": (rate(FIRST, whole, "coherent"), nine + by),
        "em-rate-single-direction": (rate(FIRST, one), f"{nine}, {single}", unless_broken(FIRST, one)),
        "random-vector": largest_random(),
        "coherence-single-direction": (coherent, f"Lowest of {SEVERAL}organisms, {single}"),
    }
    for short, name in {"medical": MEDICAL, "sport": SPORT}.items():
        if name in PAPERS:
            how = f"{kind}{name} organism, {single}"
            named[f"transfer-all-adapter-{short}"] = (change(name, one), how, unless_broken(name, one))
    if SPORT in PAPERS:
        sport = scores.em_rate(responses.responses(run.profile, MODELS[SPORT]), **run.resampling)
        named["em-rate-sport-start"] = (sport, f"{kind}rank-32 sport organism")
    return {f"s3-4-{name}": found for name, found in named.items()}


run.released.measure(released_measured)
run.own.measure(own_measured)

# %% [markdown]
# ## What it means
#
# A language model's column removes the direction of *released* answers, too. A few random draws bound it but loosely.
#
# On the few questions of the pilots misalignment vanishes without loss of coherence, but how much of that is owed to
# *this* direction they cannot say. Since $v_{24}$ is nearly the chat model's own ({doc}`Section 3.1
# <s3-1-misalignment-directions>`), ablation may also stop such texts whatever their cause. The grown organism's random
# draws are that control. One study, too, finds that ablating an evil or valence direction *raises* misalignment
# {cite:p}`aneja2026intrinsic`; see {doc}`../related-work`. What the difference leaves out can be removed, too:
# {doc}`../exercises`.

# %%
run.finish()
