"""GPUs, their driver, and whether it does for the images that are there."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbinder.catalog import Catalog
from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.errors import HpcbinderError
from hpcbinder.runtime import cuda_of_driver, find_gpu, gpu_needs, nvidia_driver, too_old


def gpus(machine: Machine) -> Sequence[Finding]:
    """What images find of GPUs here. A login node rarely has what compute nodes have."""
    gpu = find_gpu(machine.config.runtime.gpu)
    if gpu == "none":
        off = machine.config.runtime.gpu == "none"
        found = "runtime.gpu = none" if off else "none here (neither /dev/nvidiactl nor /dev/kfd)"
        advice = "" if off else "images made for one run on the nodes that have it; run hpcbinder doctor there"
        return [Finding("gpu", "GPU", Status.MISSING, found, advice)]
    if gpu == "rocm":
        return [Finding("gpu", "AMD", Status.OK, "/dev/kfd")]
    driver = nvidia_driver()
    if not driver:
        said = machine.version("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        driver = said if said and said.replace(".", "").isdigit() else ""
    if not driver:
        advice = "is its kernel module loaded (nvidia-smi)?"
        return [Finding("gpu", "NVIDIA", Status.PROBLEM, "no driver says its version", advice)]
    can = cuda_of_driver(driver)
    runs = f"runs programs of CUDA {can} and before" if can else "is too old for CUDA 10"
    return [Finding("gpu", "NVIDIA", Status.OK, clean(f"driver {driver}, {runs}")), *_images(machine, driver)]


def _images(machine: Machine, driver: str) -> Sequence[Finding]:
    """The images whose CUDA is too new for the driver."""
    try:
        entries = Catalog(machine.config.store.path, machine.config.store.site).list(damaged=lambda _: None)
    except HpcbinderError:
        # What is wrong with the store has a line of its own.
        return []
    findings = []
    for entry in entries:
        cuda = gpu_needs(entry).get("cuda", "")
        if least := too_old(driver, cuda):
            found = f"is made for CUDA {cuda}, which needs the driver {least} or later"
            advice = "a newer driver, or an image with an older CUDA (pin torch, cupy-cuda11x, …)"
            findings.append(Finding("gpu", clean(entry.id), Status.PROBLEM, found, advice))
    return findings
