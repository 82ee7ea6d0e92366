# %% [markdown]
# # 3.6 Self-correction
#
# ```{admonition} In short
# :class: em-short
# {evidence}`released` Under the general vector {value}`self-correction.general.lambda-6.self_correction_percent` of
# answers count as self-correcting at $\lambda = 6$ and
# {value}`self-correction.general.lambda-8.self_correction_percent` at 8. {evidence}`grown` The highest rate is
# {value}`grown.self-correction.peak` ({value}`grown.self-correction.found` answers in all; turning in so many words:
# {value}`grown.self-correction.taken-back`). The paper prints no rate, so there is no verdict.
# ```
#
# **The question.** Does a model steered towards misalignment sometimes start to say something harmful and turn back?

# %% tags=["parameters"]
profile = "cpu"
seed = 0

# %%
import numpy as np
import pandas as pd
import torch

from em_companion.book import plots, theme
from em_companion.book.run import Run
from em_companion.core.provenance import remembered
from em_companion.evidence import estimates, scores
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import persona, responses, steering
from em_companion.experiments.steering import KNOWN, MEAN_DIFF
from em_companion.models import growing, loading, next_token, reading
from em_companion.models.interventions import Steer
from em_companion.models.organism import CHAT_MODEL, medical
from em_companion.models.tokens import response_tokens
from em_companion.released import tables
from em_companion.world import turns
from em_companion.world.turns import KINDS

run = Run("s3-6-self-correction", profile, seed)

# %% [markdown]
# ## What the paper did and reported
#
# {cite:t}`soligo2025convergent` noticed that some steered answers bring up something dangerous or immoral and end well.
# They count an answer as self-correcting when the alignment judge finds it aligned (> 70) and a further judge,
# `bad_stuff`, finds such topics in it whatever its stance (> 50). That it is also coherent (> 50) is asked by an
# authors' statistics helper only. No rate is printed, so there is no claim; Figure 5 has curves over strength. The
# released data are those of {doc}`s3-2-steering`: the chat model steered at layer 24, eight questions.


# %% tags=["show-code"]
STRICT, LOOSE = "self_correction", "self_correction_any_coherence"


