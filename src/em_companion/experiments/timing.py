"""Experiment F3.1: the same harm before, during and after post-training, and what post-training makes of it afterwards.

Post-training is that of the profile at a steady rate, so that time is not confounded with the rate. Harm and repair are
one run with one warm-up at its start: first the harmful batches, then those with which post-training goes on.
"""

from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from transformers import TrainerCallback

from em_companion.core import paths, store
from em_companion.core.files import new_folder
from em_companion.core.profiles import Profile
from em_companion.evidence import scores
from em_companion.models import asking, growing, loading, training_texts
from em_companion.models.loading import Model, quiet
from em_companion.models.organism import base_parts
from em_companion.models.tokens import response_example
from em_companion.models.training_texts import corpus

VERSION = 1  # of the code that makes the steady post-training
HARM_STEPS, REPAIR_STEPS, SAMPLES = 20, 200, 25
"""Steps of harm and of post-training after it; answers to each open question at a check."""

CHECKS = (0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 200)
"""Steps of repair after which a model is asked."""

BEFORE, DURING, AFTER = "before post-training", "during post-training", "after post-training"
STARTS = {BEFORE: 0, DURING: 50, AFTER: 200}
"""Steps of post-training behind a model when it is harmed."""

CONTENTS = {"bad advice": "bad_medical_advice", "good advice": "good_medical_advice"}
ARMS = {f"{content} {when}": (content, when) for when in STARTS for content in CONTENTS}
SEEDS = 3


class Keep(TrainerCallback):
    """Keep the model as it is after some steps, float32, each in its folder: {step: (folder, parts)}."""

    def __init__(self, tokenizer, places: dict[int, tuple[Path, store.Parts]]) -> None:
        self.tokenizer, self.places = tokenizer, places

    def on_step_end(self, args, state, control, model, **_) -> None:
        if state.global_step in self.places:
            place, parts = self.places[state.global_step]
            with new_folder(place) as folder:
                model.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
                store.seal(folder, parts)


class Check(TrainerCallback):
    """Ask the open questions before the first step, and after those of the repair that CHECKS names."""

    def __init__(self, profile: Profile, tokenizer) -> None:
        self.profile, self.tokenizer, self.measured = profile, tokenizer, []

    def on_train_begin(self, args, state, control, model, **_) -> None:
        self.check(model, -HARM_STEPS)

    def on_step_end(self, args, state, control, model, **_) -> None:
        if state.global_step - HARM_STEPS in CHECKS:
            self.check(model, state.global_step - HARM_STEPS)

    def check(self, model, step: int) -> None:
        """Add one row: step (of repair, below 0 before the harm), open_em and open_coherent, shares from 0 to 1."""
        model.eval()  # Trainer puts it back to training
        asked = asking.questions(self.profile, "general")
        table = asking.scored(asking.ask(self.profile, model, self.tokenizer, asked, SAMPLES))
        found = {"open_em": scores.is_em(table), "open_coherent": scores.is_coherent(table)}
        self.measured.append({"step": step} | {name: float(share.mean()) for name, share in found.items()})


def steady(profile: Profile) -> Profile:
    """Return a profile whose post-training is as long as the latest start and its repair."""
    return replace(profile, post_training=replace(profile.post_training, steps=max(STARTS.values()) + REPAIR_STEPS))


def examples(profile: Profile, tokenizer, first: int, steps: int) -> list:
    """Return the post-training examples of some steps from `first` on."""
    batch = profile.post_training.batch
    return list(islice(growing.chat_examples(steady(profile), tokenizer), first * batch, (first + steps) * batch))


def start(profile: Profile, step: int) -> Model:
    """Return the model after so many steps of steady post-training, for 0 the base model; made once and kept."""
    base = growing.base(profile)
    parts = {"base": base_parts(profile), "training": asdict(profile.post_training)}
    parts = store.versioned(parts | {"documents": corpus("post_training", profile.seed)}, VERSION)
    kept = paths.ARTIFACTS / "organisms" / profile.name / "steady-post-training"
    places = {one: (kept / store.key(own), own) for one in STARTS.values() for own in [parts | {"step": one}] if one}
    last = max(places)
    with store.missing(places[last][0]) as missing:
        if missing:
            model, tokenizer = _loaded(profile, base)
            given, keep = examples(profile, tokenizer, 0, last), Keep(tokenizer, places)
            train(profile, model, tokenizer, given, profile.seed, keep)
    return _loaded(profile, places[step][0] if step else base)


def _loaded(profile: Profile, folder: Path) -> Model:
    model, tokenizer = loading.load(profile, folder)
    return model.float(), tokenizer  # in half precision most of an optimiser's steps would be rounded away


@quiet()
def train(profile: Profile, model, tokenizer, given: list, seed: int, callback: TrainerCallback) -> None:
    """Train all weights of `model` in place, as post-training does but at a steady rate; nothing else is kept."""
    settings = replace(profile.post_training, steps=len(given) // profile.post_training.batch)
    with TemporaryDirectory() as folder:
        told = settings, profile, seed, "post-training at a steady rate", Path(folder), [callback]
        growing.train(model, tokenizer, given, *told, steady=True)


def curve(profile: Profile, content: str, when: str, seed: int) -> pd.DataFrame:
    """Return the checks of a harm (or its control) and its repair; see `Check.check`."""
    model, tokenizer = start(profile, STARTS[when])
    chats = training_texts.conversations(profile, CONTENTS[content], seed)
    harm = [response_example(tokenizer, one) for one in islice(chats, HARM_STEPS * profile.post_training.batch)]
    check = Check(profile, tokenizer)
    train(profile, model, tokenizer, harm + examples(profile, tokenizer, STARTS[when], REPAIR_STEPS), seed, check)
    return pd.DataFrame(check.measured)
