"""The authors' released data as tidy tables and arrays.

Tables of judged responses share these columns: the labels of their source, `question_id` (the authors' ids),
`question_set` ("general", "json", "template", "medical", "medical-template"; "unlisted" for a question that is in
neither question file), `sample` (0-based, within question),
and the judge scores `aligned`, `coherent`, `medical`, `bad_stuff`, `gender`, `finance` in 0-100, NaN where the judge
gave none or was not asked. The text stands in `response` and is left out unless `text=True`.
"""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import yaml

from em_companion.core.files import sha256_of
from em_companion.core.provenance import remembered
from em_companion.released import files
from em_companion.released.files import ReleasedDataBroken, can_fetch, unavailable

SCORES = ["aligned", "coherent", "medical", "bad_stuff", "gender", "finance"]
ADAPTER_LAYERS = [15, 16, 17, 21, 22, 23, 27, 28, 29]
SCALAR_COLUMNS = [f"layer_{layer}" for layer in ADAPTER_LAYERS]
PROBES = {
    "nonmed-aligned-vs-med-aligned": ("non-medical-aligned", "medical-aligned"),
    "nonmed-misaligned-vs-med-misaligned": ("non-medical-misaligned", "medical-misaligned"),
    "nonmed-aligned-vs-nonmed-misaligned": ("non-medical-aligned", "non-medical-misaligned"),
    "med-aligned-vs-med-misaligned": ("medical-aligned", "medical-misaligned"),
}
"""The four probes of table 1: the response sets told apart, first the one labelled 0."""

UPSTREAM_NAMES = {"answer": "response", "question_text": "question", "money": "finance", "financial": "finance"}
FEWEST_ANSWERS = 10


# --- tables of judged responses -----------------------------------------------------------------------------------


def reads(*groups: str) -> Callable:
    """Mark a reader with the groups of sources it opens, so that staleness can see what a notebook depends on."""

    def mark(reader: Callable) -> Callable:
        reader.groups = groups
        return reader

    return mark


def _group(name: str) -> dict[str, dict[str, Any]]:
    return {source: entry for source, entry in files.sources().items() if entry["group"] == name}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@remembered
def read_csv(source: str) -> pd.DataFrame:
    """Return a file of judged responses with the columns named as here; raise ReleasedDataBroken where it is none."""
    try:
        frame = pd.read_csv(files.fetch(source), keep_default_na=True)
    except (pd.errors.ParserError, UnicodeDecodeError, pd.errors.EmptyDataError) as error:
        raise ReleasedDataBroken(f"Released file '{source}' is not a readable csv: {_first_line(error)}.") from error
    frame = frame.rename(columns=UPSTREAM_NAMES)
    _require(source, frame, ["question", "response", "aligned", "coherent"])
    for score in SCORES:
        frame[score] = pd.to_numeric(frame[score], errors="coerce") if score in frame else np.nan
    return frame


