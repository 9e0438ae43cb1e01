"""What parity passes, what it refuses, and what it says about a difference."""

import html.parser
import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import trace_fixtures as fixtures
from hypothesis import given, settings
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.export.files.neuron_file import ExportedNeuron, read_neuron, write_neuron
from speak_neuro.export.files.trace_file import Trace, read_trace, write_trace
from speak_neuro.sim.parity import compare as parity
from speak_neuro.sim.parity.compare import compare
from speak_neuro.sim.parity.levels import LevelRun, check_same_neuron
from speak_neuro.sim.parity.report import render
from speak_neuro.sim.parity.rounding import judge
from speak_neuro.sim.summary import summary

HAS_LAVA = importlib.util.find_spec("lava") is not None


def simulated(exported: ExportedNeuron, trace: Trace, **changes: Any) -> LevelRun:
    """What Lava's readout network computes, in numpy: sums in float64, rounded once, then the reference."""
    features = trace.features.astype(np.float64)
    both = (features @ exported.weight.astype(np.float64).T + exported.bias).astype(np.float32)
    both[~trace.valid] = 0
    inputs = {"current": both[..., 0].copy(), "gate_logit": both[..., 1].copy(), **changes}
    run = fixtures.run_again(
        exported, {**{k: v for k, v in fixtures.fields(trace).items() if k not in ("membrane", "spikes")}, **inputs}
    )
    return LevelRun(run.spikes.astype(np.int8), run.membrane, **inputs, seconds=0.0, versions={"python": "3.10"})


def own(trace: Trace) -> LevelRun:
    """The trace as if simulated: an equal run."""
    return LevelRun(trace.spikes.astype(np.int8), trace.membrane, trace.current, trace.gate_logit, 0.0, {})


@pytest.fixture
def without_lava(monkeypatch: pytest.MonkeyPatch) -> Callable[..., parity.Parity]:
    """`compare` with given runs in place of simulations."""

    def call(exported: ExportedNeuron, trace: Trace, runs: dict[str, LevelRun], **options: Any) -> parity.Parity:
        monkeypatch.setattr(parity, "run_level", lambda level, *_, **__: runs[level])
        return compare(exported, trace, levels=tuple(runs), **options)  # type: ignore[arg-type]

    return call


# --- with Lava


@pytest.fixture(scope="module")
def real() -> tuple[ExportedNeuron, Trace, parity.Parity]:
    if not HAS_LAVA:
        pytest.skip("lava-nc is not installed (Python 3.10 only)")
    texts = [*fixtures.TEXTS, *(f"Sequence number {i} of a batch." for i in range(20))]
    exported, trace = fixtures.make_trace(texts, grid=False, width=40, seed=3)
    return exported, trace, compare(exported, trace, timeout=60)


@pytest.mark.lava
def test_neuron_level_gives_the_bits(real: tuple[ExportedNeuron, Trace, parity.Parity]) -> None:
    _, trace, result = real
    level = result.report["levels"]["neuron"]
    assert result.passed
    assert level["passed"]
    assert (level["mismatches"], level["membrane_mismatches"], level["first_divergence"]) == (0, 0, None)
    assert (level["sequences"], level["positions"]) == (28, trace.length.sum())
    assert level["spikes"] == trace.spikes.sum() > 50
    np.testing.assert_array_equal(result.runs["neuron"].membrane, trace.membrane)
    assert level["simulator"]["lava-nc"].startswith("0.10")


@pytest.mark.lava
def test_readout_level_is_within_rounding(real: tuple[ExportedNeuron, Trace, parity.Parity]) -> None:
    exported, trace, result = real
    level, run = result.report["levels"]["readout"], result.runs["readout"]
    assert level["passed"]
    for name in ("current", "gate_logit"):
        quantity = level["quantities"][name]
        assert 0 < quantity["max_difference"] < quantity["max_bound"] < 1e-4
        assert quantity["outside_bound"] == 0
    assert level["membrane_mismatches"] > 0
    assert level["unexplained"] == level["membrane_outside_bound"] == 0
    np.testing.assert_allclose(run.current, simulated(exported, trace).current, rtol=2**-22, atol=1e-9)


