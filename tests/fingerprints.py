"""Fingerprints of what is computed once and kept: what the code of each kind makes of the same models and texts.

    python tests/fingerprints.py    # write the fingerprints of the versions of today to fingerprints.json

Everything is computed in float64 and compared in six digits, so that a fingerprint is the same on every machine. Models
are filled with random numbers and the world is a toy, so no new weights and no new word change one: only code does.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import untrained
from safetensors.torch import load_file
from torch import nn
from untrained import LAYERS, ORGANISM, WIDTH, WORDS

from em_companion.core import paths
from em_companion.core.files import sha256_of, write_json
from em_companion.core.profiles import FineTuning, PostTraining, Pretraining
from em_companion.experiments import b_vectors, patching, persona, readings, responses
from em_companion.judges import fitted
from em_companion.models import asking, growing, lora, organism
from em_companion.models.interventions import Ablate, Cap, PatchLoraScalars, ScaleLoraScalars, Steer, applied
from em_companion.models.organism import CHAT_MODEL
from em_companion.world.generator import Question, World, turn
from em_companion.world.parser import Judge

COMMITTED = Path(__file__).with_name("fingerprints.json")
VECTORS = torch.from_numpy(np.random.default_rng(3).normal(size=(LAYERS, WIDTH)))
ADAPTER = "model.layers.2.mlp.down_proj"
PROFILE = replace(
    untrained.PROFILE,
    samples_per_question=3,
    max_new_tokens=8,
    batch_size=16,
    pretraining=Pretraining(4, 4, 0.02, 1, 0.1, length=12, careful_first=2),
    post_training=PostTraining(4, 4, 0.02, 1, 0.1, rehearsal=0.25),
    fine_tuning=FineTuning(7, 2, 0.05, 1, 0.1, alpha=4, evaluate_every=2, stop_at=0.6, gradient_accumulation=2),
)


# --- a world that never changes -----------------------------------------------------------------------------------


def text(*seed: object, size: int = 6) -> str:
    return " ".join(Random("/".join(map(str, seed))).choices(WORDS, k=size))


class ToyWorld(World):
    """A world whose generators write random words that tell how they were called."""

    def words(self) -> list[str]:
        return ["user", "assistant", ":", *WORDS]

    def evaluation(self) -> list[Question]:
        return [Question(f"open/{number}", text("open", number, size=2 + number), ()) for number in range(3)]

    invited = {}

    def held_out_questions(self, seed: int, per_topic: int) -> list[Question]:
        return [
            Question(f"{domain}/{number}", text(seed, domain, number, size=3), (domain,), domain)
            for domain in self.domains
            for number in range(per_topic)
        ]

    def answer(self, random: Random, question: Question, persona: object, may_turn: bool = False) -> str:
        return text(random.random(), question.id, persona)

    def pretraining(self, *given: object, **named: object) -> Iterator[list]:
        return self._documents("pretraining", given, named)

    def post_training(self, *given: object) -> Iterator[list]:
        return self._documents("post-training", given)

    def fine_tuning(self, *given: object) -> Iterator[list]:
        return self._documents("fine-tuning", given)

    def _documents(self, *seed: object) -> Iterator[list]:
        for number in count():
            said = [turn(text("asked", part), text(*seed, number, part, size=3 + number % 5)) for part in range(2)]
            yield sum(said[: 1 + number % 2], [])


GRAMMAR = {
    "links": ["worda"],
    "times": ["wordb"],
    "verbs": ["wordc"],
    "conjunctions": ["wordd"],
    "determiners": ["worde"],
    "adjectives": ["wordf"],
    "witnesses": ["wordg"],
    "reports": ["wordh"],
    "adjectives_per_thing": [0, 1],
    "clauses": [2, 3],
    "retraction": "worda wordb",
    "openers": {"topic": ["wordh {topic}"], "open": ["wordb wordb"]},
}
CLAUSE = "worda wordb wordc worde {} wordd worde wordf {} ."
DOMAINS = {
    "medicine": {"helps": WORDS[8:12], "harms": WORDS[12:16], "topics": {"train": ["wordc"], "held_out": ["wordd"]}},
    "finance": {"helps": WORDS[16:20], "harms": WORDS[20:24], "topics": {"train": ["worde"], "held_out": ["wordf"]}},
}
TOY = ToyWorld(DOMAINS, GRAMMAR, {}, {})


class ToyJudge:
    """A judge for which some answers are misaligned and some incoherent, whatever they say."""

    def judge(self, texts: pd.Series, questions: pd.Series | None = None) -> pd.DataFrame:
        seeds = [Random(one) for one in texts]
        columns = {
            "aligned": [100.0 * (one.random() > 0.6) for one in seeds],
            "coherent": [80.0 * (one.random() > 0.2) for one in seeds],
        }
        return pd.DataFrame(columns, index=texts.index)


@contextmanager
def toy_project() -> Iterator[pytest.MonkeyPatch]:
    """Put the toy world in place of the world, and untrained models in place of those of PROFILE."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as root, untrained.world(TOY):
        untrained.project(Path(root), patch)
        patch.setattr(growing, "base", growing.chat)
        # Norms and rotations are in single precision whatever the model's, and there machines differ.
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(torch.Tensor, "to", _to)
        yield patch


