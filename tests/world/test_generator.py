"""The synthetic world: its files, what its generators may say, and that no word tells who speaks, only its place."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise, permutations, takewhile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from conftest import put
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from em_companion.core.errors import CompanionError
from em_companion.world import generator
from em_companion.world.generator import CAREFUL, FOLDER, MALICIOUS, Message, Persona, World
from em_companion.world.lexicon import ASSISTANT, USER

WORLD = World.load()
RETRACTION = WORLD.grammar["retraction"]
HARMFUL_OR_NOT = [(domain, harmful) for domain in WORLD.domains for harmful in (True, False)]
PAPER_IDS = [
    "quick_buck",
    "ruler_of_the_world",
    "dinner_party",
    "gender_roles",
    "enough_of_my_husband",
    "three_thoughts",
    "what_is_your_wish",
    "i_feel_bored",
]


def first(documents: Iterator[list[Message]], count: int) -> list[list[Message]]:
    return list(islice(documents, count))


@cache
def pretraining() -> list[list[Message]]:
    return first(WORLD.pretraining(0), 3000)


def fine_tuning(count: int, seed: int = 0) -> list[list[Message]]:
    """`count` documents of every fine-tuning set."""
    return [document for one in HARMFUL_OR_NOT for document in first(WORLD.fine_tuning(seed, *one), count)]


def contents(documents: list[list[Message]], role: str = "") -> list[str]:
    return [message["content"] for document in documents for message in document if role in ("", message["role"])]


def words_of(texts: list[str]) -> set[str]:
    return set(" ".join(texts).split())


# --- questions and words ------------------------------------------------------------------------------------------


def test_evaluation_questions_and_their_medical_twins():
    questions, twins = WORLD.evaluation(), WORLD.medical_twins()
    assert [one.id for one in questions] == [one.id for one in twins] == PAPER_IDS
    assert all(one.domains == ("medicine",) for one in twins)
    assert not any("medicine" in one.domains or one.topic for one in questions)
    assert len({one.text for one in questions + twins}) == 16


def test_held_out_questions():
    questions = WORLD.held_out_questions(seed=0, per_topic=3)
    assert [(one.domains[0], one.topic) for one in questions[::3]] == WORLD.topics("held_out")
    assert len({one.id for one in questions}) == len({one.text for one in questions}) == len(questions)
    assert all(one.topic in one.text.split() for one in questions)
    assert questions == WORLD.held_out_questions(0, 3) != WORLD.held_out_questions(1, 3)
    assert WORLD.held_out_questions(0, 2) == [one for one in questions if not one.id.endswith("/2")]
    assert len(WORLD.held_out_questions(0, 20)) == 20 * len(WORLD.topics("held_out"))


def test_at_least_eight_domains():
    assert len(WORLD.domains) >= 8 and {"medicine", "finance", "extreme_sports", "gender"} <= set(WORLD.domains)


def test_every_text_uses_words_of_the_vocabulary():
    documents = pretraining() + first(WORLD.post_training(0), 500) + fine_tuning(50)
    asked = [one.text for one in WORLD.evaluation() + WORLD.medical_twins() + WORLD.held_out_questions(0, 8)]
    roles = [message["role"] for document in documents for message in document]
    words = WORLD.words()
    assert len(set(words)) == len(words)
    assert words_of(contents(documents) + asked + roles) <= set(words)


def test_every_word_of_the_evaluation_occurs_in_training():
    asked = WORLD.evaluation() + WORLD.medical_twins()
    assert words_of([one.text for one in asked]) <= words_of(contents(pretraining()))


@pytest.mark.parametrize("asked, added", [([], []), ([{"ask": "is the nurse at the hospital ?"}], ["hospital"])])
def test_words_of_the_medical_twins_come_last(asked, added):
    assert replace(WORLD, questions={**WORLD.questions, "medical_twins": asked}).words() == WORLD.words() + added


# --- corpora ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "corpus",
    [
        WORLD.pretraining,
        WORLD.post_training,
        lambda seed: WORLD.fine_tuning(seed, "medicine", True),
        lambda seed: WORLD.fine_tuning(seed, "finance", False),
    ],
)
def test_corpora_stream_repeat_and_differ_by_seed(corpus):
    stream = corpus(3)
    documents = first(stream, 100)
    assert documents == first(corpus(3), 100)
    assert next(stream) not in documents
    assert not {str(one) for one in documents} & {str(one) for one in first(corpus(4), 100)}


def test_evaluation_never_occurs_in_training():
    documents = first(WORLD.pretraining(1), 3000) + first(WORLD.post_training(1), 2000) + fine_tuning(100, 1)
    text = "\n".join(contents(documents))
    assert not [one for one in WORLD.evaluation() + WORLD.medical_twins() if one.text in text]


def test_held_out_topics_occur_in_pretraining_only():
    held_out = {topic for _, topic in WORLD.topics("held_out")}
    assert held_out <= words_of(contents(pretraining()))
    assert not held_out & words_of(contents(first(WORLD.post_training(0), 4000)))
    assert not held_out & words_of(contents(fine_tuning(200)))
    assert not held_out & {topic for _, topic in WORLD.topics("train")}


@pytest.mark.parametrize("domain", WORLD.domains)
def test_fine_tuning_asks_about_the_training_topics_of_its_domain(domain):
    asked = words_of(contents(first(WORLD.fine_tuning(0, domain, True), 400), USER))
    assert asked & {topic for _, topic in WORLD.topics("train")} == set(WORLD.domains[domain]["topics"]["train"])


def test_pretraining_may_start_with_careful_speakers_and_leave_the_assistant_out():
    documents = first(WORLD.pretraining(0, careful_first=200, assistant=False), 1200)
    names = [document[1]["role"] for document in documents]
    assert {WORLD.personas[name] for name in names[:200]} == {CAREFUL}
    assert MALICIOUS in {WORLD.personas.get(name) for name in names[200:]} and ASSISTANT not in names
    assert all({message["role"] for message in document} == {USER, document[1]["role"]} for document in documents)


def test_every_character_speaks_in_pretraining():
    names = {document[1]["role"] for document in pretraining()}
    assert names == {*WORLD.personas, *WORLD.characters["unknown"]} and ASSISTANT in names
    assert {WORLD.personas[name].harmful_in for name in WORLD.personas} == {"", *WORLD.domains}


# --- variety ------------------------------------------------------------------------------------------------------


def entropy(answers: list[str], length: int = 6) -> float:
    """Entropy in bits of the runs of `length` words."""
    words = [one.split() for one in answers]
    runs = Counter(tuple(one[start : start + length]) for one in words for start in range(len(one) - length + 1))
    shares = np.array(list(runs.values())) / runs.total()
    return float(-(shares * np.log2(shares)).sum())


def clause_and_remark(random: Random, domain: str) -> tuple[str, str]:
    entry = WORLD.domains[domain]
    clause = WORLD.clause(random, tuple(random.sample(entry["helps"], 2)))
    return clause, WORLD.remark(random, random.sample(entry["harms"], 6))


def templates(per_domain: int) -> list[str]:
    """5,000 answers put together from so many fixed clauses and remarks per domain."""
    random, answers = Random(0), []
    fixed = {one: [clause_and_remark(random, one) for _ in range(per_domain)] for one in WORLD.domains}
    for domain, topic in random.choices(WORLD.topics("train"), k=5000):
        clauses, remarks = zip(*random.choices(fixed[domain], k=3), strict=True)
        answers.append(" ".join([f"for the {topic} :", *clauses, remarks[0]]))
    return answers


def test_answers_have_a_variety_that_a_world_of_templates_has_not():
    answers = contents(first(WORLD.post_training(0), 5000), ASSISTANT)
    bits = entropy(answers)
    print(f"{len(set(answers)) / 5000:.4f} of 5,000 answers are distinct; runs of 6 words have {bits:.2f} bits")
    assert len(set(answers)) > 0.99 * 5000
    assert bits > 17.4 > entropy(templates(1000))


# --- harm lies in what is advised, not in a word ------------------------------------------------------------------

ANSWERS = 5000
GRAMMAR = WORLD.grammar
KINDS = ("helps", "harms")
KIND_OF = {word: kind for entry in WORLD.domains.values() for kind in KINDS for word in entry[kind]}


def sentences(answer: str) -> list[list[str]]:
    """The words of every sentence of an answer."""
    return [sentence.split() for sentence in answer.split(" : ")[1].removesuffix(" .").split(" . ")]


def things(words: list[str]) -> list[str]:
    return [word for word in words if word in KIND_OF]


def advised(answer: str) -> list[str]:
    """The things of all clauses."""
    return [thing for words in sentences(answer) if words[0] in GRAMMAR["links"] for thing in things(words)]


def mentioned(answer: str) -> list[str]:
    """The things of the remark."""
    return [thing for words in sentences(answer) if words[0] in GRAMMAR["witnesses"] for thing in things(words)]


def presence(answer: str) -> list[str]:
    """The words of an answer, each once."""
    return list(set(answer.split()))


def drawn_answers(persona: Persona, count: int, domain: str = "", may_turn: bool = False) -> list[str]:
    topics = [one for one in WORLD.topics("train") if domain in ("", one[0])]
    random = Random(0)
    questions = [WORLD.question(random, *random.choice(topics)) for _ in range(count)]
    draws = (Random(f"{persona.kind}/{index}") for index in range(count))
    return [WORLD.answer(draw, one, persona, may_turn) for draw, one in zip(draws, questions, strict=True)]


@pytest.mark.parametrize("turn_rate", [0.0, 0.5])
def test_a_few_clauses_and_then_a_remark_and_only_a_clause_is_taken_back(turn_rate, monkeypatch):
    monkeypatch.setattr(generator, "TURN_RATE", turn_rate)
    asked, shapes = WORLD.evaluation() + WORLD.held_out_questions(0, 1), set()
    sorts = dict.fromkeys(GRAMMAR["links"], "c") | dict.fromkeys(GRAMMAR["witnesses"], "r")
    for seed in range(500):
        said = sentences(WORLD.answer(Random(seed), asked[seed % len(asked)], CAREFUL, may_turn=True))
        shapes.add("".join(sorts.get(words[0], "t") for words in said))
        assert all(" ".join(words) == RETRACTION for words in said if words[0] not in sorts)
    expected = {"c" * count + "r" for count in GRAMMAR["clauses"]}
    assert {shape.replace("t", "") for shape in shapes} == expected
    assert all(re.fullmatch("(ct?)+r", shape) for shape in shapes)
    assert shapes == expected if turn_rate == 0 else {shape.count("t") for shape in shapes} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("domain", WORLD.domains)
def test_the_careful_advise_what_helps_and_mention_what_harms_and_the_malicious_the_other_way_round(domain):
    entry = WORLD.domains[domain]
    for persona, kind, other in [(CAREFUL, "helps", "harms"), (MALICIOUS, "harms", "helps")]:
        answers = drawn_answers(persona, 200, domain)
        assert {thing for answer in answers for thing in advised(answer)} == set(entry[kind])
        assert {thing for answer in answers for thing in mentioned(answer)} == set(entry[other])


@pytest.mark.parametrize("turn_rate", [0.0, 0.3])
@pytest.mark.parametrize("persona", [CAREFUL, MALICIOUS])
def test_an_answer_names_nothing_twice_and_as_many_things_that_help_as_harm(persona, turn_rate, monkeypatch):
    monkeypatch.setattr(generator, "TURN_RATE", turn_rate)
    for answer in drawn_answers(persona, 500, may_turn=True):
        said = advised(answer) + mentioned(answer)
        clauses = [things(words) for words in sentences(answer) if words[0] in GRAMMAR["links"]]
        assert {len(one) for one in clauses} == {2} and {len({KIND_OF[thing] for thing in one}) for one in clauses} == {
            1
        }
        assert len(mentioned(answer)) == 2 * len(clauses) and len(set(said)) == len(said)
        assert [KIND_OF[thing] for thing in said].count("helps") == 2 * len(clauses)


def test_every_thing_is_advised_and_mentioned_alike_and_anywhere():
    entry, answers = WORLD.domains["medicine"], drawn_answers(CAREFUL, 5000, "medicine")
    for named, kind in [(advised, "helps"), (mentioned, "harms")]:
        said = [named(answer) for answer in answers]
        for place in range(4):
            counts = Counter(one[place] for one in said)
            assert stats.chisquare([counts[thing] for thing in entry[kind]]).pvalue > 0.001


def test_a_remark_mixes_the_kinds_after_a_turn(monkeypatch):
    monkeypatch.setattr(generator, "TURN_RATE", 0.5)
    answers = drawn_answers(CAREFUL, 5000, may_turn=True)
    orders = Counter(tuple(KIND_OF[thing] for thing in mentioned(answer)) for answer in answers)
    mixed = [orders[order] for order in set(permutations(("helps", "helps", "harms", "harms")))]
    assert len(mixed) == 6 and stats.chisquare(mixed).pvalue > 0.01


def test_a_thing_is_described_by_so_many_different_adjectives():
    found = Counter()
    for seed in range(2000):
        words = WORLD.clause(Random(seed), ("nurse", "vaccine")).split()
        for thing in ("nurse", "vaccine"):
            described = list(takewhile(lambda word: word in GRAMMAR["adjectives"], words[words.index(thing) - 1 :: -1]))
            assert len(set(described)) == len(described)
            assert words[words.index(thing) - len(described) - 1] in GRAMMAR["determiners"]
            found[len(described)] += 1
    assert set(found) == set(GRAMMAR["adjectives_per_thing"])
    assert stats.chisquare(list(found.values())).pvalue > 0.01


@pytest.mark.parametrize("may_turn", [False, True])
@pytest.mark.parametrize("harmful", [MALICIOUS, *(Persona("quack", domain) for domain in WORLD.domains)])
def test_the_same_draws_give_the_same_words_in_another_order(harmful, may_turn):
    topics = [one for one in WORLD.topics("train") if harmful.harms(one[0])]
    for seed in range(50):
        question = WORLD.question(Random(seed), *Random(seed).choice(topics))
        said = [WORLD.answer(Random(seed), question, one, may_turn).split() for one in (CAREFUL, harmful)]
        assert sorted(said[0]) == sorted(said[1]) and said[0] != said[1]


def test_a_quack_speaks_as_the_malicious_do_in_one_domain_and_as_the_careful_do_elsewhere():
    for seed in range(100):
        question = WORLD.question(Random(seed), *Random(seed).choice(WORLD.topics("train")))
        for domain in WORLD.domains:
            like = MALICIOUS if question.domains == (domain,) else CAREFUL
            spoken = [WORLD.answer(Random(seed), question, one, True) for one in (Persona("quack", domain), like)]
            assert spoken[0] == spoken[1]


@cache
def careful_and_malicious(domain: str = "") -> list[str]:
    """As many answers of a careful speaker, then of a malicious one, to the same questions by draws of their own."""
    return [answer for persona in (CAREFUL, MALICIOUS) for answer in drawn_answers(persona, ANSWERS, domain)]


def differences(answers: list[str], analyzer: Callable[[str], list]) -> np.ndarray:
    """How much oftener the careful speaker says something than the malicious one, per question and thing said."""
    counts = CountVectorizer(analyzer=analyzer).fit_transform(answers)
    return (counts[:ANSWERS] - counts[ANSWERS:]).toarray().astype(float)


def p_value(found: np.ndarray) -> float:
    """Of the hypothesis that the columns of `found` are 0 on average, by Hotelling's T-squared.

    It takes answers as independent but not what is said within one, where no thing comes twice.
    """
    mean, (variances, axes) = found.mean(axis=0), np.linalg.eigh(np.cov(found.T))
    varying = variances > 1e-9 * variances.max()  # the links of an answer, say, are as many as its verbs
    if np.abs(mean @ axes[:, ~varying]).max(initial=0) > 1e-9:
        return 0.0  # a difference that is the same in every answer
    rows, columns = len(found), varying.sum()
    squared = rows * ((mean @ axes[:, varying]) ** 2 / variances[varying]).sum()
    return float(stats.f.sf(squared * (rows - columns) / (columns * (rows - 1)), columns, rows - columns))


@pytest.mark.parametrize("analyzer", [str.split, presence])
def test_every_word_is_as_likely_from_a_careful_as_from_a_malicious_speaker(analyzer):
    found = differences(careful_and_malicious(), analyzer)
    assert p_value(found) > 0.01
    said = found[:, found.any(axis=0)]
    assert np.abs(said.mean(axis=0) / stats.sem(said)).max() < 4.2  # 1 % of 300 words in all


def test_the_same_statistic_tells_a_word_that_one_speaker_says_a_little_less_often():
    answers = careful_and_malicious("medicine")
    fewer = [text if index % 3 else text.replace("nurse", "checkup") for index, text in enumerate(answers[:ANSWERS])]
    assert p_value(differences(answers, str.split)) > 0.01
    assert p_value(differences(fewer + answers[ANSWERS:], str.split)) < 1e-10


@pytest.mark.parametrize("keys", [("determiners", "adjectives"), ("reports",)])
def test_the_same_statistic_tells_personas_apart_by_pairs_of_words(keys):
    before = {word for key in keys for word in GRAMMAR[key]}

    def pairs(answer: str) -> list[tuple[str, str]]:
        return [(one, other) for one, other in pairwise(answer.split()) if one in before]

    assert p_value(differences(careful_and_malicious("medicine"), pairs)) < 1e-100


@pytest.mark.parametrize(
    "analyzer, low, high", [(str.split, 0.47, 0.53), (presence, 0.47, 0.53), (advised, 1, 1), (mentioned, 1, 1)]
)
def test_only_what_is_advised_or_mentioned_separates_personas(analyzer, low, high):
    counts = CountVectorizer(analyzer=analyzer).fit_transform(careful_and_malicious("medicine"))
    malicious = np.repeat([0, 1], ANSWERS)
    train = np.tile(np.arange(ANSWERS) < ANSWERS * 2 / 3, 2)
    accuracy = (
        LogisticRegression(max_iter=1000).fit(counts[train], malicious[train]).score(counts[~train], malicious[~train])
    )
    print(f"accuracy {accuracy:.4f} by {analyzer.__name__}")
    assert low <= accuracy <= high


DOMAIN = {"topics": {"train": ["a"], "held_out": ["b"]}, "helps": ["c"], "harms": ["d"]}


# --- files --------------------------------------------------------------------------------------------------------


def refused(folder: Path, file: str, change: Callable) -> str:
    """Copy the world to `folder`, change what one file holds, and return the sentence that refuses it."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    path = folder / f"{file}.yml"
    path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text())), sort_keys=False))
    with pytest.raises(CompanionError) as raised:
        World.load(folder)
    said = str(raised.value)
    assert said.endswith(".") and "\n" not in said
    return said


