#!/usr/bin/env python3
"""LightGPT's speed beside that of llama.cpp (llama-cpp-python) and PyTorch (transformers).

    lightgpt make-model tinyllama-1.1b --type Q4_0 --out model.gguf
    python bench/compare.py model.gguf --prefill 512 --decode 128 --markdown table.md

Every engine is a process of its own that stays loaded; they take turns, A B A B, so that all see
the same noise, and who has no turn is stopped (SIGSTOP), so that no thread that waits awake takes a
core from others. A ratio is made of the two numbers of one round; medians over the rounds are
shown. All engines evaluate the same tokens, keep keys and values alike, and make the logits of the
last token of a prompt only.

llama.cpp is driven by its C-level calls. Flash attention and the repacking of weights at load are
tried on and off, with each llama_cpp of --peer-path; the best for each measurement takes part.
--torch adds a transformers model of the file's sizes with random weights, as float32 and as
bfloat16, of which the faster counts.

What cannot be measured is said on standard error and left out.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import peers
import report

HERE = Path(__file__).resolve().parent


def note(text):
    print(f"compare: {text}", file=sys.stderr, flush=True)


def arguments():
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL")
    add("--lightgpt", default=os.environ.get("LIGHTGPT", HERE.parent / "target/release/lightgpt"),
        help="the tool; also by the environment's LIGHTGPT")
    add("--prefill", type=numbers, default=[512], metavar="N,...")
    add("--decode", type=numbers, default=[128], metavar="N,...", help="behind each prompt")
    add("--sequences", type=int, default=16, metavar="N",
        help="sequences that are decoded at once; 0: none")
    add("--steps", type=int, default=32, metavar="N", help="tokens of each of them")
    add("--threads", type=int, default=2, metavar="N")
    add("--kv", choices=("f16", "f32"), default="f16")
    add("--rounds", type=int, default=5, metavar="N")
    add("--trials", type=int, default=2, metavar="N", help="rounds that choose the best settings")
    paths = os.environ.get("LIGHTGPT_PEER_PATH", "")
    add("--peer-path", action="append", metavar="DIR", default=list(filter(None, paths.split(os.pathsep))),
        help="import llama_cpp from there; may be given several times; also by the environment's "
        "LIGHTGPT_PEER_PATH")
    add("--no-llama", action="store_true", help="without llama.cpp")
    add("--torch", action="store_true", help="with transformers")
    add("--json", metavar="FILE", help="write all numbers")
    add("--markdown", metavar="FILE", help="write the table, which is printed too")
    add("--plots", metavar="FOLDER", help="write an SVG plot for each kind of measurement")
    return parser.parse_args()


class Worker:
    """A process that makes one repetition for each line it gets, and is stopped between them."""

    def __init__(self, engine, settings, command):
        self.engine, self.settings = engine, settings
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.alive = self.answer() is not None
        self.pause()

    def name(self):
        settings = " ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.engine} {settings}".strip()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def pause(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)

    def turn(self):
        """Tokens a second by measurement; None if the process has died."""
        if not self.alive:
            return None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            answer = self.answer()
        except BrokenPipeError:
            answer = None
        self.pause()
        if answer is None:
            note(f"{self.name()} died (exit code {self.process.poll()}) and is left out")
            self.alive = False
            return None
        results = answer["results"]
        return {report.key_of(one): one["tokens"] / one["seconds"] for one in results}

    def close(self):
        """Ends it; what it says last, if anything."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        last = self.answer()
        self.process.wait()
        return last


def start_ours(options, model):
    joined = lambda counts: ",".join(map(str, counts))
    command = [options.lightgpt, "bench", model, "--paced", "--warmup", "1"]
    command += ["--prefill", joined(options.prefill), "--decode", joined(options.decode)]
    command += ["--threads", str(options.threads), "--kv", options.kv]
    command += ["--repetitions", str(10**6)]
    command += ["--sequences", str(options.sequences), "--steps", str(options.steps)]
    worker = Worker("LightGPT", {}, [str(part) for part in command])
    if not worker.alive:
        sys.exit(f"compare: {options.lightgpt} cannot measure {model}")
    return worker


