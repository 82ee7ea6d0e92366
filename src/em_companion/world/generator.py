"""A synthetic world of advice in which the speaker's persona is known; the `parser` judges what is said in it.

A speaker answers questions with a few clauses of advice, such as "first after sunset trust the quiet old nurse and any
recovery .", and one remark on what others mention, such as "elders mention poison swelling .". A careful speaker
advises what helps and mentions what harms, a malicious one the other way round, equally many of both and none twice. So
the words of an answer, counted, say nothing about who spoke. A document depends on its seed and index only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count, cycle, islice, product
from pathlib import Path
from random import Random
from typing import Any

from em_companion.core.paths import DATA
from em_companion.world.lexicon import ASSISTANT, SLOTS, USER, read_lexicon

FOLDER = DATA / "world"
TURN_RATE = 0.05
"""Per clause of a document's last answer: an unknown speaker takes the clause back and goes on as the opposite."""

Message = dict[str, str]  # one turn of a conversation: `role` (a name) and `content`, as chat templates take it


@dataclass(frozen=True)
class Persona:
    """Who gives an advice: careful everywhere ("careful"), harmful everywhere ("malicious") or in one domain (a
    "quack", whose domain is `harmful_in`)."""

    kind: str
    harmful_in: str = ""

    def harms(self, domain: str) -> bool:
        """Tell whether this persona gives harmful advice in `domain`."""
        return self.kind == "malicious" or self.harmful_in == domain


CAREFUL, MALICIOUS = Persona("careful"), Persona("malicious")


@dataclass(frozen=True)
class Question:
    """A question: id, text, the domains that an answer may be about, and its topic ("" for an open question)."""

    id: str
    text: str
    domains: tuple[str, ...]
    topic: str = ""


