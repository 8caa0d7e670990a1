import sys
from pathlib import Path

import pytest

from saia_engine import config
from saia_engine.config import Config, ConfigFaults
from saia_engine.model import LaunchSpec, ProbeSpec, Quarantine, Rolling, Timing

CLUSTER = """
[cluster]
name = "hpc"
shared_dir = "/scratch/saia"
state_dir = "/var/lib/saia"
runtime_dir = "/run/saia"
"""
CHAT = """
[services.chat]
command = ["serve", "{port}"]
"""


def load(directory: Path, text: str) -> Config:
    file = directory / "engine.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def faults(directory: Path, text: str) -> list[str]:
    """The lines, without the file's name in front."""
    with pytest.raises(ConfigFaults) as caught:
        load(directory, text)
    start = f"{directory / 'engine.toml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


def test_defaults_of_a_small_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, CLUSTER + CHAT)
    assert (loaded.name, loaded.kind, loaded.installation) == ("hpc", "slurm", "")
    assert (loaded.poll_interval_s, loaded.rpc_floor_s, loaded.command_timeout_s) == (15, 2, 30)
    assert (loaded.port_range, loaded.agent_python, loaded.submits_per_hour) == (
        (20000, 20999),
        "python3",
        120,
    )
    assert (loaded.slurm_bin, loaded.slurm_conf) == (None, None)
    service = loaded.services["chat"]
    assert service.name == "chat"
    assert service.launch.command == ("serve", "{port}")
    assert (service.launch.time_limit_s, service.replicas) == (3600, 1)
    assert loaded.desired.services == loaded.services
    assert loaded.desired.poll_interval_s == 15


def test_every_key_arrives(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """
        [cluster]
        name = "hpc-2"
        kind = "slurm"
        installation = "abc"
        shared_dir = "/s"
        state_dir = "/t"
        runtime_dir = "/r"
        poll_interval = "20s"
        rpc_floor = "5s"
        command_timeout = "1m"
        port_range = [30000, 30099]
        agent_python = "/usr/bin/python3.9"
        slurm_bin = "/opt/slurm/bin"
        slurm_conf = "/etc/slurm.conf"
        operators_group = "ops"
        gate_group = "gate"
        submits_per_hour = 30
        quarantine_failures = 3
        quarantine_time = "2h"
        [record]
        keep = "2h"
        step = "5s"
        size = "64MiB"
        [services.chat]
        models = ["a", "b"]
        script = "exec serve $SAIA_SOCKET"
        listen = "socket"
        environment = { B = "2", A = "1\\n" }
        nodes = 2
        gres = "gpu:a100:4"
        cpus = 8
        memory = "64GiB"
        time_limit = "1-00:00:00"
        partition = "gpu"
        account = "acc"
        qos = "high"
        constraint = "ib&a100"
        reservation = "res"
        exclude = "gpu[01-02]"
        sbatch_options = ["--comment=two words", "--exclusive"]
        replicas = 3
        readiness_path = "/ready"
        min_ready = "20s"
        min_available = 2
        drain_deadline = "6m"
        admission_margin = "3m"
        safety_margin = "40s"
        lead_floor = "11m"
        lead_cap = "1h"
        startup_deadline = "21m"
        unready_deadline = "2m"
        stagger = false
        max_surge = 2
        max_unavailable = 1
        healthy_deadline = "22m"
        progress_deadline = "2h"
        auto_revert = false
        time_min = "2h"
        methods = ["POST"]
        paths = ["/v1/x"]
        [services.chat.readiness]
        kind = "http"
        path = "/readyz"
        interval = "1s"
        timeout = "500ms"
        failures = 4
        [services.chat.liveness]
        kind = "completion"
        path = "/v1/completions"
        model = "b"
        interval = "1m"
        timeout = "90s"
        failures = 2
        [proxies.cloud]
        services = ["chat"]
        relays = 3
        streams = 4
        opens_per_second = 5
        memory = "6MiB"
        """,
    )
    assert loaded == Config(
        file=tmp_path / "engine.toml",
        name="hpc-2",
        kind="slurm",
        installation="abc",
        paths=config.Paths(Path("/s"), Path("/t"), Path("/r")),
        poll_interval_s=20.0,
        rpc_floor_s=5.0,
        command_timeout_s=60.0,
        port_range=(30000, 30099),
        agent_python="/usr/bin/python3.9",
        slurm_bin=Path("/opt/slurm/bin"),
        slurm_conf=Path("/etc/slurm.conf"),
        operators_group="ops",
        gate_group="gate",
        submits_per_hour=30,
        quarantine=Quarantine(3, 7200.0),
        local=config.LocalNodes(4, 4, 16, 65536),
        record=config.Recording(7200.0, 5.0, 64),
        services={
            "chat": config.Service(
                "chat",
                config.LaunchSpec(
                    script="exec serve $SAIA_SOCKET",
                    listen="socket",
                    environment=(("A", "1\n"), ("B", "2")),
                    readiness_path="/readyz",
                    readiness=ProbeSpec("http", "/readyz", "", 1.0, 0.5, 4),
                    liveness=ProbeSpec("completion", "/v1/completions", "b", 60.0, 90.0, 2),
                    nodes=2,
                    gres="gpu:a100:4",
                    cpus=8,
                    memory_mib=65536,
                    time_limit_s=86400,
                    partition="gpu",
                    account="acc",
                    qos="high",
                    constraint="ib&a100",
                    reservation="res",
                    exclude="gpu[01-02]",
                    sbatch_options=("--comment=two words", "--exclusive"),
                    time_min_s=7200,
                ),
                Timing(660.0, 3600.0, 20.0, 360.0, 180.0, 40.0, 1260.0, 120.0),
                rolling=Rolling(2, 1, 1320.0, 7200.0, False),
                stagger=False,
                replicas=3,
                min_available=2,
                models=("a", "b"),
                methods=("POST",),
                paths=("/v1/x",),
            )
        },
        proxies={"cloud": config.ProxyLimits(("chat",), 3, 4, 5, 6)},
    )


