"""Ten response headers, as a page of a real site has them (the C handler sends the same)."""

BODY = b"Hello, world!"


def application(environ, start_response):
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(BODY))),
            ("Cache-Control", "private, max-age=0, must-revalidate"),
            ("Vary", "Accept-Encoding, Cookie"),
            ("ETag", '"5d8c72a5edda8d6a5f7a3c1b"'),
            ("X-Frame-Options", "DENY"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("Content-Language", "en"),
            (
                "Set-Cookie",
                "sessionid=3t9vq6mhc2kq9x0z5w1y7r8u4p6s2n1b; HttpOnly; Path=/; SameSite=Lax",
            ),
        ],
    )
    return [BODY]
