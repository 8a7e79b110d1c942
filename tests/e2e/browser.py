"""As much of a browser as the sample sites need: cookies, redirects, forms, uploads."""

from __future__ import annotations

import re
import uuid
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from harness.client import Response
from harness.server import Httpd


class Browser:
    """One user: requests go to ``server`` and carry the cookies that came before."""

    def __init__(self, server: Httpd):
        self.server = server
        self.cookies: dict[str, str] = {}
        #: The path of the page shown, after redirects.
        self.path = ""

    def get(self, path: str) -> Response:
        """Loads a page, following redirects."""
        return self._request(path, "GET", [], None)

    def post(self, path: str, fields: dict[str, str]) -> Response:
        """Sends a form, following redirects."""
        kind = "application/x-www-form-urlencoded"
        return self._request(path, "POST", [("Content-Type", kind)], urlencode(fields).encode())

    def upload(self, path: str, fields: dict[str, str], name: str, file: tuple[str, bytes]):
        """Sends a form with a file: ``name`` is the field, ``file`` file name and content."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file[0]}"'
            "\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        body = "".join(parts).encode() + file[1] + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self._request(path, "POST", [("Content-Type", kind)], body)

    def _request(self, path, method, headers, body) -> Response:
        for _ in range(5):
            sent = list(headers)
            if self.cookies:
                cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
                sent.append(("Cookie", cookies))
            host = f"localhost:{self.server.port}"
            response = self.server.request(path, method=method, headers=sent, body=body, host=host)
            self.path = path
            for field in response.all("Set-Cookie"):
                for name, morsel in SimpleCookie(field).items():
                    self.cookies[name] = morsel.value
            if response.status not in (301, 302, 303):
                return response
            # A relative reference in the sites here is always an absolute path.
            target = urlsplit(response.header("Location") or "")
            path = target.path + (f"?{target.query}" if target.query else "")
            method, headers, body = "GET", [], None
        raise AssertionError(f"too many redirects, last to {path}")


def csrf_token(page: Response) -> str:
    """The token in the hidden field of a Django form."""
    match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert match, f"no CSRF field in {page.text[:2000]}"
    return match.group(1)
