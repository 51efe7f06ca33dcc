"""Every layer with every activation in every setting, one table: gradients by differences, adjoints, PyTorch, float32; then whole networks for 200 steps."""
from functools import partial
from inspect import signature
from itertools import combinations, count, product

import numpy as np
import pytest

from hwnn.activations import ACTIVATIONS
from hwnn.all import *
from hwnn.layers import known as LAYERS

LINEAR, TANH = dict(name="linear"), dict(name="tanh")
ACTIVATION = [LINEAR, TANH, *[dict(name=name) for name in ("sigmoid", "arctan", "relu", "softmax", "softplus", "silu", "gelu")],
              dict(name="gelu", form="tanh"), dict(name="leaky_relu", slope=0.1), dict(name="elu", alpha=0.7)]
BOOL, BOTH, ANY, EPS = [True, False], ["train", "test"], [(6, 3), (2, 5, 4), (2, 3, 2, 4)], [1e-5, 1e-2]
SIZES, SIDES = dict(kernel_shape=[2, 3, (3, 2)], stride=[1, 2, (1, 3)]), ["valid", "same", "same_upper", 0, 1, (2, 1), ((0, 1), (1, 0))]

# For each layer rows of settings: all combinations of those in a row are looked at. "shape" is the input's, "pass_mode" is that of the forward pass.
TABLE = [
    ("fully_connected", dict(n_out=[2, 5], activation=ACTIVATION, bias=BOOL, shape=[(1, 4), (6, 1), (6, 3)])),
    ("fully_connected", dict(n_out=[128], activation=[TANH], bias=BOOL, shape=[(160, 128)])),   # large enough for compiled products
    ("conv2d", dict(n_out=[4], kernel_shape=[1, 3, (2, 3)], activation=ACTIVATION, stride=[1, 2, (1, 3)], pad=[*SIDES, ((4, 0), (0, 5))], bias=BOOL, shape=[(1, 5, 4, 2), (2, 3, 4, 1)])),
    ("conv2d", dict(n_out=[16], kernel_shape=[3], activation=[TANH], pad=SIDES, bias=BOOL, shape=[(2, 12, 9, 16)])),   # Winograd's
    ("pool2d", dict(**SIZES, mode=["max", "average"], pad=[p for p in SIDES if p != (2, 1)], count_include_pad=BOOL, shape=[(2, 5, 4, 2), (1, 3, 6, 1)])),
    ("pool2d", dict(**SIZES, mode=["max", "average"], pad=[0, 1, (1, 0)], count_include_pad=BOOL, ceil_mode=[True], shape=[(2, 5, 4, 2), (1, 3, 6, 1)])),
    ("pool2d", dict(kernel_shape=["global"], mode=["max", "average"], shape=[(2, 5, 4, 2), (1, 1, 3, 2)])),
    ("batchnorm1d", dict(eps=[1e-8, 1e-2], momentum=[0.0, 0.9], shape=ANY, pass_mode=BOTH)),
    ("layernorm", dict(eps=EPS, shape=ANY)),
    ("groupnorm", dict(groups=[1, 2], eps=EPS, shape=[(3, 4), (2, 5, 4), (2, 3, 2, 4)])),
    ("groupnorm", dict(groups=[4], shape=[(2, 3, 2, 4)])),
    ("dropout", dict(rate=[0.0, 0.5, 0.9], shape=ANY, pass_mode=BOTH)),
    ("flatten", dict(keep_dim=["first", "last", -1], shape=ANY)),
]
ELSEWHERE = {"weight_init"}   # arguments that are no matter of gradients


def cases(name): return [dict(zip(row, values)) for layer, row in TABLE if layer == name for values in product(*row.values())]


def covering(name):
    "Of these cases so many that every two settings meet in one."
    met, chosen, drawn = set(), [], cases(name)
    np.random.default_rng(0).shuffle(drawn)
    for case in drawn:
        pairs = {repr(pair) for pair in combinations(case.items(), 2)} or {repr(case)}
        if pairs - met: chosen.append(case)
        met |= pairs
    return chosen


def one(name, shape, pass_mode="train", **settings):
    """A layer of random parameters, its input, the gradient at its output, and its mode. No number is near a kink of an activation, none near a tie;
    a sum is exactly 0 only in a window of padding alone, whose gradient goes nowhere."""
    for seed in count():
        rng, layer = np.random.default_rng(seed), initialize_layer(name, **settings)
        X = rng.permutation(np.prod(shape)).reshape(shape)/np.prod(shape) - 0.4
        layer.forward(X)
        for p in layer.parameters.values(): p[...] = rng.normal(size=p.shape)/np.sqrt(max(1, p[..., 0].size))
        Y = layer.forward(X, pass_mode)
        Z = np.abs(layer.cache.get("Z", X))
        if "Z" not in layer.cache or Z[Z > 0].min() > 1e-4: return layer, X, rng.normal(size=Y.shape), pass_mode


