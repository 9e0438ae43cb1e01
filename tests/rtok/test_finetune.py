"""The tuned model and its loop: LoRA, saving, learning, scores, exact resume; with SPEAK learning beside it."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rtok_task_fixtures import WIDTH, EveryN, HashEmbedder, tiny_encoder

pytest.importorskip("peft", reason="needs peft: pip install 'speak-neuro[hf]'")

from speak_neuro.config import NeuronConfig
from speak_neuro.errors import SpeakError
from speak_neuro.rtok.config import LoraSettings, SpeakTraining, TaskTraining
from speak_neuro.rtok.pretrained.lora import load_adapter, load_trained, save_adapter, trained_tensors, with_lora
from speak_neuro.rtok.tasks import uner, xnli
from speak_neuro.rtok.tasks.examples import Example
from speak_neuro.rtok.tasks.task import TASKS
from speak_neuro.rtok.training.finetune import FineTuner, evaluate, train_step
from speak_neuro.rtok.training.joint import JointTokenizer, token_entropies

GOLDEN = Path(__file__).parents[1] / "golden"
LORA = LoraSettings(lora_rank=4, lora_alpha=8, lora_dropout=0.1)


def examples(task: str) -> list[Example]:
    if task == "uner":
        return uner.load(GOLDEN / "uner", "en_ewt", "train")
    return xnli.load(GOLDEN / "xnli", "en", "train")


def model_of(task: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return with_lora(tiny_encoder(), WIDTH, len(TASKS[task].labels), TASKS[task].per_word, LORA)


def pieces(unit: str) -> list[str]:
    """An exemplar: each vowel but a first one begins a piece."""
    starts = [0, *(at for at, character in enumerate(unit) if at > 1 and character in "aeiou"), len(unit)]
    return [unit[a:b] for a, b in pairwise(starts)]


def tuner_of(task: str, speak: bool = False, **changes: Any) -> FineTuner:
    config = TaskTraining(**{"epochs": 4, "batch": 4, "learning_rate": 1e-2, **changes})
    data = examples(task)
    joint = None
    if speak:
        settings = SpeakTraining(encoder_width=16, tokenizer_learning_rate=1e-2, entropy_share=0.5)
        torch.manual_seed(1)
        joint = JointTokenizer.create(data, pieces, NeuronConfig(), settings, 5, [["▁quiet", "▁rain"], ["▁o▁i"]])
    device = torch.device("cpu")
    return FineTuner.create(TASKS[task], model_of(task), HashEmbedder(), EveryN(), data, "en", config, device, joint)


def test_what_is_trained_is_lora_and_the_classifier() -> None:
    names = set(trained_tensors(model_of("uner")))
    assert all("lora_" in name or "classifier" in name for name in names)
    assert sum("lora_A" in name for name in names) == 4
    assert {n.split(".")[-4] for n in names if "lora_A" in n} == {"query", "value"}
    assert any("classifier" in name for name in names)


@pytest.mark.parametrize("task", ["uner", "xnli"])
def test_an_adapter_comes_back_whole(task: str, tmp_path: Path) -> None:
    model = model_of(task)
    with torch.no_grad():
        for value in trained_tensors(model).values():
            value.add_(torch.randn_like(value))
    save_adapter(model, tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    back = load_adapter(tiny_encoder(), WIDTH, len(TASKS[task].labels), TASKS[task].per_word, tmp_path)
    embeddings, mask = torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.int64)
    assert torch.equal(back(embeddings, mask), model.eval()(embeddings, mask))


def test_tensors_of_another_model_are_refused() -> None:
    model = model_of("uner")
    tensors = trained_tensors(model_of("xnli"))
    with pytest.raises(SpeakError, match=r"state: tensor .* is unknown"):
        load_trained(model, tensors, "state")
    name = next(iter(trained_tensors(model)))
    with pytest.raises(SpeakError, match=rf"state: tensor {name} has shape \(1,\)"):
        load_trained(model, {**trained_tensors(model), name: torch.zeros(1)}, "state")


def test_an_encoder_without_query_and_value_is_refused() -> None:
    with pytest.raises(SpeakError, match="has no layers query and value"):
        with_lora(torch.nn.Linear(2, 2), 2, 3, True, LORA)


def test_a_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match=r"holds no adapter_config.json"):
        load_adapter(tiny_encoder(), WIDTH, 7, True, tmp_path)


@pytest.mark.parametrize("task", ["uner", "xnli"])
def test_it_learns_a_dozen_examples(task: str) -> None:
    tuner = tuner_of(task, epochs=30, learning_rate=2e-2)
    before = evaluate(tuner, tuner.examples, "en")
    records = [train_step(tuner) for _ in range(tuner.steps)]
    after = evaluate(tuner, tuner.examples, "en")
    assert np.mean([r["loss"] for r in records[-6:]]) < 0.7 * np.mean([r["loss"] for r in records[:6]])
    assert after[TASKS[task].score] > max(before[TASKS[task].score], 0.6)
    assert records[-1]["learning_rate"] == pytest.approx(2e-2 / tuner.steps)


def test_the_tokenizer_learns_beside_it() -> None:
    tuner = tuner_of("uner", speak=True, epochs=20, learning_rate=2e-2)
    records = [train_step(tuner) for _ in range(tuner.steps)]
    first, last = (
        {k: np.mean([r[k] for r in part if k in r]) for k in records[9]} for part in (records[:9], records[-9:])
    )
    assert last["loss"] < 0.5 * first["loss"]
    assert last["tokenizer_spike_accuracy"] > first["tokenizer_spike_accuracy"]
    assert 0 < last["accepted"] <= 1
    assert {"tokenizer_loss_membrane", "tokenizer_loss_reset", "tokenizer_gate_rate", "changed"} <= set(last)


def test_the_encoder_stays_and_the_embeddings_get_no_gradient() -> None:
    tuner = tuner_of("uner")
    own = {n: p.clone() for n, p in tuner.bare.named_parameters() if not p.requires_grad}
    for _ in range(3):
        train_step(tuner)
    assert all(torch.equal(p, own[n]) for n, p in tuner.bare.named_parameters() if n in own)


@pytest.mark.parametrize("speak", [False, True])
def test_a_resume_ends_with_the_same_bits(speak: bool) -> None:
    whole = tuner_of("uner", speak)
    for _ in range(7):
        train_step(whole)
    tensors, metadata = whole.snapshot()
    tensors = copy.deepcopy(tensors)
    expected = [train_step(whole) for _ in range(4)]
    again = tuner_of("uner", speak)
    again.restore(tensors, metadata)
    assert [train_step(again) for _ in range(4)] == expected
    for a, b in zip(whole.snapshot()[0].values(), again.snapshot()[0].values(), strict=True):
        assert torch.equal(a, b)


def test_bfloat16_is_near_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        tuner = tuner_of("uner", speak=True, precision=precision)
        losses.append([train_step(tuner)["loss"] for _ in range(3)])
        assert all(p.dtype == torch.float32 for p in tuner.model.parameters())
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert losses[0] != losses[1]


def test_every_example_once_an_epoch() -> None:
    tuner = tuner_of("uner", batch=5)
    assert tuner.steps_per_epoch == 3
    seen = [e.identifier for step in range(3) for e in tuner.rows(step)]
    assert sorted(seen) == list(range(12))
    assert [e.identifier for step in range(3, 6) for e in tuner.rows(step)] != seen


def test_batches_by_length_hold_every_example_once() -> None:
    tuner = tuner_of("uner", batch=5, length_window=2)
    for epoch in range(3):
        parts = tuner.order(epoch)
        assert sorted(map(len, parts)) == [2, 5, 5]
        assert sorted(index for part in parts for index in part) == list(range(12))
    lengths = [[tuner.characters[index] for index in part] for part in tuner.order(0)]
    assert all(part == sorted(part) for part in lengths)
    assert tuner.order(0) != tuner.order(1)
    assert tuner.order(1) == tuner_of("uner", batch=5, length_window=2).order(1)


def test_words_cut_off_count_as_outside() -> None:
    tuner = tuner_of("uner", longest=8)
    found = evaluate(tuner, tuner.examples, "en")
    assert found["words_cut_off"] > 0
    longer = evaluate(tuner_of("uner"), tuner.examples, "en")
    assert longer["words_cut_off"] == 0
    assert longer["average_length"] == found["average_length"]


def test_scores_do_not_depend_on_the_batch() -> None:
    one, twelve = (evaluate(tuner_of("uner", batch=b), examples("uner"), "en") for b in (1, 12))
    assert one == pytest.approx(twelve, abs=1e-5)


def test_a_warm_up_teaches_the_pieces() -> None:
    joint = tuner_of("uner", speak=True).joint
    assert joint is not None
    records: list[dict[str, Any]] = []
    for _ in range(60):
        joint.warm_up(examples("uner"), 4, records.append)
    assert records[0]["warmup_epoch"] == 1
    assert np.mean([r["spike_accuracy"] + r["rest_accuracy"] for r in records[-4:]]) > 1.5


@pytest.mark.parametrize("rule", ["always", "never"])
def test_proxies_follow_the_rule(rule: str) -> None:
    tuner = tuner_of("xnli", speak=True)
    assert tuner.joint is not None
    config = tuner.joint.tokenizer.config
    object.__setattr__(config.training, "acceptance", rule)
    before = tuner.joint.book.tensors()["proxies.bits"].clone()
    for _ in range(2 * tuner.steps_per_epoch):
        train_step(tuner)
    assert torch.equal(before, tuner.joint.book.tensors()["proxies.bits"]) == (rule == "never")


def test_entropies_of_tokens_only() -> None:
    tuner = tuner_of("xnli", speak=True, longest=20)
    assert tuner.joint is not None
    part = tuner.rows(0)
    proposal = tuner.joint.propose(part)
    batch = tuner.batch(tuner.by_text(proposal.tokens, part), part, "en")
    entropy = torch.arange(batch.mask.numel(), dtype=torch.float32).view(batch.mask.shape)
    for row, (found, counts) in enumerate(zip(token_entropies(entropy, batch), batch.counts, strict=True)):
        first = batch.kept[row][0]
        expected = entropy[row, 1 : 1 + first].tolist()
        if first == counts[0]:
            expected += entropy[row, 3 + first : 3 + first + batch.kept[row][1]].tolist()
        assert found == expected