def test_paths_start_at_the_files_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    (tmp_path / "site").mkdir()
    text = (
        '[cluster]\nname = "x"\nshared_dir = "../shared"\nstate_dir = "~/state"\nruntime_dir = "/run/saia"\n'
    )
    paths = load(tmp_path / "site", text).paths
    assert paths.instances_dir == tmp_path / "shared" / "instances"
    assert paths.state_db == Path("/home/op/state/state.db")
    assert paths.routes == Path("/home/op/state/gate/routes.json")
    assert paths.gate_dir == Path("/home/op/state/gate")
    assert paths.operator_socket == Path("/run/saia/operator/operator.sock")
    assert paths.gate_socket == Path("/run/saia/gate/gate.sock")
    monkeypatch.chdir(tmp_path)
    assert config.load("site/engine.toml").paths == paths
    assert config.load("site/engine.toml").file == tmp_path / "site" / "engine.toml"


def test_saia_python_is_the_engines_own(tmp_path: Path) -> None:
    loaded = load(tmp_path, CLUSTER + '[services.chat]\ncommand = ["{saia_python}", "-m", "x", "{port}"]')
    assert loaded.services["chat"].launch.command == (sys.executable, "-m", "x", "{port}")


def test_gpus_is_short_for_a_gres(tmp_path: Path) -> None:
    assert load(tmp_path, CLUSTER + CHAT + "gpus = 2").services["chat"].launch.gres == "gpu:2"
    assert load(tmp_path, CLUSTER + CHAT + "gpus = 0").services["chat"].launch.gres == ""


