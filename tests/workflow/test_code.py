"""Which modules a script's digest follows."""

import pytest

from offramp.workflow.code import code_digest, imported

FILES = {
    "script.py": "from offramp.a.one import f\n",
    "offramp/__init__.py": "",
    "offramp/a/__init__.py": "",
    "offramp/a/one.py": "from .two import f\nfrom .. import b\n",
    "offramp/a/two.py": "import offramp.b.three\n",
    "offramp/b/__init__.py": "from offramp.b import four\n",
    "offramp/b/three.py": "import numpy\n",
    "offramp/b/four.py": "",
    "offramp/b/five.py": "def f():\n    from . import three\n",
}
FOLLOWED = [name for name in FILES if name != "offramp/b/five.py"]


@pytest.fixture
def scripts(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(scripts):
    code_digest.cache_clear()
    imported.cache_clear()
    return code_digest(scripts / "script.py")


@pytest.mark.parametrize("name", FILES)
def test_an_edit_changes_the_digest_of_those_who_import_it(scripts, name):
    before = digest(scripts)
    (scripts / name).write_text(FILES[name] + "# edited\n")
    assert (digest(scripts) != before) == (name in FOLLOWED)


def test_an_import_within_a_function_counts(scripts):
    five = scripts / "offramp/b/five.py"
    assert scripts / "offramp/b/three.py" in imported(five, scripts)


def test_only_content_counts(scripts):
    before = digest(scripts)
    for name in FILES:
        (scripts / name).touch()
    assert digest(scripts) == before
