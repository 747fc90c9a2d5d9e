"""An endpoint's address and its key, and how secrets in either are kept out of what people read."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from labkit.engines.content import clean
from labkit.request import InvalidValue

_SECRET = re.compile(r"key|token|secret|passw|auth|credential|(?:^|[_-])(?:sig|signature|code|pwd)$", re.IGNORECASE)
_HIDDEN = "[API key]"


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's address in parts: `base` may be shown; `query` and `headers` go with the requests and are not shown.

    `base` has no user, no password, no query and no closing slash. Make an address with `parse`.
    """

    base: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that must not be shown."""

    @classmethod
    def parse(cls, base_url: str, api_key: str = "") -> Address:
        """The parts of `base_url`, which may carry a query (Azure's `?api-version=`) and `user:password@`.

        The key goes into the header where the endpoint looks for it: "Authorization: Bearer KEY", or "api-key: KEY" where
        the address has an api-version and the key is not a token of Azure's Entra (a JWT). A closing `/chat/completions` is
        cut.

        Raises `InvalidValue` for a text that is no address, for a key that no header can carry, for a user and a key at
        once, and for a key within the query, because addresses are written into logs.
        """
        import httpx

        if not isinstance(base_url, str) or not re.match(r"\s*https?://[^/?#\s]", base_url, re.IGNORECASE):
            raise InvalidValue(f"{_shown(base_url)} is no endpoint address; it should look like http://127.0.0.1:8000/v1")
        base_url = base_url.strip()
        if re.search(r"[\x00-\x20\x7f]", base_url):
            raise InvalidValue(
                f"the endpoint address {_shown(base_url)} has a blank or a control character in it; take it out"
            )
        try:
            parts = urlsplit(base_url)
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise InvalidValue(f"the endpoint address {_shown(base_url)} cannot be read: {_reason(error)}") from None
        if not host or port == 0:
            raise InvalidValue(
                f"the endpoint address {_shown(base_url)} names no {'port' if host else 'host'} to connect to"
            )
        if parts.fragment:
            raise InvalidValue(f"the endpoint address {_shown(base_url)} has a part after '#'; leave it out")
        query = parse_qsl(parts.query, keep_blank_values=True)
        for name, _ in query:
            if _SECRET.search(name):
                raise InvalidValue(
                    f"the endpoint address holds a secret in its query ({name!r:.40}), and addresses stand in logs; take it "
                    "out and give it as api_key (LABKIT_API_KEY)"
                )
        key, secrets = _key(api_key), []
        headers: dict[str, str] = {}
        if parts.username is not None or parts.password is not None:
            if key:
                raise InvalidValue("the endpoint address names a user and there is an API key too; give only one of them")
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            basic = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {basic}"
            secrets += [basic, password, parts.password or ""] if password else [basic, user]
        elif key:
            azure = any(name.lower() == "api-version" for name, _ in query) and not key.startswith("eyJ")
            headers["api-key" if azure else "Authorization"] = key if azure else f"Bearer {key}"
            secrets += [key, quote(key, safe=""), base64.b64encode(key.encode()).decode()]
        shown_host = f"[{host}]" if ":" in host else host
        path = re.sub(r"/chat/completions/?$", "", parts.path).rstrip("/")
        base = f"{parts.scheme}://{shown_host}{f':{port}' if port else ''}{path}"
        try:
            _ = httpx.URL(f"{base}/chat/completions").host  # httpx reads it like this for each request
        except (httpx.InvalidURL, ValueError):
            raise InvalidValue(f"the endpoint address {_shown(base_url)} cannot be read: its host is malformed") from None
        return cls(base, urlencode(query), headers, tuple(sorted({s for s in secrets if s}, key=len, reverse=True)))

    @property
    def host(self) -> str:
        """The host's name, in lower case."""
        return urlsplit(self.base).hostname or ""

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine: then a proxy set for the internet must not catch its traffic."""
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(?:\.\d+){1,3}", self.host) is not None

    def of(self, path: str, root: bool = False) -> str:
        """The address of `path` below the base, with the query; with `root`, below the base without its `/v1`, no query."""
        if root:
            return self.base.removesuffix("/v1") + path
        return self.base + path + (f"?{self.query}" if self.query else "")

    def hide(self, text: str) -> str:
        """`text` from the endpoint, with each secret that it may have sent back hidden, and half letters as U+FFFD."""
        text = clean(text)
        for secret in self.secrets:
            # A short key ("none") may be a part of ordinary words: hide it only where it stands alone.
            edges = ("", "") if len(secret) >= 8 else (r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])")
            text = re.sub(re.escape(secret).join(edges), _HIDDEN, text, flags=re.IGNORECASE)
        return text


def _key(api_key: str) -> str:
    if not isinstance(api_key, str):
        raise InvalidValue(f"the API key is a {type(api_key).__name__}; give it as text, '' for none")
    key = api_key.strip()
    for place, letter in enumerate(key, start=1):
        if not "!" <= letter <= "~":
            raise InvalidValue(
                f"character {place} of the API key is a blank, a line end or no ASCII letter, which no HTTP header can "
                "carry; copy the key again (LABKIT_API_KEY)"
            )
    return key


def _shown(base_url: object) -> str:
    """An address that could not be read, for a message: without the parts that may hold a password or a key."""
    if not isinstance(base_url, str):
        return f"a {type(base_url).__name__}"
    text = re.sub(r"//.*@", "//…@", base_url, flags=re.DOTALL)
    return repr(re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)[:200])


def _reason(error: ValueError) -> str:
    return "its port is no number from 1 to 65535" if "ort" in str(error) else "its host is malformed"
