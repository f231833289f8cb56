"""Imports of code that this Python does not parse."""

from __future__ import annotations

from hpcbinder.notebooks import code_imports

PYTHON_2 = '''
"""A text that tells to
import nothing
from it
"""
import os, numpy as np
from matplotlib import pyplot as plt  # import comment
print "import string"
try:
    import cPickle as pickle
    import cjson
except ImportError, error:
    import pickle
try:
    import strict
except KeyError:
    pass
if True: import inline
def f():
    import inside; import after
from . import mine
exec "import never"
'''


def test_python_2() -> None:
    found = {one.module: one.optional for one in code_imports(PYTHON_2, "a.py")}
    assert found == {
        **dict.fromkeys(("os", "numpy", "matplotlib", "pickle", "strict", "inline", "inside", "after"), False),
        **dict.fromkeys(("cPickle", "cjson"), True),
    }
    assert {one.module: one.line for one in code_imports(PYTHON_2, "a.py")}["strict"] == 15


def test_what_is_cut_short() -> None:
    found = code_imports("import a_first\nx = (1,\nimport in_brackets\n'''\nimport later\n", "a.py")
    assert [one.module for one in found][:1] == ["a_first"]
    assert [one.module for one in code_imports("import one\n0777\nimport two\n", "a.py")] == ["one", "two"]
