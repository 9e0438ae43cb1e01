"""Configuration: validation, JSON and flags come from one declaration."""

import argparse
import dataclasses
import json

import pytest

from speak_neuro.common.settings import add_flags, from_dict, override, to_dict
from speak_neuro.config import ModelConfig, NeuronConfig, RunConfig, TokenizerConfig, TrainingConfig
from speak_neuro.errors import SpeakError


def test_json_round_trip() -> None:
    config = RunConfig(training=TrainingConfig(steps=7, entropy="max"), tokenizer=TokenizerConfig(encoder="linear"))
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NeuronConfig(decay=1.5), r"decay is 1.5; allowed: 0.0 to 1.0"),
        (lambda: NeuronConfig(reset_mode="half"), r"reset_mode is 'half'; allowed: gated, hard"),
        (lambda: NeuronConfig(threshold=float("nan")), r"threshold is nan; allowed: finite numbers"),
        (lambda: NeuronConfig(reset_potential=1.0), r"threshold is 1.0; allowed: above reset_potential 1.0"),
        (lambda: ModelConfig(width=10, heads=4), r"width is 10; allowed: a multiple of heads, 4"),
        (lambda: TrainingConfig(window=1), r"window is 1; allowed: at least 2"),
        (lambda: TrainingConfig(rest_mix=1.0), r"rest_mix is 1.0; allowed: 0.0 to 0.99"),
    ],
)
def test_a_bad_value_is_named(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["training"].pop("steps"), r"field 'steps' is missing"),
        (lambda d: d["training"].update(wings=2), r"unknown field 'wings'"),
        (lambda d: d["training"].update(steps="7"), r"training.steps: found '7'; allowed: int"),
        (lambda d: d.update(neuron=[]), r"neuron: found list; allowed: an object"),
        (lambda d: d["neuron"].update(decay=-1.0), r"decay is -1.0"),
        (lambda d: d["training"].update(steps=True), r"found True"),
    ],
)
def test_a_bad_file_is_named(change, message) -> None:
    values = to_dict(RunConfig())
    change(values)
    with pytest.raises(SpeakError, match=message):
        from_dict(RunConfig, values)


def test_a_field_that_an_older_file_lacks_has_the_value_it_stood_for() -> None:
    values = to_dict(RunConfig())
    del values["model"]["norm"], values["training"]["acceptance_share"]
    found = from_dict(RunConfig, values)
    assert RunConfig().model.norm == "pre"
    assert found.model.norm == "post"  # every run before there was a choice
    assert found.training.acceptance_share == 1.0


def test_an_integer_is_a_good_float() -> None:
    values = to_dict(RunConfig())
    values["neuron"]["decay"] = 1
    assert from_dict(RunConfig, values).neuron.decay == 1.0


def test_flags_override_only_what_is_given() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, RunConfig)
    base = RunConfig(training=TrainingConfig(steps=5, batch=3))
    given = parser.parse_args(["--steps", "9", "--no-rest-term", "--encoder", "linear"])
    changed = override(base, given)
    assert changed.training == dataclasses.replace(base.training, steps=9, rest_term=False)
    assert changed.tokenizer.encoder == "linear"
    assert override(base, parser.parse_args([])) == base


def test_every_field_has_a_flag_and_help() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, RunConfig)
    text = parser.format_help()
    for section in dataclasses.fields(RunConfig):
        for item in dataclasses.fields(section.default_factory):
            assert (item.metadata["flag"] or "--" + item.name.replace("_", "-")) in text
            assert item.metadata["help"]


def test_a_setting_that_is_gone_reads_as_what_is_left() -> None:
    """Configurations of before hold it; with another value than today's only way, the run was another one."""
    values = to_dict(RunConfig())
    values["training"] |= {"proxy": "exemplar", "proxy_rate": 0.7, "boundary_gradient": False}
    assert from_dict(RunConfig, values) == RunConfig()
    values["training"]["proxy"] = "entropy"
    with pytest.raises(SpeakError, match=r"training\.proxy: found 'entropy'; this version has 'exemplar' alone"):
        from_dict(RunConfig, values)
