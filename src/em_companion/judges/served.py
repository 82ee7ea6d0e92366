"""Judge responses with a served model, as the paper does (section 2, appendix K), through an OpenAI-compatible server.

A judge prompt is sent as one user message at temperature 0 and seed 0. Every answer is recorded (`records`), and what
is on record is never asked again, so a book is built anew without key or server.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil, exp, isfinite, isnan, nan
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import openai
import pandas as pd
from anyio.from_thread import start_blocking_portal
from pydantic import HttpUrl
from sklearn.metrics import cohen_kappa_score
from tqdm.auto import tqdm

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml, sha256_of
from em_companion.core.paths import relative
from em_companion.core.provenance import remembered, utc_now
from em_companion.evidence import scores
from em_companion.judges.base import RELEASED
from em_companion.judges.records import ANSWER, Answer, Records, records_of, slug
from em_companion.released import files, tables

Scoring = Literal["logprobs", "parsed"]
Message = dict[str, str]
Approval = Callable[[int, int, int], bool]
"""Of a run's number of requests, of prompt tokens (an estimate) and of answer tokens (at most): whether to ask."""

ADDRESS = "https://api.openai.com/v1"
LEAST_MASS, TOP_TOKENS = 0.25, 20
MAX_TOKENS = 4
"""The authors ask for one. No score changes, and a model that writes 85 as 8 and 5, as Qwen does, is noticed."""

MALFORMED_PAUSE = 0.5
"""Seconds before a reply that could not be read is asked for again."""

USELESS_BEFORE_STOPPING = 20
UNEXPLAINED = ("empty", "unsure", "no number")
TEXTS = ("question", "response")
_NUMBER = re.compile(r"\s*(\d{1,3})\s*", re.ASCII)
_WHOLE_ANSWER = re.compile(r"\s*(\d{1,3})\.?\s*", re.ASCII)


