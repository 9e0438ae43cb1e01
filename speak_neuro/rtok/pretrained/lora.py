"""The tuned model: a frozen encoder with LoRA on query and value, and a classifier on top.

    h = encoder(inputs_embeds, mask)     (B, T, D)
    logits = classifier(h)               (B, T, C)      a word's at its first token, a pair's at <s>
    W x  becomes  W x + (alpha / r) B A x               for W in {query, value}; A and B are trained, W is not

The classifier is that of the library's XLM-R models: dropout and one layer for words, a tanh layer before it for pairs.
It gives logits at every position, so the entropy of its distribution is there at every token.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speak_neuro.common.extras import extra
from speak_neuro.common.tensors import check_tensors
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import LoraSettings

TARGETS = ["query", "value"]


class Classifier(nn.Module):
    """(B, T, D) hidden states to (B, T, C) logits."""

    def __init__(self, width: int, labels: int, per_word: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = None if per_word else nn.Linear(width, width)
        self.output = nn.Linear(width, labels)
        for layer in (self.dense, self.output):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.dropout(hidden)
        if self.dense is not None:
            hidden = self.dropout(torch.tanh(self.dense(hidden)))
        logits: Tensor = self.output(hidden)
        return logits


class TaskModel(nn.Module):
    """An encoder that takes embeddings, with a classifier at every position."""

    def __init__(self, encoder: nn.Module, width: int, labels: int, per_word: bool, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = Classifier(width, labels, per_word, dropout)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) embeddings and (B, T) mask -> (B, T, C) logits in float32."""
        hidden = self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        logits: Tensor = self.classifier(hidden).float()
        return logits


def peft() -> Any:
    """The library."""
    return extra("peft", "speak-neuro[hf]")


def with_lora(encoder: nn.Module, width: int, labels: int, per_word: bool, lora: LoraSettings) -> Any:
    """A `PeftModel` around a fresh `TaskModel`; the encoder is copied, LoRA's layers go into the copy."""
    library = peft()
    model = TaskModel(copy.deepcopy(encoder), width, labels, per_word)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.encoder.named_modules()}
    if not names.issuperset(TARGETS):
        raise SpeakError(f"the encoder has no layers {' and '.join(TARGETS)}; use a BERT, RoBERTa or XLM-R model")
    settings = library.LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=TARGETS,
        modules_to_save=["classifier"],
        bias="none",
    )
    return library.get_peft_model(model, settings)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: LoRA's matrices and the classifier."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


@torch.no_grad()
def load_trained(model: nn.Module, tensors: dict[str, Tensor], where: str | Path) -> None:
    """Put back what `trained_tensors` gave; exactly its names and shapes."""
    own = trained_tensors(model)
    check_tensors(own, tensors, where)
    for name, value in tensors.items():
        own[name].copy_(value)


def save_adapter(model: Any, folder: Path) -> None:
    """Write LoRA and classifier as peft does: adapter_config.json and adapter_model.safetensors."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def load_adapter(encoder: nn.Module, width: int, labels: int, per_word: bool, folder: Path) -> Any:
    """The tuned model of a folder that `save_adapter` wrote, in evaluation mode."""
    if not (folder / "adapter_config.json").is_file():
        raise SpeakError(f"{folder}: holds no adapter_config.json; name the folder `best` of a finished run")
    model = TaskModel(copy.deepcopy(encoder), width, labels, per_word)
    return peft().PeftModel.from_pretrained(model, folder).eval()
