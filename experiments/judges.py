"""Compare families of fitted judges on the same released responses and the same held-out questions.

    python experiments/judges.py FOLDER    # of the sentence embedder all-MiniLM-L6-v2, in hub layout

Minutes on two cores. Of the texts that the fitted judge learns from 6,000 are drawn at random; five folds of whole
questions, alike for all. Rule: the family with the highest mean of two AUCs on held-out questions (EM among coherent
answers; incoherence), and within 0.01 of it one that needs no model of its own. Notebook k-fitted-judge reads it.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from transformers import AutoModel, AutoTokenizer

from em_companion.core.files import sha256_of, write_json, write_text
from em_companion.core.paths import RESULTS
from em_companion.core.provenance import environment, recorded, utc_now
from em_companion.evidence import agreement
from em_companion.judges import fitted

ROWS, SEED, MOST_TOKENS, BATCH = 6000, 0, 256, 64


def embeddings(folder: Path, texts: list[str]) -> np.ndarray:
    """Return the mean of a text's last hidden states, scaled to length 1, [text, width]."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(texts, truncation=True, max_length=MOST_TOKENS)["input_ids"]
    found = np.zeros((len(texts), model.config.hidden_size))
    for rows in np.array_split(np.argsort([len(one) for one in ids]), len(ids) // BATCH + 1):
        batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        with torch.inference_mode():
            hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        found[rows] = torch.nn.functional.normalize((hidden * mask).sum(1), dim=1).numpy()
    return found


def families(folder: Path, texts: pd.Series) -> Iterator[tuple[str, Callable, Callable]]:
    """Yield name, features [text, feature] and a new regression of every family."""

    def ridge() -> Ridge:
        return Ridge(alpha=fitted.ALPHA, solver="lsqr", tol=1e-3)

    length = np.log1p(texts.str.len().to_numpy())[:, None]
    yield "length of the answer", lambda: length - length.mean(), ridge
    words = TfidfTransformer(sublinear_tf=True)
    yield "words and signs, ridge", lambda: words.fit_transform(fitted.WORDS.transform(texts)), ridge
    embedded = embeddings(folder, texts.to_list())
    yield "sentence embedding, ridge", lambda: embedded, ridge
    yield (
        "sentence embedding, boosted trees",
        lambda: embedded,
        lambda: HistGradientBoostingRegressor(random_state=SEED),
    )


def measured(table: pd.DataFrame, features: np.ndarray, regression: Callable) -> dict[str, float]:
    """Return correlations, AUCs and the seconds of fitting, of predictions for held-out questions."""
    start, found = time.perf_counter(), pd.DataFrame(index=table.index, columns=["aligned", "coherent"], dtype=float)
    for score in found:
        given, column = table[score].to_numpy(), np.zeros(len(table))
        for rows, out in GroupKFold(fitted.FOLDS).split(table, groups=table.question_id):
            rows = rows[~np.isnan(given[rows])]
            column[out] = regression().fit(features[rows], given[rows]).predict(features[out])
        found[score] = column
    seconds = time.perf_counter() - start
    row = {key: value for key, value in agreement.between(table, found).items() if key.startswith(("r_", "auc_"))}
    return row | {"mean_auc": (row["auc_em"] + row["auc_incoherent"]) / 2, "fit_seconds": seconds}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    code = environment()  # as it is now, and not when the run ends
    with recorded() as inputs:
        table = fitted.training_texts().sample(ROWS, random_state=SEED, ignore_index=True)
    rows = []
    for name, features, regression in families(folder, table.response):
        rows.append({"family": name} | measured(table, features(), regression))
        print(rows[-1], flush=True)
    place = RESULTS / "judges.csv"
    write_text(place, pd.DataFrame(rows).round(4).to_csv(index=False, lineterminator="\n"))
    model = {"name": "all-MiniLM-L6-v2", "sha256": sha256_of((folder / "model.safetensors").read_bytes())}
    told = {"script": "experiments/judges.py", "rows": ROWS, "seed": SEED, "embedder": model, "inputs": inputs}
    write_json(place.with_suffix(".json"), told | {"date": utc_now()} | code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
