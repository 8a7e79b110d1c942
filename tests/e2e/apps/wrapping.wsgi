"""Events whose subscribers change what they are told, or fail."""

import json
import sys

import mod_wsgi
import support


def wrapped(application, name):
    def middleware(environ, start_response):
        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Wrapped", name)], exc_info)

        return application(environ, start)

    return middleware


@mod_wsgi.subscribe_events
def wrap_first(name, *, application_object=None, **event):
    if name == "request_started":
        return {"application_object": wrapped(application_object, "first"), "more": "from first"}


@mod_wsgi.subscribe_events
def wrap_second(name, *, application_object=None, **event):
    if name == "request_started":
        assert event["more"] == "from first"
        return {"application_object": wrapped(application_object, "second")}


@mod_wsgi.subscribe_events
def fail(name, *, request_environ=None, response_headers=None, **event):
    if name == "process_stopping":
        return
    path = request_environ["PATH_INFO"] if request_environ else event["request_data"].get("path")
    event["request_data"]["path"] = path
    if path == "/failing":
        raise ArithmeticError(f"in {name}")
    if path == "/exiting":
        sys.exit(1)
    if path == "/headers" and name == "response_started":
        response_headers.append(("X-Added", "by an event"))


# Without subscribe_events, as programs do that mind to be called once only.
mod_wsgi.event_callbacks.append(lambda name, **event: SEEN.append(name))
SEEN = []


def unsubscribing(name, **event):
    """Takes itself away while the list is gone through."""
    mod_wsgi.event_callbacks.remove(unsubscribing)
    SEEN.append("once")


mod_wsgi.event_callbacks.insert(0, unsubscribing)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/unsubscribe":
        mod_wsgi.event_callbacks = []
    return support.answer(start_response, json.dumps(SEEN))