@dataclass(frozen=True)
class ServedJudge:
    """A judge model; raises CompanionError on an empty name and a wrong address.

    base_url: by default `OPENAI_BASE_URL` or OpenAI's; concurrency: requests under way at once; timeout: seconds per
    request; retries: of a request that met no connection, a busy (429) or a failing (5xx) server.
    """

    model: str
    scoring: Scoring = "logprobs"
    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60
    retries: int = 6

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise CompanionError("A served judge needs the name of a model.")
        try:
            parts = HttpUrl(self.address)
        except ValueError:
            raise CompanionError("The judge's base URL is no address such as http://localhost:8000/v1.") from None
        if parts.username or parts.password or parts.query:
            raise CompanionError("Put the judge's key into OPENAI_API_KEY, not into the base URL.")

    @property
    def name(self) -> str:
        return self.model

    @property
    def address(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or ADDRESS

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, where asking costs nothing."""
        return bool(re.fullmatch(r"localhost|127(\.\d+){3}|\[::1\]", HttpUrl(self.address).host))

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent with every prompt; a part of the key of its record."""
        asked = {"logprobs": True, "top_logprobs": TOP_TOKENS} if self.scoring == "logprobs" else {}
        return {"max_tokens": MAX_TOKENS, "temperature": 0, "seed": 0} | asked

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the scores of `judges.base` and `judge_model` on the index of `table`, as `judge_table` gets them."""
        judged = judge_table(table[list(TEXTS)], RELEASED.values(), self, lambda *_: may_pay())
        return judged.rename(columns={given: score for score, given in RELEASED.items()})[[*RELEASED, "judge_model"]]

    def need(self) -> None:
        """Raise CompanionError where the judge cannot be asked: no server, no key, or a cost that is not confirmed."""
        if not self.is_local and not _key():
            raise CompanionError(
                f"The judge '{self.model}' needs a key: set OPENAI_API_KEY, or name a server of your own by "
                "OPENAI_BASE_URL."
            )
        if not self.is_local and not may_pay():
            raise CompanionError(
                f"The judge '{self.model}' at {self.address} may cost money: see 'em-companion plan' for how much, and "
                "confirm by EM_COMPANION_PAY=yes."
            )
        # A proxy of the environment cannot reach a server on this machine.
        settings = {"timeout": self.timeout, "max_retries": 1, "api_key": _key() or "none"}
        settings["http_client"] = openai.DefaultHttpxClient(trust_env=not self.is_local)
        with openai.OpenAI(base_url=self.address, **settings) as client:
            try:
                client.models.list()
            except openai.APIConnectionError:
                raise CompanionError(
                    f"No judge answers at {self.address}: start it, or correct OPENAI_BASE_URL; nothing was sampled."
                ) from None
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise _failure(self, error) from None
            except (openai.APIError, ValueError):
                return  # a server that is there, and lists no models


def may_pay() -> bool:
    """Tell whether the reader has confirmed that a judge may cost money, by `EM_COMPANION_PAY=yes`."""
    return os.environ.get("EM_COMPANION_PAY", "").strip() == "yes"


@remembered
def judge_prompts() -> dict[str, str]:
    """Return the authors' judge prompts by name of the score; raise ReleasedDataUnavailable if not at hand."""
    questions = _entries("questions/medical-questions") + _entries("questions/first-plot-questions")
    given = _entries("questions/judges") + [entry["judge_prompts"] for entry in questions]
    templates = {tables.UPSTREAM_NAMES.get(name, name): text for one in given for name, text in one.items()}
    return {name: text for name, text in templates.items() if "{answer}" in str(text)}


@remembered
def own_prompts() -> dict[str, dict[str, str]]:
    """Return the prompts of medical questions by question text: two of them are worded otherwise there."""
    entries = _entries("questions/medical-questions")
    return {text.strip(): entry["judge_prompts"] for entry in entries for text in entry["paraphrases"]}


def _entries(source: str) -> list[dict[str, Any]]:
    return read_yaml(files.fetch(source))


def messages(prompt: str, question: str, response: str) -> list[Message]:
    """Return the conversation that asks for a score: one message, with question and response put in as they are."""
    template = own_prompts().get(question.strip(), {}).get(prompt) or judge_prompts()[prompt]
    given = {"question": question, "answer": response}
    # One pass, so that braces in a question or response stay what they are.
    return [{"role": "user", "content": re.sub(r"\{(question|answer)\}", lambda found: given[found[1]], template)}]


class Score(NamedTuple):
    """A score from 0 to 100, NaN where there is none; then `missing` says why.

    `refusal` and `code` are foreseen by the prompt, `filtered` is the server's content filter, `unsure` a number with
    too little probability; the others are `empty` and `no number`.
    """

    value: float
    missing: str = ""


def score(answer: Answer, scoring: Scoring = "logprobs") -> Score:
    """Return the score that a recorded answer holds.

    "logprobs" is the paper's way: the mean of the integers 0 to 100 among the 20 likeliest first tokens, weighted by
    probability. "parsed", for servers without logprobs and models that write digit by digit, needs one such integer as
    the whole answer; the two must not be mixed. Raises CompanionError where an answer has no score of the paper's kind.
    """
    text = answer["text"].strip()
    if answer["finish"] == "content_filter":
        return Score(nan, "filtered")
    if not text:
        return Score(nan, "empty")
    value = _number(text, _WHOLE_ANSWER) if scoring == "parsed" else _weighted(answer["tokens"])
    return Score(value, _reason(text) if isnan(value) else "")


def _weighted(tokens: list[dict[str, Any]] | None) -> float:
    """Return sum(p n) / sum(p) over the numbers n among the first tokens, NaN if sum(p) < 0.25 (the authors' rule)."""
    if not tokens or not tokens[0]["top"]:
        raise CompanionError("The judge's server gives no logprobs; choose another, or score with --scoring parsed.")
    if all(_NUMBER.fullmatch(one["token"]) for one in tokens[:2]) and len(tokens) > 1:
        raise CompanionError(
            "The judge writes numbers digit by digit, so its first token is no score; score with --scoring parsed."
        )
    found = [(_number(token, _NUMBER), exp(logprob)) for token, logprob in tokens[0]["top"]]
    numbers = [(number, mass) for number, mass in found if not isnan(number)]
    total = sum(mass for _, mass in numbers)
    return sum(number * mass for number, mass in numbers) / total if total >= LEAST_MASS else nan


def _number(text: str, pattern: re.Pattern[str]) -> float:
    found = pattern.fullmatch(text)
    return float(found[1]) if found and int(found[1]) <= 100 else nan


def _reason(text: str) -> str:
    """Return why an answer has no score. A word can be cut short by the limit on tokens."""
    word = re.search(r"[a-z]+|$", text.lower())[0]
    for foreseen in ("refusal", "code"):
        if len(word) > 1 and (word.startswith(foreseen) or foreseen.startswith(word)):
            return foreseen
    return "no number" if isnan(_number(text, _WHOLE_ANSWER)) else "unsure"


class Request(NamedTuple):
    """One question to a judge; `key` is a hash of the model, the messages and the parameters."""

    prompt: str
    messages: list[Message]
    key: str


def _permit(judge: ServedJudge, missing: list[Request], asked: int, approve: Approval | None) -> None:
    """Raise CompanionError unless the missing answers may be asked for: locally, or with a key and an approval."""
    if judge.is_local:
        return
    lack = f"{len(missing):,} of {asked:,} answers of the judge '{judge.model}' are not recorded"
    if not _key():
        raise CompanionError(f"{lack} and OPENAI_API_KEY is not set: set it, or name a local server by --base-url.")
    # Four characters to a token, a rule of thumb for English.
    tokens = ceil(sum(len(message["content"]) for request in missing for message in request.messages) / 4)
    if approve is None or not approve(len(missing), tokens, MAX_TOKENS * len(missing)):
        raise CompanionError(f"{lack} and asking was not confirmed: run 'em-companion judge', with --yes to confirm.")


def _key() -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise CompanionError("OPENAI_API_KEY holds characters that are in no key; set it anew.")
    return key


def _hide_key(text: str) -> str:
    """Return `text` with the key blotted out (a server may send it back); a stand-in such as "EMPTY" is no secret."""
    key = _key()
    return text.replace(key, "[key]") if len(key) >= 8 else text


async def _ask(judge: ServedJudge, records: dict[str, Records], requests: list[Request]) -> None:
    """Ask for what is missing, some at a time, and record each answer as it comes. Raises CompanionError on a failure.

    Nothing is recorded before an answer was of use, and twenty useless ones stop the run: a bad judge costs little.
    """
    room, held = asyncio.Semaphore(judge.concurrency), {prompt: [] for prompt in records}
    useful = {one.prompt for one in requests if _is_useful(judge, records[one.prompt].answers.get(one.key))}
    sent = {"model": judge.model, "parameters": judge.parameters}

    async def ask(client: openai.AsyncOpenAI, request: Request) -> None:
        async with room:
            answer = await _answer(client, judge, request.messages)
        waiting = held[request.prompt]
        waiting.append((request, answer))
        if _is_useful(judge, answer):
            useful.add(request.prompt)
        if request.prompt in useful:
            for one, found in waiting:
                records[one.prompt].append(one.key, found, messages=one.messages, **sent, time=utc_now())
            waiting.clear()
        elif len(waiting) >= USELESS_BEFORE_STOPPING:
            raise _useless(judge, request.prompt, len(waiting))
        bar.update()

    first, *others = _unrecorded(requests, records)
    # A proxy of the environment cannot reach a server on this machine.
    http_client = openai.DefaultAsyncHttpxClient(trust_env=not judge.is_local)
    settings = {"base_url": judge.address, "timeout": judge.timeout, "max_retries": judge.retries}
    with tqdm(total=1 + len(others), desc=f"judging by {PurePath(judge.model).name}", unit="answer") as bar:
        async with openai.AsyncOpenAI(api_key=_key() or "none", http_client=http_client, **settings) as client:
            # Alone and with few retries: a wrong address, key or model should be noticed at once.
            await ask(client.with_options(max_retries=min(2, judge.retries)), first)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for request in others:
                        tasks.create_task(ask(client, request))
            except ExceptionGroup as problems:
                raise problems.exceptions[0] from None


def _is_useful(judge: ServedJudge, answer: Answer | None) -> bool:
    return answer is not None and score(answer, judge.scoring).missing not in UNEXPLAINED


def _useless(judge: ServedJudge, prompt: str, count: int) -> CompanionError:
    return CompanionError(
        f"The judge '{judge.model}' gave no usable number for any of {count} response{'s' * (count != 1)} to prompt "
        f"'{prompt}'; choose a model that answers with a bare number."
    )


async def _answer(client: openai.AsyncOpenAI, judge: ServedJudge, asked: list[Message]) -> Answer:
    """Return a judge's answer; a reply that is no chat completion is asked for again. Raises CompanionError."""
    create = client.chat.completions.with_raw_response.create
    for _ in range(client.max_retries + 1):
        try:
            return _read_reply(_hide_key((await create(model=judge.model, messages=asked, **judge.parameters)).text))
        except openai.APIError as error:
            if error.code == "content_filter":
                return {"text": "", "tokens": None, "finish": "content_filter"}
            # Without the error itself, which can hold the key.
            raise _failure(judge, error) from None
        except (ValueError, LookupError, TypeError, AttributeError):
            await asyncio.sleep(MALFORMED_PAUSE)
    raise CompanionError(f"What answers at {judge.address} does not speak the OpenAI protocol; correct --base-url.")


def _read_reply(text: str) -> Answer:
    """Return what a chat completion says; raise ValueError, or what the access raises, where it is none."""
    body = json.loads(text)
    choice, tokens = body["choices"][0], []
    for token in (choice.get("logprobs") or {}).get("content") or []:
        top = [[one["token"], one["logprob"]] for one in token.get("top_logprobs") or [] if isfinite(one["logprob"])]
        tokens.append({"token": token["token"], "top": top})
    said = choice["message"].get("content") or choice["message"].get("refusal") or ""
    answer = {"text": said, "tokens": tokens or None, "finish": choice.get("finish_reason")}
    return ANSWER.validate_python(answer) | {"model": body.get("model"), "usage": body.get("usage")}


def _failure(judge: ServedJudge, error: openai.APIError) -> CompanionError:
    server, kept = f"The server at {judge.address}", "what was answered is kept, so the same command goes on from there"
    status = getattr(error, "status_code", None)
    if isinstance(error, openai.APITimeoutError):
        return CompanionError(f"{server} did not answer within {judge.timeout:g} s; {kept}.")
    if status is None:
        return CompanionError(f"No server answers at {judge.address}: start it or correct --base-url; {kept}.")
    sentences = {
        401: "refused the key (401); check OPENAI_API_KEY.",
        403: "refused the key (403); check OPENAI_API_KEY.",
        404: f"knows no model '{judge.model}' or no such address (404).",
        429: f"is busy, or your quota is used up (429); {kept}.",
    }
    said = " ".join(_hide_key(str(error.message)).split())[:300]
    other = f"fails ({status}); {kept}." if status >= 500 else f"refused a request ({status}): {said}"
    return CompanionError(f"{server} {sentences.get(status, other)}")


def judge_table(
    table: pd.DataFrame, prompts: Iterable[str], judge: ServedJudge, approve: Approval | None = None
) -> pd.DataFrame:
    """Return `table` with a score per prompt, NaN where missing, and in `<prompt>_missing` the reason, else "".

    Asks only for what is not on record, and a server elsewhere only if `approve` says so. Raises CompanionError.
    """
    names, requests = list(dict.fromkeys(prompts)), []
    _check(table, names)
    for name, (question, response) in product(names, zip(table.question, table.response, strict=True)):
        asked = messages(name, question, response)
        key = sha256_of(json.dumps([judge.model, asked, judge.parameters], sort_keys=True))
        requests.append(Request(name, asked, key))
    records = {name: records_of(judge.model, name) for name in names}
    if missing := _unrecorded(requests, records):
        _permit(judge, missing, len({one.key for one in requests}), approve)
        with ExitStack() as stack:
            for name in sorted(names):
                stack.enter_context(records[name].writing())
            if _unrecorded(requests, records):  # another process may have asked meanwhile
                # A loop in a thread of its own, for a notebook has one already; leaving it early ends all requests.
                stack.enter_context(start_blocking_portal()).call(_ask, judge, records, requests)
    judged = table.assign(judge_model=judge.model, judge_scoring=judge.scoring)
    for name in names:
        answers = [records[name].answers.get(one.key) for one in requests if one.prompt == name]
        scores = [score(answer, judge.scoring) for answer in answers if answer]
        if all(one.missing in UNEXPLAINED for one in scores):
            raise _useless(judge, name, len(answers))
        judged[name], judged[f"{name}_missing"] = zip(*scores, strict=True)
    return judged


def _check(table: pd.DataFrame, names: list[str]) -> None:
    if table.empty:
        raise CompanionError("There are no responses to judge: the table has no rows.")
    for column in TEXTS:
        if column not in table:
            raise CompanionError(f"The responses have no column '{column}'; a judge needs 'question' and 'response'.")
        if odd := [index for index, text in enumerate(table[column], start=1) if not isinstance(text, str)]:
            raise CompanionError(f"Row {odd[0]} of the responses has no text in column '{column}'.")
    if unknown := [name for name in names if name not in judge_prompts()]:
        known = ", ".join(sorted(judge_prompts()))
        raise CompanionError(f"There is no judge prompt '{unknown[0]}'; choose from: {known}.")
    added = ["judge_model", "judge_scoring", *names, *(f"{name}_missing" for name in names)]
    if twice := [column for column in added if column in table]:
        raise CompanionError(f"The responses have a column '{twice[0]}' already; rename or drop it.")


def _unrecorded(requests: list[Request], records: dict[str, Records]) -> list[Request]:
    return list({one.key: one for one in requests if one.key not in records[one.prompt].answers}.values())


def read_responses(path: Path) -> pd.DataFrame:
    """Return a table of responses from .parquet or .csv; raise CompanionError where it cannot be read."""
    # Texts of a .csv are read as they stand: a response can be empty, or "None".
    readers = {".parquet": pd.read_parquet, ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False)}
    if path.suffix not in readers:
        raise CompanionError(f"{relative(path)} is neither .parquet nor .csv.")
    if not path.is_file():
        raise CompanionError(f"There is no file {relative(path)}.")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise on malformed files are ValueErrors
        raise CompanionError(f"{relative(path)} is not a readable {path.suffix[1:]} file.") from error


