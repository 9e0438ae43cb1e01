"""ZeTT's hypernetwork: the embedding of any token, from the pieces that it consists of.

    x_i = in_scale e_i + in_shift                      e_i the encoder's embedding of piece i of the token
        = fallback_j                                   for byte j that is no piece
    h_i = P(x_i) + type + position_i                   P a linear layer and a projector;  i = 0, ..., M - 1, M up to 7
    h_M = the language's vector
    z   = RoBERTa blocks (LayerNorm(h))_0              attention over the pieces and the language, not over padding
    embedding = out_scale Q(z) + out_shift             Q a projector and a linear layer
    projector(x) = LayerNorm(gelu(W2 gelu(W1 x)) + x)  gelu by tanh;  in the blocks gelu by erf

Names of the weights are those of the published checkpoints (config.json, model.safetensors), whose own Python code is
not run. Frozen, in float32: no gradient reaches the hypernetwork or the embeddings it reads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn
from torch.nn import functional

from speak_neuro.common.files import atomic_write, utf8_path, write_json
from speak_neuro.common.json_text import parse_json
from speak_neuro.common.regular import read_whole
from speak_neuro.common.tensors import check_tensors
from speak_neuro.errors import SpeakError, first_line

CONFIG = "config.json"
MODEL = "model.safetensors"
LANGUAGES = tuple("en ru de es fr it pt el ko fi id tr ar vi bg ca hi et bn ta ur sw te eu ht qu".split())
"""Of the published checkpoint for XLM-R, in the order of its language vectors."""
UNUSED = "model.embeddings.word_embeddings.weight"
"""A remainder in the checkpoints; nothing reads it."""
_SWITCHES = {
    "hn_embed_using_source_embeddings": True,
    "hn_embed_target_priors": False,
    "hn_add_inter_token_attention": False,
    "hn_concat_last_hidden_state": False,
    "separate_out_embeddings": False,
}
"""What each has to be; off where config.json does not name it."""
_BUFFERS = ("position_ids", "token_type_ids")  # that old versions of transformers saved


@dataclass(frozen=True)
class HypernetConfig:
    """Sizes, by their names in config.json; what is not there has the default of the published configuration class."""

    hn_hidden_size: int
    hn_intermediate_size: int
    original_vocab_size: int
    hn_n_extra_tokens: int
    pad_token_id: int
    n_langs: int = 0
    n_embd: int = 768
    hn_n_layers: int = 3
    hn_surface_maxlen: int = 16
    hn_num_attention_heads: int = 0
    """0: one for 64 numbers of the hidden size."""
    hn_rescale_embeddings: bool = False
    hn_embed_lang_id: bool = False
    hn_predict_bias: bool = True
    langs: tuple[str, ...] = LANGUAGES

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.hn_num_attention_heads or self.hn_hidden_size // 64

    @classmethod
    def read(cls, path: Path) -> HypernetConfig:
        """Read config.json; switches that are not implemented are refused by name, other fields are ignored."""
        try:
            values = parse_json(read_whole(path, "restore it"), str(path), "restore it")
        except FileNotFoundError:
            raise SpeakError(
                f"{path}: no such file; name a folder with {CONFIG} and {MODEL} of a ZeTT checkpoint"
            ) from None
        if not isinstance(values, dict):
            raise SpeakError(f"{path}: holds no object; restore it")
        kind = values.get("hn_model_type", "roberta")
        if kind != "roberta":
            raise SpeakError(f"{path}: hn_model_type is {kind!r}; supported: 'roberta'")
        for name in _SWITCHES:
            if bool(values.get(name, False)) is not _SWITCHES[name]:
                supported = str(_SWITCHES[name]).lower()
                raise SpeakError(f"{path}: {name} is {values.get(name)!r}; supported: {supported}, as for XLM-R")
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        for field in fields(cls):
            value = known.get(field.name, field.default)
            kinds = {"int": int, "bool": bool}.get(str(field.type))
            if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool)):
                found = "missing" if field.name not in known else f"{value!r}"
                raise SpeakError(f"{path}: {field.name} is {found}; allowed: {field.type}")
        if "langs" in known:
            known["langs"] = tuple(map(str, known["langs"]))
        config = cls(**known)
        if config.hn_embed_lang_id and len(config.langs) != config.n_langs:
            raise SpeakError(
                f"{path}: n_langs is {config.n_langs}, langs names {len(config.langs)}; both have to agree"
            )
        if min(config.heads, config.hn_n_layers, config.n_embd) < 1 or config.hn_hidden_size % config.heads:
            raise SpeakError(f"{path}: hn_hidden_size is {config.hn_hidden_size}; allowed: a multiple of the heads")
        return config


class ZettHypernet(nn.Module):
    """Weights and forward pass."""

    def __init__(self, config: HypernetConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inner, width = config.hn_hidden_size, config.hn_intermediate_size, config.n_embd
        if config.hn_embed_lang_id:
            self.lang_embeddings = nn.Embedding(config.n_langs, hidden)
        self.model = _blocks(config)
        self.fallback_embeddings = nn.Embedding(max(config.hn_n_extra_tokens, 1), width)
        self.input_projection = nn.Sequential(nn.Linear(width, hidden), _Projector(hidden, inner))
        self.output_projection = nn.Sequential(_Projector(hidden, inner), nn.Linear(hidden, width))
        if config.hn_rescale_embeddings:
            self.in_scaler = _Scaler(width)
            self.scaler = _Scaler(width)
        if config.hn_predict_bias:  # of a language model's head; nothing here reads it
            self.bias_projection = nn.Linear(hidden, 1)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, forms: Tensor, source: Tensor, language: int) -> Tensor:
        """(N, M) ids of pieces padded with `pad_token_id`, the embeddings (V, D) -> (N, D).

        Columns of padding alone are cut off first, so they change no bit.
        """
        config = self.config
        mask = forms != config.pad_token_id
        longest = int(mask.sum(dim=1).max()) if len(forms) else 0
        forms, mask = forms[:, :longest], mask[:, :longest]
        fallback = forms >= config.original_vocab_size
        x = functional.embedding(forms.clamp(max=config.original_vocab_size - 1), source)
        if config.hn_rescale_embeddings:
            x = self.in_scaler(x)
        bytes_ = self.fallback_embeddings((forms - config.original_vocab_size).clamp(min=0))
        x = self.input_projection(torch.where(fallback[..., None], bytes_, x))
        if config.hn_embed_lang_id:
            # The model adds type and position, which the language's vector has none of.
            placed = self.model.embeddings
            added = placed.token_type_embeddings.weight[0] + placed.position_embeddings.weight[longest]
            vector = self.lang_embeddings.weight[language] - added
            x = torch.cat([x, vector.expand(len(x), 1, -1)], dim=1)
            mask = functional.pad(mask, (0, 1), value=True)
        # Positions 0, 1, ...: not behind the padding's, where RoBERTa begins.
        positions = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        hidden = self.model(inputs_embeds=x, attention_mask=mask.long(), position_ids=positions).last_hidden_state
        y = self.output_projection(hidden[:, 0])
        if config.hn_rescale_embeddings:
            y = self.scaler(y)
        predicted: Tensor = y
        return predicted

    def language(self, code: str) -> int:
        """The index of a language's vector."""
        if not self.config.hn_embed_lang_id:
            return 0
        if code not in self.config.langs:
            known = " ".join(self.config.langs)
            raise SpeakError(
                f"language is {code!r}; allowed with this hypernetwork: {known}; the embedder fvt needs no language"
            )
        return self.config.langs.index(code)

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> ZettHypernet:
        """Read a folder with config.json and model.safetensors, or a hub id."""
        folder = Path(source)
        if not folder.is_dir():
            folder = _from_hub(str(source))
        config = HypernetConfig.read(folder / CONFIG)
        network = cls(config)
        if not (folder / MODEL).is_file():
            raise SpeakError(f"{folder / MODEL}: no such file; weights are read from safetensors alone")
        try:
            with utf8_path(folder / MODEL) as name:
                tensors = load_file(name)
        except SafetensorError as error:
            raise SpeakError(f"{folder / MODEL}: not a whole safetensors file ({error}); fetch it again") from None
        expected = network.state_dict()
        found = {name: value for name, value in tensors.items() if not name.endswith(_BUFFERS)}
        if UNUSED not in found or found[UNUSED].shape != expected[UNUSED].shape:
            found[UNUSED] = expected[UNUSED]
        check_tensors(expected, found, folder / MODEL, f"the file does not fit its {CONFIG}", "fetch it again")
        network.load_state_dict({name: value.float() for name, value in found.items()})
        return network

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what `load` reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {field.name: getattr(self.config, field.name) for field in fields(self.config)}
        kind = {"model_type": "zett_hypernetwork", "hn_model_type": "roberta"}
        write_json(Path(folder) / CONFIG, {**kind, **_SWITCHES, **values})
        with atomic_write(Path(folder) / MODEL) as stream:
            stream.write(serialised({name: value.cpu().contiguous() for name, value in self.state_dict().items()}))