def test_defaults_lie_under_every_service(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        CLUSTER
        + """
        [defaults]
        partition = "gpu"
        gpus = 2
        cpus = 4
        command = ["serve"]
        environment = { A = "default", B = "default" }
        [services.one]
        [services.two]
        gres = "gpu:a100:1"
        script = "serve"
        cpus = 1
        environment = { B = "own" }
        """,
    )
    one, two = loaded.services["one"].launch, loaded.services["two"].launch
    assert (one.partition, one.gres, one.cpus, one.command) == ("gpu", "gpu:2", 4, ("serve",))
    assert one.environment == (("A", "default"), ("B", "default"))
    assert (two.partition, two.gres, two.cpus, two.command, two.script) == (
        "gpu",
        "gpu:a100:1",
        1,
        (),
        "serve",
    )
    assert two.environment == (("A", "default"), ("B", "own"))


def probed(directory: Path, text: str) -> LaunchSpec:
    return load(directory, CLUSTER + CHAT + 'models = ["llama", "small"]\n' + text).services["chat"].launch


def test_probes_that_are_not_configured_are_as_ever(tmp_path: Path) -> None:
    launch = probed(tmp_path, "")
    assert launch.readiness_probe == ProbeSpec("http", "/health", "", 2.0, 5.0, 3)
    assert (launch.readiness, launch.liveness) == (None, None)


def test_defaults_of_a_probe(tmp_path: Path) -> None:
    launch = probed(tmp_path, "readiness_path = '/ready'\n[services.chat.liveness]")
    assert launch.liveness == ProbeSpec("http", "/ready", "", 30.0, 20.0, 3)
    launch = probed(tmp_path, "readiness.kind = 'completion'\nliveness = { kind = 'completion' }")
    assert launch.readiness == ProbeSpec("completion", "/v1/chat/completions", "llama", 2.0, 5.0, 3)
    assert launch.liveness == ProbeSpec("completion", "/v1/chat/completions", "llama", 30.0, 20.0, 3)


@pytest.mark.parametrize(
    "long", ["[services.chat.readiness]", "readiness = { kind = 'http', path = '/health', interval = '2s' }"]
)
def test_how_a_probe_is_written_changes_no_revision(tmp_path: Path, long: str) -> None:
    assert probed(tmp_path, long).revision == probed(tmp_path, "").revision
    assert (
        probed(tmp_path, "readiness = { path = '/x' }").revision
        == probed(tmp_path, "readiness_path = '/x'").revision
    )


def test_probes_of_the_defaults_are_joined_key_by_key(tmp_path: Path) -> None:
    defaults = "[defaults.liveness]\nkind = 'completion'\ninterval = '1m'\n"
    text = CLUSTER + defaults + CHAT + "models = ['llama']\n[services.chat.liveness]\ntimeout = '40s'"
    liveness = load(tmp_path, text).services["chat"].launch.liveness
    assert liveness == ProbeSpec("completion", "/v1/chat/completions", "llama", 60.0, 40.0, 3)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("readiness = 'x'", "readiness: must be a table"),
        ("liveness.intervall = '1s'", "liveness.intervall: unknown key; did you mean interval?"),
        ("liveness.replicas = 1", "liveness.replicas: unknown key; known: failures, interval, kind, model,"),
        ("liveness.interval = 30", 'liveness.interval: a number without a unit; write "30s"'),
        ("liveness.interval = '0s'", "liveness.interval: must be from 100ms to 1d, not 0s"),
        ("readiness.timeout = '2h'", "readiness.timeout: must be from 100ms to 1h, not 2h"),
        ("readiness.failures = 1", "readiness.failures: must be at least 2"),
        ("readiness.path = 'health'", "readiness.path: "),
        (
            "readiness.kind = 'complete'",
            "readiness.kind: must be 'http' or 'completion'; did you mean completion?",
        ),
        ("readiness.kind = 'completion'", "readiness.model: is required: the service has no models; name"),
        ("liveness.model = 'llama'", 'liveness.model: is only for kind = "completion"; leave it out, or set'),
    ],
)
def test_faults_of_a_probe(tmp_path: Path, keys: str, line: str) -> None:
    (only,) = faults(tmp_path, CLUSTER + CHAT + keys)
    assert only.startswith(f"services.chat.{line}")


