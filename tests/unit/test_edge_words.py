from collections.abc import Callable

import pytest

from saia_engine.edge import words


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (words.name, ["a", "chat-2", "a" * 40], ["", "-a", "a-", "A", "a.b", "a_b", "a\n", "ü", "a" * 41]),
        (
            words.slurm_word,
            ["", "gpu", "gpu,cpu", "a100&ib", "[rack1|rack2]", "gpu[01-03]"],
            ["-p", "--wrap=x", "a b", "a\nb", "a\0", 'a"b', "a'b", "a`b", "$HOME", "a;b", "ü", "\x1b"],
        ),
        (
            words.gres,
            ["", "gpu", "gpu:2", "gpu:a100:2", "gpu:a100:2,shard:1"],
            ["gpu:", "gpu:0", "-gpu", "gpu:2 ", "gpu:a100:x", "gpu;x", "gpu\n", ",", "GPU:2"],
        ),
        (
            words.sbatch_option,
            [
                "--comment=a b",
                "--exclusive",
                "--exclusive=user",
                "--nice=100",
                "--gpu-bind=closest",
                "--contiguous",
            ],
            [
                "comment=x",
                "-J x",
                "--comment",
                "--contiguous=1",
                "--comment=\n",
                "--hint=\x1b",
                "",
                "--",
                "--hint=ü",
            ],
        ),
        (
            words.environment_name,
            ["HF_HOME", "_x", "a1"],
            ["", "1A", "A-B", "A B", "A=B", "A\n", "SLURM_JOB_ID", "SBATCH_X", "SAIA_PORT", "ü"],
        ),
        (words.model, ["llama-3", "meta/Llama:8b@x"], ["", "a b", "-a", "a\n", "x" * 201, "\x1b"]),
        (words.method, ["GET", "PROPFIND"], ["", "get", "G ET", "GET\r\n", "CONNECT", "TRACE"]),
        (
            words.http_path,
            ["/", "/v1/", "/v1/a.b/c", "/health", "/..a"],
            [
                "",
                "v1",
                "//",
                "/a//b",
                "/../a",
                "/a/..",
                "/./",
                "/%2f",
                "/a?b",
                "/a#b",
                "/a\\b",
                "/ü",
                "/a b",
                "/a\n",
            ],
        ),
        (words.group, ["", "saia-ops", "100"], ["-x", "a b", "a\n", "a" * 40]),
        (
            words.file_path,
            ["/a b/c", "x/y", "~"],
            ["/a%j", "/a\nb", "/a\0", "/a'b", "$HOME", "~nobody-of-that-name"],
        ),
        (
            words.host,
            ["login1.example.org", "192.0.2.1", "::1"],
            ["-oProxyCommand=x", "", "a b", "a\n", "u@h"],
        ),
    ],
)
def test_words_that_are_passed_on(rule: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    for word in good:
        assert rule(word) == word
    for word in bad:
        with pytest.raises(ValueError):
            rule(word)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--export=ALL,SECRET", "not allowed: the job's environment"),
        ("--output=/x", "not allowed: the log"),
        ("--wrap=rm", "not allowed: use the key"),
        ("--dependency=singleton", "not allowed"),
        ("--signal=TERM@60", "not allowed: saia drains"),
        ("--partition=gpu", "a key of its own: partition"),
        ("--time=5", "a key of its own: time_limit"),
        ("--commment=x", "did you mean --comment"),
        ("--uid=0", "not among the allowed options"),
    ],
)
def test_a_refused_option_says_why(option: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        words.sbatch_option(option)
    assert "SECRET" not in str(caught.value)


def test_gpus_of_a_gres() -> None:
    assert [
        words.gpu_count(gres) for gres in ("", "gpu", "gpu:2", "gpu:a100:4", "gpu:a100", "shard:3,gpu:1")
    ] == [
        0,
        1,
        2,
        4,
        1,
        1,
    ]
