"""Every error a user can meet.

PromptClfError
├── TaskError             a task is malformed (also a ValueError)
├── DataError             rows, columns, labels or splits are unusable (also a ValueError)
├── TemplateError         a prompt template is malformed (also a ValueError)
├── ModelError            a model cannot be found, loaded or used
├── TextTooLongError      a prompt exceeds the token limit (also a ValueError)
├── TrainingError         training had to stop; nothing was published
├── ArtifactError         a saved classifier or checkpoint is damaged or does not fit
└── MissingPackageError   an optional package is absent (also an ImportError)

Each message says what was expected, what came and what to do. The command line prints it on one
line and exits with status 2; anything that is not a ``PromptClfError`` is a bug and keeps its
traceback.
"""


class PromptClfError(Exception):
    """Base of all errors whose text is meant for the user."""


class TaskError(PromptClfError, ValueError):
    """A task is malformed."""


class DataError(PromptClfError, ValueError):
    """Rows, columns, labels or splits are unusable."""


class TemplateError(PromptClfError, ValueError):
    """A prompt template is malformed."""


class ModelError(PromptClfError):
    """A model cannot be found, loaded or used."""


class TextTooLongError(PromptClfError, ValueError):
    """A prompt exceeds the token limit and truncation was not asked for."""


class TrainingError(PromptClfError):
    """Training had to stop; no checkpoint or adapter was published."""


class TrainingStop(BaseException):
    """Raised by a callback to end a training here; a checkpoint is saved first, where any are."""


class ArtifactError(PromptClfError):
    """A saved classifier or checkpoint is damaged, incomplete or made for something else."""


class StoreError(PromptClfError):
    """The app's store cannot be read or written, or takes no more."""


class MissingPackageError(PromptClfError, ImportError):
    """An optional package is not installed."""
