"""A training step's parts: proxies, losses by hand, acceptance, resume; mimicry learns what can be learnt."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rtok_text_fixtures import lively_tokenizer, thirds, word_batch

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.limits import openings
from speak_neuro.rtok.training.learn import Proposal, accept, propose, tokenizer_loss, train_tokenizer_step
from speak_neuro.rtok.training.mimic import accuracy, information, mimic, piece_targets
from speak_neuro.rtok.training.proxies import ProxyBook, piece_openings

IDS = [f"s{index}" for index in range(len(word_batch()))]


def book() -> ProxyBook:
    return ProxyBook.from_pieces(zip(IDS, word_batch(), strict=True), thirds)


def entropies(proposal: Proposal) -> list[list[float]]:
    generator = np.random.default_rng(0)
    return [generator.random(sum(map(len, units))).tolist() for units in proposal.tokens]


def test_proxies_are_the_pieces() -> None:
    found = book()
    for example, units in zip(IDS, word_batch(), strict=True):
        for unit, spikes in zip(units, found.read(example, units), strict=True):
            assert spikes.sum() == len(thirds(unit))
            assert np.array_equal(spikes, openings(thirds(unit)))
    with pytest.raises(SpeakError, match="do not join to the unit '▁abc'"):
        piece_openings("▁abc", lambda unit: ["▁", "bc"])


@given(
    st.dictionaries(st.text(max_size=5), st.tuples(st.lists(st.booleans(), max_size=30), st.booleans()), max_size=6),
)
@settings(max_examples=100)
def test_book_round_trip(examples: dict[str, tuple[list[bool], bool]]) -> None:
    made = ProxyBook.from_pieces(
        ((name, ["x" * len(bits)] if bits else []) for name, (bits, _) in examples.items()), list
    )
    for name, (bits, seen) in examples.items():
        made.write(name, [np.array(bits, dtype=bool)] if bits else [])
        if seen:
            made.mark_visited(name)
    again = ProxyBook.from_tensors(made.tensors())
    for name, (bits, seen) in examples.items():
        assert again.visited(name) == seen
        assert np.concatenate([np.zeros(0, bool), *again.read(name, ["x" * len(bits)])]).tolist() == bits


def test_the_errors_of_a_book() -> None:
    found = book()
    with pytest.raises(SpeakError, match="example 'x' has no proxy spikes"):
        found.read("x", ["▁a"])
    with pytest.raises(SpeakError, match="example 's0' has 2 characters, its proxy spikes"):
        found.read("s0", ["▁a"])
    with pytest.raises(SpeakError, match="example id 'a' occurs twice"):
        ProxyBook.from_pieces([("a", ["▁a"]), ("a", ["▁b"])], list)
    with pytest.raises(SpeakError, match="is missing: not a checkpoint"):
        ProxyBook.from_tensors({})
    damaged = {**found.tensors(), "proxies.bits": torch.zeros(1, dtype=torch.uint8)}
    with pytest.raises(SpeakError, match="do not fit each other"):
        ProxyBook.from_tensors(damaged)
    with pytest.raises(ValueError, match="one for each character"):
        found.write("s0", [np.zeros(3, dtype=bool)])


def test_proposal_and_losses_by_hand() -> None:
    tokenizer = lively_tokenizer(reset_weight=0.5)
    proposal = propose(tokenizer, book(), IDS, word_batch())
    assert [["".join(tokens) for tokens in units] for units in proposal.tokens] == word_batch()
    assert proposal.proxy_tokens == [[thirds(unit) for unit in units] for units in word_batch()]
    assert proposal.differs.all()
    values = entropies(proposal)
    loss, record = tokenizer_loss(tokenizer, proposal, values)

    current, gate = tokenizer.table().detach().numpy().T.astype(np.float64)
    membrane_sum, positions, opened = 0.0, 0, []
    gates, row = [], 0
    for units, tokens, entropy in zip(word_batch(), proposal.tokens, values, strict=True):
        entropy = iter(entropy)  # type: ignore[assignment]
        for unit, parts in zip(units, tokens, strict=True):
            ids, v = tokenizer.alphabet.encode(unit), 0.0
            proxy, starts = openings(thirds(unit)), openings(parts)
            for t, index in enumerate(ids.tolist()):
                u = v + current[index]
                fired = u >= 1
                value = next(entropy) if starts[t] else -np.inf  # type: ignore[call-overload]
                if t:
                    drive = current[index]
                    target = 1.2 * max(1.0, 1.0 + drive) - 0.2 if proxy[t] else 0.6 * min(1 - 2**-12, drive)
                    membrane_sum += (u - target) ** 2
                    positions += 1
                    if fired:
                        opened.append((value, len(gates)))
                gates.append(gate[index])
                v = (0.0 if gate[index] > 0 else u - 0.8) if fired else u
            row += 1
    assert record["loss_membrane"] == pytest.approx(membrane_sum / positions, rel=1e-4)
    high = {place for _, place in sorted(opened, reverse=True)[: int(np.ceil(0.2 * len(opened)))]}
    cross = [np.log1p(np.exp(-g if place in high else g)) for place, g in enumerate(gates)]
    assert record["loss_reset"] == pytest.approx(np.mean(cross), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(record["loss_membrane"] + 0.5 * record["loss_reset"], rel=1e-5)
    assert len(opened) > 15


def test_entropies_may_end_early() -> None:
    """Tokens beyond the encoder's length have none, and do not count."""
    tokenizer = lively_tokenizer()
    proposal = propose(tokenizer, book(), IDS, word_batch())
    none = tokenizer_loss(tokenizer, proposal, [[] for _ in IDS])[1]
    assert none["loss_reset"] > 0  # every target 0
    with pytest.raises(ValueError, match="at most one for each"):
        tokenizer_loss(tokenizer, proposal, [[0.0] * 100 for _ in IDS])
    with pytest.raises(ValueError, match="no unit, or an empty one"):
        propose(tokenizer, book(), ["s0"], [[""]])


