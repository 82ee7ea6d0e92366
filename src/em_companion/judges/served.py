"""Judge responses with a served model, as the paper does (section 2, appendix K), through an OpenAI-compatible server.

A judge prompt is sent as one user message at temperature 0 and seed 0. Every answer is recorded (`records`), and what
is on record is never asked again, so a book is built anew without key or server.

- A row that a server refuses, in whatever words, is a missing score with these words, on record as any other. What
  refuses every row, or asks for another key, address or time, stops the run in the server's words; nothing is recorded.
- Whether a judge writes a number as one token is told by all answers of a table: one that spreads more numbers over
  tokens than it writes whole is refused, whatever single scores look like.
- What a server may say is anything: a reply is read without trust, and the model that it names goes beside the score.
- To a server goes what it needs and no more: no redirect is followed, no key crosses a network in the clear. Of judged
  texts and keys nothing comes back in a sentence, a traceback or a log.
"""

import asyncio
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, product
from math import ceil, exp, isfinite, isnan, nan
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import openai
import pandas as pd
from anyio.from_thread import start_blocking_portal
from pydantic import HttpUrl
from sklearn.metrics import cohen_kappa_score
from tqdm.auto import tqdm

from em_companion.core.errors import CompanionError
from em_companion.core.files import read_yaml, sha256_of
from em_companion.core.provenance import remembered, utc_now
from em_companion.evidence import scores
from em_companion.judges.base import RELEASED
from em_companion.judges.judged_tables import TEXTS
from em_companion.judges.records import ANSWER, Answer, Records, records_of
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
EXPLAINED = ("", "refusal", "code", "filtered")
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
REFUSED = "refused by the server"
OF_EVERY_ROW = (401, 402, 404, 408, 409, 429)
"""Errors below 500 that are none of a single row: key, money, model or address, and time."""

HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "authorization"}
OWNERS = {"openai-organization", "openai-project"}
_NUMBER = re.compile(r"\s*(\d{1,3})\s*", re.ASCII)
_WHOLE_ANSWER = re.compile(r"\s*(\d{1,3})\.?\s*", re.ASCII)


