"""What it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from imagora_demo.orthanc import OrthancServer

from imagora_bench.nginx import nginx_program


def describe(orthancs: list[OrthancServer]) -> dict[str, str]:
    facts = {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "Kernel": platform.release(),
        "Python": f"{platform.python_version()}, aiohttp {version('aiohttp')}, uvicorn {version('uvicorn')}, "
        f"uvloop {version('uvloop')}",
    }
    if orthancs:
        system = orthancs[0].get("/system")
        plugin = orthancs[0].get("/plugins/dicom-web")
        facts["Orthanc"] = f"{system['Version']}, DICOMweb {plugin['Version']}"
    if (program := nginx_program()) is not None:
        said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
        facts["nginx"] = said.stderr.strip().rpartition("/")[2]
    facts["Load before"] = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