def minus_zeros() -> tuple[ExportedNeuron, Trace]:
    """Currents and potentials with zeros of either sign, first those of the report: -0.5, then -0 on a decay of 0."""
    exported, trace = fixtures.make_trace(["ab", "abcdefgh"], decay=0.0)
    given = fixtures.fields(trace)
    given["current"][:] = [[-0.5, -0.0, 0, 0, 0, 0, 0, 0], [-0.0, 0.0, -0.0, 1.5, -0.0, -1e-45, -0.0, 0.0]]
    given["gate_logit"][1] = [-0.0, 0.0, -1.0, -0.0, -0.0, 1.0, -0.0, 0.0]
    kept = {name: value for name, value in given.items() if name not in ("membrane", "spikes")}
    return exported, fixtures.run_again(exported, kept)


@pytest.mark.lava
def test_the_two_zeros_are_one_number() -> None:
    """Lava's ports add what arrives to +0: -0 arrives as +0, and nothing else is changed by it."""
    exported, trace = minus_zeros()
    assert np.signbit(trace.membrane[0]).tolist()[:2] == [True, True], "the trained run's own potentials"
    result = compare(exported, trace, levels=("neuron",), timeout=60)
    level = result.report["levels"]["neuron"]
    assert result.passed
    assert (level["mismatches"], level["membrane_mismatches"], level["max_membrane_difference"]) == (0, 0, 0)
    lost = np.signbit(trace.membrane) & ~np.signbit(result.runs["neuron"].membrane)
    assert level["zero_signs"] == lost.sum() > 0
    assert (trace.membrane[lost] == 0).all()
    assert "passed" in summary(result.report)[-1]


@pytest.mark.parametrize("value", [1e-45, -1e-45, np.float32(1.1754944e-38)])
def test_a_zero_and_the_smallest_number_are_two(without_lava: Any, value: float) -> None:
    exported, trace = minus_zeros()
    for changed, differences in ((-trace.membrane[1, 0], 0), (value, 1)):
        membrane = trace.membrane.copy()
        membrane[1, 0] = changed
        run = replace(own(trace), membrane=membrane)
        result = without_lava(exported, trace, {"neuron": run})
        assert result.report["levels"]["neuron"]["membrane_mismatches"] == differences
        assert result.passed == (differences == 0)


@pytest.mark.lava
def test_report_is_plain_json(real: tuple[ExportedNeuron, Trace, parity.Parity]) -> None:
    report = real[2].report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report["backends"]) == {"numpy reference", "Lava float32, neuron level", "Lava float32, readout level"}


@pytest.mark.lava
@pytest.mark.skipif(not HAS_LAVA, reason="lava-nc is not installed (Python 3.10 only)")
def test_metadata_is_not_needed(tmp_path: Path) -> None:
    exported, trace = fixtures.make_trace()
    write_neuron(tmp_path / "g.nir", exported, {"producer": "test"})
    write_trace(tmp_path / "t.npz", trace)
    shutil.copy(tmp_path / "g.nir", tmp_path / "bare.nir")
    with h5py.File(tmp_path / "bare.nir", "r+") as stream:
        del stream["node/metadata"]
    result = compare(read_neuron(tmp_path / "bare.nir"), read_trace(tmp_path / "t.npz"), timeout=60)
    assert result.passed
    assert [level["membrane_mismatches"] for level in result.report["levels"].values()] == [0, 0]


# --- what is found


def test_a_spike_that_differs_is_found_with_its_place(without_lava: Callable[..., parity.Parity]) -> None:
    exported, trace = fixtures.make_trace()
    run = own(trace)
    spikes = run.spikes.copy()
    spikes[3, 5] ^= 1
    spikes[4, 2] ^= 1
    result = without_lava(exported, trace, {"neuron": replace(run, spikes=spikes)})
    level = result.report["levels"]["neuron"]
    assert not result.passed
    assert (level["mismatches"], level["membrane_mismatches"]) == (2, 0)
    place = level["first_divergence"]
    text = fixtures.TEXTS[3]
    assert (place["row"], place["position"], place["character"]) == (3, 5, text[5])
    assert place["context"] == {"before": text[:5], "after": text[6:30]}
    assert place["expected_spike"] == trace.spikes[3, 5] != place["got_spike"]
    assert place["margin"] == float(trace.membrane[3, 5]) - 1
    assert any("sequence 3, position 5" in line for line in summary(result.report))
    assert summary(result.report)[-1] == "parity: FAILED"


