"""What a training shows in a Jupyter kernel that is not one of a test: one bar, one figure, both drawn anew in place."""
import os
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    "Execute cells in a new kernel without IN_TEST; returns the outputs of each cell, and all contents of displays."
    import nbformat   # here, since its import takes three seconds, and each process of pytest collects this file
    from nbclient import NotebookClient
    monkeypatch.delenv("IN_TEST", raising=False)
    def run(*cells):
        shown = []
        class Client(NotebookClient):
            def process_message(self, msg, cell, index):
                if msg["msg_type"] in ("display_data", "update_display_data"): shown.append(msg["content"]["data"])
                return super().process_message(msg, cell, index)
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        env = {**os.environ, "PYTHONPATH": str(root)}
        Client(nb, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute(env=env)
        return [cell.outputs for cell in nb.cells], shown
    return run


NET = """from hwnn.all import *
from hwnn.engine.table import use_fast
use_fast(False)   # on a slow machine compiling says so
net = NeuralNetwork([FullyConnected(4, "relu"), FullyConnected(None, "softmax")], logger=Logger("iris", {}, {}, plot=True))
net.train(iris(), epochs=3);"""


def test_training(run):
    "A bar of which nothing is left, curves of all epochs, and the lines below them. A second training in another cell has its own."
    (first, second), shown = run(NET, "net.train(iris(), epochs=2);")
    for outputs, lines, epochs in ((first, 3, 3), (second, 2, 5)):
        bar, figure, *streams = outputs
        assert bar.output_type == figure.output_type == "display_data" and {o.get("name") for o in streams} == {"stdout"}
        assert bar.data == {"text/plain": "", "text/html": ""}
        assert figure.data["text/plain"] == f"loss and error over {epochs} epochs" and figure.data["image/svg+xml"].startswith("<?xml")
        assert "".join(o.text for o in streams).count("\n") == lines
    assert any("training:   0%|" in data.get("text/plain", "") for data in shown)


def test_interrupted(run):
    "After an interrupt in one cell, the curves of the next training stand in its own cell, and the bar is gone."
    stop = NET.replace("net.train(iris(), epochs=3);", """class Stop(type(net.logger)):
    def log(self, row):
        super().log(row)
        if row["epoch"] == 2: raise KeyboardInterrupt
net.logger = Stop("iris", {}, {}, plot=True)
try: net.train(iris(), epochs=3)
except KeyboardInterrupt: pass""")
    (first, second), _ = run(stop, "net.train(iris(), epochs=1);")
    for outputs in (first, second): assert [o.output_type for o in outputs[:2]] == ["display_data"]*2 and {o.get("name") for o in outputs[2:]} == {"stdout"}
    assert first[0].data["text/plain"] == second[0].data["text/plain"] == ""
    assert second[1].data["text/plain"] == "loss and error over 3 epochs"