def passes(layer, X, dY, mode):
    "Output, gradient at the input, and those of the parameters."
    layer.rng = np.random.default_rng(1)
    Y, dX = layer.forward(X, mode), layer.backward(dY)
    return dict(Y=Y, dX=dX) | layer.gradients


every_layer = pytest.mark.parametrize("name", LAYERS)


def test_the_table_is_whole():
    "Every layer has rows, and in them every argument that it takes and every setting of a switch; every activation occurs."
    for name, cls in LAYERS.items():
        seen = {key for layer, row in TABLE if layer == name for key in row}
        assert set(signature(cls).parameters) - ELSEWHERE == seen - {"shape", "pass_mode"}, f"{name}: a row in TABLE for each argument"
    assert {ACTIVATIONS[spec["name"]] for spec in ACTIVATION} == set(ACTIVATIONS.values())


# Differences --------------------------------------------------------------------------------------------------------------------------------

def along(fn, x, rng):
    "The function and its argument in a few random directions, where single numbers are many; and the directions."
    D = np.eye(x.size) if x.size <= 80 else rng.normal(size=(8, x.size))/np.sqrt(x.size)
    return lambda t: fn(x + (t @ D).reshape(x.shape)), np.zeros(len(D)), D


@every_layer
def test_gradients(name, engine):
    for case in covering(name):
        layer, X, dY, mode = one(name, **case)
        got, rng = passes(layer, X, dY, mode), np.random.default_rng(2)
        layer.rng = np.random.default_rng(1)
        layer.forward(X, mode)   # the draw that is done again

        def output(X):
            with layer.replay(): return layer.forward(X, mode)

        functions = {"dX": (output, X)} | {key: (layer.forward_with_param(key, X, mode), p) for key, p in layer.parameters.items()}
        for key, (fn, x) in functions.items():
            fn, t, D = along(fn, x, rng)
            assert check_gradients(fn, D @ got[key].ravel(), t, dY) < 1e-7, (key, layer, case)


# Adjoints -----------------------------------------------------------------------------------------------------------------------------------

def is_linear(name, case):
    if "activation" in case: return case["activation"] == LINEAR
    return name in ("dropout", "flatten") or case.get("mode") == "average" or case.get("pass_mode") == "test"


@every_layer
def test_adjoints(name, engine):
    "Where the output is linear in the input but for a constant; the normalisations are not, but for batch norm in use."
    for case in filter(partial(is_linear, name), cases(name)):
        layer, X, dY, mode = one(name, **case)
        def forward(A): return [passes(layer, B, dY, mode)["Y"] for B in (A, 0*A)]
        def linear(A): return np.subtract(*forward(A))
        def backward(A): return passes(layer, X, A, mode)["dX"]
        assert adjoint_error(linear, backward, X, dY) < 1e-13, (layer, case)


# PyTorch ------------------------------------------------------------------------------------------------------------------------------------

def turned(x): return x.movedim(-1, 1)   # channels first

def back(y): return y.movedim(1, -1)

def zeros(pad, n, k, s):
    "Zeros before and after along one axis: (before, after)."
    if isinstance(pad, str):
        total = dict(valid=0, same=k - 1, same_upper=max(k - (n % s or s), 0))[pad]
        return total//2, total - total//2
    return pad if isinstance(pad, tuple) else (pad, pad)

def geometry(layer, x):
    "Kernel, stride and zeros of a layer on images, the zeros as PyTorch's pad wants them."
    pads = [layer.pad]*2 if isinstance(layer.pad, str) else layer.pad
    rows, cols = map(zeros, pads, x.shape[1:3], layer.kernel_shape, layer.stride)
    return layer.kernel_shape, layer.stride, (*cols, *rows)

def activated(F, activation, z):
    name, arguments = type(activation).__name__, vars(activation)
    functions = dict(Linear=lambda z: z, Sigmoid=F.sigmoid, TanH=F.tanh, ArcTan=lambda z: z.atan(), ReLU=F.relu, SoftMax=partial(F.softmax, dim=-1), Softplus=F.softplus, SiLU=F.silu,
                     GELU=lambda z, form: F.gelu(z, approximate="none" if form == "exact" else "tanh"),
                     LeakyReLU=lambda z, slope: F.leaky_relu(z, slope), ELU=lambda z, alpha: F.elu(z, alpha))
    return functions[name](z, **arguments)

