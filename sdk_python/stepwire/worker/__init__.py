"""The worker: holds the stream to the executor, replays bodies, runs attempts.

The user's code runs on the loop of the thread that runs the worker; the stream has threads of its own.
"""

from stepwire.worker.load import LoadError, load_app
from stepwire.worker.serve import serve
from stepwire.worker.worker import Worker

__all__ = ["LoadError", "Worker", "load_app", "serve"]