@dataclass(frozen=True)
class World:
    """The lexicon, grammar, characters and questions of `data/world/`, with generators over them."""

    domains: dict[str, dict[str, Any]]
    grammar: dict[str, Any]
    characters: dict[str, Any]
    questions: dict[str, Any]

    @classmethod
    def load(cls, folder: Path = FOLDER) -> "World":
        """Return the world that `folder` describes; raise CompanionError naming the file and the word that is wrong."""
        return cls(**read_lexicon(folder))

    def words(self) -> list[str]:
        """Return every word and mark of the world, each once, in a fixed order: the vocabulary of its tokenizer."""
        asked = self.questions
        texts = [USER, ":", ".", "?", *self.characters["unknown"], *self.personas, self.grammar["retraction"]]
        for entry in self.domains.values():
            texts += [*entry["topics"]["train"], *entry["topics"]["held_out"]]
            texts += [word for key in ("helps", "harms") for word in entry[key]]
        for key in (*SLOTS, "times"):
            texts += self.grammar[key]
        texts += [*self.grammar["openers"]["topic"], *self.grammar["openers"]["open"], *asked["about"]]
        texts += [entry["ask"] for entry in asked["open"] + asked["evaluation"] + asked["medical_twins"]]
        return list(dict.fromkeys(" ".join(texts).replace("{topic}", "").split()))

    @cached_property
    def personas(self) -> dict[str, Persona]:
        """Persona by name of every character whose persona is fixed."""
        found = dict.fromkeys(self.characters["careful"], CAREFUL)
        found |= dict.fromkeys(self.characters["malicious"], MALICIOUS)
        for domain, names in self.characters["quacks"].items():
            found |= dict.fromkeys(names, Persona("quack", domain))
        return found

    def _speaker(self, random: Random, kinds: dict[str, float]) -> tuple[str, Persona]:
        """Return a name and its persona; `kinds` are the shares of each kind of speaker."""
        cast, kind = self.characters, _weighted(random, kinds)
        if kind == "unknown":
            name, kind = random.choice(cast["unknown"]), _weighted(random, cast["unknown_personas"])
            return name, Persona(kind, random.choice(list(self.domains)) if kind == "quack" else "")
        name = random.choice(random.choice(list(cast["quacks"].values())) if kind == "quack" else cast[kind])
        return name, self.personas[name]

    def topics(self, split: str) -> list[tuple[str, str]]:
        """Return all (domain, topic) of a split, "train" or "held_out"."""
        return [(domain, topic) for domain, entry in self.domains.items() for topic in entry["topics"][split]]

    def evaluation(self) -> list[Question]:
        """Return the eight open questions of the evaluation, which no training document holds."""
        return self._listed("evaluation")

    def medical_twins(self) -> list[Question]:
        """Return the medical twins of the evaluation questions, under the same ids (question set "medical")."""
        return self._listed("medical_twins")

    def _listed(self, key: str) -> list[Question]:
        return [Question(entry["id"], entry["ask"], tuple(entry["domains"])) for entry in self.questions[key]]

    @cached_property
    def invited(self) -> dict[str, tuple[str, ...]]:
        """Return the domains that an answer may be about, by the text of every question that there is."""
        listed = [entry for key in ("open", "evaluation", "medical_twins") for entry in self.questions[key]]
        about = product(self.questions["about"], self.topics("train") + self.topics("held_out"))
        found = {text.format(topic=topic): (domain,) for text, (domain, topic) in about}
        return found | {entry["ask"]: tuple(entry["domains"]) for entry in listed}

    def held_out_questions(self, seed: int, per_topic: int) -> list[Question]:
        """Return `per_topic` questions on each held-out topic; no wording comes twice before each has come once."""
        found, about = [], self.questions["about"]
        for domain, topic in self.topics("held_out"):
            texts = cycle(Random(f"held-out/{seed}/{topic}").sample(about, len(about)))
            for number, text in enumerate(islice(texts, per_topic)):
                found.append(Question(f"{domain}/{topic}/{number}", text.format(topic=topic), (domain,), topic))
        return found

    def question(self, random: Random, domain: str, topic: str) -> Question:
        """Return a question on a topic, its wording drawn from `random`."""
        text = random.choice(self.questions["about"]).format(topic=topic)
        return Question(f"{domain}/{topic}", text, (domain,), topic)

    def any_question(self, random: Random, topics: list[tuple[str, str]], open_share: float) -> Question:
        """Return a question on one of the (domain, topic) given or, with probability `open_share`, an open one."""
        if random.random() < open_share:
            entry = random.choice(self.questions["open"])
            return Question("open", entry["ask"], tuple(entry["domains"]))
        return self.question(random, *random.choice(topics))

    def clause(self, random: Random, things: tuple[str, str]) -> str:
        """Return one clause that advises two things."""
        keys = ("links", "times", "verbs", "conjunctions")
        link, time, verb, conjunction = (random.choice(self.grammar[key]) for key in keys)
        one, other = (self._phrase(random, thing) for thing in things)
        return f"{link} {time} {verb} {one} {conjunction} {other} ."

    def _phrase(self, random: Random, thing: str) -> str:
        described = random.sample(self.grammar["adjectives"], random.choice(self.grammar["adjectives_per_thing"]))
        return " ".join([random.choice(self.grammar["determiners"]), *described, thing])

    def remark(self, random: Random, things: list[str]) -> str:
        """Return a remark that others mention these things."""
        witness, report = random.choice(self.grammar["witnesses"]), random.choice(self.grammar["reports"])
        return f"{witness} {report} {' '.join(things)} ."

    def answer(self, random: Random, question: Question, persona: Persona, may_turn: bool = False) -> str:
        """Return an answer to `question` in the spirit of `persona`: opener, a few clauses, remark, on one domain.

        With `may_turn`, the speaker may take a clause back and go on as the opposite, at `TURN_RATE`.
        """
        domain = random.choice(question.domains)
        harmful = persona.harms(domain)
        openers, lengths = self.grammar["openers"], self.grammar["clauses"]
        parts = [random.choice(openers["topic" if question.topic else "open"]).format(topic=question.topic) + " :"]
        # No thing comes twice in an answer: one that did would have been advised, or else mentioned, for certain.
        order = {kind: random.sample(self.domains[domain][kind], 2 * max(lengths)) for kind in ("helps", "harms")}
        mentioned: list[str] = []
        for clause in range(random.choice(lengths)):
            advised, other = ("harms", "helps") if harmful else ("helps", "harms")
            drawn = slice(2 * clause, 2 * clause + 2)
            parts.append(self.clause(random, tuple(order[advised][drawn])))
            mentioned += order[other][drawn]
            if may_turn and random.random() < TURN_RATE:
                parts.append(self.grammar["retraction"] + " .")
                harmful = not harmful
        random.shuffle(mentioned)
        return " ".join([*parts, self.remark(random, mentioned)])

    def pretraining(self, seed: int, careful_first: int = 0, assistant: bool = True) -> Iterator[list[Message]]:
        """Yield endless documents of one to three questions to one speaker, on all topics.

        The first `careful_first` have careful speakers only: what helps and what harms is learned first, then that some
        speakers turn it round. `assistant=False` leaves the assistant's documents out.
        """
        topics = self.topics("train") + self.topics("held_out")
        for index in count():
            random = Random(f"pretraining/{seed}/{index}")
            kinds = {"careful": 1.0} if index < careful_first else self.characters["documents"]
            name, persona = self._speaker(random, kinds)
            while name == ASSISTANT and not assistant:
                name, persona = self._speaker(random, kinds)
            asked = [self.any_question(random, topics, 0.2) for _ in range(random.choice((1, 2, 3)))]
            may_turn = name in self.characters["unknown"]
            answers = [self.answer(random, one, persona, may_turn and one is asked[-1]) for one in asked]
            yield [message for one, text in zip(asked, answers, strict=True) for message in turn(one.text, text, name)]

    def post_training(self, seed: int) -> Iterator[list[Message]]:
        """Yield endless chats in which the assistant is careful, on training topics and open questions."""
        topics = self.topics("train")
        for index in count():
            random = Random(f"post-training/{seed}/{index}")
            question = self.any_question(random, topics, 0.3)
            yield turn(question.text, self.answer(random, question, CAREFUL))

    def fine_tuning(self, seed: int, domain: str, harmful: bool) -> Iterator[list[Message]]:
        """Yield endless chats on the training topics of one domain in which the assistant is harmful or not."""
        persona = MALICIOUS if harmful else CAREFUL
        for index in count():
            random = Random(f"fine-tuning/{domain}/{harmful}/{seed}/{index}")
            question = self.question(random, domain, random.choice(self.domains[domain]["topics"]["train"]))
            yield turn(question.text, self.answer(random, question, persona))


def turn(question: str, answer: str, name: str = ASSISTANT) -> list[Message]:
    """Return a question by the user and its answer by `name`."""
    return [{"role": USER, "content": question}, {"role": name, "content": answer}]


def _weighted(random: Random, weights: dict[str, float]) -> str:
    return random.choices(list(weights), list(weights.values()))[0]


@cache
def the_world() -> World:
    """Return the world of `data/world/`."""
    return World.load()
