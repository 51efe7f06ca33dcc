"What activations refuse, word for word."
import numpy as np
import pytest
from fastcore.test import test_fail as fails

from hwnn.activations import ELU, GELU, LeakyReLU, Linear, ReLU, Sigmoid, SiLU, SoftMax, TanH, initialize_activation, normal_cdf

Z, dY = np.log([[2.0, 4.0, 10.0], [1/2, 3.0, 1/4]]), np.array([[1.0, -1.0, 2.0], [3.0, 1.0, -2.0]])
REFUSED = {
    "integers": (lambda: ReLU()(np.array([[1, 2]])), TypeError, "ReLU: expected Z of dtype float32 or float64, got int64"),
    "a list": (lambda: ReLU()([[1.0]]), TypeError, "ReLU: expected Z as a NumPy array, got list"),
    "nothing": (lambda: TanH()(np.zeros((0, 3))), ValueError, "TanH: expected Z (batch, units) with at least one element, got (0, 3)"),
    "one axis": (lambda: SoftMax()(np.zeros(3)), ValueError, "SoftMax: expected Z (batch, units), got (3,)"),
    "a gradient turned over": (lambda: Sigmoid().backward(Z, dY.T), ValueError, "Sigmoid: expected dY (2, 3), got (3, 2)"),
    "a gradient that would broadcast": (lambda: Linear().backward(Z, dY[:1]), ValueError, "Linear: expected dY (2, 3), got (1, 3)"),
    "another precision": (lambda: ReLU().backward(Z.astype(np.float32), dY), TypeError,
                          "expected dY of dtype float32, like Z, got float64; convert it with .astype(np.float32)"),
    "a name misspelt": (lambda: initialize_activation("relo"), ValueError, "got 'relo'; did you mean 'relu'?"),
    "a class": (lambda: initialize_activation(ReLU), TypeError, "activation: expected an object, got the class ReLU; ReLU(...) makes one"),
    "slope 0": (lambda: LeakyReLU(0), ValueError, "LeakyReLU: expected slope as a number above 0 and below 1, got 0"),
    "slope as a text": (lambda: LeakyReLU("0.1"), TypeError, "LeakyReLU: expected slope as a number above 0 and below 1, got '0.1'"),
    "alpha below 0": (lambda: ELU(-1.0), ValueError, "ELU: expected alpha as a number above 0 and below 1e+38, got -1.0"),
    "a form misspelt": (lambda: GELU("tahn"), ValueError, "GELU: expected form to be one of 'exact', 'tanh', got 'tahn'; did you mean 'tanh'?"),
    "another's argument": (lambda: initialize_activation({"name": "leaky_relu", "alpha": 0.1}), TypeError,
                           "LeakyReLU: expected arguments among 'slope', got 'alpha'"),
    "half a name": (lambda: initialize_activation("leaky"), ValueError, "did you mean 'leaky_relu'?"),
    "integers on the left": (lambda: GELU()(np.array([[1, 2]])), TypeError, "GELU: expected Z of dtype float32 or float64, got int64"),
    "a rectifier's gradient turned over": (lambda: SiLU().backward(Z, dY.T), ValueError, "SiLU: expected dY (2, 3), got (3, 2)"),
    "normal_cdf of a list": (lambda: normal_cdf([0.0]), TypeError, "normal_cdf: expected Z as a NumPy array, got list"),
    "normal_cdf without an axis": (lambda: normal_cdf(np.array(0.0)), ValueError, "normal_cdf: expected Z (...,), got ()"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    call, error, message = REFUSED[case]
    fails(call, exc=error, contains=message)
