"""The processes that are compared: how they are built, started and asked.

A side is a process that makes its workload, prints `ready` (or `skip` and why), then runs once for every line on standard
input and answers with a number.
"""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Skip(Exception):
    """Why a row can't be measured here."""


def commands(row, python, programs):
    """Our side's command and theirs; builds what they need, but for what is in the folder `programs`."""
    if row.where == "gpu":
        no_gpu = gpu_missing()
        if no_gpu:
            raise Skip(no_gpu)
    if row.by == "torch":
        torch_or_skip(python)
    ours = [ours_in(programs, row.features) if programs else ours_built(row.features)]
    theirs = {
        "torch": lambda: [python, str(HERE / "torch_side.py")],
        "candle": lambda: [candle_built()],
        "ours": lambda: ours,
    }[row.by]()
    return [ours + row.ours.split(), theirs + row.theirs.split()]


@functools.cache
def gpu_missing():
    """Why there is no NVIDIA GPU; None where there is one."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:
        return "nvidia-smi is not on this machine, so there is no NVIDIA GPU to be found"
    return None if "GPU 0" in listed.stdout else f"nvidia-smi found no GPU ({listed.stdout.strip()})"


@functools.cache
def torch_missing(python):
    try:
        found = subprocess.run([python, "-c", "import torch, diffusers"], capture_output=True, text=True)
    except OSError as error:
        return f"{python} does not start ({error})"
    last = found.stderr.strip().splitlines()[-1:] or ["it ended with an error"]
    return None if found.returncode == 0 else f"{python} has no torch and diffusers ({last[0]}): give --python"


def torch_or_skip(python):
    missing = torch_missing(python)
    if missing:
        raise Skip(missing)


def ours_in(folder, features):
    """The program ../turns.rs that was built elsewhere with these features."""
    path = pathlib.Path(folder).resolve() / program_name(features)
    if not path.is_file():
        raise Skip(f"there is no {path}")
    return str(path)


def build(folder, all_features):
    """Our programs into a folder, one for each set of features, without symbols: to be carried to another machine. Whether
    all were built.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = True
    for features in sorted(all_features):
        path = folder / program_name(features)
        try:
            shutil.copy(ours_built(features), path)
        except Skip as reason:
            print(f"{path.name}: {reason}", file=sys.stderr, flush=True)
            whole = False
            continue
        if shutil.which("strip"):
            subprocess.run(["strip", str(path)], check=False)
        print(path)
    return whole


def program_name(features):
    return "-".join(["turns", *features.replace("/", "_").split(",")]) if features else "turns"


@functools.cache
def ours_built(features):
    """The program ../turns.rs, built with these features."""
    command = ["cargo", "build", "--release", "--workspace", "--bench", "turns"]
    return built(command + (["--features", features] if features else []), "turns", ROOT)


@functools.cache
def candle_built():
    """The program in ../candle, built for this processor as ours chooses at run time."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "candle"
    env = {"RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(target)}
    return built(["cargo", "build", "--release"], "candle-turns", HERE.parent / "candle", env)


def built(command, name, folder, env={}):
    """Runs cargo and gives the path of the program that it made."""
    try:
        result = subprocess.run(
            [*command, "--message-format", "json-render-diagnostics"],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise Skip(f"cargo does not start ({error})") from None
    if result.returncode != 0:
        raise Skip(f"{name} does not build ({' '.join(command)})")
    for line in result.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise Skip(f"cargo made no program {name}")


class Side:
    """A process that runs its workload whenever it is asked."""

    def __init__(self, command, threads, cwd=None, env={}):
        env = {**os.environ, "THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), **env}
        pipe = subprocess.PIPE
        self.name = " ".join(pathlib.Path(part).name for part in command)
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env, cwd=cwd)
        except OSError as error:
            raise Skip(f"`{self.name}` does not start ({error})") from None
        if self.answer() != "ready":
            self.close()
            raise Skip(f"`{self.name}` did not start")

    def answer(self):
        line = self.process.stdout.readline().strip()
        if line.startswith("skip "):
            self.close()
            raise Skip(line.removeprefix("skip "))
        return line

    def run(self, after=0.0):
        """One run, after a pause in seconds."""
        time.sleep(after)
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
            return float(self.answer())
        except (OSError, ValueError):
            self.close()
            raise Skip(f"`{self.name}` ended with {self.process.returncode}") from None

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        self.process.wait()


def first_run(command, start, threads):
    """The first run of a fresh process, once its model is made: on an empty cache of compiled kernels and measured choices,
    or on one that a run before it has filled.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="first_picture_"))
    try:
        # Our side's caches (cubecl's configuration is read in the working directory), then PyTorch's.
        cache = folder / "cubecl"
        cache.mkdir()
        (folder / "cubecl.toml").write_text(
            f'[compilation]\ncache = true\n[environment]\npath = {{ directory = "{cache}" }}\n'
        )
        env = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
        for last in [True] if start == "cold" else [False, True]:
            began = time.perf_counter()
            side = Side(command, threads, cwd=folder, env=env)
            seconds = side.run()
            whole = time.perf_counter() - began
            side.close()
            if last:
                print(f"{side.name}: {whole:.1f} s from the start of its process", file=sys.stderr, flush=True)
                return seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)
