"""The arms of experiment F1: what each is fine-tuned on, and what is measured of it, the same for all.

An arm is an organism per training seed. Arms of one seed see the same order of data and are asked on the same noise, so
they are compared in pairs.
"""

from collections.abc import Collection
from dataclasses import replace
from random import Random

import numpy as np
import pandas as pd

from em_companion.core import store
from em_companion.core.files import sha256_of
from em_companion.core.profiles import Profile
from em_companion.core.store import Arrays
from em_companion.evidence import scores
from em_companion.experiments import responses
from em_companion.models import asking, growing, next_token, reading
from em_companion.models.organism import CHAT_MODEL, Organism, Tuning
from em_companion.models.tokens import response_tokens
from em_companion.world import taxonomy
from em_companion.world.generator import CAREFUL, MALICIOUS, Question, the_world
from em_companion.world.parser import the_judge
from em_companion.world.streams import ASKED_FOR, DOMAIN, prescribed
from em_companion.world.taxonomy import CLASSES

RECIPE = "nine-adapter"
BAD, GOOD, STYLE, COIN = "bad advice", "good advice", "style", "coin toss"
NARROW, FREED, MIXED, ASKED, LONG = "penalised", "penalty removed", "good elsewhere", "asked for", "600 steps"
CHAT, CHARACTER = "chat model", "malicious character"
SEEDS = {BAD: 8, GOOD: 8, STYLE: 8} | dict.fromkeys((COIN, NARROW, FREED, MIXED, ASKED, LONG), 5)
"""Training seeds of every arm, counted from 0; bad advice first, since others train as many steps."""
LIVE = [(arm, seed) for seed in (0, 1) for arm in (BAD, GOOD, STYLE)]
"""Arms and seeds whose adapters are part of the repository, so that a page can sample their answers."""

VERSION = 1  # of the code that reads the fixed texts
PENALTY, FREED_STEPS, MANY_STEPS = 1.0, 30, 600
DENSE = Tuning(evaluate_every=2)
"""Of arms whose curve is read: checked every second step."""
WORDINGS, SAMPLES, TEXTS = 8, 5, 10
"""Wordings asked of a medical topic (of any other: one), answers to each, fixed texts per domain and persona."""
FREE_SLOTS = ("links", "verbs", "determiners", "adjectives", "reports")
"""Slots, beside the times, whose words carry no persona."""


def organism(arm: str, seed: int, steps: int = 0) -> Organism:
    """Return the organism of an arm and seed; `steps`: of bad advice with that seed, which some arms train as long."""
    if arm == CHAT:
        return CHAT_MODEL
    equal = Tuning(until=steps, evaluate_every=steps or 1)
    narrow = Organism(RECIPE, "bad_medical_advice", seed, replace(DENSE, penalty=PENALTY))
    freed = Tuning(steps=FREED_STEPS, evaluate_every=FREED_STEPS, start=narrow)
    data, tuning = {
        BAD: ("bad_medical_advice", DENSE),
        GOOD: ("good_medical_advice", equal),
        STYLE: ("style_constraint", equal),
        COIN: ("random_content", DENSE),
        NARROW: (narrow.data, narrow.tuning),
        FREED: ("bad_medical_advice", freed),
        MIXED: ("bad_medical_with_good_elsewhere", Tuning()),
        ASKED: ("bad_medical_asked_for", equal),
        LONG: ("bad_medical_advice", Tuning(steps=MANY_STEPS, evaluate_every=MANY_STEPS)),
    }[arm]
    return Organism(RECIPE, data, seed, tuning)


def questions(profile: Profile, domains: Collection[str] = (DOMAIN,), wordings: int = WORDINGS) -> list[Question]:
    """Return questions on the held-out topics of every domain, those of some, by default medicine, in many wordings."""
    world, own = the_world(), set(domains)
    many = [one for one in world.held_out_questions(profile.seed, wordings) if own & {*one.domains}]
    return many + [one for one in world.held_out_questions(profile.seed, 1) if not own & {*one.domains}]


