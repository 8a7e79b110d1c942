import os
import signal

with open(os.path.join(os.path.dirname(__file__), "data", "pid"), "w") as stream:
    stream.write(str(os.getpid()))
try:
    while True:
        signal.pause()
finally:
    with open(os.path.join(os.path.dirname(__file__), "data", "ended"), "w") as stream:
        stream.write("ended")
