"""
Everything this package raises on purpose, by what the caller can do about it.

BEEError
├── CheckpointError   a checkpoint folder that can't be served: replace or re-export it
├── DataError         a file of rows that can't be read: change the file, or say what it is
├── InputError        a text or an option of one request that can't be answered: change the request
├── Stopped           Ctrl-C in the middle of a run: the same command goes on
├── TrainingError     a recipe, a data file or a run that can't be trained: change the files or the arguments
└── UnknownModel      a name that no loaded checkpoint has: name another one
"""


class BEEError(Exception):
    """Base of every error whose message is written for the person who meets it."""


class CheckpointError(BEEError):
    """A checkpoint folder is damaged, foreign or of another version."""


class DataError(BEEError):
    """A file of rows is broken, or of another form or encoding than was said."""


class InputError(BEEError):
    """One request's text or option can't be answered; nothing else is affected."""


class Stopped(BEEError):
    """Somebody pressed Ctrl-C; the message says how to go on."""


class TrainingError(BEEError):
    """A recipe, a data file or a run folder can't be used for training."""


class UnknownModel(BEEError):
    """A name that no loaded checkpoint has."""
