"""A recipe says what it means or is refused, with file, line, key, and what was expected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqpot.training.recipe import Recipe, default_recipe, parse_duration
from eqpot.training.recipe_file import RecipeError, read_recipe, recipe_text

LEAST = "output: runs/x\ndata:\n  train: a.xyz\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(path)

    return read


@pytest.fixture
def refusal(read, tmp_path):
    """Return the lines of the message with which a recipe is refused, less the path."""

    def refusal(text):
        with pytest.raises(RecipeError) as caught:
            read(text)
        lines = str(caught.value).split("\n")
        path = str(tmp_path / "recipe.yaml")
        assert all(line.startswith(path) for line in lines)
        return [line.removeprefix(path).removeprefix(", ") for line in lines]

    return refusal


def test_least_recipe_has_all_defaults(read):
    recipe = read(LEAST)
    assert recipe == Recipe(output="runs/x", data={"train": ["a.xyz"]})
    assert recipe.model.kind == "gaunt"


@pytest.mark.parametrize(
    ("text", "line", "name", "near"),
    [
        ("training:\n  batchsize: 3\n", 5, "training.batchsize", "batch_size"),
        ("model:\n  rmax: 5.0\n", 5, "model.rmax", "r_max"),
        ("  trian: b.xyz\n", 4, "data.trian", "train"),
        ("trainig:\n  seed: 1\n", 4, "trainig", "training"),
    ],
)
def test_unknown_key(refusal, text, line, name, near):
    (message,) = refusal(LEAST + text)
    assert message.startswith(f"line {line}: `{name}`: unknown key; did you mean `{near}`? Known")
    section = name.rpartition(".")[0]
    model = Recipe.model_fields[section].annotation if section else Recipe
    assert message.endswith(f"Known keys: {', '.join(model.model_fields)}")


@pytest.mark.parametrize("key", ["int", "float", "str", "1", "~", "constrained-int", "[a, b]"])
def test_unknown_key_of_any_name(refusal, key):
    (message,) = refusal(LEAST + f"model:\n  {key}: 3\n")
    assert message.startswith("line 5: `model.")
    assert "unknown key. Known keys: kind, preset, r_max" in message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "training:\n  seed: one\n",
            5,
            "`training.seed`: input should be a valid integer, got 'one'",
        ),
        (
            "training:\n  seed: 1.5\n",
            5,
            "`training.seed`: input should be a valid integer, got 1.5",
        ),
        (
            "training:\n  seed: true\n",
            5,
            "`training.seed`: input should be a valid integer, got True",
        ),
        ("model:\n  r_max: true\n", 5, "`model.r_max`: input should be a valid number, got True"),
        ("model:\n  r_max: 5 A\n", 5, "`model.r_max`: input should be a valid number, got '5 A'"),
        (
            "training:\n  max_time: [1]\n",
            5,
            "`training.max_time`: input should be a valid string or a valid number, got [1]",
        ),
        ("  test: [b.xyz,\n    5]\n", 5, "`data.test.1`: input should be a valid string, got 5"),
        (
            "  reference_energies:\n    H: -13.6\n    O: x\n",
            6,
            "`data.reference_energies.O`: input should be a valid number, got 'x'",
        ),
        (
            "model:\n  preset: huge\n",
            5,
            "`model.preset`: input should be 'small', 'medium' or 'large', got 'huge'",
        ),
    ],
)
def test_wrong_type(refusal, text, line, message):
    assert refusal(LEAST + text) == [f"line {line}: {message}"]


@pytest.mark.parametrize("value", ["", " medium", " [1]"])
def test_section_that_is_none(refusal, value):
    (message,) = refusal(LEAST + f"model:{value}\n")
    assert message.startswith("line 4: `model`: must be a section with the keys kind, preset,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  r_max: -5\n", "`model.r_max`: input should be greater than 0, got -5"),
        ("model:\n  r_max: .nan\n", "`model.r_max`: input should be a finite number, got nan"),
        (
            "model:\n  n_layers: 0\n",
            "`model.n_layers`: input should be greater than or equal to 1, got 0",
        ),
        (
            "model:\n  n_features: 1000000\n",
            "`model.n_features`: input should be less than or equal to 4096, got 1000000",
        ),
        (
            "training:\n  ema_decay: 1\n",
            "`training.ema_decay`: input should be less than 1, got 1",
        ),
        (
            "training:\n  learning_rate: .inf\n",
            "`training.learning_rate`: input should be a finite number, got inf",
        ),
        (
            f"training:\n  seed: {2**32}\n",
            "`training.seed`: input should be less than 4294967296, got 4294967296",
        ),
        (
            "training:\n  max_time: 1 fortnight\n",
            '`training.max_time`: must be a duration such as "10 min", "2 h" or "90 s", '
            "got '1 fortnight'",
        ),
        (
            "training:\n  max_time: 0 s\n",
            "`training.max_time`: must be a duration above zero, got '0 s'",
        ),
    ],
)
def test_impossible_value(refusal, text, message):
    assert refusal(LEAST + text) == [f"line 5: {message}"]


@pytest.mark.parametrize("value", ["1.5", "0.0", "-0.1", "1.0", "0"])
def test_impossible_fraction(refusal, value):
    (message,) = refusal(LEAST + f"  validation: {value}\n")
    assert message == (
        f"line 4: `data.validation`: a fraction must lie between 0 and 1, got {float(value)}"
    )


def test_a_fraction_is_no_percentage(refusal):
    (message,) = refusal(LEAST + "  validation: 10%\n")
    assert message.startswith("line 4: `data.validation`: write a fraction as a number such as 0.1")


def test_impossible_model(refusal):
    assert refusal(LEAST + "model:\n  l_max: 1\n  l_hidden: 2\n") == [
        "line 4: `model`: `l_hidden` must not be above `l_max` (1), got 2"
    ]
    assert refusal(LEAST + "model:\n  l_along: 2\n") == [
        "line 4: `model`: `l_along` must not be above `l_hidden` (1), got 2"
    ]
    assert refusal(LEAST + "model:\n  n_layers: 1\n  l_along: 1\n") == [
        "line 4: `model`: `l_along` acts in layers after the first; with `n_layers` 1 it must be "
        "0, got 1"
    ]


def test_two_lengths(refusal):
    assert refusal(LEAST + "training:\n  max_time: 1 h\n  epochs: 3\n") == [
        "line 4: `training`: give `max_time` or `epochs`, not both"
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "  schedule:\n    warm_up: 3\n",
            6,
            "`training.schedule.warm_up`: unknown key; did you mean `warmup`? Known keys: kind, ",
        ),
        (
            "  stages:\n    - start: 0.5\n      energyweight: 3\n",
            7,
            "`training.stages.0.energyweight`: unknown key; did you mean `energy_weight`? Known "
            "keys: start, learning_rate, ",
        ),
        ("  stages:\n    - energy_weight: 3\n", 6, "`training.stages.0.start`: this key is needed"),
        (
            "  stages: [3]\n",
            5,
            "`training.stages.0`: must be a section with the keys start, learning_rate, ",
        ),
        (
            "  stages: [{start: 0.5, forces_weight: 1}, {start: 0.5, forces_weight: 2}]\n",
            5,
            "`training.stages`: `stages` must be in the order of their `start`, got [0.5, 0.5]",
        ),
        (
            "  loss: {energy: conditioned}\n",
            5,
            "`training.loss.energy`: input should be 'mse', 'mae' or 'huber', got 'conditioned'",
        ),
        (
            "  optimizer: {kind: schedule_free}\n",
            4,
            "`training`: the schedule_free `optimizer` averages in place of a schedule: it needs "
            "`schedule: {kind: constant}`, got cosine",
        ),
        (
            "  dtype: float64\n  precision: bf16\n",
            4,
            "`training`: `precision: bf16` needs `dtype: float32`, got float64",
        ),
        (
            "  loggers: [csv, tensorbord]\n",
            5,
            "`training.loggers.1`: input should be 'csv', 'tensorboard', 'wandb' or 'mlflow', got",
        ),
        ("  loss: huber\n", 5, "`training.loss`: must be a section with the keys energy, forces, "),
    ],
)
def test_sections_in_sections(refusal, text, line, message):
    (refused,) = refusal(LEAST + "training:\n" + text)
    assert refused.startswith(f"line {line}: {message}")


def test_missing_keys(refusal):
    assert refusal("model:\n  preset: small\n") == [
        "line 1: `output`: this key is needed",
        "line 1: `data`: this key is needed",
    ]
    assert refusal("output: x\ndata:\n  energy_key: e\n") == [
        "line 2: `data.train`: this key is needed"
    ]


def test_all_problems_at_once(refusal):
    messages = refusal(LEAST + "model:\n  lmax: 3\ntraining:\n  epochs: 0\n")
    assert [message.split(": ")[0] for message in messages] == ["line 5", "line 7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + "model: [1, 2\n", "line 5: not valid YAML: expected ',' or ']'"),
        (LEAST + "model:\n\tr_max: 4\n", "line 5: not valid YAML: found character '\\t'"),
        (LEAST + "output: y\n", 'line 4: not valid YAML: found duplicate key "output"'),
        (LEAST + "---\noutput: y\n", "line 4: not valid YAML: but found another document"),
        ("output: x\ndata: a\0b\n", "line 2: not valid YAML: holds the character '\\x00'"),
        (LEAST + f"model:\n  n_features: {10**9}{'0' * 5000}\n", ": not valid YAML: "),
        (b"output: \xff\n", ": must be UTF-8 text"),
        (
            "",
            ": a recipe must be a mapping with the keys "
            "['output', 'data', 'model', 'fine_tuning', 'training']",
        ),
        ("- a\n", ": a recipe must be a mapping with the keys"),
        ("a.xyz\n", ": a recipe must be a mapping with the keys"),
    ],
)
def test_syntax(refusal, text, message):
    assert refusal(text)[0].startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "output: x\ndata:\n  train: [&a b, *a]\n",
        "output: x\ndata:\n  train: [&ä b, c]\n",
        'output: x\ndata:\n  train: ["#", &a.b c]\n',
        "output: x\ndata:\n  &a train: b\n",
    ],
)
def test_anchors_are_refused(refusal, text):
    assert refusal(text) == ["line 3: anchors and aliases have no place in a recipe"]


def test_nested_anchors_do_not_grow(refusal):
    text = "a: &a0 [x]\n" + "".join(f"b{k}: &a{k} [{f'*a{k - 1},' * 9}]\n" for k in range(1, 30))
    assert refusal(text) == ["line 1: anchors and aliases have no place in a recipe"]


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.getcwd []", "!!set {a, b}", "!!int '5'", "!mine a"]
)
def test_tags_are_refused(refusal, tag):
    assert refusal(LEAST + f"model: {tag}\n") == [
        "line 4: tags (`!name`) have no place in a recipe"
    ]


def test_yaml_1_1_is_refused(refusal):
    (message,) = refusal(f"%YAML 1.1\n---\n{LEAST}")
    assert message.endswith(": a recipe must be YAML 1.2")


def test_too_large(refusal):
    (message,) = refusal("#" + "x" * 2**20)
    assert message == f": a recipe must be below 1 MiB, got {2**20 + 1} bytes"


def test_too_deep(refusal):
    assert refusal(LEAST + "model: " + "[" * 20000 + "]" * 20000 + "\n") == [
        "line 4: nested deeper than 32 levels"
    ]


def test_no_such_file(tmp_path):
    (tmp_path / "silicon.yaml").write_text(LEAST)
    with pytest.raises(FileNotFoundError, match=r"no such file; did you mean silicon\.yaml"):
        read_recipe(tmp_path / "silicn.yaml")


def test_yaml_1_2(read):
    recipe = read(
        "output: No\n"
        "data:\n"
        "  train: [yes, 'R &D *.xyz', 2024-05-31]\n"
        "  energy_key: a#b # not &a *b\n"
        "  reference_energies: {No: -1.0, H: -13}\n"
        "model:\n"
        "  r_max: 5\n"
        "training:\n"
        "  learning_rate: 1e-3\n"
        "  seed: 010\n"
    )
    assert recipe.output == "No"
    assert recipe.data.train == ["yes", "R &D *.xyz", "2024-05-31"]
    assert recipe.data.energy_key == "a#b"
    assert recipe.data.reference_energies == {"No": -1.0, "H": -13.0}
    assert recipe.training.learning_rate == 1e-3
    assert recipe.model.r_max == 5.0
    assert recipe.training.seed == 10  # 0o10 is the octal of YAML 1.2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90), ("10 min", 600), ("2 h", 7200), ("1.5h", 5400), ("1 day", 86400), (7, 7)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1", "-1 h", "1 h 3 min", "1e3 s", "nan s", 0, True])
def test_no_durations(text):
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


def test_defaults_are_a_recipe(read):
    recipe = read(recipe_text())
    assert recipe == Recipe(output="runs/first", data={"train": ["train.extxyz"]})


@pytest.mark.parametrize("documented", [True, False])
@given(
    name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1),
    rate=st.floats(min_value=1e-300, max_value=1e300),
)
def test_text_and_back(tmp_path_factory, documented, name, rate):
    recipe = Recipe(
        output=name,
        data={"train": [name, "b"], "validation": 0.25, "reference_energies": {"No": -1e-7}},
        model={"preset": "small", "l_max": 2, "repulsion": True},
        training={
            "max_time": "3 min",
            "learning_rate": rate,
            "loss": {"forces": "l2"},
            "stages": [{"start": 0.25, "energy_weight": rate}],
        },
    )
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(recipe_text(recipe, documented=documented), encoding="utf-8")
    assert read_recipe(path) == recipe


def test_recipe_of_frames_alone():
    recipe = default_recipe("somewhere/frames.train.extxyz")
    assert recipe.output == "runs/frames"
    assert recipe.data.train == ["somewhere/frames.train.extxyz"]
