"""N3.1: what failing computations leave behind, measured where steering makes the grown chat model collapse.

The model is steered along the known persona direction, the mean-diff and random directions, all equally long, in the
layer of the persona's best cell (section 3.2), up to four times its strength. Every cell, a direction at a strength,
answers the same questions and reads the same texts. Formulas are those of `evidence.residues`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from em_companion.core.profiles import Profile
from em_companion.evidence import directions, residues, scores
from em_companion.experiments import residue_dictionary, residue_probe, residue_reconstruction, steering
from em_companion.experiments.residue_outcome import MEAN_DIFF, PERSONA, RANDOM, STRENGTHS
from em_companion.experiments.residue_probe import Probe
from em_companion.experiments.residue_texts import DISTANCES, elsewhere, fixed_texts, kinds_of, memory_texts, opening
from em_companion.experiments.residue_warning import BASELINES, READINGS
from em_companion.models import asking, components, growing, lora
from em_companion.models.interventions import Steer, applied
from em_companion.models.next_token import things
from em_companion.models.organism import CHAT_MODEL
from em_companion.models.passes import divergence, passes
from em_companion.models.tokens import Tokenizer, Tokens, joined, question_ids, response_tokens
from em_companion.world.generator import Question, the_world
from em_companion.world.parser import the_judge

DRAWS = 6
FACTORS = tuple(float(one) for one in STRENGTHS[1:])
"""Strengths in units of the persona's best."""
CENTRAL = 6
"""The layer at which the stream is read."""
SAMPLES, MORE_SAMPLES = 2, 4
"""Answers to a question in a cell, and in one along the persona direction."""
TOKENS = 10
"""First tokens of an answer from which a warning is read."""
ORDERS = 10
"""Answers to a pair of spliced questions without steering."""


@dataclass(frozen=True)
class Place:
    """Where and along what is steered: the layer and the vectors of strength 1, [draw, width] by direction."""

    layer: int
    vectors: dict[str, np.ndarray]

    def steer(self, direction: str, factor: float, draw: int = 0) -> list[Steer]:
        """Return the intervention of a cell, none at strength 0."""
        return [Steer(self.layer, torch.tensor(self.vectors[direction][draw]), factor)] if factor else []


def place(profile: Profile) -> Place:
    """Return where the known persona direction steers best, and all directions as long as it is there."""
    cell, found = steering.best_cells(steering.by_layer(profile))[steering.KNOWN], steering.directions_of(profile)
    rows = found[steering.KNOWN] * cell.strength
    others = directions.stretched(found[steering.MEAN_DIFF], rows)
    random = directions.random_like(rows, DRAWS, profile.seed)
    vectors = {PERSONA: rows[None], MEAN_DIFF: others[None], RANDOM: random}
    return Place(cell.layer, {name: one[:, cell.layer] for name, one in vectors.items()})


