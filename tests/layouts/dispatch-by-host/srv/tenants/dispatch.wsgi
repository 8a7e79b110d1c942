def tenant(environ):
    host = environ.get("HTTP_HOST", "").partition(":")[0]
    return host.removesuffix(".tenants.example") if host.count(".") > 1 else ""


def process_group(environ):
    return "tenants-b" if tenant(environ) > "m" else None


def application_group(environ):
    return "%{GLOBAL}" if tenant(environ) == "" else f"tenant-{tenant(environ)}"


def callable_object(environ):
    if tenant(environ) == "evil":
        raise LookupError("this tenant has not paid")
    return "shop" if environ["PATH_INFO"].startswith("/shop") else "application"