def start_peer(options, model, engine, choice, metadata=None):
    settings = dict(
        engine=engine, model=model, threads=options.threads, kv=options.kv,
        prefill=options.prefill, decode=options.decode, sequences=options.sequences,
        steps=options.steps, metadata=metadata, **choice,
    )
    shown = {key: value for key, value in choice.items() if value is not None}
    if "path" in shown:
        shown["path"] = Path(shown["path"]).name
        if len(options.peer_path) < 2:
            del shown["path"]
    shown = {k: {True: "on", False: "off"}.get(v, v) for k, v in shown.items()}
    command = [sys.executable, HERE / "peers.py", json.dumps(settings)]
    worker = Worker(engine, shown, command)
    if not worker.alive:
        worker.close()
        code = worker.process.returncode
        note(f"{worker.name()} cannot measure {model} (exit code {code}) and is left out")
        return None
    return worker


def best_of(options, start, choices):
    """Tries all settings; workers of those that were the best in some measurement."""
    tried = []
    for choice in choices:
        worker = start(choice)
        if worker is None:
            continue
        turns = [turn for _ in range(options.trials) if (turn := worker.turn())]
        worker.close()
        if turns:
            keys = turns[0].keys()
            tried.append((choice, {key: max(turn[key] for turn in turns) for key in keys}))
            speeds = ", ".join(f"{report.title(k)} {v:.1f}" for k, v in tried[-1][1].items())
            note(f"tried {worker.name()}: {speeds} tokens/s")
    best = []
    for key in tried[0][1] if tried else []:
        choice = max(tried, key=lambda one: one[1][key])[0]
        if choice not in best:
            best.append(choice)
    return [worker for choice in best if (worker := start(choice))]


def metadata_of(options, model):
    """What a model of the same sizes is made of."""
    text = subprocess.run(
        [options.lightgpt, "inspect", model, "--json"], check=True, capture_output=True, text=True
    ).stdout
    file = json.loads(text)
    metadata = {k: v for k, v in file["metadata"].items() if not isinstance(v, list)}
    dims = {tensor["name"]: tensor["dims"] for tensor in file["tensors"]}
    metadata["vocab"] = dims["token_embd.weight"][1]
    metadata["tied"] = "output.weight" not in dims
    return metadata


def check_room(options, model):
    """Ends all before anything is measured if the model's context is too short."""
    metadata = metadata_of(options, model)
    context = metadata[f"{metadata['general.architecture']}.context_length"]
    need = max(options.prefill) + max(options.decode)
    if options.sequences:
        need = max(need, peers.SEQUENCE_DEPTH + options.steps + 1)
    if need > context:
        sys.exit(
            f"compare: {model}: --prefill, --decode and --steps need {need} tokens, its context has "
            f"{context}; `lightgpt make-model --context N` makes a model with more"
        )


def others_of(options, model):
    found = []
    if not options.no_llama:
        paths = options.peer_path or [None]
        choices = [
            dict(path=path, flash=flash, repack=repack)
            for path in paths for flash in (True, False) for repack in (True, False)
        ]
        start = lambda choice: start_peer(options, model, "llama.cpp", choice)
        found += best_of(options, start, choices)
    if options.torch:
        metadata = metadata_of(options, model)
        start = lambda choice: start_peer(options, model, "torch", choice, metadata)
        choices = [
            dict(dtype="float32", onednn=None),
            dict(dtype="bfloat16", onednn=None),
            # A CPU may name matrix instructions that its virtual machine does not allow.
            dict(dtype="bfloat16", onednn="AVX512_CORE_BF16"),
        ]
        found += best_of(options, start, choices)
    return found


def compare(options, model):
    """All turns of all engines on one model."""
    others = others_of(options, model)
    ours = start_ours(options, model)
    workers = [ours, *others]
    turns = {worker: [] for worker in workers}
    for i in range(options.rounds):
        note(f"{Path(model).name}: round {i + 1} of {options.rounds}")
        for worker in workers:
            turns[worker].append(worker.turn())
    limits = ours.close()
    for worker in others:
        worker.close()
    engines = [
        dict(engine=worker.engine, settings=worker.settings, turns=turns[worker])
        for worker in workers if None not in turns[worker]
    ]
    return report.summary(Path(model).stem, engines, limits)


def main():
    options = arguments()
    for model in options.models:
        check_room(options, model)
    summaries = [compare(options, model) for model in options.models]
    table = report.markdown(summaries)
    print(table)
    if options.markdown:
        Path(options.markdown).write_text(table)
    if options.json:
        Path(options.json).write_text(json.dumps(summaries, indent=1) + "\n")
    if options.plots:
        for path in report.plots(summaries, Path(options.plots)):
            note(f"wrote {path}")


if __name__ == "__main__":
    main()
