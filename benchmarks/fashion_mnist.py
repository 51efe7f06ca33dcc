"""Train the network of the tutorial on Fashion-MNIST, in hwnn or in PyTorch, and add the run to fashion_mnist.json.

    python benchmarks/fashion_mnist.py --framework hwnn --seed 0                # with NumPy alone; train on all 60,000 images, test at the end
    python benchmarks/fashion_mnist.py --framework hwnn --seed 0 --validation   # for choosing settings: train on 50,000, test on the other 10,000

All settings are those of `hwnn-train --dataset fashion_mnist --model cnn`: SETTINGS in hwnn.train, made by nbs/commands/train.ipynb.
`--framework "hwnn fast"` is hwnn with the compiled functions of the extra `fast`. All get the same first weights and the same batches, moved and mirrored by the same numbers.
A run that is in the file already, with the same framework, seed, part and settings, is shown and not repeated; --again repeats and replaces it.
"""
import argparse
import json
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from hwnn.datasets import Dataset
from hwnn.engine.table import use_fast
from hwnn.logs import jsonable, progress
from hwnn.models import initialize_model
from hwnn.train import load_dataset, run_args

RESULTS = Path(__file__).with_suffix(".json")


def epoch_text(row): return f"epoch {row['epoch']:3d}  train loss {row['train_loss']:.4f}  error {row['train_error']:.4f}  {row['seconds']:6.1f} s"


class Clock:
    "A logger that takes the time of each epoch, and prints its line."
    def __init__(self): self.start, self.seconds = perf_counter(), []

    def log(self, row):
        self.seconds.append(perf_counter() - self.start - sum(self.seconds))
        tqdm.write(epoch_text({**row, "seconds": self.seconds[-1]}))

    def finish(self, history): pass


def train_hwnn(dataset, model_args, epochs):
    "History, seconds of each epoch, and a function from images to outputs."
    clock = Clock()
    net = initialize_model(**model_args, logger=clock)
    clock.start = perf_counter()
    history = net.train(dataset, epochs=epochs)
    return history.columns, clock.seconds, net.predict


def torch_twin(net, layer_args):
    "The network in PyTorch, with the same weights. `net` has seen a batch."
    import torch
    from torch import nn
    tensor, modules = lambda A: torch.tensor(np.ascontiguousarray(A)), []
    for layer, args in zip(net.layers, layer_args):
        p, n_in, n_out = layer.parameters, layer.n_in, layer.n_out
        if args["name"] == "conv2d":
            module = nn.Conv2d(n_in, n_out, args["kernel_shape"], padding="same")
            module.weight.data = tensor(p["W"].transpose(3, 2, 0, 1))
        elif args["name"] == "fully_connected":
            module = nn.Linear(n_in, n_out)
            module.weight.data = tensor(p["W"].T)
        elif args["name"] == "batchnorm1d":
            module = nn.BatchNorm2d(n_in, eps=layer.eps, momentum=1 - layer.momentum)   # PyTorch's momentum is the share of the new value
            module.weight.data, module.bias.data = tensor(p["gamma"][0]), tensor(p["beta"][0])
            module.to(module.weight.dtype)
        elif args["name"] == "pool2d": module = nn.MaxPool2d(args["kernel_shape"], args["stride"])
        elif args["name"] == "flatten": module = flatten_nhwc()
        else: raise ValueError(f"torch_twin: expected a layer of the tutorial's network, got {args['name']!r}")
        if "b" in p: module.bias.data = tensor(p["b"][0])
        modules.append(module)
        if args.get("activation") == "relu": modules.append(nn.ReLU())
    return nn.Sequential(*modules).to(memory_format=torch.channels_last)


def flatten_nhwc():
    "The order of hwnn's Flatten: rows, columns, channels."
    from torch import nn
    class Flatten(nn.Module):
        def forward(self, X): return X.permute(0, 2, 3, 1).flatten(1)
    return Flatten()


def images(X):
    "A batch of hwnn's images for PyTorch: its axes, in the memory format in which its convolutions are fastest here."
    import torch
    return torch.from_numpy(X).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def train_torch(dataset, model_args, epochs):
    "The same in PyTorch."
    import torch
    from torch import nn
    net, settings = initialize_model(**model_args), model_args["optimizer_args"]
    net.layers[-1].n_out = dataset.out_dim
    net.forward(dataset.train.X[:2])   # makes the weights, which the seed decides
    schedule, loss_of = net.optimizer.lr_scheduler, nn.CrossEntropyLoss(label_smoothing=net.loss.smoothing)
    model = torch_twin(net, model_args["layer_args"])
    make = dict(SGD=torch.optim.SGD, adamw=torch.optim.AdamW)[settings["name"]]
    optimizer = make(model.parameters(), **{key: value for key, value in settings.items() if key in ("lr", "momentum", "weight_decay")})
    data, history = dataset.train, dict(epoch=[], lr=[], train_loss=[], train_error=[])
    clock = Clock()
    model.train()
    with progress(total=epochs*data.samples_per_epoch, desc="training") as bar:
        for epoch in range(epochs):
            loss, error = 0.0, 0
            for step in range(data.samples_per_epoch):
                X, Y = data.sample()
                target = torch.from_numpy(Y.argmax(axis=1))
                for group in optimizer.param_groups: group["lr"] = schedule(epoch + step/data.samples_per_epoch)
                optimizer.zero_grad()
                out = model(images(X))
                batch_loss = loss_of(out, target)
                batch_loss.backward()
                optimizer.step()
                loss += batch_loss.item()*len(X)
                error += (out.argmax(dim=1) != target).sum().item()
                bar.update()
            row = dict(epoch=epoch + 1, lr=schedule(epoch), train_loss=loss/len(data), train_error=error/len(data))
            for name, value in row.items(): history[name].append(value)
            clock.log(row)
    model.eval()
    def predict(X):
        with torch.no_grad(): return np.concatenate([model(images(X[k:k + 256])).numpy() for k in range(0, len(X), 256)])
    return history, clock.seconds, predict