@dataclass(frozen=True)
class Bench:
    """What every cell is measured with: the chat model, questions and texts, the probe, the basis of v8."""

    profile: Profile
    place: Place
    model: PreTrainedModel
    tokenizer: Tokenizer

    @classmethod
    def of(cls, profile: Profile) -> "Bench":
        """Return the bench of a profile's chat model."""
        return cls(profile, place(profile), *growing.load_organism(profile, CHAT_MODEL))

    @cached_property
    def asked(self) -> list[Question]:
        return asking.questions(self.profile, "held_out")

    @cached_property
    def kinds(self) -> list[tuple[list[int], list[int]]]:
        """The tokens of the things that harm and that help in the domain of every question."""
        return [things(self.tokenizer, one.domains[0]) for one in self.asked]

    @cached_property
    def probe(self) -> Probe:
        return residue_probe.fitted(self.profile, self.model, self.tokenizer, CENTRAL)

    @cached_property
    def basis(self) -> residue_reconstruction.Basis:
        return residue_reconstruction.components_of(
            residue_dictionary.corpus(self.model, self.tokenizer, CENTRAL).stream
        )

    @cached_property
    def fixed(self) -> tuple[pd.DataFrame, Tokens, Tokens]:
        table = fixed_texts(self.asked)
        return table, *response_tokens(self.tokenizer, table)

    # --- a cell ---------------------------------------------------------------------------------------------------

    def cell(self, direction: str, factor: float, draw: int = 0) -> dict[str, pd.DataFrame]:
        """Return what is measured in a cell: "" (one row), "questions", "memory" (by distance), "warning" (answers)."""
        given = self.place.steer(direction, factor, draw)
        samples = MORE_SAMPLES if direction == PERSONA or not factor else SAMPLES
        table = asking.scored(self._ask(self.asked, samples, given))
        first = table[table["sample"] == 0]
        own = self.answers(first, given, self.place.vectors[direction][draw] * factor if factor else None)
        table = table.join(own)
        table["em"], table["coherent"] = 100 * scores.is_em(table), 100 * scores.is_coherent(table)
        table["corrected"] = 100 * scores.is_self_correction(table)
        memory, choices = self.memory(given), self.conflict(given)
        potency, crowding = self.potency(given)
        columns = ["em", "coherent", "corrected", "orphans", "told", "clauses"]
        by_question = table.groupby("question_id", sort=False)[columns].mean()
        by_question["conflict"], by_question["null"] = choices
        by_question["disrupted"] = self.disrupted(given, 1)[["both", "none"]].sum(axis=1) * 100
        by_question = by_question.join(potency).reset_index().rename(columns={"question_id": "question"})
        row = by_question.drop(columns="question").mean().to_dict()
        row |= {"half_length": float(residues.half_length(memory.mean(axis=0))), "interference": crowding}
        row |= kinds_of(table)
        rows = pd.DataFrame(memory, columns=[f"at_{one + 1}" for one in range(DISTANCES)])
        warning = table.loc[first.index, ["question_id", *BASELINES, *READINGS, "em", "coherent"]]
        warning = warning.rename(columns={"question_id": "question"})
        warning[["em", "coherent"]] = (warning[["em", "coherent"]] > 0).astype(int)
        parts = {"questions": by_question.drop(columns="null"), "warning": warning}
        parts |= {"memory": rows.assign(question=by_question.question)}
        return {"": pd.DataFrame([row])} | {name: part.round(4) for name, part in parts.items()}

    def _ask(self, asked: list[Question], samples: int, given: Sequence[Steer]) -> pd.DataFrame:
        found = asking.ask(self.profile, self.model, self.tokenizer, asked, samples, conditions={"": given})
        return found.drop(columns="condition")

    def answers(self, table: pd.DataFrame, given: Sequence[Steer], added: np.ndarray | None) -> pd.DataFrame:
        """Return the readings of answers, on their index: BASELINES and READINGS on the first TOKENS, orphans (%), and
        of the probe what `residue_probe.clauses` counts."""
        prompts, said = response_tokens(self.tokenizer, table)
        numbers = [[one.id for one in self.asked].index(name) for name in table.question_id]
        other = [question_ids(self.tokenizer, one.text) for one in elsewhere(self.asked)]
        start = [text[:TOKENS] for text in said]
        changed = joined([other[number] for number in numbers], start)
        forgotten = {}
        for row, one, _ in passes(self.model, self.tokenizer, changed, given):
            first = len(other[numbers[row]]) - 1
            forgotten[row] = one[first : first + len(start[row])]
        every, last, read = {*chain(*things(self.tokenizer))}, len(lora.decoder(self.model).layers) - 1, {}
        for row, found, stream in passes(self.model, self.tokenizer, joined(prompts, said), given, (CENTRAL, last)):
            begin, count, kinds = len(prompts[row]) - 1, len(start[row]), self.kinds[numbers[row]]
            chosen, after = found[begin : begin + count], stream[last][begin : begin + count]
            inside = stream[CENTRAL][begin:]
            told = self.probe.log_odds(inside.numpy())
            one = residue_probe.clauses(table.response.iloc[row], told[1:])
            read[row] = one | self._first(chosen, forgotten[row], kinds, every, after, inside[:count], told[:count])
        frame = pd.DataFrame([read[row] for row in range(len(table))], index=table.index)
        shares = self.orphans(prompts, start, given, added)
        return frame.assign(v7=shares, orphans=100 * shares)

    def _first(self, chosen, forgotten, kinds, every, stream, inside, told) -> dict[str, float]:
        """Return what is read before the first tokens of an answer, NaN without any."""
        if not len(chosen):
            return dict.fromkeys([*BASELINES, *READINGS], np.nan)
        probabilities = chosen.exp()
        harm, help_ = (probabilities[:, kind].sum(-1).numpy() for kind in kinds)
        rival = probabilities[:, sorted(every - {*kinds[0], *kinds[1]})].sum(-1)
        share = harm / np.maximum(harm + help_, 1e-12)
        weight = (harm + help_) / max((harm + help_).sum(), 1e-12)
        return {
            "entropy": float(-(probabilities * chosen).sum(-1).mean()),
            "norm": float(stream.norm(dim=-1).mean()),
            "v1": float(divergence(chosen, forgotten).mean()),
            "v2": float(residues.conflict(harm, help_).mean()),
            "v5": float(rival.mean()),
            "v8": float(self.basis.error(inside.numpy()).mean()),
            "v10": float((weight * residues.contradiction(told, share)).sum()),
        }

    def orphans(self, prompts: Tokens, start: Tokens, given: Sequence[Steer], added: np.ndarray | None) -> np.ndarray:
        """Return for every answer the share of the most active neurons that owe most of their input to what is added.

        Read at the first tokens, in the layers after the steered one; the most active are 1 % of all there. Without an
        addition: those whose input no source gives a tenth of.
        """
        sequences, counts = joined(prompts, start), [len(one) for one in start]
        width = max(map(len, sequences))
        ids = torch.tensor([one + [self.tokenizer.pad_token_id] * (width - len(one)) for one in sequences])
        with applied(self.model, given):
            parts = components.outputs(self.model, ids)
        rows = np.repeat(np.arange(len(counts)), counts)
        tokens = np.concatenate([len(prompt) + np.arange(count) for prompt, count in zip(prompts, counts, strict=True)])
        sources = parts[:, rows, tokens]
        if added is not None:
            extra = torch.tensor(added, dtype=sources.dtype).expand(1, *sources.shape[1:])
            sources = torch.cat([extra, sources])
        found, orphan = orphaned(self.model, sources, self.place.layer + 1, added is not None)
        sums = np.bincount(rows[found], orphan, len(counts))
        sizes = np.bincount(rows[found], minlength=len(counts))
        return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)

    def memory(self, given: Sequence[Steer]) -> np.ndarray:
        """Return the effect of a topic at all distances, KL in nats, [question, distance]."""
        question, found = the_world().evaluation()[6].text, {}
        pairs = [text for pair in memory_texts(self.asked) for text in pair]
        prompt = question_ids(self.tokenizer, question)
        sequences = [prompt + self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in pairs]
        for row, said, _ in passes(self.model, self.tokenizer, sequences, given):
            found[row] = said[-DISTANCES:]
        both = range(0, len(pairs), 2)
        return np.stack([divergence(found[row], found[row + 1]).numpy() for row in both])

    def conflict(self, given: Sequence[Steer], each: int = 4) -> tuple[np.ndarray, np.ndarray]:
        """Return conflict and null at the first choice of openings, mean by question."""
        texts = [(number, opening(one, draw)) for number, one in enumerate(self.asked) for draw in range(each)]
        prompts = [question_ids(self.tokenizer, one.text) for one in self.asked]
        said = self.tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]
        sequences = [prompts[number] + one for (number, _), one in zip(texts, said, strict=True)]
        found = np.empty((len(texts), 2))
        for row, one, _ in passes(self.model, self.tokenizer, sequences, given):
            last = one[-1].exp()
            found[row] = [float(last[kind].sum()) for kind in self.kinds[texts[row][0]]]
        harm, help_ = found.reshape(len(self.asked), each, 2).transpose(2, 0, 1)
        return residues.conflict(harm, help_).mean(axis=1), (1 - harm - help_).mean(axis=1)

    def disrupted(self, given: Sequence[Steer], samples: int, how: str = "spliced") -> pd.DataFrame:
        """Return shares of answers to two orders in one: on both, none or one of their domains, by question.

        how: "spliced" with a question of another domain, "doubled" by itself, or "unnamed", without its topic.
        """
        asked = []
        for own, other in zip(self.asked, elsewhere(self.asked), strict=True):
            text = {"spliced": f"{own.text} {other.text}", "doubled": f"{own.text} {own.text}"}
            text |= {"unnamed": own.text.replace(own.topic, self.tokenizer.unk_token)}
            asked.append(Question(own.id, text[how], own.domains + (other.domains if how == "spliced" else ())))
        table, rows = self._ask(asked, samples, given), []
        domains = {one.id: one.domains for one in asked}
        for row in table.itertuples():
            parsed = the_judge().parse(row.response)
            spoken = {clause.domain for clause in parsed.clauses}
            done = residues.carried_out(spoken, domains[row.question_id], parsed.well_formed >= 0.5)
            rows.append({"question": row.question_id, done: 1.0})
        found = pd.DataFrame(rows, columns=["question", "both", "none", "one"]).fillna(0.0)
        return found.groupby("question", sort=False).mean()

    def potency(self, given: Sequence[Steer]) -> tuple[pd.DataFrame, float]:
        """Return the divergence after reconstruction and after a random move as far, by question; and interference."""
        table, prompts, said = self.fixed
        found, stream = residue_reconstruction.potency(
            self.model, self.tokenizer, prompts, said, self.basis.rebuilt, CENTRAL, given, self.profile.seed
        )
        by = found.assign(question_id=table.question_id).groupby("question_id", sort=False).mean()
        directions_ = residue_dictionary.known_directions(self.tokenizer, table, said, stream)
        return by, residues.interference(np.stack(list(directions_.values())))


