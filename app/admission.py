"""
Who may ask, and how much at once: keys, their quotas, and the bound of a body. Looks at heads only.
"""

import secrets
from collections.abc import Mapping, Sequence

from pydantic import SecretStr
from starlette.exceptions import HTTPException

from beexformer.app.quotas import Quotas

OPEN = ("/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")  # no key
OPEN_UNDER = ("/assets/", "/docs/")  # nor for the files under these
ADMIN = "/admin/"  # below it only keys of its own count


class Admission:
    """One of a process: each key has one quota, whichever way its requests go."""

    def __init__(
        self,
        *,
        max_body_bytes: int,
        keys: Sequence[SecretStr] = (),
        admin_keys: Sequence[SecretStr] = (),
        quota_per_minute: int = 0,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._keys = [key.get_secret_value().encode() for key in keys]
        self._admin_keys = [key.get_secret_value().encode() for key in admin_keys]
        self._quotas = Quotas(len(keys), quota_per_minute) if quota_per_minute else None

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> int | None:
        """The index of the request's key, where it needs one. Raises HTTPException or QuotaExceeded where it shall not
        be answered."""
        key, admin = None, path.startswith(ADMIN)
        keys = self._admin_keys if admin else self._keys
        if admin or (keys and path not in OPEN and not path.startswith(OPEN_UNDER)):
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            given = headers.get(b"x-api-key") or (token.strip() if scheme.lower() == b"bearer" else b"")
            # every key is compared, each in constant time, so that the time taken tells nothing
            matches = [secrets.compare_digest(given, key) for key in keys]
            if not any(matches):
                detail = "send a valid key as X-API-Key or as Authorization: Bearer"
                raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
            key = None if admin else matches.index(True)
            if self._quotas and key is not None:
                self._quotas.admit(key)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise HTTPException(400, "Content-Length is no number")
        length = length.lstrip(b"0")  # thousands of digits are more than int() takes
        if len(length) > len(str(self.max_body_bytes)) or int(length or 0) > self.max_body_bytes:
            raise self.too_large()
        return key

    def too_large(self) -> HTTPException:
        """What is said of a body beyond the bound."""
        return HTTPException(413, f"the body is larger than {self.max_body_bytes} bytes; send less text at once")

    def pay(self, key: int | None, texts: int) -> None:
        """A request that was let in is over, and had so many texts."""
        if self._quotas and key is not None:
            self._quotas.pay(key, texts)
