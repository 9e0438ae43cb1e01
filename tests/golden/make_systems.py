"""Write tests/golden/systems.json: a short run of every system, as training/test_golden_systems.py makes it."""

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "helpers"))

from golden_systems import golden_run  # noqa: E402

from speak_neuro.common.provenance import device_name, package_versions  # noqa: E402
from speak_neuro.config import SYSTEMS  # noqa: E402

COMMAND = "OMP_NUM_THREADS=1 python tests/golden/make_systems.py"


def main() -> None:
    torch.set_num_threads(1)
    made = {"command": COMMAND, "device": device_name(), "versions": package_versions()}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in made.items()]
    runs = ",\n".join(f"  {json.dumps(kind)}: {json.dumps(golden_run(kind))}" for kind in SYSTEMS)
    text = "{\n" + ",\n".join(lines) + f',\n "runs": {{\n{runs}\n }}\n}}\n'
    (HERE / "systems.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
