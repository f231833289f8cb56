"""Steps of a plan run by a runtime, as an ordinary user."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hpcbinder.builders.assembling import Ready
from hpcbinder.contract import STEP_DIR
from hpcbinder.engine import passwords, unpack
from hpcbinder.errors import ConvertError
from hpcbinder.model import Checkout, Plan
from hpcbinder.plan import site_files, write_step
from hpcbinder.progress import Reporter
from hpcbinder.runtime import ApptainerWorkshop


class WorkshopRunner:
    """Runs steps in a workshop; implements `StepRunner`.

    Args:
        secrets: Of the site (`engine.site_secrets`).
        scratch: Folder for temporary files.
    """

    is_engine = False

    def __init__(
        self,
        workshop: ApptainerWorkshop,
        plan: Plan,
        checkout: Checkout,
        *,
        secrets: Mapping[str, bytes],
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._workshop = workshop
        self._plan = plan
        self._checkout = checkout
        self._secrets = secrets
        self._scratch = scratch
        self._reporter = reporter

    @property
    def name(self) -> str:
        """`apptainer`."""
        return self._workshop.description.partition(" ")[0]

    def run(self, ready: Ready) -> Path:
        """See `StepRunner.run`."""
        step = self._plan.steps[ready.number]
        self._reporter.phase("build", f"step {step.name}: {self._workshop.description}")
        room = Path(tempfile.mkdtemp(prefix="step-", dir=self._scratch))
        try:
            self._unpack(ready.number, room)
            caches = []
            for cache in step.caches:
                # What a step keeps for the next one would be kept for those of other repositories, too.
                (room / f"cache-{cache.name}").mkdir()
                caches.append((room / f"cache-{cache.name}", f"{STEP_DIR}/cache/{cache.target}", True))
            return self._workshop.run(
                [layer.path for layer in ready.layers],
                room / "step",
                env=ready.config.env,
                network=True,
                binds=caches,
                log=lambda line: self._reporter.log("build", line),
                scratch=self._scratch,
                title=step.name,
                site=site_files(step, self._secrets),
                hidden=passwords(self._secrets),
            )
        except OSError as error:
            raise ConvertError(f"a step cannot be prepared: {error.strerror}", where=str(room)) from error
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def close(self) -> None:
        """Nothing of it is left."""

    def _unpack(self, number: int, room: Path) -> None:
        """Put what the step reads into `room/step`."""
        unpack(lambda out: write_step(self._plan, self._checkout, number, out, folder="step"), room)
