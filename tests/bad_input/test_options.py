"""Options that cannot be meant, alone or together."""

import argparse
import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilo_ppl.run import BadInputError, MapSettings, SampleSettings
from bilo_ppl.run.options import add_options

WHOLE = {
    "run": (
        "data-seed", "seed", "points", "width", "depth", "fourier", "rank", "max-inner-steps",
        "devices", "chains", "warmup", "samples",
    ),
    "map": (
        "data-seed", "seed", "points", "width", "depth", "fourier", "rank", "max-inner-steps",
        "devices", "seeds", "steps",
    ),
}  # fmt: skip
NUMBERS = {"run": ("tol",), "map": ("tol", "noise", "learning-rate")}
CHOICES = {
    "run": ("operator", "fine-tune", "inner", "sensitivity", "sampler", "chain-method", "init"),
    "map": ("operator", "fine-tune", "inner", "sensitivity", "method", "optimizer"),
}
PATHS = ("data", "operator-file", "out")

ALONE = [
    *((c, o, v, "invalid int value") for c in WHOLE for o in WHOLE[c] for v in ("two", "1.5")),
    *((c, o, "-1", "least is") for c in WHOLE for o in WHOLE[c]),
    *((c, o, str(2**63), "greatest is") for c in WHOLE for o in WHOLE[c]),
    *((c, o, v, "invalid float value") for c in NUMBERS for o in NUMBERS[c] for v in ("two", "1,5")),
    *((c, o, v, o.replace("-", "_") + " is ") for c in NUMBERS for o in NUMBERS[c]
      for v in ("nan", "inf", "-1")),
    *((c, o, v, "invalid choice") for c in CHOICES for o in CHOICES[c] for v in ("best", "")),
    *((c, o, "", "is empty") for c in CHOICES for o in PATHS),
    *((c, o, "a\0b", "zero byte") for c in CHOICES for o in PATHS),
    *((c, o, None, "expected one argument") for c in WHOLE for o in (*WHOLE[c], *PATHS)),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option", "value", "message"), ALONE)
def test_a_value_that_cannot_be_meant(refused, known, command, option, value, message):
    arguments = [f"--{option}"] if value is None else [f"--{option}", value]
    said = refused(command, "line.py", *arguments, saying=message)
    assert option in said or option.replace("-", "_") in said


TOGETHER = [
    ("run", "--operator numerical --rank 2", "--rank"),
    ("run", "--operator numerical --tol 1e-4", "--tol"),
    ("run", "--operator numerical --max-inner-steps 5", "--max-inner-steps"),
    ("run", "--operator numerical --inner adam", "--inner"),
    ("run", "--operator numerical --sensitivity implicit", "--sensitivity"),
    ("run", "--operator numerical --fine-tune output-layer", "--operator"),
    ("run", "--operator numerical --operator-file a.eqx", "--operator-file"),
    ("run", "--operator numerical --points 9", "--points"),
    ("run", "--operator numerical --width 9", "--width"),
    ("run", "--operator numerical --depth 1", "--depth"),
    ("run", "--operator numerical --fourier 3", "--fourier"),
    ("run", "--operator numerical --devices 2", "--devices"),
    ("map", "--operator numerical --rank 2", "--rank"),
    ("map", "--operator numerical --tol 1e-4", "--tol"),
    ("map", "--operator numerical --method simultaneous", "no weights"),
    ("run", "--operator-file a.eqx --width 9", "--width"),
    ("run", "--operator-file a.eqx --depth 2", "--depth"),
    ("run", "--operator-file a.eqx --points 9", "--points"),
    ("run", "--fine-tune output-layer --depth 2", "--depth"),
    ("run", "--fine-tune output-layer --fourier 2", "--fourier"),
    ("run", "--fine-tune output-layer --operator-file a.eqx", "--operator-file"),
    ("run", "--fine-tune output-layer --inner adam", "--inner"),
    ("run", "--fine-tune output-layer --sensitivity partial", "--sensitivity"),
    ("run", "--fine-tune output-layer --rank 2", "--rank"),
    ("run", "--data data.csv --data-seed 3", "--data-seed"),
    ("map", "--data data.csv --data-seed 3", "--data-seed"),
    ("map", "--data data.csv --seeds 3", "--seeds"),
    ("map", "--data data.csv --noise 0.1", "--noise"),
    ("map", "--learning-rate 0.1", "--learning-rate"),
    ("map", "--learning-rate 0.1 --optimizer lbfgs", "--learning-rate"),
    ("map", "--learning-rate 0.1 --optimizer gauss-newton", "--learning-rate"),
    ("map", "--method simultaneous --optimizer lbfgs", "--optimizer adam"),
    ("map", "--method simultaneous --optimizer gauss-newton", "--optimizer adam"),
    ("map", "--sensitivity partial", "invalid choice"),
    ("run", "--noise 0.1", "unrecognized arguments: --noise"),
    ("map", "--chains 3", "unrecognized arguments: --chains"),
    ("run", "--devices 3", "JAX has 1 here"),
    ("run", "--points 3", "--points 3 are too few"),
    ("run", "--rank 100", "rank 100 is not between"),
    ("map", "--rank 17", "rank 17 is not between"),
    ("map", "--noise 0.1", "no argument noise"),
    ("run", "--chains 1000 --samples 10000000", "numbers"),
    ("run", "a b", "unrecognized arguments: b|a b"),
    ("run", "--samp", "ambiguous|expected one argument"),
]


@pytest.mark.parametrize(("command", "line", "message"), TOGETHER)
def test_options_of_which_one_would_be_without_effect(refused, known, command, line, message):
    refused(command, "line.py", *line.split(), saying=message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["walk"], "invalid choice: 'walk'"),
        (["run"], "required: model"),
        (["map"], "required: model"),
        (["run", ""], "model is empty"),
        (["run", "nothing"], "unknown model 'nothing'; the short names are: .*poisson"),
        (["run", "no/such.py"], "there is no model file no/such.py"),
        (["run", "such.py"], "there is no model file such.py"),
        (["run", "."], "unknown model '.'"),
        (["run", "../"], "no model file"),
        (["run", "x" * 300 + ".py"], "no model file|too long"),
        (["run", "a\0b.py"], "zero byte"),
        (["run", "line.py", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["-q", "run"], "required|unrecognized|invalid"),
    ],
)
def test_a_command_that_is_none(refused, folder, arguments, message):
    refused(*arguments, saying=message)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SampleSettings, {"samples": 10**18}, "samples is 1000000000000000000; the greatest is"),
        (SampleSettings, {"seed": 2**63}, "seed is 9223372036854775808; the greatest is"),
        (SampleSettings, {"rank": -1}, "rank is -1; the least is 0"),
        (SampleSettings, {"sampler": "gibbs"}, "sampler is 'gibbs'; it must be one of"),
        (SampleSettings, {"chains": True}, "chains is True; it must be a whole number"),
        (SampleSettings, {"seed": 10**5000}, "seed is a number of many digits"),
        (MapSettings, {"sensitivity": "partial"}, "adapted operator only"),
        (MapSettings, {"seeds": 0}, "seeds is 0; the least is 1"),
        (MapSettings, {"noise": float("nan")}, "noise is nan"),
        (MapSettings, {"learning_rate": 0.0}, "learning_rate is 0; it must be positive"),
    ],
)
def test_settings_from_python(kind, values, message):
    with pytest.raises(BadInputError, match=message):
        kind("poisson", **values)


OPTIONS = st.sampled_from([(c, o) for c in WHOLE for o in (*WHOLE[c], *NUMBERS[c], *CHOICES[c])])


@given(which=OPTIONS, text=st.text(max_size=12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_text_is_a_value_or_refused(which, text):
    """No text whatever makes anything but settings, or an error of two kinds."""
    command, option = which
    kind = {"run": SampleSettings, "map": MapSettings}[command]
    parser = argparse.ArgumentParser()
    add_options(parser, kind)
    status: int | str | None = 2
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            kind(**vars(parser.parse_args(["poisson", f"--{option}={text}"])))
        except BadInputError as error:
            said.write(str(error))
        except SystemExit as end:
            status = end.code
        else:
            said.write("accepted")
    assert status == 2
    assert said.getvalue().strip()