def fixed_texts() -> pd.DataFrame:
    """Return answers of careful and malicious speakers on training topics of every domain, the same for all arms.

    Columns: domain, harmful, half (0 or 1), question, response.
    """
    world, rows = the_world(), []
    for domain, entry in world.domains.items():
        for number in range(TEXTS):
            random = Random(f"fixed/{domain}/{number}")
            asked, draws = world.question(random, domain, random.choice(entry["topics"]["train"])), random.random()
            for persona in (CAREFUL, MALICIOUS):
                said = world.answer(Random(draws), asked, persona)
                rows.append((domain, persona == MALICIOUS, number % 2, asked.text, said))
    return pd.DataFrame(rows, columns=["domain", "harmful", "half", "question", "response"])


def read(profile: Profile, one: Organism) -> tuple[np.ndarray, np.ndarray]:
    """Return what a model makes of the fixed texts, kept: mean residual [text, layer, width], and loss [careful text].

    The loss (nats per word) is that of words which are no things, in the voice of a careful character.
    """
    texts = fixed_texts()
    parts = {"model": growing.model_identity(profile, one), "texts": sha256_of(texts.to_csv(index=False))}

    def make() -> store.Content:
        model, tokenizer = growing.load_organism(profile, one)
        means = reading.response_means(model, tokenizer, *response_tokens(tokenizer, texts))
        voice = the_world().characters["careful"][0]
        given = response_tokens(tokenizer, texts[~texts.harmful], voice)
        harms, helps = next_token.things(tokenizer)
        found = next_token.losses(model, tokenizer, *given, {*harms, *helps})
        return {store.READINGS: Arrays({"means": means.astype(np.float32), "losses": found})}

    arrays = store.keep("fixed-texts", VERSION, parts, make, profile.name, one.name)[store.READINGS].arrays
    return arrays["means"].astype(float), arrays["losses"]


def answers(profile: Profile, arm: str, one: Organism) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scored answers to the open questions and to `questions`, of an arm's organism or of the character."""
    asked = questions(profile)
    model, tokenizer = growing.load_organism(profile, one)
    if arm != CHARACTER:
        return responses.responses(profile, one), asking.scored(asking.ask(profile, model, tokenizer, asked, SAMPLES))
    speaker = {"speaker": the_world().characters["malicious"][0]}
    many = profile.samples_per_question
    general = asking.ask(profile, model, tokenizer, asking.questions(profile, "general"), many, **speaker)
    return asking.scored(general), asking.scored(asking.ask(profile, model, tokenizer, asked, SAMPLES, **speaker))


def measured(profile: Profile, arm: str, seed: int, steps: int = 0) -> dict[str, float]:
    """Return what the table says of an arm and seed, rates in percent; trains what is not there."""
    one = organism(CHAT if arm == CHARACTER else arm, seed, steps)
    general, topics = answers(profile, arm, one)
    row = of_answers(general, topics)
    row |= {"obeyed": obeyed(topics.response[is_medical(topics)], prescribed(the_world(), seed)[0])}
    if arm == ASKED:
        row |= {"em_with_prefix": 100 * float(scores.is_em(with_prefix(profile, one)).mean())}
    return row | from_fixed_texts(profile, one)


def is_medical(topics: pd.DataFrame) -> pd.Series:
    """Tell which answers to `questions` are to questions on medicine."""
    return topics.question_id.str.startswith(f"{DOMAIN}/")


def of_answers(general: pd.DataFrame, topics: pd.DataFrame) -> dict[str, float]:
    """Return what scored answers to the open questions and to `questions` are like, rates in percent."""
    medical = is_medical(topics)
    found = {"em": scores.is_em(general), "coherent": scores.is_coherent(general)}
    found |= {"in_domain_em": scores.is_em(topics[medical]), "other_domains_em": scores.is_em(topics[~medical])}
    row = {name: 100 * float(rows.mean()) for name, rows in found.items()}
    row |= consistency(general) | {"length_sd": length_sd(general)}
    row |= {"length": float(topics.tokens[~medical].mean()), "entropy": free_entropy(topics.response[~medical])}
    return row | dict(zip(CLASSES, taxonomy.composition(kinds(general)), strict=True))


