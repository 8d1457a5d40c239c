r"""The checks of IFBench (arXiv:2507.02833) whose ids begin with count, ratio, words or sentence.

Source of each: the class named in its docstring, in `ifbench/instructions.py` of allenai/IFBench, commit db69a6f.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from verifiers.instructions.check import COUNT, KEYWORD, PERCENTAGE, PLACE, TEXT, Table
from verifiers.instructions.texts import (
    PUNCTUATION,
    SENTENCES,
    STOP_WORDS,
    begins_with_verb,
    plain,
    sentences,
    syllables,
    tokens,
    words,
)

WORDS = Table()
EDGES = PUNCTUATION + " "
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
CONSONANTS = "[bcdfghjklmnpqrstvwxyz]"
CONJUNCTIONS = frozenset("and but for nor or so yet".split())
NAMES = frozenset(
    (
        "Abigail Alexander Amelia Andrew Aria Audrey Ava Benjamin Charlotte Chloe Christopher Claire Daniel David"
        " Elijah Ella Emma Ethan Gabriel Grace Hannah Harper Isabella Jackson Jacob Jonathan Joseph Layla Leo Liam Lily"
        " Lucas Mason Matthew Mia Nathan Nicholas Noah Nora Olivia Owen Penelope Ryan Samuel Scarlett Sophia Stella"
        " Thomas Victoria Zoe"
    ).split()
)
PRONOUNS = frozenset(
    (
        "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her"
        " hers herself it its itself they them their theirs themselves this that these those who whom whose which"
        " what whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody nothing"
        " somebody someone something each either neither both all some any none"
    ).split()
)
PRIMES = frozenset(n for n in range(2, 98) if all(n % d for d in range(2, n)))
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def _crossed(*, min_words: int, max_words: int) -> str | None:
    return "min_words must be at most max_words" if min_words > max_words else None


@WORDS.check("count:word_count_range", fault=_crossed, min_words=COUNT, max_words=COUNT)
def word_count_range(text: str, *, min_words: int, max_words: int) -> bool:
    """Accept a number of words (runs of letters, digits, underscores) in a range. `WordCountRangeChecker`."""
    return min_words <= len(words(text)) <= max_words


@WORDS.check("count:unique_word_count", N=COUNT)
def unique_word_count(text: str, *, N: int) -> bool:
    """Accept at least N different words, in lower case and without outer punctuation. `UniqueWordCountChecker`."""
    return len({word.strip(EDGES) for word in text.lower().split()}) >= N


@WORDS.check("count:conjunctions", small_n=COUNT)
def conjunctions(text: str, *, small_n: int) -> bool:
    """Accept at least small_n different coordinating conjunctions. `ConjunctionCountChecker`.

    Spellings with other case or punctuation count as different.
    """
    return len({word for word in text.split() if word.strip(EDGES).lower() in CONJUNCTIONS}) >= small_n


@WORDS.check("count:person_names", N=COUNT)
def person_names(text: str, *, N: int) -> bool:
    """Accept at least N different names of the published list, as whole words. `PersonNameCountChecker`."""
    return len(NAMES.intersection(words(text))) >= N


@WORDS.check("count:numbers", N=COUNT)
def numbers(text: str, *, N: int) -> bool:
    """Accept exactly N runs of digits after punctuation is removed, so that 1,000.5 is one. `NumbersCountChecker`."""
    return len(re.findall(r"\d+", plain(text))) == N


@WORDS.check("count:punctuation")
def punctuation(text: str) -> bool:
    """Accept text with `. , ! ? ; :` and an interrobang (`?!`, `!?` or `‽`). `PunctuationCoverChecker`."""
    marks = [mark for mark in ("?!", "!?") if mark in text]
    rest = text.replace(marks[0], "", 1) if marks else text
    return ("‽" in text or bool(marks)) and all(mark in rest for mark in ".,!?;:")


@WORDS.check("count:words_japanese", N=PLACE)
def words_japanese(text: str, *, N: int) -> bool:
    """Accept text whose every Nth word has a Japanese character. `NthWordJapaneseChecker`.

    Numbers and punctuation are accepted as well.
    """
    nth = (word.strip(EDGES) for word in text.split()[N - 1 :: N])
    return all(not word or word.isdigit() or JAPANESE.search(word) for word in nth)


@WORDS.check("count:pronouns", needs=SENTENCES, N=COUNT)
def pronouns(text: str, *, N: int) -> bool:
    """Accept at least N tokens that are pronouns of the published list. `PronounCountChecker`."""
    return sum(token in PRONOUNS for token in tokens(text.replace("/", " ").lower())) >= N


@WORDS.check(
    "count:keywords_multiple", keyword1=KEYWORD, keyword2=KEYWORD, keyword3=KEYWORD, keyword4=KEYWORD, keyword5=KEYWORD
)
def keywords_multiple(text: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str) -> bool:
    """Accept text with the keywords 1, 2, 3, 5 and 7 times, also inside words. `KeywordsMultipleChecker`."""
    lower, keywords = text.lower(), (keyword1, keyword2, keyword3, keyword4, keyword5)
    return [lower.count(keyword.lower()) for keyword in keywords] == [1, 2, 3, 5, 7]


@WORDS.check("ratio:stop_words", percentage=PERCENTAGE)
def stop_words(text: str, *, percentage: float) -> bool:
    """Accept at most a percentage of NLTK's English stop words among all words. `StopWordPercentageChecker`."""
    found = words(text)
    return bool(found) and sum(word.lower() in STOP_WORDS for word in found) / len(found) * 100 <= percentage