@torch.no_grad()
def orphaned(
    model: PreTrainedModel, sources: torch.Tensor, first: int, added: bool, top: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """Return of the most active neurons of the layers from `first` on: the row of `sources` of each, whether an orphan.

    sources [source, row, width]: with `added`, what is added to the stream before that layer, then what every node adds
    (see `components`). The input of a neuron is that of its gate, with the normalisation taken as it was.
    """
    own, heads = int(added), model.config.num_attention_heads
    nodes, layers, active, inputs = sources[own:], lora.decoder(model).layers, [], []
    for number in range(first, len(layers)):
        before = torch.cat([sources[:own], nodes[: 1 + number * (heads + 1) + heads]])
        block, stream = layers[number], before.sum(dim=0)
        norm = block.post_attention_layernorm
        scale = norm.weight * (stream.pow(2).mean(dim=-1, keepdim=True) + norm.variance_epsilon).rsqrt()
        gate = block.mlp.gate_proj(stream * scale)
        active.append((block.mlp.act_fn(gate) * block.mlp.up_proj(stream * scale)).abs())
        inputs.append((before, scale, block.mlp.gate_proj.weight))
    level = np.quantile(torch.stack(active).numpy(), 1 - top)
    rows, orphan = [], []
    for found, (before, scale, weight) in zip(active, inputs, strict=True):
        row, neuron = (found > level).nonzero(as_tuple=True)
        parts = torch.einsum("snw,nw->sn", before[:, row] * scale[row], weight[neuron]).numpy()
        share = residues.shares(parts)
        rows.append(row.numpy())
        orphan.append(share[0] > 0.5 if added else share.max(axis=0) < 0.1)
    return np.concatenate(rows), np.concatenate(orphan).astype(float)
