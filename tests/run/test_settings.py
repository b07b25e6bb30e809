"""Options: one definition for the parser, its help, the checks, and run.json."""

import argparse
import dataclasses
import json
import pathlib
from typing import ClassVar

import numpy as np
import pytest

from bilo_ppl.cli import main
from bilo_ppl.run import BadInputError, MapSettings, SampleSettings, sample_model
from bilo_ppl.run.options import add_options, changed, check_options, option


@dataclasses.dataclass(frozen=True)
class Base:
    GROUPS: ClassVar = ("sizes",)
    name: str = option(help="a name")
    width: int = option(3, least=1, group="sizes", help="a width")
    speed: float = option(0.5, positive=True, rule="nothing stands still", help="a speed")
    limit: int | None = option(None, least=0, unset="none at all", help="a limit")
    kind: str = option("a", choices=("a", "b"), help="a kind")
    loud: bool = option(False, help="be loud")
    safe: bool = option(True, help="do not be safe")


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    kind: str = changed(Base, "kind", default="b", choices=("b",))


def parsed(settings_class, *arguments):
    parser = argparse.ArgumentParser()
    add_options(parser, settings_class)
    return settings_class(**vars(parser.parse_args(arguments)))


def test_the_parser_has_the_defaults_of_the_class():
    assert parsed(Base, "x") == Base("x")
    assert parsed(Derived, "x") == Derived("x", kind="b")


def test_flags_have_the_names_and_types_of_the_fields():
    given = [
        "x",
        "--width",
        "7",
        "--speed",
        "2",
        "--limit",
        "1",
        "--kind",
        "b",
        "--loud",
        "--no-safe",
    ]
    assert parsed(Base, *given) == Base(
        "x", width=7, speed=2.0, limit=1, kind="b", loud=True, safe=False
    )


def test_the_help_shows_defaults_and_groups():
    parser = argparse.ArgumentParser()
    add_options(parser, Base)
    text = parser.format_help()
    for line in ("a width (default: 3)", "a limit (default: none at all)", "--kind {a,b}"):
        assert line in text
    for line in ("--loud", "be loud\n", "--no-safe", "do not be safe\n", "sizes:\n  --width WIDTH"):
        assert line in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "width is 0; the least is 1"),
        ("width", "two", "width is 'two'; it must be a whole number"),
        ("width", 2.0, "width is 2; it must be a whole number"),
        ("width", True, "width is True; it must be a whole number"),
        ("width", None, "width is None; it must be a whole number"),
        ("speed", 0.0, "speed is 0; nothing stands still"),
        ("speed", float("nan"), "speed is nan; nothing stands still"),
        ("speed", float("inf"), "speed is inf; nothing stands still"),
        ("speed", "fast", "speed is 'fast'; it must be a number"),
        ("limit", -1, "limit is -1; the least is 0"),
        ("kind", "c", "kind is 'c'; it must be one of a, b"),
        ("loud", 1, "loud is 1; it must be True or False"),
        ("name", 3, "name is 3; it must be text"),
    ],
)
def test_wrong_values_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_options(Base(**{"name": "x", name: value}))


def test_good_values_of_other_types_pass():
    check_options(Base(pathlib.Path("x"), width=np.int64(4), speed=1, limit=None))


@pytest.mark.parametrize("settings_class", [SampleSettings, MapSettings])
def test_settings_from_python_are_checked_as_those_of_the_command(settings_class):
    with pytest.raises(BadInputError, match="tol is 0; the tolerance on the loss must be positive"):
        settings_class("poisson", tol=0.0)
    with pytest.raises(BadInputError, match="inner is 'newton'; it must be one of lm, adam"):
        settings_class("poisson", inner="newton")
    with pytest.raises(TypeError, match="positional"):
        settings_class("poisson", "data.csv")


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(BadInputError, match="right for an adapted operator only"):
        MapSettings("poisson", sensitivity="partial")
    with pytest.raises(BadInputError, match="use --optimizer adam"):
        MapSettings("poisson", method="simultaneous", optimizer="lbfgs")


def test_defaults_that_depend_on_other_options():
    run = SampleSettings("poisson")
    assert (run.chosen_sensitivity, run.inner_limit) == ("partial", 6)
    run = SampleSettings("poisson", adapt=False)
    assert (run.chosen_sensitivity, run.inner_limit) == ("implicit", 20)
    run = SampleSettings("poisson", sampler="bilo-hmc", inner="adam")
    assert (run.chosen_sensitivity, run.inner_limit) == ("residual-gradient", 2000)
    estimate = MapSettings("poisson")
    assert (estimate.chosen_inner, estimate.chosen_optimizer) == ("lm", "auto")
    estimate = MapSettings("poisson", method="simultaneous")
    assert (estimate.chosen_inner, estimate.chosen_optimizer) == ("adam", "adam")
    assert estimate.chosen_sensitivity == "residual-gradient"


def test_the_operators_that_are_written_follow_from_the_options():
    both = {"operator.eqx", "operator-adapted.eqx"}
    assert both < {*SampleSettings("poisson").written}
    assert both & {*SampleSettings("poisson", operator="numerical").written} == set()
    again = SampleSettings("poisson", operator_file="a.eqx")
    assert both & {*again.written} == {"operator-adapted.eqx"}
    assert both & {*MapSettings("poisson").written} == {"operator.eqx"}


@pytest.mark.parametrize("command", ["run", "map"])
def test_the_help_of_the_command_names_every_option(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    settings_class = {"run": SampleSettings, "map": MapSettings}[command]
    for field in dataclasses.fields(settings_class)[1:]:
        flag = field.name.replace("_", "-")
        assert f"  --{flag}" in text or f"  --no-{flag}" in text
    assert "(default: None)" not in text
    assert f"runs/MODEL-{'SAMPLER' if command == 'run' else 'map-METHOD'}" in text


def test_a_run_from_python(folder):
    """Paths may be objects; run.json has every option, as it was given."""
    settings = SampleSettings(
        folder / "closed.py",
        operator="numerical",
        sampler="hmc",
        chains=1,
        warmup=3,
        samples=6,
        out=folder / "here",
        quiet=True,
    )
    assert sample_model(settings) == 0
    found = json.loads((folder / "here" / "run.json").read_text())["arguments"]
    assert found == dataclasses.asdict(settings) | {
        "model": str(settings.model),
        "out": str(settings.out),
    }
    with pytest.raises(BadInputError, match="holds the results of another run"):
        sample_model(settings)
