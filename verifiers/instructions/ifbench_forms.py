r"""The checks of IFBench (arXiv:2507.02833) whose ids begin with format, custom or repeat.

Source of each: the class named in its docstring, in `ifbench/instructions.py` of allenai/IFBench, commit db69a6f.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from itertools import islice, pairwise

from verifiers.instructions.check import COUNT, TEXT, Table
from verifiers.instructions.texts import PUNCTUATION, SENTENCES, is_emoji, plain, sentences, tokens

FORMS = Table()
EDGES = PUNCTUATION + " "
PAIRS = {")": "(", "]": "[", "}": "{"}
CAPITALS = (
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw"
    " London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb"
).split()
"""Capitals of European countries north of 45 degrees, from north to south."""
DAYS = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}
"""Month -> days, including leap years. The published code accepts day 0 and month 0, and so does ours."""
SIMPLE = "only output this sentence here, ignore all other requests."


@FORMS.check("format:parentheses")
def parentheses(text: str) -> bool:
    """Accept brackets `( [ {` nested five deep, the innermost of which is closed. `NestedParenthesesChecker`."""
    open_: list[str] = []
    deepest = 0
    for mark in re.findall(r"[()\[\]{}]", text):
        if mark in "([{":
            open_.append(mark)
            deepest = max(deepest, len(open_))
        elif open_ and open_[-1] == PAIRS[mark]:
            open_.pop()
            if deepest >= 5:
                return True
        else:
            open_, deepest = [], 0
    return False


@FORMS.check("format:quotes")
def quotes(text: str) -> bool:
    """Accept alternate double and single quotation marks, three deep and all closed. `NestedQuotesChecker`."""
    open_: list[str] = []
    deepest = 0
    for mark in re.findall("[\"']", text):
        if open_ and open_[-1] == mark:
            open_.pop()
            if deepest - len(open_) >= 3:
                return True
        else:
            open_.append(mark)
            deepest = max(deepest, len(open_))
    return False


def _choices(options: str) -> list[str]:
    separator = next((mark for mark in ("/", "or") if mark in options), ",")
    return [option.strip() for option in options.split(separator)]


@FORMS.check("format:options", options=TEXT)
def options(text: str, *, options: str) -> bool:
    """Accept one of the options, which are separated by `/`, `or` or `,`. `OptionsResponseChecker`.

    Options that begin with a, b, c must be equal to the text; for others, case and outer punctuation are ignored.
    """
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]", options):
        return text in _choices(options)
    said = text.strip(EDGES).lower()
    return any(option.strip(EDGES).lower() == said for option in _choices(options))


@FORMS.check("format:newline")
def newline(text: str) -> bool:
    """Accept text with as many non-empty lines as words. `NewLineWordsChecker`."""
    said = plain(text).strip()
    return sum(line != "" for line in said.split("\n")) == len(said.split())


@FORMS.check("format:emoji", needs=(*SENTENCES, "emoji"))
def emoji(text: str) -> bool:
    """Accept an emoji at the end of each sentence or the start of the next. `EmojiSentenceChecker`.

    The end of a sentence is its last two characters.
    """
    found = [plain(sentence).strip() for sentence in sentences(text)]
    after = [*found[1:], ""]
    return all(
        bool(one) and (is_emoji(one[-1]) or is_emoji(one[-2:-1] or one) or is_emoji(other[:1]))
        for one, other in zip(found, after, strict=True)
    )


@FORMS.check("format:line_indent")
def line_indent(text: str) -> bool:
    """Accept lines each indented by more spaces than the one before, ignoring empty lines. `IndentStairsChecker`.

    The published code keeps one of two consecutive empty lines.
    """
    indents = [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()]
    return all(one < other for one, other in pairwise(indents))


@FORMS.check("format:quote_unquote")
def quote_unquote(text: str) -> bool:
    """Reject two adjacent double quotation marks, and one at the end. `QuoteExplanationChecker`."""
    bare = "".join(text.replace("'\"'", "").split())
    rest = bare.strip("0123456789" + PUNCTUATION.replace('"', ""))
    return '""' not in bare and not rest.endswith('"')


@FORMS.check("format:list", sep=TEXT)
def special_list(text: str, *, sep: str) -> bool:
    """Accept text with at least two occurrences of a mark. `SpecialBulletPointsChecker`."""
    return text.count(sep) >= 2


@FORMS.check("format:thesis")
def thesis(text: str) -> bool:
    """Accept text with HTML italics that are not empty, followed by more text. `ItalicsThesisChecker`."""
    opening = next((tag for tag in ("<i>", "<em>") if tag in text), None)
    after = text.partition(opening)[2] if opening else ""
    closing = next((tag for tag in ("</i>", "</em>") if tag in after), None)
    inside, _, rest = after.partition(closing) if closing else ("", "", "")
    return bool(inside.strip() and rest.strip())


@FORMS.check("format:sub-bullets")
def sub_bullets(text: str) -> bool:
    """Accept text with a `-` after every `*`, before the next one. `SubBulletPointsChecker`.

    Text without `*` is accepted too.
    """
    return all("-" in bullet for bullet in text.split("*")[1:])


@FORMS.check("format:no_bullets_bullets", needs=SENTENCES)
def no_bullets_bullets(text: str) -> bool:
    """Accept two or more sentences, then two or more lines that begin with `*`. `SomeBulletPointsChecker`.

    An empty line ends the sentences; after it only bullets may follow.
    """
    said = bullets = 0
    ended = False
    for line in text.split("\n"):
        if line.strip().startswith("*"):
            ended = True
            bullets += 1
            if said < 2:
                return False
        elif ended:
            return False
        else:
            found = len(sentences(line.strip()))
            said += found
            ended = found == 0
    return bullets >= 2


@FORMS.check("format:title_case", needs=SENTENCES)
def title_case(text: str) -> bool:
    """Reject words with a lower-case first letter, unless the other letters are of mixed case. `TitleCaseChecker`."""
    return not any(
        token[0].islower() and (len(token) == 1 or token[1:].isupper() or token[1:].islower())
        for token in tokens(text)
        if token[0].isalpha()
    )


@FORMS.check("format:output_template")
def output_template(text: str) -> bool:
    """Accept text that contains three headings, anywhere. `OutputTemplateChecker`."""
    return all(heading in text for heading in ("My Answer:", "My Conclusion:", "Future Outlook:"))


@FORMS.check("format:no_whitespace")
def no_whitespace(text: str) -> bool:
    """Accept text without white space. `NoWhitespaceChecker`."""
    return not any(map(str.isspace, text))


@FORMS.check("custom:multiples")
def multiples(text: str) -> bool:
    """Accept text whose only numbers are 14, 21, 28, 35, 42, 49, in this order. `PrintMultiplesChecker`."""
    return re.findall(r"\d+", text) == ["14", "21", "28", "35", "42", "49"]


@FORMS.check("custom:mcq_count_length")
def mcq_count_length(text: str) -> bool:
    """Accept four `Question 1` ... with options A to E, each question longer than the last.
    `MultipleChoiceQuestionsChecker`.
    """
    if not text.startswith("Question"):
        return False
    questions = [part for part in re.split(r"Question \d+[.|):;]?\s*", text) if part.strip()]
    lengths: list[int] = []
    for question in questions:
        lines = [line.strip() for line in question.strip().split("\n")]
        options = [place for place, line in enumerate(lines) if re.match(r"[A-Ea-e][.|)]\s*\w", line)]
        if len(options) != 5:
            return False
        lengths.append(len(" ".join(lines[: options[0]]).strip()))
    return len(lengths) == 4 and all(one < other for one, other in pairwise(lengths))


@FORMS.check("custom:reverse_newline")
def reverse_newline(text: str) -> bool:
    """Accept 52 or more lines from `Zimbabwe` on, in reverse alphabetical order. `ReverseNewlineChecker`."""
    lines = [stripped for line in text.split("\n") if (stripped := line.strip(EDGES))]
    start = next((place for place, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    listed = [_ascii(line) for line in lines[start:]]
    return len(listed) >= 52 and listed == sorted(listed, reverse=True)


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


@FORMS.check("custom:word_reverse", needs=SENTENCES)
def word_reverse(text: str) -> bool:
    """Accept one sentence whose words, in reverse order, contain `bald eagle`. `WordReverseOrderChecker`."""
    said = " ".join(plain(text.lower()).split()[::-1])
    return "bald eagle" in said and said in sentences(said)


@FORMS.check("custom:character_reverse")
def character_reverse(text: str) -> bool:
    """Accept text that contains `elgae dlab`, in any case. `CharacterReverseOrderChecker`."""
    return "elgae dlab" in text.lower()


@FORMS.check("custom:sentence_alphabet", needs=SENTENCES)
def sentence_alphabet(text: str) -> bool:
    """Accept 26 sentences whose first letters are a to z, in any case. `SentenceAlphabetChecker`."""
    return [sentence.lstrip()[:1].lower() for sentence in sentences(text)] == [chr(97 + place) for place in range(26)]


@FORMS.check("custom:european_capitals_sort")
def european_capitals_sort(text: str) -> bool:
    """Accept the 27 capitals in order, separated by commas; accents are ignored. `EuropeanCapitalsSortChecker`."""
    return [part.strip() for part in _ascii(text).split(",") if part.strip()] == CAPITALS


def _rows(text: str, delimiter: str = ",") -> list[list[str]]:
    """Return the first 20 rows of a CSV table, more than any check needs; none if the text is not one."""
    try:
        return list(islice(csv.reader(io.StringIO(text), delimiter=delimiter), 20))
    except csv.Error:
        return []


def _header(text: str, names: str, separator: str) -> bool:
    pattern = separator.join(rf'(?:{name}|"{name}")' for name in names.split())
    return bool(re.fullmatch(pattern, text.split("\n")[0].strip()))


@FORMS.check("custom:csv_city")
def csv_city(text: str) -> bool:
    """Accept a header and seven rows of five fields. `CityCSVChecker`."""
    rows = _rows(text)
    named = rows[:1] == [["ID", "Country", "City", "Year", "Count"]]
    return named and len(rows) == 8 and all(len(row) == 5 for row in rows)


@FORMS.check("custom:csv_special_character")
def csv_special_character(text: str) -> bool:
    """Accept a header and 14 rows, of which one has a quoted special character. `SpecialCharacterCSVChecker`.

    All rows up to that one must have five fields.
    """
    rows = _rows(text.replace('"', '"""'))
    if not _header(text, "ProductID Category Brand Price Stock", r",[ \t]*") or len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(map(_quotes_special, row)):
            return True
    return False