def dense(F, layer, x, p, mode): return activated(F, layer.activation, F.linear(x, p["W"].T, p["b"][0] if layer.bias else None))

def convolution(F, layer, x, p, mode):
    kernel, stride, sides = geometry(layer, x)
    return activated(F, layer.activation, back(F.conv2d(F.pad(turned(x), sides), p["W"].permute(3, 2, 0, 1), p["b"][0] if layer.bias else None, stride)))

def pooling(F, layer, x, p, mode):
    x, most = turned(x), layer.mode == "max"
    if layer.kernel_shape == "global": return back((F.adaptive_max_pool2d if most else F.adaptive_avg_pool2d)(x, 1))
    kernel, stride, sides = geometry(layer, back(x))
    inside = (sides[2], sides[0]) if layer.ceil_mode else 0   # windows that hang over depend on what is padding
    if most: return back(F.max_pool2d(x if inside else F.pad(x, sides, value=-np.inf), kernel, stride, inside, ceil_mode=layer.ceil_mode))
    if inside: return back(F.avg_pool2d(x, kernel, stride, inside, True, layer.count_include_pad))
    mean = partial(F.avg_pool2d, kernel_size=kernel, stride=stride, ceil_mode=layer.ceil_mode)
    y = mean(F.pad(x, sides))
    return back(y if layer.count_include_pad else y/mean(F.pad(x*0 + 1, sides)))

def batch_norm(F, layer, x, p, mode):
    kept = [x.new_tensor(layer.state[key][0]) for key in ("running_mu", "running_var")]
    return back(F.batch_norm(turned(x), *kept, p["gamma"][0], p["beta"][0], mode == "train", eps=layer.eps))

def layer_norm(F, layer, x, p, mode): return F.layer_norm(x, x.shape[-1:], p["gamma"][0], p["beta"][0], layer.eps)

def group_norm(F, layer, x, p, mode): return back(F.group_norm(turned(x), layer.groups, p["gamma"][0], p["beta"][0], layer.eps))

def masked(F, layer, x, p, mode): return x*x.new_tensor(layer.cache["mask"]) if mode == "train" else x

def flat(F, layer, x, p, mode): return x.reshape(dict(first=(len(x), -1), last=(-1, x.shape[-1])).get(layer.keep_dim, (1, -1)))

THEIRS = dict(FullyConnected=dense, Conv2D=convolution, Pool2D=pooling, BatchNorm1D=batch_norm, LayerNorm=layer_norm, GroupNorm=group_norm, Dropout=masked, Flatten=flat)


def leaf(torch, A): return torch.tensor(A.astype(np.float64), requires_grad=True)

def theirs(torch, layer, X, dY, mode):
    "What `passes` returns, by PyTorch in float64; dropout takes our mask."
    x, p = leaf(torch, X), {key: leaf(torch, A) for key, A in layer.parameters.items()}
    y = THEIRS[type(layer).__name__](torch.nn.functional, layer, x, p, mode)
    y.backward(torch.tensor(dY))
    return {key: t.detach().numpy() for key, t in dict(Y=y, dX=x.grad, **{key: t.grad for key, t in p.items()}).items()}


def distance(ours, expected): return float(np.abs(ours - expected).max()/max(1.0, np.abs(expected).max()))


@pytest.mark.needs("torch")
@every_layer
def test_pytorch(name, engine, torch):
    "Output, gradient at the input and those of the parameters: all cases with NumPy, a covering choice compiled."
    for case in (covering if is_fast() else cases)(name):
        layer, X, dY, mode = one(name, **case)
        ours = passes(layer, X, dY, mode)
        expected = theirs(torch, layer, X, dY, mode)
        assert ours.keys() == expected.keys()
        for key, A in ours.items(): assert A.shape == expected[key].shape and distance(A, expected[key]) < 1e-10, (key, layer, case)


# float32 ------------------------------------------------------------------------------------------------------------------------------------

def single(layer):
    "The layer in float32."
    for d in (layer.parameters, layer.state): d.update({key: A.astype(np.float32) for key, A in d.items()})
    return layer


@every_layer
def test_float32(name, engine):
    "float32 stays float32, gradients and state included, and has the digits of float64 that it can have."
    for case in covering(name):
        layer, X, dY, mode = one(name, **case)
        exact, ours = passes(layer, X, dY, mode), passes(single(layer), X.astype(np.float32), dY.astype(np.float32), mode)
        assert {A.dtype for A in (*ours.values(), *layer.state.values())} == {np.dtype(np.float32)}, (layer, case)
        for key, A in ours.items(): assert distance(A, exact[key]) < 1e-3, (key, layer, case)


