"""The engines that LightGPT is measured against, each in a process of its own.

A worker loads a model, warms up, answers `{"ready": true}`, then makes one repetition for each line
of standard input and answers with a line of JSON, as `lightgpt bench --paced` does. It is given one
JSON object as its argument:

    engine     llama.cpp or torch
    model      the GGUF file
    threads, kv, prefill, decode, sequences, steps
    path       folder to import llama_cpp from, or null       (llama.cpp)
    flash, repack                                             (llama.cpp)
    dtype      float32 or bfloat16                            (torch)
    onednn     instructions that its oneDNN may use, or null  (torch)
    metadata   of the file, for a model of the same sizes     (torch)

Token i of every timeline is the same for all engines; nothing is sampled.
"""

import json
import os
import sys
import time

SEQUENCE_DEPTH = 16  # prompt tokens of each sequence of a batch


def tokens(positions, vocab):
    return [i * 7919 % vocab for i in positions]


def measurements(settings):
    """The same, in the same order, as `lightgpt bench` makes of --prefill and --decode."""
    for prompt in settings["prefill"]:
        if prompt:
            yield "prefill", prompt, 0
        for count in settings["decode"]:
            if count:
                yield "decode", count, prompt


class LlamaCpp:
    def __init__(self, settings):
        # Threads that wait awake: its best. The driver stops this process between turns.
        os.environ.setdefault("OMP_WAIT_POLICY", "active")
        if settings["path"]:
            sys.path.insert(0, settings["path"])
        import llama_cpp

        self.lib = lib = llama_cpp
        self.quiet = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(self.quiet, None)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = settings["repack"]
        self.model = lib.llama_model_load_from_file(settings["model"].encode(), params)
        if not self.model:
            raise RuntimeError("cannot load the model")
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        prompt, decode = max(settings["prefill"]), max(settings["decode"])
        self.context = self.new_context(settings, prompt + decode + 8, 1, max(prompt, 1))
        self.batch = lib.llama_batch_init(max(prompt, 1), 0, 1)
        self.sequences, self.steps = settings["sequences"], settings["steps"]
        if self.sequences:
            room = self.sequences * (-(-(SEQUENCE_DEPTH + self.steps) // 256) * 256)
            rows = self.sequences * SEQUENCE_DEPTH
            self.wide = self.new_context(settings, room, self.sequences, rows)
            self.wide_batch = lib.llama_batch_init(rows, 0, 1)

    def new_context(self, settings, room, sequences, rows):
        lib = self.lib
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = room, rows, min(rows, 512)
        params.n_threads = params.n_threads_batch = settings["threads"]
        params.n_seq_max = sequences
        params.type_k = params.type_v = {"f32": 0, "f16": 1}[settings["kv"]]
        params.flash_attn_type = int(settings["flash"])
        params.no_perf = True
        context = lib.llama_init_from_model(self.model, params)
        if not context:
            raise RuntimeError("cannot make a context")
        return context

    def evaluate(self, context, batch, rows):
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted
        code = self.lib.llama_decode(context, batch)
        if code:
            raise RuntimeError(f"llama_decode: {code}")
        self.lib.llama_synchronize(context)

    def clear(self, context):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), True)

    def timeline(self, positions):
        positions = list(positions)
        all_tokens = zip(tokens(positions, self.vocab), positions)
        return [(token, at, 0, at == positions[-1]) for token, at in all_tokens]

    def begin(self, depth):
        self.clear(self.context)
        self.depth = 0
        if depth:
            self.prefill(depth)

    def prefill(self, count):
        self.evaluate(self.context, self.batch, self.timeline(range(count)))
        self.depth = count

    def decode(self, count):
        for at in range(self.depth, self.depth + count):
            self.evaluate(self.context, self.batch, self.timeline([at]))

    def batched(self):
        """Seconds of `steps` tokens of each of `sequences` sequences, all in one batch."""
        self.clear(self.wide)
        some = range(self.sequences)
        token = lambda at, sequence: (at * 7919 + sequence * 104729) % self.vocab
        last = SEQUENCE_DEPTH - 1
        row = lambda at, sequence: (token(at, sequence), at, sequence, at >= last)
        prompt = [row(at, sequence) for sequence in some for at in range(SEQUENCE_DEPTH)]
        self.evaluate(self.wide, self.wide_batch, prompt)
        began = time.perf_counter()
        for at in range(SEQUENCE_DEPTH, SEQUENCE_DEPTH + self.steps):
            self.evaluate(self.wide, self.wide_batch, [row(at, s) for s in some])
        return time.perf_counter() - began


class Torch:
    sequences = 0

    def __init__(self, settings):
        if settings["onednn"]:
            os.environ["ONEDNN_MAX_CPU_ISA"] = settings["onednn"]
        import torch
        import transformers

        self.torch = torch
        torch.set_num_threads(settings["threads"])
        torch.manual_seed(1)
        config = transformers.AutoConfig.for_model(**self.config(settings["metadata"]))
        dtype = getattr(torch, settings["dtype"])
        build = transformers.AutoModelForCausalLM.from_config
        self.model = build(config, dtype=dtype, attn_implementation="sdpa").eval()
        self.vocab = config.vocab_size

    @staticmethod
    def config(metadata):
        """Its sizes; how positions are scaled does not change what it costs."""
        kind = metadata["general.architecture"]
        key = lambda name, default=None: metadata.get(f"{kind}.{name}", default)
        heads, dim = key("attention.head_count"), key("embedding_length")
        return dict(
            model_type=kind,
            vocab_size=metadata["vocab"],
            hidden_size=dim,
            intermediate_size=key("feed_forward_length"),
            num_hidden_layers=key("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=key("attention.head_count_kv", heads),
            head_dim=key("attention.key_length", dim // heads),
            max_position_embeddings=key("context_length"),
            rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings=metadata["tied"],
        )

    def run(self, positions):
        ids = self.torch.tensor([tokens(positions, self.vocab)])
        with self.torch.inference_mode():
            out = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = out.past_key_values

    def begin(self, depth):
        self.cache, self.depth = None, 0
        if depth:
            self.prefill(depth)

    def prefill(self, count):
        self.run(range(count))
        self.depth = count

    def decode(self, count):
        for at in range(self.depth, self.depth + count):
            self.run([at])


def repetition(engine, settings):
    results = []
    there = None  # tokens that the timeline holds after a prompt, with nothing decoded yet
    for kind, count, depth in measurements(settings):
        if kind == "prefill" or there != depth:
            engine.begin(depth)
        began = time.perf_counter()
        getattr(engine, kind)(count)
        seconds = time.perf_counter() - began
        there = count if kind == "prefill" else None
        results.append(dict(kind=kind, tokens=count, context_depth=depth, seconds=seconds))
    if engine.sequences:
        count = engine.sequences * engine.steps
        about = dict(kind="batch", sequences=engine.sequences, tokens=count)
        results.append(dict(**about, context_depth=SEQUENCE_DEPTH, seconds=engine.batched()))
    return results


def main():
    settings = json.loads(sys.argv[1])
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = lambda value: print(json.dumps(value), file=answers, flush=True)
    engine = {"llama.cpp": LlamaCpp, "torch": Torch}[settings["engine"]](settings)
    repetition(engine, settings)
    answer({"ready": True})
    for _ in sys.stdin:
        answer({"results": repetition(engine, settings)})
    answers.close()
    os._exit(0)  # their threads may not end in order


if __name__ == "__main__":
    main()
