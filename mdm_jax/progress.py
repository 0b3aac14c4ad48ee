"""Shows progress: a bar on a terminal, lines with the time elsewhere."""

import datetime
import io
import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""The time between two lines where there is no terminal."""


class Bar(tqdm):
    """tqdm's bar on a terminal. Elsewhere a line every 30 seconds, and at the end of a bar with `leave`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._has_terminal, self._said, self._lines = sys.stderr.isatty(), time.monotonic(), 0
        super().__init__(*arguments, **{"dynamic_ncols": self._has_terminal, "ncols": 0, "file": sys.stderr} | options)

    def update(self, n: float | None = 1) -> bool | None:
        """Advances by `n`."""
        if self._has_terminal or self.disable:
            return super().update(n)
        self.n += n or 0
        self.last_print_n = self.n
        if time.monotonic() - self._said >= SECONDS:
            self._say()
        return None

    def display(self, *arguments: Any, **options: Any) -> Any:
        """Redraws the bar."""
        return super().display(*arguments, **options) if self._has_terminal else None

    def clear(self, *arguments: Any, **options: Any) -> Any:
        """Removes the bar from the terminal."""
        return super().clear(*arguments, **options) if self._has_terminal else None

    def close(self) -> None:
        """Ends the bar."""
        if not (self._has_terminal or self.disable):
            if self.leave or self._lines:
                self._say()
            self.leave: bool | None = False
            self.fp = io.StringIO()  # hides the last output of tqdm, which is for terminals
        super().close()

    def _say(self) -> None:
        self._said, self._lines = time.monotonic(), self._lines + 1
        now = datetime.datetime.now().isoformat(" ", "seconds")
        self.fp.write(f"{now} {str(self).strip()}\n")
        self.fp.flush()


def say(line: str) -> None:
    """Writes a line to stderr, above any bars."""
    tqdm.write(line, file=sys.stderr)
