"""All parts of a run from the names that the command line gives: encoder, embeddings, tokenizer, tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import RTokConfig
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.pretrained.embedder import CachedEmbedder, FvtEmbedder, HypernetEmbedder
from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder, load_encoder
from speak_neuro.rtok.pretrained.hypernet import ZettHypernet
from speak_neuro.rtok.pretrained.lora import with_lora
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.tasks.task import Task
from speak_neuro.rtok.text.segmenter import Segmenter
from speak_neuro.rtok.tokenizers.baselines import baseline, check_embedder
from speak_neuro.rtok.tokenizers.sentencepiece import SentencePieceSegmenter
from speak_neuro.rtok.training.finetune import FineTuner
from speak_neuro.rtok.training.joint import JointTokenizer
from speak_neuro.rtok.training.masked_head import load_masked_head


@dataclass
class Parts:
    """What a run consists of."""

    tuner: FineTuner
    evaluation: Segmenter
    """The tokenizer that is scored."""
    encoder: PretrainedEncoder
    merges: int | None
    entropy: str | None
    trained: int
    """Parameters of LoRA and classifier."""


def assemble(
    task: Task,
    tokenizer: str,
    model: str,
    embedder: str,
    config: RTokConfig,
    examples: Sequence[Example],
    select: Sequence[Example],
    mimic: Sequence[Sequence[str]],
    train_name: str,
    device: torch.device,
    unigrams: SentencePieceSegmenter | None = None,
    start: Path | None = None,
) -> Parts:
    """Load and build everything; raises SpeakError before anything is trained."""
    encoder = load_encoder(model)
    encoder.model.to(device)
    if config.training.longest > encoder.longest:
        raise SpeakError(f"--longest is {config.training.longest}; allowed with {model}: at most {encoder.longest}")
    pieces = ByteUnigram(encoder.pieces)
    embeddings = build_embedder(embedder, encoder, pieces, device)
    torch.manual_seed(config.training.seed)
    tuned = with_lora(encoder.model, encoder.width, len(task.labels), task.per_word, config.lora).to(device)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    joint, entropy, merges = None, None, None
    training: Segmenter
    evaluation: Segmenter
    if tokenizer == "speak":
        head = None if config.speak.entropy == "task_head" else load_masked_head(model, encoder)
        if head is None and config.speak.entropy == "mlm_onepass":
            raise SpeakError(f"--entropy is 'mlm_onepass', but {model} has no masked-language head; use task_head")
        entropy = "task_head" if head is None else "mlm_onepass"
        joint = JointTokenizer.create(
            examples,
            encoder.pieces.segment,
            config.neuron,
            config.speak,
            config.training.seed,
            mimic,
            None if head is None else head.to(device).entropy,
            start,
        )
        training = evaluation = joint.segmenter()
    else:
        found = baseline(tokenizer, pieces, select, config.training.batch, config.training.seed, unigrams)
        training, evaluation, merges = found.training, found.evaluation, found.merges
    language = task.language(train_name)
    tuner = FineTuner.create(task, tuned, embeddings, training, examples, language, config.training, device, joint)
    return Parts(tuner, evaluation, encoder, merges, entropy, trained)


def build_embedder(name: str, encoder: PretrainedEncoder, pieces: ByteUnigram, device: torch.device) -> CachedEmbedder:
    """The embeddings called `fvt` or `zett:SOURCE`, with a cache for the run."""
    source = check_embedder(name)
    if source is None:
        return CachedEmbedder(FvtEmbedder(encoder, pieces, device))
    return CachedEmbedder(HypernetEmbedder(ZettHypernet.load(source), encoder, pieces, device))
