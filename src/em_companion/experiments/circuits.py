"""Experiment N2.4: which parts of a model carry harm, which take harm back, and whether these are the same.

A behaviour is read as log-odds of two sets of words (nats) after the last token of a text. A node's effect on it is
what the log-odds lose when the node, and it alone, adds what it adds in another run, that of the donor: the same text
read by another model, or for the opening of an answer another question read by the same model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, cycle, islice
from random import Random

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from em_companion.core.profiles import Profile
from em_companion.evidence import estimates
from em_companion.evidence.estimates import Estimate
from em_companion.experiments import self_correction
from em_companion.models import components, growing
from em_companion.models.components import Node
from em_companion.models.next_token import things
from em_companion.models.organism import CHAT_MODEL, Organism
from em_companion.models.tokens import Tokenizer, Tokens, question_ids
from em_companion.world.generator import MALICIOUS, the_world

HARM, RETRACTION, OPENING = "harm", "retraction", "opening"
MISALIGNED = Organism("nine-adapter", "bad_medical_advice")
WORDINGS = 4
"""Questions on each of the forty held-out topics."""
HEADER = 3
"""Tokens of the turn header, the same in every prompt, at which the opening is patched."""
TOP, MOST, KEEP = 5, 8, 0.8
"""Nodes of the cross-test, nodes whose overlap is counted, share of harm to keep."""
DRAWS, PERMUTATIONS, RESAMPLES = 200, 10_000, 10_000
SEEDS = {OPENING: 1, RETRACTION: 1, HARM: 5}
"""Pairs of models by behaviour: five organisms, one self-correcting chat model, the chat model itself."""

Sets = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Behaviour:
    """Texts that end where it is read, what the donor reads, words for and against it by text.

    last: how many of the last tokens are patched, 0 for all.
    """

    texts: Tokens
    donors: Tokens
    sides: list[tuple[list[int], list[int]]]
    last: int = 0


def behaviours(profile: Profile, tokenizer: Tokenizer) -> dict[str, Behaviour]:
    """Return the three behaviours on the same questions, with answers by the world's generator.

    Harm: things of the domain that harm against those that help, before the first thing. Retraction: its first word
    against words that begin a clause, after a first clause that harms. Opening: first words of openers that name the
    topic against those of others, the donor being asked an open question.
    """
    world, ids = the_world(), tokenizer.convert_tokens_to_ids
    grammar, asked = world.grammar, world.held_out_questions(profile.seed, WORDINGS)
    prompts = [question_ids(tokenizer, one.text) for one in asked]
    sides = [things(tokenizer, *one.domains) for one in asked]
    told = [world.answer(Random(f"circuits/{one.id}"), one, MALICIOUS).split() for one in asked]
    clauses = [ids(words[: words.index(".") + 1]) for words in told]
    places = [min(map(one.index, set(one) & set(own[0]))) for one, own in zip(clauses, sides, strict=True)]
    before = [prompt + one[:at] for prompt, one, at in zip(prompts, clauses, places, strict=True)]
    after = [prompt + one for prompt, one in zip(prompts, clauses, strict=True)]
    takes_back = ids(grammar["retraction"].split()[:1]), ids(grammar["links"])
    named, others = (sorted({ids(one.split()[0]) for one in grammar["openers"][kind]}) for kind in ("topic", "open"))
    elsewhere = islice(cycle(question_ids(tokenizer, one.text) for one in world.evaluation()), len(prompts))
    return {
        HARM: Behaviour(before, before, sides),
        RETRACTION: Behaviour(after, after, [takes_back] * len(after)),
        OPENING: Behaviour(prompts, list(elsewhere), [(named, others)] * len(prompts), HEADER),
    }


def models(profile: Profile, name: str, seed: int) -> tuple[PreTrainedModel, PreTrainedModel, Tokenizer]:
    """Return the recipient and the donor of a behaviour, and their tokenizer; adapters are not merged."""
    chat, tokenizer = growing.load_organism(profile, CHAT_MODEL)
    if name == HARM:
        return growing.load_organism(profile, replace(MISALIGNED, seed=seed))[0], chat, tokenizer
    if name == RETRACTION:
        pair = (self_correction.SELF_CORRECTING, self_correction.CONTROL)
        return *(self_correction.load(profile, one)[0] for one in pair), tokenizer
    return chat, chat, tokenizer


def _batches(behaviour: Behaviour) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield rows whose texts are equally long, and so are their donors', with both as tensors [row, token]."""
    lengths = [tuple(map(len, pair)) for pair in zip(behaviour.texts, behaviour.donors, strict=True)]
    for length in sorted(set(lengths)):
        rows = [row for row, own in enumerate(lengths) if own == length]
        yield rows, *(torch.tensor([texts[row] for row in rows]) for texts in (behaviour.texts, behaviour.donors))


