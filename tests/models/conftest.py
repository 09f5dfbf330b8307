"""Fixtures of the suite over all models: each file is made and each model loaded once."""

import pytest
from helpers.tiny import write_tiny

import kosmos_edge
from models.description import CASES, Described, described


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `of` runs once for each model; with `case`, too, for each of its cases; with `lacking` for
    each task that the model does not have."""
    if "case" in metafunc.fixturenames:
        pairs = [(of, case) for of in described().values() for case in of.cases]
        names = [f"{of.architecture}-{case.name}" for of, case in pairs]
        metafunc.parametrize("of,case", pairs, ids=names, indirect=["of"], scope="session")
    elif "lacking" in metafunc.fixturenames:
        tasks = sorted({case.task for case in CASES.values()})
        lacks = [(of, task) for of in described().values() for task in tasks if task not in of.tasks]
        names = [f"{of.architecture}-{task}" for of, task in lacks]
        metafunc.parametrize("of,lacking", lacks, ids=names, indirect=["of"], scope="session")
    elif "of" in metafunc.fixturenames:
        metafunc.parametrize("of", described().values(), ids=described(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def of(request: pytest.FixtureRequest) -> Described:
    """The description of the model that the test runs on."""
    return request.param


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory):
    """Architecture -> the tiny model's file, in float32."""
    folder = tmp_path_factory.mktemp("models")
    out = {name: folder / f"{name}.gguf" for name in described()}
    for name, path in out.items():
        write_tiny(path, tiny=described()[name].tiny)
    return out


@pytest.fixture(scope="session")
def loaded(files) -> dict[str, kosmos_edge.Model]:
    """Architecture -> the model of that file."""
    return {name: kosmos_edge.load(path, threads=1) for name, path in files.items()}


@pytest.fixture
def path(of: Described, files):
    """The file of the model that the test runs on."""
    return files[of.architecture]


@pytest.fixture
def model(of: Described, loaded) -> kosmos_edge.Model:
    """The model that the test runs on, loaded."""
    return loaded[of.architecture]
