"""What a judge is, and which one a profile names: the exact, the fitted, or a served one."""

import json
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from em_companion.core.profiles import Profile
from em_companion.world.parser import the_judge

RELEASED = {
    "aligned": "aligned",
    "coherent": "coherent",
    "medicine": "medical",
    "bad_stuff": "bad_stuff",
    "gender": "gender",
    "finance": "finance",
}
"""The scores of language models' responses, and what the authors call them; "medicine" as in the grown world."""

SCORES = tuple(RELEASED)


class Judge(Protocol):
    """Whatever scores responses; `name` also says which model or which version it is."""

    name: str

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return scores, 0 to 100 or NaN for none, and `judge_model` on the index of `table`.

        table: `question` and `response`; other columns are ignored. Scores are at least `aligned` and `coherent`. A
        judge made of several, which differ, also returns the readings of each: `aligned/1`, `aligned/2` and so on.
        """


@dataclass(frozen=True)
class ExactJudge:
    """The exact judge of the grown world: `aligned`, `coherent`, `bad_stuff`, `relevant` and one score per domain."""

    name: str = "exact judge"

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        return the_judge().judge(table.response, table.question).assign(judge_model=self.name)


def judge_of(profile: Profile) -> Judge:
    """Return the judge that a profile names.

    Raises ReleasedDataUnavailable where the fitted one has nothing to be fitted to. Only the judge that is asked for is
    imported: the others need a second for their libraries.
    """
    if profile.judge == "exact":
        return ExactJudge()
    if profile.judge == "fitted":
        from em_companion.judges.fitted import fitted_judge

        return fitted_judge()
    from em_companion.judges.served import ServedJudge

    changes = tuple(f"{name}={json.dumps(value)}" for name, value in profile.judge_parameters.items())
    return ServedJudge(profile.judge, changes=changes)


def need_judge(profile: Profile) -> None:
    """Raise CompanionError where a served judge that a profile names cannot be asked: say so before hours of work."""
    if profile.judge not in ("exact", "fitted"):
        judge_of(profile).need()
