"""The page: self-contained, escaped, whole whatever is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compressl.report import write_report
from compressl.runs import RunFolder

from .conftest import MakeRun, answers, evaluation, metrics, sheet

VOID = {"meta", "img", "br", "link", "input", "hr"}
ONE_LINE = [{"step": 1, "epoch": 0, "loss": 1.0}]
HOSTILE = '<script>alert(1)</script>&"x'


class Reader(HTMLParser):
    """Checks that tags are balanced and keeps elements and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(runs: list[RunFolder], tmp_path: Path, **options: str) -> str:
    write_report(runs, tmp_path / "page.html", **options)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def check_self_contained(page: str) -> None:
    """Nothing runs and nothing is loaded."""
    assert "http" not in page.lower()
    assert not re.search(r"<(script|link|iframe|object|embed|base|form)\b", page, re.IGNORECASE)
    assert "@import" not in page
    assert "javascript:" not in page.lower()
    for tag, attributes in Reader(page).elements:
        assert not [name for name in attributes if name.startswith("on")]
        if "src" in attributes:
            assert (tag, str(attributes["src"])[:22]) == ("img", "data:image/png;base64,")
        assert not ({"srcset", "srcdoc", "xlink:href", "action"} & attributes.keys())
        assert str(attributes.get("href", "#")).startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", page))


def full(make_run: MakeRun, name: str = "run", share: float = 0.8, **more: object) -> RunFolder:
    return make_run(name, evaluated=evaluation(answers(share)), images=True, **more)  # type: ignore[arg-type]