def test_one_bit_of_a_potential_counts(without_lava: Callable[..., parity.Parity]) -> None:
    exported, trace = fixtures.make_trace()
    membrane = trace.membrane.copy()
    membrane[0, 7] = np.nextafter(membrane[0, 7], np.float32(9))
    level = without_lava(exported, trace, {"neuron": replace(own(trace), membrane=membrane)}).report["levels"]["neuron"]
    assert not level["passed"]
    assert (level["mismatches"], level["membrane_mismatches"]) == (0, 1)


def test_a_wrong_trace_fails_the_reference(without_lava: Callable[..., parity.Parity]) -> None:
    """The numpy reference is a verdict of its own: a trace that no gated-reset neuron made does not pass."""
    exported, trace = fixtures.make_trace()
    spikes = trace.spikes.copy()
    spikes[0, 4] ^= 1
    wrong = Trace(**{**fixtures.fields(trace), "spikes": spikes})
    result = without_lava(exported, wrong, {"neuron": own(wrong)})
    assert result.report["levels"]["neuron"]["passed"]
    assert not result.report["backends"]["numpy reference"]["passed"]
    assert not result.passed


def test_lone_surrogates_do_not_reach_the_file(without_lava: Callable[..., parity.Parity]) -> None:
    exported, trace = fixtures.make_trace()
    run = own(trace)
    spikes = run.spikes.copy()
    spikes[6, 1] ^= 1
    report = without_lava(exported, trace, {"neuron": replace(run, spikes=spikes)}).report
    assert report["levels"]["neuron"]["first_divergence"]["context"]["before"] == "\ufffd" * 3
    json.dumps(report, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["decay", "gain", "threshold", "reset_potential", "reset_scale"])
def test_graph_and_trace_of_different_runs(name: str) -> None:
    exported, trace = fixtures.make_trace()
    value = getattr(exported, name)
    other = replace(exported, **{name: np.nextafter(value, np.float32(-9))})
    with pytest.raises(SpeakError, match=rf"do not belong together: {name} is .* in the graph, .* in the trace"):
        check_same_neuron(other, trace)
    with pytest.raises(SpeakError, match="takes 9 features, the trace has 6"):
        check_same_neuron(fixtures.make_trace(width=9)[0], trace)


def test_graph_and_trace_of_two_trainings_with_equal_numbers() -> None:
    """Sizes, constants and the run's name agree, the weights do not; files from before they were named pass."""
    exported, trace = fixtures.make_trace()
    for of_graph, of_trace in (({}, {}), ({"weights": "a" * 64}, {}), ({"weights": "a" * 64}, {"weights": "a" * 64})):
        check_same_neuron(replace(exported, metadata=of_graph), replace(trace, meta=of_trace))
    with pytest.raises(SpeakError, match=r"the weights' digest is a{12}\.\.\. in the graph, b{12}\.\.\. in the trace"):
        check_same_neuron(replace(exported, metadata={"weights": "a" * 64}), replace(trace, meta={"weights": "b" * 64}))


# --- rounding


def on_threshold() -> tuple[ExportedNeuron, Trace]:
    """One feature, weight 1, no bias, gate always open: the potential meets the threshold exactly at position 2."""
    exported, trace = fixtures.make_trace(["abcdefgh"], width=1, mode="hard")
    exported = replace(exported, weight=np.array([[1], [0]], np.float32), bias=np.array([0, 1], np.float32))
    features = np.array([0.25, 0.25, 0.5, 0.125, 0.25, 0.25, 0.75, 0.5], np.float32).reshape(1, 8, 1)
    fields = {**fixtures.fields(trace), "features": features, "current": features[..., 0].copy()}
    for name in ("membrane", "spikes"):
        del fields[name]
    trace = fixtures.run_again(exported, fields)
    assert trace.membrane[0, 2] == 1
    return exported, trace


def changed(trace: Trace, position: int, value: float) -> np.ndarray:
    current = trace.current.copy()
    current[0, position] = value
    return current


