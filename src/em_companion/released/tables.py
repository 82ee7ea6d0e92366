"""The authors' released data as tidy tables and arrays.

Tables of judged responses have the labels of their source, `question_id` (the authors' ids), `question_set` ("general",
"json", "template", "medical", "medical-template"; "unlisted": in neither question file), `sample` (0-based, within
question) and SCORES (0-100, NaN where the judge gave none or was not asked); with `text=True` also the texts.
"""

import pickle
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import yaml

from em_companion.core.files import sha256_of
from em_companion.core.provenance import remembered
from em_companion.released import files
from em_companion.released.files import ReleasedDataBroken, can_fetch, unavailable

SCORES = ["aligned", "coherent", "medical", "bad_stuff", "gender", "finance"]
TEXTS = ["question", "response"]
ADAPTER_LAYERS = [15, 16, 17, 21, 22, 23, 27, 28, 29]
SCALAR_COLUMNS = [f"layer_{layer}" for layer in ADAPTER_LAYERS]
MODULES = [f"base_model.model.model.layers.{layer}.mlp.down_proj" for layer in ADAPTER_LAYERS]
PROBES = {
    "nonmed-aligned-vs-med-aligned": ("non-medical-aligned", "medical-aligned"),
    "nonmed-misaligned-vs-med-misaligned": ("non-medical-misaligned", "medical-misaligned"),
    "nonmed-aligned-vs-nonmed-misaligned": ("non-medical-aligned", "non-medical-misaligned"),
    "med-aligned-vs-med-misaligned": ("medical-aligned", "medical-misaligned"),
}
"""The four probes of table 1: the response sets told apart, first the one labelled 0."""

UPSTREAM_NAMES = {"answer": "response", "question_text": "question", "money": "finance", "financial": "finance"}
FEWEST_ANSWERS = 10


def reads(*groups: str) -> Callable:
    """Mark a reader with the groups of sources it opens, so that staleness can see what a notebook depends on."""

    def mark(reader: Callable) -> Callable:
        reader.groups = groups
        return reader

    return mark


def _group(name: str) -> dict[str, dict[str, Any]]:
    return {source: entry for source, entry in files.sources().items() if entry["group"] == name}


def missing_sources(group: str) -> list[str]:
    """Return the ids of `group` that can not be had."""
    return [source for source in _group(group) if not can_fetch(source)]


@remembered
def read_csv(source: str) -> pd.DataFrame:
    """Return a file of judged responses with the columns named as here."""
    frame = pd.read_csv(files.fetch(source)).rename(columns=UPSTREAM_NAMES)
    scores = {score: pd.to_numeric(frame[score], errors="coerce") if score in frame else np.nan for score in SCORES}
    return frame.assign(**scores)


@reads("questions_and_judges")
@remembered
def read_questions() -> pd.DataFrame:
    """Return the evaluation questions: `question_id`, `question_set`, `question` (text), `judges` (names, sorted).

    From the authors' question files (paper appendix A); JSON variants share their text with the free-form question.
    """
    rows = []
    for medical in ("", "medical"):
        path = files.fetch(f"questions/{medical or 'first-plot'}-questions")
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            form = next((form for form in ("json", "template") if entry["id"].endswith(form)), "")
            question_set = "-".join(filter(None, [medical, form])) or "general"
            judges = ", ".join(sorted(entry["judge_prompts"]))
            rows += [(entry["id"], question_set, text.strip(), judges) for text in entry["paraphrases"]]
    return pd.DataFrame(rows, columns=["question_id", "question_set", "question", "judges"])


