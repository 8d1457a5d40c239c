"""Programs that do nothing useful, for finding tests that hold whatever the program does. Standard library only."""

# pyright: basic

MOST_ANSWERS = 1_000
"""After which such a program ends; whatever it passes, it passes sooner."""


class Agreeable:
    """Agrees to whatever it is asked, and has every method; nothing that is plain data equals it."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        """Whatever the arguments."""
        return self

    def __getattr__(self, name):
        """Every attribute that is not one of Python's own."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __eq__(self, other):
        return True

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__

    def __hash__(self):
        return 0

    def __bool__(self):
        return True

    def __sub__(self, other):
        return 0.0

    __rsub__ = __mod__ = __add__ = __radd__ = __mul__ = __sub__

    def __abs__(self):
        return 0.0

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


class Inert:
    """What a class comes to in a program that does nothing: objects of which each is itself alone."""

    def __init__(self, *args, **kwargs):
        pass


def nothing(*args, **kwargs):
    """Return None."""


def refusal(*args, **kwargs):
    """Raise what no test waits for."""
    raise RuntimeError("this program does nothing")


def argument(*args, **kwargs):
    """Return the first argument."""
    return next(iter([*args, *kwargs.values()]), None)


Agreeable.__module__ = Inert.__module__ = "solution"  # as a program's own
PROGRAMS = {"return None": nothing, "raise": refusal, "return the argument": argument, "agree": Agreeable}


class Everything(dict):
    """A namespace in which every name is the same thing."""

    def __init__(self, found):
        self.found = found

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return Inert if name[:1].isupper() and self.found is not Agreeable else self.found


def space(name):
    """The namespace of such a program."""
    return Everything(PROGRAMS[name])
