"""What an operator types to see fewer rows: terms with blanks between, and all of them must hold.

word           it is somewhere in the row, in any case; "two words" where a blank belongs to it
/regex/ ~regex the pattern is found in the row
field=value    a field, or a column, is just that; value* begins so; empty: it is unknown
field!=value   field~regex   field>number   and < >= <=; a number may have a unit (90s, 2h)
!term          the opposite
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from saia_engine.edge import durations
from saia_engine.view import TABLES
from saia_tui.cells import UNKNOWN
from saia_tui.columns import FOREVER, Column, Listing, Sight
from saia_tui.patterns import BadPattern, Pattern

LONGEST = 500
BUDGET_S = 0.2
"""So long the patterns of a filter may search in one pass over the rows; the screen stands still meanwhile."""
WIDEST = 200

_TERM = re.compile(r'(!?)(?:/((?:[^/\\]|\\.)+)/(?=\s|$)|((?:[^\s"]|"[^"]*"?)+))')
_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(!=|!~|>=|<=|=|~|>|<)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
_MOMENT = re.compile(r".*_(at|time|since|until|end)|since|end|at|drain_by")

Test = Callable[[Any], bool]


class BadFilter(Exception):
    """It can't be understood; the text says what of it."""


class Filter:
    """Which rows are wanted. A pass over them in which its patterns take too long is cut short."""

    def __init__(self, text: str, tests: Sequence[Test] = (), patterns: Sequence[Pattern] = ()) -> None:
        self.text = text
        self.too_slow = False
        """The last pass was cut short: from then on it let everything through."""
        self._tests = tests
        self._patterns = patterns

    @classmethod
    def parse(cls, text: str, listing: Listing) -> Filter:
        """Raises BadFilter."""
        if len(text) > LONGEST:
            raise BadFilter(f"a filter has at most {LONGEST} characters")
        maker = _Maker(listing)
        try:
            return cls(text, [maker.test(found) for found in _TERM.finditer(text)], maker.patterns)
        except BadPattern as exc:
            raise BadFilter(str(exc)) from exc

    @contextmanager
    def at_work(self) -> Generator[None]:
        """One pass over the rows."""
        self.too_slow = False
        for pattern in self._patterns:
            pattern.spent_s = 0.0
        yield

    def wants(self, row: Any) -> bool:
        if not self._tests or self.too_slow:
            return True
        if self._patterns and sum(pattern.spent_s for pattern in self._patterns) > BUDGET_S:
            self.too_slow = True
            return True
        return all(test(row) for test in self._tests)


EVERYTHING = Filter("")


class _Maker:
    """Makes the tests of one filter, and collects the patterns that they use."""

    def __init__(self, listing: Listing) -> None:
        self.patterns: list[Pattern] = []
        self._listing = listing

    def test(self, found: re.Match[str]) -> Test:
        inverse, pattern, word = found.groups()
        test = self._term(word) if pattern is None else self._pattern(pattern.replace(r"\/", "/"))
        return (lambda row: not test(row)) if inverse else test

    def _term(self, term: str) -> Test:
        bare = term.replace('"', "")
        if term.startswith("~") and len(term) > 1:
            return self._pattern(bare[1:])
        field = None if term.startswith('"') else _FIELD.fullmatch(term)
        if field is None:
            word, words = bare.lower(), self._listing.words
            return lambda row: word in words(row).lower()
        name, sign, value = field.groups()
        return self._field(name.lower(), sign, value.replace('"', ""))

    def _new_pattern(self, source: str) -> Pattern:
        self.patterns.append(Pattern(source))
        return self.patterns[-1]

    def _pattern(self, source: str) -> Test:
        pattern, words = self._new_pattern(source), self._listing.words
        return lambda row: pattern.found_in(words(row))

    def _field(self, name: str, sign: str, value: str) -> Test:
        value_of = _value_of(name, self._listing)
        if sign in _ORDERS:
            if _MOMENT.fullmatch(name):
                raise BadFilter(f"{name} is a moment: sort by it instead")
            return _order_test(value_of, _ORDERS[sign], _quantity(name, value))
        if sign.endswith("~"):
            pattern = self._new_pattern(value)
            test: Test = lambda row: any(map(pattern.found_in, _texts(value_of(row))))  # noqa: E731
        else:
            test = _equal_test(value_of, value)
        return (lambda row: not test(row)) if sign.startswith("!") else test


def _equal_test(value_of: Callable[[Any], Any], value: str) -> Test:
    wanted = value.casefold()
    if wanted.endswith("*"):
        return lambda row: any(each.casefold().startswith(wanted[:-1]) for each in _texts(value_of(row)))
    return lambda row: wanted in [each.casefold() for each in _texts(value_of(row))]


def _order_test(value_of: Callable[[Any], Any], holds: Callable[[float, float], bool], limit: float) -> Test:
    def test(row: Any) -> bool:
        number = _number(value_of(row))
        return number is not None and holds(number, limit)

    return test


def _value_of(name: str, listing: Listing) -> Callable[[Any], Any]:
    """Of a row: its field of that name, or what its column of that name shows. Raises BadFilter."""
    if name in TABLES[listing.table].__struct_fields__:
        return operator.attrgetter(name)
    for column in listing.columns:
        if _slug(column.name) == name:
            return partial(_shown, column)
    known = sorted(
        {*TABLES[listing.table].__struct_fields__, *(_slug(c.name) for c in listing.columns)} - {""}
    )
    raise BadFilter(f'no field {name} here ("{name}=…" in quotes is a word); there are: {", ".join(known)}')


def _shown(column: Column, row: Any) -> str:
    """Of a cell its words. One that tells of time passing has none: its row would not come and go with it."""
    sight = Sight(0.0)
    words = column.cell(row, sight, WIDEST).plain.strip()
    first, blank, rest = words.partition(" ")
    if blank and len(first) == 1 and not first.isalnum():  # `● ready`
        words = rest.strip()
    return "" if sight.until != FOREVER or words == UNKNOWN else words


def _slug(column: str) -> str:
    """`NODES (REASON)` is typed `nodes_reason`."""
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def _texts(value: Any) -> list[str]:
    """The texts that a value may be called by; an unknown one by none at all: the empty one."""
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)] or [""]
    if value is None:
        return [""]
    if isinstance(value, bool):
        return ["yes", "true", "1"] if value else ["no", "false", "0"]
    return [str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)]


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        return float(value.replace(",", ""))
    except ValueError:
        pass
    try:
        return durations.parse(value.replace(" ", ""))
    except ValueError:
        return None


def _quantity(name: str, value: str) -> float:
    number = _number(value)
    if number is None:
        raise BadFilter(f"{name} can be compared with a number only, as in {name}>2 or {name}>2h")
    return number
