"""The folder in which data are looked for."""

from pathlib import Path

from esper_lightning.leyline import InvalidArgument


def data_folder(name: str, data_dir: object) -> Path:
    """``data_dir`` as a path.

    Args:
        name: of the data, for the error.
        data_dir: as it was given; ``~`` is the user's home.

    Raises:
        InvalidArgument: it is no path.
    """
    if not isinstance(data_dir, str | Path) or not str(data_dir):
        raise InvalidArgument(
            f"{name}: data_dir must be the path of a folder, got {data_dir!r}; name one by "
            f"data_dir, with train.py by paths.data_dir or the environment variable ESPER_DATA_DIR"
        )
    return Path(data_dir).expanduser()