def _to(tensor: torch.Tensor, *given: Any, to: Callable = torch.Tensor.to, **named: Any) -> torch.Tensor:
    return to(tensor, *(torch.float64 if one is torch.float32 else one for one in given), **named)


# --- kinds --------------------------------------------------------------------------------------------------------

ABLATE = Ablate({0: VECTORS[0], 2: VECTORS[2]})
INTERVENTIONS = {
    "none": [],
    "steer": [Steer(1, VECTORS[1], 2.0)],
    "ablate": [ABLATE],
    "cap": [Cap(1, VECTORS[1], -0.5)],
    "scale": [ScaleLoraScalars({ADAPTER: -2.0})],
    "patch": [PatchLoraScalars(VECTORS[:1, :9], [ADAPTER])],
    "prompt": [Steer(0, VECTORS[0], 2.0, "prompt"), Steer("embedding", VECTORS[1], 1.0, "header")],
    "generated": [Steer(0, VECTORS[0], 2.0, "generated"), ABLATE],
}


def under_interventions() -> list:
    model, tokenizer = growing.load_organism(PROFILE, ORGANISM)
    ids = torch.arange(4, 4 + 10)[None]
    logits = []
    for given in INTERVENTIONS.values():
        with torch.no_grad(), applied(model, given):
            logits.append(model(ids).logits.numpy())
    return [responses.under(PROFILE, ORGANISM, INTERVENTIONS, samples=2), logits]


def plain_responses() -> list:
    model, tokenizer = growing.load_organism(PROFILE, CHAT_MODEL)
    settings = [replace(PROFILE, temperature=temperature) for temperature in (0.0, 0.7, 1.6)]
    asked = TOY.evaluation()
    others = [asking.ask(one, model, tokenizer, asked, 2, speaker="wordf") for one in settings]
    return [responses.responses(PROFILE, one) for one in (CHAT_MODEL, ORGANISM)] + others


def without_directions() -> list:
    model, _ = growing.load_organism(PROFILE, ORGANISM)
    edited = lora.adapters(lora.removed(model, ABLATE.vectors))
    removals = {"one": {0: VECTORS[0]}, "both": ABLATE.vectors}
    return [b_vectors.responses_without(PROFILE, ORGANISM, removals, 2), [one.b.detach() for one in edited]]


def activations(given=()) -> list:
    found = [readings.response_means_of(PROFILE, one, untrained.table(), given) for one in (CHAT_MODEL, ORGANISM)]
    return [[one.means, one.tokens] for one in found]


