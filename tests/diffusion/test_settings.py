"""Sampler settings: what is refused and how, and the way to generation_config.json and back."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.acceptance import EntropyBound, LinearQuota
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.settings import SETTINGS, SamplerSettings
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident

INTEGERS = {
    # name: (lowest, highest)
    "max_new_tokens": (1, 2**31 - 1),
    "canvas_length": (1, 2**16),
    "steps": (1, 4096),
    "seed": (0, 2**63 - 1),
    "index": (0, 2**31 - 1),
}
NUMBERS = ("t_min", "t_max", "temperature", "entropy_bound", "confidence_threshold", "entropy_limit")
NAMES = ("acceptance", "stopping")


def test_defaults_are_the_reference_samplers():
    settings = SamplerSettings()
    assert settings.steps == 48
    assert settings.schedule == LinearTemperature(t_min=0.4, t_max=0.8)
    assert settings.acceptance == EntropyBound(bound=0.1)
    assert settings.stopping == StableAndConfident(stability=1, confidence=0.005)


@pytest.mark.parametrize(("name", "low", "high"), [(name, *limits) for name, limits in INTEGERS.items()])
def test_integer_range(name, low, high):
    for good in (low, high):
        assert getattr(SamplerSettings.of(**{name: good}), name) == good
    for bad in (low - 1, high + 1, -(10**30), 10**30):
        with pytest.raises(ValueError, match=rf"^{name} is {bad}, must lie between {low} and {high}$"):
            SamplerSettings.of(**{name: bad})


@pytest.mark.parametrize("name", [*INTEGERS, "stability_threshold"])
@pytest.mark.parametrize(
    "bad", [True, False, 1.5, np.bool_(True), np.float32(0.5), 1e400, math.nan, math.inf, "3", [3], {}]
)
def test_what_is_no_integer(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} is .*, must be an? int"):
        SamplerSettings.of(**{name: bad})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "bad", [True, False, math.nan, math.inf, -math.inf, 10**400, "0.5", None, [0.5], 1j], ids=lambda bad: repr(bad)[:9]
)
def test_what_is_no_finite_number(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} is .*, must be a"):
        SamplerSettings.of(**{name: bad})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [None, 1, True, b"entropy_bound", ["entropy_bound"]])
def test_what_is_no_name(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} is .*, must be a str"):
        SamplerSettings.of(**{name: bad})


@pytest.mark.parametrize("name", ["max_new_tokens", "steps", "stability_threshold", "index"])
def test_null_where_a_number_must_be(name):
    with pytest.raises(ValueError, match=rf"^{name} is None, must be an? int"):
        SamplerSettings.of(**{name: None})


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.int8, np.uint64])
def test_numbers_of_numpy_and_whole_floats_are_taken_as_pythons_own(kind):
    given = dict.fromkeys((*INTEGERS, "temperature"), kind(3))
    for settings in (SamplerSettings(**given), SamplerSettings.of(**given), SamplerSettings().replace(**given)):
        assert {type(getattr(settings, name)) for name in given} == {int, float}
        assert settings == SamplerSettings.of(**dict.fromkeys(given, 3))
        assert json.loads(json.dumps(settings.flat()))["steps"] == 3


def test_whole_numbers_serve_as_floats():
    settings = SamplerSettings.of(t_min=1, t_max=2, temperature=1, entropy_bound=0, confidence_threshold=1)
    assert settings.schedule.at(1, 1) == 2
    assert settings.acceptance == EntropyBound(bound=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0.1, must lie between 0 and 100"),
        ({"temperature": 100.5}, r"temperature is 100.5, must lie between 0 and 100"),
        ({"t_min": 0}, r"t_min 0.* 0 < t_min <= t_max"),
        ({"t_min": -0.4}, r"t_min -0.4 .* 0 < t_min <= t_max"),
        ({"t_min": 0.9}, r"t_min 0.9 and t_max 0.8 must satisfy 0 < t_min <= t_max"),
        ({"t_max": 0.3}, r"t_min 0.4 and t_max 0.3 must satisfy 0 < t_min <= t_max"),
        ({"entropy_bound": -0.1}, r"entropy.bound is -0.1, must be at least 0"),
        ({"stability_threshold": -1}, r"stability.threshold is -1, must be at least 0"),
        ({"confidence_threshold": 0.0}, r"confidence.threshold is 0.0, must be above 0"),
        ({"confidence_threshold": -1}, r"confidence.threshold is -1, must be above 0"),
        ({"entropy_limit": 0.0, "stopping": "every_position_confident"}, r"entropy.limit is 0.0, must be above 0"),
        ({"acceptance": "llada"}, r"acceptance is 'llada', must be one of entropy_bound, linear_quota"),
        ({"stopping": "never"}, r"stopping is 'never', must be one of stable_and_confident, every_position_confident"),
    ],
)
def test_refusals_name_value_and_range(changes, message):
    with pytest.raises(ValueError, match=message):
        SamplerSettings.of(**changes)
    with pytest.raises(ValueError, match=message):
        SamplerSettings().replace(**changes)


def test_named_rules():
    settings = SamplerSettings.of(acceptance="linear_quota", stopping="every_position_confident", entropy_limit=0.25)
    assert settings.acceptance == LinearQuota()
    assert settings.stopping == EveryPositionConfident(limit=0.25)


def test_temperature_scales_the_schedule_but_zero_leaves_it():
    assert SamplerSettings.of(temperature=0.5).scaled_schedule == LinearTemperature(t_min=0.2, t_max=0.4)
    assert SamplerSettings.of(temperature=0).scaled_schedule == SamplerSettings.of(temperature=1).scaled_schedule


def test_equal_temperatures_are_allowed():
    assert SamplerSettings.of(t_min=0.5, t_max=0.5).schedule.at(3, 9) == 0.5


def test_replace_changes_a_copy():
    settings = SamplerSettings.of(seed=3)
    changed = settings.replace(steps=4, seed=None)
    assert (changed.steps, changed.seed) == (4, None)
    assert (settings.steps, settings.seed) == (48, 3)


def test_replace_refuses_unknown_names_and_tells_the_known():
    with pytest.raises(ValueError, match=r"unknown sampler setting 'step', 'top_p'; known: .*max_new_tokens.*index"):
        SamplerSettings().replace(top_p=0.9, step=3, seed=1)


def test_settings_cannot_be_changed_past_their_checks():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplerSettings().steps = 0  # type: ignore[misc]


RELEASED = {
    "_from_model_config": True,
    "bos_token_id": 2,
    "confidence_threshold": 0.01,
    "eos_token_id": [1, 106, 50],
    "max_denoising_steps": 32,
    "max_new_tokens": 512,
    "pad_token_id": 0,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.2},
    "stability_threshold": 2,
    "t_max": 0.9,
    "t_min": 0.3,
    "transformers_version": "5.23.0",
}


def test_reads_a_generation_config():
    assert SamplerSettings.from_generation_config(RELEASED) == SamplerSettings.of(
        max_new_tokens=512,
        steps=32,
        t_min=0.3,
        t_max=0.9,
        entropy_bound=0.2,
        stability_threshold=2,
        confidence_threshold=0.01,
    )


def test_nulls_and_absent_keys_are_defaults():
    assert SamplerSettings.from_generation_config({}) == SamplerSettings()
    nulls: dict[str, object] = dict.fromkeys(RELEASED)
    assert SamplerSettings.from_generation_config(nulls) == SamplerSettings()
    nulls["sampler_config"] = {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": None}
    assert SamplerSettings.from_generation_config(nulls) == SamplerSettings()


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        ({"_cls_name": "TopKSamplerConfig"}, "'TopKSamplerConfig'"),
        ({"entropy_bound": 0.1}, "None"),
        ({}, "None"),
        ("entropy_bound", "None"),
        ([], "None"),
    ],
)
def test_an_unknown_sampler_is_refused(sampler, named):
    with pytest.raises(ValueError, match=rf"sampler {named} is not known; known: EntropyBoundSamplerConfig"):
        SamplerSettings.from_generation_config({"sampler_config": sampler})


@pytest.mark.parametrize(
    ("key", "bad", "named"),
    [
        ("max_denoising_steps", 0, "steps"),
        ("max_denoising_steps", 1.5, "steps"),
        ("max_new_tokens", True, "max_new_tokens"),
        ("t_max", "0.8", "t_max"),
        ("t_min", 2.0, "t_min"),
        ("stability_threshold", -1, "stability.threshold"),
        ("confidence_threshold", 0, "confidence.threshold"),
        ("sampler_config", {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": "low"}, "entropy.bound"),
    ],
)
def test_bad_values_of_a_generation_config_are_refused(key, bad, named):
    with pytest.raises(ValueError, match=rf"^{named} "):
        SamplerSettings.from_generation_config({key: bad})


@given(
    max_new_tokens=st.integers(1, 10_000),
    steps=st.integers(1, 4096),
    t_min=st.floats(0.01, 1),
    t_max=st.floats(1, 5),
    entropy_bound=st.floats(0, 10),
    stability_threshold=st.integers(0, 9),
    confidence_threshold=st.floats(1e-6, 10),
)
def test_generation_config_round_trip(**changes):
    settings = SamplerSettings.of(**changes)
    config = json.loads(json.dumps(settings.to_generation_config()))
    assert SamplerSettings.from_generation_config(config) == settings
    assert config["sampler_config"]["_cls_name"] == "EntropyBoundSamplerConfig"
    assert config["max_denoising_steps"] == settings.steps


@pytest.mark.parametrize(
    "bad",
    [
        {"acceptance": "linear_quota", "entropy_bound": -1},
        {"entropy_limit": -5.0},
        {"stopping": "every_position_confident", "confidence_threshold": -1.0},
        {"stopping": "every_position_confident", "stability_threshold": -3},
        {"temperature": 1e-40},
        {"t_min": 1e-40, "t_max": 1e-40},
    ],
)
def test_settings_of_rules_that_are_not_chosen_are_checked_too(bad):
    with pytest.raises(ValueError, match=r"is -|is [0-9.]+e-"):
        SamplerSettings.of(**bad)


@pytest.mark.parametrize(
    "settings", [{"acceptance": "linear_quota"}, {"stopping": "every_position_confident"}, {"temperature": 0}]
)
def test_what_generation_config_cannot_hold_is_not_written(settings):
    with pytest.raises(ValueError, match=r"generation_config\.json has no key for"):
        SamplerSettings.of(**settings).to_generation_config()


def test_flat_names_say_everything_and_make_the_same_settings_again():
    settings = SamplerSettings.of(entropy_bound=0.3, stopping="every_position_confident", entropy_limit=0.2, seed=4)
    flat = settings.flat()
    assert flat["entropy_bound"] == 0.3
    assert flat["stopping"] == "every_position_confident"
    assert not {"stability_threshold", "confidence_threshold"} & flat.keys()
    assert SamplerSettings.of(**flat) == settings
    everything = SamplerSettings().flat() | SamplerSettings.of(stopping="every_position_confident").flat()
    assert everything.keys() == {setting.name for setting in SETTINGS}


def test_rules_can_be_given_as_they_are():
    rule = EveryPositionConfident(limit=0.5)
    assert SamplerSettings(stopping=rule) == SamplerSettings().replace(stopping=rule)
    assert SamplerSettings(stopping=rule).flat()["entropy_limit"] == 0.5
    with pytest.raises(ValueError, match=r"acceptance is 'entropy_bound', must be"):
        SamplerSettings(acceptance="entropy_bound")  # type: ignore[arg-type]


def test_a_rule_that_is_named_anew_has_its_own_defaults_and_the_same_one_keeps_its_numbers():
    settings = SamplerSettings.of(entropy_bound=0.3)
    assert settings.replace(acceptance="entropy_bound").acceptance == EntropyBound(bound=0.3)
    assert settings.replace(acceptance="linear_quota").replace(acceptance="entropy_bound").acceptance == EntropyBound()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"acceptance": "linear_quota", "entropy_bound": 0.2},
            "entropy_bound is 0.2, which requires acceptance 'entropy_",
        ),
        ({"entropy_limit": 0.2}, "entropy_limit is 0.2, which requires stopping 'every_position_confident'"),
        (
            {"stopping": "every_position_confident", "stability_threshold": 2},
            "requires stopping 'stable_and_confident'",
        ),
    ],
)
def test_a_number_of_a_rule_that_is_not_chosen_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SamplerSettings.of(**changes)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_table_and_the_rules_agree_on_what_is_allowed(setting):
    """Just inside the range of the table the settings are made, just outside neither way makes them."""
    rule = {"entropy_limit": {"stopping": "every_position_confident"}}.get(setting.name, {})
    for bound, outside in ((setting.minimum, -1), (setting.maximum, 1)):
        if bound is not None:
            assert SamplerSettings.of(**rule, **{setting.name: setting.type(bound)}).flat()[setting.name] == bound
            with pytest.raises(ValueError, match=setting.name):
                SamplerSettings.of(**rule, **{setting.name: setting.type(bound + outside)})
    if setting.part and (bound := setting.minimum if setting.above is None else setting.above) is not None:
        part, name = setting.field.split(".")
        made = type(getattr(SamplerSettings.of(**rule), part))
        with pytest.raises(ValueError, match=r"must be"):
            made(**{name: bound if setting.above is not None else bound - 1})


def test_the_table_is_read_without_torch():
    code = "import sys, redraft.diffusion.settings; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
