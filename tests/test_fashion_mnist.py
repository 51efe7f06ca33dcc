"""A short training on real images, with the compiled functions; the other trainings of tests and pages are NumPy's.
It takes so long that it is there only where HWNN_SLOW is set, as in .ci/run."""
import os

from hwnn.engine.table import is_fast, use_fast
from hwnn.models import initialize_model
from hwnn.train import deep_layers, load_dataset, run_args


def short_run():
    "The error on the 10,000 test images after one epoch of two convolutions with batch normalisation."
    data_args, model_args, _ = run_args("fashion_mnist", "cnn", epochs=1)
    dataset = load_dataset(**{**data_args, "augment": None})
    net = initialize_model(**{**model_args, "layer_args": deep_layers((16,), (32,))})
    net.train(dataset, epochs=1)
    return net.test(dataset)["error"]


if os.environ.get("HWNN_SLOW"):   # not a skip: where skips are failures, .ci/run sets it
    def test_one_epoch_reaches_85_percent():
        before = is_fast()
        use_fast(True)
        try: assert short_run() <= 0.15
        finally: use_fast(before)
