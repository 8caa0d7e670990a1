"""Regular expressions that can't hold up the screen, whatever a job is called.

Python's `re` tries every way to match: `(a+)+$` against a name of thirty `a` runs for minutes, and nothing can stop
it. So pattern and text are bounded, and a pattern is refused where the number of ways could explode: where what is
repeated holds a repetition or a choice itself, and where repetitions and choices multiply to too much.
"""

from __future__ import annotations

import re
from time import perf_counter

LONGEST_PATTERN = 200
LONGEST_TEXT = 160
"""Characters of a row that are looked at."""
MOST_WAYS = 4 * LONGEST_TEXT**3
"""Two repetitions without a bound, and two choices beside them: about a tenth of a second at the very worst."""

_ATOM = re.compile(r"\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]|[^\\\[\]]|\]", re.DOTALL)
_COUNT = re.compile(r"\{([0-9]{0,4})(,?)([0-9]{0,4})\}")
_BACKWARD = re.compile(r"\\[1-9]")


class BadPattern(Exception):
    """It is no pattern, or one that might take for ever; the text says why."""


class Pattern:
    """Looks for an expression in any case. Raises BadPattern."""

    def __init__(self, source: str) -> None:
        if len(source) > LONGEST_PATTERN:
            raise BadPattern(f"a pattern has at most {LONGEST_PATTERN} characters")
        try:
            self._look = re.compile(source, re.IGNORECASE).search
        except (re.error, OverflowError, RecursionError) as exc:
            raise BadPattern(f"{source!r} is no pattern: {exc}") from exc
        if _ways(source) > MOST_WAYS:
            raise BadPattern(f"{source!r} could take too long: at most two of * and +")

        self.spent_s = 0.0
        """Searching, since somebody set it to 0."""

    def found_in(self, text: str) -> bool:
        began = perf_counter()
        found = self._look(text[:LONGEST_TEXT]) is not None
        self.spent_s += perf_counter() - began
        return found


def _ways(source: str) -> int:
    """A bound of how many ways there are to match a text. Raises BadPattern where that is exponential."""
    ways, at = LONGEST_TEXT, 0
    open_groups: list[bool] = []
    """Of each open group: whether a repetition or a choice is in it."""
    closed: bool | None = None
    """The same, of the group that ended right before; None: there was none."""
    while at < len(source):
        if (width := _repetition(source, at)) is not None:
            optional = source[at] == "?"
            at, factor = width
            if closed and not optional:
                raise BadPattern("a repetition of what holds a repetition or a choice could take for ever")
            ways *= factor
            open_groups = [True] * len(open_groups)
            closed = None if closed is None else True
            continue
        found = _ATOM.match(source, at)
        assert found is not None, "re compiled it"
        part, at = found.group(), found.end()
        closed = None
        if part == "(":
            at = _opened(source, at)
            open_groups.append(False)
        elif part == ")":
            closed = open_groups.pop()
        elif part == "|":
            ways *= 2
            open_groups = [True] * len(open_groups)
        elif _BACKWARD.match(part):
            raise BadPattern(f"a pattern can't refer back to a group ({part})")
    return ways


def _repetition(source: str, at: int) -> tuple[int, int] | None:
    """Behind the repetition that begins here, and in how many ways it can end; None where there is none."""
    if source[at] in "*+":
        end, ways = at + 1, LONGEST_TEXT
    elif source[at] == "?":
        end, ways = at + 1, 2
    elif (count := _COUNT.match(source, at)) and (count[1] or count[3]):
        least, most = int(count[1] or 0), int(count[3]) if count[3] else LONGEST_TEXT
        end, ways = count.end(), (max(1, most - least + 1) if count[2] else 1)
    else:
        return None
    if end < len(source) and source[end] in "?+":  # lazy, or possessive
        end += 1
    return end, min(ways, LONGEST_TEXT)


def _opened(source: str, at: int) -> int:
    """Behind what a group begins with. Raises BadPattern for all but plain groups."""
    if source.startswith("?:", at):
        return at + 2
    if source.startswith("?", at):
        raise BadPattern("a pattern can have ( ) and (?: ), no other kind of group")
    return at
