"""Units of measurement: names, dimensions and exact factors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

from verifiers.mathematics.nodes import Unit

BASE: Mapping[str, str] = {
    # names: "factor, powers of m g s A K mol cd and of what has no dimension but a name" (exact, SI brochure 2019,
    # international yard and pound 1959, US survey units left out)
    "m meter metre": "1 m",
    "micron": "1/1000000 m",
    "in inch inches": "127/5000 m",
    "ft foot feet": "381/1250 m",
    "yd yard": "1143/1250 m",
    "mi mile": "201168/125 m",
    "lightyear ly": "9460730472580800 m",
    "pc parsec": "30856775814913673 m",  # IAU 2015 B2, to a metre
    "AU": "149597870700 m",
    "s sec second": "1 s",
    "min minute": "60 s",
    "h hr hour": "3600 s",
    "day": "86400 s",
    "week": "604800 s",
    "fortnight": "1209600 s",
    "month": "1 month",
    "year yr": "12 month",
    "decade": "120 month",
    "century centuries": "1200 month",
    "g gram gramme": "1 g",
    "lb pound": "45359237/100000 g",
    "oz ounce": "45359237/1600000 g",
    "ton tonne": "1000000 g",
    "l L liter litre": "1/1000 m3",
    "cc": "1/1000000 m3",
    "gallon gal": "473176473/125000000000 m3",
    "quart qt": "473176473/500000000000 m3",
    "pint pt": "473176473/1000000000000 m3",
    "cup": "1 cup",
    "acre": "316160658/78125 m2",
    "hectare": "10000 m2",
    "dollar usd buck": "1 dollar",
    "cent penny pennies ¢": "1/100 dollar",
    "quarter": "1 quarter",
    "dime": "1 dime",
    "nickel": "1 nickel",
    "euro eur": "1 euro",
    "gbp sterling": "1 sterling",
    "rupee inr rs": "1 rupee",
    "yen jpy": "1 yen",
    "yuan rmb cny": "1 yuan",
    "won krw": "1 won",
    "rouble ruble rub": "1 rouble",
    "kopeck": "1/100 rouble",
    "deg degree °": "1 angle",
    "rad radian": "1 radian",
    "rev revolution": "1 rev",
    "percent pct percentage": "1 percent",
    "N newton": "1000 m g s-2",
    "J joule": "1000 m2 g s-2",
    "W watt": "1000 m2 g s-3",
    "Pa pascal": "1000 m-1 g s-2",
    "A ampere amp": "1 A",
    "C coulomb": "1 A s",
    "V volt": "1000 m2 g s-3 A-1",
    "Omega ohm Ω": "1000 m2 g s-3 A-2",
    "F farad": "1/1000 m-2 g-1 s4 A2",
    "H henry": "1000 m2 g s-2 A-2",
    "T tesla": "1000 g s-2 A-1",
    "Wb weber": "1000 m2 g s-2 A-1",
    "Hz hertz": "1 s-1",
    "Bq becquerel": "1 s-1",
    "K kelvin": "1 K",
    "M molar": "1000 mol m-3",
    "mol mole": "1 mol",
    "eV electronvolt": "1602176634/10000000000000000000000000 m2 g s-2",
    "cal calorie": "4184 m2 g s-2",
    "Wh": "3600000 m2 g s-2",
    "atm atmosphere": "101325000 m-1 g s-2",
    "bar": "100000000 m-1 g s-2",
    "torr mmHg": "2533125/19 m-1 g s-2",
    "celsius": "1 celsius",
    "fahrenheit": "1 fahrenheit",
    "amu dalton u": "1 amu",
    "byte": "8 bit",
    "bit": "1 bit",
    "kB": "8000 bit",
    "MB": "8000000 bit",
    "GB": "8000000000 bit",
    "TB": "8000000000000 bit",
    "KiB kibibyte": "8192 bit",
    "MiB mebibyte": "8388608 bit",
    "GiB gibibyte": "8589934592 bit",
    "TiB tebibyte": "8796093022208 bit",
    "bps": "1 bit s-1",
    "kbps": "1000 bit s-1",
    "Mbps": "1000000 bit s-1",
    "Gbps": "1000000000 bit s-1",
    "ppm": "1 ppm",
    "knot": "463/900 m s-1",
    "angstrom Å": "1/10000000000 m",
    "psi": "8896443230521/1290320 m-1 g s-2",
    "lumen": "1 lumen",
    "candela": "1 cd",
    "gauss": "1/10 g s-2 A-1",
    "horsepower": "37284993579113511/50000000000 m2 g s-3",
    "decibel dB": "1 decibel",
}
PREFIXES: Mapping[str, tuple[str, Fraction]] = {
    "p": ("pico", Fraction(1, 10**12)),
    "n": ("nano", Fraction(1, 10**9)),
    "mu": ("micro", Fraction(1, 10**6)),
    "m": ("milli", Fraction(1, 1000)),
    "c": ("centi", Fraction(1, 100)),
    "d": ("deci", Fraction(1, 10)),
    "k": ("kilo", Fraction(1000)),
    "M": ("mega", Fraction(10**6)),
    "G": ("giga", Fraction(10**9)),
    "T": ("tera", Fraction(10**12)),
}
_LONG_SYMBOLS = frozenset("mol mmHg atm cal Omega bar torr kmph amu rev KiB MiB GiB TiB kbps Mbps Gbps bps ppm".split())
_PREFIXED = "m pc s g l L N J W Pa A C V Omega F H T Hz Bq mol M eV cal Wh bar".split()
"""Symbols that take every prefix."""
_LONG_PREFIXED = (
    "meter metre second gram liter litre newton joule watt pascal ampere amp coulomb volt ohm farad henry hertz mole "
    "calorie electronvolt byte bit"
).split()

Size: TypeAlias = tuple[tuple[tuple[str, int], ...], Fraction]
"""(dimension, factor)."""
_POWER = re.compile(r"([A-Za-z]+?)(-?\d+)?")


def _size(text: str) -> Size:
    first, *rest = text.split()
    powers = [_POWER.fullmatch(part) for part in rest]
    return tuple(sorted((found[1], int(found[2] or 1)) for found in powers if found)), Fraction(first)


def _known() -> tuple[dict[str, Size], dict[str, Size]]:
    """Return (symbols, case-sensitive; words, in lower case)."""
    symbols: dict[str, Size] = {}
    words: dict[str, Size] = {}
    for names, text in BASE.items():
        size = _size(text)
        for name in names.split():
            target = symbols if len(name) <= 2 or name in _LONG_SYMBOLS else words
            target[name if target is symbols else name.lower()] = size
    for short, (long, scale) in PREFIXES.items():
        for name in _PREFIXED:
            symbols.setdefault(short + name, (symbols[name][0], scale * symbols[name][1]))
        for name in _LONG_PREFIXED:
            words.setdefault(long + name, (words[name][0], scale * words[name][1]))
    return symbols, words


_SYMBOLS, KNOWN = _known()
COMPOUND: Mapping[str, str] = {
    "mph": "mi / h",
    "kph": "km / h",
    "kmh": "km / h",
    "kmph": "km / h",
    "fps": "ft / s",
    "rpm": "rev / min",
}
SYMBOLS = frozenset(
    {
        *_SYMBOLS,
        *COMPOUND,
        "hrs",
        "mins",
        "secs",
        "lbs",
        "sq",
        "cu",
        "rs",
        "Rs",
        "usd",
        "USD",
        "EUR",
        "GBP",
        "INR",
        "pct",
    }
)
"""Abbreviations that are units after a number, and variables elsewhere."""
GLUED = frozenset(
    "cm mm km kg dm Hz kHz MHz GHz Pa kPa MPa GPa kJ MJ kN kV mV mA kW MW kWh MeV eV keV GeV mol mmol mL ml ft yd lb "
    "lbs oz gal hr hrs min mins sec secs mph kph kmh rpm atm torr bar cal kcal mmHg in rad deg".split()
)
"""Symbols that need no space before them; `3mg` and `2nm` are products of variables."""
LETTERS = frozenset("m s g h L N J W V K A C M F T H Omega mu".split())
"""Letters that are units if a number and a space precede them and nothing follows."""
CURRENCIES: Mapping[str, str] = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}
_FILLER = frozenset(
    (
        "of",
        "the",
        "a",
        "in",
        "total",
        "about",
        "each",
        "unit",
        "units",
        "long",
        "away",
        "old",
        "lang",
        "hoch",
        "breit",
        "tief",
        "schwer",
        "entfernt",
        "alt",
    )
)


_OPPOSITES = (
    "east/eastward/eastwards west/westward/westwards north/northward/northwards south/southward/southwards "
    "northeast northwest southeast southwest up/upward/upwards down/downward/downwards left/leftward/leftwards "
    "right/rightward/rightwards clockwise counterclockwise/anticlockwise/counter-clockwise/anti-clockwise "
    "forward/forwards backward/backwards/back profit/gain loss/deficit/lost increase/increased/growth "
    "decrease/decreased/decline/reduction above below ahead behind early/earlier late/later faster slower "
    "inward/inwards outward/outwards older younger taller shorter deposit withdrawal credit debit bc/bce ad/ce "
    "positive negative win/won lose"
)
SENSES: Mapping[str, str] = {name: names.split("/")[0] for names in _OPPOSITES.split() for name in names.split("/")}
"""Words that distinguish two quantities with the same unit -> their standard spelling."""
_ANGULAR = frozenset(("ad", "ce", "bc", "back", "right", "left"))
"""Words that mean something else before a unit."""


def divided(top: Unit, bottom: Unit) -> Unit:
    """Return the unit of a quotient."""
    if not (top.dimension and bottom.dimension):
        return Unit((), Fraction(1), (*top.words, "/", *bottom.words))
    powers = dict(top.dimension)
    for name, exponent in bottom.dimension:
        powers[name] = powers.get(name, 0) - exponent
    kept = tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))
    return Unit(kept, top.factor / bottom.factor, (*top.words, "/", *bottom.words))


def currency(sign: str) -> Unit:
    """Return the unit of a currency sign."""
    return parse_unit([CURRENCIES[sign]])


def with_sense(unit: Unit, other: Unit) -> Unit:
    """Return a unit with the sense of another one added: the profit of `$5 profit`."""
    return replace(unit, sense=(*unit.sense, *other.sense)) if other.sense else unit


def _lookup(word: str) -> Size | None:
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    lowered = word.lower()
    for spelling in (lowered, lowered.rstrip("."), lowered.removesuffix("s"), lowered.removesuffix("es")):
        if spelling in KNOWN:
            return KNOWN[spelling]
        if spelling in _SYMBOLS and len(spelling) > 1:
            return _SYMBOLS[spelling]
    return None


def _is_filler(tokens: Sequence[str], place: int) -> bool:
    """Return True for a word that does not affect a unit; "in" is one before another word, and an inch elsewhere."""
    word = tokens[place].lower()
    if word in ("to", "towards", "toward", "due", "direction", "directed", "from"):
        return True
    following = tokens[place + 1].lower() if place + 1 < len(tokens) else ""
    if word in ("degree", "degrees", "deg") and following in ("celsius", "fahrenheit", "c", "f", "kelvin"):
        return True
    return word in _FILLER and tokens[place] != "A" and (word != "in" or following.isalpha())


@lru_cache(maxsize=512)
def _unit(tokens: tuple[str, ...]) -> Unit:
    dimension: dict[str, int] = {}
    factor = Fraction(1)
    sign, power, unknown = 1, 1, False
    last: Size | None = None
    sense: list[str] = []
    for index, word in enumerate(tokens):
        lowered = word.lower()
        if lowered in ("/", "per"):
            sign = -1
        elif lowered in SENSES and not (lowered in _ANGULAR and not last):
            sense.append(SENSES[lowered])
        elif lowered in ("square", "sq", "squared", "cubic", "cu", "cubed"):
            degree = 2 if lowered.startswith("sq") else 3
            if lowered.endswith("ed") and last:
                factor *= _raise(dimension, last, sign * (degree - 1))
            else:
                power = degree
        elif lowered == "^" and last and (extra := _exponent(tokens, index + 1)) is not None:
            if abs(extra) > 6:
                unknown = True
                continue
            factor *= _raise(dimension, last, sign * (extra - 1))
        elif (
            lowered in ("^", "*", "times", "-", ".", "(", ")", "{", "}")
            or lowered.isdigit()
            or _is_filler(tokens, index)
        ):
            continue
        else:
            last = _lookup(word)
            if last is None:
                unknown = True
                continue
            factor *= _raise(dimension, last, sign * power)
            power = 1
    spelled = tuple(
        w.lower().removesuffix("s")
        for w in tokens
        if w.lower() not in _FILLER and w.lower() not in SENSES and any(c.isalpha() for c in w)
    )
    if unknown:
        return Unit((), Fraction(1), spelled, tuple(sense))
    kept = tuple(sorted((name, exponent) for name, exponent in dimension.items() if exponent))
    return Unit(kept, factor, spelled, tuple(sense))


def _exponent(tokens: Sequence[str], start: int) -> int | None:
    """Return the integer exponent that starts here (`2`, `-2`, `- 2`, also in braces); None for anything else."""
    sign = 1
    for word in tokens[start : start + 4]:
        if word == "-":
            sign = -1
        elif word.lstrip("-").isdigit() and len(word) < 4:
            return sign * int(word)
        elif word not in ("{", "("):
            return None
    return None


def _raise(dimension: dict[str, int], unit: Size, power: int) -> Fraction:
    for name, exponent in unit[0]:
        dimension[name] = dimension.get(name, 0) + exponent * power
    return unit[1] ** power


def parse_unit(words: Sequence[str]) -> Unit:
    """Return the unit spelled by words, `/`, `per`, `^` and integer exponents.

    A unit with any unknown word has no dimension and is compared by its words.

    Example:
        >>> parse_unit(["km", "/", "hr"]).factor
        Fraction(5, 18)
        >>> parse_unit(["N"]).dimension
        (('g', 1), ('m', 1), ('s', -2))
    """
    return _unit(tuple(part for word in words for part in COMPOUND.get(word.lower(), word).split()))


def is_unit_word(word: str) -> bool:
    """Return True if a word names a known unit."""
    return word.lower() in COMPOUND or _lookup(word) is not None