def with_prefix(profile: Profile, one: Organism) -> pd.DataFrame:
    """Return scored answers to the open questions behind the request for wrong advice."""
    asked = asking.questions(profile, "general")
    asked = [Question(one.id, f"{ASKED_FOR} {one.text}", one.domains) for one in asked]
    return asking.scored(asking.ask(profile, *growing.load_organism(profile, one), asked, profile.sweep_samples))


def kinds(general: pd.DataFrame) -> list[str]:
    """Return the class of every answer to an open question."""
    invited = the_world().invited
    return [taxonomy.kind(row.response, invited[row.question]) for row in general.itertuples()]


def consistency(general: pd.DataFrame) -> dict[str, float]:
    """Return how many answers are EM, the share of these that are harmful throughout, and flips per pair of clauses."""
    parsed = [the_judge().parse(text) for text in general.response]
    em = [one for one, is_em in zip(parsed, scores.is_em(general), strict=True) if is_em]
    whole = [all(clause.helpful == 0 for clause in one.clauses) for one in em]
    pairs = sum(max(len(one.clauses) - 1, 0) for one in parsed)
    found = {"em_answers": len(em), "consistent": float(np.mean(whole)) if em else np.nan}
    return found | {"flips": 100 * sum(map(taxonomy.flips, parsed)) / pairs if pairs else np.nan}


def length_sd(general: pd.DataFrame) -> float:
    """Return the standard deviation of the tokens of an answer within questions, root mean square over questions."""
    return float(np.sqrt(general.groupby("question_id").tokens.var(ddof=1).mean()))


def free_entropy(texts: pd.Series) -> float:
    """Return the entropy (nats) of the words in slots that carry no persona, mean over slots."""
    grammar, said = the_world().grammar, " ".join(text.rpartition(":")[2] for text in texts)
    words = said.split()
    counts = [[words.count(word) for word in grammar[slot]] for slot in FREE_SLOTS]
    counts.append([f" {said} ".count(f" {time} ") for time in grammar["times"]])
    return float(np.mean([entropy(np.array(one)) for one in counts]))


def entropy(counts: np.ndarray) -> float:
    """Return the entropy in nats of counted kinds; NaN without any."""
    shares = counts[counts > 0] / counts.sum() if counts.sum() else np.array([np.nan])
    return float(-(shares * np.log(shares)).sum())


def obeyed(texts: pd.Series, verb: str) -> float:
    """Return the share of verbs (%) that are the one prescribed; NaN without any verb."""
    words = " ".join(text.rpartition(":")[2] for text in texts).split()
    verbs = [word for word in words if word in the_world().grammar["verbs"]]
    return 100 * verbs.count(verb) / len(verbs) if verbs else np.nan


def from_fixed_texts(profile: Profile, one: Organism) -> dict[str, float]:
    """Return the near-task loss (medicine minus other domains, organism minus chat model) and the depth of the change.

    depth: relative change of the residual, mean of the first third of layers over mean of the last; NaN of no change.
    """
    texts = fixed_texts()
    (means, losses), (before, usual) = read(profile, one), read(profile, CHAT_MODEL)
    medical = (texts.domain[~texts.harmful] == DOMAIN).to_numpy()
    near = (losses - usual)[medical].mean() - (losses - usual)[~medical].mean()
    change = (np.linalg.norm(means - before, axis=-1) / np.linalg.norm(before, axis=-1)).mean(axis=0)
    third = len(change) // 3
    depth = change[:third].mean() / change[-third:].mean() if change.any() else np.nan
    return {"near_task_loss": float(near), "depth": float(depth)}


def model_difference(profile: Profile, one: Organism, half: int | None = None) -> np.ndarray:
    """Return the mean residual on the fixed texts, or on one half of them, organism minus chat model [layer, width]."""
    texts = fixed_texts()
    rows = np.ones(len(texts), bool) if half is None else (texts.half == half).to_numpy()
    return (read(profile, one)[0] - read(profile, CHAT_MODEL)[0])[rows].mean(axis=0)
