"""How each table of the state is listed: its columns, its order (worst first) and its words."""

from saia_tui.listings.alarms import ALARMS
from saia_tui.listings.events import EVENTS
from saia_tui.listings.instances import INSTANCES
from saia_tui.listings.jobs import JOBS
from saia_tui.listings.keys import KEYS
from saia_tui.listings.nodes import NODES
from saia_tui.listings.proxies import PROXIES
from saia_tui.listings.services import SERVICES
from saia_tui.listings.traffic import TRAFFIC

LISTINGS = {
    each.table: each for each in (SERVICES, INSTANCES, JOBS, NODES, PROXIES, TRAFFIC, KEYS, ALARMS, EVENTS)
}

__all__ = [
    "ALARMS",
    "EVENTS",
    "INSTANCES",
    "JOBS",
    "KEYS",
    "LISTINGS",
    "NODES",
    "PROXIES",
    "SERVICES",
    "TRAFFIC",
]
