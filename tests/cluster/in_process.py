"""Workers that are threads of the tests' own process; what goes to them and comes back travels as to other machines."""

import contextlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.cluster.workers import Workers


class Travels(ThreadPoolExecutor):
    def submit(self, function, /, *arguments):
        sent = pickle.dumps((function, arguments))

        def run():
            function, arguments = pickle.loads(sent)
            return pickle.loads(pickle.dumps(function(*arguments)))

        return super().submit(run)


@pytest.fixture
def threads(monkeypatch):
    """Any --cluster is two threads."""

    @contextlib.contextmanager
    def hire(cluster, local=1):
        with Travels(2) as pool:
            yield Workers(pool, lambda: 2, 2)

    for module in ("scripts.cluster.workers", "scripts.detection.batch"):
        monkeypatch.setattr(f"{module}.hire", hire)
