"""Where the operator is: the places on the way down, from a screen over a service to an instance and its log."""

from __future__ import annotations

from dataclasses import dataclass

from saia_engine.model import short_id

TAB_OF = {"instances": "services"}
"""Screens without a number of their own, and the one they belong to."""


@dataclass(frozen=True, slots=True)
class Place:
    """A view, and what it is about: a service's name, an instance's id; empty: everything."""

    view: str
    subject: str = ""


class Trail:
    """Begins at a screen; each step goes one level down."""

    def __init__(self, view: str = "overview") -> None:
        self.places: list[Place] = [Place(view)]

    @property
    def here(self) -> Place:
        return self.places[-1]

    @property
    def tab(self) -> str:
        """The numbered screen that the way began at."""
        view = self.places[0].view
        return TAB_OF.get(view, view)

    def jump(self, view: str) -> None:
        """Begin anew there."""
        self.places = [Place(view)]

    def down(self, place: Place) -> None:
        if place != self.here:
            self.places.append(place)

    def up(self) -> bool:
        """One level back; False at a screen, above which there is nothing."""
        if len(self.places) == 1:
            return False
        self.places.pop()
        return True

    def crumbs(self) -> list[str]:
        """The way in words, as they came: raw text."""
        words = [self.places[0].view]
        for above, place in zip(self.places, self.places[1:], strict=False):
            name = short_id(place.subject)
            if place.view == "log":
                name = "log" if above.subject == place.subject else f"{name} log"
            words.append(name)
        return words


def below(table: str, key: str, instance: str = "") -> Place | None:
    """What Enter on a row leads to; None: the row has only its own fields to show.

    `instance` is the one that a job belongs to.
    """
    match table:
        case "services":
            return Place("instances", key)
        case "instances":
            return Place("instance", key)
        case "jobs" if instance:
            return Place("instance", instance)
        case _:
            return None
