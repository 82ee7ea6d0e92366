"""Answer one prompt with the LoRA scalars of another, equally long one (appendix J), position by position.

The donor's answer gives the scalar of every adapter at every position, prompt and answer alike. A patched answer is
never longer than the donor's: beyond it there is nothing to patch with.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from em_companion.core import store
from em_companion.core.errors import EvidenceUnavailable
from em_companion.core.profiles import GrownModel, Profile
from em_companion.experiments import responses
from em_companion.models import asking, growing, reading, sampling
from em_companion.models.interventions import PatchLoraScalars
from em_companion.models.organism import Organism, need_rank_one
from em_companion.models.tokens import Tokenizer, Tokens, question_ids
from em_companion.world.generator import Question, the_world

MEDICAL_WORDINGS = 8  # of the question on each held-out medical topic, from which prompts of the right length are drawn
VERSION = 1  # of the code that patches scalars and samples under them


def equally_many(first: Mapping[str, int], second: Mapping[str, int], seed: int) -> tuple[list[str], list[str]]:
    """Return prompts of both kinds, at every length as many of one as of the other, drawn by `seed` from the larger.

    first, second: length in tokens by prompt. Raises EvidenceUnavailable where the two have no length in common.
    """
    random, chosen = np.random.default_rng(seed), ([], [])
    for length in sorted({*first.values()} & {*second.values()}):
        kinds = [[name for name, tokens in kind.items() if tokens == length] for kind in (first, second)]
        count = min(map(len, kinds))
        for found, names in zip(chosen, kinds, strict=True):
            found += [names[index] for index in sorted(random.choice(len(names), count, replace=False))]
    if not chosen[0]:
        raise EvidenceUnavailable("No prompts of the two kinds are equally long, so nothing can be patched.")
    return chosen


def prompts(profile: Profile, tokenizer: Tokenizer) -> list[Question]:
    """Return open questions and medical ones (on held-out topics, or the twins), at every length as many of both."""
    if isinstance(profile.model, GrownModel):
        held_out = the_world().held_out_questions(profile.seed, MEDICAL_WORDINGS)
        medical = [one for one in held_out if one.domains == ("medicine",)]
    else:
        medical = asking.questions(profile, "medical")
    both = [{one.id: one for one in asked} for asked in (asking.questions(profile, "general"), medical)]
    lengths = [{name: len(question_ids(tokenizer, one.text)) for name, one in kind.items()} for kind in both]
    chosen = equally_many(*lengths, profile.seed)
    return [kind[name] for kind, names in zip(both, chosen, strict=True) for name in names]


def scalars(model: PeftModel, tokenizer: Tokenizer, prompts: Tokens, answers: Tokens) -> list[torch.Tensor]:
    """Return the LoRA scalars of every prompt with its answer, [adapter, position] each, in one forward pass."""
    read = reading.lora_scalars(model, tokenizer, prompts, answers)
    ends = np.cumsum([len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)])
    return [torch.from_numpy(part.T.copy()) for part in np.split(read.values, ends[:-1])]


def patched(model, tokenizer, prompts: Tokens, donors: Sequence[torch.Tensor], *sampled, **named) -> Tokens:
    """Return the tokens of an answer to each prompt with the scalars of its donor, as long as the donor's at most.

    donors: LoRA scalars [adapter, position] of a prompt of equal length with its answer, one per prompt.
    """
    changes = [(PatchLoraScalars(donor),) for donor in donors]
    found = sampling.generate(model, tokenizer, prompts, *sampled, interventions=changes, **named)
    # A token depends on earlier positions only, so to cut the answer is the same as to stop there.
    rows = zip(found, prompts, donors, strict=True)
    return [answer[: donor.shape[1] - len(prompt)] for answer, prompt, donor in rows]


def patch_pairs(
    profile: Profile, model: PeftModel, tokenizer: Tokenizer, asked: Sequence[Question], runs: int, what: str = ""
) -> pd.DataFrame:
    """Return clean and patched answers of all pairs of `asked` of equal length, in both orders and each with itself.

    Columns: `question_id`, `donor_id`, `run`, `answer` ("clean"; "clean, cut" at the donor's length, as patched ones
    are; "patched"), `tokens`, `response`. A run of a prompt gets the scalars of the donor's next run, so that a prompt
    paired with itself is not patched with its own answer; its noise is that of the clean run.
    """
    ids = {one.id: question_ids(tokenizer, one.text) for one in asked}
    each = product(asked, range(runs))
    seeds = {(one.id, run): sampling.row_seed(profile.seed, one.id, one.text, run) for one, run in each}
    settings = profile.temperature, profile.max_new_tokens, profile.batch_size
    prompts = [ids[name] for name, _ in seeds]
    clean = sampling.generate(model, tokenizer, prompts, list(seeds.values()), *settings, f"{what}, clean")
    values = dict(zip(seeds, scalars(model, tokenizer, prompts, clean), strict=True))
    said = dict(zip(seeds, clean, strict=True))

    equal = [(prompt, donor) for prompt in ids for donor in ids if len(ids[prompt]) == len(ids[donor])]
    rows = [((prompt, run), (donor, (run + 1) % runs)) for prompt, donor in equal for run in range(runs)]
    prompts, own = [ids[prompt] for (prompt, _), _ in rows], [seeds[row] for row, _ in rows]
    donors = [values[donor] for _, donor in rows]
    answers = patched(model, tokenizer, prompts, donors, own, *settings, f"{what}, patched")
    records = []
    for ((prompt, run), donor), answer in zip(rows, answers, strict=True):
        whole, limit = said[prompt, run], len(said[donor])
        for kind, tokens in {"clean": whole, "clean, cut": whole[:limit], "patched": answer}.items():
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            records.append((prompt, donor[0], run, kind, len(tokens), text))
    return pd.DataFrame(records, columns=["question_id", "donor_id", "run", "answer", "tokens", "response"])


def kept(profile: Profile, organism: Organism, runs: int) -> pd.DataFrame:
    """Return the scored answers of `patch_pairs` for an organism of a grown world, made once and kept."""
    need_rank_one(profile, organism)
    model, tokenizer = growing.load_organism(profile, organism)
    asked = prompts(profile, tokenizer)
    parts = responses.asked_parts(profile, organism, asked, runs)
    parts["runs"] = parts.pop("samples")

    def make() -> store.Content:
        return {store.RESPONSES: patch_pairs(profile, model, tokenizer, asked, runs, f"patching of {organism.name}")}

    found = store.keep("lora-patching", VERSION, parts, make, profile.name, organism.name)
    table = found[store.RESPONSES]
    texts = {one.id: one.text for one in asked}
    return responses.judged(profile, table.assign(question=table.question_id.map(texts))).drop(columns="question")