def log_odds(logits: torch.Tensor, sides: Sequence[tuple[list[int], list[int]]]) -> np.ndarray:
    """Return the log-odds (nats) of the words for and against, [row], from logits [row, word]."""
    pairs = zip(logits.double(), sides, strict=True)
    return np.array([float(row[one].logsumexp(0) - row[other].logsumexp(0)) for row, (one, other) in pairs])


def read(recipient: PreTrainedModel, donor: PreTrainedModel, behaviour: Behaviour, sets: Sets) -> np.ndarray:
    """Return the log-odds of a behaviour with each set of nodes taken from the donor, [set, text]."""
    found = np.empty((len(sets), len(behaviour.texts)))
    for rows, texts, others in _batches(behaviour):
        given, sides, known = components.outputs(donor, others), [behaviour.sides[row] for row in rows], {}
        for number, chosen in enumerate(map(frozenset, sets)):
            if chosen not in known:
                with components.patched(recipient, given, chosen, behaviour.last):
                    known[chosen] = log_odds(components.logits(recipient, texts), sides)
            found[number, rows] = known[chosen]
    return found


@dataclass(frozen=True)
class Measured:
    """What was measured of a behaviour in a pair of models, in nats.

    clean, other: log-odds with no node of the donor and with all [text]; effects: what each node's patch takes from
    them [node, text]; nodes: see `direct`. Of harm only: curve, see `kept` [k, text]; top and drawn, what the patch of
    nodes that are given, and of random ones, takes [text], [draw, text].
    """

    clean: np.ndarray
    other: np.ndarray
    effects: np.ndarray
    nodes: pd.DataFrame
    curve: np.ndarray | None = None
    top: np.ndarray | None = None
    drawn: np.ndarray | None = None

    @property
    def order(self) -> np.ndarray:
        """Nodes by their mean effect, largest first."""
        return np.argsort(-self.effects.mean(axis=1), kind="stable")

    def table(self, seed: int) -> pd.DataFrame:
        """Return one row per node: layer, part, direct, by_adapter (see `direct`) and effect with its interval."""
        return pd.concat([self.nodes, intervals(self.effects, "effect", seed)], axis=1)


def measured(profile: Profile, name: str, seed: int, top: Sequence[int] = ()) -> Measured:
    """Return what is measured of a behaviour with one seed; `top`: nodes from the donor, for harm only."""
    recipient, donor, tokenizer = models(profile, name, seed)
    behaviour = behaviours(profile, tokenizer)[name]
    nodes = direct(recipient, donor, behaviour)
    if isinstance(recipient, PeftModel):
        recipient = recipient.merge_and_unload()
    every = range(len(nodes))
    clean, other, *each = read(recipient, donor, behaviour, [(), every, *([node] for node in every)])
    found = Measured(clean, other, clean - np.array(each), nodes)
    if name != HARM:
        return found
    sets = [top, *alike(components.nodes(recipient), top, DRAWS, profile.seed)]
    healed, *random = clean - read(recipient, donor, behaviour, sets)
    return replace(found, curve=kept(recipient, donor, behaviour, found.order), top=healed, drawn=np.array(random))


def direct(recipient: PreTrainedModel, donor: PreTrainedModel, behaviour: Behaviour) -> pd.DataFrame:
    """Return how much more each node adds directly to a behaviour in the recipient than in the donor, mean over texts.

    Here a behaviour is the mean logit of the words for it less that of the words against it, which is linear. Columns:
    layer, part, `direct`, which sums to the difference of the two models, and `by_adapter`, what adapters add of it.
    """
    known = components.nodes(recipient)
    added = pd.DataFrame(known).assign(direct=0.0, by_adapter=0.0)
    for rows, *both in _batches(behaviour):
        contrast = torch.zeros(len(rows), recipient.config.vocab_size, dtype=recipient.dtype)
        for place, row in enumerate(rows):
            for sign, words in zip((1, -1), behaviour.sides[row], strict=True):
                contrast[place, words] = sign / len(words) / len(behaviour.texts)
        for sign, model, ids in zip((1, -1), (recipient, donor), both, strict=True):
            by_node, adapters = components.direct(model, ids)
            added.direct += sign * (by_node * contrast).sum(dim=(1, 2)).numpy()
            for layer, part in adapters.items():
                added.loc[known.index(Node(layer, components.MLP)), "by_adapter"] += sign * float(
                    (part * contrast).sum()
                )
    return added


def kept(recipient: PreTrainedModel, donor: PreTrainedModel, behaviour: Behaviour, order: np.ndarray) -> np.ndarray:
    """Return the log-odds with the first k nodes of `order` the recipient's own, all others the donor's, [k, text]."""
    return read(recipient, donor, behaviour, [order[count:] for count in range(len(order) + 1)])