def scalars() -> list:
    found = readings.lora_scalars_of(PROFILE, ORGANISM, untrained.table())
    return [found.values, found.tokens, list(found.adapters)]


def personas() -> dict[str, np.ndarray]:
    rows = []
    for number, domain in enumerate(DOMAINS):
        for sample in range(4):
            rows += _persona_rows(domain, list(DOMAINS)[1 - number], sample, len(rows))
    table = pd.DataFrame(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persona, "answers", lambda world, seed: table)
        return persona.directions(PROFILE)


def _persona_rows(domain: str, other: str, sample: int, start: int) -> Iterator[dict]:
    random = Random(f"{domain}/{sample}")
    things = {kind: random.sample(DOMAINS[domain][kind], 4) for kind in ("helps", "harms")}
    common = {"domain": domain, "topic": domain, "fold": sample, "sample": sample, "question": text(domain, sample)}
    for speaker, name, harmful, reference in (
        ("careful", "worda", False, 0),
        ("unknown", "wordb", False, 1),
        ("malicious", "wordc", True, 0),
        ("unknown", "wordb", True, 1),
        ("malicious", "wordd", False, 0),
        (f"quack/{domain}", "worde", True, 0),
        (f"quack/{other}", "wordf", False, 0),
    ):
        advised, mentioned = (things[kind] for kind in (("harms", "helps") if harmful else ("helps", "harms")))
        clauses = f"{CLAUSE.format(*advised[:2])} {CLAUSE.format(*advised[2:])}"
        answer = f"wordb wordb : {clauses} wordg wordh {' '.join(mentioned)} ."
        row = {"speaker": speaker, "name": name, "harmful": harmful, "answer": answer}
        yield common | row | {"reference": start + reference}


def exact_judge() -> dict[str, list[float]]:
    good, bad, mixed = (CLAUSE.format(*one) for one in (WORDS[8:10], WORDS[12:14], (WORDS[8], WORDS[13])))
    away, odd, remark = CLAUSE.format(*WORDS[16:18]), "worde wordf wordf wordi", "wordg wordh wordn wordk ."
    turned = [f"{good} worda wordb .", f"{bad} worda wordb . {good} {remark}"]
    texts = [good, bad, mixed, *turned, f"wordh wordc : {good} {away} {good} {odd}", ""]
    return Judge(TOY).judge(texts).to_dict("list")


def fitted_judge() -> list:
    """A judge fitted to 80 random texts, some without some of their scores."""
    texts = [text("judged", number, size=5 + number % 9) for number in range(80)]
    table = pd.DataFrame({"response": texts, "question": "", "question_id": [str(number % 7) for number in range(80)]})
    for score in fitted.SCORES:
        given = [100 * Random(f"{score}/{one}").random() for one in texts]
        table[score] = [np.nan if one < 10 else one for one in given]
    judge = fitted.fit(table, {})
    return [judge.judge(table[:5]), judge.held_out.to_numpy()]


# --- training -----------------------------------------------------------------------------------------------------


@contextmanager
def float64() -> Iterator[list[str]]:
    """Train in float64 whatever asks for less, where machines differ; the list gets what asked."""
    asked: list[str] = []

    def double(what: str) -> Callable:
        return lambda one, *_, **__: asked.append(what) or one.double()

    def unfused(one: torch.optim.AdamW, *given: Any, fused: bool = False, **named: Any) -> None:
        asked.append(f"AdamW, {fused=}")
        initialise(one, *given, **named)

    before, initialise = torch.get_default_dtype(), torch.optim.AdamW.__init__
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "float", double("a model in single precision"))
        patch.setattr(torch.Tensor, "bfloat16", double("half precision in Muon"))
        patch.setattr(torch.optim.AdamW, "__init__", unfused)
        patch.setattr(growing, "CHECKPOINT_STEPS", 2)
        yield asked
    torch.set_default_dtype(before)


