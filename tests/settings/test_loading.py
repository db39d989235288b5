"""Precedence, and every problem at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from compressl.errors import UsageError
from compressl.settings.evaluate import EvaluateSettings
from compressl.settings.loading import load_flags, load_pretrain, recipe_names
from compressl.settings.methods import METHODS, CBYOLSettings
from compressl.settings.report import ReportSettings
from compressl.settings.toml import to_toml


def _problems(*argv: str) -> str:
    with pytest.raises(UsageError) as error:
        load_pretrain(argv)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 7\nseed = 5\n[method]\nname = "c-byol"\nbeta = 0.5\n[data]\npath = "photos"\n')
    return path


def test_flags_beat_the_file_which_beats_the_defaults(file: Path) -> None:
    settings, sources = load_pretrain(["--config", str(file), "--epochs", "9", "--method.kappa-e", "100"])
    assert (settings.epochs, settings.seed, settings.batch_size) == (9, 5, 256)
    assert isinstance(settings.method, CBYOLSettings)
    assert (settings.method.beta, settings.method.kappa_e, settings.method.kappa_b) == (0.5, 100.0, 10.0)
    assert settings.data.path == "photos"
    assert sources["epochs"] == "flag"
    assert sources["seed"] == str(file)
    assert "batch_size" not in sources


def test_what_suits_a_method_gives_way_to_recipe_file_and_flags(tmp_path: Path) -> None:
    def optimizer(*argv: str) -> tuple[str, float, str | None]:
        settings, sources = load_pretrain(["--data", "photos", *argv])
        return settings.optimizer.name, settings.optimizer.lr, sources.get("optimizer.lr")

    assert optimizer("--method", "simclr") == ("sgd", 0.06, None)
    assert optimizer("--method", "vicreg") == ("lars", 1.0, "default of vicreg")
    assert optimizer("--method", "vicreg", "--optimizer.lr", "0.3") == ("lars", 0.3, "flag")
    (tmp_path / "own.toml").write_text('[method]\nname = "vicreg"\n[optimizer]\nname = "sgd"\n')
    # a learning rate for LARS is none for SGD
    assert optimizer("--config", str(tmp_path / "own.toml"))[:2] == ("sgd", 0.06)
    assert optimizer("--method", "vicreg", "--optimizer", "adamw")[:2] == ("adamw", 0.06)
    assert optimizer("--method", "vicreg", "--optimizer", "lars")[:2] == ("lars", 1.0)


def test_the_file_beats_the_recipe(tmp_path: Path) -> None:
    recipe = recipe_names()[0]
    before, _ = load_pretrain(["--recipe", recipe, "--data", "x"])
    path = tmp_path / "mine.toml"
    path.write_text(f"epochs = {before.epochs + 1}\n")
    after, sources = load_pretrain(["--recipe", recipe, "--config", str(path), "--data", "x"])
    assert after.epochs == before.epochs + 1
    assert after.batch_size == before.batch_size
    assert sources["epochs"] == str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_says_what_it_is(name: str) -> None:
    settings, _ = load_pretrain(["--recipe", name, "--data", "photos"])
    assert settings.recipe == name
    from compressl.settings.loading import RECIPES

    text = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    assert len(text["description"]) > 20


@pytest.mark.parametrize("method", list(METHODS))
def test_written_settings_read_back_alike(method: str, tmp_path: Path) -> None:
    settings, _ = load_pretrain(
        ["--method", method, "--data", 'a "quoted"\\path', "--optimizer.clip", "1.5", "--no-channels-last"]
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings))
    again, _ = load_pretrain(["--config", str(path)])
    assert to_toml(again).replace(f'# config = "{path}"', "# config is not set") == to_toml(settings)
    assert again.data.path == 'a "quoted"\\path'


def test_all_problems_of_file_and_flags_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('epoch = 3\nbatch_size = "many"\n[method]\nname = "c-simclr"\nkapa_e = 3\n[data]\nlimit = 1\n')
    text = _problems(
        "--config", str(path), "--bacth-size", "3", "--seed", "x", "--optimizer", "sdg", "--views.size", "--no-epochs"
    )
    for part in (
        "'epoch' is unknown. Did you mean 'epochs'?",
        "batch_size must be a whole number; it is 'many'",
        "'method.kapa_e' is unknown. Did you mean 'method.kappa_e'?",
        "--bacth-size is unknown. Did you mean '--batch-size'?",
        "--seed must be a whole number; it is 'x'",
        "--optimizer must be one of sgd, lars, adamw Did you mean 'sgd'?",
        "--views.size needs a value",
        "--no-epochs is unknown",
        "data.limit must be at least 2; it is 1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--method", "c-simlcr"], "Did you mean 'c-simclr'?"),
        (["--encoder", "resnet17"], "Did you mean 'resnet1"),
        (["--recipe", "cifar10/c-simcl"], "recipe 'cifar10/c-simcl' is unknown"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--batch-size", "1"], "batch_size must be at least 2"),
        (["--method.kappa-e", "0"], "kappa_e must be greater than 0"),
        (["--method.sample", "--method.analytic", "--no-method.sample"], "--no-method.sample is unknown"),
        (["--views.grayscale", "1.5"], "grayscale is a probability"),
        (["--device", "gpu"], "device 'gpu' is unknown"),
        (["--accumulate", "4"], "accumulate is refused for c-simclr"),
        (["--method", "byol", "--accumulate", "3"], "accumulate must divide batch_size"),
        (["--micro-batch", "1"], "micro_batch must be at least 2"),
        (["--micro-batch", "100"], "micro_batch must divide batch_size (256); it is 100."),
        (["--micro-batch", "512"], "micro_batch must divide batch_size (256); it is 512."),
        (["--micro-batch", "32", "--accumulate", "2", "--method", "byol"], "both split a batch"),
        (["--out", ""], "--out needs a value"),
        (["--method", ""], "--method needs a value"),
        (["--views.size", "0"], "size is a number of pixels"),
        (["--device", "cuda:x"], "device 'cuda:x' is unknown"),
        (["--seed", "-1"], "seed lies between"),
        (["--optimizer.lr", "inf"], "--optimizer.lr must be a number"),
        (["--optimizer.weight-decay", "nan"], "--optimizer.weight-decay must be a number"),
        (["--tensorboard=false"], "--tensorboard takes no value; say --tensorboard or --no-tensorboard"),
        (["--bacth-size", "3", "--epochs", "0"], "epochs must be at least 1"),
        (["photos"], "'photos' stands alone"),
        ([], "--data is missing"),
    ],
)
def test_each_problem_has_its_sentence(argv: list[str], part: str) -> None:
    assert part in _problems(*(argv if argv in ([], ["photos"]) else [*argv, "--data", "x"]))


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--method", "simclr", "--views.local", "2"], "views.local is refused for simclr"),
        (["--method", "mveb", "--batch-size", "96"], "group_size must divide batch_size (96)"),
        (["--method", "mveb", "--batch-size", "96"], "96 does."),
        (["--method", "dissl", "--method.entropy-weight", "1.5"], "at least 1 + method.invariance_weight = 1.8"),
        (["--method", "dissl", "--target-entropy-bits", "9"], "can show 8 bits at most"),
        (["--method", "c-simclr", "--target-residual-bits", "0"], "target_residual_bits must be greater than 0"),
        (["--method", "simclr", "--target-residual-bits", "1"], "--target-residual-bits is unknown"),
    ],
)
def test_what_a_method_cannot_do_has_its_sentence(argv: list[str], part: str) -> None:
    assert part in _problems("--data", "photos", *argv)


def test_a_flag_mends_the_file_before_the_check(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("epochs = 0\n")
    assert "epochs must" not in _problems("--config", str(path), "--epochs", "5", "--typo", "1", "--data", "x")
    assert load_pretrain(["--config", str(path), "--epochs", "5", "--data", "x"])[0].epochs == 5


def test_the_last_of_repeated_flags_counts() -> None:
    settings, _ = load_pretrain(["--method", "simclr", "--method", "byol", "--data", "x"])
    assert (settings.method.name, type(settings.method).__name__) == ("byol", "BYOLSettings")


@pytest.mark.parametrize("name", ["3", '["byol"]', "true"])
def test_a_method_that_is_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"[method]\nname = {name}\n")
    assert "is unknown" in _problems("--config", str(path), "--data", "x")


def test_a_file_may_name_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('recipe = "digits/c-simclr"\nseed = 4\n')
    by_file, _ = load_pretrain(["--config", str(path)])
    by_flag, _ = load_pretrain(["--recipe", "digits/c-simclr", "--seed", "4"])
    assert (by_file.epochs, by_file.optimizer, by_file.method) == (by_flag.epochs, by_flag.optimizer, by_flag.method)


def test_the_record_of_a_run_does_not_replay_its_folder(tmp_path: Path) -> None:
    settings, sources = load_pretrain(["--data", "x", "--out", "runs/a", "--overwrite"])
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings, sources))
    assert '# out = "runs/a"  # flag' in path.read_text()
    again, _ = load_pretrain(["--config", str(path)])
    assert (again.out, again.overwrite) == (None, False)


def test_values_with_underscores_and_none() -> None:
    settings, _ = load_pretrain(["--data=my_photos", "--optimizer.clip", "none", "--batch_size=32"])
    named, _ = load_pretrain(["--data", "none", "--out", "none"])
    assert (named.data.path, named.out) == ("none", Path("none"))
    assert (settings.data.path, settings.optimizer.clip, settings.batch_size) == ("my_photos", None, 32)


def test_byol_may_accumulate() -> None:
    settings, _ = load_pretrain(["--data", "x", "--method", "byol", "--accumulate", "4"])
    assert settings.accumulate == 4


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("!!python/object/apply:os.system ['true']")
    assert "is not TOML" in _problems("--config", str(path), "--data", "x")


def test_positional_arguments() -> None:
    assert load_flags(ReportSettings, ["a", "b"], "x").runs == (Path("a"), Path("b"))
    settings = load_flags(EvaluateSettings, ["runs/a", "--data", "d", "--weight-decays", "0.1", "1"], "x")
    assert (settings.run, settings.weight_decays) == (Path("runs/a"), (0.1, 1.0))
    with pytest.raises(UsageError, match="RUN is missing"):
        load_flags(EvaluateSettings, ["--data", "d"], "x")
    with pytest.raises(UsageError, match="--data is missing"):
        load_flags(EvaluateSettings, ["runs/a"], "x")


def test_help_and_errors_come_without_torch() -> None:
    code = (
        "import sys\n"
        "from compressl.cli import main\n"
        "for argv in (['--help'], ['pretrain', '--help'], ['evaluate', '--help'], ['report', '--help'], ['list'],\n"
        "             ['pretrain', '--epohcs', '3'], ['demo', '--epochs', '0']):\n"
        "    try:\n"
        "        main(argv)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'pyarrow', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