@every_layer
def test_the_mode_counts_where_the_table_says_so(name):
    for case in covering(name):
        layer, X, dY, mode = one(name, **case)
        if "pass_mode" not in case: np.testing.assert_array_equal(layer.forward(X, "test"), layer.forward(X))


# Whole networks -----------------------------------------------------------------------------------------------------------------------------

def mlp(): return [FullyConnected(16, "tanh"), FullyConnected(12, dict(name="elu", alpha=0.7)), LayerNorm(), FullyConnected(8, "silu"), FullyConnected(3, "softmax")]

def cnn():
    return [Conv2D(4, 3, "relu", bias=False), BatchNorm1D(), Pool2D(2, stride=2), Dropout(0.25), Conv2D(6, (2, 3), "gelu", stride=2, pad="same_upper"), GroupNorm(2), Pool2D(2, "average", pad=1),
            Flatten(), FullyConnected(10, "tanh"), BatchNorm1D(momentum=0.8), Dropout(0.5), FullyConnected(3, "softmax")]

OPTIMIZERS = {   # ours, theirs
    "SGD": (lambda: SGD(0.02, momentum=0.9, weight_decay=0.01), lambda optim, p: optim.SGD(p, 0.02, 0.9, weight_decay=0.01)),
    "Nesterov": (lambda: Nesterov(0.02), lambda optim, p: optim.SGD(p, 0.02, 0.9, nesterov=True)),
    "RMSProp": (lambda: RMSProp(0.002, eps=1e-4), lambda optim, p: optim.RMSprop(p, 0.002, eps=1e-4)),
    "Adam": (lambda: Adam(0.005, eps=1e-4), lambda optim, p: optim.Adam(p, 0.005, eps=1e-4)),
    "AdamW": (lambda: AdamW(0.005, eps=1e-4, weight_decay=0.1), lambda optim, p: optim.AdamW(p, 0.005, eps=1e-4, weight_decay=0.1)),
}


@pytest.mark.needs("torch")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layers,shape", [(mlp, (60, 5)), (cnn, (60, 8, 7, 2))], ids=["mlp", "cnn"])
def test_networks(layers, shape, optimizer, engine, torch):
    "200 steps of 20 examples each: losses, parameters, and what the network answers in use, with its running statistics."
    rng, (our_optimizer, their_optimizer), F = np.random.default_rng(0), OPTIMIZERS[optimizer], torch.nn.functional
    X, k = rng.normal(size=shape), rng.integers(0, 3, 60)
    Y, net = np.eye(3)[k], NeuralNetwork(layers(), optimizer=our_optimizer(), seed=5)
    net.forward(X[:20])
    for layer in net.layers: layer.state.clear()
    params = [{key: leaf(torch, A) for key, A in layer.parameters.items()} for layer in net.layers]
    running, optim = {}, their_optimizer(torch.optim, [t for p in params for t in p.values()])

    def logits(x, mode):
        "Their forward pass up to the softmax at the end; batch norm's averages as our pages define them."
        for layer, p in zip(net.layers[:-1], params):
            if isinstance(layer, BatchNorm1D):
                if mode == "train":
                    axes, old = tuple(range(x.ndim - 1)), running.get(layer)
                    new = [x.detach().mean(axes), x.detach().var(axes, correction=0)]
                    running[layer] = new if old is None else [layer.momentum*a + (1 - layer.momentum)*b for a, b in zip(old, new)]
                x = back(F.batch_norm(turned(x), *([None, None] if mode == "train" else running[layer]), p["gamma"][0], p["beta"][0], mode == "train", eps=layer.eps))
            else: x = THEIRS[type(layer).__name__](F, layer, x, p, mode)
        return x @ params[-1]["W"] + params[-1]["b"][0]

    first = None
    for step in range(200):
        rows = rng.permutation(60)[:20]
        loss = net.backward(Y[rows], net.forward(X[rows]))
        optim.zero_grad()
        expected = F.cross_entropy(logits(torch.tensor(X[rows]), "train"), torch.tensor(k[rows]))
        expected.backward()
        net.update(0)
        optim.step()
        first = first or loss
        assert abs(loss - expected.item()) < 1e-9, step
    for layer, p in zip(net.layers, params):
        for key, t in p.items(): assert distance(layer.parameters[key], t.detach().numpy()) < 1e-9, (layer, key)
    assert distance(net.predict(X), F.softmax(logits(torch.tensor(X), "test"), dim=1).detach().numpy()) < 1e-9
    assert loss < 0.9*first