def test_a_step_moves_the_tokenizer_only_downhill() -> None:
    tokenizer = lively_tokenizer()
    optimiser = torch.optim.Adam(tokenizer.boundary.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        proposal = propose(tokenizer, book(), IDS, word_batch())
        losses.append(train_tokenizer_step(tokenizer, optimiser, proposal, entropies(proposal))["loss_membrane"])
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("rule", ["metropolis", "literal", "greedy", "always", "never"])
def test_acceptance(rule: str) -> None:
    tokenizer, found = lively_tokenizer(acceptance=rule), book()
    proposal = propose(tokenizer, found, IDS, word_batch())
    candidate, proxy = np.array([1.0, 60.0, 1.0, 60.0, 0.0]), np.array([60.0, 1.0, 60.0, 1.0, 0.0])
    assert not accept(tokenizer, found, proposal, candidate, proxy, np.random.default_rng(1)).any()
    taken = accept(tokenizer, found, proposal, candidate, proxy, np.random.default_rng(1))
    expected = {
        "metropolis": [True, False, True, False, True],
        "literal": [True, False, True, False, True],
        "greedy": [True, False, True, False, False],
        "always": [True] * 5,
        "never": [False] * 5,
    }[rule]
    assert taken.tolist() == expected
    for example, units, spikes, old, new in zip(
        IDS, word_batch(), proposal.spikes, proposal.proxies, expected, strict=True
    ):
        for a, b in zip(found.read(example, units), spikes if new else old, strict=True):
            assert np.array_equal(a, b)


def test_equal_segmentations_have_ratio_one() -> None:
    tokenizer, found = lively_tokenizer(acceptance="literal"), book()
    for example in IDS:
        found.mark_visited(example)
    proposal = propose(tokenizer, found, IDS, word_batch())
    assert accept(tokenizer, found, proposal, np.ones(5), np.ones(5), np.random.default_rng(0)).all()
    assert not propose(tokenizer, found, IDS, word_batch()).differs.any()


@pytest.mark.parametrize("mode", ["hard", "soft", "gated"])
def test_mimicry_learns_an_exemplar_of_characters(mode: str) -> None:
    """Tokens open at the word sign and at "e", which a function of the character can know."""

    def exemplar(unit: str) -> list[str]:
        cuts = [0, *(t for t in range(1, len(unit)) if unit[t] in "▁e"), len(unit)]
        return [unit[a:b] for a, b in pairwise(cuts)]

    units = ["".join(units) for units in word_batch()] * 8
    tokenizer = lively_tokenizer(mode, reset_positive_weight=4.0)
    targets = piece_targets(units, exemplar)
    values = [information(unit, exemplar, lambda piece: -float(len(piece))) for unit in units]
    losses: list[float] = []
    before = accuracy(tokenizer, units, targets)
    mimic(
        tokenizer,
        units,
        targets,
        values if mode == "gated" else None,
        epochs=60,
        learning_rate=1e-2,
        positions=512,
        progress=lambda record: losses.append(record["loss_membrane"]),
    )
    after = accuracy(tokenizer, units, targets)
    assert len(losses) == 60
    assert losses[-1] < losses[0]
    assert after.total > max(150, before.total + 20)


def test_mimicry_is_repeatable() -> None:
    units = ["".join(units) for units in word_batch()]
    tables = []
    for _ in range(2):
        tokenizer = lively_tokenizer()
        mimic(tokenizer, units, piece_targets(units, thirds), epochs=2, positions=256, seed=3)
        tables.append(tokenizer.table())
    assert torch.equal(*tables)
    with pytest.raises(ValueError, match="0 units, 0 targets"):
        mimic(lively_tokenizer(), [], [])
