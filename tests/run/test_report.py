"""The page on a run: it is whole in itself, says what run.json says, and runs nothing that it shows."""

import base64
import html.parser
import json
import pathlib
import re

import pytest
from matplotlib.figure import Figure

from bilo_ppl.cli import main
from bilo_ppl.plots import save_figure
from bilo_ppl.run.report.html import figure, prose

RUN = ["run", "closed.py", "--operator", "numerical", "--sampler", "hmc", "--chains", "2"]
SHORT = ["--quiet", "--warmup", "20", "--samples", "40", "--out", "here"]


class Page(html.parser.HTMLParser):
    """Tags, the sources of images, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def ended(folder):
    assert main([*RUN, *SHORT]) == 0
    return pathlib.Path("here")


def read(path):
    page = Page(pathlib.Path(path).read_text())
    assert not page.open
    return page


def test_a_run_ends_with_a_page_of_its_own(ended):
    page, content = read(ended / "report.html"), json.loads((ended / "run.json").read_text())
    assert "report.html" in content["files"]
    said = " ".join(page.text.split())
    for found in (content["verdict"]["text"], content["problem"]["data"], "closed.py"):
        assert " ".join(found.split()) in said
    assert f"{content['summary']['D']['mean']:.4g}" in said
    assert f"{content['distances']['D']['exact_mean']:.4g}" in said
    assert said.count("D (m^2/s)") == 2  # the unknown, and its row
    # Nothing is loaded from elsewhere; all figures are there, whole.
    assert len(page.links) == len(list((ended / "figures").iterdir()))
    for link in page.links:
        kind, data = link.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert "script" not in page.tags


def test_it_can_be_made_again_and_elsewhere(ended, capsys):
    before = (ended / "report.html").read_text()
    (ended / "report.html").unlink()
    assert main(["report", "here"]) == 0
    assert capsys.readouterr().out.strip() == "here/report.html"
    assert (ended / "report.html").read_text() == before
    assert main(["report", "here", "--out", "page.html"]) == 0
    assert pathlib.Path("page.html").read_text() == before


def test_what_a_run_says_is_no_markup(ended):
    content = json.loads((ended / "run.json").read_text())
    content["problem"]["text"] = "u < 1 & <script>alert(1)</script>"
    content["alarms"] = ["<b>much</b>"]
    (ended / "run.json").write_text(json.dumps(content))
    assert main(["report", "here"]) == 0
    page = read(ended / "report.html")
    assert {"script", "b"} & set(page.tags) == set()
    assert "u < 1 & <script>alert(1)</script>" in page.text
    assert "<b>much</b>" in page.text


def test_of_a_run_that_has_no_verdict_it_says_so(ended):
    content = json.loads((ended / "run.json").read_text())
    for name in ("verdict", "summary", "distances", "problem", "fit"):
        del content[name]
    content["status"] = "interrupted in adapt"
    (ended / "run.json").write_text(json.dumps(content))
    assert main(["report", "here"]) == 0
    assert "No verdict: the run is interrupted in adapt." in read(ended / "report.html").text


def test_estimates_have_one_too(folder):
    single = [
        "map",
        "closed.py",
        "--operator",
        "numerical",
        "--seeds",
        "1",
        "--quiet",
        "--out",
        "one",
    ]
    assert main(single) == 0
    text = read("one/report.html").text
    assert "relative error" in text
    assert "Inner solver: none, the numerical operator of the model file." in text
    options = ["--operator", "numerical", "--seeds", "2", "--quiet", "--out", "here"]
    assert main(["map", "closed.py", *options]) == 0
    page = read("here/report.html")
    theta = json.loads(pathlib.Path("here/map.json").read_text())["theta"]
    assert "D (m^2/s)" in page.text
    for found in theta:
        assert f"{found['D']:.4g}" in page.text
    assert re.search(r"data seed 1", page.text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nowhere holds no run"),
        ("[]", "holds no run"),
        ('{"versions": {"bilo-ppl": "1"}, "summary": 3}', "is not as a run writes it"),
    ],
)
def test_what_is_no_run_is_refused(folder, capsys, content, message):
    if content is not None:
        pathlib.Path("nowhere").mkdir()
        pathlib.Path("nowhere/run.json").write_text(content)
    assert main(["report", "nowhere"]) == 2
    assert message in capsys.readouterr().err
    assert not pathlib.Path("nowhere/report.html").exists()


def test_panels_in_a_row_have_the_breadth_of_the_page(tmp_path):
    for size, broad in (((9, 3), True), ((6.4, 2.7), False), ((6.4, 3.6), False)):
        save_figure(Figure(figsize=size), tmp_path / "panels.png")
        assert ('class="broad"' in figure(tmp_path / "panels.png", "Panels.")) is broad


def test_formulas_and_items_keep_their_lines_and_prose_does_not():
    said = prose("    u'' = f,\n    u(0) < 1:\n\nhere f\nis known.\n  \n- a\n- b")
    assert said == (
        "<pre>u&#x27;&#x27; = f,\nu(0) &lt; 1:</pre><p>here f\nis known.</p><pre>- a\n- b</pre>"
    )
