def allow_access(environ, host):
    # The visitor's guide says what he is; no header, no opinion.
    return {"yes": True, "no": False}.get(environ.get("HTTP_X_LAN"))