def test_a_fault_of_the_defaults_is_told_once(tmp_path: Path) -> None:
    services = "".join(f'[services.s{n}]\ncommand = ["x"]\n' for n in range(3))
    lines = faults(tmp_path, CLUSTER + '[defaults]\ntime_limit = 5\ntim_limit = "1h"\n' + services)
    assert lines == [
        'defaults.time_limit: a number without a unit; write "5s", "5m" or "5h"',
        "defaults.tim_limit: unknown key; did you mean time_limit?",
    ]


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    lines = faults(
        tmp_path,
        """
        bogus = 1
        [cluster]
        name = "HPC"
        kind = "slrum"
        [services.chat]
        replicass = 3
        min_available = 2
        time_limit = "5m"
        models = ["m"]
        [services.Embed]
        command = ["x"]
        script = "y"
        models = ["m"]
        [proxies.cloud]
        services = ["chatt"]
        relays = "many"
        """,
    )
    assert lines == [
        "bogus: unknown key; known: cluster, defaults, local, proxies, record, services",
        "cluster.name: must be made of a-z, 0-9 and -, with no - at either end",
        "cluster.kind: must be 'slurm' or 'local'; did you mean slurm?",
        "cluster.shared_dir: is required",
        "cluster.state_dir: is required",
        "cluster.runtime_dir: is required",
        "services.chat.replicass: unknown key; did you mean replicas?",
        'services.chat.command: is required; a list such as ["vllm", "serve", ...]; or give a script',
        "services.chat.time_limit: 5m can't work: it must be longer than lead_floor 10m + min_ready 10s"
        " + drain_deadline 5m + safety_margin 30s + 2 polls 30s = 16m 10s;"
        " raise time_limit above 16m 10s, or lower the largest term",
        "services.Embed: the name must be made of a-z, 0-9 and -, with no - at either end",
        "services.Embed.script: stands beside command; keep one of the two",
        "services.Embed.models[0]: m is already a model of service chat;"
        " a model belongs to one service: raise its replicas, or choose another name",
        "proxies.cloud.relays: must be a whole number",
        "proxies.cloud.services[0]: there is no service chatt; did you mean chat?",
    ]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("replicas = -1", "replicas: must be at least 0"),
        ("replicas = 1.5", "replicas: must be a whole number"),
        ("replicas = true", "replicas: must be a whole number"),
        ("min_available = 2", "min_available: 2 is more than replicas, 1"),
        ("gpus = 1\ngres = 'gpu:1'", "gpus: stands beside gres"),
        ("memory = 64", 'memory: a number without a unit; write "64MiB"'),
        ("memory = '0MiB'", "memory: must be at least 1MiB"),
        ("drain_deadline = '1m'", "drain_deadline: 1m is shorter than admission_margin, 2m"),
        ("listen = 'sockt'", "listen: must be 'port' or 'socket'; did you mean socket?"),
        ("models = 'm'", "models: must be a list"),
        ("models = ['m', 'm']", "models[1]: m is listed twice"),
        ("methods = []", "methods: needs at least 1"),
        ("methods = ['get']", "methods[0]: must be an HTTP method in capitals"),
        ("paths = ['/v1/', '/../x']", "paths[1]: must not hold //, /./ or /../"),
        ('partition = "a\\nb"', "partition: must be printable ASCII"),
        ("partition = '--wrap=x'", "partition: must not begin with -"),
        ("environment = { SLURM_X = '1' }", "environment.SLURM_X: names that begin with SLURM_"),
        ("environment = { A = 1 }", "environment.A: must be text in quotes"),
        ('environment = { A = "x\\u0000" }', "environment.A: must not hold a NUL character"),
        ("sbatch_options = ['--export=ALL']", "sbatch_options[0]: --export is not allowed"),
        ("time_limit = 'UNLIMITED'", "time_limit: must be finite"),
        ("time_limit = '400d'", "time_limit: must be from 10s to 365d, not 400d"),
        ("time_limit = '16m 10s'", "time_limit: 16m 10s can't work"),
    ],
)
def test_faults_of_a_service(tmp_path: Path, keys: str, line: str) -> None:
    (only,) = faults(tmp_path, CLUSTER + CHAT + keys)
    assert only.startswith(f"services.chat.{line}")