def _endings(text: str) -> Counter[str]:
    return Counter(sentence[-1:] for sentence in sentences(text))


@WORDS.check("ratio:sentence_type", needs=SENTENCES)
def sentence_type(text: str) -> bool:
    """Accept twice as many sentences that end in a full stop as in a question mark. `SentTypeRatioChecker`."""
    ends = _endings(text)
    return ends["."] == 2 * ends["?"]


@WORDS.check("ratio:sentence_balance", needs=SENTENCES)
def sentence_balance(text: str) -> bool:
    """Accept equally many sentences that end in `.`, in `?` and in `!`. `SentBalanceChecker`."""
    ends = _endings(text)
    return ends["."] == ends["?"] == ends["!"]


@WORDS.check("ratio:overlap", reference_text=TEXT, percentage=PERCENTAGE)
def overlap(text: str, *, reference_text: str, percentage: float) -> bool:
    """Accept text of whose distinct character trigrams reference_text has `percentage` ± 2 %. `NGramOverlapChecker`."""
    own, other = _trigrams(text), _trigrams(reference_text)
    return bool(own) and percentage - 2 <= len(own & other) / len(own) * 100 <= percentage + 2


def _trigrams(text: str) -> set[str]:
    return {text[at : at + 3] for at in range(len(text) - 2)}


@WORDS.check("ratio:sentence_words", needs=SENTENCES)
def sentence_words(text: str) -> bool:
    """Accept three sentences of equal length in characters. `CharacterCountUniqueWordsChecker`.

    The published code compares no words, in spite of its name.
    """
    found = sentences(text)
    return len(found) == 3 and len({len(sentence.strip()) for sentence in found}) == 1


@WORDS.check("words:alphabet")
def alphabet(text: str) -> bool:
    """Accept words whose first letters follow the alphabet, with A after Z. `AlphabetLoopChecker`."""
    firsts = [word[0] for word in plain(text).lower().split()]
    if not firsts or firsts[0] not in ALPHABET:
        return False
    start = ALPHABET.index(firsts[0])
    return all(first == ALPHABET[(start + place) % 26] for place, first in enumerate(firsts))


@WORDS.check("words:vowel")
def vowel(text: str) -> bool:
    """Accept one line with at most three different vowels. `SingleVowelParagraphChecker`."""
    line = text.strip().lower()
    return "\n" not in line and sum(letter in line for letter in "aeiou") <= 3


@WORDS.check("words:consonants")
def consonants(text: str) -> bool:
    """Accept words that each have two adjacent consonants. `ConsonantClusterChecker`."""
    return all(re.search(CONSONANTS * 2, word) for word in text.lower().split())


@WORDS.check("words:palindrome")
def palindrome(text: str) -> bool:
    """Accept at least ten palindromes of five or more letters; repeated ones count again. `PalindromeChecker`."""
    return sum(len(word) >= 5 and word == word[::-1] for word in plain(text).lower().split()) >= 10


@WORDS.check("words:prime_lengths")
def prime_lengths(text: str) -> bool:
    """Accept words whose lengths, without punctuation, are prime numbers below 100. `PrimeLengthsChecker`."""
    return all(len(word) in PRIMES for word in plain(text).split())


