"""The command line: what goes to stdout and what to stderr, exit codes, and ends that come early."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rwkvgraph as rg
from rwkvgraph.cli import main
from rwkvgraph.commands.options import unescaped

ROOT = Path(__file__).parents[2]
FASTEST = ["--adapter", "cpu"]
"""Nothing to compile; what a device draws is tested elsewhere."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals as POSIX has them")


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "codegen")])} | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rwkvgraph", *arguments]


def let_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background


def generate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rwkvgraph generate` in this process, on numpy."""
    code = main(["generate", *FASTEST, *arguments])
    return code, *capsys.readouterr()


def test_stdout_has_the_text_and_stderr_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = generate(capsys, "-p", "Once upon a time", "-n", "4", "--temp", "0")
    assert (code, out) == (0, "Once upon a time, there was a\n")
    labels = [line.split()[0] for line in err.splitlines()]
    assert labels == ["model", "adapter", "sampling", "prompt", "generation"]
    assert "rwkv7-tiny.st, RWKV-7, 6 layers of 256" in err
    assert "cpu, numpy" in err
    assert "passes" not in err
    assert "5 tokens, " in err
    assert "4 tokens, " in err


def test_a_device_is_told_with_its_passes(gpu: rg.Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--adapter", "0", "-p", "Once", "-n", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Once")
    assert gpu.info.name in err
    assert " passes a token" in err


def test_quiet_leaves_stderr_empty(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = generate(capsys, "-q", "-p", "Once", "--max-tokens", "1", "--temperature", "0")
    assert (code, out, err) == (0, "Once upon\n", "")


def test_the_same_seed_writes_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    seven, same, other = (
        generate(
            capsys, "-p", "One day", "-n", "8", "--temp", "2", "--top-p", "1", "--top-k", "50", "--seed", n
        )
        for n in ("7", "7", "8")
    )
    assert seven[1] == same[1] != other[1]
    assert "temperature 2, top-p 1, top-k 50, seed 7" in seven[2]


def test_penalties_and_min_p_are_settings_too(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--min-p", "0.1", "--presence", "0.5", "--frequency", "0.25", "--decay", "0.9", "--seed", "1")
    code, _, err = generate(capsys, "-n", "3", *settings)
    assert code == 0
    assert "min-p 0.1, presence 0.5, frequency 0.25, decay 0.9, seed 1" in " ".join(err.split())


def test_a_seed_that_was_not_given_is_told_and_draws_the_same_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, first, err = generate(capsys, "-n", "6")
    seed = err.partition("seed ")[2].split()[0]
    assert generate(capsys, "-n", "6", "--seed", seed)[1] == first


def test_a_dash_reads_the_prompt_from_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A line\nOnce upon a time\n"))
    code, out, _ = generate(capsys, "-p", "-", "-n", "1", "--temp", "0")
    assert (code, out) == (0, "A line\nOnce upon a time,\n")


def test_the_prompt_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(capsys, "--no-echo", "-p", "Once", "-n", "1", "--temp", "0")[1] == " upon\n"


def test_a_stop_text_ends_it_and_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = generate(
        capsys, "-p", "Once upon a time", "-n", "9", "--temp", "0", "--stop", r"\n\n", "--stop", "was"
    )
    assert (code, out) == (0, "Once upon a time, there \n")
    assert "at a stop text" in err


@pytest.mark.parametrize(
    ("given", "meant"),
    [(r"a\n\nb", "a\n\nb"), (r"\t", "\t"), (r"\\n", r"\n"), (r"\x\ ", r"\x\ "), ("\n", "\n"), ("\\", "\\")],
)
def test_backslashes_in_arguments_are_escapes(given: str, meant: str) -> None:
    assert unescaped(given) == meant


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "no/such/model.st"], 1, "no/such/model.st"),
        (["-m", __file__], 1, "test_cli.py"),
        (["-m", str(Path(__file__).parent)], 1, "rwkvgraph"),
        (["--tokenizer", "no/such/vocab.json"], 1, "cannot read the vocabulary"),
        (["--tokenizer", str(ROOT / "assets/vocab/rwkv_vocab_v20230424.json")], 2, "ids up to 65529"),
        (["--adapter", "no such adapter"], 1, "adapter"),
        (["--adapter", "99"], 1, "adapter"),
        (["--temp", "-1"], 2, "temperature is -1"),
        (["--top-p", "2"], 2, "top_p is 2"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["-n", "-1"], 2, "max_tokens is -1"),
        (["--stop", ""], 2, "stop string is empty"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["generate", *FASTEST, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rwkvgraph: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["generate", "-n", "many"]])
def test_a_command_line_that_makes_no_sense_shows_its_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: rwkvgraph")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"rwkvgraph {rg.__version__}\n"


def test_devices_lists_the_best_first_and_cpu_last(
    gpu: rg.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"* {gpu.info}"
    assert last.startswith("  cpu: numpy")


def test_text_is_utf8_whatever_the_locale() -> None:
    done = subprocess.run(
        command("generate", *FASTEST, "-q", "-n", "1", "-p", "-"),
        input="Zoë – ☃\r\n".encode(),
        env=environment(LC_ALL="C", PYTHONIOENCODING="latin-1", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().startswith("Zoë – ☃")
    assert done.stderr == b""


def test_bytes_that_are_no_text_are_an_error() -> None:
    done = subprocess.run(
        command("generate", *FASTEST, "-p", "-"),
        input=b"Zo\xeb",
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"rwkvgraph: error: character 2 of the text")
    assert done.stderr.count(b"\n") == 1


def interrupt(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of an endless generation after Ctrl-C in its midst."""
    endless = command("generate", "-n", "1000000", "-p", "Once", "--seed", "1", *arguments)
    with subprocess.Popen(
        endless,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=let_interrupt,
    ) as process:
        assert process.stdout is not None
        begun = process.stdout.read(len("Once upon"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return process.returncode, begun + out, err


@posix
def test_ctrl_c_ends_the_text_and_tells_the_figures() -> None:
    code, out, err = interrupt(*FASTEST)
    assert code == 130
    assert out.startswith("Once upon")
    assert out.endswith("\n")
    assert err.splitlines()[-1].startswith("generation")
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err


@posix
def test_ctrl_c_ends_the_text_on_a_device(gpu: rg.Context) -> None:
    # Noise of 11,533 tokens: what is told at the usual temperature ends within a tenth of a second on a GPU.
    code, out, err = interrupt("--adapter", gpu.info.name, "--temp", "20", "--top-p", "1")
    assert (code, out[-1]) == (130, "\n")
    assert err.endswith("interrupted\n")


@posix
@pytest.mark.parametrize("is_stderr_too", [False, True])
def test_a_reader_that_goes_away_ends_it_without_a_word(is_stderr_too: bool) -> None:
    process = subprocess.Popen(
        command("generate", *FASTEST, "-n", "1000000", "-p", "Once"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if is_stderr_too else subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"Once"
    process.stdout.close()
    assert process.wait(60) == 141
    if process.stderr is not None:
        assert process.stderr.read() == b""
        process.stderr.close()


@posix
def test_a_terminal_gets_colour_and_stdout_none() -> None:
    pytest.importorskip("rich")
    import pty  # POSIX only

    ours, theirs = pty.openpty()
    done = subprocess.run(
        command("generate", *FASTEST, "-p", "Once", "-n", "1", "--temp", "0"),
        env=environment(TERM="xterm-256color", COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    seen = read_terminal(ours)
    assert done.stdout == b"Once upon\n"
    assert "\x1b[" in seen
    assert "loading the model" in seen
    assert "generation" in seen


def read_terminal(file: int) -> str:
    """All that was written to a pseudo-terminal whose other end is closed."""
    parts = []
    try:
        while part := os.read(file, 4096):
            parts.append(part)
    except OSError:  # Linux: EIO at the end
        pass
    finally:
        os.close(file)
    return b"".join(parts).decode()
