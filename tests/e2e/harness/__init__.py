"""A real httpd per test configuration, its error log accounted for line by line.

* :mod:`harness.paths`: where httpd, the module under test and the applications are.
* :mod:`harness.config`: the configuration text of one server.
* :mod:`harness.server`: :class:`~harness.server.Httpd`, start, stop, restart, left-over check.
* :mod:`harness.errorlog`: which lines of the error log a test has announced.
* :mod:`harness.client`: HTTP over a raw socket, for exact bytes and exact times.
* :mod:`harness.websocket`: WebSockets on such a socket, frame by frame.
* :mod:`harness.websocket_client`: the client of the ``websockets`` package.
* :mod:`harness.http2`: HTTP/2 frame by frame, and WebSockets in its streams.
* :mod:`harness.curl`: HTTP/2 through curl.
"""
