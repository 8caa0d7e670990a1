"""Who may ask: API keys, known here by their hashes only, each with its models."""

from __future__ import annotations

from collections.abc import Iterable

from saia_proxy.config import SERVICE, ApiKey, hash_key
from saia_proxy.errors import ApiError


class Keyring:
    def __init__(self, keys: Iterable[ApiKey]) -> None:
        # Found by the hash of what was presented, so how long it takes tells nothing of any key's text.
        self._by_hash = {key.hash: key for key in keys}

    def admit(self, authorization: bytes | None) -> ApiKey:
        """The key that an Authorization header presents. Raises ApiError (401)."""
        scheme, _, presented = (authorization or b"").partition(b" ")
        presented = presented.strip()
        if scheme.lower() != b"bearer" or not presented:
            raise ApiError(401, "missing_api_key", "No API key: send it as 'Authorization: Bearer KEY'.")
        key = self._by_hash.get(hash_key(presented.decode("latin-1")))
        if key is None:
            raise ApiError(401, "invalid_api_key", "This API key is not known here.")
        return key


def may_use(key: ApiKey, model: str) -> bool:
    """A model whose own name looks like a service's is for keys with `*` only."""
    return "*" in key.models or (model in key.models and not model.startswith(SERVICE))


def may_reach(key: ApiKey, service: str) -> bool:
    """All of a service, whatever its models: so a key that names only models never may."""
    return "*" in key.models or f"{SERVICE}{service}" in key.models
