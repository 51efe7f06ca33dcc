"""Neural networks in plain NumPy: the library that the notebooks in `nbs/` export."""


def __getattr__(name):
    # Read on demand: importlib.metadata alone would cost more than the rest of the import.
    if name == "__version__":
        from importlib.metadata import version
        return version("hwnn")
    raise AttributeError(f"module 'hwnn' has no attribute {name!r}")
