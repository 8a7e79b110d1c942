def application(environ, start_response):
    raise RuntimeError("never called: ExecCGI is off")
