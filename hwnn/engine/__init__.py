"""How the functions of the library run fast. Nothing here knows them: `table.run` finds by its name what takes the place of a function."""
OFFERS = {}   # module -> name -> function


def offered(fn):
    "Decorator: `fn` may take the place of the library's function of its name. In `hwnn.engine.blocks` that function is the first argument."
    OFFERS.setdefault(fn.__module__, {})[fn.__name__] = fn
    return fn
