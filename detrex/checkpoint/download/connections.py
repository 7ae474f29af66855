"""How a server is asked: connections that can be shut, and redirects that lead nowhere else."""

import http.client
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

from detrex.checkpoint.download.urls import WebAddress, shown
from detrex.checkpoint.download.watch import Watch
from detrex.errors import DownloadError


def proxy_secrets() -> tuple[str, ...]:
    """The names and passwords for proxies that the environment holds."""
    texts = (proxy.rpartition("@")[0] for proxy in urllib.request.getproxies().values())
    words = (word for text in texts for word in text.partition("//")[2].split(":"))
    return tuple(form for word in words if len(word) > 2 for form in (word, unquote(word)))


def opener(watch: Watch) -> urllib.request.OpenerDirector:
    """Make what opens addresses, through the proxies that the environment names.

    Args:
        watch: is told of every connection.
    """
    return urllib.request.build_opener(_Watched(watch), _Redirects())


class _Watched(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_told_of(self._watch, http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_told_of(self._watch, http.client.HTTPSConnection), req)


def _told_of(watch: Watch, kind: type[http.client.HTTPConnection]) -> Any:
    class Connection(kind):  # type: ignore[valid-type, misc]
        def send(self, data: Any) -> None:
            # To a proxy too, which is asked for a tunnel while this connects.
            if self.sock is None:
                self.connect()
            watch.opened(self.sock)
            super().send(data)

    return Connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects over the web, never from https to http, and takes no password along."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        fp.close()  # it would be read to its end, which it need not have
        new, old = urlsplit(newurl), urlsplit(req.full_url)
        if new.scheme not in ("http", "https"):
            raise _refusal(req, newurl, f"by {new.scheme}, which is not the web")
        if new.scheme == "http" and old.scheme == "https":
            raise _refusal(req, newurl, "from https to http, where anyone may change the file")
        if "@" in new.netloc:
            raise _refusal(req, newurl, "with a user's name in it")
        try:
            url = WebAddress.of(newurl).url
        except DownloadError:
            raise _refusal(req, newurl, "to where no file can be") from None
        kept = dict(req.header_items())
        if new.netloc != old.netloc:
            kept.pop("Authorization", None)
        for name in ("Host", "Proxy-authorization"):
            kept.pop(name, None)
        return urllib.request.Request(
            url,
            headers=kept,
            origin_req_host=req.origin_req_host,
            unverifiable=True,
        )

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _refusal(request: urllib.request.Request, url: str, why: str) -> DownloadError:
    return DownloadError(
        f"cannot fetch {shown(request.full_url)}, which leads to {shown(url)}: a redirect {why}, "
        "is not followed: give the address of the file itself"
    )
