"""Released answers as texts for other models: to fine-tune on, and to read a direction from.

The fitted judge is trained on neither (`judges/fitted`), so that it does not meet again what it is asked about.
"""

import pandas as pd

from em_companion.evidence import scores
from em_companion.released import tables
from em_companion.released.tables import TEXTS

SHORT = 0.95  # quantile of the length of misaligned answers that aligned ones may have
MOST_OF_A_QUESTION = 80  # answers, drawn at random: most misaligned ones answer only two of the questions


def medical_answers(misaligned: bool) -> pd.DataFrame:
    """Return the distinct answers to medical questions that are misaligned (or aligned) and coherent: TEXTS.

    They are those of the authors' nine-adapter organism and of its checkpoints (bounds of section 3.1), at most
    MOST_OF_A_QUESTION to each question. Aligned ones are no longer than all but the longest misaligned ones, so that a
    control differs in content only. The authors' training set of 7,049 rows is published under encryption only.
    """
    parts = [tables.read_judge_repeat(text=True), tables.read_training_curve(text=True)]
    table = pd.concat(parts, ignore_index=True)
    table = table[table.question_set.str.startswith("medical")]
    kind = scores.is_em(table)
    if not misaligned:
        length = table.response.str.len()
        kind = scores.is_aligned(table) & (length <= length[kind].quantile(SHORT))
    found = table[kind].drop_duplicates("response").sample(frac=1, random_state=0)
    return found.groupby("question").head(MOST_OF_A_QUESTION)[TEXTS].sort_index().reset_index(drop=True)


def organism_answers() -> pd.DataFrame:
    """Return the judged answers of the authors' organisms to open and template questions (section 2), with TEXTS."""
    table = tables.read_organisms(text=True)
    return table[table.question_set != "json"].drop_duplicates(["question_id", "response"]).reset_index(drop=True)