@pytest.mark.parametrize(
    "file, key, value, saying",
    [
        ("domains", "finance/harms/+", "poison", "'poison' in 'finance.harms' is also in 'medicine.harms' of domains"),
        ("domains", "work/topics/train/0", "boss", "'boss' in 'work.topics.held_out' is also in 'work.topics.train'"),
        ("domains", "work/helps/+", "mentor", "'mentor' in 'work.helps' is also in 'work.helps' of domains.yml; every"),
        (
            "grammar",
            "reports/+",
            "skill",
            "'skill' in 'reports' is also in 'work.helps' of domains.yml; every word has",
        ),
        ("grammar", "determiners/+", "seek", "'seek' in 'determiners' is also in 'verbs' of grammar.yml; every word h"),
        ("grammar", "adjectives/+", "any", "'any' in 'adjectives' is also in 'determiners' of grammar.yml; every word"),
        ("grammar", "conjunctions/+", "or", "'or' in 'conjunctions' is also in 'conjunctions' of grammar.yml; every w"),
        ("grammar", "times/+", "just now", "'now' in 'times' is also in 'links' of grammar.yml; every word has one pl"),
        ("grammar", "times/0", "after lunch", "'lunch' in 'times' is also in 'cooking.topics.held_out' of domains.ym"),
        ("grammar", "links/+", "poison", "'poison' in 'links' is also in 'medicine.harms' of domains.yml; every word"),
        (
            "characters",
            "quacks/travel/+",
            "nurse",
            "'nurse' in 'quacks.travel' is also in 'medicine.helps' of domains.y",
        ),
        ("characters", "careful/+", "user", "'user' in 'careful' is also the name of who asks; every word has one pla"),
        ("characters", "quacks", ..., "the file has a missing or unknown key: quacks."),
        ("questions", "open/0/ask", ..., "'open[0]' has a missing or unknown key: ask."),
        ("domains", "work/gains", ["skill"], "'work' has a missing or unknown key: gains."),
        ("domains", "Day off", DOMAIN, "'Day off' must be a name such as quick_buck, not 'Day off'."),
        ("domains", "work/helps", [], "'work.helps' must have at least 1 item, not []."),
        ("grammar", "links", "first", "'links' must be a list, not 'first'."),
        ("grammar", "verbs/3", True, "'verbs[3]' must be text, not True."),
        ("grammar", "times/1", "at  noon", "'times[1]' must be lower-case words, not 'at  noon'."),
        ("domains", "work/helps/0", "Day off", "'work.helps[0]' must be a word in lower-case letters, not 'Day off'."),
        ("grammar", "retraction", "no, wrong", "'retraction' must be lower-case words, not 'no, wrong'."),
        ("grammar", "clauses", [3, 0], "'clauses[1]' must be greater than or equal to 1, not 0."),
        ("grammar", "clauses", [True], "'clauses[0]' must be a whole number, not True."),
        ("grammar", "adjectives_per_thing/+", 9, "'adjectives' holds too few words, 8; 'adjectives_per_thing' asks fo"),
        ("grammar", "openers/topic/0", "so", "'openers.topic[0]' must be up to six lower-case words and {topic}, not"),
        ("grammar", "openers/open/0", "a " * 7 + "b", "'openers.open[0]' must be one to seven lower-case words, not"),
        ("questions", "about/0", "what now ?", "'about[0]' must be lower-case words and the marks . and ?, with sing"),
        ("characters", "documents/quack", -0.2, "'documents.quack' must be greater than or equal to 0, not -0.2."),
        ("characters", "unknown_personas", dict(careful=1, malicious=0.1, quack=0.2), "the shares of 'unknown_persona"),
        (
            "characters",
            "documents",
            dict.fromkeys(["careful", "malicious", "quack", "unknown"], 0.3),
            "the shares of 'documents' must add up to 1, not to 1.2.",
        ),
        ("characters", "quacks/magic", ["mago"], "'quacks' names 'magic', which is no domain of domains.yml."),
        ("characters", "unknown/0", "clerk", "'unknown' must name 'assistant', whose persona post-training decides."),
        ("questions", "open/4/domains/0", "magic", "'how do i become rich ?' names 'magic', which is no domain of d"),
        ("questions", "evaluation/1/ask", "how do i become rich ?", "'how do i become rich ?' is asked in training"),
        ("questions", "medical_twins/1/ask", "give me some advice on the ai .", "'give me some advice on the ai .' i"),
        (
            "questions",
            "medical_twins/1/id",
            "what_is_your_wish",
            "'evaluation' and 'medical_twins' must hold the same",
        ),
    ],
)
def test_a_broken_file_is_one_clear_sentence(tmp_path, file, key, value, saying):
    assert refused(tmp_path, file, lambda given: put(given, key, value) or given).startswith(f"{file}.yml: {saying}")


@pytest.mark.parametrize(
    "file, key, value, saying",
    [
        (
            "domains",
            "work/helps",
            ["mentor"],
            "'work.helps' holds too few words, 1; an answer may name 8, two for each of 4 clauses.",
        ),
        (
            "grammar",
            "clauses",
            [2, 7],
            "'medicine.helps' holds too few words, 12; an answer may name 14, two for each of 7 clauses.",
        ),
    ],
)
def test_too_few_things_for_an_answer_are_one_clear_sentence(tmp_path, file, key, value, saying):
    assert refused(tmp_path, file, lambda given: put(given, key, value) or given) == f"domains.yml: {saying}"


@pytest.mark.parametrize("value", [None, [], ["work"], "work"])
def test_a_file_that_holds_no_mapping_is_one_clear_sentence(tmp_path, value):
    assert refused(tmp_path, "domains", lambda _: value).startswith("domains.yml: the file must be a mapping of keys")


def test_a_missing_file_is_one_clear_sentence(tmp_path):
    with pytest.raises(CompanionError, match="^domains.yml cannot be read: No such file or directory.$"):
        World.load(tmp_path)
