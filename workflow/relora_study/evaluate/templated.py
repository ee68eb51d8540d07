"""Make a small suite of minimal pairs: ten paradigms, from templates over frequent words of the corpus.

The suite needs no network, and has BLiMP's JSONL schema. It is not BLiMP, so its numbers must not be compared with
BLiMP's.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product

PAIRS_A_PARADIGM = 200
RAREST = 20  # a word must occur this often in the training documents

NOUNS = """minister president leader officer report government country company court member party group student teacher
worker lawyer player team game city school law plan deal vote month week problem question family friend doctor attack
issue case official reporter voter""".split()
MEN = ["man", "boy", "father", "brother", "son", "king", "husband"]
WOMEN = ["woman", "girl", "mother", "sister", "daughter", "queen", "wife"]
VERBS = [
    ("says", "say"),
    ("wants", "want"),
    ("knows", "know"),
    ("thinks", "think"),
    ("needs", "need"),
    ("likes", "like"),
]
PAST = [("went", "gone"), ("took", "taken"), ("saw", "seen"), ("gave", "given"), ("began", "begun"), ("fell", "fallen")]
PLACES = ["in the city", "near the school", "at the court", "from the country", "with the team", "behind the company"]
REFLEXIVE = ["hurt", "saw", "helped", "asked", "called", "found", "protected", "described"]
TIMES = ["today", "this week", "last year", "again", "on Monday", "in public"]

Pair = tuple[str, str]


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _determiners(nouns: list[str], singular: str, plural: str) -> Iterable[Pair]:
    for noun, verb, time in product(nouns, REFLEXIVE, TIMES):
        for good, bad, form in ((singular, plural, noun), (plural, singular, _plural(noun))):
            yield f"People {verb} {good} {form} {time}.", f"People {verb} {bad} {form} {time}."


def _copula(nouns: list[str], singular: str, plural: str, place: str = "") -> Iterable[Pair]:
    for noun, time in product(nouns, TIMES):
        for good, bad, form in ((singular, plural, noun), (plural, singular, _plural(noun))):
            yield f"The {form}{place} {good} here {time}.", f"The {form}{place} {bad} here {time}."


def _verbs(nouns: list[str]) -> Iterable[Pair]:
    for noun, (one, many), time in product(nouns, VERBS, TIMES):
        yield f"The {noun} {one} so {time}.", f"The {noun} {many} so {time}."
        yield f"The {_plural(noun)} {many} so {time}.", f"The {_plural(noun)} {one} so {time}."


def _across(nouns: list[str]) -> Iterable[Pair]:
    return (pair for place in PLACES for pair in _copula(nouns, "was", "were", f" {place}"))


def _reflexives(people: list[str], good: str, bad: str) -> Iterable[Pair]:
    for person, verb, time in product(people, REFLEXIVE, TIMES):
        yield f"The {person} {verb} {good} {time}.", f"The {person} {verb} {bad} {time}."


def _gender(nouns: list[str]) -> Iterable[Pair]:
    yield from _reflexives(MEN, "himself", "herself")
    yield from _reflexives(WOMEN, "herself", "himself")


def _number(nouns: list[str]) -> Iterable[Pair]:
    yield from _reflexives([_plural(noun) for noun in nouns], "themselves", "himself")


def _participles(nouns: list[str]) -> Iterable[Pair]:
    for noun, (past, participle), time in product(nouns, PAST, TIMES):
        yield f"The {noun} has {participle} it {time}.", f"The {noun} has {past} it {time}."


def _pasts(nouns: list[str]) -> Iterable[Pair]:
    for noun, (past, participle), time in product(nouns, PAST, TIMES):
        yield f"The {noun} {past} it {time}.", f"The {noun} {participle} it {time}."


PARADIGMS: dict[str, tuple[str, Callable[[list[str]], Iterable[Pair]]]] = {
    "this_these": ("determiner_noun_agreement", lambda nouns: _determiners(nouns, "this", "these")),
    "that_those": ("determiner_noun_agreement", lambda nouns: _determiners(nouns, "that", "those")),
    "is_are": ("subject_verb_agreement", lambda nouns: _copula(nouns, "is", "are")),
    "has_have": ("subject_verb_agreement", lambda nouns: _copula(nouns, "has been", "have been")),
    "present_tense": ("subject_verb_agreement", _verbs),
    "was_were_across_a_phrase": ("subject_verb_agreement", _across),
    "reflexive_gender": ("anaphor_agreement", _gender),
    "reflexive_number": ("anaphor_agreement", _number),
    "irregular_participle": ("irregular_forms", _participles),
    "irregular_past": ("irregular_forms", _pasts),
}


def templated_suite(texts: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return the suite by paradigm, over nouns that are frequent in ``texts``, on which alone the pairs depend."""
    wanted = {*NOUNS, *map(_plural, NOUNS)}
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()) if word in wanted)
    nouns = [noun for noun in NOUNS if counts[noun] >= RAREST and counts[_plural(noun)] >= RAREST] or NOUNS
    return {name: _draw(name, phenomenon, make(nouns)) for name, (phenomenon, make) in PARADIGMS.items()}


def _draw(paradigm: str, phenomenon: str, pairs: Iterable[Pair]) -> list[dict[str, str]]:
    every = sorted(set(pairs))
    chosen = random.Random(paradigm).sample(every, min(PAIRS_A_PARADIGM, len(every)))
    return [
        {
            "sentence_good": good,
            "sentence_bad": bad,
            "field": "morphology",
            "linguistics_term": phenomenon,
            "UID": paradigm,
            "pairID": str(number),
        }
        for number, (good, bad) in enumerate(chosen)
    ]