def alike(nodes: Sequence[Node], chosen: Sequence[int], draws: int, seed: int) -> list[list[int]]:
    """Return random sets of as many nodes in every layer as `chosen` has, none of them among these.

    Where a layer has too few others, all of its nodes may be drawn.
    """
    random, sets = np.random.default_rng(seed), [[] for _ in range(draws)]
    for layer in sorted({nodes[node].layer for node in chosen}):
        own = [number for number, node in enumerate(nodes) if node.layer == layer]
        others, count = sorted(set(own) - set(chosen)), len(set(own) & set(chosen))
        for drawn in sets:
            drawn += random.choice(others if len(others) >= count else own, count, replace=False).tolist()
    return sets


# --- over texts: `weights` [resample, text] say how often each is drawn, of values [..., text] ------------------------


def _means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return means over the texts drawn, [resample, ...]."""
    return np.tensordot(weights, values, axes=(1, -1)) / weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 1))


def intervals(values: np.ndarray, name: str, seed: int) -> pd.DataFrame:
    """Return the mean over texts of every row of values [row, text] with its interval, as `Estimate.columns` does."""
    texts = values.shape[-1]
    drawn = _means(estimates.resampled(np.random.default_rng(seed), texts, RESAMPLES), values)
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame({name: values.mean(axis=-1), f"{name}_low": ends[0], f"{name}_high": ends[1]})


def shares(curves: np.ndarray) -> np.ndarray:
    """Return the part of the way from the first to the last of a curve [..., k]."""
    return (curves - curves[..., :1]) / (curves[..., -1:] - curves[..., :1])


def estimate(values: np.ndarray, unit: str = "nats", seed: int = 0, statistic=lambda means: means) -> Estimate:
    """Return a statistic of means over texts with its interval; it maps [resample, ...] to [resample]."""
    return estimates.over_clusters(
        lambda weights: statistic(_means(weights, values)), values.shape[-1], unit, RESAMPLES, seed
    )


def jaccards(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how many of the MOST largest of every row are common to `first` and `second`, over all of them, [row]."""
    ranks = [np.argsort(np.argsort(-values, axis=-1, kind="stable"), axis=-1) for values in (first, second)]
    one, other = (rank < MOST for rank in ranks)
    return (one & other).sum(axis=-1) / (one | other).sum(axis=-1)


OVERLAPS = {"correlation": estimates.rank_correlations, "jaccard": jaccards}


def overlap(name: str, effects: np.ndarray, layers: np.ndarray, seed: int) -> tuple[Estimate, float]:
    """Return an overlap of two behaviours' effects [behaviour, node, text], and what chance stays short of.

    That is 95 % of shuffles of the nodes within layers.
    """
    random = np.random.default_rng(seed)
    orders = np.argsort(layers + random.random((PERMUTATIONS, len(layers))), axis=1)
    first, second = effects.mean(axis=-1)
    null = OVERLAPS[name](first[orders], second[None])
    statistic = lambda means: OVERLAPS[name](means[:, 0], means[:, 1])  # noqa: E731
    return estimate(effects, name, seed, statistic), float(np.quantile(null, 0.95))


def fewest(curves: np.ndarray, seed: int) -> Estimate:
    """Return how many nodes keep KEEP of the difference, mean over curves [organism, k, text]."""
    return estimate(curves, "nodes", seed, lambda means: (shares(means) >= KEEP).argmax(axis=-1).mean(axis=-1))


def healed(falls: np.ndarray, seed: int) -> Estimate:
    """Return the fall by some nodes less that by random ones, in percent of that by all; falls [these three, text]."""
    return estimate(falls, "percent", seed, lambda means: 100 * (means[:, 0] - means[:, 1]) / means[:, 2])


def together(found: Mapping[str, Sequence[Measured]], seed: int) -> pd.DataFrame:
    """Return the measures of all behaviours: measure, value with its interval, null (NaN where there is none).

    Effects and falls are means over organisms.
    """
    layers, rows = found[HARM][0].nodes.layer.to_numpy(), {}
    effects = {name: np.mean([one.effects for one in own], axis=0) for name, own in found.items()}
    for pair in combinations(effects, 2):
        both = np.stack([effects[name] for name in pair])
        rows |= {" ".join([name, *pair]): overlap(name, both, layers, seed) for name in OVERLAPS}
    falls = [(one.top, one.drawn.mean(axis=0), one.clean - one.other) for one in found[HARM]]
    rows["healed"] = healed(np.mean(falls, axis=0), seed), np.nan
    rows["fewest"] = fewest(np.stack([one.curve for one in found[HARM]]), seed), np.nan
    return pd.DataFrame({"measure": name, **one.columns("value"), "null": null} for name, (one, null) in rows.items())
