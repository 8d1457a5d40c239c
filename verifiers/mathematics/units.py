"""Units of measure: names, dimensions and exact factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from verifiers.mathematics.nodes import Unit

_TABLE: Mapping[str, tuple[str, str]] = {
    # dimension: "factor name name, factor name ..." (exact, international definitions)
    "length": (
        "m",
        "1 m meter metre|1/100 cm centimeter centimetre|1/1000 mm millimeter millimetre|1000 km kilometer "
        "kilometre|127/5000 in inch inches|381/1250 ft foot feet|1143/1250 yd yard|201168/125 mi mile|1/10 dm "
        "decimeter|1/1000000000 nm nanometer|1/1000000 micrometer",
    ),
    "time": (
        "s",
        "1 s sec second|60 min minute|3600 h hr hour|86400 day|604800 week|1/1000 ms millisecond",
    ),
    "mass": (
        "g",
        "1 g gram|1000 kg kilogram|1/1000 mg milligram|45359237/100000 lb pound|45359237/1600000 oz ounce|"
        "1000000 ton tonne",
    ),
    "volume": ("l", "1 l liter litre|1/1000 ml milliliter millilitre|473176473/125000000 gallon gal"),
    "money": ("dollar", "1 dollar usd buck|1/100 cent penny pennies"),
    "euro": ("euro", "1 euro eur"),
    "sterling": ("sterling", "1 gbp sterling"),
    "rupee": ("rupee", "1 rupee inr rs"),
    "yen": ("yen", "1 yen jpy yuan"),
    "angle": ("deg", "1 deg degree"),
    "radian": ("rad", "1 rad radian"),
    "percent": ("percent", "1 percent pct"),
    "force": ("newton", "1 n newton|1000 kn"),
    "energy": ("joule", "1 j joule|1000 kj"),
    "power": ("watt", "1 w watt|1000 kw"),
    "potential": ("volt", "1 v volt"),
    "current": ("ampere", "1 ampere amp"),
    "field": ("tesla", "1 t tesla"),
    "pressure": ("pascal", "1 pa pascal|1000 kpa"),
    "temperature": ("kelvin", "1 kelvin"),
    "celsius": ("celsius", "1 celsius c"),
    "fahrenheit": ("fahrenheit", "1 fahrenheit f"),
    "frequency": ("hertz", "1 hz hertz"),
    "month": ("month", "1 month|12 year yr"),
    "substance": ("mole", "1 mol mole"),
}


def _known() -> dict[str, tuple[str, Fraction]]:
    names: dict[str, tuple[str, Fraction]] = {}
    for dimension, (_, rows) in _TABLE.items():
        for row in rows.split("|"):
            factor, *spellings = row.split()
            for spelling in spellings:
                names[spelling] = (dimension, Fraction(factor))
    return names


KNOWN: Mapping[str, tuple[str, Fraction]] = _known()
COMPOUND: Mapping[str, str] = {"mph": "mi / h", "kph": "km / h", "kmh": "km / h", "fps": "ft / s", "rpm": "rev / min"}
SYMBOLS = frozenset(
    "m cm mm km in ft yd mi s sec min h hr g kg mg lb oz l ml gal n kn j kj w kw v t pa kpa c f hz mol mph kph "
    "ms nm dm hrs mins secs lbs d q sq cu deg rad L mL N J W V T K C F Pa Hz kW kJ kN MHz rs".split()
)
"""Abbreviations that are units after a number, and variables elsewhere."""
PERCENT = Unit((("percent", 1),), Fraction(1), ("percent",))
DEGREE = Unit((("angle", 1),), Fraction(1), ("degree",))
CURRENCIES: Mapping[str, str] = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee"}
_FILLER = frozenset(("of", "the", "a", "in", "total", "about", "each", "unit", "units", "long", "away", "old"))


def currency(sign: str) -> Unit:
    """The unit of a currency sign."""
    return parse_unit([CURRENCIES[sign]])


def _lookup(word: str) -> tuple[str, Fraction] | None:
    lowered = word.lower()
    for spelling in (lowered, lowered.rstrip("."), lowered.removesuffix("s"), lowered.removesuffix("es")):
        if spelling in KNOWN:
            return KNOWN[spelling]
    return None


def parse_unit(words: Sequence[str]) -> Unit:
    """The unit that words, `/`, `per`, `^` and whole exponents spell.

    A unit with any unknown word has no dimension and is compared by its words.

    Example:
        >>> parse_unit(["km", "/", "hr"]).factor
        Fraction(5, 18)
    """
    dimension: dict[str, int] = {}
    factor = Fraction(1)
    sign, power, unknown = 1, 1, False
    last: tuple[str, Fraction] | None = None
    tokens = [part for word in words for part in COMPOUND.get(word.lower(), word).split()]
    for index, word in enumerate(tokens):
        lowered = word.lower()
        if lowered in ("/", "per"):
            sign = -1
        elif lowered in ("square", "sq", "squared", "cubic", "cu", "cubed"):
            degree = 2 if lowered.startswith("sq") else 3
            if lowered.endswith("ed") and last:
                _raise(dimension, last, sign, degree - 1)
                factor *= last[1] ** (sign * (degree - 1))
            else:
                power = degree
        elif lowered == "^" and last and index + 1 < len(tokens) and tokens[index + 1].lstrip("-").isdigit():
            extra = int(tokens[index + 1]) - 1
            if abs(extra) > 6:
                unknown = True
                continue
            _raise(dimension, last, sign, extra)
            factor *= last[1] ** (sign * extra)
        elif lowered in ("^", "*", "-", "(", ")", ".") or lowered.lstrip("-").isdigit() or lowered in _FILLER:
            continue
        else:
            last = _lookup(word)
            if last is None:
                unknown = True
                continue
            _raise(dimension, last, sign, power)
            factor *= last[1] ** (sign * power)
            power = 1
    spelled = tuple(
        w.lower().removesuffix("s") for w in tokens if w.lower() not in _FILLER and any(c.isalpha() for c in w)
    )
    if unknown:
        return Unit((), Fraction(1), spelled)
    kept = tuple(sorted((name, exponent) for name, exponent in dimension.items() if exponent))
    return Unit(kept, factor, spelled)


def _raise(dimension: dict[str, int], unit: tuple[str, Fraction], sign: int, power: int) -> None:
    dimension[unit[0]] = dimension.get(unit[0], 0) + sign * power


def is_unit_word(word: str) -> bool:
    """Whether a word names a known unit."""
    return word.lower() in COMPOUND or _lookup(word) is not None