def write_judged(judged: pd.DataFrame, responses: Path) -> Path:
    """Write a judged table beside the responses it is of, named after the judge, and return its path."""
    target = responses.with_name(f"{responses.stem}.judged-by-{slug(judged.judge_model.iloc[0])}{responses.suffix}")
    partial_file = target.with_name(f".{target.name}.part")
    write = judged.to_parquet if target.suffix == ".parquet" else judged.to_csv
    try:
        write(partial_file, index=False)
        os.replace(partial_file, target)
    finally:
        partial_file.unlink(missing_ok=True)
    return target


def summary(judged: pd.DataFrame, prompts: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row per prompt: `prompt`, `responses`, `scored`, `mean` (None without any) and `missing` by reason."""
    rows = []
    for name in dict.fromkeys(prompts):
        found, reasons = judged[name].dropna(), judged[f"{name}_missing"]
        mean, missing = float(found.mean()) if len(found) else None, reasons[reasons != ""].value_counts().to_dict()
        rows.append({"prompt": name, "responses": len(judged), "scored": len(found), "mean": mean, "missing": missing})
    return rows


def agreement(exact: pd.DataFrame, served: pd.DataFrame) -> pd.DataFrame:
    """Return how far two judges agree on the same responses (for appendix K), a row per score and one for "em".

    `n` counts responses that both scored (for "em": all, a missing score is "no", as in the paper), and `kappa` is
    Cohen's. NaN stands for no meaning or no spread. Raises CompanionError unless both tables have the same rows.
    """
    texts = [column for column in TEXTS if column in exact and column in served]
    if not exact.index.equals(served.index) or not exact[texts].equals(served[texts]):
        raise CompanionError("Two judges can only be compared on the same responses in the same order.")
    rows = []
    for name in tables.SCORES:
        if name in exact and name in served:
            both = pd.DataFrame({"exact": exact[name], "served": served[name]}).dropna().astype(float)
            spread = len(both) > 1 and (both.nunique() > 1).all()
            spearman = both.exact.corr(both.served, method="spearman") if spread else nan
            difference = float((both.exact - both.served).abs().mean())
            rows.append({"score": name, "n": len(both), "spearman": spearman, "mean_absolute_difference": difference})
    if not rows:
        raise CompanionError("The two judges have no score in common.")
    if {"aligned", "coherent"} <= {row["score"] for row in rows}:
        first, second = (scores.is_em(frame).to_numpy() for frame in (exact, served))
        spread = len({*first, *second}) > 1
        rows.append({"score": "em", "n": len(exact), "kappa": cohen_kappa_score(first, second) if spread else nan})
    return pd.DataFrame(rows, columns=["score", "n", "spearman", "mean_absolute_difference", "kappa"])
