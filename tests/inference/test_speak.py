"""The user's API: lossless, streaming equal to whole, whatever the pieces; the same for every encoder."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.config import ModelConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.inference.engine import BoundaryEngine, Cursor, Trace
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.reference import gated_lif_run
from speak_neuro.systems.system import System
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet

TEXT = "The neuron fires at the end of a token, and the potential starts anew. " * 20
AWKWARD = [
    "",
    "a",
    "\n",
    "\r\n\r\n",
    "nul\x00inside",
    "e\u0301 combining a\u0308\u0323",
    "👩\u200d👩\u200d👧\u200d👦 family 🇫🇮",
    "שלום עולם, مرحبا بالعالم",
    "不知道的字 and ไทย",
    "lone \ud800 surrogate \udfff",
    "\ufeffbom",
    " " * 1000,
    "a" * 2000,
]


def build(encoder: str, seed: int = 0) -> Speak:
    """An untrained tokenizer, its currents spread so that it fires often enough to be interesting."""
    torch.manual_seed(seed)
    config = RunConfig(
        tokenizer=TokenizerConfig(encoder=encoder, encoder_width=16, context=4),
        model=ModelConfig(width=16, heads=2, inner=24, pre_layers=1, shortened_layers=1, post_layers=1),
        training=TrainingConfig(window=32, batch=2),
    )
    alphabet = Alphabet.learn(TEXT)
    system = System(config, len(alphabet))
    with torch.no_grad():
        if encoder == "convolution":
            system.tokenizer.encoder.sixteenths.normal_(0, 0.5 / 16)
            system.tokenizer.encoder.sixteenths[0, :, 0] += 0.3 / 16
        else:
            system.tokenizer.current_readout.weight.normal_(0, 0.5)
            system.tokenizer.current_readout.bias.fill_(0.3)
            system.tokenizer.gate_readout.weight.normal_(0, 1.0)
    return Speak(BoundaryEngine(system, config), alphabet)


SPEAKS = {encoder: build(encoder) for encoder in ("linear", "window", "convolution", "hourglass")}
ENCODERS = pytest.mark.parametrize("encoder", list(SPEAKS))


@ENCODERS
def test_the_examples_are_not_trivial(encoder: str) -> None:
    trace = SPEAKS[encoder].trace(TEXT)
    assert 0.05 < trace.spikes.mean() < 0.8
    assert 0.05 < (trace.gate_logit > 0).mean() < 0.95


@ENCODERS
@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_nothing_is_lost(encoder: str, text: str) -> None:
    tokens = SPEAKS[encoder].tokens(text)
    assert "".join(tokens) == text
    assert all(tokens)
    stream = SPEAKS[encoder].stream()
    assert [*stream.feed(text), *stream.flush()] == tokens


@ENCODERS
@settings(max_examples=25)
@given(st.text(max_size=200), st.lists(st.integers(1, 70), max_size=8))
def test_streaming_is_chunk_independent(encoder: str, text: str, cuts: list[int]) -> None:
    text = TEXT[:60] + text + TEXT[:90]
    speak = SPEAKS[encoder]
    stream, tokens, start = speak.stream(), [], 0
    for cut in [*cuts, len(text)]:
        tokens += stream.feed(text[start : start + cut])
        start += cut
    assert [*tokens, *stream.flush()] == speak.tokens(text)


@ENCODERS
def test_character_by_character_over_block_borders(encoder: str) -> None:
    speak = SPEAKS[encoder]
    text = TEXT[:700] if encoder in ("window", "convolution") else TEXT[:150]
    stream = speak.stream()
    tokens = [token for character in text for token in stream.feed(character)]
    assert tokens + stream.flush() == speak.tokens(text)


@ENCODERS
def test_a_prefix_has_the_same_boundaries(encoder: str) -> None:
    """No look-ahead: bit for bit, the potential too."""
    whole = SPEAKS[encoder].trace(TEXT)
    for length in (1, 15, 16, 17, 33, 600):
        part = SPEAKS[encoder].trace(TEXT[:length])
        assert np.array_equal(part.membrane, whole.membrane[:length])
        assert np.array_equal(part.spikes, whole.spikes[:length])


@ENCODERS
def test_a_token_is_given_out_with_its_last_character(encoder: str) -> None:
    speak = SPEAKS[encoder]
    spikes = speak.trace(TEXT[:100]).spikes
    stream = speak.stream()
    for character, spike in zip(TEXT[:100], spikes.tolist(), strict=True):
        assert len(stream.feed(character)) == int(spike)


@ENCODERS
def test_the_trace_is_the_reference_neuron_on_its_currents(encoder: str) -> None:
    speak = SPEAKS[encoder]
    trace = speak.trace(TEXT)
    parameters = speak.engine.tokenizer.neuron.parameters_numpy()
    run = gated_lif_run(trace.current[None], trace.gate_logit[None], parameters)
    assert np.array_equal(run.spikes[0], trace.spikes)
    assert np.array_equal(run.membrane[0], trace.membrane)


@ENCODERS
def test_the_trace_is_close_to_the_training_path(encoder: str) -> None:
    """Blocks and tables compute what the training forward computes, up to the last bits of a sum."""
    speak = SPEAKS[encoder]
    system = speak.engine.system
    ids = torch.from_numpy(speak.alphabet.encode(TEXT[:16]).astype(np.int64))[None]
    with torch.no_grad():
        hidden = system.language_model.pre(ids)
        found = system.tokenizer(ids, hidden if system.tokenizer.needs_hidden else None)
    trace = speak.trace(TEXT[:16])
    np.testing.assert_allclose(found.current[0].numpy(), trace.current, atol=1e-5)
    np.testing.assert_allclose(found.gate_logit[0].numpy(), trace.gate_logit, atol=1e-5)


def test_hourglass_blocks_see_the_context_before_them() -> None:
    """Beyond the first block a position still sees at least half a window: changing that changes its current."""
    speak = SPEAKS["hourglass"]
    changed = TEXT[:20] + ("x" if TEXT[20] != "x" else "y") + TEXT[21:]
    a, b = speak.trace(TEXT[:48]), speak.trace(changed[:48])
    assert np.array_equal(a.current[:20], b.current[:20])
    assert not np.array_equal(a.current[32:40], b.current[32:40])


@ENCODERS
def test_byte_spans(encoder: str) -> None:
    text = "naïve café 👩\u200d👧 שלום " * 4
    speak = SPEAKS[encoder]
    raw = text.encode()
    tokens = [raw[a:b].decode() for a, b in speak.spans(text, "byte").tolist()]
    assert tokens == speak.tokens(text)
    with pytest.raises(ValueError, match="unit is 'word'"):
        speak.spans(text, "word")


@ENCODERS
def test_boundaries_of_a_long_text_need_no_memory_for_its_features(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak, longest = SPEAKS[encoder], 0
    advance = Cursor.advance

    def watched(self: Cursor, ids: np.ndarray) -> Trace:
        nonlocal longest
        trace = advance(self, ids)
        longest = max(longest, len(trace.features))
        return trace

    monkeypatch.setattr(Cursor, "advance", watched)
    monkeypatch.setattr("speak_neuro.inference.speak.PIECE", 100)
    spikes = speak.spikes(TEXT)
    assert longest == 100
    assert np.array_equal(spikes, speak.trace(TEXT).spikes)


def test_ten_megabytes_in_one_line() -> None:
    text = (TEXT * 8000)[:10_000_000]
    spikes = SPEAKS["linear"].spikes(text)
    spans = segments.spans(spikes)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == len(text)
    assert np.array_equal(spans[1:, 0], spans[:-1, 1])


def test_load_from_a_run_folder(tiny_run: Path) -> None:
    speak = Speak.load(tiny_run)
    text = "A trained tokenizer reads this. Unseen: 漢字"
    assert "".join(speak.tokens(text)) == text
    assert Speak.load(tiny_run).tokens(text) == speak.tokens(text)


@pytest.mark.parametrize("encoder", ["linear", "window", "convolution", "hourglass"])
def test_use_changes_no_byte(encoder: str) -> None:
    """What is pickled is a cache's key, and what another process gets: nothing that was seen is in it."""
    speak = build(encoder)
    before = pickle.dumps(speak)
    for text in [TEXT, *AWKWARD]:
        speak.tokens(text)
        speak.stream().feed(text)
    assert pickle.dumps(speak) == before
