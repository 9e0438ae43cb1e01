"""What the pages on networks show is run: their Python, the proposal's reference and test vectors, the notebook."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["howto-neuron.md", "howto-networks.md"])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert blocks
    for code in blocks:
        exec(compile(code, page, "exec"), {"__name__": "documentation"})


def test_the_proposal_means_what_the_package_does() -> None:
    """The page's reference gives the page's test vectors, and so does the package's neuron."""
    from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run

    text = (ROOT / "docs" / "nir-proposal.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(BLOCK.findall(text)[0], "nir-proposal.md", "exec"), names)
    rows = re.findall(r"^\| (\d) \| (\S+) \| (\S+) \| (\S+) \| (\d) \| (\S+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    values = {"decay": 1, "gain": 1, "v_threshold": 1, "v_reset": 0, "reset_scale": 0.8, "gate_threshold": 0}
    fields = {name: np.array([value], dtype=np.float32) for name, value in values.items()}
    current, logit, u, z, v = (np.array([[float(row[i]) for row in rows]], dtype=np.float32) for i in range(1, 6))
    run = gated_lif_run(current, logit, NeuronParameters(reset_scale=0.8))
    assert np.array_equal(run.spikes, z > 0)
    np.testing.assert_allclose(run.membrane, u, rtol=1e-6)
    state = fields["v_reset"]
    for t in range(6):
        fired, state = names["step"](fields, current[:, t], logit[:, t], state)
        assert fired[0] == run.spikes[0, t]
        np.testing.assert_allclose(state, v[:, t], rtol=1e-6)


@pytest.mark.lava
@pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed (Python 3.10 only)")
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_and_its_outputs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "networks.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    kept = "".join(text for cell in cells for output in cell["outputs"] for text in output["text"])
    for text in (said, kept):  # the cells themselves assert that nothing differs
        assert text.count("neuron level: equal") == 2
        assert "norse     largest difference 0" in text or "norse" not in text
