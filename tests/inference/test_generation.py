"""Generated text: the cached steps are the whole pass, the tokens are the tokenizer's, the draws are as asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.corpus.reader import embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.generate_cli import main
from speak_neuro.inference.generation import Generation, Sampling, choose
from speak_neuro.inference.speak import Speak

SCRIPTS = ("en", "he", "zh", "hi", "th", "ar", "ru", "ja")


@pytest.fixture(scope="module")
def speak(tiny_run: Path) -> Speak:
    return Speak.load(tiny_run)


def whole_pass(generation: Generation, row: int) -> torch.Tensor:
    """Logits of the last position by `Hourglass.forward` over all that the language model may see."""
    start = generation.starts[row]
    ids = torch.tensor(generation.ids[row][start:])[None]
    with torch.no_grad():
        return generation.model(ids, torch.tensor(generation.spikes[row][start:])[None])[0, -1]


@pytest.fixture(scope="module")
def many_scripts(gtok: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Speak:
    """A run on texts in eight scripts, so that their characters are in its alphabet."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "text.txt").write_text("\n".join(embedded_text(name)[:3000] for name in SCRIPTS), encoding="utf-8")
    flags = ["--data", str(folder / "text.txt"), "--out", str(folder / "run"), "--steps", "30"]
    assert gtok(*flags) == 0
    return Speak.load(folder / "run")


def test_two_hundred_prompts_in_eight_scripts_equal_the_whole_pass(many_scripts: Speak) -> None:
    drawn = np.random.default_rng(0)
    prompts = []
    for name in SCRIPTS:
        text = embedded_text(name)
        for _ in range(25):
            start = int(drawn.integers(0, min(len(text), 3000) - 40))
            prompts.append(text[start : start + int(drawn.integers(1, 40))])
    assert len(prompts) == 200
    steps = 24
    generation = many_scripts.generation(prompts, Sampling(seed=5), context=10_000)
    for step in range(steps):
        generation.step()
        for row in range(step % 8, 200, 8):
            torch.testing.assert_close(generation.logits[row], whole_pass(generation, row), atol=1e-4, rtol=0)
    for row, prompt in enumerate(prompts):
        text = generation.texts[row]
        assert text.startswith(prompt)
        assert len(text) == len(prompt) + steps
        assert generation.spikes[row] == many_scripts.spikes(text).tolist()
        assert "\ufffd" not in text[len(prompt) :]


@pytest.mark.parametrize("encoder", ["window", "linear", "convolution", "hourglass"])
def test_every_encoder_past_blocks_and_contexts(encoder: str, gtok: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(embedded_text("en")[:6000], encoding="utf-8")
    flags = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), "--steps", "12"]
    assert gtok(*flags, "--encoder", encoder) == 0
    speak = Speak.load(tmp_path / "run")
    speak.engine.block = min(speak.engine.block, 48)  # several blocks
    generation = speak.generation(["The neuron", "A"], Sampling(seed=1), context=40)
    for step in range(160):
        generation.step()
        assert max(len(i) - s for i, s in zip(generation.ids, generation.starts, strict=True)) <= 40
        if step % 5 == 0:
            for row in (0, 1):
                torch.testing.assert_close(generation.logits[row], whole_pass(generation, row), atol=1e-4, rtol=0)
    assert min(generation.starts) > 0
    for row in (0, 1):
        assert generation.spikes[row] == speak.spikes(generation.texts[row]).tolist()
        start = generation.starts[row]  # behind a token, or in the middle of one that is longer than half the context
        assert generation.spikes[row][start - 1] or not any(generation.spikes[row][start - 1 : start + 18])


