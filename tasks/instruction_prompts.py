"""Generated requests with instructions that a program can check; graded by `instructions`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct
from verifiers import JSON
from verifiers.suggest import did_you_mean

TOPICS = (
    "ant bat bee boar cat cod cow crab crow deer dog duck eel elk emu fly fox frog gnu goat hare hawk hen hog ibex jay"
    " kite lark lion lynx mole moth mouse mule newt owl ox pig pony ram rat seal swan toad vole wasp wolf wren yak zebu"
).split()
LETTERS = "abcdefghilmnoprstuw"
ENDINGS = ("Is there anything else?", "That is all.", "Good night.", "So it goes.")
LANGUAGES: Mapping[str, str] = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese"}
Draw = Callable[[random.Random], JSON]
Kwargs = Mapping[str, JSON]


def _between(low: int, high: int) -> Draw:
    return lambda source: source.randint(low, high)


def _one_of(*choices: str) -> Draw:
    return lambda source: source.choice(choices)


def _words(most: int) -> Draw:
    return lambda source: [*source.sample(TOPICS, source.randint(1, most))]


WORD, RELATION = _one_of(*TOPICS), _one_of("at least", "less than")


class Kind(NamedTuple):
    """One kind of instruction: its wording, and how its arguments are drawn."""

    id: str
    group: str
    """Kinds of one group (nearly) contradict each other: a request has one of them. `alone`: it has no other kind."""
    said: str
    """Wording, with {argument} for each of its arguments."""
    draws: Mapping[str, Draw]

    def put(self, kwargs: Kwargs) -> str:
        """Return the instruction in words.

        Example:
            >>> KINDS["count:numbers"].put({"N": 3})
            'Write exactly 3 numbers.'
        """
        shown = {name: _shown(name, value) for name, value in kwargs.items()}
        return self.said.format(**shown)


def _shown(name: str, value: JSON) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return LANGUAGES[str(value)] if name == "language" else str(value)


def _kind(id: str, group: str, said: str, **draws: Draw) -> Kind:
    return Kind(id, group, said, draws)


ALL = (
    _kind("keywords:existence", "content", "Name {keywords}.", keywords=_words(2)),
    _kind("keywords:forbidden_words", "content", "Do not name {forbidden_words}.", forbidden_words=_words(3)),
    _kind(
        "keywords:frequency",
        "content",
        "Use the word {keyword} {relation} {frequency} times.",
        keyword=WORD,
        relation=RELATION,
        frequency=_between(2, 4),
    ),
    _kind(
        "keywords:letter_frequency",
        "content",
        "Use the letter {letter} {let_relation} {let_frequency} times.",
        letter=_one_of(*LETTERS),
        let_relation=RELATION,
        let_frequency=_between(3, 12),
    ),
    _kind("count:conjunctions", "content", "Use at least {small_n} different conjunctions.", small_n=_between(2, 4)),
    _kind("count:pronouns", "content", "Use at least {N} pronouns.", N=_between(2, 8)),
    _kind(
        "detectable_content:number_placeholders",
        "content",
        "Leave at least {num_placeholders} places open, like [name].",
        num_placeholders=_between(1, 4),
    ),
    _kind("language:response_language", "case", "Answer in {language} alone.", language=_one_of(*LANGUAGES)),
    _kind("change_case:english_capital", "case", "Write in English, in capital letters alone."),
    _kind("change_case:english_lowercase", "case", "Write in English, without capital letters."),
    _kind(
        "change_case:capital_word_frequency",
        "case",
        "Write {capital_relation} {capital_frequency} words in capital letters.",
        capital_relation=RELATION,
        capital_frequency=_between(2, 6),
    ),
    _kind("format:title_case", "case", "Write In Title Case."),
    _kind("count:words_japanese", "case", "Write every {N}th word in Japanese.", N=_between(4, 9)),
    _kind("count:person_names", "case", "Name at least {N} people by common first names.", N=_between(1, 4)),
    _kind(
        "length_constraints:number_words",
        "length",
        "Use {relation} {num_words} words.",
        relation=RELATION,
        num_words=_between(3, 120),
    ),
    _kind(
        "count:word_count_range",
        "length",
        "Use {min_words} to {max_words} words.",
        min_words=_between(20, 60),
        max_words=_between(60, 90),
    ),
    _kind("count:unique_word_count", "length", "Use at least {N} different words.", N=_between(20, 80)),
    _kind(
        "length_constraints:number_sentences",
        "sentences",
        "Write {relation} {num_sentences} sentences.",
        relation=RELATION,
        num_sentences=_between(3, 9),
    ),
    _kind("ratio:sentence_type", "sentences", "For each question, write two sentences that end in a full stop."),
    _kind("ratio:sentence_balance", "sentences", "Write as many statements as questions and exclamations."),
    _kind("ratio:sentence_words", "alone", "Write three sentences of the same number of characters."),
    _kind("sentence:keyword", "sentences", "Put {word} into sentence {N}.", word=WORD, N=_between(1, 6)),
    _kind("sentence:increment", "sentences", "Make each sentence {small_n} words longer.", small_n=_between(1, 4)),
    _kind("sentence:alliteration_increment", "alone", "Put more alliteration into each sentence than before."),
    _kind(
        "words:keywords_specific_position",
        "sentences",
        "Make {keyword} word {m} of sentence {n}.",
        keyword=WORD,
        n=_between(1, 6),
        m=_between(1, 8),
    ),
    _kind("words:last_first", "sentences", "Begin each sentence with the last word of the one before."),
    _kind("format:emoji", "sentences", "End each sentence with an emoji."),
    _kind(
        "length_constraints:number_paragraphs",
        "layout",
        "Write {num_paragraphs} paragraphs, with *** between them.",
        num_paragraphs=_between(2, 4),
    ),
    _kind(
        "length_constraints:nth_paragraph_first_word",
        "layout",
        "Write {num_paragraphs} paragraphs, with an empty line between them; begin paragraph {nth_paragraph} with"
        " {first_word}.",
        num_paragraphs=_between(2, 4),
        nth_paragraph=_between(1, 2),
        first_word=WORD,
    ),
    _kind(
        "detectable_format:number_bullet_lists",
        "layout",
        "Write exactly {num_bullets} points, each in a line that begins with *.",
        num_bullets=_between(2, 6),
    ),
    _kind(
        "detectable_format:multiple_sections",
        "case",
        "Write {num_sections} sections; begin each with {section_spliter} and its number.",
        section_spliter=_one_of("Section", "Part", "Chapter"),
        num_sections=_between(2, 4),
    ),
    _kind("format:sub-bullets", "layout", "Write points with *, and at least one point below each with -."),
    _kind("format:no_bullets_bullets", "layout", "Write at least two sentences, then at least two points with *."),
    _kind("format:line_indent", "layout", "Indent each line further than the one before."),
    _kind("format:list", "layout", "Write a list, with {sep} before each item.", sep=_one_of("...", "!?!?", "ITEM")),
    _kind("format:output_template", "case", "Use three headings, My Answer:, My Conclusion: and Future Outlook:."),
    _kind("words:paragraph_last_first", "layout", "End each paragraph with its first word."),
    _kind("count:numbers", "layout", "Write exactly {N} numbers.", N=_between(1, 6)),
    _kind("detectable_format:title", "title", "Give it a title, like <<title>>."),
    _kind(
        "detectable_format:number_highlighted_sections",
        "title",
        "Mark at least {num_highlights} parts, like *this*.",
        num_highlights=_between(1, 4),
    ),
    _kind("format:thesis", "title", "Begin with a thesis in HTML's italics."),
    _kind("startend:end_checker", "edges", "End with: {end_phrase}", end_phrase=_one_of(*ENDINGS)),
    _kind("startend:quotation", "edges", "Put all of it in quotation marks."),
    _kind(
        "detectable_content:postscript",
        "edges",
        "Add a postscript that begins with {postscript_marker}",
        postscript_marker=_one_of("P.S.", "P.P.S"),
    ),
    _kind("words:start_verb", "edges", "Begin with a verb."),
    _kind("words:words_position", "edges", "Make {keyword} the second word and the last but one.", keyword=WORD),
    _kind("punctuation:no_comma", "marks", "Use no comma."),
    _kind("count:punctuation", "marks", "Use each of . , ! ? ; : and also ?!"),
    _kind("format:parentheses", "marks", "Nest brackets at least five deep."),
    _kind("format:quotes", "marks", "Put a quotation into a quotation in a quotation, with \" and ' in turn."),
    _kind("format:quote_unquote", "marks", "Explain each quotation behind it, outside the marks."),
    _kind("detectable_format:json_format", "alone", "Answer in JSON alone."),
    _kind("combination:two_responses", "alone", "Write two different answers, with ****** between them."),
    _kind("format:newline", "alone", "Write each word in a line of its own."),
    _kind("format:no_whitespace", "alone", "Use no white space."),
    _kind("ratio:stop_words", "alone", "Let at most {percentage} % be stop words.", percentage=_between(10, 50)),
    _kind("words:alphabet", "alone", "Begin each word with the next letter of the alphabet, A after Z."),
    _kind("words:vowel", "alone", "Write one line with at most three of the five vowels."),
    _kind("words:consonants", "alone", "Use words with two consonants side by side alone."),
    _kind("words:palindrome", "alone", "Use ten palindromes of at least five letters."),
    _kind("words:prime_lengths", "alone", "Use words whose lengths are prime numbers alone."),
    _kind("words:repeats", "alone", "Use no word more than {small_n} times.", small_n=_between(1, 4)),
    _kind("words:odd_even_syllables", "alone", "Let words of odd and even numbers of syllables take turns."),
    _kind("words:no_consecutive", "alone", "Begin no two words in a row with the same letter."),
)
KINDS: Mapping[str, Kind] = {kind.id: kind for kind in ALL}
"""Public id -> kind, without those of fixed questions (custom:...) and of copying (repeat:..., ratio:overlap)."""
WRITABLE = (
    *("length_constraints:number_words", "keywords:existence"),
    *("punctuation:no_comma", "startend:quotation"),
)
"""Kinds for which demonstrations can be written."""


class InstructionPrompts(Task):
    """Requests such as `Write about the fox. Use at least 30 words. Use no comma.`, graded by its instructions.

    Args:
        kinds: ids of the kinds to use; None: all of `KINDS`.
        most: largest number of instructions in a request; contradictory ones are not combined.
        largest: largest number of words that a request asks for.
        demonstrations: none, perfect or careless (of a writer who forgets each instruction half of the time). They
            are names of animals, and exist only for the kinds in WRITABLE.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw. The split of a problem depends on its words alone.
        verifier_options: options of the verifier: mode, reward.
    Raises:
        TaskError: an unknown kind, demonstrations of a kind outside WRITABLE, or an option out of range.
    """

    name = "instructions"

    def __init__(
        self,
        *,
        kinds: Sequence[str] | None = None,
        most: int = 3,
        largest: int = 120,
        demonstrations: str = "none",
        train_size: int = 5_000,
        test_size: int = 500,
        seed: int = 0,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        chosen = [*KINDS] if kinds is None else [*kinds]
        for id in chosen:
            if id not in KINDS:
                raise TaskError(f"kinds must be of those that are generated; got {id!r}.{did_you_mean(id, KINDS)}")
        if not chosen or not 1 <= most <= 8:
            raise TaskError(f"kinds must not be empty, and most be between 1 and 8; got {chosen} and {most}.")
        if not 3 <= largest <= 1_000:
            raise TaskError(f"largest must be between 3 and 1000; got {largest}.")
        if demonstrations not in ("none", "perfect", "careless"):
            raise TaskError(f"demonstrations must be none, perfect or careless; got {demonstrations!r}.")
        unwritten = [id for id in chosen if id not in WRITABLE]
        if demonstrations != "none" and unwritten:
            raise TaskError(f"demonstrations are there for {', '.join(WRITABLE)} alone; kinds has {unwritten[0]!r}.")
        self._kinds, self._most, self._largest = [KINDS[id] for id in chosen], most, largest
        self._forget = {"none": None, "perfect": 0.0, "careless": 0.5}[demonstrations]
        self._sizes, self._seed = {"train": train_size, "test": test_size}, seed
        self._options = dict(verifier_options or {})

    def problems(self, split: str) -> Sequence[Problem]:
        source = random.Random(f"{self._seed} {[kind.id for kind in self._kinds]} {self._most} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        kinds = self._together(source)
        kwargs = [{name: draw(source) for name, draw in kind.draws.items()} for kind in kinds]
        for given in kwargs:
            if "num_words" in given:
                given["num_words"] = source.randint(3, self._largest)
        asked = {kind.id: given for kind, given in zip(kinds, kwargs, strict=True)}
        said = " ".join(KINDS[id].put(given) for id, given in asked.items())
        prompt = f"Write about the {source.choice(TOPICS)}. {said}"
        return Problem(
            id=f"instructions/{prompt}",
            prompt=f"{prompt}\n",
            reference={"instruction_id_list": [*asked], "kwargs": [*asked.values()]},
            verifier="instructions",
            verifier_options=self._options,
            difficulty=len(kinds) / self._most,
            demonstration=None if self._forget is None else write(source, asked, self._forget),
            task=self.name,
        )

    def _together(self, source: random.Random) -> list[Kind]:
        """Choose kinds of different groups, in the order of the table."""
        wanted = source.randint(1, self._most)
        found: dict[str, Kind] = {}
        for kind in source.sample(self._kinds, len(self._kinds)):
            if found and (kind.group == "alone" or "alone" in found):
                continue
            found.setdefault(kind.group, kind)
            if len(found) == wanted:
                break
        return [kind for kind in self._kinds if kind in found.values()]


def write(source: random.Random, asked: Mapping[str, Kwargs], forget: float) -> str:
    """Write names of animals that follow the instructions, each of which is forgotten with some probability.

    Args:
        source: random source for everything that the instructions leave open.
        asked: kind -> arguments of the instructions; the kinds must be in WRITABLE.
        forget: probability of forgetting each instruction.

    Example:
        >>> asked = {"length_constraints:number_words": {"relation": "less than", "num_words": 4}}
        >>> write(random.Random(0), asked | {"startend:quotation": {}, "punctuation:no_comma": {}}, 0.0)
        '"mouse moth"'
    """
    kept = {id: kwargs for id, kwargs in asked.items() if source.random() >= forget}
    words, few, many = list[str](), 1, 6
    keywords = kept.get("keywords:existence", {}).get("keywords")
    if isinstance(keywords, list):
        words = [*map(str, keywords)]
    length = kept.get("length_constraints:number_words", {})
    number = length.get("num_words")
    if isinstance(number, int):
        few, many = (number, number + 2) if length["relation"] == "at least" else (1, number - 1)
    count = max(len(words), source.randint(few, many))
    words += [source.choice(TOPICS) for _ in range(count - len(words))]
    source.shuffle(words)
    comma = "punctuation:no_comma" not in kept and source.random() < 0.7
    said = (", " if comma else " ").join(words)
    return f'"{said}"' if "startend:quotation" in kept else said


__all__ = ["KINDS", "WRITABLE", "InstructionPrompts", "Kind", "write"]
