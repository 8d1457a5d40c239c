"""Programs that do nothing useful, for finding tests that pass whatever the program does. Standard library only."""

# pyright: basic

MOST_ANSWERS = 1_000
"""Answers after which such a program ends; tests that it passes need fewer."""


class Agreeable:
    """Object that agrees to everything and has every attribute; no plain data equals it."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        """Return itself, whatever the arguments."""
        return self

    def __getattr__(self, name):
        """Return itself for every attribute that is not one of Python's own."""
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
    """Class in a program that does nothing; its objects are equal only to themselves."""

    def __init__(self, *args, **kwargs):
        pass


def nothing(*args, **kwargs):
    """Return None."""


def refusal(*args, **kwargs):
    """Raise an exception that no test expects."""
    raise RuntimeError("this program does nothing")


def argument(*args, **kwargs):
    """Return the first argument."""
    return next(iter([*args, *kwargs.values()]), None)


Agreeable.__module__ = Inert.__module__ = "solution"  # as a program's own
PROGRAMS = {"return None": nothing, "raise": refusal, "return the argument": argument, "agree": Agreeable}


class Everything(dict):
    """Namespace in which every name is the same object."""

    def __init__(self, found):
        self.found = found

    def __contains__(self, name):
        return True

    def __missing__(self, name):
        return Inert if name[:1].isupper() and self.found is not Agreeable else self.found


def space(name):
    """Return the namespace of a useless program."""
    return Everything(PROGRAMS[name])
