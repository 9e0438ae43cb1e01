"""Write tests/golden/loss_curve.json: the losses of the first 50 steps of training/test_trainer.py's configuration."""

import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = "python tests/golden/make_loss_curve.py"


def main() -> None:
    spec = importlib.util.spec_from_file_location("test_trainer", HERE.parent / "training" / "test_trainer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ("step", "loss_lm", "loss_mem", "loss_reset", "sf")
    curve = [{name: round(record[name], 6) for name in names} for record in module.curve()]
    lines = ",\n".join("  " + json.dumps(record) for record in curve)
    (HERE / "loss_curve.json").write_text(f'{{"command": "{COMMAND}", "curve": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
