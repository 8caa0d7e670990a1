"""LiteLLM's proxy with one worker, straight before the service: no tunnel, no gate, no front.

It lives in an environment of its own, installed once.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path as FilePath

from bench import exchange
from bench.job import Target
from bench.paths import Path
from bench.site import Site, Unavailable, free_port

HOME = FilePath("/var/cache/saia-bench/litellm")
INSTALL_LIMIT_S = 540
START_LIMIT_S = 180.0
KEY = "sk-bench"
CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{port}/v1
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  num_retries: 0
  telemetry: false
"""


def open_path(site: Site) -> Path:
    """Raises Unavailable."""
    version = _installed()
    port = free_port()
    config = site.directory / "litellm.yaml"
    config.write_text(CONFIG.format(model=exchange.MODEL, port=site.service_port, key=KEY))
    argv = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    # Without these it asks the network for prices and for its own newest version.
    site.start(
        "litellm",
        [str(HOME / "bin" / "litellm"), *argv],
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_MODE="PRODUCTION",
    )
    site.wait("LiteLLM", lambda: _lives(port), START_LIMIT_S)

    def parts() -> dict[str, list[int]]:
        return {"litellm": site.pids("litellm", str(port)), "service": site.service_pids()}

    return Path("litellm", Target("127.0.0.1", port, KEY, exact=False), parts, version)


def _installed() -> str:
    """Its version. Raises Unavailable."""
    python = HOME / "bin" / "python"
    if not (HOME / "whole").exists():
        print("installing LiteLLM, once; this takes minutes", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(HOME)])
        _run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "litellm[proxy]"]
        )
        (HOME / "whole").touch()
    show = "from importlib.metadata import version; print(version('litellm'))"
    return _run([str(python), "-c", show]).strip()


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"LiteLLM can't be installed: {exc}") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unavailable(f"LiteLLM can't be installed: {last[:200]}")
    return done.stdout


def _lives(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