def test_a_difference_within_rounding_is_explained(without_lava: Callable[..., parity.Parity]) -> None:
    """Slightly less current, no spike on the tie; what follows follows, until both reset hard at once."""
    exported, trace = on_threshold()
    run = simulated(exported, trace, current=changed(trace, 2, 0.5 - 2**-24))
    assert trace.spikes[0].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert run.spikes[0].tolist() == [0, 0, 0, 1, 0, 0, 1, 0]
    judgement = judge(exported, trace, run)
    assert judgement.passed
    assert np.argwhere(judgement.explained).tolist() == [[0, 2]]
    assert np.argwhere(judgement.consequent).tolist() == [[0, 3]]
    result = without_lava(exported, trace, {"readout": run})
    level = result.report["levels"]["readout"]
    assert result.passed
    assert level["mismatches"] == 2
    assert [place["kind"] for place in level["differences"]] == ["within rounding", "follows an earlier one"]
    assert level["differences_listed"] == "2 of 2"
    assert abs(level["differences"][0]["margin"]) <= level["differences"][0]["bound"]
    assert not without_lava(exported, trace, {"readout": run}, strict_readout=True).passed


def test_after_a_common_hard_reset_nothing_is_excused() -> None:
    exported, trace = on_threshold()
    run = simulated(exported, trace, current=changed(trace, 2, 0.5 - 2**-24))
    membrane = run.membrane.copy()
    assert trace.spikes[0, 6] == run.spikes[0, 6] == 1
    membrane[0, 7] += np.float32(1e-4)
    judgement = judge(exported, trace, replace(run, membrane=membrane))
    assert np.argwhere(judgement.outside["membrane"]).tolist() == [[0, 7]]


def test_a_difference_beyond_rounding_is_not_explained(without_lava: Callable[..., parity.Parity]) -> None:
    exported, trace = on_threshold()
    run = simulated(exported, trace, current=changed(trace, 2, 0.4999))
    judgement = judge(exported, trace, run)
    assert not judgement.passed
    assert judgement.outside["current"].sum() == 1
    result = without_lava(exported, trace, {"readout": run})
    assert not result.passed
    # The same spikes from currents that agree: nothing but a broken neuron can do that.
    flipped = trace.spikes.astype(np.int8)
    flipped[0, 4] = 1
    broken = judge(exported, trace, replace(own(trace), spikes=flipped))
    assert np.argwhere(broken.unexplained).tolist() == [[0, 4]]


def test_a_gate_within_rounding(without_lava: Callable[..., parity.Parity]) -> None:
    """A gate logit that rounding moves across zero changes the reset, not yet a spike."""
    exported, trace = fixtures.make_trace(["abcd"], width=2)
    exported = replace(exported, weight=np.array([[1, 0], [3, -3]], np.float32), bias=np.zeros(2, np.float32))
    features = np.array([[[1.0, 1.0], [0.25, 0.25], [0.5, 0.25], [0.25, 0.0]]], np.float32)
    both = features @ exported.weight.T
    fields = {k: v for k, v in fixtures.fields(trace).items() if k not in ("membrane", "spikes")}
    fields |= {"features": features, "current": both[..., 0].copy(), "gate_logit": both[..., 1].copy()}
    trace = fixtures.run_again(exported, fields)
    gate = trace.gate_logit.copy()
    gate[0, 0] = 1e-7
    judgement = judge(exported, trace, simulated(exported, trace, gate_logit=gate))
    assert judgement.gates.sum() == 1
    assert judgement.passed
    gate[0, 0] = 0.5
    assert not judge(exported, trace, simulated(exported, trace, gate_logit=gate)).passed


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 3, 17, 128, 700]),
    decay=st.sampled_from([1.0, 0.9, 0.5]),
    ties=st.booleans(),
)
def test_correct_runs_are_always_within_the_bound(seed: int, width: int, decay: float, ties: bool) -> None:
    """Sums in any order and precision, with and without ties: rounding must account for every difference."""
    rng = np.random.default_rng(seed)
    exported, trace = fixtures.make_trace(["x" * 40] * 6, width=width, grid=False, seed=seed % 1000, decay=decay)
    if ties:
        exported = replace(exported, weight=(rng.integers(-5, 7, (2, width)) / np.float32(10)).astype(np.float32))
    features = rng.integers(0, 2, trace.features.shape).astype(np.float32) if ties else trace.features
    order = rng.permutation(width)
    current, gate_logit = (
        np.cumsum(features[..., order] * exported.weight[lane, order], axis=-1, dtype=np.float32)[..., -1]
        + exported.bias[lane]
        for lane in range(2)
    )
    fields = {k: v for k, v in fixtures.fields(trace).items() if k not in ("membrane", "spikes")}
    trace = fixtures.run_again(exported, {**fields, "features": features, "current": current, "gate_logit": gate_logit})
    judgement = judge(exported, trace, simulated(exported, trace))
    assert judgement.passed, {name: int(mask.sum()) for name, mask in judgement.outside.items()}