def machine():
    "Processor, number of cores and system."
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def settings_of(data_args, model_args, epochs):
    "All that makes two runs comparable, in terms of JSON."
    what = {**{key: value for key, value in data_args.items() if key != "augment"}, "augment": data_args["augment"].__name__, "epochs": epochs}
    return json.loads(json.dumps(jsonable({**what, **{key: model_args[key] for key in ("loss", "layer_args", "optimizer_args")}})))


def key(run): return [run[name] for name in ("framework", "seed", "part", "settings")]


def load_runs(path=RESULTS):
    "The runs in the file, a list of dicts; none where there is no file."
    return json.loads(Path(path).read_text())["runs"] if Path(path).exists() else []


def add_run(run, path):
    "Put a run into the file, in the place of the same one."
    run = json.loads(json.dumps(jsonable(run)))
    runs = sorted([*(r for r in load_runs(path) if key(r) != key(run)), run], key=lambda r: (r["part"], r["framework"], r["seed"]))
    beside = path.with_suffix(".part")
    beside.write_text('{"runs": [\n' + ",\n".join(json.dumps(r) for r in runs) + "\n]}\n")
    os.replace(beside, path)


def line(run):
    return (f"{run['framework']}, seed {run['seed']}: {run['part']} accuracy {100*run['accuracy']:.2f} %, "
            f"{run['seconds']:.0f} s for {run['settings']['epochs']} epochs, {run['test_seconds']:.1f} s for the {run['part']} part")


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="Settings are those of hwnn.train; --epochs, --batch-size, --lr and --images are for trying things out.")
    p.add_argument("--framework", choices=("hwnn", "hwnn fast", "pytorch"), required=True)
    p.add_argument("--seed", type=int, default=0, help="of the weights, the order of the batches and the augmentation (default: 0)")
    p.add_argument("--validation", action="store_true", help="train on 50,000 images and test on the other 10,000 of the training part")
    p.add_argument("--epochs", type=int)
    p.add_argument("--batch-size", type=int)
    p.add_argument("--lr", type=float)
    p.add_argument("--images", type=int, help="train on so many images only, and write nothing")
    p.add_argument("--again", action="store_true", help="repeat a run that is in the file")
    p.add_argument("--json", type=Path, default=RESULTS, help="the file (default: beside this script)")
    a = p.parse_args(args)
    part = "validation" if a.validation else "test"
    data_args, model_args, epochs = run_args("fashion_mnist", "cnn", a.epochs, a.batch_size, lr=a.lr, seed=a.seed, validation=10_000 if a.validation else 0)
    run = dict(framework=a.framework, seed=a.seed, part=part, settings=settings_of(data_args, model_args, epochs))
    known = next((r for r in load_runs(a.json) if key(r) == key(run)), None)
    if known and not a.again and not a.images:
        for values in zip(*known["history"].values()): print(epoch_text(dict(zip(known["history"], values))))
        print(line(known))
        return
    whole = load_dataset(**data_args)
    held_out = whole.validate if a.validation else whole.test
    dataset = Dataset(whole.train.X[:a.images], whole.train.Y[:a.images], data_args["batch_size"], rng=np.random.default_rng(a.seed), augment=data_args["augment"])
    use_fast(a.framework == "hwnn fast")
    history, seconds, predict = (train_torch if a.framework == "pytorch" else train_hwnn)(dataset, model_args, epochs)
    start = perf_counter()
    truth, guess = held_out.Y.argmax(axis=1), predict(held_out.X).argmax(axis=1)
    packages = "hwnn", "numpy", *{"hwnn": (), "hwnn fast": ("numba",), "pytorch": ("torch",)}[a.framework]
    run.update(accuracy=float((truth == guess).mean()), seconds=sum(seconds), test_seconds=perf_counter() - start, date=date.today().isoformat(), machine=machine(),
               versions={"python": platform.python_version(), **{name: version(name) for name in packages}}, classes=whole.preparation["classes"],
               confusion=np.bincount(10*truth + guess, minlength=100).reshape(10, 10).tolist(), history={**history, "seconds": seconds})
    if not a.images: add_run(run, a.json)
    print(line(run))


if __name__ == "__main__": main()