class _Scaler(nn.Module):
    """w x + b, number by number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, width))
        self.b = nn.Parameter(torch.zeros(1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x + self.b


class _Projector(nn.Module):
    """LayerNorm(gelu(W2 gelu(W1 x)) + x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, inner)
        self.dense2 = nn.Linear(inner, width)
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(self.dense1(x), approximate="tanh")
        out: Tensor = self.ln(functional.gelu(self.dense2(inner), approximate="tanh") + x)
        return out


def _blocks(config: HypernetConfig) -> Any:
    """RoBERTa with the checkpoint's sizes: what reads the pieces of a token."""
    from transformers import RobertaConfig, RobertaModel

    sizes = RobertaConfig(
        vocab_size=config.pad_token_id + 1,
        pad_token_id=config.pad_token_id,
        hidden_size=config.hn_hidden_size,
        intermediate_size=config.hn_intermediate_size,
        num_hidden_layers=config.hn_n_layers,
        num_attention_heads=config.heads,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    return RobertaModel(sizes, add_pooling_layer=False)


def _from_hub(source: str) -> Path:
    from speak_neuro.rtok.pretrained.encoder import require_transformers

    require_transformers()
    from transformers.utils.hub import cached_file

    try:
        for name in (MODEL, CONFIG):
            path = cached_file(source, name)
        return Path(path).parent
    except (OSError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise SpeakError(
            f"{source}: no such folder, nor to be had from the hub ({reason}); name a local folder with {CONFIG} and "
            f"{MODEL} of a ZeTT checkpoint, or use the embedder fvt, which needs none"
        ) from None
