"""Answers requests of against.py on standard input: the processor time of a call, repeated for so many seconds.

Nothing of this package is imported here: the contenders bring the package of their own checkout.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path


def serve(path: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    sys.path.insert(0, str(Path(path).parent))
    spec = importlib.util.spec_from_file_location("contenders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runs = module.contenders()
    for run in runs.values():
        run()
    print(json.dumps(list(runs)), file=answers, flush=True)
    for line in sys.stdin:
        name, least = json.loads(line)
        began, calls = time.process_time(), 0
        while not calls or time.process_time() - began < least:
            runs[name]()
            calls += 1
        print((time.process_time() - began) / calls, file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