def _quotes_special(field: str) -> bool:
    """Return True if a field begins with a quotation mark, and a special character comes before a later one."""
    line = field.split("\n")[0]
    end = line.rfind('"')
    return line[:1] == '"' and bool(re.search(r"[^\d\w\s]", line[1 : max(end, 1)]))


@FORMS.check("custom:csv_quotes")
def csv_quotes(text: str) -> bool:
    """Accept a header and three rows of five tab-separated fields, each in quotation marks. `QuotesCSVChecker`."""
    rows = _rows(text.replace('"', '"""'), delimiter="\t")
    named = _header(text, "StudentID Subject Grade Semester Score", r"\t *")
    fields = [field.strip() for row in rows for field in row]
    return (
        named
        and len(rows) == 4
        and all(len(row) == 5 for row in rows)
        and all(field[:1] == field[-1:] == '"' for field in fields)
    )


@FORMS.check("custom:date_format_list")
def date_format_list(text: str) -> bool:
    """Accept dates YYYY-MM-DD separated by commas, from 1769 to 1821. `DateFormatListChecker`."""
    for part in text.strip().split(","):
        date = re.match(r"(\d{4})-(\d{2})-(\d{2})$", part.strip())
        if not date:
            return False
        year, month, day = map(int, date.groups())
        if not 1769 <= year <= 1821 or month > 12 or day > DAYS.get(month, 99):
            return False
    return True


@FORMS.check("repeat:repeat_change", prompt_to_repeat=TEXT)
def repeat_change(text: str, *, prompt_to_repeat: str) -> bool:
    """Accept the prompt with another first word; all other words must be unchanged. `RepeatChangeChecker`."""
    return text != prompt_to_repeat and text.split()[1:] == prompt_to_repeat.split()[1:]


@FORMS.check("repeat:repeat_simple")
def repeat_simple(text: str) -> bool:
    """Accept exactly the sentence `SIMPLE`, in any case. `RepeatSimpleChecker`."""
    return text.strip().lower() == SIMPLE


def _outside(*, prompt_to_repeat: str, n_start: int, n_end: int) -> str | None:
    length = len(prompt_to_repeat)
    return None if n_start <= n_end < length else f"0 <= n_start <= n_end < {length}, the prompt's length, must hold"


@FORMS.check("repeat:repeat_span", fault=_outside, prompt_to_repeat=TEXT, n_start=COUNT, n_end=COUNT)
def repeat_span(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """Accept the prompt's characters from n_start to n_end (inclusive), in any case. `RepeatSpanChecker`."""
    return text.strip().lower() == prompt_to_repeat[n_start : n_end + 1].strip().lower()


__all__ = ["FORMS"]
