"""The table: the torch path's boundaries to the last bit, one deterministic file, clear refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file
from table_fixtures import TEXTS, make_table, make_tables, oracle

from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig
from speak_neuro.corpus.reader import embedded_names, embedded_text
from speak_neuro.errors import SpeakError, UnsupportedExport
from speak_neuro.export.cli import main
from speak_neuro.inference.compile_table import compile_table
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.reference import NeuronParameters
from speak_neuro.systems.system import System
from speak_neuro.table.table import CompiledTable
from speak_neuro.table.tokenizer import TableTokenizer, load
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet


def build(
    alphabet: Alphabet, encoder: str = "linear", grid: str = "none", **neuron: object
) -> tuple[System, RunConfig]:
    """An untrained network whose neuron fires often."""
    torch.manual_seed(1)
    config = RunConfig(
        tokenizer=TokenizerConfig(encoder=encoder, encoder_width=16, context=4, grid=grid),
        neuron=NeuronConfig(**neuron),  # type: ignore[arg-type]
        model=ModelConfig(width=16, heads=2, inner=24, pre_layers=1, shortened_layers=1, post_layers=1),
    )
    system = System(config, len(alphabet))
    with torch.no_grad():
        if encoder == "convolution":
            parameter, gain = system.tokenizer.encoder.sixteenths, system.tokenizer.encoder.GAIN
            parameter.normal_(0, 0.1 / gain)
            parameter[0, :, 0] += 0.3 / gain
        else:
            system.tokenizer.current_readout.weight.normal_(0, 0.1)
            system.tokenizer.current_readout.bias.fill_(0.3)
            system.tokenizer.gate_readout.weight.normal_(0, 1.0)
    return system, config


@pytest.fixture(scope="session")
def linear_run(gtok: Callable[..., int], tmp_path_factory: pytest.TempPathFactory, excerpt: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "linear"
    flags = ("--data", str(excerpt), "--out", str(folder), "--steps", "5", "--encoder", "linear")
    assert gtok(*flags) == 0
    return folder


@pytest.mark.parametrize(
    "neuron",
    [
        {},
        {"reset_mode": "hard"},
        {"reset_mode": "soft"},
        {"reset_mode": "none"},
        {"reset_mode": "hard/none"},
        {"decay": 0.9, "gain": 1.2, "threshold": 0.8, "reset_potential": -0.1, "reset_scale": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("encoder", ["linear", "convolution"])
def test_every_script_as_by_the_network(encoder: str, backend: str, neuron: dict[str, object]) -> None:
    texts = [embedded_text(name)[:3000] for name in embedded_names()]
    alphabet = Alphabet(Alphabet.learn(texts).characters[:300])  # some characters of the larger scripts stay unknown
    system, config = build(alphabet, encoder, **neuron)
    speak = Speak(BoundaryEngine(system, config), alphabet)
    table = TableTokenizer(compile_table(system, config, alphabet), backend=backend)
    assert len(texts) >= 10
    for text in texts:
        expected = speak.spans(text)
        assert np.array_equal(table.spans(text), expected)
        assert np.array_equal(table.spans(text, "byte"), speak.spans(text, "byte"))
        assert len(expected) > 100 or neuron.get("reset_mode") == "none"


@pytest.mark.parametrize("encoder", ["linear", "convolution"])
def test_on_the_integer_grid(encoder: str) -> None:
    text = embedded_text("en")[:3000]
    alphabet = Alphabet(Alphabet.learn(text).characters[:40])
    system, config = build(alphabet, encoder, grid="loihi2")
    expected = Speak(BoundaryEngine(system, config), alphabet).spans(text)
    for backend in ("numpy", "numba"):
        assert np.array_equal(
            TableTokenizer(compile_table(system, config, alphabet), backend=backend).spans(text), expected
        )
    assert len(expected) > 100


def test_a_run_with_tanh_has_a_table() -> None:
    alphabet = Alphabet.learn("some text")
    system, config = build(alphabet)
    system.tokenizer.tanh = True
    speak = Speak(BoundaryEngine(system, config), alphabet)
    text = "some text more or less"
    assert TableTokenizer(compile_table(system, config, alphabet)).tokens(text) == speak.tokens(text)


@pytest.mark.parametrize("name", make_tables())
def test_plain_numpy_is_the_reference(name: str) -> None:
    table = make_tables()[name]

    @settings(max_examples=40)
    @given(TEXTS)
    def check(text: str) -> None:
        spikes, _ = table.spikes(text)
        assert np.array_equal(spikes, oracle(table, text))

    check()


def test_state_is_carried() -> None:
    text = "a text, cut in two parts"
    for table in make_tables().values():
        whole, _ = table.spikes(text)
        first, state = table.spikes(text[:2])
        second, state = table.spikes(text[2:9], state)
        third, _ = table.spikes(text[9:], state)
        assert np.array_equal(np.concatenate([first, second, third]), whole)


def test_the_file_is_deterministic_and_gives_the_table_back(tmp_path: Path) -> None:
    for name, plain in make_tables().items():
        table = dataclasses.replace(plain, metadata={"run": name, "versions": {"a": "1", "b": "2"}})
        table.save(tmp_path / "one")
        table.save(tmp_path / "two")
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        back = CompiledTable.read(tmp_path / "one")
        assert back.alphabet == table.alphabet
        assert np.array_equal(back.current, table.current)
        assert np.array_equal(back.gate, table.gate)
        assert back.constants() == table.constants()
        assert back.neuron.mode == plain.neuron.mode
        assert back.metadata == table.metadata


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    arrays = load_file(path)
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size]
    if how == "truncated":
        path.write_bytes(raw[:-40])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not a table", encoding="utf-8")
    elif how == "foreign":
        save_file(arrays, path)
    elif how == "schema":
        assert b'\\"schema\\": 2' in header
        path.write_bytes(raw[:8] + header.replace(b'\\"schema\\": 2', b'\\"schema\\": 9') + raw[8 + size :])
    else:
        from speak_neuro.common.arrays import write_arrays
        from speak_neuro.table.table import FORMAT, SCHEMA_VERSION

        change = {
            "nan": {"current": np.where(np.arange(arrays["current"].size) == 3, np.nan, arrays["current"])},
            "large": {"current": arrays["current"] + np.float32(1e30)},
            "alphabet": {"code_points": arrays["code_points"][:-1]},
            "twice": {"code_points": np.concatenate([arrays["code_points"][:-1], arrays["code_points"][:1]])},
            "beyond": {"code_points": arrays["code_points"] + np.uint32(0x110000)},
            "type": {"gate": arrays["gate"].astype(np.float16)},
            "taps": {},
            "decay": {"decay": np.array([2], np.float32)},
            "two neurons": {"gain": np.array([1, 1], np.float32)},
            "extra": {"more": arrays["gain"]},
        }[how]
        changed = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in (arrays | change).items()}
        write_arrays(path, changed, FORMAT, SCHEMA_VERSION, {"mode": "gated", "taps": int(how != "taps")})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "not a whole safetensors file"),
        ("empty", "not a whole safetensors file"),
        ("text", "not a whole safetensors file"),
        ("foreign", "a safetensors file, but not a table"),
        ("schema", "schema is 9, this version reads 1"),
        ("nan", "current holds NaN or infinity"),
        ("large", "current reaches 1e+30; allowed: up to 1e+20"),
        ("alphabet", "one for each character of the alphabet"),
        ("twice", "more than once"),
        ("beyond", "code_points reach 0x"),
        ("type", "gate is float16"),
        ("taps", "taps is 0; allowed: at least 1"),
        ("decay", "decay is 2.0; allowed: 0 to 1"),
        ("two neurons", "gain has shape (2,); allowed: (1,)"),
        ("extra", "more is unknown"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "table"
    make_table().save(path)
    damage(path, how)
    with pytest.raises(SpeakError) as caught:
        load(path)
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(path))
    assert "\n" not in text
    assert "speak" in text.split(";")[-1]


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(SpeakError, match=what):
            load(path)


def test_bad_tables_are_refused() -> None:
    table = make_table()
    with pytest.raises(ValueError, match="current is float64"):
        dataclasses.replace(table, current=table.current.astype(np.float64))
    with pytest.raises(ValueError, match=r"gain \* current"):
        dataclasses.replace(table, current=table.current * np.float32(1e15), neuron=NeuronParameters(gain=1e10))
    with pytest.raises(ValueError, match="threshold has 2 values"):
        dataclasses.replace(table, neuron=NeuronParameters(threshold=np.ones(2, np.float32)))


def test_export(linear_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--to", "table", "--run", str(linear_run), "--check"]) == 0
    assert "exact" in capsys.readouterr().out
    assert not (linear_run / "table.safetensors").exists()
    for out in (tmp_path / "some.table", tmp_path):
        assert main(["--to", "table", "--run", str(linear_run), "--out", str(out)]) == 0
    assert "characters" in capsys.readouterr().out
    assert (tmp_path / "some.table").read_bytes() == (tmp_path / "table.safetensors").read_bytes()
    speak, text = Speak.load(linear_run), embedded_text("en")[20000:22000] + "漢字 👩"
    assert load(tmp_path / "some.table").tokens(text) == speak.tokens(text)


def test_encoders_that_look_back_have_no_table(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--to", "table", "--run", str(tiny_run), "--out", str(tmp_path / "t")]) == 2
    error = capsys.readouterr().err
    assert "the window encoder is no sum of tables over single characters" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t").exists()
    assert main(["--to", "table", "--run", str(tiny_run), "--check"]) == 2
    system, config = build(Alphabet("abc"), encoder="hourglass")
    with pytest.raises(UnsupportedExport, match="it reads a transformer"):
        compile_table(system, config, Alphabet("abc"))
    system, config = build(Alphabet("abc"), encoder="convolution")
    system.tokenizer.tanh = True
    with pytest.raises(UnsupportedExport, match="tanh stands between"):
        compile_table(system, config, Alphabet("abc"))


def test_all_reasons_are_listed() -> None:
    system, config = build(Alphabet("abc"), encoder="window")
    with torch.no_grad():
        system.tokenizer.gate_readout.bias.fill_(float("nan"))
    with pytest.raises(UnsupportedExport, match=r"window.*; .*gate_readout\.bias holds values that are not finite"):
        compile_table(system, config, Alphabet("abc"))


def test_no_torch_comes_along(tmp_path: Path) -> None:
    make_table().save(tmp_path / "t")
    code = (
        "import sys, speak_neuro.table.tokenizer as t\n"
        f"tokens = t.load({str(tmp_path / 't')!r}).tokens('some text')\n"
        "assert ''.join(tokens) == 'some text'\n"
        "print([m for m in ('torch', 'numba', 'snntorch', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_segments_agree() -> None:
    table, text = make_table(), "some text\r\n\x00 and more"
    assert np.array_equal(TableTokenizer(table).spans(text), segments.spans(oracle(table, text)))
