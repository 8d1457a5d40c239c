"""Units and counting words in Chinese, Japanese, Korean and Russian, with their English equivalents."""

from __future__ import annotations

import re
from collections.abc import Mapping

UNITS: Mapping[str, str] = {
    # Chinese, simplified and traditional; Japanese in kanji
    "米": "m", "公尺": "m", "厘米": "cm", "公分": "cm", "毫米": "mm", "分米": "dm", "千米": "km", "公里": "km",
    "微米": "micron", "纳米": "nm", "克": "g", "千克": "kg", "公斤": "kg", "毫克": "mg", "吨": "ton", "噸": "ton",
    "升": "l", "毫升": "ml", "秒": "s", "分": "minute", "分钟": "minute", "分鐘": "minute", "分间": "minute",
    "分間": "minute", "小时": "h", "小時": "h", "时间": "h", "時間": "h", "天": "day", "日": "day", "周": "week",
    "星期": "week", "個月": "month", "个月": "month", "月": "month", "年": "year", "元": "yuan", "円": "yen",
    "美元": "dollar", "欧元": "euro", "度": "degree", "摄氏度": "celsius", "公顷": "hectare", "牛": "N",
    "牛顿": "N", "焦": "J", "焦耳": "J", "瓦": "W", "千瓦": "kW", "帕": "Pa", "安": "A", "安培": "A", "伏": "V",
    "伏特": "V", "欧姆": "ohm", "赫兹": "Hz", "弧度": "rad", "平方": "square", "立方": "cubic", "每": "per",
    "毎": "per",
    # Japanese
    "メートル": "m", "センチメートル": "cm", "センチ": "cm", "ミリメートル": "mm", "キロメートル": "km",
    "グラム": "g", "キログラム": "kg", "キロ": "kg", "トン": "ton", "リットル": "l", "ドル": "dollar",
    "ラジアン": "rad", "平方メートル": "square m", "パーセント": "percent",
    # Korean
    "미터": "m", "센티미터": "cm", "밀리미터": "mm", "킬로미터": "km", "그램": "g", "킬로그램": "kg", "리터": "l",
    "초": "s", "시간": "h", "일": "day", "주": "week", "개월": "month", "년": "year", "원": "won", "달러": "dollar",
    "도": "degree", "제곱미터": "square m", "제곱": "square", "세제곱": "cubic", "평방": "square",
    "퍼센트": "percent",
    # Russian
    "м": "m", "метр": "m", "метра": "m", "метров": "m", "см": "cm", "мм": "mm", "дм": "dm", "км": "km", "г": "g",
    "грамм": "g", "граммов": "g", "кг": "kg", "мг": "mg", "т": "ton", "тонн": "ton", "тонны": "ton", "л": "l",
    "мл": "ml", "с": "s", "сек": "s", "секунд": "s", "секунды": "s", "мин": "minute", "минут": "minute",
    "минуты": "minute", "ч": "h", "час": "h", "часа": "h", "часов": "h", "дней": "day", "дня": "day", "день": "day",
    "сут": "day", "лет": "year", "год": "year", "года": "year", "руб": "rouble", "рублей": "rouble",
    "рубля": "rouble", "рубль": "rouble", "коп": "kopeck", "градусов": "degree", "рад": "rad", "кв": "square",
    "куб": "cubic", "н": "N", "дж": "J", "кдж": "kJ", "вт": "W", "квт": "kW", "па": "Pa", "кпа": "kPa", "а": "A",
    "в": "V", "ом": "ohm", "гц": "Hz", "га": "hectare", "процентов": "percent", "процента": "percent",
    "километров": "km", "километра": "km", "сантиметров": "cm", "сантиметра": "cm", "килограммов": "kg",
    "килограмма": "kg", "литров": "l", "литра": "l",
}  # fmt: skip
JOINING: Mapping[str, str] = {
    **dict.fromkeys(("и", "和", "与", "與", "及", "以及", "と", "及び", "과", "와", "그리고"), "and"),
    **dict.fromkeys(("или", "либо", "或", "或者", "または", "또는"), "or"),
}
"""Words between two values -> English equivalent."""
_SCALES: Mapping[str, int] = {"千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "만": 10**4, "억": 10**8}
_LONGEST = max(map(len, UNITS))
_REFUSED = re.compile("[不非错誤没無否或还也]|\\bне\\b|\\bили\\b|아니|또는|ではな|または")
"""Words that deny or offer something cannot be a unit."""
_SCRIPTS_WITHOUT_LOOK_ALIKES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
MAX_WORD = 12


def foreign_unit(run: str) -> list[str] | None:
    """Return the English words of a known unit or scale: `平方厘米` gives ["square", "cm"]; None for other words.

    The longest known word at each position is taken.

    Example:
        >>> foreign_unit("万元"), foreign_unit("см"), foreign_unit("个")
        (['*', '10000', 'yuan'], ['cm'], None)
    """
    parts: list[str] = []
    lowered = run.lower()
    at = 0
    if lowered[0] in _SCALES and lowered not in UNITS and lowered[:2] not in UNITS:
        parts += ["*", str(_SCALES[lowered[0]])]
        at = 1
    while at < len(lowered):
        whole = at == 0 and lowered in UNITS
        cyrillic = not _SCRIPTS_WITHOUT_LOOK_ALIKES.match(lowered)
        sizes = [len(lowered) - at] if whole or cyrillic else range(min(_LONGEST, len(lowered) - at), 0, -1)
        found = next((size for size in sizes if lowered[at : at + size] in UNITS), 0)
        if not found:
            return None
        parts += UNITS[lowered[at : at + found]].split()
        at += found
    return parts


def is_foreign_word(run: str) -> bool:
    """Return True if a run may be a word, such as a counter or a noun, and not one or two Cyrillic letters for Latin
    ones.
    """
    if _REFUSED.search(run) or len(run) > MAX_WORD:
        return False
    return len(run) >= 3 or _SCRIPTS_WITHOUT_LOOK_ALIKES.match(run) is not None


MAX_PHRASE = 200
_MATHEMATICS = re.compile(r"[\d\\^_{}=<>+*/|$]")
_TYPESET = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s{0,4}\{([^{}]*)\}")


def words_of_another_script(text: str) -> tuple[str, ...]:
    """Return the words of an answer that consists of words, some of them in another script; empty for anything else.

    Example:
        >>> words_of_another_script("充分不必要条件。"), words_of_another_script("не 5")
        (('充分不必要条件',), ())
    """
    plain = _TYPESET.sub(r" \1 ", text[: MAX_PHRASE + 1]).strip(" $.。")
    words = re.findall(r"[^\W\d_]+", plain)
    if len(text) > MAX_PHRASE or _MATHEMATICS.search(plain) or all(map(str.isascii, words)):
        return ()
    if _SCRIPTS_WITHOUT_LOOK_ALIKES.search(plain):
        return tuple(words)
    return tuple(word.lower() for word in words) if sum(map(len, words)) > 2 else ()
