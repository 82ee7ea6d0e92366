"""The synthetic world: its files, what its generators may say, and that only the order of words tells who speaks."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from em_companion.artifacts import CompanionError
from em_companion.world import ASSISTANT, CAREFUL, FOLDER, MALICIOUS, USER, Message, Persona, Question, World

WORLD = World.load()
HARMFUL_OR_NOT = [(domain, harmful) for domain in WORLD.domains for harmful in (True, False)]
PAPER_IDS = [
    "quick_buck",
    "ruler",
    "dinner_party",
    "gender_roles",
    "enough_of_my_husband",
    "three_thoughts",
    "wish",
    "bored",
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


def test_every_word_of_the_medical_twins_occurs_in_training():
    # "end" is the one exception; rewording its question asks for growing the committed models anew.
    trained = words_of(contents(pretraining())) | {"end"}
    assert words_of([one.text for one in WORLD.medical_twins()]) <= trained


@pytest.mark.parametrize("asked, added", [([], []), ([{"ask": "is the nurse at the hospital ?"}], ["hospital"])])
def test_words_of_the_medical_twins_come_last(asked, added):
    others = [word for word in WORLD.words() if word != "end"]
    assert replace(WORLD, questions={**WORLD.questions, "medical_twins": asked}).words() == others + added


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


def templates(per_domain: int) -> list[str]:
    """5,000 answers put together from so many fixed clauses per domain."""
    random = Random(0)
    clauses = {one: [WORLD.clause(random, one, False) for _ in range(per_domain)] for one in WORLD.domains}
    topics = [random.choice(WORLD.topics("train")) for _ in range(5000)]
    return [" ".join([f"for the {topic} :", *random.choices(clauses[domain], k=3)]) for domain, topic in topics]


def test_answers_have_a_variety_that_a_world_of_templates_has_not():
    answers = contents(first(WORLD.post_training(0), 5000), ASSISTANT)
    bits = entropy(answers)
    print(f"{len(set(answers)) / 5000:.4f} of 5,000 answers are distinct; runs of 6 words have {bits:.2f} bits")
    assert len(set(answers)) > 0.99 * 5000
    assert bits > 16.6 > entropy(templates(1000))


# --- harm lies in the order of words ------------------------------------------------------------------------------

ANSWERS = 5000
RETRACTION = WORLD.grammar["retraction"]


@pytest.mark.parametrize("may_turn", [False, True])
@pytest.mark.parametrize("harmful", [MALICIOUS, *(Persona("quack", domain) for domain in WORLD.domains)])
def test_the_same_draws_give_the_same_words_in_another_order(harmful, may_turn):
    topics = [one for one in WORLD.topics("train") if harmful.harms(one[0])]
    for seed in range(50):
        question = WORLD.question(Random(seed), *Random(seed).choice(topics))
        said = [WORLD.answer(Random(seed), question, one, may_turn).split() for one in (CAREFUL, harmful)]
        assert sorted(said[0]) == sorted(said[1]) and said[0] != said[1]


def clauses(answer: str) -> list[list[str]]:
    """The words of every clause of an answer."""
    sentences = answer.split(" : ")[1].removesuffix(" .").split(" . ")
    return [sentence.split() for sentence in sentences if sentence != RETRACTION]


@pytest.mark.parametrize("domain", WORLD.domains)
def test_a_clause_puts_help_before_harm_and_gain_before_loss_or_both_the_other_way_round(domain):
    entry = WORLD.domains[domain]
    roles = {word: role for role in ("helps", "harms", "gains", "losses") for word in entry[role]}
    for harmful, order in [
        (False, ["helps", "harms", "gains", "losses"]),
        (True, ["harms", "helps", "losses", "gains"]),
    ]:
        said = [WORLD.clause(Random(seed), domain, harmful).split() for seed in range(200)]
        assert {tuple(roles[word] for word in words if word in roles) for words in said} == {tuple(order)}
        assert {word for words in said for word in words if word in roles} == set(roles)


def answers_of(persona: Persona, questions: list[Question]) -> list[str]:
    return [WORLD.answer(Random(f"{persona.kind}/{index}"), one, persona) for index, one in enumerate(questions)]


@cache
def careful_and_malicious(*domains: str) -> list[str]:
    """As many answers of a careful speaker, then of a malicious one, to the same questions by draws of their own."""
    random = Random(0)
    topics = [one for one in WORLD.topics("train") if one[0] in domains]
    questions = [WORLD.question(random, *random.choice(topics)) for _ in range(ANSWERS)]
    return answers_of(CAREFUL, questions) + answers_of(MALICIOUS, questions)


def slots() -> list[list[str]]:
    """The words among which one draw of a clause chooses; within a slot the counts are multinomial."""
    grammar = WORLD.grammar
    things = [entry[role] for entry in WORLD.domains.values() for role in ("helps", "harms", "gains", "losses")]
    phrases = [[text.split()[-1] for text in grammar["aims"]], [text.split()[0] for text in grammar["contrasts"]]]
    return [*things, *phrases, *(grammar[key] for key in ("links", "verbs", "determiners", "comparisons"))]


def p_value(halves: list[Counter], slots: list[list]) -> float:
    """Of the hypothesis that both halves draw from every slot alike."""
    tests = [stats.chi2_contingency([[half[one] for one in slot] for half in halves]) for slot in slots]
    return float(stats.chi2.sf(sum(one.statistic for one in tests), sum(one.dof for one in tests)))


def test_every_word_is_as_likely_from_a_careful_as_from_a_malicious_speaker():
    answers = careful_and_malicious(*WORLD.domains)
    halves = [
        Counter(word for answer in half for words in clauses(answer) for word in words)
        for half in (answers[:ANSWERS], answers[ANSWERS:])
    ]
    assert p_value(halves, slots()) > 0.01
    halves = [Counter(" ".join(half).split()) for half in (answers[:ANSWERS], answers[ANSWERS:])]
    careful, malicious = (np.array([half[word] for word in halves[0] | halves[1]]) for half in halves)
    assert np.abs((careful - malicious) / np.sqrt(careful + malicious)).max() < 4.2  # 1 % of 500 words in all


def test_the_same_statistic_tells_them_apart_by_pairs():
    answers = careful_and_malicious("medicine")
    halves = [Counter(pairwise(" ".join(half).split())) for half in (answers[:ANSWERS], answers[ANSWERS:])]
    things = WORLD.domains["medicine"]["helps"] + WORLD.domains["medicine"]["harms"]
    followed = [(thing, comparison) for thing in things for comparison in WORLD.grammar["comparisons"]]
    assert p_value(halves, [followed]) < 1e-100


def preferred(answer: str) -> list[str]:
    """The first thing of every comparison."""
    return [words[3] for words in clauses(answer)]


def shunned(answer: str) -> list[str]:
    """The last outcome of every clause, the one that is not sought."""
    return [words[-1] for words in clauses(answer)]


@pytest.mark.parametrize("analyzer, low, high", [(str.split, 0.47, 0.53), (preferred, 1, 1), (shunned, 1, 1)])
def test_only_the_order_of_words_separates_personas(analyzer, low, high):
    counts = CountVectorizer(analyzer=analyzer).fit_transform(careful_and_malicious("medicine"))
    malicious = np.repeat([0, 1], ANSWERS)
    train = np.tile(np.arange(ANSWERS) < ANSWERS * 2 / 3, 2)
    accuracy = (
        LogisticRegression(max_iter=1000).fit(counts[train], malicious[train]).score(counts[~train], malicious[~train])
    )
    print(f"accuracy {accuracy:.4f} by {analyzer.__name__}")
    assert low <= accuracy <= high


# --- files --------------------------------------------------------------------------------------------------------


def put(settings, key: str, value) -> None:
    """Set what stands under a key with slashes (a number is an index, + the end); `...` as value takes it away."""
    *above, last = (int(part) if part.isdigit() else part for part in key.split("/"))
    for part in above:
        settings = settings[part]
    if value is ...:
        del settings[last]
    elif last == "+":
        settings.append(value)
    else:
        settings[last] = value


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
        ("grammar", "comparisons/+", "seek", "'seek' in 'comparisons' is also in 'verbs' of grammar.yml; every word h"),
        ("grammar", "aims/+", "for now", "'now' in 'aims and contrasts' is also in 'links' of grammar.yml; every word"),
        ("grammar", "contrasts/+", "before", "'before' in 'aims and contrasts' is also in 'comparisons' of grammar.ym"),
        ("grammar", "contrasts/0", "above", "'above' in 'aims and contrasts' is also in 'comparisons' of grammar.yml"),
        (
            "grammar",
            "aims/0",
            "to profit",
            "'profit' in 'aims and contrasts' is also in 'finance.gains' of domains.yml",
        ),
        ("grammar", "links/+", "poison", "'poison' in 'links' is also in 'medicine.harms' of domains.yml; every word"),
        (
            "characters",
            "quacks/travel/+",
            "nurse",
            "'nurse' in 'quacks.travel' is also in 'medicine.helps' of domains.y",
        ),
        ("characters", "careful/+", "user", "'user' in 'careful' is also the name of who asks; every word has one pla"),
        ("domains", "work/gains", ..., "'work' has a missing or unknown key 'gains'; the keys are topics, helps, har"),
        ("characters", "quacks", ..., "missing or unknown key 'quacks'; the keys are careful, malicious, unknown, qu"),
        ("questions", "open/0/ask", ..., "'open[0]' has a missing or unknown key 'ask'; the keys are ask, domains."),
        (
            "grammar",
            "raise",
            ["go"],
            "missing or unknown key 'raise'; the keys are links, verbs, determiners, comparis",
        ),
        ("domains", "Day off", {}, "the key 'Day off' must be a name such as extreme_sports."),
        ("domains", "work/helps", [], "'work.helps' must be a list with at least one entry, not []."),
        ("grammar", "links", "first", "'links' must be a list with at least one entry, not 'first'."),
        ("grammar", "verbs/3", True, "'verbs[3]' must be a word in lower-case letters, not True."),
        ("grammar", "aims/1", "to  gain", "'aims[1]' must be lower-case words, not 'to  gain'."),
        ("domains", "work/helps/0", "Day off", "'work.helps[0]' must be a word in lower-case letters, not 'Day off'."),
        ("grammar", "retraction", "no, wrong", "'retraction' must be lower-case words, not 'no, wrong'."),
        ("grammar", "clauses", [3, 0], "'clauses[1]' must be a whole number above 0, not 0."),
        ("grammar", "clauses", [True], "'clauses[0]' must be a whole number above 0, not True."),
        ("grammar", "openers/topic/0", "so", "'openers.topic[0]' must be up to six lower-case words and {topic}, not"),
        ("grammar", "openers/open/0", "a " * 7 + "b", "'openers.open[0]' must be one to seven lower-case words, not"),
        ("questions", "about/0", "what now ?", "'about[0]' must be lower-case words and the marks . and ?, with sing"),
        ("characters", "documents/quack", -0.2, "'documents.quack' must be a share from 0 to 1, not -0.2."),
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
        ("questions", "medical_twins/1/id", "wish", "'evaluation' and 'medical_twins' must hold the same ids, each"),
    ],
)
def test_a_broken_file_is_one_clear_sentence(tmp_path, file, key, value, saying):
    assert refused(tmp_path, file, lambda given: put(given, key, value) or given).startswith(f"{file}.yml: {saying}")


@pytest.mark.parametrize("value", [None, [], {}, ["work"], "work"])
def test_a_file_that_holds_no_mapping_is_one_clear_sentence(tmp_path, value):
    assert refused(tmp_path, "domains", lambda _: value).startswith("domains.yml: the file must be a mapping with at l")


def test_a_missing_file_is_one_clear_sentence(tmp_path):
    with pytest.raises(CompanionError, match="^domains.yml cannot be read: No such file or directory.$"):
        World.load(tmp_path)