def test_one_full_run(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_of([full(make_run)], tmp_path)
    check_self_contained(page)
    for section in ("results", "training", "neighbors", "views", "record"):
        assert f'id="{section}"' in page
    assert "compressl pretrain --config run/config.toml" in page
    assert "80.0\u202f%" in page
    assert "Abacus" in page
    assert "Settings that differ" not in page


def test_several_runs(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [full(make_run, "squeezed"), full(make_run, "plain", 0.6, method="simclr", beta=0.0)]
    page = page_of(runs, tmp_path)
    check_self_contained(page)
    assert "Settings that differ" in page
    assert re.search(r"method\.beta</th><td>1\.0</td><td>0\.0</td>", page)
    assert "batch_size</th>" not in page  # the same in both
    assert page.count(">random encoder</th>") == 1
    assert page.count("<img ") == 4
    assert "compare shapes, not heights" in page
    loss = next(a["aria-label"] for a in Reader(page).all("svg") if str(a["aria-label"]).startswith("Loss"))
    assert loss
    assert "squeezed from" in loss
    assert "plain from" in loss


def test_baselines_that_differ_are_all_shown(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [full(make_run, "a", lines=ONE_LINE)]
    runs.append(make_run("b", lines=ONE_LINE, evaluated=evaluation(answers(0.7), random=answers(0.2))))
    page = page_of(runs, tmp_path)
    assert ">random encoder (a)</th>" in page
    assert ">random encoder (b)</th>" in page
    assert page.count(">raw pixels</th>") == 1


def test_other_test_images_get_another_table(make_run: MakeRun, tmp_path: Path) -> None:
    other = evaluation(answers(0.7), fingerprint="other")
    runs = [full(make_run, "a", lines=ONE_LINE), make_run("b", lines=ONE_LINE, evaluated=other)]
    assert page_of(runs, tmp_path).count('aria-label="Results"') == 2


@pytest.mark.parametrize("several", [False, True])
def test_what_users_write_is_escaped(make_run: MakeRun, tmp_path: Path, several: bool) -> None:
    name = HOSTILE.replace("/", "\u2215")  # a file name holds no slash
    lines = [*metrics(100), {"step": 100, "epoch": 1, "event": HOSTILE}]
    hostile = evaluation(answers(0.8), classes=(HOSTILE, "</style><b>"), name=HOSTILE)
    hostile["protocol"]["knn"] = HOSTILE
    hostile["data"]["split"] = HOSTILE
    run = make_run(name, status="failed", reason=HOSTILE, lines=lines, evaluated=hostile, images=True)
    run.config.write_text(f"epochs = 4\nnote = '{HOSTILE}'\n[method]\nname = '{HOSTILE}'\n")
    run.environment.write_text(json.dumps({HOSTILE: HOSTILE}))
    runs = [run, full(make_run, "<b>other</b>")] if several else [run]
    page = page_of(runs, tmp_path, title=HOSTILE, lead=HOSTILE)
    check_self_contained(page)
    assert "alert(1)" in page
    assert "<script" not in page
    assert "<b>other" not in page
    assert "".join(Reader(page).text).count(HOSTILE) >= 8


def test_every_figure_is_described(make_run: MakeRun, tmp_path: Path) -> None:
    reader = Reader(page_of([full(make_run)], tmp_path))
    assert len(reader.all("svg")) == 11
    for svg in reader.all("svg"):
        assert svg["role"] == "img"
        assert len(svg["aria-label"] or "") > 30
    assert len(reader.all("img")) == 2
    assert all(len(image["alt"] or "") > 30 for image in reader.all("img"))
    assert reader.all("html")[0]["lang"] == "en"


def test_identifiers_are_unique(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_of([full(make_run, "a"), full(make_run, "b", 0.7)], tmp_path)
    names = [a["id"] for _, a in Reader(page).elements if "id" in a]
    assert len(names) == len(set(names))
    used = set(re.findall(r'url\(#([^)]+)\)|\bhref="#([^"]+)"', page))
    assert {a or b for a, b in used} <= set(names)


def test_figures_take_their_colors_from_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    page = page_of([full(make_run, "a"), full(make_run, "b", 0.7)], tmp_path)
    body = page.partition("</style>")[2]
    assert not re.search(r"(fill|stroke|color): ?#[0-9a-f]", body)
    assert "font-family" not in body
    for variable in ("--ink", "--muted", "--grid", "--run-0", "--run-1"):
        assert f"var({variable})" in body
        assert f"{variable}:" in page


def test_same_input_same_page(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [full(make_run, "a", lines=metrics(100)), full(make_run, "b", 0.7, lines=ONE_LINE)]
    first = page_of(runs, tmp_path)
    assert page_of(runs, tmp_path) == first
    run = runs[0]
    write_report([run], run.path / "report.html")
    alone = (run.path / "report.html").read_text()
    write_report([run], run.path / "report.html")
    assert (run.path / "report.html").read_text() == alone


@pytest.mark.parametrize("missing", ["evaluation.json", "views.png", "neighbors.png", "metrics.jsonl", "config.toml"])
def test_a_missing_piece_costs_only_itself(make_run: MakeRun, tmp_path: Path, missing: str) -> None:
    runs = [full(make_run, "a", lines=ONE_LINE), full(make_run, "b", 0.7, lines=ONE_LINE)]
    (runs[0].path / missing).unlink()
    check_self_contained(page_of(runs, tmp_path))
    page = page_of(runs[:1], tmp_path)
    check_self_contained(page)
    section = {"evaluation.json": "results", "views.png": "views", "neighbors.png": "neighbors"}.get(missing)
    assert section is None or f'id="{section}"' not in page
    assert ('id="results"' in page) == (missing != "evaluation.json")


@pytest.mark.parametrize("file", ["evaluation.json", "run.json", "config.toml", "environment.json", "views.png"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe{", b"[1, 2]", b'{"results": 3, "data": {}}', b"\x89PNG\r\n\x1a\n cut"]
)
def test_a_damaged_piece_costs_only_itself(make_run: MakeRun, tmp_path: Path, file: str, content: bytes) -> None:
    run = make_run(images=True, lines=ONE_LINE)
    (run.path / file).write_bytes(content)
    page = page_of([run], tmp_path)
    check_self_contained(page)
    if file == "evaluation.json":
        assert "evaluation.json is damaged" in page
    if file == "views.png":
        assert 'id="views"' not in page


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    page = page_of([RunFolder(tmp_path / "empty")], tmp_path)
    check_self_contained(page)
    assert "no step is on record" in page


def test_a_cut_off_line_and_values_that_are_not_finite(make_run: MakeRun, tmp_path: Path) -> None:
    lines = [*metrics(60), {"step": 70, "epoch": 0, "loss": float("nan"), "gradient_norm": 0.0}, {"no": "step"}]
    run = make_run(status="running", lines=lines)
    with run.metrics.open("a") as file:
        file.write('3\n{"step": 80, "epo')
    page = page_of([run], tmp_path)
    check_self_contained(page)
    assert "step 70" in page
    assert "nan" not in page.partition("</style>")[2].lower()


@pytest.mark.parametrize(
    ("status", "words"), [("running", "still running"), ("failed", "boom"), ("interrupted", "was interrupted")]
)
def test_a_run_that_is_not_finished_says_so(make_run: MakeRun, tmp_path: Path, status: str, words: str) -> None:
    run = make_run(status=status, reason="boom" if status == "failed" else None, lines=ONE_LINE)
    page = page_of([run], tmp_path)
    assert words in re.findall(r"<h1>(.*?)</h1>", page)[0]
    other = full(make_run, "other", lines=ONE_LINE)
    assert words in page_of([other, run], tmp_path)


def test_events_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    quiet = page_of([make_run("quiet", lines=ONE_LINE)], tmp_path)
    assert "No step was skipped and no alarm went off." in quiet
    lines = [*ONE_LINE, *({"step": s, "epoch": 0, "event": f"Step {s} was skipped."} for s in range(51, 76))]
    loud = page_of([make_run("loud", lines=lines)], tmp_path)
    assert "Step 51 was skipped." in loud
    assert "and 5 more" in loud
    assert "no alarm" not in loud


def test_batches_that_differ_are_plotted_by_images(make_run: MakeRun, tmp_path: Path) -> None:
    a, b, c = (make_run(n, lines=ONE_LINE, batch=size) for n, size in (("a", 256), ("b", 256), ("c", 512)))
    assert ">step<" in page_of([a, b], tmp_path)
    assert ">images seen<" not in page_of([a, b], tmp_path)
    assert ">images seen<" in page_of([a, c], tmp_path)


def test_pictures_are_embedded_whole(make_run: MakeRun, tmp_path: Path) -> None:
    import base64

    run = make_run(images=True)
    found = re.findall(r'src="data:image/png;base64,([^"]+)" width="(\d+)"', page_of([run], tmp_path))
    assert [base64.b64decode(data) for data, _ in found] == [sheet(9), sheet(3)]
    assert [int(width) for _, width in found] == [9 * 94 + 12, 3 * 94 + 12]


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
