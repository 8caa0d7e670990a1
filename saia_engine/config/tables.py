# ruff: noqa: RUF012 (pydantic copies mutable defaults)
"""The tables of the file as they may be written: each key's type, default and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from saia_engine.edge import durations, sizes, words
from saia_engine.edge.door import Table


def _between(least: str, most: str) -> AfterValidator:
    low, high = durations.parse(least), durations.parse(most)

    def check(seconds: float) -> float:
        if not low <= seconds <= high:
            raise ValueError(f"must be from {least} to {most}, not {durations.spell(seconds)}")
        return seconds

    return AfterValidator(check)


def _some_memory(mib: int) -> int:
    if mib < 1:
        raise ValueError("must be at least 1MiB")
    return mib


Duration = Annotated[float, BeforeValidator(durations.parse)]
Memory = Annotated[int, BeforeValidator(sizes.parse_mib), AfterValidator(_some_memory)]
Short = Annotated[str, AfterValidator(lambda word: word and words.name(word, 20))]
FilePath = Annotated[str, AfterValidator(words.file_path)]
Group = Annotated[str, AfterValidator(words.group)]
Word = Annotated[str, AfterValidator(words.slurm_word)]
Text = Annotated[str, AfterValidator(words.without_nul)]
HttpPath = Annotated[str, AfterValidator(words.http_path)]
Model = Annotated[str, AfterValidator(words.model)]
Method = Annotated[str, AfterValidator(words.method)]
EnvironmentName = Annotated[str, AfterValidator(words.environment_name)]
SbatchOption = Annotated[str, AfterValidator(words.sbatch_option)]
Port = Annotated[int, Field(ge=1024, le=65535)]


class FileTable(Table):
    cluster: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    local: dict[str, Any] = {}
    record: dict[str, Any] = {}
    services: dict[str, Any] = {}
    proxies: dict[str, Any] = {}


class ClusterTable(Table):
    name: Short = ""
    kind: Literal["slurm", "local"] = "slurm"
    installation: Short = ""
    shared_dir: FilePath = ""
    state_dir: FilePath = ""
    runtime_dir: FilePath = ""
    poll_interval: Annotated[Duration, _between("100ms", "10m")] = 15.0
    rpc_floor: Annotated[Duration, _between("0s", "10m")] = 2.0
    command_timeout: Annotated[Duration, _between("1s", "10m")] = 30.0
    port_range: Annotated[list[Port], Field(min_length=2, max_length=2)] = [20000, 20999]
    agent_python: Annotated[Word, Field(min_length=1)] = "python3"
    slurm_bin: FilePath = ""
    slurm_conf: FilePath = ""
    operators_group: Group = ""
    gate_group: Group = ""
    submits_per_hour: Annotated[int, Field(ge=1, le=100_000)] = 120
    quarantine_failures: Annotated[int, Field(ge=0, le=1000)] = 2
    quarantine_time: Annotated[Duration, _between("1m", "30d")] = 3600.0


class LocalTable(Table):
    nodes: Annotated[int, Field(ge=1, le=1000)] = 4
    gpus_per_node: Annotated[int, Field(ge=0, le=1000)] = 4
    cpus_per_node: Annotated[int, Field(ge=1, le=10_000)] = 16
    memory_per_node: Memory = 65536


class RecordTable(Table):
    keep: Annotated[Duration, _between("0s", "30d")] = 36 * 3600.0
    step: Annotated[Duration, _between("1s", "10m")] = 10.0
    size: Memory = 512


class ProbeTable(Table):
    """Common to both; each has defaults of its own."""

    kind: Literal["http", "completion"] = "http"
    path: HttpPath = ""
    model: Model = ""
    interval: Annotated[Duration, _between("100ms", "1d")] = 2.0
    timeout: Annotated[Duration, _between("100ms", "1h")] = 5.0
    failures: Annotated[int, Field(ge=2, le=1000)] = 3


class ReadinessTable(ProbeTable):
    """Asked often: an instance gets no request before it has answered."""


class LivenessTable(ProbeTable):
    """Asked seldom, and with patience: what fails here ends the instance."""

    interval: Annotated[Duration, _between("100ms", "1d")] = 30.0
    timeout: Annotated[Duration, _between("100ms", "1h")] = 20.0


class ServiceTable(Table):
    models: list[Model] = []
    command: list[Text] = []
    script: Text = ""
    listen: Literal["port", "socket"] = "port"
    environment: dict[EnvironmentName, Text] = {}
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    gres: Annotated[str, AfterValidator(words.gres)] = ""
    gpus: Annotated[int, Field(ge=0, le=1000)] = 0
    cpus: Annotated[int, Field(ge=1, le=10_000)] = 1
    memory: Memory = 0
    time_limit: Annotated[Duration, _between("10s", "365d")] = 3600.0
    time_min: Annotated[Duration, _between("0s", "365d")] = 0.0
    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    constraint: Word = ""
    reservation: Word = ""
    exclude: Word = ""
    sbatch_options: list[SbatchOption] = []
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    readiness_path: HttpPath = "/health"
    readiness: ReadinessTable | None = None
    liveness: LivenessTable | None = None
    min_ready: Annotated[Duration, _between("0s", "1d")] = 10.0
    min_available: Annotated[int, Field(ge=0, le=1000)] = 0
    drain_deadline: Annotated[Duration, _between("0s", "30d")] = 300.0
    admission_margin: Annotated[Duration, _between("0s", "30d")] = 120.0
    safety_margin: Annotated[Duration, _between("0s", "1d")] = 30.0
    lead_floor: Annotated[Duration, _between("0s", "30d")] = 600.0
    lead_cap: Annotated[Duration, _between("0s", "365d")] = 0.0
    startup_deadline: Annotated[Duration, _between("1s", "30d")] = 1800.0
    unready_deadline: Annotated[Duration, _between("1s", "30d")] = 180.0
    stagger: bool = True
    max_surge: Annotated[int, Field(ge=0, le=1000)] = 1
    max_unavailable: Annotated[int, Field(ge=0, le=1000)] = 0
    healthy_deadline: Annotated[Duration, _between("1s", "30d")] = 1800.0
    progress_deadline: Annotated[Duration, _between("1s", "30d")] = 3600.0
    auto_revert: bool = True
    methods: Annotated[list[Method], Field(min_length=1)] = ["GET", "POST"]
    paths: Annotated[list[HttpPath], Field(min_length=1)] = ["/v1/"]

    @property
    def gpu_count(self) -> int:
        """Per node."""
        return self.gpus or words.gpu_count(self.gres)


class ProxyTable(Table):
    services: Annotated[list[str], Field(min_length=1)] = ["*"]
    relays: Annotated[int, Field(ge=1, le=1000)] = 32
    streams: Annotated[int, Field(ge=1, le=100_000)] = 2000
    opens_per_second: Annotated[int, Field(ge=1, le=100_000)] = 1000
    memory: Memory = 256
