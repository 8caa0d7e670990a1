"""Reads one answer as it comes in, and says in the end what is wrong with it."""

from __future__ import annotations

from time import perf_counter

from bench import exchange


class Whole:
    """An answer that has to be `expected`, or, where a proxy may spell it anew, to hold the word asked for."""

    def __init__(self, expected: bytes, exact: bool) -> None:
        self._expected = expected
        self._exact = exact
        self._received = 0
        self._good = True
        self._seen = b""

    def take(self, data: bytes) -> None:
        if self._exact:
            self._good = self._good and self._expected.startswith(data, self._received)
        else:
            self._seen += data
        self._received += len(data)

    def fault(self) -> str:
        """Empty if all is well."""
        if not self._exact:
            return "" if exchange.TOKEN in self._seen else "the answer lacks the word"
        if not self._good:
            return "other bytes than the service's"
        return "" if self._received == len(self._expected) else "not as many bytes as the service's"


class Events:
    """A stream of so many tokens; notes when each came."""

    def __init__(self, tokens: int) -> None:
        self._expected = tokens
        self._rest = self._end = b""
        self.came: list[tuple[float, int]] = []
        """(time, how many at once)."""

    def take(self, data: bytes) -> None:
        seen = self._rest + data
        count = seen.count(exchange.TOKEN)
        self._rest = seen[1 - len(exchange.TOKEN) :]  # a part of a token at most: none is counted twice
        self._end = (self._end + data)[-len(exchange.DONE) :]
        if count:
            self.came.append((perf_counter(), count))

    @property
    def tokens(self) -> int:
        return sum(count for _, count in self.came)

    def fault(self) -> str:
        """Empty if all is well."""
        if self.tokens != self._expected:
            return "not as many tokens as were asked for"
        return "" if self._end == exchange.DONE else "the stream has no end"