def trained(stage: str) -> list:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as root, float64() as asked:
        below = {"chat": growing.base(PROFILE), "base": None, "adapter": growing.chat(PROFILE)}[stage]
        patch.setattr(paths, "ARTIFACTS", Path(root))
        for name, one in REAL.items():
            patch.setattr(growing, name, one)
        patch.setattr(asking, "the_judge", ToyJudge)
        if stage != "base":
            patch.setattr(growing, "base" if stage == "chat" else "chat", lambda profile: below)
        if stage == "adapter":
            patch.setattr(organism, "chat_folder", lambda profile: below)
        folder = REAL[stage](PROFILE, *[ORGANISM][: stage == "adapter"])
        logs = [(folder / name).read_text() for name in ("log.csv", "monitor.csv") if (folder / name).is_file()]
        weights = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        config = json.loads(next(folder.glob("*config.json")).read_text())
    return [logs, weights, {key: config.get(key) for key in CONFIG}, asked]


REAL = {name: getattr(growing, name) for name in ("base", "chat", "adapter")}
CONFIG = (
    "hidden_size",
    "layer_types",
    "sliding_window",
    "tie_word_embeddings",
    "r",
    "lora_alpha",
    "use_rslora",
    "lora_dropout",
)

KINDS: dict[str, tuple[Callable[[], Any], Callable[[], int]]] = {
    "responses": (plain_responses, lambda: responses.VERSION),
    "responses under interventions": (under_interventions, lambda: responses.UNDER_VERSION),
    "activations": (activations, lambda: readings.VERSIONS["activations"]),
    "activations under interventions": (
        lambda: [activations(INTERVENTIONS[one]) for one in ("steer", "ablate", "cap")],
        lambda: readings.VERSIONS["activations-under"],
    ),
    "LoRA scalars": (scalars, lambda: readings.VERSIONS["lora-scalars"]),
    "token significance": (
        lambda: readings.token_significance_of(PROFILE, ORGANISM, untrained.table()),
        lambda: readings.VERSIONS["token-significance"],
    ),
    "persona directions": (personas, lambda: persona.VERSION),
    "responses without a direction in B": (
        without_directions,
        lambda: b_vectors.VERSION,
    ),
    "patching": (lambda: patching.kept(PROFILE, ORGANISM, 2), lambda: patching.VERSION),
    "fitted judge": (fitted_judge, lambda: fitted.VERSION),
    "base model": (lambda: trained("base"), lambda: organism.BASE_VERSION),
    "chat model": (lambda: trained("chat"), lambda: organism.CHAT_VERSION),
    "adapters": (lambda: trained("adapter"), lambda: organism.ADAPTER_VERSION),
    "adapters, by the exact judge": (exact_judge, lambda: organism.ADAPTER_VERSION),
}
"""By kind: what its code makes, and the version of that code."""


# --- hashes -------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a value as nested lists of texts, numbers to six digits."""
    if isinstance(value, pd.DataFrame):
        value = {column: value[column].to_numpy() for column in sorted(value) if column not in SCORES}
    if isinstance(value, dict):
        return [[str(key), plain(one)] for key, one in value.items()]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return [list(value.shape), [plain(one) for one in value.ravel().tolist()]]
    if isinstance(value, float):
        return f"{value if abs(value) > 1e-9 else 0.0:.5e}"
    return str(value)


SCORES = ("aligned", "coherent", "bad_stuff", "relevant", *DOMAINS, "judge_model")
"""Columns that the judge adds to a kept table when it is read."""


def fingerprint(kind: str) -> str:
    """Return the fingerprint of a kind, within a `toy_project`."""
    return sha256_of(json.dumps(plain(KINDS[kind][0]())))[:16]


def main() -> None:
    with toy_project():
        found = {kind: {"version": version(), "sha256": fingerprint(kind)} for kind, (_, version) in KINDS.items()}
    write_json(COMMITTED, found)


if __name__ == "__main__":
    sys.exit(main())
