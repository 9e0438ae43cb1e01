"""A new user's way in ten commands, outside the repository: the wheel, a run, a tokenizer, ids in a Trainer."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
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


@pytest.mark.slow
def test_from_the_wheel_to_a_trainer(tmp_path: Path) -> None:
    """A venv that sees this one's packages, but not this repository, gets the wheel and does everything."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'speak-neuro[hf]'")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hub"), "TOKENIZERS_PARALLELISM": "false"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=900
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(python: str | Path, *words: str | Path) -> None:
        run(python, "-m", "pip", *words, "--quiet", "--no-deps", "--disable-pip-version-check")

    pip(sys.executable, "wheel", ROOT, "--no-build-isolation", "--wheel-dir", tmp_path / "dist")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    (wheel,) = (tmp_path / "dist").glob("speak_neuro-*.whl")
    python = tmp_path / "venv" / "bin" / "python"
    pip(python, "install", wheel)
    here = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (purelib / "others.pth").write_text("\n".join(dict.fromkeys(here)) + "\n", encoding="utf-8")

    from speak_neuro.corpus.reader import embedded_text

    (tmp_path / "text.txt").write_text(embedded_text("en")[:30000], encoding="utf-8")
    tiny = "--width 32 --heads 2 --inner 64 --window 64 --batch 4 --steps 10 --exemplar-vocabulary 300"
    bin = python.parent
    told = run(
        bin / "speak-train", "--data", "text.txt", "--out", "runs/mine", "--encoder", "convolution", *tiny.split()
    )
    assert "run folder runs/mine" in told
    run(bin / "speak-export", "--to", "nir", "--run", "runs/mine", "--text", "text.txt", "--rows", "4", "--quiet")
    run(bin / "speak-export", "--to", "table", "--run", "runs/mine")
    run(bin / "speak-tokenize", "--run", "runs/mine", "--build-vocabulary", "v", "--vocabulary-size", "400", "text.txt")
    ids = run(
        bin / "speak-tokenize",
        "--table",
        "runs/mine/table.safetensors",
        "--vocabulary",
        "v",
        "--format",
        "ids",
        "text.txt",
    )
    assert ids.startswith("[")
    run(python, "-c", CODE)
    assert "loss" in run(python, "-c", TRAIN)
