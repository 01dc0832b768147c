"""Files that are written whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from costmodel.errors import CostModelError, shown


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: a half-written one never takes the place of a good one."""
    temporary = None
    try:
        if path.exists() and not path.is_file():  # a folder, or a device that a file must not replace
            raise CostModelError(f"{shown(str(path))} is no ordinary file; choose another place")
        target = path.resolve()  # a link stays, and leads to the new file
        with tempfile.NamedTemporaryFile(
            "w", dir=target.parent, prefix=".costmodel.", delete=False, encoding="utf-8", newline="\n"
        ) as file:
            temporary = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except CostModelError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, characters that no path has
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CostModelError(f"{shown(str(path))} cannot be written: {reason}; choose another place") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
