"""The verdict of a run, as the command says and returns it."""

import hashlib
import json
import pathlib
import sys

import pytest

from bilo_ppl.cli import main

FEW = ["--operator", "numerical", "--sampler", "hmc", "--chains", "2", "--warmup", "20"]


def record(folder="closed-hmc"):
    return json.loads((pathlib.Path("runs") / folder / "run.json").read_text())


def test_few_draws_are_doubtful_and_that_counts_where_it_is_asked_for(folder, capsys):
    assert main(["run", "closed.py", *FEW, "--samples", "10"]) == 0
    out, err = capsys.readouterr()
    last = out.strip().splitlines()[-1]
    assert last.startswith("Verdict: DOUBTFUL because ")
    assert f"WARNING: {last}" in err
    found = record()
    assert found["verdict"]["state"] == "DOUBTFUL"
    assert found["verdict"]["text"] == last
    advice = found["verdict"]["advice"]
    assert advice
    assert "\n".join(["What to do:", *(f"  {text}." for text in advice), "", last]) in out
    page = pathlib.Path("runs/closed-hmc/report.html").read_text()
    assert all(f"<li>{text}</li>" in page for text in advice)
    assert found["status"] == "finished"
    strict = [*FEW, "--samples", "10", "--overwrite", "--strict", "--quiet"]
    assert main(["run", "closed.py", *strict]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert f"WARNING: {last}" in err


def test_enough_draws_are_right(folder, capsys):
    arguments = ["--operator", "numerical", "--sampler", "hmc", "--strict", "--quiet"]
    assert main(["run", "closed.py", *arguments]) == 0
    out, err = capsys.readouterr()
    assert (out, "Verdict" in err) == ("", False)
    found = record()["verdict"]
    assert found["state"] == "RIGHT"
    assert found["reasons"] == found["unchecked"] == found["advice"] == []
    assert "means as on the grid" in found["checked"]


def test_a_run_in_which_every_transition_diverges_has_failed(folder, capsys, monkeypatch):
    # Steps that no adaptation shortens: without warm-up the first step stays.
    monkeypatch.setattr("bilo_ppl.run.sample.kernel.FIRST_STEP", 1e12)
    arguments = ["--operator", "numerical", "--sampler", "hmc", "--chains", "2", "--warmup", "0"]
    assert main(["run", "closed.py", *arguments, "--samples", "8", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "Verdict: FAILED because all 16 transitions diverged" in err
    found = record()
    assert found["verdict"]["state"] == "FAILED"
    assert found["status"].startswith("failed: Verdict: FAILED because all 16")
    assert pathlib.Path("runs/closed-hmc/posterior.nc").is_file()


@pytest.mark.parametrize("command", ["run", "map"])
def test_run_json_says_where_everything_is_from(folder, command):
    pathlib.Path("data.csv").write_text("x,y,sigma\n0.25,0.7,0.1\n0.5,1.0,0.1\n0.75,0.7,0.1\n")
    few = FEW[2:] if command == "run" else []
    more = [*few, "--samples", "6"] if command == "run" else []
    arguments = ["closed.py", "--operator", "numerical", "--data", "data.csv", "--quiet", *more]
    main([command, *arguments])
    found = record("closed-hmc" if command == "run" else "closed-map-nested")
    for name, file in (("model", "closed.py"), ("data", "data.csv")):
        content = pathlib.Path(file).read_bytes()
        assert found["inputs"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert found["inputs"][name]["path"] == file
    for entry in ("started", "written"):
        assert found[entry].endswith("+00:00")
    assert found["started"] <= found["written"]
    assert found["command_line"] == sys.argv
    assert found["platform"]["host"]
    assert found["versions"]["jaxlib"][0].isdigit()
    assert found["verdict"]["state"] in ("RIGHT", "DOUBTFUL")
