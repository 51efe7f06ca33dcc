"""What the checks, tables, figures, logs and the looks into a network say when they are called wrongly: the exact words, one table."""
import re
import subprocess
import sys

import numpy as np
import pytest

from hwnn.checks import check_dtype, check_number, create
from hwnn.datasets import Dataset, iris
from hwnn.display import html_table
from hwnn.figures import cells_svg, draw_array, explore, linked_cells
from hwnn.layers import FullyConnected
from hwnn.logs import History, Logger
from hwnn.models import NeuralNetwork


class Shape: pass


class Point(Shape): pass


class Circle(Shape):
    def __init__(self, radius): self.radius = radius


def make(spec, **kwargs): return create("shape", Shape, dict(point=Point, circle=Circle), spec, **kwargs)


def table(**columns):
    history = History()
    history.append(**columns)
    return history


def trained():
    net = network()
    net.train(flowers, 1)
    return net


def network(): return NeuralNetwork([FullyConnected(8, "relu"), FullyConnected(3, "softmax")])
def logger(**kwargs): return Logger(**{**dict(model_name="iris", model_args={}, data_args={}), **kwargs})


flowers = iris(batch_size=20)
one_cell = [[("i", np.ones((1, 1)), "input")]]
row = dict(epoch=1, train_loss=1.0, train_error=0.5)

CASES = {
    # checks
    **{f"dtype {dtype}": (lambda dtype=dtype: check_dtype("one_hot", dtype), TypeError, "one_hot: expected dtype float32 or float64, got")
       for dtype in ("foo", int, np.float16, complex, ">f4", "f4,(")},
    "number fraction": (lambda: check_number("FullyConnected", "n_out", 2.5, integer=True, at_least=1), TypeError, "expected n_out as an integer at least 1, got 2.5"),
    "create without arguments": (lambda: make("point", side=1.0), TypeError, "Point: expected arguments among none at all, got 'side'"),
    "create no name": (lambda: make({"side": 1.0}), ValueError, "shape: expected a dict with the key 'name', got the keys 'side'"),
    "create missing": (lambda: make("circle"), TypeError, "Circle: expected the arguments 'radius' as well, got only none"),
    "create number": (lambda: make(7), TypeError, "shape: expected name as a string, got 7"),

    # tables
    "table rows": (lambda: html_table([("a", "b"), (1,)]), ValueError, "html_table: expected rows of one length, got lengths [2, 1]"),
    "table number": (lambda: html_table(5), TypeError, "html_table: expected a list of rows, each a list of cells, got 5"),
    "table words": (lambda: html_table(["ab", "cd"]), TypeError, "each a list of cells, got 'ab'"),

    # figures
    "array rank": (lambda: draw_array(None, np.zeros(3), "input"), ValueError, "draw_array: expected an array (rows, cols), got (3,)"),
    "no values": (lambda: explore(None, "", frequency=[]), ValueError, "explore: expected at least one value for frequency, got none"),
    "note title": (lambda: cells_svg(one_cell, [], dict(j=["?"]), ""), ValueError, "linked_cells: expected a title among 'i', got 'j'"),
    "link title": (lambda: cells_svg(one_cell, [("i", 0, "j", 0)], {}, ""), ValueError, "expected a title among 'i', got 'j'"),
    "start title": (lambda: cells_svg(one_cell, [], {}, "", start="j"), ValueError, "expected a title among 'i', got 'j'"),
    "no presets": (lambda: linked_cells(None, "", []), ValueError, "linked_cells: expected at least one preset, got none"),

    # history
    "row word": (lambda: table(epoch=1, train_loss="0.2"), TypeError, "History: expected train_loss as a number, got '0.2'"),
    "row name": (lambda: table(last=1), ValueError, "History: expected column names that are no names of its methods, got 'last'"),
    "row empty": (lambda: table(), ValueError, "History: expected a row with at least one column, got nothing"),
    "no rows": (lambda: History().last(), ValueError, "History: expected at least one row, got none"),
    "plot empty": (lambda: History().plot(), ValueError, "got a table without epoch, train_loss, train_error"),
    "plot columns": (lambda: table(a=1, b=2).plot(), ValueError, "History: expected the columns epoch, train_loss and train_error"),

    # logger
    "no name": (lambda: logger(model_name=""), ValueError, "Logger: expected model_name as a name without slashes, got ''"),
    "no arguments": (lambda: logger(model_args=None), TypeError, "Logger: expected model_args as a dict, got None"),
    "save": (lambda: logger(save="no"), TypeError, "Logger: expected save as True or False, got 'no'"),
    "plot": (lambda: logger(plot=1), TypeError, "Logger: expected plot as True or False, got 1"),
    "save_dir": (lambda: logger(save_dir=3), TypeError, "Logger: expected save_dir as a path, got 3"),
    "log columns": (lambda: logger().log(dict(epoch=1)), ValueError, "Logger: expected a row with epoch, train_loss, train_error, got epoch"),
    "log none": (lambda: logger().log(dict(row, train_loss=None)), TypeError, "Logger: expected train_loss as a number, got None"),
    "finish": (lambda: logger().finish({}), TypeError, "Logger: expected a History, got dict"),

    # networks
    "summary number": (lambda: network().summary(64), TypeError, "expected input_shape as a tuple such as (64,), got 64"),
    "summary size": (lambda: network().summary((-1,)), ValueError, "each size in input_shape as an integer at least 1, got -1"),
    "patience 0": (lambda: network().train(flowers, 5, patience=0), ValueError, "expected patience as an integer at least 1, got 0"),
    "patience fraction": (lambda: network().train(flowers, 5, patience=2.5), TypeError, "expected patience as an integer at least 1, got 2.5"),
    "norms": (lambda: network().train(flowers, 5, norms="yes"), TypeError, "expected norms as True or False, got 'yes'"),
    "patience later": (lambda: trained().train(flowers, 1, patience=1), ValueError, "expected patience in all trainings of a network or in none"),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name):
    call, kind, words = CASES[name]
    with pytest.raises(kind, match=re.escape(words)) as raised: call()
    assert type(raised.value) is kind


@pytest.mark.parametrize("kwargs", [dict(patience=0), dict(patience=2.5), dict(norms="yes"), dict(patience=2)], ids=str)
def test_a_refused_training_has_not_begun(kwargs):
    net, blind = network(), Dataset(flowers.train.X, flowers.train.Y, 20)
    with pytest.raises((TypeError, ValueError)): net.train(blind, 5, **kwargs)
    assert not net.layers[0].parameters and not len(net.history)


@pytest.mark.parametrize("text, words", [("epoch, loss", "expected JSON in"), ("[1, 2]", "columns of one length"), ('{"a": [1], "b": []}', "columns of one length")])
def test_files_that_hold_no_history(tmp_path, text, words):
    (tmp_path/"bad.json").write_text(text)
    with pytest.raises(ValueError, match=words): History.load(tmp_path/"bad.json")


def test_a_refused_row_leaves_no_trace():
    history = table(**row)
    with pytest.raises(TypeError): history.append(**dict(row, train_error="0.1"))
    assert list(history) == [row]


def test_flags_of_numpy():
    assert not logger(save=np.False_).save


@pytest.mark.parametrize("module", ["figures", "logs"])
def test_figures_load_late(module):
    "Neither importing them nor the logs loads what draws."
    code = f"import sys, hwnn.{module}; print([m for m in ('matplotlib', 'ipywidgets', 'IPython', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
