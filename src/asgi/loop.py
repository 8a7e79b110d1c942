"""The part of the ASGI server that is better said in Python: event loops and lifespans.

Executed once in every interpreter that serves ASGI, in a namespace of its own. The functions are
called by the gateway, by name.
"""

import asyncio
import contextvars
import sys
import threading
import time

ASGI = {"version": "3.0", "spec_version": "2.4"}
LIFESPAN = {"version": "3.0", "spec_version": "2.0"}
HTTP_EXTENSIONS = {"http.response.pathsend": {}, "http.response.early_hint": {}}
WEBSOCKET_EXTENSIONS = {"websocket.http.response": {}}


def new_loop(use_uvloop):
    """A new event loop, and why it is not the one that was asked for."""
    problem = None
    if use_uvloop:
        try:
            import uvloop

            loop = uvloop.new_event_loop()
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            loop = asyncio.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    return loop, problem


def run(loop, descriptor, ready, log):
    """Runs the loop until it is stopped; `ready` is called whenever the descriptor is readable."""
    threading.current_thread().name = "rwsgi-loop"
    asyncio.set_event_loop(loop)
    loop.add_reader(descriptor, ready)
    end = _ends[loop] = loop.create_future()
    # Libraries (anyio) look for the task that the loop runs for; it ends when that ends.
    root = loop.create_task(_wait_for(end))
    while not root.done():
        try:
            loop.run_until_complete(root)
        except (SystemExit, KeyboardInterrupt) as error:
            # Of a task: no business of the server's.
            what = type(error).__name__
            log(f"a task raised {what}, which ends neither the event loop nor the process")
        except BaseException as error:
            log(f"the event loop was left by {type(error).__name__}: {error}; it goes on")
            # Whatever that was, it may come again at once.
            time.sleep(0.1)
    del _ends[loop]
    loop.remove_reader(descriptor)


async def _wait_for(end):
    await end


# What ends a loop.
_ends = {}


def stop(loop):
    """Ends `run`; called on the loop's thread."""
    if not _ends[loop].done():
        _ends[loop].set_result(None)


def finish(loop, seconds):
    """What is left in a loop that has been stopped is cancelled, and it is closed."""
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), seconds))
    finally:
        asyncio.set_event_loop(None)
        if not [task for task in tasks if not task.done()]:
            loop.close()


class Lifespan:
    """The lifespan of one application: `startup` and `shutdown`, each at most once.

    `mode` is 0 (Auto), 1 (On) or 2 (Off). `started(problem, lines)` is called when requests may
    begin: `problem` is None, or a str that says why the application cannot serve.
    """

    def __init__(self, loop, application, mode, started, format_exception):
        self.loop = loop
        self.application = application
        self.mode = mode
        self.started = started
        self.format_exception = format_exception
        self.state = {}
        self.messages = asyncio.Queue() if sys.version_info >= (3, 10) else asyncio.Queue(loop=loop)
        self.supported = False
        self.start_told = False
        # Requests do not inherit what the application sets in its lifespan.
        self.context = contextvars.copy_context()
        self.shutdown_done = loop.create_future()
        self.task = None

    def start(self):
        if self.mode == 2:
            self._tell(None)
            return
        self.messages.put_nowait({"type": "lifespan.startup"})
        self.task = self.loop.create_task(self._run())

    def _tell(self, problem, lines=()):
        if not self.start_told:
            self.start_told = True
            # Not in the lifespan's own task: requests are begun there.
            self.loop.call_soon(self.started, problem, list(lines), context=self.context)

    async def _run(self):
        scope = {"type": "lifespan", "asgi": dict(LIFESPAN), "state": self.state}
        try:
            await self.application(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._tell("its lifespan was cancelled")
        except BaseException as error:
            if self.start_told and self.supported:
                self._end("the lifespan raised", error)
            elif self.mode == 1:
                self._tell("its lifespan raised", self.format_exception(error))
            else:
                # It does not know lifespans: that is its way to say so.
                self._tell(None)
        else:
            if self.mode == 1 and not self.start_told:
                self._tell("its lifespan ended without lifespan.startup.complete")
            self._tell(None)
        self.supported = False
        if not self.shutdown_done.done():
            self.shutdown_done.set_result(None)

    def _end(self, what, error):
        if not self.shutdown_done.done():
            self.shutdown_done.set_result((what, self.format_exception(error)))

    async def _receive(self):
        return await self.messages.get()

    async def _send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.supported = True
            self._tell(None)
        elif kind == "lifespan.startup.failed":
            text = message.get("message", "") or "lifespan.startup.failed"
            lines = [line.encode("utf-8", "replace") for line in text.splitlines()]
            self._tell("its startup failed", lines)
        elif kind == "lifespan.shutdown.complete":
            if not self.shutdown_done.done():
                self.shutdown_done.set_result(None)
        elif kind == "lifespan.shutdown.failed":
            text = message.get("message", "") or "lifespan.shutdown.failed"
            lines = [line.encode("utf-8", "replace") for line in text.splitlines()]
            if not self.shutdown_done.done():
                self.shutdown_done.set_result(("lifespan.shutdown.failed", lines))
        else:
            raise RuntimeError(f"unexpected message {kind!r} in a lifespan")

    def shutdown(self, seconds, ended):
        """Ends the application; `ended(problem, lines)` is called once, after `seconds` at most."""
        if not self.supported or self.task is None or self.task.done():
            if self.task is not None and not self.task.done():
                self.task.cancel()
            self.loop.call_soon(ended, None, [], context=self.context)
            return
        self.messages.put_nowait({"type": "lifespan.shutdown"})
        self.loop.create_task(self._shut_down(seconds, ended))

    async def _shut_down(self, seconds, ended):
        try:
            problem = await asyncio.wait_for(asyncio.shield(self.shutdown_done), seconds)
        except asyncio.TimeoutError:
            problem = (f"lifespan.shutdown took longer than {seconds:g} s", [])
            self.task.cancel()
        what, lines = problem or (None, [])
        self.loop.call_soon(ended, what, lines, context=self.context)
