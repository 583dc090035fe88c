"""The quantizers need torch and numpy alone; the floors above need extras of the package, and ask for them here."""

from importlib.util import find_spec


def need(floor: str, extra: str, *modules: str) -> None:
    """Raise an ImportError that names the extra to install, unless the floor's modules are all there."""
    if missing := [module for module in modules if find_spec(module) is None]:
        message = f"{floor} needs {', '.join(missing)}, not installed here: pip install 'rvq-tutorial[{extra}]'"
        raise ModuleNotFoundError(message, name=missing[0])
