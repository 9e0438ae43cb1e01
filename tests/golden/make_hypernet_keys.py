"""Names and shapes of ZeTT's hypernetwork for XLM-R, from transformers' own RobertaModel and what is put around it.

python tests/golden/make_hypernet_keys.py
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn
from transformers import RobertaConfig, RobertaModel

HIDDEN, INNER, WIDTH, LANGUAGES, FALLBACKS = 768, 1536, 768, 26, 161


def projector(name: str) -> dict[str, list[int]]:
    shapes = {"dense1.weight": [INNER, HIDDEN], "dense1.bias": [INNER], "dense2.weight": [HIDDEN, INNER]}
    shapes |= {"dense2.bias": [HIDDEN], "ln.weight": [HIDDEN], "ln.bias": [HIDDEN]}
    return {f"{name}.{part}": shape for part, shape in shapes.items()}


def main() -> None:
    config = RobertaConfig(
        vocab_size=2,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=3,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    model = nn.ModuleDict({"model": RobertaModel(config, add_pooling_layer=False)})
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    shapes |= projector("input_projection.1") | projector("output_projection.0")
    for name, out, into in (("input_projection.0", HIDDEN, WIDTH), ("output_projection.1", WIDTH, HIDDEN)):
        shapes |= {f"{name}.weight": [out, into], f"{name}.bias": [out]}
    shapes |= {f"{name}.{part}": [1, WIDTH] for name in ("in_scaler", "scaler") for part in "wb"}
    shapes |= {"bias_projection.weight": [1, HIDDEN], "bias_projection.bias": [1]}
    shapes |= {"lang_embeddings.weight": [LANGUAGES, HIDDEN], "fallback_embeddings.weight": [FALLBACKS, WIDTH]}
    path = Path(__file__).with_name("hypernet_keys.json")
    path.write_text(json.dumps(dict(sorted(shapes.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
