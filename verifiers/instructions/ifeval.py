r"""The 25 checks of IFEval (arXiv:2311.07911), with its ids and arguments.

Source of each: the class named in its docstring, in `instruction_following_eval/instructions.py` of
google-research/google-research, commit 4c42994. Keywords and marks are literal text here, and patterns there.
"""

from __future__ import annotations

import json
import re

from verifiers.instructions.check import (
    COUNT,
    KEYWORD,
    KEYWORDS,
    LANGUAGE,
    LETTER,
    PLACE,
    RELATION,
    TEXT,
    Table,
    compares,
)
from verifiers.instructions.texts import SENTENCES, language, sentences, tokens, words

IFEVAL = Table()
FENCES = ("```json", "```Json", "```JSON", "```")
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _count(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


@IFEVAL.check("keywords:existence", keywords=KEYWORDS)
def keywords_exist(text: str, *, keywords: tuple[str, ...]) -> bool:
    """Accept text that contains each keyword, in any case, also inside words. `KeywordChecker`."""
    return all(re.search(re.escape(keyword), text, re.IGNORECASE) for keyword in keywords)


@IFEVAL.check("keywords:frequency", keyword=KEYWORD, frequency=COUNT, relation=RELATION)
def keyword_frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """Compare how often a keyword appears with `frequency`, by `relation`. `KeywordFrequencyChecker`.

    Case is ignored, and it may be inside words.
    """
    return compares(_count(keyword, text), relation, frequency)


@IFEVAL.check("keywords:forbidden_words", forbidden_words=KEYWORDS)
def forbidden_words(text: str, *, forbidden_words: tuple[str, ...]) -> bool:
    """Accept text without any of these words, in any case, as whole words. `ForbiddenWords`."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


@IFEVAL.check("keywords:letter_frequency", letter=LETTER, let_frequency=COUNT, let_relation=RELATION)
def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Compare how often a character appears with let_frequency, by let_relation. `LetterFrequencyChecker`.

    Case is ignored. The published class takes a random letter instead of `#` or `!`.
    """
    return compares(text.lower().count(letter), let_relation, let_frequency)


@IFEVAL.check("language:response_language", needs=("langdetect",), language=LANGUAGE)
def response_language(text: str, *, language: str) -> bool:
    """Accept text in a language, or whose language cannot be determined. `ResponseLanguageChecker`."""
    return _language_is(language, text)


def _language_is(code: str, text: str) -> bool:
    return language(text) in (code, None)


@IFEVAL.check("length_constraints:number_sentences", needs=SENTENCES, num_sentences=COUNT, relation=RELATION)
def number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    """Compare the number of sentences with num_sentences, by `relation`. `NumberOfSentences`."""
    return compares(len(sentences(text)), relation, num_sentences)


@IFEVAL.check("length_constraints:number_paragraphs", num_paragraphs=COUNT)
def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Accept text with num_paragraphs parts between `***`. `ParagraphChecker`.

    Only the first and the last part may be empty; they are not counted then.
    """
    parts = [bool(part.strip()) for part in text.split("***")]
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


@IFEVAL.check("length_constraints:number_words", num_words=COUNT, relation=RELATION)
def number_words(text: str, *, num_words: int, relation: str) -> bool:
    """Compare the number of words with num_words, by `relation`. `NumberOfWords`.

    Words are runs of letters, digits and underscores.
    """
    return compares(len(words(text)), relation, num_words)


def _beyond_last(*, num_paragraphs: int, nth_paragraph: int, first_word: str) -> str | None:
    past = nth_paragraph > num_paragraphs
    return f"nth_paragraph must be at most num_paragraphs, {num_paragraphs}; got {nth_paragraph}" if past else None


@IFEVAL.check(
    "length_constraints:nth_paragraph_first_word",
    fault=_beyond_last,
    num_paragraphs=COUNT,
    nth_paragraph=PLACE,
    first_word=KEYWORD,
)
def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Accept num_paragraphs parts between empty lines, the nth beginning with first_word. `ParagraphFirstWordCheck`.

    The first word ends at a punctuation mark. Empty parts are not counted, but have a number.
    """
    parts = text.split("\n\n")
    if sum(bool(part.strip()) for part in parts) != num_paragraphs or not parts[nth_paragraph - 1].strip():
        return False
    first = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", first, maxsplit=1)[0].lower() == first_word.lower()


@IFEVAL.check("detectable_content:number_placeholders", num_placeholders=COUNT)
def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """Accept at least num_placeholders spans within a line from `[` to the next `]`. `PlaceholderChecker`."""
    found = 0
    for line in text.split("\n"):
        end = 0
        while (start := line.find("[", end)) >= 0 and (end := line.find("]", start) + 1):
            found += 1
    return found >= num_placeholders


@IFEVAL.check("detectable_content:postscript", postscript_marker=KEYWORD)
def postscript(text: str, *, postscript_marker: str) -> bool:
    """Accept text that contains the marker, in any case. `PostscriptChecker`.

    `P.S.` and `P.P.S` may have spaces.
    """
    spaced = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(spaced.get(postscript_marker, re.escape(postscript_marker.lower())), text.lower()))


