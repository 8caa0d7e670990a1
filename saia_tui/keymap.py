"""Keys as the operator wants them: what may be asked for, and putting it in force."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from textual.app import App
from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from saia_engine.edge.faults import did_you_mean
from saia_tui.actions import ACTIONS, REMAPPED, SHOWN_KEYS, Action, shown_key

_BY_ID: Final = {action.id: action for action in ACTIONS}
_NAMED: Final = {str(key.value) for key in Keys}
_SHOWN: Final = {shown.lower(): key for key, shown in SHOWN_KEYS.items()}
_TAKEN: Final = {
    "ctrl+a": "screen takes it",
    "ctrl+b": "tmux takes it",
    "ctrl+c": "it asks to leave",
    "ctrl+h": "terminals send Backspace so",
    "ctrl+i": "terminals send Tab so",
    "ctrl+m": "terminals send Enter so",
    "ctrl+q": "terminals take it, to go on with output",
    "ctrl+s": "terminals take it, to stop output",
    "ctrl+z": "shells take it, to suspend a program",
}
_ADVICE: Final = "take a letter, a sign or F1 to F12"


@dataclass(frozen=True, slots=True)
class KeyFault:
    action: str
    text: str
    suggestion: str = ""


def key_name(key: str) -> str:
    """As Textual names it: `?` is `question_mark`, `Esc` is `escape`."""
    if len(key) == 1:
        if key.isalnum():
            return key
        name = unicodedata.name(key, key).lower().replace("-", "_").replace(" ", "_")
        return KEY_NAME_REPLACEMENTS.get(name, name)
    return _SHOWN.get(key.lower(), key.lower())


def normal(keys: str) -> str:
    """A list of keys, separated by commas, in Textual's names."""
    return ",".join(key_name(key.strip()) for key in keys.split(","))


def faults(asked: Mapping[str, str]) -> list[KeyFault]:
    """What is wrong with these keys by action id."""
    found = [fault for name, keys in asked.items() for fault in _faults_of(name, keys)]
    return found or list(_conflicts({name: normal(keys) for name, keys in asked.items()}))


def put_in_force(app: App[str], asked: Mapping[str, str]) -> None:
    """Keys that have no fault; the help and the hints follow."""
    REMAPPED.clear()
    REMAPPED.update({name: normal(keys) for name, keys in asked.items()})
    # All of them: Textual takes a key from every action that shares it with one it is told of.
    app.set_keymap({action.id: REMAPPED.get(action.id, action.keys) for action in ACTIONS} if asked else {})


def _faults_of(name: str, keys: str) -> Iterator[KeyFault]:
    action = _BY_ID.get(name)
    if action is None:
        yield KeyFault(name, "there is no such action", did_you_mean(name, _BY_ID))
        return
    for key in normal(keys).split(","):
        if not key:
            yield KeyFault(name, "needs a key", _ADVICE)
        elif key in _TAKEN:
            yield KeyFault(name, f"can't be {key}: {_TAKEN[key]}", _ADVICE)
        elif not _is_key(key):
            yield KeyFault(name, f"{key} is no key", did_you_mean(key, _NAMED) or _ADVICE)
        elif action.group == "Act" and not _deliberate(key):
            yield KeyFault(name, f"can't be {key}: an act must not be hit by chance", _ADVICE)


def _is_key(key: str) -> bool:
    bare = key.rpartition("+")[2]
    if key in _NAMED or (len(bare) == 1 and bare.isprintable()):
        return True
    return any(key_name(sign) == key for sign in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _deliberate(key: str) -> bool:
    """A letter, a sign or a function key, without Ctrl or Alt."""
    function_key = key[0] == "f" and key[1:].isdigit()
    return function_key or (_is_key(key) and key not in _NAMED and "+" not in key)


def _conflicts(asked: Mapping[str, str]) -> Iterator[KeyFault]:
    def keys(action: Action) -> set[str]:
        return set(asked.get(action.id, action.keys).split(","))

    for one, other in combinations(ACTIONS, 2):
        both = keys(one) & keys(other)
        both -= set(one.keys.split(",")) & set(other.keys.split(","))  # meant so: never both at once
        new, old = (one, other) if one.id in asked else (other, one)
        for key in sorted(both):
            yield KeyFault(
                new.id,
                f"{shown_key(key)} is the key of {old.id} too",
                f"give {old.id} another key, or take another here",
            )
