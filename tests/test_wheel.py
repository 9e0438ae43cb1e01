"""Outside the repository: the wheel in ten commands, from a text to ids in a Trainer, and the sdist's own tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import speak_neuro
from pathlib import Path
from speak_neuro.api.hf import write_pretrained

lines = Path("text.txt").read_text(encoding="utf-8").split("\\n")
tokenizer = speak_neuro.Tokenizer.load("runs/mine").learn_vocabulary(lines, 400, specials=["<|end|>"])
assert "site-packages" in speak_neuro.__file__, speak_neuro.__file__
made = write_pretrained(tokenizer, "tokenizer")
assert tokenizer.decode(tokenizer.encode(lines[0])) == lines[0]
"""
TRAIN = """
from pathlib import Path
from datasets import Dataset
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, GPT2Config, GPT2LMHeadModel, Trainer
from transformers import TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("tokenizer", trust_remote_code=True)
lines = [line for line in Path("text.txt").read_text(encoding="utf-8").split("\\n") if len(line) > 20][:64]
data = Dataset.from_dict({"text": lines}).map(
    lambda rows: tokenizer(rows["text"], truncation=True, max_length=32),
    batched=True,
    num_proc=2,
    remove_columns="text",
)
model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=1, n_head=2))
settings = TrainingArguments(output_dir="out", max_steps=4, per_device_train_batch_size=4, report_to=[], use_cpu=True)
trainer = Trainer(
    model, settings, train_dataset=data, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)
)
print("loss", trainer.train().training_loss)
"""
PATHS = "import sys; print(sys.version_info[1], *(p for p in sys.path if p.endswith('site-packages')), sep=chr(10))"
NEEDED = "import accelerate, datasets, numba, snntorch, torch, transformers"
CORE = ("text", "table/test_vocabulary.py", "neuron/test_reference.py", "tokenizer", "systems", "test_packaging.py")
"""Tests of the sdist that need seconds."""


class Outside:
    """A folder and a fresh environment in it that sees the packages of `python`, but nothing of this repository."""

    def __init__(self, folder: Path, python: str | Path) -> None:
        self.folder, self.home = folder, {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.home |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hub"), "TOKENIZERS_PARALLELISM": "false"}
        minor, *paths = self.run(python, "-c", PATHS).splitlines()
        self.run(python, "-m", "venv", "--without-pip", "venv")  # pip and setuptools are those of `python`
        self.bin = folder / "venv" / "bin"
        own = folder / "venv" / "lib" / f"python3.{minor}" / "site-packages"
        (own / "others.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")

    def run(self, *command: str | Path, at: Path | None = None) -> str:
        """What a command that must succeed prints."""
        words = list(map(str, command))
        done = subprocess.run(
            words, cwd=at or self.folder, capture_output=True, text=True, env=self.home, timeout=900, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(self, *words: str | Path) -> None:
        self.run(self.bin / "python", "-m", "pip", *words, "--quiet", "--no-deps", "--disable-pip-version-check")


def python_313() -> str:
    """A Python 3.13 with the package's dependencies."""
    python = os.environ.get("SPEAK_PYTHON313") or shutil.which("python3.13")
    ready = python and subprocess.run([python, "-c", NEEDED], capture_output=True, check=False).returncode == 0
    if not python or not ready:
        pytest.skip("no Python 3.13 with the package's dependencies and the extra hf; name one by SPEAK_PYTHON313")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("version", ["this Python", "3.13"])
def test_from_the_wheel_to_a_trainer(version: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")
    outside = Outside(tmp_path, python_313() if version == "3.13" else sys.executable)
    build = (sys.executable, "-m", "pip", "wheel", ROOT, "--no-build-isolation", "--no-deps", "--quiet")
    outside.run(*build, "--wheel-dir", "dist")
    (wheel,) = (tmp_path / "dist").glob("speak_neuro-*.whl")
    outside.pip("install", wheel)

    from speak_neuro.corpus.reader import embedded_text

    (tmp_path / "text.txt").write_text(embedded_text("en")[:30000], encoding="utf-8")
    tiny = "--width 32 --heads 2 --inner 64 --window 64 --batch 4 --steps 10 --exemplar-vocabulary 300"

    def speak(command: str, *more: str) -> str:
        name, *flags = command.split()
        return outside.run(outside.bin / f"speak-{name}", *flags, *more)

    assert "torch" in speak("doctor")
    told = speak("train --data text.txt --out runs/mine", *tiny.split())
    assert "run folder runs/mine" in told
    speak("export --to nir --run runs/mine --text text.txt --rows 4 --quiet")
    speak("export --to table --run runs/mine")
    speak("tokenize --run runs/mine --build-vocabulary v --vocabulary-size 400 text.txt")
    ids = speak("tokenize --table runs/mine/table.safetensors --vocabulary v --format ids text.txt")
    assert ids.startswith("[")
    outside.run(outside.bin / "python", "-c", CODE)
    assert "loss" in outside.run(outside.bin / "python", "-c", TRAIN)


@pytest.mark.slow
def test_the_sdists_own_tests(tmp_path: Path) -> None:
    """They pass where it is unpacked, on its own package."""
    outside = Outside(tmp_path, sys.executable)
    make = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    outside.run(sys.executable, "-c", make, tmp_path, at=ROOT)
    (archive,) = tmp_path.glob("speak_neuro-*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    outside.pip("install", "--no-build-isolation", "--editable", unpacked)
    python = outside.bin / "python"
    for package in ("speak_neuro", "speak_neuro.export", "speak_neuro.sim"):
        place = outside.run(python, "-c", f"import {package}; print({package}.__file__)", at=unpacked)
        assert place.startswith(str(unpacked)), place
    tests = [f"tests/{name}" for name in CORE]
    assert " passed" in outside.run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, at=unpacked)
    whole = outside.run(python, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", at=unpacked)
    assert "error" not in whole.splitlines()[-1]