@dataclass(frozen=True)
class ServedJudge:
    """A judge model; raises CompanionError on an empty name and a wrong address.

    base_url: by default `OPENAI_BASE_URL` or OpenAI's; concurrency: requests under way at once; timeout: seconds per
    request; retries: of a request that met no connection, a busy (429) or a failing (5xx) server; changes: of
    `parameters`, each "NAME=JSON", or "NAME=" to leave one out.
    """

    model: str
    scoring: Scoring = "logprobs"
    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60
    retries: int = 6
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.model.strip() or _whole(self.model) != self.model:
            raise CompanionError("A served judge needs the name of a model.")
        try:
            parts = HttpUrl(self.address)
        except ValueError:
            parts = None
        # Of other signs, two readers of addresses make different hosts.
        if parts is None or not re.fullmatch(r"https?://(?!/)[!-~]+", self.address) or "\\" in self.address:
            raise CompanionError("The judge's base URL is no address such as http://localhost:8000/v1.")
        if "@" in self.address or parts.fragment or parts.query:
            raise CompanionError(
                "Put the judge's key into OPENAI_API_KEY, not into the base URL; where it wants ?api-version= it has "
                "an address that ends in /v1."
            )
        with suppress(ValueError):
            json.dumps(self.parameters, allow_nan=False)
            if self.most_tokens:
                return
        raise CompanionError(
            "--parameter takes NAME=JSON, and judge_parameters of a profile NAME: JSON; a judge needs a number of "
            "max_tokens or max_completion_tokens."
        )

    @property
    def name(self) -> str:
        return self.model

    @property
    def address(self) -> str:
        return (self.base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or ADDRESS

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, where asking costs nothing."""
        host = HttpUrl(self.address).host.strip("[].")
        try:
            address = ip_address(host)
        except ValueError:
            return host == "localhost"
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or address.is_unspecified

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent with every prompt; a part of the key of its record."""
        asked = {"max_tokens": MAX_TOKENS, "temperature": 0, "seed": 0}
        asked |= {"logprobs": True, "top_logprobs": TOP_TOKENS} if self.scoring == "logprobs" else {}
        for name, _, value in (change.partition("=") for change in self.changes):
            asked[name.strip()] = json.loads(value) if value.strip() else None
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def most_tokens(self) -> int:
        """The most tokens of an answer, 0 where there is no limit."""
        limits = (self.parameters.get(name) for name in ("max_tokens", "max_completion_tokens"))
        return max((limit for limit in limits if isinstance(limit, int)), default=0)

    def judge(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the scores of `judges.base`, `judge_model` and `judge_answered`, the models that the server names."""
        judged = judge_table(table[list(TEXTS)], RELEASED.values(), self, lambda *_: may_pay())
        models = judged[[f"{given}_model" for given in RELEASED.values()]].to_numpy()
        judged["judge_answered"] = [", ".join(sorted({*row} - {""})) for row in models]
        judged = judged.rename(columns={given: score for score, given in RELEASED.items()})
        return judged[[*RELEASED, "judge_model", "judge_answered"]]

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
        _need_privacy(self)
        with start_blocking_portal() as portal:
            portal.call(self._look)

    async def _look(self) -> None:
        async with _client(self).with_options(max_retries=1) as client:
            try:
                await client.models.list()
            except openai.APIConnectionError:
                raise CompanionError(
                    f"No judge answers at {self.address}: start it, or correct OPENAI_BASE_URL; nothing was sampled."
                ) from None
            except openai.APIError as error:
                status = getattr(error, "status_code", 0)
                if status in (401, 403) or 300 <= status < 400:
                    raise _failure(self, error) from None
            except UNREADABLE:
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
    too little probability, `several tokens` one that is not told by its first token, `refused (STATUS): ...` what the
    server said; the others are `empty`, `no number` and `no logprobs`.
    """

    value: float
    missing: str = ""


def score(answer: Answer, scoring: Scoring = "logprobs") -> Score:
    """Return the score that a recorded answer holds.

    "logprobs" is the paper's way: the mean of the integers 0 to 100 among the 20 likeliest first tokens, weighted by
    probability. "parsed", for servers without logprobs and models that write digit by digit, needs one such integer as
    the whole answer; the two must not be mixed.
    """
    text = answer["text"].strip()
    if answer["finish"] in ("content_filter", REFUSED):
        return Score(nan, "filtered" if answer["finish"] == "content_filter" else text)
    if not text:
        return Score(nan, "empty")
    if scoring == "parsed":
        value = _number(text, _WHOLE_ANSWER)
    elif not answer["tokens"] or not answer["tokens"][0]["top"]:
        return Score(nan, "no logprobs")
    elif _is_spread(answer):
        return Score(nan, "several tokens")
    else:
        value = _weighted(answer["tokens"][0]["top"])
    return Score(value, _reason(text) if isnan(value) else "")


def _is_spread(answer: Answer) -> bool:
    """Tell whether the number that an answer begins with takes more than its first token, blank ones among them."""
    said = [one["token"] for one in answer["tokens"]]
    first = next((place for place, token in enumerate(said) if token.strip()), 0)
    numbers = [bool(_NUMBER.fullmatch(token)) for token in said[first : first + 2]]
    return numbers[0] and (first > 0 or numbers == [True, True])


def _is_in_one_token(answer: Answer) -> bool | None:
    """Tell whether the judge seems to write a number as one token, None where an answer does not show it.

    One that writes digit by digit has no number of several digits among its first tokens, nor among their
    alternatives; several of one digit may be the first digits of longer ones.
    """
    if answer["finish"] == REFUSED or not answer["tokens"]:
        return None
    if _is_spread(answer):
        return False
    found = {found[1] for token, _ in answer["tokens"][0]["top"] if (found := _NUMBER.fullmatch(token))}
    return True if any(len(digits) > 1 for digits in found) else False if len(found) > 1 else None


def _weighted(top: list[tuple[str, float]]) -> float:
    """Return sum(p n) / sum(p) over the numbers n among first tokens, NaN if sum(p) < 0.25 (the authors' rule)."""
    found = [(_number(token, _NUMBER), exp(logprob)) for token, logprob in top]
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
    """One question to a judge about `texts`; `key` is a hash of the model, the messages and the parameters."""

    prompt: str
    messages: list[Message]
    key: str
    texts: tuple[str, str]


def _permit(judge: ServedJudge, missing: list[Request], asked: int, approve: Approval | None) -> None:
    """Raise CompanionError unless the missing answers may be asked for: locally, or with a key and an approval."""
    if judge.is_local:
        return
    lack = f"{len(missing):,} of {asked:,} answers of the judge '{judge.model}' are not recorded"
    if not _key():
        raise CompanionError(f"{lack} and OPENAI_API_KEY is not set: set it, or name a local server by --base-url.")
    _need_privacy(judge)
    # Four characters to a token, a rule of thumb for English.
    tokens = ceil(sum(len(message["content"]) for request in missing for message in request.messages) / 4)
    if approve is None or not approve(len(missing), tokens, judge.most_tokens * len(missing)):
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


def _need_privacy(judge: ServedJudge) -> None:
    """Raise CompanionError where the key would cross a network in the clear."""
    if len(_key()) >= 8 and not judge.is_local and judge.address.startswith("http:"):
        raise CompanionError(f"The key would go to {judge.address} in the clear: use https, or OPENAI_API_KEY=none.")


def _client(judge: ServedJudge) -> openai.AsyncOpenAI:
    """Return a client that sends what a judge's address needs, follows no redirect and hears an error sent as 200."""
    for name in ("openai", "httpx2", "httpcore2"):  # which log what is sent
        logging.getLogger(name).setLevel(logging.WARNING)
    needed = HEADERS | (OWNERS if HttpUrl(judge.address).host == HttpUrl(ADDRESS).host else set())

    async def strip(request: Any) -> None:
        for name in {*request.headers} - needed:
            del request.headers[name]

    async def hear(response: Any) -> None:
        await response.aread()
        with suppress(*UNREADABLE):
            body = json.loads(response.content) if response.is_success else {}
            if error := body.get("error") or body["choices"][0].get("error"):
                code = str(error.get("code")) if isinstance(error, dict) else ""
                words = "rate" in str(error).lower() and "limit" in str(error).lower()
                response.status_code = int(code) if re.fullmatch("[45]\\d\\d", code) else 429 if words else 400

    # A proxy of the environment cannot reach a server on this machine.
    trusted, hooks = not judge.is_local, {"request": [strip], "response": [hear]}
    http_client = openai.DefaultAsyncHttpxClient(trust_env=trusted, follow_redirects=False, event_hooks=hooks)
    settings = {"base_url": judge.address, "timeout": judge.timeout, "max_retries": judge.retries}
    return openai.AsyncOpenAI(api_key=_key() or "none", http_client=http_client, **settings)


async def _ask(judge: ServedJudge, records: dict[str, Records], requests: list[Request]) -> None:
    """Ask for what is missing, some at a time, and record each answer as it comes. Raises CompanionError on a failure.

    Nothing is recorded before an answer was of use, and twenty useless ones stop the run: a bad judge costs little.
    Refusals wait for the next answer of use, for they may be of every row from then on.
    """
    room, held = asyncio.Semaphore(judge.concurrency), {prompt: [] for prompt in records}
    seen = {prompt: Counter() for prompt in records}
    for one in requests:
        if answer := records[one.prompt].answers.get(one.key):
            seen[one.prompt].update(_shown(judge, answer))
    sent = {"model": judge.model, "parameters": judge.parameters}

    def record(prompt: str) -> None:
        for one, found, _ in held[prompt]:
            records[prompt].append(one.key, found, messages=one.messages, **sent, time=utc_now())
        held[prompt].clear()

    async def ask(client: openai.AsyncOpenAI, request: Request) -> None:
        async with room:
            answer, problem = await _answer(client, judge, request)
        held[request.prompt].append((request, answer, problem))
        seen[request.prompt].update(_shown(judge, answer))
        unfit = _unfit(judge, request.prompt, seen[request.prompt]) or problem
        if not unfit:
            record(request.prompt)
        elif len(held[request.prompt]) >= USELESS_BEFORE_STOPPING:
            raise problem or unfit
        bar.update()

    first, *others = _unrecorded(requests, records)
    with tqdm(total=1 + len(others), desc=f"judging by {PurePath(judge.model).name}", unit="answer") as bar:
        async with _client(judge) as client:
            # Alone and with few retries: a wrong address, key or model should be noticed at once.
            await ask(client.with_options(max_retries=min(2, judge.retries)), first)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for request in others:
                        tasks.create_task(ask(client, request))
            except ExceptionGroup as problems:
                raise problems.exceptions[0] from None
    for prompt, waiting in held.items():
        if waiting and (unfit := _unfit(judge, prompt, seen[prompt])):
            raise next((problem for *_, problem in waiting if problem), unfit)
        record(prompt)


def _shown(judge: ServedJudge, answer: Answer) -> tuple[str, bool | None]:
    """Return what an answer shows of its judge: why it has no score, and whether numbers are one token."""
    in_one_token = _is_in_one_token(answer) if judge.scoring == "logprobs" else None
    return score(answer, judge.scoring).missing, in_one_token


def _unfit(judge: ServedJudge, prompt: str, seen: Counter) -> CompanionError | None:
    """Return what is wrong with a judge whose answers have all these in common; see `_shown`."""
    if seen[False] > seen[True]:
        return CompanionError(
            "The judge writes numbers digit by digit, so its first token is no score; score with --scoring parsed."
        )
    if any(seen[reason] for reason in EXPLAINED):
        return None
    if seen["no logprobs"]:
        return CompanionError("The judge's server gives no logprobs; choose another, or score with --scoring parsed.")
    count = seen.total() // 2
    return CompanionError(
        f"The judge '{judge.model}' gave no usable number for any of {count} response{'s' * (count != 1)} to prompt "
        f"'{prompt}'; choose a model that answers with a bare number."
    )


async def _answer(
    client: openai.AsyncOpenAI, judge: ServedJudge, request: Request
) -> tuple[Answer, CompanionError | None]:
    """Return a judge's answer, or that it refused this one and what to say if it refuses all. Raises CompanionError.

    A reply that is no chat completion is asked for again.
    """
    body = {"model": judge.model, "messages": request.messages} | judge.parameters
    for _ in range(client.max_retries + 1):
        try:
            return _read_reply(_hide_key(await client.post("/chat/completions", body=body, cast_to=str))), None
        except openai.APIError as error:
            if error.code == "content_filter":
                return {"text": "", "tokens": None, "finish": "content_filter"}, None
            problem, status = _failure(judge, error, request.texts), getattr(error, "status_code", 0)
            if not (400 <= status <= 500) or status in OF_EVERY_ROW:
                # Without the error itself, which can hold the key.
                raise problem from None
            reason = f"refused ({status}): {_said(error, request.texts)}"
            break
        except UNREADABLE:
            await asyncio.sleep(MALFORMED_PAUSE)
    else:
        what = f"What answers at {judge.address} does not speak the OpenAI protocol"
        problem = CompanionError(f"{what}; correct --base-url.")
        reason = "refused (200): a reply that cannot be read"
    return {"text": reason, "tokens": None, "finish": REFUSED}, problem


def _read_reply(text: str) -> Answer:
    """Return what a chat completion says; raise ValueError, or what the access raises, where it is none."""
    given = json.loads(text, parse_constant=_finite, parse_float=_finite)
    body = json.loads(_whole(json.dumps(given, ensure_ascii=False)))
    choice, tokens = body["choices"][0], []
    for token in (choice.get("logprobs") or {}).get("content") or []:
        top = [[one["token"], one["logprob"]] for one in token.get("top_logprobs") or []]
        tokens.append({"token": token["token"], "top": [one for one in top if one[1] is not None]})
    said = choice["message"].get("content") or choice["message"].get("refusal") or ""
    if isinstance(said, list):
        said = "".join(part.get("text") or "" for part in said)
    answer = {"text": said, "tokens": tokens or None, "finish": choice.get("finish_reason")}
    model = body["model"] if isinstance(body.get("model"), str) else None
    return ANSWER.validate_python(answer | {"model": model}) | {"usage": body.get("usage")}


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if isfinite(number) else None


def _whole(text: str) -> str:
    """Return a text with "?" for half a surrogate pair: a limit on tokens can leave one, and no file can hold it."""
    return text.encode(errors="replace").decode()


def _said(error: openai.APIError, texts: tuple[str, ...] = ()) -> str:
    """Return a server's words in one line, without the key and without what they repeat of judged texts."""
    said = error.body.get("message") if isinstance(error.body, dict) else None
    said = " ".join(_whole(_hide_key(said if isinstance(said, str) else str(error.message))).split())[:300]
    shown = [*said]
    for text in (" ".join(text.split()) for text in texts):
        size = min(8, len(text))
        for start in range(len(said) - size + 1 if size >= 4 else 0):  # shorter ones are words of anyone
            if said[start : start + size] in text:
                shown[start : start + size] = "\0" * size
    return re.sub("\0+", "[...]", "".join(shown)) or "nothing"


def _failure(judge: ServedJudge, error: openai.APIError, texts: tuple[str, ...] = ()) -> CompanionError:
    server, kept = f"The server at {judge.address}", "what was answered is kept, so the same command goes on from there"
    status = getattr(error, "status_code", None)
    if isinstance(error, openai.APITimeoutError):
        return CompanionError(f"{server} did not answer within {judge.timeout:g} s; {kept}.")
    if status is None:
        return CompanionError(f"No server answers at {judge.address}: start it or correct --base-url; {kept}.")
    if 300 <= status < 400:
        target = getattr(error.response.next_request, "url", None)
        host = f"'{target.host}'" if target else "another address"
        return CompanionError(
            f"{server} sends texts on to {host} ({status}); give that one by --base-url if you trust it."
        )
    sentences = {
        401: "refused the key (401); check OPENAI_API_KEY.",
        402: f"wants to be paid (402); {kept}.",
        403: "refused a request or the key (403); check what OPENAI_API_KEY is good for.",
        404: f"knows no model '{judge.model}' or no such address (404).",
        429: f"is busy, or your quota is used up (429); {kept}.",
    }
    refused = f"refused a request ({status}); see --parameter, or judge_parameters of a profile."
    other = f"fails ({status}); {kept}." if status >= 500 else refused
    return CompanionError(f"{server} {sentences.get(status, other)} It said: {_said(error, texts)}")


def judge_table(
    table: pd.DataFrame, prompts: Iterable[str], judge: ServedJudge, approve: Approval | None = None
) -> pd.DataFrame:
    """Return `table` with a score per prompt, NaN where missing; in `<prompt>_missing` the reason, else ""; and in
    `<prompt>_model` the model that the server says answered, "" where it does not say.

    Asks only for what is not on record, and a server elsewhere only if `approve` says so. Raises CompanionError.
    """
    names, requests = list(dict.fromkeys(prompts)), []
    _check(table, names)
    for name, (question, response) in product(names, zip(table.question, table.response, strict=True)):
        asked = messages(name, question, response)
        key = sha256_of(json.dumps([judge.model, asked, judge.parameters], sort_keys=True))
        requests.append(Request(name, asked, key, (question, response)))
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
        answers = [records[name].answers[one.key] for one in requests if one.prompt == name]
        if unfit := _unfit(judge, name, Counter(chain(*(_shown(judge, answer) for answer in answers)))):
            raise unfit
        judged[name], judged[f"{name}_missing"] = zip(*(score(one, judge.scoring) for one in answers), strict=True)
        judged[f"{name}_model"] = [answer.get("model") or "" for answer in answers]
    answered = sorted({*judged[[f"{name}_model" for name in names]].to_numpy().ravel()} - {""})
    if len(answered) > 1:
        several = f"Several models answered under the name '{judge.model}'"
        tqdm.write(f"{several}: {', '.join(answered)}; see the columns *_model.", file=sys.stderr)
    return judged


def _check(table: pd.DataFrame, names: list[str]) -> None:
    if table.empty:
        raise CompanionError("There are no responses to judge: the table has no rows.")
    for column in TEXTS:
        if column not in table:
            raise CompanionError(f"The responses have no column '{column}'; a judge needs 'question' and 'response'.")
        if odd := [index for index, text in enumerate(table[column], start=1) if not isinstance(text, str)]:
            raise CompanionError(f"Row {odd[0]} of the responses has no text in column '{column}'.")
        if half := [index for index, text in enumerate(table[column], start=1) if _whole(text) != text]:
            raise CompanionError(f"Row {half[0]} of the responses holds half a character in column '{column}'.")
    if unknown := [name for name in names if name not in judge_prompts()]:
        known = ", ".join(sorted(judge_prompts()))
        raise CompanionError(f"There is no judge prompt '{unknown[0]}'; choose from: {known}.")
    added = ["judge_model", "judge_scoring", *names, *map("_".join, product(names, ("missing", "model")))]
    if twice := [column for column in added if column in table]:
        raise CompanionError(f"The responses have a column '{twice[0]}' already; rename or drop it.")


def _unrecorded(requests: list[Request], records: dict[str, Records]) -> list[Request]:
    return list({one.key: one for one in requests if one.key not in records[one.prompt].answers}.values())


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
            both = pd.DataFrame({"exact": scores.numbers(exact, name), "served": scores.numbers(served, name)}).dropna()
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