def test_long_lists_are_cut(without_lava: Callable[..., parity.Parity], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "LISTED_DIFFERENCES", 3)
    exported, trace = fixtures.make_trace()
    run = replace(own(trace), spikes=np.where(trace.valid, 1 - trace.spikes, 0).astype(np.int8))
    level = without_lava(exported, trace, {"readout": run}).report["levels"]["readout"]
    assert len(level["differences"]) == 3
    assert level["differences_listed"] == f"3 of {trace.length.sum()}"
    assert level["mismatches"] == trace.length.sum()


# --- the page


class Tags(html.parser.HTMLParser):
    """Start tags with their attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


@pytest.fixture
def page(without_lava: Callable[..., parity.Parity]) -> str:
    """A failed comparison of texts that try to become markup, with hostile metadata."""
    exported, trace = fixtures.make_trace(
        [
            "</script><script>alert(1)</script>",
            "<img src=x onerror=alert(2)>",
            "@@DATA@@ & \u2028 \ud800",
            "مرحبا بالعالم",
        ]
    )
    trace = Trace(**{**fixtures.fields(trace), "meta": {"device": "</dd><script>alert(3)</script>"}})
    run = replace(own(trace), spikes=np.where(trace.valid, 1 - trace.spikes, 0).astype(np.int8))
    result = without_lava(exported, trace, {"neuron": own(trace), "readout": run})
    return render(result.report, exported, trace, result.runs)


def test_texts_stay_texts(page: str) -> None:
    tags = Tags(page)
    assert [tag for tag, _ in tags.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in tags.tags]
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert not set("<>&") & set(tags.scripts[0])
    data = json.loads(tags.scripts[0])
    texts = {entry["row"]: "".join(entry["text"]) for entry in data["sequences"]}
    assert texts[0] == "</script><script>alert(1)</script>"
    assert texts[2] == "@@DATA@@ & \u2028 \ufffd\ufffd\ufffd"
    page.encode("utf-8")


def test_page_loads_nothing(page: str) -> None:
    tags = Tags(page)
    assert not [tag for tag, attributes in tags.tags if {"src", "href", "srcset"} & set(attributes)]
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert "@@" not in page.replace("@@DATA@@ & ", "").replace("@@DATA@@ \\u0026 ", "")


def test_page_shows_the_verdicts(page: str) -> None:
    assert '<h1 class="fail">Parity failed</h1>' in page
    assert page.count('class="badge pass"') == 2
    assert page.count('class="badge fail"') == 1
    assert "not explained" in page
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page


def test_sequences_that_differ_come_first_and_long_ones_are_cut(
    without_lava: Callable[..., parity.Parity], monkeypatch: pytest.MonkeyPatch
) -> None:
    from speak_neuro.sim.parity import report

    monkeypatch.setattr(report, "SHOWN_SEQUENCES", 3)
    monkeypatch.setattr(report, "SHOWN_POSITIONS", 10)
    exported, trace = fixtures.make_trace()
    spikes = trace.spikes.astype(np.int8)
    spikes[5, 0] ^= 1
    result = without_lava(exported, trace, {"neuron": replace(own(trace), spikes=spikes)})
    data = json.loads(Tags(render(result.report, exported, trace, result.runs)).scripts[0])
    assert [entry["row"] for entry in data["sequences"]] == [5, 0, 1]
    assert "got" in data["sequences"][0]
    assert "got" not in data["sequences"][1]
    assert (len(data["sequences"][1]["text"]), data["sequences"][1]["length"]) == (10, 49)
    assert data["total"] == 8