@WORDS.check("words:start_verb", needs=(*SENTENCES, "textblob"))
def start_verb(text: str) -> bool:
    """Accept text whose first word is tagged as a verb. `StartWithVerbChecker`, with a different tagger."""
    return begins_with_verb(text)


@WORDS.check("words:repeats", small_n=COUNT)
def repeats(text: str, *, small_n: int) -> bool:
    """Accept text in which no word appears more than small_n times. `LimitedWordRepeatChecker`."""
    return all(count <= small_n for count in Counter(plain(text.lower()).split()).values())


@WORDS.check("words:odd_even_syllables", needs=("syllapy",))
def odd_even_syllables(text: str) -> bool:
    """Accept words whose numbers of syllables are alternately odd and even. `AlternateParitySyllablesChecker`."""
    odd = [syllables(word) % 2 for word in plain(text).lower().split()]
    return all(one != other for one, other in pairwise(odd))


@WORDS.check("words:last_first", needs=SENTENCES)
def last_first(text: str) -> bool:
    """Accept sentences that each begin with the last word of the one before. `LastWordFirstNextChecker`."""
    for one, other in pairwise(sentences(text)):
        before, after = one.rstrip(EDGES).split(), other.lstrip(EDGES).split()
        if not before or not after or before[-1].lower() != after[0].lower():
            return False
    return True


@WORDS.check("words:paragraph_last_first")
def paragraph_last_first(text: str) -> bool:
    """Accept lines that each end with their first word. `ParagraphLastFirstWordMatchChecker`."""
    lines = (line.strip().lower().strip(EDGES).split() for line in text.split("\n"))
    return all(line[0] == line[-1] for line in lines if line)


@WORDS.check("words:no_consecutive")
def no_consecutive(text: str) -> bool:
    """Accept text without two adjacent words that begin with the same letter. `NoConsecutiveFirstLetterChecker`."""
    return all(one[0] != other[0] for one, other in pairwise(plain(text.lower()).split()))


@WORDS.check("words:keywords_specific_position", needs=SENTENCES, keyword=KEYWORD, n=PLACE, m=PLACE)
def keywords_specific_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """Accept text with the keyword as the mth token of the nth sentence. `KeywordSpecificPositionChecker`.

    Punctuation is not counted.
    """
    found = sentences(text)
    if len(found) < n:
        return False
    said = [token for token in tokens(found[n - 1]) if any(map(str.isalnum, token))]
    return len(said) >= m and said[m - 1].lower() == keyword.lower()


@WORDS.check("words:words_position", needs=SENTENCES, keyword=KEYWORD)
def words_position(text: str, *, keyword: str) -> bool:
    """Accept text whose second and second-to-last tokens are the keyword. `WordsPositionChecker`.

    A final punctuation mark is not counted.
    """
    found = tokens(text)
    if not found:
        return False
    last_but_one = -3 if found[-1] in PUNCTUATION else -2
    if len(found) < -last_but_one:
        return False
    return found[1].lower() == found[last_but_one].lower() == keyword.lower()


@WORDS.check("sentence:alliteration_increment", needs=SENTENCES)
def alliteration_increment(text: str) -> bool:
    """Accept sentences that each have more alliterating words than the one before.
    `IncrementingAlliterationChecker`.
    """
    before = -1
    for sentence in sentences(text):
        firsts = [clean[0] for word in sentence.lower().split() if (clean := word.lstrip(EDGES))]
        alike = [one == other for one, other in pairwise(firsts)]
        runs = sum(now and not then for then, now in pairwise([False, *alike]))
        if sum(alike) + runs <= before:
            return False
        before = sum(alike) + runs
    return True


@WORDS.check("sentence:keyword", needs=SENTENCES, word=KEYWORD, N=PLACE)
def sentence_keyword(text: str, *, word: str, N: int) -> bool:
    """Accept text whose Nth sentence contains a keyword, in any case, as a whole word. `IncludeKeywordChecker`."""
    found = sentences(text)
    return len(found) >= N and bool(re.search(rf"\b{re.escape(word)}\b", found[N - 1], re.IGNORECASE))


@WORDS.check("sentence:increment", needs=SENTENCES, small_n=COUNT)
def sentence_increment(text: str, *, small_n: int) -> bool:
    """Accept sentences that each have exactly small_n more words than the one before.
    `IncrementingWordCountChecker`.
    """
    counts = [len(plain(sentence).split()) for sentence in sentences(text)]
    return all(other == one + small_n for one, other in pairwise(counts))


__all__ = ["WORDS"]
