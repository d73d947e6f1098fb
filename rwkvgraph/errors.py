"""The errors that this package raises, one kind for each who can fix it."""


class RwkvGraphError(Exception):
    """Any error of this package: what was given, what was wanted, where, and what to do."""


class ShapeError(RwkvGraphError, ValueError):
    """Shapes, types or sizes do not fit; whoever built the op can fix it."""


class HookError(RwkvGraphError, ValueError):
    """A hook names no site or breaks the rules of its frame; the author of the hook can fix it."""


class LoadError(RwkvGraphError):
    """A file is missing, malformed or not what it should be; whoever chose or wrote the file can fix it."""


class DeviceError(RwkvGraphError):
    """The machine lacks an adapter, a feature or memory; whoever runs the machine can fix it."""


class CompileError(RwkvGraphError):
    """The compiler broke a rule of its own; the developers of this package can fix it."""


class CheckError(RwkvGraphError, AssertionError):
    """A check found a value that should be another; the author of the op, or of the stage, can fix it."""


class TokenizerError(RwkvGraphError, ValueError):
    """Text or ids that the vocabulary lacks; whoever chose the text or the vocabulary can fix it."""
