"""Unigram pieces: the same in every process, whatever the characters, and at least as likely as another trainer's."""

import json
import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from speak_neuro.corpus.reader import embedded_names, embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.supervision.exemplar import UnigramExemplar
from speak_neuro.text.unigram import train_unigram

SPECIAL = "\0\x1f\u00ad\u2028\u3000\t\n\r \u2581\u2585\ufdd0\ufffe\U0001ffff\U000f0000\U0010fffd"


def nats(vocabulary: list[tuple[str, float]], words: Counter[str]) -> float:
    """-ln p of the words in their likeliest segmentations, by another library's search."""
    found = Tokenizer(models.Unigram([("<unk>", 0.0), *vocabulary], unk_id=0))
    score = dict(vocabulary)
    return -sum(count * sum(score[piece] for piece in found.encode(word).tokens) for word, count in words.items())


def test_pieces_are_as_likely_as_those_of_another_trainer() -> None:
    text = embedded_text("en")[:300_000]
    words = Counter(text.split())
    ours = train_unigram(words, 2000)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.UnigramTrainer(vocab_size=2001, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    theirs = [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"][1:]]
    assert len(ours) == len(theirs) == 2000
    assert nats(ours, words) < 1.01 * nats(theirs, words)  # type: ignore[arg-type]
    assert math.isclose(sum(math.exp(score) for _, score in ours), 1.0, rel_tol=0.05)


def test_all_texts_give_the_same_bytes_in_other_processes() -> None:
    program = (
        "import hashlib, sys; from speak_neuro.corpus.reader import embedded_names, embedded_text;"
        "from speak_neuro.supervision.exemplar import UnigramExemplar;"
        "models = [UnigramExemplar.train(embedded_text(n)[:200000], 2000).to_text() for n in embedded_names()];"
        "print(len(models), *(hashlib.sha256(m.encode()).hexdigest() for m in models))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1
    assert found.pop().split()[0] == str(len(embedded_names())) == "10"


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(codec="utf-8")), min_size=1, max_size=8),
        st.integers(1, 1000),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 100),
)
def test_every_character_is_a_piece(words: dict[str, int], size: int) -> None:
    found = train_unigram(words, size)
    pieces = [piece for piece, _ in found]
    assert len(set(pieces)) == len(pieces)
    assert set("".join(words)) <= set(pieces)
    assert all("".join(words).find(piece) >= 0 for piece in pieces)
    assert all(math.isfinite(score) for _, score in found)


def test_order_of_the_words_does_not_matter() -> None:
    words = Counter(embedded_text("fi").split())
    turned = dict(reversed(list(words.items())))
    assert train_unigram(words, 200) == train_unigram(turned, 200)


def test_one_character_and_none() -> None:
    assert [piece for piece, _ in train_unigram({"a": 1}, 1)] == ["a"]
    with pytest.raises(SpeakError, match="no word to learn pieces from"):
        train_unigram({}, 10)
    assert UnigramExemplar.train("a").boundaries("aab").tolist() == [True, True, True]
