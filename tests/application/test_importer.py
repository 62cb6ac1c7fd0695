import sys
from pathlib import Path

import pytest

from fastasgi.application.importer import import_from_string
from fastasgi.errors import AppImportError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package `shop`, which the test may add modules to."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def test_an_attribute_of_a_module_is_found(package: Path) -> None:
    (package / "main.py").write_text("class site:\n    app = 'the application'\n")
    assert import_from_string("shop.main:site.app") == "the application"


def test_what_is_no_text_is_the_application_itself() -> None:
    app = object()
    assert import_from_string(app) is app


@pytest.mark.parametrize("target", ["shop", "shop:", ":app", "", "shop/main.py:app", "main.py:app"])
def test_another_form_than_module_attribute_is_refused(target: str) -> None:
    with pytest.raises(AppImportError, match=r"must be written module:attribute, for example '[a-z.]+:app'"):
        import_from_string(target)


def test_a_relative_module_is_refused() -> None:
    with pytest.raises(AppImportError, match="relative"):
        import_from_string(".main:app")


@pytest.mark.parametrize(
    ("target", "missing"),
    [("shop.main:app", "shop.main"), ("shap.main:app", "shap"), ("shop..x:app", "shop.")],
)
def test_a_missing_module_is_named(package: Path, target: str, missing: str) -> None:
    with pytest.raises(AppImportError) as caught:
        import_from_string(target)
    assert str(caught.value).startswith(f"app {target!r}: no module named {missing!r};")


def test_a_missing_attribute_is_named(package: Path) -> None:
    (package / "main.py").write_text("class site: pass\n")
    with pytest.raises(AppImportError, match=r"'shop\.main\.site' has no attribute 'app'"):
        import_from_string("shop.main:site.app")


def test_a_missing_module_that_the_modules_own_package_imports_is_the_packages_error(package: Path) -> None:
    (package / "__init__.py").write_text("import shop.main\n")
    with pytest.raises(ModuleNotFoundError, match=r"shop\.main"):
        import_from_string("shop.main:app")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_of_that_name", ModuleNotFoundError),
        ("import shop.nothing", ModuleNotFoundError),
        ("from shop import nothing", ImportError),
        ("def (", SyntaxError),
        ("1 / 0", ZeroDivisionError),
        ("raise TypeError", TypeError),
    ],
)
def test_an_error_inside_the_module_passes_through(
    package: Path, source: str, error: type[BaseException]
) -> None:
    (package / "main.py").write_text(source)
    with pytest.raises(error) as caught:
        import_from_string("shop.main:app")
    assert not isinstance(caught.value, AppImportError)