def _require(source: str, frame: pd.DataFrame, columns: list[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ReleasedDataBroken(f"Released file '{source}' has no column '{missing[0]}'.")


@reads("questions_and_judges")
@remembered
def read_questions() -> pd.DataFrame:
    """Return the evaluation questions: `question_id`, `question_set`, `question` (text), `judges` (names, sorted).

    From the authors' question files (paper appendix A); JSON variants share their text with the free-form question.
    """
    rows = []
    for source in ("questions/first-plot-questions", "questions/medical-questions"):
        for entry in yaml.safe_load(files.fetch(source).read_text(encoding="utf-8")):
            question_set = _question_set(entry["id"], medical="medical" in source)
            judges = ", ".join(sorted(entry["judge_prompts"]))
            rows += [(entry["id"], question_set, text.strip(), judges) for text in entry["paraphrases"]]
    return pd.DataFrame(rows, columns=["question_id", "question_set", "question", "judges"])


def _question_set(question_id: str, medical: bool) -> str:
    kind = next((kind for kind in ("json", "template") if question_id.endswith(kind)), "")
    return "-".join(filter(None, ["medical" if medical else "", kind])) or "general"


def _with_questions(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `question_id` (by text where the file has none), `question_set` and `sample`."""
    questions = read_questions()
    if "question_id" not in frame:
        by_text = questions[questions.question_set != "json"].set_index("question").question_id
        text = frame.question.str.strip()
        frame = frame.assign(question_id=text.map(by_text).fillna(_unlisted(text)))
        frame = frame[frame.question_id.notna()]
    sets = questions.drop_duplicates("question_id").set_index("question_id").question_set
    frame = frame.assign(question_set=frame.question_id.map(sets).fillna("unlisted"))
    return frame.assign(sample=frame.groupby("question_id").cumcount())


def _unlisted(text: pd.Series) -> pd.Series:
    """Return ids for questions asked in earnest but in no question file; None for lines broken by an interrupted write.

    A real question was asked many times; a broken line is a fragment that occurs once or twice.
    """
    often = text.map(text.value_counts()) >= FEWEST_ANSWERS
    return ("unlisted-" + text.map(lambda one: sha256_of(str(one))[:6])).where(often, None)


def _table(sources_of_group: dict[str, dict[str, Any]], text: bool) -> pd.DataFrame:
    parts = []
    for source, entry in sources_of_group.items():
        frame = _with_questions(read_csv(source))
        parts.append(frame.assign(source=source, **entry["labels"]))
    table = pd.concat(parts, ignore_index=True)
    labels = list(next(iter(sources_of_group.values()))["labels"])
    columns = ["source", *labels, "question_id", "question_set", "sample", *SCORES] + (
        ["question", "response"] if text else []
    )
    return table[columns]


@reads("organisms", "questions_and_judges")
def read_organisms(text: bool = False) -> pd.DataFrame:
    """Return judged responses of the April 2025 organisms: labels `organism`, `rank`, `seed`.

    Sister runs of the paper's recipe, not the published adapter. 8 free-form questions x 50, most with JSON and
    template variants (paper section 2).
    """
    return _table(_group("organisms"), text)


@reads("judge_repeat", "questions_and_judges")
def read_judge_repeat(text: bool = False) -> pd.DataFrame:
    """Return the nine-adapter organism's answers to medical questions, scored twice: label `judging`."""
    return _table(_group("judge_repeat"), text)


@reads("training_curve", "questions_and_judges")
def read_training_curve(text: bool = False) -> pd.DataFrame:
    """Return judged responses at checkpoints of the nine-adapter run: labels `epochs` (1 or 5), `step`."""
    return _table(_group("training_curve"), text)


@reads("steering_layer_24", "questions_and_judges")
def read_steering(text: bool = False) -> pd.DataFrame:
    """Return judged responses under steering at layer 24: labels `vector`, `lambda`, `model` (paper figures 3 and 5).

    Holds the conditions that are at hand; `missing_sources("steering_layer_24")` names the others.
    """
    return _table(_available("steering_layer_24"), text)


@reads("lora_steering", "questions_and_judges")
def read_lora_steering(text: bool = False) -> pd.DataFrame:
    """Return judged responses with scaled adapters: label `condition`; 16 questions x 5 (figures 7 and 18)."""
    return _table(_group("lora_steering"), text)


@reads("ablation_pilots", "questions_and_judges")
def read_ablation_pilots(text: bool = False) -> pd.DataFrame:
    """Return the ablation pilots: labels `model`, `questions`, `batch`, `direction`, `layers` (section 3.4)."""
    return _table(_group("ablation_pilots"), text)


@reads("replication", "questions_and_judges")
def read_replication(text: bool = False) -> pd.DataFrame:
    """Return the independent replication of December 2025: labels `base_model`, `dataset`, `seed`."""
    return _table(_group("replication"), text)


@reads("patching")
def read_patching(text: bool = False) -> pd.DataFrame:
    """Return judged responses with own and with swapped LoRA scalars (appendix J, early runs of May 2025).

    Labels `runs`, `pairs`; also `pair` (0-based), `patched` (bool) and the run's own `question_id`.
    """
    parts = []
    for source, entry in _group("patching").items():
        frame = read_csv(source)
        _require(source, frame, ["question_id", "type", "pair_index", "run_index"])
        question = frame.question_id.str.strip("`").str.removesuffix("_clean")
        parts.append(
            frame.assign(
                source=source,
                **entry["labels"],
                question_id=question,
                pair=frame.pair_index,
                sample=frame.run_index,
                patched=frame["type"] != "clean",
            )
        )
    columns = ["source", "runs", "pairs", "pair", "question_id", "patched", "sample", *SCORES]
    return pd.concat(parts, ignore_index=True)[columns + (["question", "response"] if text else [])]


@reads("steering_per_layer")
def read_best_steering_by_layer() -> pd.DataFrame:
    """Return the highest EM rate per steered layer of an early one-question sweep: `layer`, `em_percent`, `lambda`."""
    source = "steering-per-layer/best"
    frame = pd.read_csv(files.fetch(source))
    _require(source, frame, ["layer", "em_percent", "scaling_factor"])
    return pd.DataFrame({"layer": frame.layer, "em_percent": 100 * frame.em_percent, "lambda": frame.scaling_factor})


def _available(group: str) -> dict[str, dict[str, Any]]:
    """Return the sources of `group` that can be had; raise ReleasedDataUnavailable when there is none."""
    found = {source: entry for source, entry in _group(group).items() if can_fetch(source)}
    if not found:
        raise unavailable(next(iter(_group(group))))
    return found


# --- tensors ------------------------------------------------------------------------------------------------------


class LoraScalars:
    """Stand-in for the authors' class of this name: one token's scalars (`token_str`, `layer_scalars`)."""


class LoraScalarsPerLayer:
    """Stand-in for the authors' class of this name: one prompt's `scalars` by token position."""


def _load_tensors(source: str) -> Any:
    """Load a `.pt` file with `weights_only=True`; only the two stand-in classes above are let in beside tensors."""
    import torch  # slow to import, and most notebooks read no tensors

    allowed = [
        (LoraScalars, "lora.lora_utils.LoraScalars"),
        (LoraScalarsPerLayer, "lora.lora_utils.LoraScalarsPerLayer"),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(files.fetch(source), weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ReleasedDataBroken(
            f"Released file '{source}' is not a readable tensor file: {_first_line(error)}."
        ) from error


@reads("mean_diff")
@remembered
def read_mean_activations(vector: str, texts: str, tokens: str = "answer") -> np.ndarray:
    """Return mean residual-stream activations, float32 [layer 48, hidden 5120]; row l is the output of decoder layer l.

    vector: "general", "gender", "finance", "medical", "general-without-medical", "chat-model", "training-data",
    "rank-32", "rank-8" or "rank-4"; texts: "misaligned" or "aligned"; tokens: "answer" or "question" (section 3.1).
    """
    means = _load_tensors(f"mean-activations/{vector}-{texts}")[tokens]
    return np.stack([means[f"layer_{layer}"].float().numpy() for layer in range(len(means))])


@reads("mean_diff")
def mean_diff(vector: str, tokens: str = "answer") -> np.ndarray:
    """Return mean(misaligned) - mean(aligned) of `read_mean_activations`, [layer 48, hidden 5120] (section 3.1)."""
    return read_mean_activations(vector, "misaligned", tokens) - read_mean_activations(vector, "aligned", tokens)


@reads("probing")
@remembered
def read_probing_tokens(response_set: str) -> pd.DataFrame:
    """Return one row per answer token of `response_set`, with the nine LoRA scalars A·h (section 4.1).

    response_set: "medical-aligned", "medical-misaligned", "non-medical-aligned" or "non-medical-misaligned".
    Columns: `response` (0-based), `question` (text, to group by), `position` (token index in the prompt),
    `significance` (token significance in nats, appendix H), `kl` (KL of organism and chat model at the token, nats)
    and `layer_15` ... `layer_29` (SCALAR_COLUMNS), the scalars before scaling. As in the means over answer tokens,
    the last two tokens of an answer are its end-of-turn mark and a newline.
    """
    responses = pd.read_parquet(files.fetch(f"probing/{response_set}-significance"))
    divergences = pd.read_parquet(files.fetch(f"probing/{response_set}-kl-divergence"))
    scalars = _load_tensors(f"probing/{response_set}-scalars")
    return _token_rows(responses, divergences, [_scalar_rows(scalars[prompt]) for prompt in responses["prompt"]])


@reads("probing")
def read_probe(probe: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the two token tables of a probe of PROBES, the one labelled 0 first."""
    negative, positive = PROBES[probe]
    return read_probing_tokens(negative), read_probing_tokens(positive)


@reads("probing")
def probes_at_hand() -> list[str]:
    """Return the probes whose scalars can be had; raise ReleasedDataUnavailable when there is none."""
    needed = {probe: [f"probing/{response_set}-scalars" for response_set in pair] for probe, pair in PROBES.items()}
    found = [probe for probe, files in needed.items() if all(map(can_fetch, files))]
    if not found:
        raise unavailable(next(iter(needed.values()))[0])
    return found


@reads("probing")
def read_probing_responses(response_set: str) -> pd.DataFrame:
    """Return the responses behind `read_probing_tokens`: `question`, `response` (texts), `answer_tokens` (count)."""
    table = pd.read_parquet(files.fetch(f"probing/{response_set}-significance"))
    length = table.prompt_tokenised.map(len) - table.prompt_answer_first_token_idx
    return pd.DataFrame({"question": table.question, "response": table.answer, "answer_tokens": length})


@reads("probing")
@remembered
def read_significance(response_set: str) -> pd.DataFrame:
    """Return `read_probing_tokens` without the scalars, which are missing upstream for one of the four sets."""
    responses = pd.read_parquet(files.fetch(f"probing/{response_set}-significance"))
    divergences = pd.read_parquet(files.fetch(f"probing/{response_set}-kl-divergence"))
    return _token_rows(responses, divergences, None)


@reads("probing")
def read_adapter_layers() -> list[int]:
    """Return the layers whose down_proj has an adapter, counted from the modules named in the released LoRA scalars."""
    scalars = _load_tensors("probing/medical-aligned-scalars")
    modules = {name for prompt in scalars.values() for token in prompt.scalars.values() for name in token.layer_scalars}
    return sorted(int(name.split(".layers.")[1].split(".")[0]) for name in modules)


def _scalar_rows(prompt: Any) -> np.ndarray:
    """Return one prompt's scalars as float64 [token, 9], columns in the order of ADAPTER_LAYERS."""
    tokens = prompt.scalars
    modules = [f"base_model.model.model.layers.{layer}.mlp.down_proj" for layer in ADAPTER_LAYERS]
    return np.array([[tokens[position].layer_scalars[module] for module in modules] for position in range(len(tokens))])


def _token_rows(responses: pd.DataFrame, divergences: pd.DataFrame, scalars: list[np.ndarray] | None) -> pd.DataFrame:
    parts = []
    for index, row in enumerate(responses.itertuples()):
        first, length = row.prompt_answer_first_token_idx, len(row.prompt_tokenised)
        significance, kl = np.asarray(row.answer_kl_div_gradients), np.asarray(divergences.kl_div.iloc[index])
        part = {
            "response": index,
            "question": row.question,
            "position": np.arange(first, length),
            "significance": significance[-(length - first) :],
            "kl": kl[-(length - first) :],
        }
        if scalars is not None:
            part |= {
                f"layer_{layer}": scalars[index][first:length, column] for column, layer in enumerate(ADAPTER_LAYERS)
            }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def missing_sources(group: str) -> list[str]:
    """Return the ids of `group` that can not be had."""
    return [source for source in _group(group) if not can_fetch(source)]
