"""Addresses as users write them: checked, encoded, and shown without what they keep secret."""

import base64
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from detrex.errors import DownloadError

_LONGEST_SHOWN = 160
_ADDRESS = re.compile(r"\w[\w+.-]*://[^\s'\"<>]+")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:\d*)?")
_ENTRY = re.compile(r"#[\w.-]+$")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TOKEN = re.compile(r"(?<=Bearer )\S+|(?<=Basic )\S+|\bhf_[A-Za-z0-9]{16,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def shown(source: str) -> str:
    """Write an address as it may be printed: no user, no password, no query, not endless.

    Args:
        source: an address, or a path, which stays as it is.
    """
    scheme, separator, rest = source.partition("://")
    if not separator:
        return source
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # A password with a slash in it ends what looks like the host.
    if "@" in host or ("@" in rest and not _HOST_AND_PORT.fullmatch(host)):
        end = rest.index("@", len(host)) if "@" not in host else host.rindex("@")
        rest = rest[end + 1 :]
    entry = _ENTRY.search(rest)
    path, mark, _ = rest.partition("?")
    text = f"{scheme}://{path.partition('#')[0]}{'?...' if mark else ''}"
    text += entry.group() if entry else ""
    return brief(text, _LONGEST_SHOWN)


def brief(text: str, most: int = 160) -> str:
    """Write a text of any origin on one line of at most so many characters."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[3 - most // 2 :]}"


def without_secrets(text: str, *secrets: str) -> str:
    """Take credentials out of a text that others wrote, such as an error's.

    Args:
        text: may name addresses.
        secrets: what must not be in it besides.
    """
    text = _TOKEN.sub("...", text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "...")
    return _ADDRESS.sub(lambda found: shown(found.group()), text)


@dataclass(frozen=True)
class WebAddress:
    """An ``http://`` or ``https://`` address that can be asked for.

    Attributes:
        url: in ASCII, without credentials and fragment.
        authorization: the header that its credentials make, empty where it has none.
        secrets: its parts that must not be printed.
    """

    url: str
    authorization: str
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "WebAddress":
        """Read an address.

        Args:
            text: as a user or a server wrote it; umlauts and spaces are encoded.

        Raises:
            DownloadError: it has no host, no valid port, or characters that no address has.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
            host = _host(parts.hostname or "")
            path = _encoded(parts.path)
            query = _encoded(parts.query)
        except ValueError:  # its text may quote a password
            host = ""
        if not host or _CONTROL.search(text) or _CONTROL.search(unquote(path)):
            raise DownloadError(
                f"the address {shown(text)} names no file: expected one such as https://a/b.pth, "
                "with a host, a port up to 65535 if any, and no control characters"
            )
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        given = (parts.username or "", parts.password or "", user, password, parts.query, query)
        return cls(
            f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path or '/'}"
            + (f"?{query}" if query else ""),
            f"Basic {token}" if user or password else "",
            (*(word for word in given if len(word) > 2), *_values(parts.query)),
        )


def _values(query: str) -> tuple[str, ...]:
    values = (pair.partition("=")[2] for pair in query.split("&"))
    return tuple(form for value in values if len(value) > 5 for form in {value, unquote(value)})


def _host(host: str) -> str:
    """Write a host in ASCII; ValueError where there can be none of that name."""
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host)}]"
    name = host.encode("idna").decode()
    if not re.fullmatch(r"[\w.-]{1,253}", name, re.ASCII):
        raise ValueError("no name of a host")
    return name


def _encoded(text: str) -> str:
    return quote(_BARE_PERCENT.sub("%25", text), safe="/%:=&?~+!$,;@()*[]|'")