@IFEVAL.check("detectable_format:number_bullet_lists", num_bullets=COUNT)
def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Accept exactly num_bullets lines that begin with `-`, or with a single `*`. `BulletListChecker`.

    A line that is only `*` is one bullet together with the next line; at the end of the text it is none.
    """
    lines = [line.lstrip() for line in text.split("\n")]
    found, at = sum(line.startswith("-") for line in lines), 0
    while at < len(lines):
        line = lines[at]
        bare = line == "*" and at + 1 < len(lines)
        found += bare or (line[:1] == "*" and line[1:2] not in ("", "*"))
        at += 1 + bare
    return found == num_bullets


@IFEVAL.check("detectable_format:constrained_response")
def constrained_response(text: str) -> bool:
    """Accept text that contains one of three answers. `ConstrainedResponseChecker`."""
    return any(answer in text for answer in ANSWERS)


@IFEVAL.check("detectable_format:number_highlighted_sections", num_highlights=COUNT)
def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """Accept at least num_highlights non-empty `*spans*` within a line. `HighlightSectionChecker`.

    `**spans**` count in addition.
    """
    once = re.findall(r"\*([^\n*]*)\*", text)
    twice = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(inside.strip()) for inside in (*once, *twice)) >= num_highlights


@IFEVAL.check("detectable_format:multiple_sections", section_spliter=KEYWORD, num_sections=COUNT)
def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """Accept at least num_sections occurrences of the mark followed by a number. `SectionChecker`."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


@IFEVAL.check("detectable_format:json_format")
def json_format(text: str) -> bool:
    """Accept text that is JSON as Python parses it, with or without a code fence. `JsonFormat`."""
    inside = text.strip()
    for fence in FENCES:
        inside = inside.removeprefix(fence)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


@IFEVAL.check("detectable_format:title")
def title(text: str) -> bool:
    """Accept text with a line that contains `<<something>>`. `TitleChecker`."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


@IFEVAL.check("combination:two_responses")
def two_responses(text: str) -> bool:
    """Accept two different parts between `******`; only the first and the last may be empty. `TwoResponsesChecker`."""
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


@IFEVAL.check("combination:repeat_prompt", prompt_to_repeat=TEXT)
def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """Accept text that begins with the prompt, in any case. `RepeatPromptThenAnswer`."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@IFEVAL.check("startend:end_checker", end_phrase=KEYWORD)
def end_checker(text: str, *, end_phrase: str) -> bool:
    """Accept text that ends in a phrase, in any case, with or without quotation marks. `EndChecker`."""
    return text.strip().strip('"').lower().endswith(end_phrase.lower())


@IFEVAL.check("startend:quotation")
def quotation(text: str) -> bool:
    """Accept text in double quotation marks. `QuotationChecker`."""
    inside = text.strip()
    return len(inside) > 1 and inside[0] == inside[-1] == '"'


@IFEVAL.check("change_case:capital_word_frequency", needs=SENTENCES, capital_frequency=COUNT, capital_relation=RELATION)
def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Compare the number of all-capital tokens with capital_frequency. `CapitalWordFrequencyChecker`."""
    return compares(sum(token.isupper() for token in tokens(text)), capital_relation, capital_frequency)


@IFEVAL.check("change_case:english_capital", needs=("langdetect",))
def english_capital(text: str) -> bool:
    """Accept English text without lower-case letters. `CapitalLettersEnglishChecker`."""
    return text.isupper() and _language_is("en", text)


@IFEVAL.check("change_case:english_lowercase", needs=("langdetect",))
def english_lowercase(text: str) -> bool:
    """Accept English text without capitals. `LowercaseLettersEnglishChecker`."""
    return text.islower() and _language_is("en", text)


@IFEVAL.check("punctuation:no_comma")
def no_comma(text: str) -> bool:
    """Accept text without a comma. `CommaChecker`."""
    return "," not in text
