"""What fits and predicts: one class a mode, and what they share."""

from promptclf.lm.light import import_sklearn

import_sklearn()
