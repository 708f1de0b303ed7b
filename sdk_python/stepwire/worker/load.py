"""Loading an app by its name, `module:app`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback

from stepwire.app import App
from stepwire.errors import StepwireError


class LoadError(StepwireError):
    """An app can't be loaded; the message says why and what to do."""


def load_app(target: str) -> App:
    """Load an app named like "shop.flows:app", with the current folder on the path. Raises LoadError."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise LoadError(f"{target!r} does not name an app: give module:app, for example shop.flows:app")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise LoadError(
                f"there is no module {error.name!r} in {folder} or on the path: {_hint(error.name)}"
            ) from None
        raise LoadError(f"module {module_name!r} imports {error.name!r}, which is not installed") from None
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise LoadError(f"module {module_name!r} is no valid Python: {where}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        raise LoadError(f"module {module_name!r} raised {type(error).__name__} at {where}: {error}") from error
    app = getattr(module, attribute, None)
    if isinstance(app, App):
        return app
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    if app is None:
        near = difflib.get_close_matches(attribute, apps, 1, 0.0)
        hint = f"did you mean {module_name}:{near[0]}?" if near else "it declares no stepwire.App at all"
        raise LoadError(f"module {module_name!r} has no {attribute!r}: {hint}")
    hint = f"its apps are {', '.join(apps)}" if apps else "create one with stepwire.App(name)"
    raise LoadError(f"{target} is a {type(app).__name__}, not a stepwire.App: {hint}")


def _hint(module: str) -> str:
    names = {name.removesuffix(".py") for name in os.listdir() if name.endswith(".py") or os.path.isdir(name)}
    near = difflib.get_close_matches(module.split(".")[0], sorted(names), 1)
    return f"did you mean {near[0]!r}?" if near else "start the worker in the folder that holds it"
