"""A process that owns a sandbox, for tests that kill it: `python sandbox_owner.py BACKEND idle|busy`."""

from __future__ import annotations

import sys
import threading
import time

from sandbox import Job, Limits, open_sandbox


def main(backend: str, state: str) -> None:
    sandbox = open_sandbox(backend, workers=2)
    hello = Job(argv=("python", "m.py"), files={"m.py": b"import time\ntime.sleep(0.3)\nprint(1)"})
    wild = (
        b"import os, time\nos.fork() or os.setsid()\nfor _ in range(2): os.fork()\nopen('/tmp/x', 'w')\ntime.sleep(60)"
    )
    long = Job(argv=("python", "m.py"), files={"m.py": wild}, limits=Limits(wall_seconds=100))
    threads = [threading.Thread(target=sandbox.run, args=(hello,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if state == "busy":
        for _ in range(2):
            threading.Thread(target=sandbox.run, args=(long,), daemon=True).start()
        time.sleep(0.5)
    print("ready", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