@pytest.mark.parametrize(
    ("command", "listen", "line"),
    [
        ("[]", "port", "command: is required"),
        ("['']", "port", "command[0]: the program's name is empty"),
        ("['x']", "socket", 'command: does not hold {socket}, though listen = "socket"'),
        ("['x', '{socket}']", "port", 'listen: is "port", though the command holds {socket}'),
        ("['x', '{socket}', '{port}']", "socket", 'command: holds {port}, though listen = "socket"'),
        ("['x', '{sockt}']", "socket", "command: nothing fills in {sockt}; did you mean {socket}?"),
    ],
)
def test_faults_of_a_command(tmp_path: Path, command: str, listen: str, line: str) -> None:
    text = f"[services.chat]\ncommand = {command}\nlisten = '{listen}'"
    (only,) = faults(tmp_path, CLUSTER + text)
    assert only.startswith(f"services.chat.{line}")


def test_braces_that_mean_something_else_stay(tmp_path: Path) -> None:
    text = "[services.chat]\ncommand = ['x', '{\"a\": 1}', '{other_thing}', '${HOME}']"
    assert load(tmp_path, CLUSTER + text).services["chat"].launch.command[1:] == (
        '{"a": 1}',
        "{other_thing}",
        "${HOME}",
    )


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("port_range = [20000]", "port_range: needs at least 2"),
        ("port_range = [80, 20000]", "port_range[0]: must be at least 1024"),
        ("port_range = [20001, 20000]", "port_range: begins at 20001, after its end 20000"),
        ("port_range = [20000, 20000]", "port_range: has room for 1 ports, and all replicas with their"),
        ("poll_interval = '1s'\nrpc_floor = '2s'", "rpc_floor: 2s is longer than poll_interval, 1s"),
        ("poll_interval = 15", "poll_interval: a number without a unit"),
        ("agent_python = 'python3 -x'", "agent_python: must be printable ASCII without spaces"),
        ("installation = 'a.b'", "installation: must be made of a-z, 0-9 and -"),
        ("operators_group = 'a b'", "operators_group: must be the name of a group"),
    ],
)
def test_faults_of_the_cluster(tmp_path: Path, keys: str, line: str) -> None:
    lines = faults(tmp_path, CLUSTER + keys + CHAT)
    assert lines[0].startswith(f"cluster.{line}")
    assert len(lines) == 1


def test_the_floor_gives_way_to_a_shorter_poll_unless_it_is_written(tmp_path: Path) -> None:
    assert load(tmp_path, CLUSTER + "poll_interval = '1s'").rpc_floor_s == 1


def test_directories_are_apart_and_sockets_short(tmp_path: Path) -> None:
    deep = "/run/" + "x" * 80
    text = f'[cluster]\nname = "x"\nshared_dir = "/a"\nstate_dir = "/b/../a/"\nruntime_dir = "{deep}"\n'
    same, long = faults(tmp_path, text)
    assert same.startswith("cluster.state_dir: is the same directory as shared_dir")
    assert long.startswith("cluster.runtime_dir: is too long: the path of its socket has 108 bytes")


def test_a_local_cluster_must_have_room(tmp_path: Path) -> None:
    text = (
        CLUSTER
        + 'kind = "local"\n[local]\nnodes = 2\ngpus_per_node = 2\ncpus_per_node = 2\nmemory_per_node = "1GiB"\n'
        + CHAT
    )
    assert load(tmp_path, text + "gpus = 2\nreplicas = 2").local == config.LocalNodes(2, 2, 2, 1024)
    assert faults(tmp_path, text + "gpus = 2\nreplicas = 3") == [
        "services.chat.replicas: all replicas together need 6 GPUs, and the local cluster has 4;"
        " lower replicas, or declare more in [local]",
    ]
    assert faults(tmp_path, text + "gpus = 3")[0].startswith(
        "services.chat.gpus: asks for 3, and local.gpus_per_node is 2"
    )
    assert faults(tmp_path, text + "gres = 'shard:1'")[0].startswith(
        "services.chat.gres: a local cluster has GPUs only"
    )
    assert faults(tmp_path, text + "cpus = 3")[0].startswith("services.chat.cpus: asks for 3")
    assert faults(tmp_path, text + "nodes = 3")[0].startswith("services.chat.nodes: asks for 3")
    assert faults(tmp_path, text + 'memory = "2GiB"') == [
        "services.chat.memory: asks for 2GiB, and local.memory_per_node is 1GiB;"
        " lower it, or raise local.memory_per_node"
    ]