def test_an_unsure_step_asks_the_engine(speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = speak.generation(["The neuron "], Sampling(seed=2))
    list(plain.run(80))
    monkeypatch.setattr("speak_neuro.inference.boundary_steps.MARGIN", 0.2)
    careful = speak.generation(["The neuron "], Sampling(seed=2))
    list(careful.run(80))
    assert careful.texts == plain.texts
    assert careful.spikes == plain.spikes
    assert careful._steps.asked > plain._steps.asked


def test_a_step_that_disagrees_with_its_block_is_found(speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speak_neuro.inference.boundary_steps.MARGIN", 0.0)
    generation = speak.generation(["The neuron "], Sampling(seed=2))
    steps = generation._steps
    inputs = steps._inputs
    monkeypatch.setattr(steps, "_inputs", lambda reach: tuple(x + 0.5 for x in inputs(reach)))
    with pytest.raises(RuntimeError, match="differs from its block"):
        list(generation.run(600))


def test_tokens_join_to_what_was_written(speak: Speak) -> None:
    prompt = "The neuron is"
    tokens = list(speak.generate(prompt, 60, Sampling(seed=3)))
    text = prompt + "".join(tokens)
    assert len(text) == len(prompt) + 60
    found = speak.tokens(text)
    open_part = speak.tokens(prompt)[-1] if not speak.spikes(prompt)[-1] else ""
    assert found[-len(tokens) :] == [open_part + tokens[0], *tokens[1:]]


def test_a_row_is_the_same_alone_and_in_a_batch(speak: Speak) -> None:
    alone = speak.generate_all(["The neuron"], 40, Sampling(seed=4))
    batch = speak.generate_all(["The neuron", "A much longer prompt stands beside it"], 40, Sampling(seed=4))
    assert alone[0] == batch[0]
    again = speak.generate_all(["The neuron"], 40, Sampling(seed=5))
    assert again != alone


@given(
    st.lists(st.floats(-30, 30), min_size=3, max_size=12),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 3),
    st.integers(0, 15),
    st.floats(0.01, 1),
)
@settings(max_examples=200)
def test_choice_against_a_plain_one(
    logits: list[float], draw: float, temperature: float, top_k: int, top_p: float
) -> None:
    found = choose(np.array(logits, np.float32), draw, Sampling(temperature, top_k, top_p))
    ranked = sorted(range(1, len(logits)), key=lambda i: (-float(np.float32(logits[i])), i))
    if temperature == 0:
        assert found == ranked[0]
        return
    best = float(np.float32(logits[ranked[0]]))
    weights = [float(np.exp((float(np.float32(logits[i])) - best) / temperature)) for i in ranked]
    kept = ranked[: top_k or None]
    shares = [w / sum(weights[: len(kept)]) for w in weights[: len(kept)]]
    nucleus = 1
    while nucleus < len(kept) and sum(shares[:nucleus]) < top_p - 1e-9:
        nucleus += 1
    assert found in kept[: nucleus + 1]  # one more where the sum meets top_p to the last digit
    assert found != 0


def test_draws_have_the_shares_of_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.1, 0.2, 0.3, 0.4], np.float32))
    draws = np.random.default_rng(0).random(20_000)
    for temperature in (1.0, 0.5):
        counted = np.bincount([choose(logits, draw, Sampling(temperature)) for draw in draws], minlength=5) / draws.size
        wanted = np.array([0, 0.1, 0.2, 0.3, 0.4]) ** (1 / temperature)
        np.testing.assert_allclose(counted, wanted / wanted.sum(), atol=0.015)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; allowed: 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed: above 0, up to 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**change)  # type: ignore[arg-type]


def test_an_empty_prompt_is_refused(speak: Speak) -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        speak.generation(["a", ""])


def test_the_command_writes_what_the_api_writes(
    tiny_run: Path, speak: Speak, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run", str(tiny_run), "--characters", "30", "--seed", "7", "--temperature", "0.9", "--top-k", "5"]
    assert main([*flags, "--prompt", "The neuron"]) == 0
    tokens = list(speak.generate("The neuron", 30, Sampling(0.9, 5, seed=7)))
    assert capsys.readouterr().out == "The neuron" + "".join(tokens) + "\n"
    record = tmp_path / "record.json"
    two = ["--prompt", "The neuron", "--prompt", "A", "--format", "json", "--out", str(tmp_path / "out"), "--json"]
    assert main([*flags, *two, str(record)]) == 0
    lines = [json.loads(row) for row in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"prompt": "The neuron", "tokens": tokens}
    assert json.loads(record.read_text(encoding="utf-8"))["metrics"]["characters"] == 60


def test_a_run_that_cannot_write_says_so(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["config"]["tokenizer"]["kind"] = "fixed"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["--run", str(copy), "--prompt", "a"]) == 2
    assert capsys.readouterr().err.startswith("speak-generate: error: ")
    with pytest.raises(SpeakError):
        Speak.load(copy)
