"""What windows, pooling, flatten and dropout say when they are called wrongly: the exact words, one table."""
import re

import numpy as np
import pytest

from hwnn.layers import Dropout, Flatten, Pool2D
from hwnn.layers.dropout import dropout_backward
from hwnn.layers.pooling import average_pool2d, average_pool2d_backward, max_pool2d, max_pool2d_backward, pooled_shape
from hwnn.layers.windows import crop, kernel_pair, output_shape, pad_images, pad_pairs, stride_pair, windows

f32 = np.float32
X = np.arange(16.0).reshape(1, 4, 4, 1)
dY = np.ones((1, 3, 3, 1))
small = np.arange(9.0).reshape(1, 3, 3, 1)
no_pad = ((0, 0), (0, 0))
rows, d_rows = np.arange(24.0).reshape(2, 2, 3, 2), np.ones((2, 12))   # for Flatten
line, d_line = np.array([[1.0, 2.0, -4.0]]), np.array([[1.0, -2.0, 3.0]])   # for Dropout


def after(layer, X):
    layer.forward(X)
    return layer


CASES = {
    # windows
    "crop all": (lambda: crop(small, ((2, 1), (0, 0))), ValueError, "crop: expected images larger than their padding ((2, 1), (0, 0)), got (1, 3, 3, 1)"),
    "pad below 0": (lambda: pad_images(small, ((-1, 0), (0, 0))), ValueError, "pad_images: expected pad as an integer at least 0, got -1"),
    "large kernel": (lambda: output_shape("Conv2D", (3, 3), (5, 5), (1, 1), no_pad), ValueError, "Conv2D: expected a kernel no larger than the padded input (3, 3), got (5, 5)"),
    "windows rank": (lambda: windows(small[0], (2, 2), (1, 1)), ValueError, "windows: expected images (batch, rows, cols, channels), got (3, 3, 1)"),
    "windows stride": (lambda: windows(small, (2, 2), (-1, 1)), ValueError, "windows: expected stride as an integer at least 1, got -1"),
    "windows kernel": (lambda: windows(small, (0, 2), (1, 1)), ValueError, "windows: expected kernel_shape as an integer at least 1, got 0"),
    "stride 0": (lambda: stride_pair("Conv2D", 0), ValueError, "Conv2D: expected stride as an integer at least 1, got 0"),
    "kernel float": (lambda: kernel_pair("Conv2D", 2.5), TypeError, "Conv2D: expected kernel_shape as an integer at least 1, got 2.5"),
    "kernel triple": (lambda: kernel_pair("Conv2D", (3, 3, 1)), ValueError, "expected kernel_shape as an integer or a pair (rows, cols), got (3, 3, 1)"),
    "pad name": (lambda: pad_pairs("Conv2D", "smae", (3, 3)), ValueError, "Conv2D: expected pad to be one of 'same', 'valid', 'same_upper', got 'smae'; did you mean 'same'?"),
    "pad negative": (lambda: pad_pairs("Conv2D", -1, (3, 3)), ValueError, "Conv2D: expected pad as an integer at least 0, got -1"),
    "pad of four": (lambda: pad_pairs("Conv2D", (1, 1, 1, 1), (3, 3)), ValueError, "((top, bottom), (left, right)), got (1, 1, 1, 1)"),

    # pooling
    "first empty": (lambda: pooled_shape("Pool2D", (4, 4), (2, 2), (2, 2), ((2, 0), (0, 0))), ValueError,
                    "Pool2D: expected a pixel of the input in every window, got pad (2, 0) on 4 rows with kernel 2 and stride 2, where the first window is all padding"),
    "last empty": (lambda: pooled_shape("Pool2D", (4, 4), (3, 3), (1, 1), ((0, 0), (2, 3))), ValueError, "on 4 cols with kernel 3 and stride 1, where the last window"),
    "pool kernel 0": (lambda: Pool2D(0), ValueError, "Pool2D: expected kernel_shape as an integer at least 1, got 0"),
    "pool stride 0": (lambda: Pool2D(2, stride=0), ValueError, "Pool2D: expected stride as an integer at least 1, got 0"),
    "pool kernel float": (lambda: Pool2D(2.5), TypeError, "Pool2D: expected kernel_shape as an integer at least 1, got 2.5"),
    "pool mode": (lambda: Pool2D(2, "maximum"), ValueError, "Pool2D: expected mode to be one of 'max', 'average', got 'maximum'"),
    "pool count": (lambda: Pool2D(2, "average", count_include_pad="no"), TypeError, "Pool2D: expected count_include_pad as True or False, got 'no'"),
    "pool large kernel": (lambda: Pool2D(5).forward(X), ValueError, "Pool2D: expected a kernel no larger than the padded input (4, 4), got (5, 5)"),
    "pool empty": (lambda: Pool2D(2, pad=2).forward(X), ValueError, "Pool2D: expected a pixel of the input in every window, got pad (2, 2) on 4 rows with kernel 2"),
    "pool rank": (lambda: Pool2D(2).forward(X[0]), ValueError, "Pool2D: expected input (batch, rows, cols, channels), got (4, 4, 1)"),
    "pool no images": (lambda: Pool2D(2).forward(X[:0]), ValueError, "with at least one element, got (0, 4, 4, 1)"),
    "pool integers": (lambda: Pool2D(2).forward(X.astype(np.uint8)), TypeError, "Pool2D: expected input of dtype float32 or float64, got uint8"),
    "pool backward first": (lambda: Pool2D(2).backward(dY), RuntimeError, "Pool2D: expected a forward pass before backward"),
    "pool dLdY": (lambda: after(Pool2D(2), X).backward(X), ValueError, "Pool2D: expected dLdY (1, 3, 3, 1), got (1, 4, 4, 1)"),
    # a gradient of another precision than the input, where NumPy would go on in float64
    "max precision": (lambda: max_pool2d_backward(dY, max_pool2d(X.astype(f32), 2)[1]), TypeError, "max_pool2d_backward: expected dY of dtype float32, like X, got float64"),
    "average precision": (lambda: average_pool2d_backward(dY, average_pool2d(X.astype(f32), 2)[1]), TypeError,
                          "average_pool2d_backward: expected dY of dtype float32, like X, got float64"),
    "average precision, pixels alone": (lambda: average_pool2d_backward(dY, average_pool2d(X.astype(f32), 2, count_include_pad=False)[1]), TypeError,
                                        "average_pool2d_backward: expected dY of dtype float32, like X, got float64"),

    # flatten
    "flatten keep_dim": (lambda: Flatten("batch"), ValueError, "Flatten: expected keep_dim to be one of 'first', 'last', got 'batch'"),
    "flatten rank": (lambda: Flatten().forward(np.zeros(3)), ValueError, "Flatten: expected input (batch, ...), got (3,)"),
    "flatten integers": (lambda: Flatten().forward(rows.astype(np.uint8)), TypeError, "got uint8; convert it with .astype(np.float32)"),
    "flatten dLdY": (lambda: after(Flatten(), rows).backward(d_rows[:, :-1]), ValueError, "Flatten: expected dLdY (2, 12), got (2, 11)"),
    "flatten precision": (lambda: after(Flatten(), rows).backward(d_rows.astype(f32)), TypeError, "Flatten: expected dLdY of dtype float64"),
    "flatten backward first": (lambda: Flatten().backward(d_rows), RuntimeError, "Flatten: expected a forward pass before backward"),

    # dropout
    "dropout rate 1": (lambda: Dropout(1.0), ValueError, "Dropout: expected rate as a number at least 0 and below 1, got 1.0"),
    "dropout rate below 0": (lambda: Dropout(-0.1), ValueError, "got -0.1"),
    "dropout rate type": (lambda: Dropout("half"), TypeError, "Dropout: expected rate as a number"),
    "dropout integers": (lambda: Dropout().forward(np.zeros((2, 3), dtype=int)), TypeError, "Dropout: expected input of dtype float32 or float64, got int64"),
    "dropout mode": (lambda: Dropout().forward(line, mode="eval"), ValueError, "Dropout: expected mode to be 'train' or 'test', got 'eval'"),
    "dropout dLdY": (lambda: after(Dropout(), line).backward(d_line[:, :2]), ValueError, "Dropout: expected dLdY"),
    "dropout precision": (lambda: dropout_backward(d_line, np.ones((1, 3), f32)), TypeError, "expected dY of dtype float32, like mask"),
    "dropout backward first": (lambda: Dropout().backward(d_line), RuntimeError, "Dropout: expected a forward pass before backward"),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name):
    call, kind, words = CASES[name]
    with pytest.raises(kind, match=re.escape(words)) as raised: call()
    assert type(raised.value) is kind