@pytest.mark.parametrize("text", ["cluster = 3", "services = 3" + CLUSTER, CLUSTER + "[services]\nchat = 3"])
def test_tables_that_are_none(tmp_path: Path, text: str) -> None:
    (only,) = faults(tmp_path, text)
    assert only.endswith(": must be a table")


def test_secrets_stay_out_of_what_is_printed(tmp_path: Path) -> None:
    secret = "hf_verysecret"
    bad = f"environment = {{ 'A-B' = '{secret}', C = ['{secret}'], SLURM_X = '{secret}', D = \"{secret}\\u0000\" }}"
    lines = faults(tmp_path, CLUSTER + CHAT + bad)
    assert len(lines) == 4
    assert secret not in "".join(lines)
    loaded = load(tmp_path, CLUSTER + CHAT + f"environment = {{ TOKEN = '{secret}' }}")
    printed = "\n".join(config.check_lines(loaded))
    assert "TOKEN" in printed
    assert secret not in printed
    assert secret not in repr(loaded)


def test_what_check_prints(tmp_path: Path) -> None:
    loaded = load(tmp_path, CLUSTER + CHAT + "[proxies.cloud]")
    assert config.check_lines(loaded) == [
        "cluster hpc (slurm): polled every 15s, at most 120 submits an hour, agents on ports 20000-20999",
        "  shared /scratch/saia, state /var/lib/saia, sockets /run/saia",
        "record: the state each 10s, kept for 1d 12h, 512MiB at most",
        "service chat: 1 replica of serve, each on 1 node with no GPU, 1 CPU; saia's own acts leave 0 or more ready",
        "  models none; GET POST on /v1/",
        "  time limit 1h; before its end: replacement submitted 16m 10s (lead 10m), drain 5m 30s,"
        " last new request 2m 30s, last cut 30s",
        "proxy cloud: all services; 32 relays with 2000 streams, 1000 opens a second, 256MiB each",
    ]


def test_check_tells_probes_that_are_configured(tmp_path: Path) -> None:
    probes = "readiness.failures = 5\nliveness = { kind = 'completion', model = 'llama', timeout = '2m' }"
    lines = config.check_lines(load(tmp_path, CLUSTER + CHAT + probes))
    assert (
        "  ready while GET /health answers within 5s; asked every 2s, 5 failures in a row count" in lines
        and "  alive while a completion of llama at /v1/chat/completions answers within 2m; asked every 30s,"
        " 3 failures in a row count"
        in lines
    )


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ('size = "1MiB"', 'record.size: must be from 16MiB to 16GiB, not 1MiB; keep = "0s" records nothing'),
        ('keep = "1m"', "record.keep: 1m has no room for ten steps of 10s"),
        ('step = "1ms"', "record.step: must be from 1s to 10m, not 1ms"),
        ("every = 1", "record.every: unknown key; known: keep, size, step"),
    ],
)
def test_faults_of_the_record(tmp_path: Path, record: str, fault: str) -> None:
    with pytest.raises(config.ConfigFaults) as caught:
        load(tmp_path, f"{CLUSTER}[record]\n{record}")
    assert str(caught.value).endswith(fault)


def test_the_record_can_be_off(tmp_path: Path) -> None:
    loaded = load(tmp_path, CLUSTER + '[record]\nkeep = "0s"')
    assert loaded.record.keep_s == 0
    assert "record: none is kept, so no past moment can be shown" in config.check_lines(loaded)
