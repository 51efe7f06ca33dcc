"""The three networks of the benchmark, in hwnn and in PyTorch, and one training step of each."""
import numpy as np

SHAPES = {"a": (784,), "b": (28, 28, 1), "c": (32, 32, 3)}
NAMES = {"a": "(a) MLP 784-128-64-10", "b": "(b) LeNet-like", "c": "(c) VGG-like, batch norm"}


def batch(name, n=64):
    "Random inputs (n, *shape) and labels (n,)."
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, *SHAPES[name]), dtype=np.float32), rng.integers(0, 10, n)


def ours(name):
    "The network in hwnn."
    from hwnn.layers import BatchNorm1D, Conv2D, Flatten, FullyConnected, Pool2D
    from hwnn.models import NeuralNetwork
    from hwnn.optimizers import SGD
    if name == "a": layers = [FullyConnected(128, "relu"), FullyConnected(64, "relu")]
    if name == "b": layers = [Conv2D(6, 5, "relu"), Pool2D(2, stride=2), Conv2D(16, 5, "relu", pad="valid"), Pool2D(2, stride=2), Flatten(),
                              FullyConnected(120, "relu"), FullyConnected(84, "relu")]
    if name == "c":
        layers = []
        for n_out in (32, 64, 128):
            for _ in range(2): layers += [Conv2D(n_out, 3, "relu"), BatchNorm1D(eps=1e-5)]
            layers.append(Pool2D(2, stride=2))
        layers.append(Flatten())
    return NeuralNetwork([*layers, FullyConnected(10, "softmax")], optimizer=SGD(0.01, momentum=0.9))


def theirs(name):
    "The same network in PyTorch."
    from torch import nn
    if name == "a": layers = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
    if name == "b": layers = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                              nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    if name == "c":
        layers, n_in = [], 3
        for n_out in (32, 64, 128):
            for _ in range(2):
                layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(n_out)]
                n_in = n_out
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(4*4*128, 10)]
    return nn.Sequential(*layers)


def copy_parameters(net, module):
    "Give the PyTorch network the parameters of ours, which has done a forward pass."
    import torch
    with_parameters = [m for m in module if list(m.parameters())]
    for before, layer in zip([None, *net.layers], net.layers):
        if not layer.parameters: continue
        target, named = with_parameters.pop(0), layer.parameters
        if "gamma" in named: continue   # ones and zeros in both
        W = named["W"]
        if W.ndim == 4: W = W.transpose(3, 2, 0, 1)
        elif type(before).__name__ == "Flatten":   # PyTorch flattens channels first
            W = W.reshape(*before.cache["ctx"][1][1:], -1).transpose(3, 2, 0, 1).reshape(W.shape[1], -1)
        else: W = W.T
        with torch.no_grad():
            target.weight.copy_(torch.from_numpy(np.ascontiguousarray(W)))
            target.bias.copy_(torch.from_numpy(named["b"][0]))


def our_step(net, X, y):
    "A function that trains on the batch once, and returns the loss."
    Y = np.eye(10, dtype=X.dtype)[y]
    def step():
        loss = net.backward(Y, net.forward(X), forget=True)
        net.update(0)
        return [loss]
    return step


def their_step(module, X, y, channels_last=False):
    "The same in PyTorch, in one of its memory formats."
    import torch
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    if X.ndim == 4:
        X = X.permute(0, 3, 1, 2)
        if channels_last: module = module.to(memory_format=torch.channels_last)
        else: X = X.contiguous()
    optimizer = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9)
    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(X), y)
        loss.backward()
        optimizer.step()
        return [loss]
    return step