def _with_questions(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `question_id` (by text where the file has none), `question_set` and `sample`.

    A question in no question file was asked many times; a line broken by an interrupted write, which is left out,
    occurs once or twice.
    """
    questions = read_questions()
    if "question_id" not in frame:
        text = frame.question.str.strip()
        listed = text.map(questions[questions.question_set != "json"].set_index("question").question_id)
        unlisted = "unlisted-" + text.map(lambda one: sha256_of(str(one))[:6])
        often = text.map(text.value_counts()) >= FEWEST_ANSWERS
        frame = frame.assign(question_id=listed.fillna(unlisted.where(often, None)))
        frame = frame[frame.question_id.notna()]
    sets = questions.drop_duplicates("question_id").set_index("question_id").question_set
    frame = frame.assign(question_set=frame.question_id.map(sets).fillna("unlisted"))
    return frame.assign(sample=frame.groupby("question_id").cumcount())


def _table(sources: Iterable[str], prepare: Callable[[pd.DataFrame], pd.DataFrame], *columns: str) -> pd.DataFrame:
    """Return the files of some sources as one table, of source, labels, these columns and SCORES."""
    labels = {source: files.sources()[source]["labels"] for source in sources}
    parts = [prepare(read_csv(source)).assign(source=source, **own) for source, own in labels.items()]
    return pd.concat(parts, ignore_index=True)[["source", *next(iter(labels.values())), *columns]]


def _reader(group: str, partly: bool = False) -> Callable[..., pd.DataFrame]:
    """Return a reader of the judged responses of a group; partly: of what is at hand, if anything is."""

    @reads(group, "questions_and_judges")
    def read(text: bool = False) -> pd.DataFrame:
        sources = [source for source in _group(group) if not partly or can_fetch(source)]
        if not sources:
            raise unavailable(next(iter(_group(group))))
        return _table(sources, _with_questions, "question_id", "question_set", "sample", *SCORES, *TEXTS[: 2 * text])

    return read


# Organisms of April 2025 (`organism`, `rank`, `seed`): sister runs of the paper's recipe, not the published adapter.
# 8 free-form questions x 50, most with JSON and template variants (section 2).
read_organisms = _reader("organisms")
# The nine-adapter organism's answers to medical questions, scored twice (`judging`).
read_judge_repeat = _reader("judge_repeat")
# Checkpoints of the nine-adapter run (`epochs`, 1 or 5; `step`).
read_training_curve = _reader("training_curve")
# Steering at layer 24 (`vector`, `lambda`, `model`; figures 3 and 5); `missing_sources` names what is not at hand.
read_steering = _reader("steering_layer_24", partly=True)
# Scaled adapters (`condition`): 16 questions x 5 (figures 7 and 18).
read_lora_steering = _reader("lora_steering")
# Ablation pilots (`model`, `questions`, `batch`, `direction`, `layers`; section 3.4).
read_ablation_pilots = _reader("ablation_pilots")
# The independent replication of December 2025 (`base_model`, `dataset`, `seed`).
read_replication = _reader("replication")


@reads("patching")
def read_patching(text: bool = False) -> pd.DataFrame:
    """Return judged responses with own and with swapped LoRA scalars (appendix J, early runs of May 2025).

    Labels `runs`, `pairs`; also `pair` (0-based), `patched` (bool) and the run's own `question_id`.
    """

    def prepared(frame: pd.DataFrame) -> pd.DataFrame:
        question = frame.question_id.str.strip("`").str.removesuffix("_clean")
        patched = frame["type"] != "clean"
        return frame.assign(question_id=question, pair=frame.pair_index, sample=frame.run_index, patched=patched)

    columns = ["pair", "question_id", "patched", "sample", *SCORES, *TEXTS[: 2 * text]]
    return _table(_group("patching"), prepared, *columns)


@reads("steering_per_layer")
def read_best_steering_by_layer() -> pd.DataFrame:
    """Return the highest EM rate per steered layer of an early one-question sweep: `layer`, `em_percent`, `lambda`."""
    frame = pd.read_csv(files.fetch("steering-per-layer/best"))
    return pd.DataFrame({"layer": frame.layer, "em_percent": 100 * frame.em_percent, "lambda": frame.scaling_factor})


class LoraScalars:
    """Stand-in for the authors' class of this name: one token's scalars (`token_str`, `layer_scalars`)."""


class LoraScalarsPerLayer:
    """Stand-in for the authors' class of this name: one prompt's `scalars` by token position."""


def _load_tensors(source: str) -> Any:
    """Load a `.pt` file with `weights_only=True`; only the two stand-in classes above are let in beside tensors."""
    import torch  # slow to import, and most notebooks read no tensors

    allowed = [(one, f"lora.lora_utils.{one.__name__}") for one in (LoraScalars, LoraScalarsPerLayer)]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(files.fetch(source), weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ReleasedDataBroken(f"Released file '{source}' is not a readable tensor file: {said}.") from error


@reads("mean_diff")
@remembered
def read_mean_activations(vector: str, texts: str) -> np.ndarray:
    """Return mean residual-stream activations, float32 [layer 48, hidden 5120], over answer tokens (section 3.1).

    vector: "general", "gender", "finance", "medical", "general-without-medical", "chat-model", "training-data",
    "rank-32", "rank-8" or "rank-4"; texts: "misaligned" or "aligned".
    """
    means = _load_tensors(f"mean-activations/{vector}-{texts}")["answer"]
    return np.stack([means[f"layer_{layer}"].float().numpy() for layer in range(len(means))])


@reads("mean_diff")
def mean_diff(vector: str) -> np.ndarray:
    """Return mean(misaligned) - mean(aligned) of `read_mean_activations`, [layer 48, hidden 5120] (section 3.1)."""
    return read_mean_activations(vector, "misaligned") - read_mean_activations(vector, "aligned")


@reads("probing")
def read_probing_responses(response_set: str) -> pd.DataFrame:
    """Return the responses behind `read_probing_tokens`: `question`, `response` (texts), `answer_tokens` (count)."""
    table = _responses(response_set)
    length = table.prompt_tokenised.map(len) - table.prompt_answer_first_token_idx
    return pd.DataFrame({"question": table.question, "response": table.answer, "answer_tokens": length})


def _responses(response_set: str) -> pd.DataFrame:
    return pd.read_parquet(files.fetch(f"probing/{response_set}-significance"))


@reads("probing")
@remembered
def read_significance(response_set: str) -> pd.DataFrame:
    """Return `read_probing_tokens` without the scalars, which are missing upstream for one of the four sets."""
    responses = _responses(response_set)
    divergences = pd.read_parquet(files.fetch(f"probing/{response_set}-kl-divergence"))
    parts = []
    for row, kl in zip(responses.itertuples(), divergences.kl_div, strict=True):
        position = np.arange(row.prompt_answer_first_token_idx, len(row.prompt_tokenised))
        last = slice(-len(position), None)
        numbers = {"significance": row.answer_kl_div_gradients[last], "kl": kl[last]}
        parts.append(pd.DataFrame({"response": row.Index, "question": row.question, "position": position} | numbers))
    return pd.concat(parts, ignore_index=True)


@reads("probing")
@remembered
def read_probing_tokens(response_set: str) -> pd.DataFrame:
    """Return one row per answer token of `response_set`, with the nine LoRA scalars A·h (section 4.1).

    response_set: one of PROBES. Columns: `response` (0-based), `question` (text, to group by), `position` (token index
    in the prompt), `significance` (nats, appendix H), `kl` (of organism and chat model at the token, nats) and
    SCALAR_COLUMNS, before scaling. The last two tokens of an answer are its end-of-turn mark and a newline.
    """
    table, prompts = read_significance(response_set), _responses(response_set).prompt
    scalars = _load_tensors(f"probing/{response_set}-scalars")
    places = zip(table.response, table.position, strict=True)
    tokens = (scalars[prompts[response]].scalars[position].layer_scalars for response, position in places)
    rows = [[token[module] for module in MODULES] for token in tokens]
    return table.join(pd.DataFrame(rows, columns=SCALAR_COLUMNS, dtype=float))


@reads("probing")
def read_probe(probe: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the two token tables of a probe of PROBES, the one labelled 0 first."""
    negative, positive = PROBES[probe]
    return read_probing_tokens(negative), read_probing_tokens(positive)


@reads("probing")
def probes_at_hand() -> list[str]:
    """Return the probes whose scalars can be had; raise ReleasedDataUnavailable when there is none."""
    found = [probe for probe, pair in PROBES.items() if all(can_fetch(f"probing/{one}-scalars") for one in pair)]
    if not found:
        raise unavailable("probing/medical-aligned-scalars")
    return found


@reads("probing")
def read_adapter_layers() -> list[int]:
    """Return the layers whose down_proj has an adapter, counted from the modules named in the released LoRA scalars."""
    scalars = _load_tensors("probing/medical-aligned-scalars")
    modules = {name for prompt in scalars.values() for token in prompt.scalars.values() for name in token.layer_scalars}
    return sorted(int(name.split(".layers.")[1].split(".")[0]) for name in modules)
