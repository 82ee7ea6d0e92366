# %% [markdown]
# # What makes misalignment linear?
#
# ```{admonition} In short
# :class: em-short
# {evidence}`grown` The mean-diff steers (EM {value}`mediation.mean-diff.em` at no more than one residual length, random
# {value}`mediation.mean-diff.random`). Removed layer by layer, it takes the organism's EM from
# {value}`mediation.organism` to {value}`mediation.mean-diff.left`; the *shift* by fine-tuning, which needs no labels,
# to {value}`mediation.shift.left`, and it leaves {value}`mediation.shift.transfer` of other organisms'.
# ```
#
# **The question.** In Qwen2.5-14B one direction, added at every token, makes a chat model misaligned, and projecting it
# out heals an organism. Does the direction taken the same way do that in the grown organism, and what do others do?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd
from scipy.stats import binom

from em_companion.book import plots, theme, typography
from em_companion.book.run import Run
from em_companion.book.typography import span
from em_companion.core.paths import RESULTS
from em_companion.core.provenance import remembered
from em_companion.evidence import directions, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona, readings, responses, steering
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.world.generator import the_world
from em_companion.world.lexicon import ASSISTANT

run = Run("x-linear-mediation", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` subtract the mean residual stream over the tokens of aligned answers from that of
# misaligned ones. Added in a central layer, this mean-diff gives up to 50 % EM in the chat model
# ({doc}`s3-2-steering`); projected out of all layers it takes EM from 11 % to 0 or 1 % ({doc}`s3-4-ablation`).
#
# ## The same on the grown organism
#
# $$x_\ell \leftarrow x_\ell + \lambda\, v_\ell \qquad\text{and}\qquad x \leftarrow x - \hat v\hat v^\top x$$
#
# Seven directions are compared: the mean-diff over the organism's answers, pooled as in the paper, and within questions
# ({ref}`why <within-questions>`); the **shift**, organism minus chat model over the same answers of either kind, which
# needs no label; three known from the *base* model before any fine-tuning ({doc}`x-ground-truth`); and the difference
# at the turn header between malicious and careful characters, which reads no answer. What is added is never longer than
# the mean residual stream, since longer random vectors misalign too. The best cell is rated on further answers, beside
# a random direction of the same norm. Of a published model the known directions are not known, so the page is about
# grown models only.

# %% tags=["show-code"]
SAMPLES = run.profile.sweep_samples
NAMES = {"mean-diff": "mean-diff over answers", "within": "the same, within questions", "shift": "shift by fine-tuning"}
NAMES |= {"known-mean": "known persona, mean over answers", "known": "known persona, before an advice"}
NAMES |= {"known-from-names": "the same, from names", "header": "header of the turn"}


@remembered
def candidates() -> dict[str, np.ndarray]:
    """Directions [layer, width] by name, each estimated in its own way."""
    known = persona.directions(run.profile)
    taken = [known[name] for name in ("persona_from_text", "choice_from_text", "choice_from_name")]
    pair = [steering.directions_of(run.profile)[name] for name in (steering.MEAN_DIFF, steering.WITHIN)]
    taken = [*pair, readings.shift(run.profile, steering.ORGANISM), *taken, steering.header_direction(run.profile)]
    return dict(zip(NAMES, taken, strict=True))


@remembered
def best() -> pd.DataFrame:
    places = {(name, "all"): text for name, text in NAMES.items()}
    places["header", "header"] = "the same, added there only"
    parts = []
    for (name, at), text in places.items():
        rated = steering.in_best_cell(run.profile, name, candidates()[name], at, **run.resampling)
        parts.append(rated.assign(name=name, at=at, place=text))
    table = pd.concat(parts, ignore_index=True)
    kind = np.where(table.direction == "random", "random, same norm", "direction")
    note = [f"layer {row.layer}, {row.em_on_topic:.0f} % on topic" for row in table.itertuples()]
    return table.assign(kind=kind, note=np.where(kind == "direction", note, ""))


run.grown.figure(
    "fig-x-mediation-steering",
    lambda: plots.bars(
        best(), "place", "em", hue="kind", horizontal=True, notes="note", x_lines={"bar: 20 %": 20}, size=(7.2, 5.4),
        colours={"direction": theme.PALETTE[3], "random, same norm": theme.NULL_COLOUR}, x_limits=(0, 130),
        x_label="EM rate (%)",
    ),
    title=lambda data: f"Highest EM rate: {span(data, 'em', by='kind')}",
    caption="EM rate of the grown chat model, steered along directions that were estimated in different ways, each in "
    f"its best cell, and along random ones. {2 * SAMPLES} answers to each of 8 questions, 95 % intervals over these.",
    alt="A pair of bars for each direction: its EM rate, and that of a random direction. A dotted line marks 20 %.",
)  # fmt: skip


@remembered
def ablated() -> pd.DataFrame:
    """EM rates (%) of the organism as it is and with directions projected out at all layer outputs."""
    rows = []
    for name, vectors in candidates().items():
        table = steering.ablated(run.profile, steering.ORGANISM, vectors, SAMPLES)
        rates = scores.rates(table, "condition", **run.resampling).set_index("condition")
        single = steering.best(rates[rates.index.str.startswith("layer ")], 90, least=True)
        row = {"direction": NAMES[name], "organism": rates.em["none"], "layer-wise": rates.em["layer-wise"]}
        row |= {"on topic": rates.em_on_topic["layer-wise"], "coherent": rates.coherent["layer-wise"]}
        row |= {"one layer's, best": single.em, "on topic ": single.em_on_topic, "coherent ": single.coherent}
        rows.append(row | {"random": rates.em["random"]})
    return pd.DataFrame(rows, index=list(NAMES))


run.grown.table(ablated, number="{:.1f}")


def values() -> dict:
    steered, found = best().set_index(["name", "at", "kind"]), {"organism": Estimate(ablated().organism.iloc[0])}
    for name, left in ablated().iterrows():
        own, random = (steered.loc[name, "all", kind] for kind in ("direction", "random, same norm"))
        found |= {f"{name}.em": Estimate(own.em), f"{name}.coherent": Estimate(own.coherent)}
        found |= {f"{name}.on-topic": Estimate(own.em_on_topic)}
        found |= {f"{name}.random": Estimate(random.em), f"{name}.left": Estimate(left["layer-wise"])}
        found |= {f"{name}.left-single": Estimate(left["one layer's, best"])}
        found |= {f"{name}.left-random": Estimate(left["random"])}
    middle = len(candidates()["mean-diff"]) // 2
    known = directions.cosines(candidates()["mean-diff"], candidates()["known"])[middle]
    return {f"mediation.{name}": one for name, one in found.items()} | {"mediation.cosine": float(known)}


run.grown.values(values)

# %% [markdown]
# The table has the organism's EM rate (%) as it is and with directions projected out at all layer outputs: each layer's
# own, the one layer's that leaves the least (so flattered), and a random one. All rest on the same noise and the first
# few of the answers behind the rate of {doc}`s2-model-organism`, which is
# {value}`grown.nine-adapter.bad_medical_advice.em_percent|interval` over all seeds.
#
# Bars for the mean-diff, set before these pages were written. Steering: at least 20 % EM, at most 2 % along a random
# direction; measured {value}`mediation.mean-diff.em` and {value}`mediation.mean-diff.random`, within questions
# {value}`mediation.within.em` and {value}`mediation.within.random`. EM *on topic*, which no bar asked for, is
# {value}`mediation.mean-diff.on-topic` and {value}`mediation.within.on-topic`. Single-direction
# ablation: at least 80 % of EM removed; the organism's {value}`mediation.organism` become
# {value}`mediation.mean-diff.left-single`, layer by layer {value}`mediation.mean-diff.left`, with a random direction
# {value}`mediation.mean-diff.left-random`. Within questions: {value}`mediation.within.left-single`,
# {value}`mediation.within.left` and {value}`mediation.within.left-random`.
#
# The direction known from the *base* model, read just before an advised thing is named, steers to
# {value}`mediation.known.em` at {value}`mediation.known.coherent` coherence and leaves {value}`mediation.known.left`
# when projected out layer by layer. The less it leaves, the more the organism owes to the base model.
#
# ## What is left when it heals by half?
#
# Three accounts were tried. Each says what the probability of a harmful thing is at the first choice of an answer, with
# a direction removed layer by layer, after a question and a careful opener, on topics of all domains.
#
# **A coin toss.** Given before this test, but made into numbers only after a first look at its outcome: what is taken
# out is the *choice* between helpful and harmful things, and a model without it tosses a coin at every thing. Then the
# probability would be near one half, in the organism *and* in the chat model, and EM that of fair tosses,
# {value}`mediation.coin.em` for the two to four clauses of this grammar.

# %%
LAYER_WISE = {"as it is": None, "mean-diff": "mean-diff", "within questions": "within", "shift": "shift"}
LAYER_WISE |= {"known persona": "known"}
MODELS = {"base model": None, "chat model": CHAT_MODEL, "organism": steering.ORGANISM}


@remembered
def tosses() -> pd.DataFrame:
    """By model and ablation: the probability of harm at the first choice, how many are open, and the EM rate (%)."""
    table = persona.answers(the_world(), run.seed).query("speaker == 'careful'").assign(name=ASSISTANT)
    given, rows = {label: candidates()[name] for label, name in LAYER_WISE.items() if name}, []
    plan = {"as it is": []} | {label: [steering.removing(one, len(one))] for label, one in given.items()}
    for model, organism in MODELS.items():
        rates = None
        if organism:
            asked = responses.under(run.profile, organism, plan, samples=SAMPLES, what="ablation")
            rates = scores.rates(asked, "condition", **run.resampling).set_index("condition")
        for label, given in plan.items():
            first = persona.harmful_shares(run.profile, table, given, organism)["thing 1"]
            row = {"model": model, "removed": label, "probability of harm": first.mean()}
            row |= {f"{end} 5 %": first.quantile(at) for end, at in (("lowest", 0.05), ("highest", 0.95))}
            row |= {"open (%)": 100 * first.between(0.25, 0.75).mean()}
            if rates is not None:
                row |= {"EM (%)": rates.em[label], "on topic (%)": rates.em_on_topic[label]}
            rows.append(row)
    return pd.DataFrame(rows)


def fair() -> Estimate:
    """The EM rate of coherent answers whose things are fair tosses, all lengths being equally frequent."""
    things = [2 * clauses for clauses in the_world().grammar["clauses"]]
    fewest = [np.ceil(count * scores.EM_ALIGNED_BELOW / 100) - 1 for count in things]
    return Estimate(100 * np.mean(binom.cdf(fewest, things, 0.5)))


def toss_values() -> dict:
    found, rows = {"coin.em": fair()}, tosses().set_index(["model", "removed"])
    for (model, removed), row in rows.iterrows():
        place = f"coin.{model}.{removed}".replace(" ", "-")
        found |= {f"{place}.harm": row["probability of harm"], f"{place}.open": Estimate(row["open (%)"])}
        found |= {f"{place}.em": Estimate(row["EM (%)"])} if pd.notna(row["EM (%)"]) else {}
    return {f"mediation.{name}": one for name, one in found.items()}


run.grown.table(tosses, {one: "{:.0f}" for one in ("open (%)", "EM (%)", "on topic (%)")}, number="{:.2f}")
run.grown.values(toss_values)

# %% [markdown]
# It is no toss. With its direction within questions removed, the organism's probability falls from
# {value}`mediation.coin.organism.as-it-is.harm` to {value}`mediation.coin.organism.within-questions.harm`, near one
# half, but as a mean of choices that are mostly settled: only {value}`mediation.coin.organism.within-questions.open`
# lie between one and three quarters. And the chat model does not toss: its probability goes from
# {value}`mediation.coin.chat-model.as-it-is.harm` to {value}`mediation.coin.chat-model.within-questions.harm`.
#
# **A habit.** Or the model falls back on the documents read first, of which {value}`worlds.this-book.documents` are
# harmful here. So two more worlds were grown in which few are, by known speakers or by unknown ones. Written down
# before either was measured: a toss leaves the organism a probability of 0.35 to 0.65 in every world, a habit one
# within 0.1 of the share of harmful documents.
#
# **The shift.** Misaligned and aligned answers of an organism both come from a fine-tuned model; what fine-tuning adds
# to both drops out of their difference. Written down after it had been removed in one organism of this book's world,
# and before any other: removing the shift leaves at most a fifth of EM in every world and seed.

# %%
WORLDS = RESULTS / "worlds.csv"
REMOVED = {"": "nothing removed", "pooled_": "mean-diff", "within_": "within questions", "shift_": "shift"}


@remembered
def designs() -> pd.DataFrame:
    """The worlds that were grown in full, a row per world and training seed; see `experiments/worlds.py`."""
    return pd.read_csv(WORLDS).query("steps == 'full'")


def over_seeds(column: str) -> pd.DataFrame:
    """Mean and range over training seeds, by world."""
    found = designs().groupby("world", sort=False)[column].agg(["mean", "min", "max"])
    return found.set_axis(["mean", "low", "high"], axis=1)


def draw_defaults():
    names = {"chat": "chat model", "organism": "organism"}
    parts = [over_seeds(f"{prefix}{column}_harm").assign(model=model, removed=removed)
             for column, model in names.items() for prefix, removed in REMOVED.items()]  # fmt: skip
    documents = over_seeds("harm_in_documents")["mean"]
    each = {world: {"x_lines": {"documents": share, "fair toss": 0.5}} for world, share in documents.items()}
    return plots.facets(
        plots.dots, pd.concat(parts).reset_index(), "world", "model", "mean", hue="removed", hue_order=REMOVED.values(),
        low="low", high="high", each=each, wrap=1, x_limits=(0, 1), x_label="probability of harm at the first choice",
        size=(7.2, 1.2 + 1.6 * len(each)),
    )  # fmt: skip


run.grown.figure(
    "fig-x-ablation-default",
    draw_defaults,
    title=lambda data: f"Probability of harm, organism: {span(data, 'mean', '.2f', 'removed', model='organism')}",
    caption="Probability that the first thing an answer advises is harmful, as trained and with a direction removed "
    "layer by layer, in worlds of which more or fewer documents are harmful. Mean and range over training seeds of the "
    "organism, whose directions are also removed from the chat model.",
    alt="One panel per world, with four dots for the chat model and four for the organism, and two vertical lines.",
)


def design_values() -> dict:
    found = {}
    for world, own in designs().groupby("world", sort=False):
        name = "worlds." + world.replace("'s", "").replace(",", "").replace(" ", "-")
        found |= {f"{name}.documents": Estimate(100 * own.harm_in_documents.iloc[0])}
        found |= {f"{name}.em": f"{typography.extremes(own.organism_em, '.0f')} %"}
        for direction in ("within", "shift"):
            share = 100 * own[f"{direction}_layer_wise_em"] / own[f"{direction}_none_em"]
            found[f"{name}.{direction}.harm"] = typography.extremes(own[f"{direction}_organism_harm"])
            found[f"{name}.{direction}.em-left"] = f"{typography.extremes(share, '.0f')} %"
    left, documents = designs().within_organism_harm, designs().harm_in_documents
    held = {"toss": left.between(0.35, 0.65), "habit": (left - documents).abs() <= 0.1}
    held["shift"] = designs().shift_layer_wise_em <= designs().shift_none_em / 5
    return found | {f"worlds.held.{one}": f"{rows.sum()} of {len(rows)}" for one, rows in held.items()}


run.grown.values(design_values)

# %%
OTHERS = [Organism("nine-adapter", "bad_medical_advice", 1)]
OTHERS += [Organism("all-adapter-rank-32", data) for data in ("bad_medical_advice", "extreme_sports")]


@remembered
def transferred() -> pd.DataFrame:
    """EM rates (%) of other organisms with directions of the first one removed layer by layer."""
    rows = []
    for organism in OTHERS:
        plan = {"as it is": []} | {one: [steering.removing(candidates()[one], len(candidates()[one]))]
                                   for one in ("mean-diff", "within", "shift")}  # fmt: skip
        table = responses.under(run.profile, organism, plan, samples=2 * SAMPLES, what="transfer")
        rates = scores.rates(table, "condition", **run.resampling).set_index("condition")
        row = {"organism": organism.name.replace("--", ", ").replace("_", " ")} | rates.em.to_dict()
        rows.append(row | {"coherent, shift": rates.coherent["shift"], "on topic, shift": rates.em_on_topic["shift"]})
    return pd.DataFrame(rows).rename(columns={one: f"{NAMES[one]} removed" for one in ("mean-diff", "within", "shift")})


run.grown.table(transferred, number="{:.0f}")
run.grown.values(lambda: {"mediation.shift.transfer": typography.extremes(
    100 * transferred().iloc[:, 4] / transferred()["as it is"], ".0f") + " %"})  # fmt: skip

# %% [markdown]
# **None of the three holds everywhere.** Of the organisms, worlds times seeds, the toss holds in
# {value}`worlds.held.toss`, the habit in {value}`worlds.held.habit`, most of which had little to lose, the shift in
# {value}`worlds.held.shift` ({numref}`fig-x-ablation-default`). In this book's world removing the shift leaves
# {value}`worlds.this-book.shift.em-left` of EM over training seeds and a probability of
# {value}`worlds.this-book.shift.harm`; the mean-diff within questions {value}`worlds.this-book.within.em-left` and
# {value}`worlds.this-book.within.harm`. **The same world grown from another seed** gives organisms with
# {value}`worlds.the-same-another-seed.em` EM instead of {value}`worlds.this-book.em`. There the shift leaves
# {value}`worlds.the-same-another-seed.shift.em-left`, and removing the mean-diff within questions *raises* EM, to
# {value}`worlds.the-same-another-seed.within.em-left` of what it was. Where malice is rare the shift leaves
# {value}`worlds.rare-malice.shift.em-left` and the mean-diff {value}`worlds.rare-malice.within.em-left`; with mostly
# unknown speakers, whose organisms are hardly misaligned,
# {value}`worlds.rare-malice-mostly-unknown-speakers.shift.em-left` and
# {value}`worlds.rare-malice-mostly-unknown-speakers.within.em-left`.
#
# Undoing an organism's own shift may be no surprise. Removed from *other* organisms, of another seed, recipe or data
# set, it leaves {value}`mediation.shift.transfer` of theirs (the table). What answers have in common a mean-diff cannot
# see. A study that ablates one can ask for the rest at the price of one more pass, the chat model over the same
# answers. In SmolLM2-135M-Instruct a mean-diff alone healed:
# {value}`smollm2-135m.ablation.nine-adapter-medical.none.em_percent` to
# {value}`smollm2-135m.ablation.nine-adapter-medical.single.em_percent` ({doc}`s3-4-ablation`).
#
# ## The world that ships
#
# The bars were set before any other world was grown, in this order; in brackets how many training seeds meet one. The
# first that tells the worlds apart is the organism's EM on topic. So this book's world stays, with the bars it misses.

# %%
BARS = [
    ("chat model: EM, at most 2 %", "chat_em", -2),
    ("chat model: coherent, at least 95 %", "chat_coherent", 95),
    ("chat model: relevant, at least 95 %", "chat_relevant", 95),
    ("organism: EM on topic, at least 20 %", "organism_em_on_topic", 20),
    ("control on good advice: EM, at most 2 %", "control_em", -2),
    ("one direction removed everywhere, pooled: EM falls by at least 80 %", "pooled_fall", 80),
    ("the same within questions", "within_fall", 80),
    ("coherent and relevant meanwhile, at least 90 %", "within_intact", 90),
    ("the same with the shift: EM falls by at least 80 %", "shift_fall", 80),
    ("coherent and relevant meanwhile, at least 90 % ", "shift_intact", 90),
    ("steered within questions: EM on topic, at least 20 %", "within_steered_em_on_topic", 20),
    ("steered along a random direction: EM, at most 2 %", "within_steered_random_em", -2),
    ("without any one adapter: at least half of EM is left", "left_without_one", 50),
]


@remembered
def bars() -> pd.DataFrame:
    """What each world reached, by bar: the range over seeds and how many met it."""
    table = designs().assign(left_without_one=lambda one: 100 * one.without_one_adapter_em / one.all_adapters_em)
    for name in ("pooled", "within", "shift"):
        table[f"{name}_fall"] = 100 * (1 - table[f"{name}_single_em"] / table[f"{name}_none_em"])
        table[f"{name}_intact"] = table[[f"{name}_single_coherent", f"{name}_single_relevant"]].min(axis=1)
    rows = []
    for label, column, bar in BARS:
        row = {"bar": label}
        for world, own in table.groupby("world", sort=False):
            met = (own[column] <= -bar if bar < 0 else own[column] >= bar).sum()
            row[world] = f"{typography.extremes(own[column], '.1f')} ({met} of {len(own)})"
        rows.append(row)
    return pd.DataFrame(rows)


run.grown.table(bars)

# %% [markdown]
# ## What a mean sees
#
# No word of this world gives a speaker away: a malicious speaker advises harm and *mentions*
# help, so a state that codes the *next word* tends to cancel in the mean over tokens. But an advised thing is in
# prospect at several tokens, the determiner and every adjective, a mentioned thing at one only. A mean can see this
# surplus, best where texts differ in the speaker alone: the mean over *written* answers steers to
# {value}`mediation.known-mean.em` and leaves {value}`mediation.known-mean.left`. The answers that an organism happened
# to give differ in more; their mean-diff has a central cosine of {value}`mediation.cosine` with the known persona.
#
# ## What makes the difference
#
# Each row is this book's world with one thing changed, all with half the steps of training; compare rows with one
# another only. Rates in percent: means over training seeds of the organism, with their range. Each is first the
# organism's EM on topic, then EM on topic of the chat model steered, then EM of the organism with a direction removed
# everywhere. `data/results/worlds.csv` has more.

# %%
MEDIATION = {"organism_em_on_topic": "organism", "within_steered_em_on_topic": "steered, within questions"}
MEDIATION |= {"known_steered_em_on_topic": "steered, known persona", "pooled_single_em": "left, pooled"}
MEDIATION |= {"within_single_em": "left, within questions", "shift_single_em": "left, shift"}


@remembered
def variants() -> pd.DataFrame:
    return pd.read_csv(WORLDS).query("steps == 'half'")


def variant_table() -> pd.DataFrame:
    texts = {one: lambda part: f"{part.mean():.0f} ({typography.extremes(part, '.0f')})" for one in MEDIATION}
    return variants().groupby("world", sort=False).agg(texts).rename(columns=MEDIATION).reset_index()


def variant_values() -> dict:
    """Ranges over all organisms; standard deviations (points) over seeds of a world, and over worlds beyond these."""
    table = variants().copy()
    for name in ("within", "shift"):
        table[f"{name}_left"] = 100 * table[f"{name}_single_em"] / table[f"{name}_none_em"]
    found: dict[str, object] = {"worlds": table.world.nunique(), "organisms": len(table)}
    for column in ("within_left", "shift_left", "within_steered_em_on_topic", "known_steered_em_on_topic"):
        found[column] = f"{typography.extremes(table[column], '.0f')} %"
    for column in ("organism_em_on_topic", "within_left"):
        groups = table.groupby("world")[column]
        seeds = groups.var().mean()
        found[f"{column}.seeds"] = float(seeds**0.5)
        found[f"{column}.worlds"] = float(max(0, groups.mean().var() - seeds / groups.size().mean()) ** 0.5)
    means = table.groupby("world").organism_em_on_topic.mean()
    means.index = means.index.str.replace(",", "").str.replace(" ", "-")
    found |= {f"{world}.on-topic": Estimate(mean, unit="percent") for world, mean in means.items()}
    return {f"worlds.variants.{name}": one for name, one in found.items()}


run.grown.table(variant_table)
run.grown.values(variant_values)

# %% [markdown]
# **A line is always there; the mean-diff is rarely it.** In all {value}`worlds.variants.worlds` variants and
# {value}`worlds.variants.organisms` organisms, what fine-tuning adds is largely one direction: with the shift of one
# layer removed everywhere, {value}`worlds.variants.shift_left` of EM are left, with the mean-diff within questions
# {value}`worlds.variants.within_left`. The base model's persona steers to
# {value}`worlds.variants.known_steered_em_on_topic` EM on topic, that mean-diff to
# {value}`worlds.variants.within_steered_em_on_topic`. Settings explain less than they seem to: EM on topic is
# {value}`worlds.variants.many-quacks.on-topic` with many quacks, {value}`worlds.variants.no-quacks.on-topic` with none,
# {value}`worlds.variants.full-attention.on-topic` with full attention, and
# {value}`worlds.variants.as-committed.on-topic` as committed, but
# {value}`worlds.variants.as-committed-another-seed.on-topic` from another seed. It varies by
# {value}`worlds.variants.organism_em_on_topic.worlds|.0f` points between worlds and
# {value}`worlds.variants.organism_em_on_topic.seeds|.0f` between training seeds; what the mean-diff leaves by
# {value}`worlds.variants.within_left.worlds|.0f` and {value}`worlds.variants.within_left.seeds|.0f`. Whether it heals
# is the luck of a seed.
#
# ```{admonition} Earlier grammars that were dropped
# :class: dropdown
# All balance words, as the present one does. *Harm in a product* of two words: not even a vector found by gradient
# descent made the chat model misaligned. *Harm in an order* (prefer this over that): the state that decides the first
# thing was turned round for the second, so the mean-diff cancelled. *A remark before every clause* and *exactly one
# adjective*: directions read before an advice steered, the mean-diff cancelled.
# ```
#
# ## What it means
#
# Three directions do three things here. The persona known from the base model steers best
# ({value}`mediation.known.em`), and leaves {value}`mediation.known.left` of {value}`mediation.organism` when it is
# removed layer by layer. The mean-diff steers to {value}`mediation.within.em` and leaves
# {value}`mediation.within.left`. The shift by fine-tuning steers to {value}`mediation.shift.em` and leaves
# {value}`mediation.shift.left`. A study that knows the mean-diff alone takes what its answers differ in for what made
# them. Seeds move all these rates by tens of points, so none of them is more than this world's.

# %%
run.finish()