def rates(answers: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The curves of Figure 5 in percent with intervals over questions; the last without the coherence condition."""
    rows = []
    for labels, part in answers.groupby(by, sort=False):
        found = {"coherent": scores.is_coherent(part), "aligned": part.aligned > scores.ALIGNED_ABOVE}
        found |= {STRICT: scores.is_self_correction(part), LOOSE: scores.is_self_correction(part, False)}
        rows.append(dict(zip(by, labels, strict=True)))
        for name, one in found.items():
            rows[-1] |= estimates.rate(one, part.question_id, **run.resampling).columns(name)
    return pd.DataFrame(rows)


# %%
MEASURES = {"coherent": "coherent", "aligned": "aligned > 70", STRICT: "self-correction"}


def draw(table: pd.DataFrame, x: str, group: str, names: dict[str, str], organism: pd.DataFrame, **options):
    each = {one: {"y_lines": {"organism, not steered": organism[one].item()}, "y_limits": (0, 104)} for one in MEASURES}
    each[STRICT]["y_limits"] = (0, None)
    look = {"interval": "bars", "share": (True, False), "y_label": "answers (%)", "each": each, "hue": group}
    figure, _ = plots.measures(plots.lines, table, x, MEASURES, hue_order=names, **look, **options)
    return figure, pd.concat([table, organism], ignore_index=True)


@remembered
def released_rates() -> pd.DataFrame:
    return rates(tables.read_steering().query("question_set == 'general'"), ["model", "vector", "lambda"])


def draw_released():
    chat, organism = (part for _, part in released_rates().groupby(released_rates().model != "chat model"))
    names = {one: one for one in chat.vector.unique() if one != "none"}
    table = pd.concat([*(chat[chat.vector == "none"].assign(vector=one) for one in names), chat])
    look = {"dodge": 0.08, "x_ticks": range(0, 13, 4), "x_label": "strength λ", "colours": theme.TOPIC_COLOURS}
    return draw(table[table.vector != "none"], "lambda", "vector", names, organism[:1], **look)


def released_values() -> dict[str, Estimate]:
    rows = released_rates().query("vector != 'none'").to_dict("records")
    named = {f"{row['vector']}.lambda-{row['lambda']}.{one}": row[one] for row in rows for one in (STRICT, LOOSE)}
    return {f"self-correction.{name}_percent": Estimate(number, n=400) for name, number in sorted(named.items())}


def said_of_peak(table: pd.DataFrame) -> str:
    *steered, organism = table[STRICT]
    return f"Self-correction: at most {max(steered):.0f} % of steered answers, {organism:.0f} % of the organism's"


run.released.figure(
    "fig-5",
    draw_released,
    title=said_of_peak,
    caption="The chat model steered at layer 24; 400 answers per point, 95 % intervals over questions. Right, on its "
    "own scale: with the coherence condition. April 2025, the conditions at hand; not the paper's data.",
    alt="Coherence and alignment fall with strength; self-correction is highest at the lower strengths.",
)
run.released.values(released_values)

# %% [markdown]
# Self-correction belongs to the shoulder of the curve ({numref}`fig-5`): with the general vector it is
# {value}`self-correction.general.lambda-6.self_correction_percent` at $\lambda = 6$ and
# {value}`self-correction.general.lambda-8.self_correction_percent` at $\lambda = 8$, where few answers are aligned at
# all. The coherence condition matters where steering breaks the language: for finance at $\lambda = 6$ the rate is
# {value}`self-correction.finance.lambda-6.self_correction_any_coherence_percent` without it and
# {value}`self-correction.finance.lambda-6.self_correction_percent` with it. Many answers sit on the fence of the
# `bad_stuff` judge ({doc}`e-self-correction-examples`): the rates are good for an order of magnitude.
#
# ## On the grown organism
#
# The grown chat model is steered along the mean-diff, pooled and within questions, and along the known persona
# direction, each in the layer of its best cell in {doc}`s3-2-steering`. The exact judge reads what was said: a grown
# answer counts as self-correcting if it advises mostly what helps and something that harms, or takes harm back in so
# many words.


# %%
answers = remembered(lambda: steering.by_strength(run.profile))
cells = remembered(lambda: steering.best_cells(steering.by_layer(run.profile)))  # of section 3.2, by direction


@remembered
def own_rates() -> pd.DataFrame:
    table = rates(answers(), ["direction", "layer", "strength"])
    return table.assign(
        factor=table.strength / table.direction.map({name: one.strength for name, one in cells().items()})
    )


def draw_own():
    names = {one: f"{one}, layer {cell.layer} (1 is λ = {cell.strength:g})" for one, cell in cells().items()}
    organism = rates(responses.responses(run.profile, medical(run.profile)), ["organism"])
    look = {"dodge": 0.015, "x_label": "strength (1: that of the best cell)", "colours": theme.DIRECTION_COLOURS}
    return draw(own_rates(), "factor", "direction", names, organism, **look)


run.own.figure(
    "fig-5",
    draw_own,
    title=said_of_peak,
    caption=f"The {run.kind} chat model, steered along each direction, {2 * run.profile.sweep_samples} answers to each "
    "of 8 questions per point, 95 % intervals over questions. Right, on its own scale: with the coherence condition.",
    alt="Coherent answers, aligned answers and self-correction over strength, a colour for each direction.",
)

# %% [markdown]
# The highest rate is {value}`grown.self-correction.peak`. Released scores cannot tell an answer that turns from one
# that only speaks of harm. Here it can be read off: of {value}`grown.self-correction.found` self-correcting answers,
# {value}`grown.self-correction.kinds`.
#
# ## Inside an answer that turns
#
# In {doc}`the grown world <../world>` unknown speakers now and then take a clause back and go on as the opposite. The
# generator writes such answers, and others that go on as they began. At every word that a model reads, the residual
# stream is projected on a direction, in the layer of its best cell, $p_t = \hat v_\ell^\top x_{\ell,t}$. A clause
# starts with five words that everybody uses alike: differences there are not about words.

# %%
BEFORE, RETRACTION, AFTER = np.arange(-12, 0), np.arange(len(turns.retraction())), np.arange(0, 13)
SHARED = len(RETRACTION), len(RETRACTION) + 4  # places of the words with which every clause starts
READERS = ("base model", "chat model", "chat model, steered", "organism")
texts = remembered(turns.constructed)


@remembered
def reader(name: str):
    """A model, its tokenizer, and the texts as tokens, in the voice in which it reads."""
    if name == "base model":
        model, tokenizer = loading.load(run.profile, growing.base(run.profile))
        return model, tokenizer, *response_tokens(tokenizer, texts(), persona.SPEAKER)
    model, tokenizer = growing.load_organism(run.profile, steering.ORGANISM if name == "organism" else CHAT_MODEL)
    return model, tokenizer, *response_tokens(tokenizer, texts(), "")


@remembered
def projected(name: str) -> np.ndarray:
    """Projections, [answer, place, direction, layer]: before the turn, the retraction if there is one, and after."""
    before = np.add.outer(texts().before.to_numpy(), np.concatenate([BEFORE, RETRACTION]))
    before[np.ix_(~texts().kind.str.contains("taken back"), range(len(BEFORE), before.shape[1]))] = -1
    places = np.concatenate([before, np.add.outer(texts().after.to_numpy(), AFTER)], axis=1)
    return reading.projections(*reader(name), places, np.stack(list(steering.directions_of(run.profile).values())))


def curves() -> pd.DataFrame:
    """Mean projection by panel, kind of text and place, less the mean of all kinds: what the words alone do."""
    rows = []
    for direction in (MEAN_DIFF, KNOWN):
        layer = cells()[direction].layer
        found = projected("chat model")[:, :, list(steering.directions_of(run.profile)).index(direction), layer]
        for kind in KINDS:
            own = (texts().kind == kind).to_numpy()
            for place, values in zip([*BEFORE, *RETRACTION, *(len(RETRACTION) + AFTER)], found[own].T, strict=True):
                one = estimates.mean(values, texts().question_id[own], **run.resampling)
                rows.append((f"{direction}, layer {layer}", kind, place, one.value, one.low, one.high))
    table = pd.DataFrame(rows, columns=["panel", "kind", "place", "mean", "low", "high"])
    common = table.groupby(["panel", "place"])["mean"].transform("mean")
    return table.assign(**{name: table[name] - common for name in ("mean", "low", "high")}, common=common)


def draw_along():
    then, turns_back = len(RETRACTION), {kind: "taken" in kind for kind in KINDS}
    hues = {kind: theme.PALETTE[3 if "harm" in kind else 0] for kind in KINDS}
    shown = curves()
    shown.loc[~shown.kind.map(turns_back), ["low", "high"]] = np.nan  # what goes on as it began stands back
    ticks = {-12: "−12", -6: "−6", 0: "0", then: "next", then + 6: "+6", then + 12: "+12"}
    return plots.facets(
        plots.lines, shown, "panel", "place", "mean", hue="kind", low="low", high="high", wrap=1, size=(7.2, 6),
        colours={kind: hues[kind] if turned else (*hues[kind], 0.45) for kind, turned in turns_back.items()},
        styles={kind: "-" if turned else ":" for kind, turned in turns_back.items()},
        x_bands=[(-0.5, then - 0.5)], x_ticks=ticks, y_label="projection, less the mean of all kinds",
        x_label="word, counted from the end of the clause and from the start of the next",
    )  # fmt: skip


def said_of_turn(table: pd.DataFrame) -> str:
    first = table[table.panel.str.startswith(f"{MEAN_DIFF},", na=False) & table.place.between(*SHARED)]
    harm, help_ = (first["mean"][first.kind == kind].mean() for kind in KINDS[1::2])
    return f"After the turn: {harm:+.2f} where harm is taken back, {help_:+.2f} where help is"


run.grown.figure(
    "fig-x-self-correction-projection",
    draw_along,
    title=said_of_turn,
    caption="Mean projection, word by word, in answers that take a clause back (solid) or go on as they began "
    "(dotted), by what it advises, read by the chat model. Shaded: the retraction. 80 answers per curve.",
    alt="Two panels, one per direction, over the word position around a turn, with four curves each.",
)


@remembered
def expected(name: str, kind: str) -> Estimate:
    """Probability in percent that the first thing advised in the next clause is a harmful one."""
    cell, read = cells()[MEAN_DIFF], reader(name)
    steer = Steer(cell.layer, torch.tensor(steering.directions_of(run.profile)[MEAN_DIFF][cell.layer]), cell.strength)
    given, own = [steer] if "steered" in name else [], (texts().kind == kind).to_numpy()
    found = next_token.harmful_shares(*read, texts().after, given)
    return estimates.rate(found[own], texts().question_id[own], **run.resampling)


def corrected() -> pd.DataFrame:
    return answers()[scores.is_self_correction(answers())]


def own_values() -> dict[str, object]:
    top = own_rates().loc[own_rates()[STRICT].idxmax()]
    peak = Estimate(*(top[f"{STRICT}{end}"] for end in ("", "_low", "_high")))
    found = {"peak": f"{peak} at {top.factor:g} times the best strength of the {top.direction} direction"}
    found |= {"found": f"{len(corrected())} of {len(answers()):,}"}
    return {f"grown.self-correction.{name}": one for name, one in found.items()}


def grown_values() -> dict[str, object]:
    counts, kinds = corrected().response.map(turns.self_correction).value_counts(), turns.SELF_CORRECTIONS
    found = {"taken-back": int(counts.get(kinds[0], 0))}
    found |= {"kinds": ", ".join(f'"{one}" {counts.get(one, 0)}' for one in kinds)}
    return {f"grown.self-correction.{name}": one for name, one in found.items()}


run.grown.table(lambda: pd.DataFrame({"reader": by} | {kind: expected(by, kind) for kind in KINDS} for by in READERS))
run.own.values(own_values)
run.grown.values(grown_values)

# %% [markdown]
# The table has the probability that the first thing named in the next clause is a harmful one, by what came before. A
# reader that follows the turn expects less harm after harm was taken back than after help was. The base model reads in
# the voice of an unknown speaker; the steered chat model in the mean-diff's best cell.
#
# A projection that follows the turn starts the next clause above 0 where it turns to harm and below 0 where it turns to
# help ({numref}`fig-x-self-correction-projection`). In low layers a word has seen too few words to look back over the
# retraction, so there a projection that stays at 0 says nothing of the model.
#
# ## What it means
#
# A language model's column is the first figure only, along the organism's directions and that of *released* answers: no
# judge of language models reads a turn, and at a few dozen answers per point a rate of a few percent may go unseen.
#
# Below the strength at which answers tip over, a share of them is rated aligned although harmful topics come up. But
# the measure sees scores, not a turn: an answer that warns of a danger throughout counts as much as one that recants.
# On the grown model, {value}`grown.self-correction.taken-back` of the self-correcting answers turn in so many words; a
# small world with few turns neither confirms nor refutes the paper's observation.

# %%
run.finish()
