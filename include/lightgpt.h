/*
 * LightGPT: run GPT-style language models on the CPU, from C, C++ or anything that can call C.
 *
 * If it is not in this file, it is not part of the interface.
 *
 *
 * OBJECTS. A lightgpt_model is an open GGUF file: weights, metadata, tokenizer. A lightgpt_session
 * is one timeline of text with the memory of a conversation; a model serves any number of them. A
 * lightgpt_team is the threads that compute; without one, the sessions of a model share one. A
 * lightgpt_sampler chooses tokens. A lightgpt_batch_queue works on many requests of a model
 * together. There is nothing to initialise or to shut down, there are no global settings, and no
 * environment is needed. The least program:
 *
 *     lightgpt_model *model;
 *     lightgpt_session *session;
 *     if (lightgpt_model_open("model.gguf", NULL, &model) < 0
 *         || lightgpt_session_new(model, NULL, NULL, &session) < 0
 *         || lightgpt_session_feed_text(session, "Once", 4, LIGHTGPT_TEXT_ADD_SPECIAL, NULL) < 0
 *         || lightgpt_session_generate(session, NULL, print_event, NULL) < 0)
 *         fprintf(stderr, "%s\n", lightgpt_last_error());
 *
 * ERRORS. Functions that can fail answer an int32_t status: 0 (LIGHTGPT_OK) or more is success,
 * below 0 is an error. lightgpt_status_name spells it, and lightgpt_last_error says what was
 * wrong, where, what was expected and what was found. Results are written only on success (a
 * needed size also with LIGHTGPT_BUFFER_TOO_SMALL), and what a failing call was given stays the
 * caller's. Besides the errors that a function lists, every one may answer
 * LIGHTGPT_INVALID_ARGUMENT, LIGHTGPT_INVALID_HANDLE, LIGHTGPT_FORKED and LIGHTGPT_INTERNAL, those
 * that read or fill a struct also LIGHTGPT_ABI_MISMATCH, those with options or flags also
 * LIGHTGPT_UNSUPPORTED, and those of a session also LIGHTGPT_POISONED. No input, file or order of
 * calls makes the library abort, exit, print or throw.
 *
 * OWNERSHIP. What _open and _new give, exactly one _free takes back. The pointers are handles,
 * not addresses: a handle that is NULL, freed, freed twice or not of this library is answered with
 * LIGHTGPT_INVALID_HANDLE, never followed. Freeing NULL is fine, always. Things may be freed in any order:
 * a session keeps its model and its team alive. Freeing an object that a call on another thread is
 * using waits for that call, and cancels it if it is a session's or a batch queue's; inside a
 * callback nothing waits, and the answer is LIGHTGPT_BUSY. A pointer that the library stores (user
 * data, memory) may come with a destroy function, which is called once, when the library will not
 * use it any more.
 *
 * THREADS. A function whose first argument is a pointer to const may be called on any thread at
 * any time, also while others use the object. Sessions and samplers are for one thread at a time,
 * whichever: a second call is answered with LIGHTGPT_BUSY. lightgpt_session_cancel may be called
 * at any time. The calling thread always takes part in the work and needs little stack (64 KiB,
 * and 256 KiB to render chats); helper threads sleep while no call is in progress, block all signals
 * but those of their own faults (SIGSEGV and the like), and are joined when the last user of their
 * team is freed. After fork, the child's calls answer LIGHTGPT_FORKED.
 *
 * TEXT is UTF-8 with an explicit length and no terminating zero byte; only names (paths, metadata
 * keys, messages, texts inside structs) end in one. A result of unknown size goes into a buffer
 * `buf` of `cap` elements; its size is written to `*needed`, which is not NULL. A buffer that is
 * too small is left alone (LIGHTGPT_BUFFER_TOO_SMALL); buf = NULL with cap = 0 only asks for the
 * size.
 *
 * OPTIONS are structs whose first member is their size; begin with the macro of the same name and
 * set what matters:
 *
 *     lightgpt_open_options options = LIGHTGPT_OPEN_OPTIONS_INIT;
 *     options.flags = LIGHTGPT_OPEN_COPY;
 *
 * NULL in place of options, and 0 in a member, mean the default. Structs that the library fills
 * begin the same way; it never writes beyond their struct_size.
 *
 * ABI. Functions, struct layouts and numbers do not change while LIGHTGPT_ABI_VERSION stays:
 * structs only grow at their end. A program that was compiled with an older header runs with a
 * newer library. A newer header with an older library works too, as long as it is not asked for
 * what it does not know: LIGHTGPT_UNSUPPORTED.
 *
 * CALLBACKS run on the thread that called in, unless they say otherwise. They may call the library
 * (only the functions of a lightgpt_allocator may not), also for other objects of the same model and
 * team; the object in use is LIGHTGPT_BUSY. They must return: no longjmp, no exception may pass
 * through the library.
 *
 * FLOATING POINT. The library computes with the default float environment (round to nearest,
 * denormals kept, no traps), whatever the host's is, and gives the host its own back at each
 * return and around each callback. The same model, options and tokens give the same bits on every
 * CPU, for any number of threads, chunks and steps. errno may change in any call.
 *
 * MAPPED FILES. A model's file is mapped, so that opening takes milliseconds and processes share
 * one copy. In return it must not be written to or truncated while the model is open: the system
 * ends a process that touches a page which is gone. (Renaming another file over it is fine.)
 * Changes that can be seen are LIGHTGPT_FILE_CHANGED. LIGHTGPT_OPEN_COPY avoids all this.
 *
 * Made by cbindgen from src/capi; see `make header`.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#ifndef LIGHTGPT_H
#define LIGHTGPT_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header; lightgpt_version is that of the library. */
#define LIGHTGPT_VERSION "0.1.0"

/* Every function of the library. Define LIGHTGPT_STATIC to link the static library on Windows. */
#if defined(_WIN32) && !defined(LIGHTGPT_STATIC)
#define LIGHTGPT_API __declspec(dllimport)
#elif defined(__GNUC__)
#define LIGHTGPT_API __attribute__((visibility("default")))
#else
#define LIGHTGPT_API
#endif

/* What structs begin as. */
#define LIGHTGPT_BUILD_INIT {sizeof(lightgpt_build), 0, 0, 0, NULL, NULL, NULL}
#define LIGHTGPT_TEAM_OPTIONS_INIT \
    {sizeof(lightgpt_team_options), 0, NULL, 0, 0, NULL, NULL, NULL, 0, 0, 0, 0}
#define LIGHTGPT_OPEN_OPTIONS_INIT \
    {sizeof(lightgpt_open_options), 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL}
#define LIGHTGPT_ALLOCATOR_INIT {sizeof(lightgpt_allocator), 0, NULL, NULL, NULL, NULL}
#define LIGHTGPT_PREFIX_STATISTICS_INIT \
    {sizeof(lightgpt_prefix_statistics), 0, 0, 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_MODEL_INFO_INIT \
    {sizeof(lightgpt_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, 0, 0, 0, 0}
#define LIGHTGPT_TENSOR_INFO_INIT \
    {sizeof(lightgpt_tensor_info), 0, {0, 0, 0, 0}, 0, 0, 0, 0, {0}, {0}}
#define LIGHTGPT_SAMPLER_OPTIONS_INIT \
    {sizeof(lightgpt_sampler_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
     0, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL, 0, NULL}
#define LIGHTGPT_CANDIDATES_INIT {sizeof(lightgpt_candidates), 0, NULL, NULL, 0, NULL, 0, 0, 0}
#define LIGHTGPT_CHI_SQUARE_INIT {sizeof(lightgpt_chi_square), 0, 0, 0, 0}
#define LIGHTGPT_DIVERSITY_INIT {sizeof(lightgpt_diversity), 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_CHAT_INIT \
    {sizeof(lightgpt_chat), 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0}
#define LIGHTGPT_SESSION_OPTIONS_INIT {sizeof(lightgpt_session_options), 0, 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_MEMORY_INIT {sizeof(lightgpt_memory), 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_METRICS_INIT {sizeof(lightgpt_metrics), 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_GENERATE_OPTIONS_INIT {sizeof(lightgpt_generate_options), 0, 0, NULL, NULL, 0, 0, 0}
#define LIGHTGPT_EMBED_OPTIONS_INIT {sizeof(lightgpt_embed_options), 0, 0, 0}
#define LIGHTGPT_EVENT_INIT {sizeof(lightgpt_event), 0, 0, 0, 0, 0, 0, NULL, 0, 0, NULL, 0}
#define LIGHTGPT_BATCH_QUEUE_OPTIONS_INIT \
    {sizeof(lightgpt_batch_queue_options), 0, 0, 0, 0, 0, 0, 0, 0}
#define LIGHTGPT_BATCH_METRICS_INIT \
    {sizeof(lightgpt_batch_metrics), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, {0}}
#define LIGHTGPT_BATCH_REQUEST_INIT \
    {sizeof(lightgpt_batch_request), 0, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0, NULL, NULL, NULL, 0, NULL}
#define LIGHTGPT_BATCH_EVENT_INIT \
    {sizeof(lightgpt_batch_event), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, NULL, 0, NULL, NULL}
#define LIGHTGPT_BATCH_TIMINGS_INIT {sizeof(lightgpt_batch_timings), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}


/**
 * The call succeeded.
 */
#define LIGHTGPT_OK 0

/**
 * The time budget ended before the work did: call again to go on where it stopped.
 */
#define LIGHTGPT_PENDING 1

/**
 * The work is complete: a prompt is evaluated, or a turn has ended by itself.
 */
#define LIGHTGPT_DONE 2

/**
 * The turn ended because the callback asked for it; what it made is kept.
 */
#define LIGHTGPT_STOPPED 3

/**
 * An argument is outside what the function accepts: NULL where a pointer is needed, an index out
 * of range, a name that is not UTF-8.
 */
#define LIGHTGPT_INVALID_ARGUMENT -1

/**
 * A handle is NULL, freed, of another kind, or was never made by this library.
 */
#define LIGHTGPT_INVALID_HANDLE -2

/**
 * The operating system refused a file operation.
 */
#define LIGHTGPT_IO -3

/**
 * The bytes of a file are damaged or break the format's rules.
 */
#define LIGHTGPT_FORMAT -4

/**
 * Well-formed, but not something this build can do: an unknown architecture, a flag bit or an
 * option member that a newer header defines.
 */
#define LIGHTGPT_UNSUPPORTED -5

/**
 * The machine has no memory left for the request.
 */
#define LIGHTGPT_OUT_OF_MEMORY -6

/**
 * The caller's memory cap does not allow the request.
 */
#define LIGHTGPT_MEMORY_CAP -7

/**
 * The object is in use by another call, or by the call whose callback is running.
 */
#define LIGHTGPT_BUSY -8

/**
 * The call was cancelled; the session is as it was before the turn.
 */
#define LIGHTGPT_CANCELLED -9

/**
 * An activation or a logit became infinite or not a number.
 */
#define LIGHTGPT_NONFINITE -10

/**
 * The session's context has no room for the tokens.
 */
#define LIGHTGPT_CONTEXT_FULL -11

/**
 * The program was compiled for another ABI, or a struct_size is one that no header of this ABI
 * has.
 */
#define LIGHTGPT_ABI_MISMATCH -12

/**
 * The process was forked after it began to use the library: the child cannot use it.
 */
#define LIGHTGPT_FORKED -13

/**
 * An earlier defect left the session unusable; it can only be freed.
 */
#define LIGHTGPT_POISONED -14

/**
 * The model's file changed while it was open.
 */
#define LIGHTGPT_FILE_CHANGED -15

/**
 * A defect of the library; please report it with the message of lightgpt_last_error.
 */
#define LIGHTGPT_INTERNAL -16

/**
 * The buffer is too small; the size it needs was written, and nothing else.
 */
#define LIGHTGPT_BUFFER_TOO_SMALL -17

/**
 * There is no such key, tensor or token.
 */
#define LIGHTGPT_NOT_FOUND -18

/**
 * The number of the ABI that this header describes. It changes when a program that was compiled
 * against an older header could no longer run; the soname carries the same number.
 */
#define LIGHTGPT_ABI_VERSION 0

/**
 * Bind each helper thread to one CPU (Linux), from the second of `cpus` on: the first is left to the
 * calling thread, which the library does not bind.
 */
#define LIGHTGPT_TEAM_PIN 1

/**
 * `node` is set. One team a node keeps threads beside their memory, if the threads that call in run
 * on the same node: a session's memory lies where it is touched first.
 */
#define LIGHTGPT_TEAM_NODE 2

/**
 * Large memory for weights that are read instead of mapped.
 */
#define LIGHTGPT_MEMORY_WEIGHTS 0

/**
 * Large memory for keys and values, and for states of recurrent layers.
 */
#define LIGHTGPT_MEMORY_KV 1

/**
 * Large memory for activations of a pass.
 */
#define LIGHTGPT_MEMORY_SCRATCH 2

/**
 * Large memory for logits, sampling and tables.
 */
#define LIGHTGPT_MEMORY_MISC 3

/**
 * Read the weights into memory instead of mapping the file: the file may change afterwards.
 */
#define LIGHTGPT_OPEN_COPY (1 << 0)

/**
 * Bring the whole file into memory now rather than at its first use.
 */
#define LIGHTGPT_OPEN_PREFAULT (1 << 1)

/**
 * Keep the weights in physical memory (Unix); fails where the limit of locked memory is too low.
 */
#define LIGHTGPT_OPEN_MLOCK (1 << 2)

/**
 * Only look: metadata, tensors and tokenizer of a file whose architecture and tokenizer may be
 * unknown. Such a model has no sessions.
 */
#define LIGHTGPT_OPEN_INSPECT (1 << 3)

/**
 * Sessions and requests share nothing: as if all were made with LIGHTGPT_SESSION_UNSHARED.
 */
#define LIGHTGPT_OPEN_UNSHARED (1 << 4)

/**
 * Pay no attention to how much memory the machine and the control group have left: no cap by
 * default, and nothing shrinks while memory is short.
 */
#define LIGHTGPT_OPEN_UNWATCHED (1 << 5)

/**
 * A callback's answer: go on.
 */
#define LIGHTGPT_CONTINUE 0

/**
 * A callback's answer: end the turn here and keep what it made.
 */
#define LIGHTGPT_STOP 1

/**
 * A callback's answer: undo the turn; the call answers LIGHTGPT_CANCELLED.
 */
#define LIGHTGPT_CANCEL 2

/**
 * The level of a log line that tells what was done.
 */
#define LIGHTGPT_LOG_INFO 1

/**
 * The model generates text; without it is an encoder, see lightgpt_session_embed.
 */
#define LIGHTGPT_MODEL_GENERATES (1 << 0)

/**
 * Add the tokens that the model wants at the beginning and the end of a text (BOS, EOS).
 */
#define LIGHTGPT_TEXT_ADD_SPECIAL (1 << 0)

/**
 * Read the spelling of control tokens (`</s>` and the like) as those tokens. Never set it for text that
 * others wrote.
 */
#define LIGHTGPT_TEXT_PARSE_SPECIAL (1 << 1)

/**
 * Spell control tokens out instead of leaving them out.
 */
#define LIGHTGPT_TEXT_SHOW_SPECIAL (1 << 2)

/**
 * The tokens begin a text: leave out the space that some vocabularies put in front of it.
 */
#define LIGHTGPT_TEXT_START (1 << 3)

/**
 * Attribute of a token: ordinary text.
 */
#define LIGHTGPT_TOKEN_NORMAL (1 << 0)

/**
 * Attribute of a token: stands for what the vocabulary cannot spell.
 */
#define LIGHTGPT_TOKEN_UNKNOWN (1 << 1)

/**
 * Attribute of a token: steers the model, is no text.
 */
#define LIGHTGPT_TOKEN_CONTROL (1 << 2)

/**
 * Attribute of a token: added by the model's maker as a whole word.
 */
#define LIGHTGPT_TOKEN_USER_DEFINED (1 << 3)

/**
 * Attribute of a token: never used.
 */
#define LIGHTGPT_TOKEN_UNUSED (1 << 4)

/**
 * Attribute of a token: one byte.
 */
#define LIGHTGPT_TOKEN_BYTE (1 << 5)

/**
 * Attribute of a token: ends the model's answer.
 */
#define LIGHTGPT_TOKEN_END (1 << 6)

/**
 * Special token: begins a text.
 */
#define LIGHTGPT_SPECIAL_BOS 1

/**
 * Special token: ends a text.
 */
#define LIGHTGPT_SPECIAL_EOS 2

/**
 * Special token: ends a turn of a dialogue.
 */
#define LIGHTGPT_SPECIAL_EOT 3

/**
 * Special token: ends a message that a turn goes on after.
 */
#define LIGHTGPT_SPECIAL_EOM 4

/**
 * Special token: unknown text.
 */
#define LIGHTGPT_SPECIAL_UNKNOWN 5

/**
 * Special token: padding.
 */
#define LIGHTGPT_SPECIAL_PADDING 6

/**
 * The prompt ends with the last message: no answer begins (`add_generation_prompt` is false).
 */
#define LIGHTGPT_CHAT_WITHOUT_ANSWER (1 << 0)

/**
 * `temperature` is set; without it, it is 0.8.
 */
#define LIGHTGPT_SAMPLER_TEMPERATURE (1 << 0)

/**
 * `top_k` is set; without it, it is 40.
 */
#define LIGHTGPT_SAMPLER_TOP_K (1 << 1)

/**
 * `top_p` is set; without it, it is 0.95.
 */
#define LIGHTGPT_SAMPLER_TOP_P (1 << 2)

/**
 * `seed` is set; without it, it is random.
 */
#define LIGHTGPT_SAMPLER_SEED (1 << 3)

/**
 * `xtc_threshold` is set; without it, it is 0.1.
 */
#define LIGHTGPT_SAMPLER_XTC_THRESHOLD (1 << 4)

/**
 * `dynamic_temperature_exponent` is set; without it, it is 1.
 */
#define LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT (1 << 5)

/**
 * `dry_allowed_length` is set; without it, it is 2.
 */
#define LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH (1 << 6)

/**
 * `mirostat_tau` is set; without it, it is 5.
 */
#define LIGHTGPT_SAMPLER_MIROSTAT_TAU (1 << 7)

/**
 * `mirostat_eta` is set; without it, it is 0.1.
 */
#define LIGHTGPT_SAMPLER_MIROSTAT_ETA (1 << 8)

/**
 * `adaptive_target` is set: adaptive-p chooses.
 */
#define LIGHTGPT_SAMPLER_ADAPTIVE_TARGET (1 << 9)

/**
 * `adaptive_decay` is set; without it, it is 0.9.
 */
#define LIGHTGPT_SAMPLER_ADAPTIVE_DECAY (1 << 10)

/**
 * Not a stage of `order`, where the choice itself is always last: the place in front of it, for
 * lightgpt_sampler_add_stage.
 */
#define LIGHTGPT_STAGE_PICK 0

/**
 * The stage of `logit_biases`.
 */
#define LIGHTGPT_STAGE_LOGIT_BIAS 1

/**
 * The stage of the repetition, frequency and presence penalties.
 */
#define LIGHTGPT_STAGE_PENALTIES 2

/**
 * The stage of DRY.
 */
#define LIGHTGPT_STAGE_DRY 3

/**
 * The stage of `top_n_sigma`.
 */
#define LIGHTGPT_STAGE_TOP_N_SIGMA 4

/**
 * The stage of `top_k`.
 */
#define LIGHTGPT_STAGE_TOP_K 5

/**
 * The stage of `typical_p`.
 */
#define LIGHTGPT_STAGE_TYPICAL 6

/**
 * The stage of `top_p`.
 */
#define LIGHTGPT_STAGE_TOP_P 7

/**
 * The stage of `min_p`.
 */
#define LIGHTGPT_STAGE_MIN_P 8

/**
 * The stage of XTC.
 */
#define LIGHTGPT_STAGE_XTC 9

/**
 * The stage of the temperature, fixed or dynamic.
 */
#define LIGHTGPT_STAGE_TEMPERATURE 10

/**
 * The stage of `infill`.
 */
#define LIGHTGPT_STAGE_INFILL 11

/**
 * A stage's answer: the token at `chosen` is the choice; the stages behind this one are skipped.
 */
#define LIGHTGPT_CHOOSE 3

/**
 * The library chooses how keys and values are stored: 16-bit floats.
 */
#define LIGHTGPT_KV_AUTO 0

/**
 * Keys and values as 32-bit floats: twice the memory, the reference.
 */
#define LIGHTGPT_KV_F32 1

/**
 * Keys and values as 16-bit floats.
 */
#define LIGHTGPT_KV_F16 2

/**
 * Keys and values as bytes with a 16-bit float for each 32: about half the memory of 16-bit floats.
 */
#define LIGHTGPT_KV_Q8_0 3

/**
 * Evaluate everything, also what another session of the model has evaluated before, and keep
 * nothing for others. Changes the time and the memory, not the result.
 */
#define LIGHTGPT_SESSION_UNSHARED (1 << 0)

/**
 * Flag of lightgpt_session_save: without keys, values and states. The result is small, and the tokens are
 * evaluated again after it is restored, to the same bits.
 */
#define LIGHTGPT_SAVE_TOKENS_ONLY 1

/**
 * Nothing happened: the budget ended first.
 */
#define LIGHTGPT_EVENT_NONE 0

/**
 * A part of what was fed is evaluated: `done` of `total` tokens.
 */
#define LIGHTGPT_EVENT_PROGRESS 1

/**
 * A token was chosen.
 */
#define LIGHTGPT_EVENT_TOKEN 2

/**
 * The turn is over, for the reason in `finish`.
 */
#define LIGHTGPT_EVENT_FINISHED 3

/**
 * The model ended its answer.
 */
#define LIGHTGPT_FINISH_END 1

/**
 * `tokens_max` tokens were made.
 */
#define LIGHTGPT_FINISH_LENGTH 2

/**
 * The session holds as many tokens as it can.
 */
#define LIGHTGPT_FINISH_CONTEXT_FULL 3

/**
 * The callback answered LIGHTGPT_STOP.
 */
#define LIGHTGPT_FINISH_STOPPED 4

/**
 * A stop string came.
 */
#define LIGHTGPT_FINISH_STOP_STRING 5

/**
 * Go on after the model ended its answer.
 */
#define LIGHTGPT_GENERATE_IGNORE_END (1 << 0)

/**
 * Give the log-probability of each token.
 */
#define LIGHTGPT_GENERATE_LOG_PROBABILITIES (1 << 1)

/**
 * How the rows of a text's tokens become an embedding: as the model's file says, or their mean if
 * it does not; of a model that generates text, the last.
 */
#define LIGHTGPT_POOLING_AUTO 0

/**
 * They do not: an embedding for each token, as wide as the model (`dim` in lightgpt_model_info).
 */
#define LIGHTGPT_POOLING_NONE 1

/**
 * Their mean.
 */
#define LIGHTGPT_POOLING_MEAN 2

/**
 * The first one.
 */
#define LIGHTGPT_POOLING_CLS 3

/**
 * The last one.
 */
#define LIGHTGPT_POOLING_LAST 4

/**
 * Only as what a file says: the model scores pairs of texts, see lightgpt_session_rerank.
 */
#define LIGHTGPT_POOLING_RANK 5

/**
 * Leave embeddings as long as the model makes them, instead of giving each the length 1.
 */
#define LIGHTGPT_EMBED_RAW (1 << 0)

/**
 * The queue works on a thread of its own, which sleeps while there is nothing to do. Callbacks run
 * on it.
 */
#define LIGHTGPT_BATCH_QUEUE_WORKER (1 << 0)

/**
 * Numbers of a histogram of times.
 */
#define LIGHTGPT_TIME_BUCKETS 20

/**
 * The deadline of a request of a batch queue has passed.
 */
#define LIGHTGPT_FINISH_DEADLINE 6

/**
 * Requests that one model works on together: each pass evaluates the next token of all that run,
 * and parts of prompts beside them. What a request gets is, to the bit, what a session of the same
 * options would give it alone.
 *
 * Any thread may use it at any time. Someone has to let it work: its own thread, with
 * LIGHTGPT_BATCH_QUEUE_WORKER, or the host with lightgpt_batch_queue_step.
 */
typedef struct lightgpt_batch_queue lightgpt_batch_queue;

/**
 * A model: its weights, metadata and tokenizer. Immutable; any number of threads and sessions may
 * use it at once.
 */
typedef struct lightgpt_model lightgpt_model;

/**
 * Chooses a token from logits. One thread at a time; lightgpt_session_generate and
 * lightgpt_session_begin work on a copy, so that one sampler serves any number of sessions and
 * they leave it as it is.
 *
 * Only mirostat and adaptive-p learn from choice to choice. Here they learn from
 * lightgpt_sampler_sample and _sample_after, until lightgpt_sampler_reset. A session keeps what
 * they learn in its turns: the next turn goes on where the last one ended whose sampler had the
 * same one of the two with the same parameters, also if that was another handle; only without
 * such a turn does it start with what the sampler itself has learnt. LIGHTGPT_CANCEL, an error and
 * lightgpt_session_rewind take that back to the end of the last turn that stays as a whole.
 */
typedef struct lightgpt_sampler lightgpt_sampler;

/**
 * One timeline of text: the tokens so far and what the model remembers of them. Any thread, one
 * at a time.
 */
typedef struct lightgpt_session lightgpt_session;

/**
 * The threads that compute; may serve any number of sessions of any models. Immutable.
 */
typedef struct lightgpt_team lightgpt_team;

/**
 * Facts about the library that is running. The texts are constants.
 */
typedef struct lightgpt_build {
    /**
     * Set by the caller: sizeof(lightgpt_build).
     */
    uint32_t struct_size;
    /**
     * See LIGHTGPT_ABI_VERSION.
     */
    uint32_t abi_version;
    /**
     * Libraries with the same number compute the same bits from the same model and tokens.
     */
    uint32_t numerics_version;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * "0.1.0" and the like.
     */
    const char *version;
    /**
     * The name of the instruction set that is in use, such as "scalar".
     */
    const char *isa;
    /**
     * The optional parts that this build contains, separated by blanks; may be "".
     */
    const char *features;
} lightgpt_build;

/**
 * The work that a host's executor is asked to run.
 *
 * Any thread may call it. It returns at once when there is nothing left to do, and does nothing
 * after the executor has returned.
 */
typedef void (*lightgpt_body_fn)(void *body_data);

/**
 * A host's own way to run something on several threads.
 *
 * It should call body(body_data) up to `bodies` times, on any threads at once, and return when
 * those calls have returned. Fewer calls, or none, are fine: the calling thread does the work that
 * nobody takes. It runs on the thread that called in, many times in one call, also from several
 * threads when several sessions share the team. A thread that it needs must not meanwhile wait in
 * lightgpt_session_free for a session whose call runs on this executor: each would wait for the
 * other.
 */
typedef void (*lightgpt_parallel_for_fn)(void *user_data,
                                         uint32_t bodies,
                                         lightgpt_body_fn body,
                                         void *body_data);

/**
 * Called once with a user_data that the library has kept, when it will not use it any more: on the
 * thread that drops its last user, at the latest when the last object that kept it is freed.
 */
typedef void (*lightgpt_destroy_fn)(void *user_data);

/**
 * How to make a team; all zero: as many threads as physical cores this process may use.
 */
typedef struct lightgpt_team_options {
    /**
     * Set by LIGHTGPT_TEAM_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * Threads that work, the calling one included; 0: the physical cores that this process may
     * use (affinity and container quota). 1 starts no thread.
     */
    uint32_t threads;
    /**
     * CPUs that the helper threads should run on (Linux; elsewhere ignored), `cpus_len` numbers;
     * NULL with 0: all that the process may use. Numbers without a CPU are ignored. Read during
     * the call only.
     */
    const uint32_t *cpus;
    /**
     * Numbers at `cpus`.
     */
    uint64_t cpus_len;
    /**
     * Stack of a helper thread in bytes; 0: 2 MiB.
     */
    uint64_t stack_bytes;
    /**
     * The host's executor, instead of helper threads of the library; NULL: none.
     */
    lightgpt_parallel_for_fn parallel_for;
    /**
     * Handed to `parallel_for`.
     */
    void *parallel_for_data;
    /**
     * Called with `parallel_for_data` when the team has gone; NULL: nothing to do.
     */
    lightgpt_destroy_fn parallel_for_destroy;
    /**
     * LIGHTGPT_TEAM_ bits.
     */
    uint32_t flags;
    /**
     * With LIGHTGPT_TEAM_NODE: the NUMA node on whose CPUs the helper threads run (Linux).
     */
    uint32_t node;
    /**
     * How far the helper threads stand back for others (Linux), from 0 to 19, as `nice` has it.
     */
    uint32_t niceness;
    /**
     * 0.
     */
    uint32_t reserved;
} lightgpt_team_options;

/**
 * Reports how far an open came: bytes read (or locked) of all bytes of tensors (0 of 0 while the
 * file's head is parsed). Answers LIGHTGPT_CONTINUE or LIGHTGPT_CANCEL. Called on the thread that called in.
 */
typedef int32_t (*lightgpt_progress_fn)(void *user_data, uint64_t done, uint64_t total);

/**
 * Takes a log line of `text_bytes` bytes of UTF-8, valid during the call. Called on whatever
 * thread is inside a call with the model, perhaps on several at once.
 */
typedef void (*lightgpt_log_fn)(void *user_data, int32_t level, const char *text, size_t text_bytes);

/**
 * Gives `bytes` bytes (never 0) at a multiple of `alignment`, a power of two up to 64; NULL if
 * there are none, which the call answers with LIGHTGPT_OUT_OF_MEMORY, as it does for a pointer that
 * is no such multiple, which it gives back. They need not be zero. tag: one of LIGHTGPT_MEMORY_. Called on whatever
 * thread is inside a call, perhaps on several at once; it must not call the library.
 */
typedef void *(*lightgpt_allocate_fn)(void *user_data, size_t bytes, size_t alignment, uint32_t tag);

/**
 * Takes back what lightgpt_allocate_fn gave for the same `bytes`, `alignment` and `tag`. Called on
 * whatever thread is inside a call; it must not call the library.
 */
typedef void (*lightgpt_release_fn)(void *user_data,
                                    void *memory,
                                    size_t bytes,
                                    size_t alignment,
                                    uint32_t tag);

/**
 * A host's own allocator of large memory.
 *
 * What grows with weights, contexts, batches and vocabularies while a model runs comes from it;
 * what the head of a file holds (metadata, the vocabulary and its tables), results on their way to
 * the caller, samplers that are used by themselves, small things, and 80 KiB for each thread that
 * computes come from malloc and the system.
 */
typedef struct lightgpt_allocator {
    /**
     * Set by LIGHTGPT_ALLOCATOR_INIT.
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Not NULL.
     */
    lightgpt_allocate_fn allocate;
    /**
     * Not NULL.
     */
    lightgpt_release_fn release;
    /**
     * Handed to both.
     */
    void *user_data;
    /**
     * Called with `user_data` when all memory has been given back and none will be asked for. NULL:
     * nothing to do.
     */
    lightgpt_destroy_fn destroy;
} lightgpt_allocator;

/**
 * How to open a model; all zero: map the file, say nothing.
 */
typedef struct lightgpt_open_options {
    /**
     * Set by LIGHTGPT_OPEN_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_OPEN_ bits.
     */
    uint32_t flags;
    /**
     * The most bytes that copied weights, activations, and the sessions without a cap of their own
     * may take; 0: 80 % of what the machine and the control group allow, as far as is known. A map is
     * not counted.
     */
    uint64_t memory_max;
    /**
     * Reports progress and may cancel; used during the call only. NULL: none.
     */
    lightgpt_progress_fn progress;
    /**
     * Handed to `progress`.
     */
    void *progress_data;
    /**
     * Takes log lines for as long as the model lives. NULL: silence.
     */
    lightgpt_log_fn log;
    /**
     * Handed to `log`.
     */
    void *log_data;
    /**
     * Called with `log_data` when the model has gone. NULL: nothing to do.
     */
    lightgpt_destroy_fn log_destroy;
    /**
     * The most bytes of keys and values that are kept for sessions whose text begins like that of
     * another one before; 0: a quarter of the weights', at least 256 MiB. They count for
     * `memory_max`, but give way to everything else.
     */
    uint64_t prefix_bytes_max;
    /**
     * Tokens of a page of keys and values, the unit in which sessions grow and share: 16, 32 or 64; 0:
     * 64. Small pages waste less at the ends of many short texts, large ones are attended over
     * faster. Changes no result.
     */
    uint32_t page_tokens;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Where large memory of the model, its sessions and its queues comes from; read during the call
     * only. NULL: the system.
     */
    const struct lightgpt_allocator *allocator;
} lightgpt_open_options;

/**
 * What a model is. Of one opened with LIGHTGPT_OPEN_INSPECT the members from `layers` to
 * `context` and from `abilities` on are 0.
 */
typedef struct lightgpt_model_info {
    /**
     * Set by the caller: sizeof(lightgpt_model_info).
     */
    uint32_t struct_size;
    /**
     * Version of the file format.
     */
    uint32_t gguf_version;
    /**
     * Bytes of all the model's files.
     */
    uint64_t file_bytes;
    /**
     * Number of files: more than 1 for a split model.
     */
    uint64_t files;
    /**
     * Number of metadata keys.
     */
    uint64_t metadata_keys;
    /**
     * Number of tensors.
     */
    uint64_t tensors;
    /**
     * Entries of the vocabulary; 0 without a tokenizer.
     */
    uint64_t vocab;
    /**
     * Number of weights.
     */
    uint64_t parameters;
    /**
     * Bytes of the weights.
     */
    uint64_t weight_bytes;
    /**
     * Transformer layers.
     */
    uint64_t layers;
    /**
     * Width of an activation.
     */
    uint64_t dim;
    /**
     * Attention heads.
     */
    uint64_t heads;
    /**
     * Heads of keys and values.
     */
    uint64_t kv_heads;
    /**
     * Width of a head.
     */
    uint64_t head_dim;
    /**
     * Width inside the feed-forward part.
     */
    uint64_t hidden;
    /**
     * Tokens that the model was made for.
     */
    uint64_t context;
    /**
     * The architecture's name in the file, cut to fit, ending in a zero byte.
     */
    char architecture[32];
    /**
     * The model's name in the file, cut to fit, ending in a zero byte; may be "".
     */
    char name[96];
    /**
     * LIGHTGPT_MODEL_ bits.
     */
    uint32_t abilities;
    /**
     * What its embeddings are made by unless options say otherwise: one of LIGHTGPT_POOLING_.
     */
    uint32_t pooling;
    /**
     * Numbers of an embedding.
     */
    uint64_t embedding;
    /**
     * Scores that lightgpt_session_rerank gives; 0: it cannot.
     */
    uint64_t scores;
} lightgpt_model_info;

/**
 * How to make a session; all zero: the library chooses.
 */
typedef struct lightgpt_session_options {
    /**
     * Set by LIGHTGPT_SESSION_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * One of LIGHTGPT_KV_.
     */
    uint32_t kv_format;
    /**
     * Tokens that the session can hold; 0: as many as the model was made for, which is also the
     * most (`context` in lightgpt_model_info).
     */
    uint64_t context;
    /**
     * Prompt tokens per pass; 0: the library chooses. Changes the time, not the result.
     */
    uint64_t chunk;
    /**
     * The most bytes that keys, values and logits of the session may take; 0: what the model was
     * opened with.
     */
    uint64_t memory_max;
    /**
     * LIGHTGPT_SESSION_ bits.
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Share only with sessions of the same salt: how long a prompt takes tells whether another
     * session has had its beginning, which users of one model may not want to know of each other.
     */
    uint64_t salt;
} lightgpt_session_options;

/**
 * Memory in bytes.
 */
typedef struct lightgpt_memory {
    /**
     * Set by the caller: sizeof(lightgpt_memory).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Weights used in place: shared by all processes that map the file.
     */
    uint64_t weights_mapped;
    /**
     * Weights copied.
     */
    uint64_t weights_copied;
    /**
     * Keys and values of one session.
     */
    uint64_t kv;
    /**
     * Activations of a pass; sessions that do not run at once share them.
     */
    uint64_t scratch;
    /**
     * A session's logits.
     */
    uint64_t logits;
} lightgpt_memory;

/**
 * Reads up to `bytes` bytes (never 0) from `offset` of the model into `buffer`. Answers how many it
 * has read: fewer are fine, and it is called again for the rest; 0 means that the model ends there.
 * Below 0 it has failed, and so does the call. Called on the thread that called in.
 */
typedef int64_t (*lightgpt_read_at_fn)(void *user_data, uint64_t offset, void *buffer, size_t bytes);

/**
 * What was kept of the sessions and requests of a model for those whose text begins the same way, and
 * what came of it.
 */
typedef struct lightgpt_prefix_statistics {
    /**
     * Set by the caller: sizeof(lightgpt_prefix_statistics).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Prompts whose beginning was looked for.
     */
    uint64_t lookups;
    /**
     * Those of which a part was found.
     */
    uint64_t hits;
    /**
     * Tokens that need not be evaluated again.
     */
    uint64_t tokens;
    /**
     * Pages of keys and values that are kept, see lightgpt_open_options.
     */
    uint64_t pages;
    /**
     * Their bytes, states included; those that are used as well are counted too.
     */
    uint64_t bytes;
    /**
     * The most bytes that are kept.
     */
    uint64_t bytes_max;
    /**
     * Pages that were given up, because others were worth more or memory was short.
     */
    uint64_t evictions;
} lightgpt_prefix_statistics;

/**
 * What a tensor is.
 */
typedef struct lightgpt_tensor_info {
    /**
     * Set by the caller: sizeof(lightgpt_tensor_info).
     */
    uint32_t struct_size;
    /**
     * The storage format's number in the file.
     */
    uint32_t format;
    /**
     * Values along each dimension, the innermost first; 1 beyond `dimensions`.
     */
    uint64_t dims[4];
    /**
     * Number of dimensions, 1 to 4.
     */
    uint32_t dimensions;
    /**
     * The file that holds it, from 0.
     */
    uint32_t file;
    /**
     * Where its bytes begin in that file.
     */
    uint64_t offset;
    /**
     * Number of its bytes.
     */
    uint64_t bytes;
    /**
     * The storage format's name, such as "Q4_K", ending in a zero byte.
     */
    char format_name[16];
    /**
     * The tensor's name, ending in a zero byte.
     */
    char name[72];
} lightgpt_tensor_info;

/**
 * A message of a chat.
 */
typedef struct lightgpt_chat_message {
    /**
     * Who speaks: "system", "user", "assistant", "tool", or what the template knows. Not NULL, ends
     * in a zero byte.
     */
    const char *role;
    /**
     * What is said, as `content_bytes` bytes of UTF-8; NULL: nothing (null in JSON).
     */
    const char *content;
    /**
     * Bytes at `content`.
     */
    uint64_t content_bytes;
    /**
     * Further members, such as "tool_calls", as a JSON object of `fields_json_bytes` bytes; NULL: none.
     */
    const char *fields_json;
    /**
     * Bytes at `fields_json`.
     */
    uint64_t fields_json_bytes;
} lightgpt_chat_message;

/**
 * A chat, and how it becomes a prompt. What it points to is read during the call only.
 */
typedef struct lightgpt_chat {
    /**
     * Set by LIGHTGPT_CHAT_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_CHAT_ bits.
     */
    uint32_t flags;
    /**
     * The messages, `messages_len` of them; NULL: none.
     */
    const struct lightgpt_chat_message *messages;
    /**
     * Messages at `messages`.
     */
    uint64_t messages_len;
    /**
     * Messages behind these, as a JSON array of objects such as clients of chat servers send it; NULL:
     * none.
     */
    const char *messages_json;
    /**
     * Bytes at `messages_json`.
     */
    uint64_t messages_json_bytes;
    /**
     * Tools that the model may call, as a JSON array such as clients of chat servers send it; NULL: none.
     */
    const char *tools_json;
    /**
     * Bytes at `tools_json`.
     */
    uint64_t tools_json_bytes;
    /**
     * Further variables of the template, such as {"enable_thinking": false}, as a JSON object; NULL:
     * none.
     */
    const char *variables_json;
    /**
     * Bytes at `variables_json`.
     */
    uint64_t variables_json_bytes;
    /**
     * A template to be used in place of the model's; NULL: none.
     */
    const char *template_text;
    /**
     * Bytes at `template_text`.
     */
    uint64_t template_text_bytes;
    /**
     * The name of one of the model's templates, ending in a zero byte. NULL: its default one, or the
     * one called "tool_use" if it has that and the chat has tools.
     */
    const char *template_name;
    /**
     * The time that the template sees, in seconds since 1970 as a clock on the wall shows it; 0:
     * now, in UTC. Set it where the same chat shall give the same prompt.
     */
    int64_t now;
} lightgpt_chat;

/**
 * Tokens in a row.
 */
typedef struct lightgpt_tokens {
    /**
     * The first of `tokens_len` tokens; NULL with 0.
     */
    const uint32_t *tokens;
    /**
     * Their number.
     */
    uint64_t tokens_len;
} lightgpt_tokens;

/**
 * A token, and what is added to its logit.
 */
typedef struct lightgpt_logit_bias {
    /**
     * The token; one outside the vocabulary does nothing.
     */
    uint32_t token;
    /**
     * Added to its logit; -INFINITY: never this token.
     */
    float bias;
} lightgpt_logit_bias;

/**
 * How to choose tokens: which stages the logits pass, in which order, and what chooses in the end.
 *
 * A member for which there is a LIGHTGPT_SAMPLER_ bit of its name counts only if that bit is set
 * in `flags`. Of the others, 0 means what their comment says; a stage whose members are all 0 is
 * off. What pointers lead to is read during the call only.
 */
typedef struct lightgpt_sampler_options {
    /**
     * Set by LIGHTGPT_SAMPLER_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_SAMPLER_ bits: which of the members with a bit are set.
     */
    uint32_t flags;
    /**
     * Divides the logits; 0: always the most likely token (greedy).
     */
    float temperature;
    /**
     * Only the `top_k` most likely tokens; 0: all.
     */
    uint32_t top_k;
    /**
     * Only the most likely tokens that together have this probability: above 0, at most 1 (all).
     */
    float top_p;
    /**
     * Top-p, min-p, typical and XTC leave at least this many tokens; 0: 1.
     */
    uint32_t min_keep;
    /**
     * Same seed, model and tokens: same choice.
     */
    uint64_t seed;
    /**
     * Only tokens at least this likely, compared with the most likely one; 0: all.
     */
    float min_p;
    /**
     * Only the tokens whose surprise is nearest to the expected one, up to this sum of
     * probabilities; 0 or 1: all.
     */
    float typical_p;
    /**
     * Only logits within so many standard deviations of the largest; 0: all.
     */
    float top_n_sigma;
    /**
     * How often XTC excludes the top choices but the last of them; 0: never.
     */
    float xtc_probability;
    /**
     * How likely a top choice of XTC is at least.
     */
    float xtc_threshold;
    /**
     * How far the temperature moves with the entropy, up and down; 0: not at all.
     */
    float dynamic_temperature_range;
    /**
     * Power of the entropy's share of the largest, for the dynamic temperature.
     */
    float dynamic_temperature_exponent;
    /**
     * Divides positive logits of tokens that have come and multiplies negative ones; 0 or 1: off.
     */
    float repetition_penalty;
    /**
     * Subtracted from a token's logit for each time it has come.
     */
    float frequency_penalty;
    /**
     * Subtracted from the logits of tokens that have come.
     */
    float presence_penalty;
    /**
     * Tokens that these three penalties look back on; 0: 64; UINT32_MAX: all.
     */
    uint32_t penalty_last;
    /**
     * Strength of DRY, which penalises going on with a repetition; 0: off; 0.8 is customary.
     */
    float dry_multiplier;
    /**
     * Growth of DRY with each token repeated, at least 1; 0: 1.75.
     */
    float dry_base;
    /**
     * The shortest repetition that DRY penalises, in tokens.
     */
    uint32_t dry_allowed_length;
    /**
     * Tokens that DRY looks back on; 0: 64; UINT32_MAX: all.
     */
    uint32_t dry_last;
    /**
     * Which mirostat chooses, 1 or 2; 0: none. It takes the place of the stages from top-n-sigma
     * to XTC.
     */
    uint32_t mirostat;
    /**
     * Mirostat's target, in bits a token.
     */
    float mirostat_tau;
    /**
     * Mirostat's rate of learning.
     */
    float mirostat_eta;
    /**
     * Lets adaptive-p choose tokens of about this probability, unless mirostat chooses; below 0:
     * off.
     */
    float adaptive_target;
    /**
     * Adaptive-p's weight of the past, 0 to 0.99.
     */
    float adaptive_decay;
    /**
     * Token sequences that no repetition of DRY reaches across: `dry_breakers_len` of them, at
     * most 1024, each of 1 to 64 tokens. NULL with 0: none.
     */
    const struct lightgpt_tokens *dry_breakers;
    /**
     * Sequences at `dry_breakers`.
     */
    uint64_t dry_breakers_len;
    /**
     * What is added to logits: `logit_biases_len` tokens, at most 4096; for more, see
     * lightgpt_sampler_add_stage. NULL with 0: nothing.
     */
    const struct lightgpt_logit_bias *logit_biases;
    /**
     * Tokens at `logit_biases`.
     */
    uint64_t logit_biases_len;
    /**
     * The stages before the choice, first to last: `order_len` LIGHTGPT_STAGE_ numbers from 1, at
     * most 64; the others are off. NULL with 0: all, in the order of their numbers; not NULL with
     * 0: none.
     */
    const uint32_t *order;
    /**
     * Numbers at `order`.
     */
    uint64_t order_len;
    /**
     * Prefer to end early, for filling a gap in a text, with the vocabulary of this model, which
     * is copied. NULL: no.
     */
    const struct lightgpt_model *infill;
} lightgpt_sampler_options;

/**
 * What lightgpt_sampler_check has found: Pearson's chi-square test.
 */
typedef struct lightgpt_chi_square {
    /**
     * Set by the caller: sizeof(lightgpt_chi_square).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The sum of (observed - expected)^2 / expected over the classes: tokens, those that are
     * expected fewer than 5 times taken together.
     */
    double statistic;
    /**
     * Degrees of freedom: classes minus 1.
     */
    uint64_t degrees;
    /**
     * How likely a statistic at least as large is, if the choices follow the distribution: a
     * sampler that is right has one below 0.001 once in a thousand seeds.
     */
    double p_value;
} lightgpt_chi_square;

/**
 * The tokens that may still be chosen, as a stage of the host's own sees them. Later versions may
 * append members.
 */
typedef struct lightgpt_candidates {
    /**
     * sizeof(lightgpt_candidates) of the library.
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The tokens, `len` of them, rising.
     */
    const uint32_t *tokens;
    /**
     * Their logits, for the stage to change; -INFINITY excludes a token for good.
     */
    float *logits;
    /**
     * Number of tokens, at least 1.
     */
    uint64_t len;
    /**
     * The tokens of the text so far, `history_len` of them. Not to be used if that is 0.
     */
    const uint32_t *history;
    /**
     * Tokens at `history`.
     */
    uint64_t history_len;
    /**
     * The place of the token that is being chosen.
     */
    uint64_t step;
    /**
     * For an answer of LIGHTGPT_CHOOSE: which of the `len` tokens, from 0. Only this member and
     * the logits are the stage's to write.
     */
    uint64_t chosen;
} lightgpt_candidates;

/**
 * A stage of the host's own: looks at the candidates, changes their logits, and answers
 * LIGHTGPT_CONTINUE, LIGHTGPT_CHOOSE with `chosen` set, or LIGHTGPT_CANCEL: the call that samples
 * answers LIGHTGPT_CANCELLED. Other answers count as LIGHTGPT_CANCEL.
 *
 * The candidates are valid during the call. It runs on the thread that called in. For a choice
 * that can be repeated, it depends on nothing but the candidates; what it keeps at `user_data` is
 * not taken back when a turn is.
 */
typedef int32_t (*lightgpt_stage_fn)(void *user_data, struct lightgpt_candidates *candidates);

/**
 * How varied some sequences are, by their n-grams: runs of n neighbours in one sequence.
 */
typedef struct lightgpt_diversity {
    /**
     * Set by the caller: sizeof(lightgpt_diversity).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Distinct-n: the share of different n-grams among all of all sequences.
     */
    double distinct;
    /**
     * The share of a sequence's n-grams that it had before (seq-rep-n), the mean of all sequences.
     */
    double repetition;
    /**
     * Repetition rate: the geometric mean, for n from 1 to 4, of the share of different n-grams
     * that come more than once within 1000 elements; the mean of all sequences.
     */
    double repetition_rate;
    /**
     * Entropy of the distribution of n-grams, in bits (Ent-n).
     */
    double entropy;
    /**
     * Self-BLEU with n-grams up to n: near 1 if the sequences are alike, near 0 if they have
     * nothing in common, or are shorter than n; 0 for a single one.
     */
    double self_bleu;
} lightgpt_diversity;

/**
 * A text.
 */
typedef struct lightgpt_text {
    /**
     * `text_bytes` bytes of UTF-8; NULL with 0.
     */
    const char *text;
    /**
     * Bytes at `text`.
     */
    uint64_t text_bytes;
} lightgpt_text;

/**
 * What a session has done and holds.
 */
typedef struct lightgpt_metrics {
    /**
     * Set by the caller: sizeof(lightgpt_metrics).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Tokens in the session.
     */
    uint64_t tokens;
    /**
     * Tokens that it can hold.
     */
    uint64_t context;
    /**
     * Tokens fed so far.
     */
    uint64_t prompt_tokens;
    /**
     * Microseconds spent on them.
     */
    uint64_t prompt_us;
    /**
     * Tokens generated so far.
     */
    uint64_t generated_tokens;
    /**
     * Microseconds spent on them.
     */
    uint64_t generate_us;
    /**
     * Bytes of keys and values, those that it shares with other sessions included.
     */
    uint64_t kv_bytes;
    /**
     * Tokens fed so far that had been evaluated before, by another session or this one.
     */
    uint64_t reused_tokens;
} lightgpt_metrics;

/**
 * How to generate; all zero: the most likely tokens, until the model ends or the session is full.
 */
typedef struct lightgpt_generate_options {
    /**
     * Set by LIGHTGPT_GENERATE_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_GENERATE_ bits.
     */
    uint32_t flags;
    /**
     * The most tokens to make; 0: no limit of this kind.
     */
    uint64_t tokens_max;
    /**
     * Chooses the tokens; copied, so that using it elsewhere changes nothing here. What mirostat
     * or adaptive-p learns goes on over the turns of the session, see lightgpt_sampler. NULL:
     * greedy.
     */
    struct lightgpt_sampler *sampler;
    /**
     * Texts that end the turn and are not shown: `stops_len` of them, each with a zero byte at its
     * end; at most 64, of 1 to 1024 bytes. Text that may become one is held back until it is
     * certain; the first to be complete counts. Its tokens stay in the session. NULL: none.
     */
    const char *const *stops;
    /**
     * Texts at `stops`.
     */
    uint64_t stops_len;
    /**
     * Give so many of the most likely tokens beside each token; at most 256.
     */
    uint32_t top_len;
    /**
     * Zero.
     */
    uint32_t reserved;
} lightgpt_generate_options;

/**
 * A token and its log-probability.
 */
typedef struct lightgpt_token_score {
    /**
     * The token.
     */
    uint32_t token;
    /**
     * The natural logarithm of its probability.
     */
    double log_probability;
} lightgpt_token_score;

/**
 * What happened. Members that the kind does not name are 0.
 */
typedef struct lightgpt_event {
    /**
     * For lightgpt_session_step set by the caller: sizeof(lightgpt_event).
     */
    uint32_t struct_size;
    /**
     * One of LIGHTGPT_EVENT_.
     */
    uint32_t kind;
    /**
     * TOKEN: the token.
     */
    uint32_t token;
    /**
     * FINISHED: one of LIGHTGPT_FINISH_.
     */
    uint32_t finish;
    /**
     * TOKEN: the token's place in the session.
     */
    uint64_t position;
    /**
     * PROGRESS: tokens of the session that are evaluated.
     */
    uint64_t done;
    /**
     * PROGRESS: tokens of the session.
     */
    uint64_t total;
    /**
     * TOKEN and FINISHED: text that became certain, `text_bytes` bytes of UTF-8 in whole
     * characters, without a zero byte at the end. Not NULL; may be empty, since a character may
     * take several tokens. All texts of a turn, one behind the other, are its text.
     */
    const char *text;
    /**
     * Bytes at `text`.
     */
    uint64_t text_bytes;
    /**
     * TOKEN, with LIGHTGPT_GENERATE_LOG_PROBABILITIES: the natural logarithm of the probability
     * that the model gave the token, before any sampling.
     */
    double log_probability;
    /**
     * TOKEN, with top_len in the options: the most likely tokens in its place, the most likely
     * first. Valid as long as `text`.
     */
    const struct lightgpt_token_score *top;
    /**
     * Tokens at `top`.
     */
    uint64_t top_len;
} lightgpt_event;

/**
 * Takes what happens in lightgpt_session_generate, and answers LIGHTGPT_CONTINUE, LIGHTGPT_STOP
 * or LIGHTGPT_CANCEL; other answers count as LIGHTGPT_CANCEL. The event and its text are valid
 * during the call. It runs on the thread that called in. The answer to LIGHTGPT_EVENT_FINISHED
 * still cancels the turn.
 */
typedef int32_t (*lightgpt_event_fn)(void *user_data, const struct lightgpt_event *event);

/**
 * How to embed a text; all zero: as the model's file says, of length 1.
 */
typedef struct lightgpt_embed_options {
    /**
     * Set by LIGHTGPT_EMBED_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_EMBED_ bits.
     */
    uint32_t flags;
    /**
     * One of LIGHTGPT_POOLING_, but RANK.
     */
    uint32_t pooling;
    /**
     * Zero.
     */
    uint32_t reserved;
} lightgpt_embed_options;

/**
 * How to make a queue; all zero: the library chooses, and the host lets it work.
 */
typedef struct lightgpt_batch_queue_options {
    /**
     * Set by LIGHTGPT_BATCH_QUEUE_OPTIONS_INIT.
     */
    uint32_t struct_size;
    /**
     * LIGHTGPT_BATCH_QUEUE_ bits.
     */
    uint32_t flags;
    /**
     * One of LIGHTGPT_KV_.
     */
    uint32_t kv_format;
    /**
     * Requests that run at a time, the others wait; at most 1024; 0: 16.
     */
    uint32_t sequences_max;
    /**
     * Tokens that a request may come to with its prompt; 0: as many as the model was made for,
     * which is also the most.
     */
    uint64_t context;
    /**
     * Prompt tokens of a pass; 0: the library chooses. More make prompts fast, fewer keep the time
     * between tokens of others short. Changes no result.
     */
    uint64_t chunk;
    /**
     * The most bytes that keys and values of all requests may take; 0: what the model was opened
     * with. When they run out, the youngest request of the lowest priority gives its own up and
     * makes them again later, with the same result.
     */
    uint64_t memory_max;
    /**
     * Requests that may be there: running, waiting, or with an end that nobody has polled. At most
     * 1048576; 0: 1024.
     */
    uint64_t requests_max;
    /**
     * Microseconds that the first request waits for company when nothing runs, unless as many are
     * there as may run. A step without a budget does not wait.
     */
    uint64_t window_us;
} lightgpt_batch_queue_options;

/**
 * What a queue has done and holds. Times are in microseconds.
 */
typedef struct lightgpt_batch_metrics {
    /**
     * Set by the caller: sizeof(lightgpt_batch_metrics).
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Requests that wait.
     */
    uint64_t waiting;
    /**
     * Requests that run.
     */
    uint64_t running;
    /**
     * Requests that were taken.
     */
    uint64_t submitted;
    /**
     * Requests that were answered with LIGHTGPT_BUSY.
     */
    uint64_t refused;
    /**
     * Requests whose text is complete, or whose callback stopped it.
     */
    uint64_t finished;
    /**
     * Requests that were cancelled.
     */
    uint64_t cancelled;
    /**
     * Requests whose deadline has passed.
     */
    uint64_t expired;
    /**
     * Requests that ended with an error.
     */
    uint64_t failed;
    /**
     * Tokens of the prompts of requests that ran.
     */
    uint64_t prompt_tokens;
    /**
     * Tokens generated.
     */
    uint64_t generated_tokens;
    /**
     * Tokens that were evaluated once more, because their keys and values had been given up.
     */
    uint64_t repeated_tokens;
    /**
     * How often that happened to a request.
     */
    uint64_t preemptions;
    /**
     * Passes.
     */
    uint64_t passes;
    /**
     * Tokens evaluated in all passes.
     */
    uint64_t rows;
    /**
     * The most tokens of a pass.
     */
    uint64_t rows_max;
    /**
     * Time at work.
     */
    uint64_t busy_us;
    /**
     * Sum of the times from submission to the first run, of requests that ran.
     */
    uint64_t queue_us;
    /**
     * Sum of the times from submission to the first token.
     */
    uint64_t first_token_us;
    /**
     * Requests that have a first token.
     */
    uint64_t first_tokens;
    /**
     * Sum of the times between two tokens of a request.
     */
    uint64_t token_us;
    /**
     * The longest of them.
     */
    uint64_t token_max_us;
    /**
     * Bytes of keys and values of the requests; a page that several share counts for each.
     */
    uint64_t kv_bytes;
    /**
     * How often a request began to run with tokens that others had evaluated before.
     */
    uint64_t reuses;
    /**
     * Tokens that needed not be evaluated therefore.
     */
    uint64_t reused_tokens;
    /**
     * Requests that had tokens in a pass, of all passes.
     */
    uint64_t sequences;
    /**
     * Requests that may run at a time.
     */
    uint64_t sequences_max;
    /**
     * Requests up to which others are let in now: fewer than `sequences_max` while memory is short.
     */
    uint64_t sequences_allowed;
    /**
     * Bytes of weights used in place: of the mapped file, or of memory of the host.
     */
    uint64_t weights_mapped;
    /**
     * Large memory (see lightgpt_allocator) of the model, its sessions and its queues in bytes:
     * weights that were read.
     */
    uint64_t memory_weights;
    /**
     * Keys and values, what the model keeps for sessions to come included.
     */
    uint64_t memory_kv;
    /**
     * Activations.
     */
    uint64_t memory_scratch;
    /**
     * Logits, sampling and tables.
     */
    uint64_t memory_misc;
    /**
     * Prompts of which a beginning was looked for, as in lightgpt_prefix_statistics.
     */
    uint64_t prefix_lookups;
    /**
     * Those of which a part was found.
     */
    uint64_t prefix_hits;
    /**
     * Bytes of keys and values that are kept for that.
     */
    uint64_t prefix_bytes;
    /**
     * The most that are kept now: fewer while memory is short.
     */
    uint64_t prefix_bytes_allowed;
    /**
     * How short memory is: 0 there is enough; 1 it is short: half of the requests run at a time, and
     * half of the keys and values are kept; 2 it is very short: one runs, and none are kept.
     */
    uint64_t pressure;
    /**
     * How often it has become shorter.
     */
    uint64_t pressure_events;
    /**
     * Tokens generated in a second at work.
     */
    double tokens_per_second;
    /**
     * Mean share of `sequences_max` in a pass, from 0 to 1.
     */
    double occupancy;
    /**
     * `prefix_hits` of `prefix_lookups`, from 0 to 1.
     */
    double prefix_hit_rate;
    /**
     * Bytes that the weights would have as 16-bit floats, for each that they have.
     */
    double compression;
    /**
     * How many requests waited how long for their first run. The first LIGHTGPT_TIME_BUCKETS - 1
     * numbers are of times of up to 100, 200, 500, 1,000, 2,000, 5,000 and so on to 100,000,000
     * microseconds, each without those before it; the last one is of longer ones.
     */
    uint64_t queue_times[20];
    /**
     * The same for the times from submission to the first token.
     */
    uint64_t first_token_times[20];
    /**
     * The same for the times between two tokens of a request.
     */
    uint64_t token_times[20];
} lightgpt_batch_metrics;

/**
 * What a request has done and waited for. Times are in microseconds.
 */
typedef struct lightgpt_batch_timings {
    /**
     * sizeof(lightgpt_batch_timings) of the library.
     */
    uint32_t struct_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Tokens of the prompt.
     */
    uint64_t prompt_tokens;
    /**
     * Tokens generated.
     */
    uint64_t generated_tokens;
    /**
     * Tokens that were evaluated once more, because their keys and values had been given up.
     */
    uint64_t repeated_tokens;
    /**
     * How often that happened.
     */
    uint64_t preemptions;
    /**
     * From the submission to the first run.
     */
    uint64_t queue_us;
    /**
     * From the submission to the first token.
     */
    uint64_t first_token_us;
    /**
     * The longest time between two tokens.
     */
    uint64_t token_max_us;
    /**
     * From the submission to the end.
     */
    uint64_t total_us;
    /**
     * Tokens that needed not be evaluated, because others had evaluated them before.
     */
    uint64_t reused_tokens;
} lightgpt_batch_timings;

/**
 * What happened to a request. Members that the kind does not name are 0. Later versions may append
 * members.
 */
typedef struct lightgpt_batch_event {
    /**
     * For lightgpt_batch_queue_poll set by the caller: sizeof(lightgpt_batch_event).
     */
    uint32_t struct_size;
    /**
     * One of LIGHTGPT_EVENT_.
     */
    uint32_t kind;
    /**
     * The request.
     */
    uint64_t request;
    /**
     * TOKEN: the token.
     */
    uint32_t token;
    /**
     * FINISHED: one of LIGHTGPT_FINISH_; 0 if the status is below 0.
     */
    uint32_t finish;
    /**
     * FINISHED: LIGHTGPT_DONE if the text is complete, LIGHTGPT_STOPPED if the callback or the
     * deadline ended it, LIGHTGPT_CANCELLED, or the error that ended this request alone.
     */
    int32_t status;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * TOKEN: the token's place in the request's text, its prompt included.
     */
    uint64_t position;
    /**
     * PROGRESS: tokens of the prompt that are evaluated.
     */
    uint64_t done;
    /**
     * PROGRESS: tokens of the prompt.
     */
    uint64_t total;
    /**
     * TOKEN and FINISHED: text that became certain, as in lightgpt_event: the texts of all events
     * of a request, one behind the other, are its text.
     */
    const char *text;
    /**
     * Bytes at `text`.
     */
    uint64_t text_bytes;
    /**
     * TOKEN, with LIGHTGPT_GENERATE_LOG_PROBABILITIES: as in lightgpt_event.
     */
    double log_probability;
    /**
     * TOKEN, with top_len in the options: as in lightgpt_event.
     */
    const struct lightgpt_token_score *top;
    /**
     * Tokens at `top`.
     */
    uint64_t top_len;
    /**
     * FINISHED: what the request has done; else NULL. Valid as long as `text`.
     */
    const struct lightgpt_batch_timings *timings;
    /**
     * FINISHED: what an error status is about, ending in a zero byte; "" without one. Else NULL.
     * Valid as long as `text`.
     */
    const char *message;
} lightgpt_batch_event;

/**
 * Takes what happens to a request, and answers LIGHTGPT_CONTINUE, LIGHTGPT_STOP (end it here) or
 * LIGHTGPT_CANCEL; other answers count as LIGHTGPT_CANCEL. LIGHTGPT_EVENT_FINISHED is the last
 * event, comes exactly once, and its answer does not count.
 *
 * It runs on the queue's own thread, or in lightgpt_batch_queue_step; all requests wait meanwhile.
 * It may submit, cancel, pause, resume and ask the queue; stepping or freeing it is LIGHTGPT_BUSY.
 */
typedef int32_t (*lightgpt_batch_event_fn)(void *user_data, const struct lightgpt_batch_event *event);

/**
 * A prompt and how to go on from it.
 */
typedef struct lightgpt_batch_request {
    /**
     * Set by LIGHTGPT_BATCH_REQUEST_INIT.
     */
    uint32_t struct_size;
    /**
     * For `text`: LIGHTGPT_TEXT_ADD_SPECIAL and LIGHTGPT_TEXT_PARSE_SPECIAL bits.
     */
    uint32_t flags;
    /**
     * The prompt as `text_bytes` bytes of UTF-8; or NULL, and tokens.
     */
    const char *text;
    /**
     * Bytes at `text`.
     */
    uint64_t text_bytes;
    /**
     * The prompt as `tokens_len` tokens; or NULL, and text.
     */
    const uint32_t *tokens;
    /**
     * Tokens at `tokens`.
     */
    uint64_t tokens_len;
    /**
     * How to generate; NULL for the defaults. Read during the call only; a sampler is copied.
     */
    const struct lightgpt_generate_options *generate;
    /**
     * From -4 to 4: each priority gets twice the share of the one below it.
     */
    int32_t priority;
    /**
     * LIGHTGPT_SESSION_UNSHARED, or 0: whether it uses what other requests and sessions of the model
     * have evaluated, and keeps for them what it evaluates.
     */
    uint32_t sharing;
    /**
     * Any number: those of a priority share it evenly.
     */
    uint64_t submitter;
    /**
     * Microseconds from now after which the request ends with LIGHTGPT_FINISH_DEADLINE; 0: none.
     */
    uint64_t deadline_us;
    /**
     * Called with all that happens; NULL: lightgpt_batch_queue_poll gives it.
     */
    lightgpt_batch_event_fn event;
    /**
     * Handed to `event`.
     */
    void *user_data;
    /**
     * Called with `user_data` when the request is over; NULL: nothing to do.
     */
    lightgpt_destroy_fn destroy;
    /**
     * Share only with requests and sessions of the same salt, see lightgpt_session_options.
     */
    uint64_t salt;
    /**
     * The prompt as a chat, see lightgpt_model_chat_tokenize; or NULL, and text or tokens.
     */
    const struct lightgpt_chat *chat;
} lightgpt_batch_request;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status as the header spells it, such as "LIGHTGPT_BUSY".
 *
 * Never NULL: a number that this library does not know gives "LIGHTGPT_UNKNOWN_STATUS". The text
 * is a constant. Any thread; cannot fail.
 */
LIGHTGPT_API const char *lightgpt_status_name(int32_t status);

/**
 * The message of the last call that failed on this thread; "" if none did.
 *
 * Never NULL. The text is UTF-8, ends in a zero byte, and is valid until the next failing call on
 * this thread; longer ones than 1023 bytes are cut. Calls that succeed leave it alone. Any
 * thread; cannot fail.
 */
LIGHTGPT_API const char *lightgpt_last_error(void);

/**
 * The version of the library that is running, such as "0.1.0"; compare LIGHTGPT_VERSION, which is
 * that of the header.
 *
 * Never NULL, a constant. Any thread; cannot fail.
 */
LIGHTGPT_API const char *lightgpt_version(void);

/**
 * The ABI number of the library that is running.
 *
 * Any thread; cannot fail.
 */
LIGHTGPT_API uint32_t lightgpt_abi_version(void);

/**
 * Whether the library that is running fits the header that the program was compiled with: pass
 * LIGHTGPT_ABI_VERSION. Of use where the library is loaded at run time.
 *
 * Any thread. Errors: LIGHTGPT_ABI_MISMATCH.
 */
LIGHTGPT_API int32_t lightgpt_abi_check(uint32_t abi_version);

/**
 * Fills in the facts about the library that is running.
 *
 * build: not NULL, initialised with LIGHTGPT_BUILD_INIT. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_build_info(struct lightgpt_build *build);

/**
 * Makes a team.
 *
 * options: NULL for the defaults. team: not NULL; gets a handle that lightgpt_team_free gives
 * back. `parallel_for_data` becomes the team's only if the call succeeds. Any thread.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (more than 256 threads, a node that the system does not know,
 * a niceness above 19), LIGHTGPT_UNSUPPORTED (an unknown flag),
 * LIGHTGPT_OUT_OF_MEMORY (the system starts no thread).
 */
LIGHTGPT_API
int32_t lightgpt_team_new(const struct lightgpt_team_options *options,
                          struct lightgpt_team **team);

/**
 * How many threads of the team may work at once, the calling one included.
 *
 * threads: not NULL. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_team_threads(const struct lightgpt_team *team, uint32_t *threads);

/**
 * Gives a team back. Its threads end with its last session, or now if there is none.
 *
 * NULL is fine. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_team_free(struct lightgpt_team *team);

/**
 * Opens the GGUF file at `path`, of a split model any of its parts.
 *
 * The file is mapped, not copied (unless LIGHTGPT_OPEN_COPY): see MAPPED FILES above. A file whose
 * tokenizer is not known to this version opens too: it runs on tokens, and what takes or gives
 * text answers LIGHTGPT_UNSUPPORTED, saying what is not known.
 *
 * path: not NULL, UTF-8, ends in a zero byte. options: NULL for the defaults. model: not NULL;
 * gets a handle that lightgpt_model_free gives back. `log_data`, and the allocator's data, become
 * the model's only if the call succeeds. Any thread.
 * Errors: LIGHTGPT_IO, LIGHTGPT_FORMAT (names key or tensor, offset, expected and found),
 * LIGHTGPT_UNSUPPORTED (architecture, format, version), LIGHTGPT_OUT_OF_MEMORY,
 * LIGHTGPT_MEMORY_CAP, LIGHTGPT_CANCELLED, LIGHTGPT_FILE_CHANGED (while it was copied).
 */
LIGHTGPT_API
int32_t lightgpt_model_open(const char *path,
                            const struct lightgpt_open_options *options,
                            struct lightgpt_model **model);

/**
 * Opens the GGUF file whose `bytes` bytes lie at `data`.
 *
 * With LIGHTGPT_OPEN_COPY they are copied. Otherwise they are used in place: they must stay as
 * they are until `release` is called. `release` is called once, if the call succeeds: with
 * LIGHTGPT_OPEN_COPY before it returns, otherwise when the model and all its sessions are freed.
 * If the call fails, the memory is the caller's as before.
 *
 * data: not NULL. release: NULL if there is nothing to do. Else as lightgpt_model_open.
 */
LIGHTGPT_API
int32_t lightgpt_model_open_memory(const void *data,
                                   size_t bytes,
                                   lightgpt_destroy_fn release,
                                   void *release_data,
                                   const struct lightgpt_open_options *options,
                                   struct lightgpt_model **model);

/**
 * Opens the GGUF file that lies in the open file `fd`: `bytes` bytes from `offset` (Unix only).
 *
 * The descriptor stays the caller's and may be closed after the call. The file must be a regular
 * one. Else as lightgpt_model_open. Errors: also LIGHTGPT_UNSUPPORTED (not Unix).
 */
LIGHTGPT_API
int32_t lightgpt_model_open_fd(int32_t fd,
                               uint64_t offset,
                               uint64_t bytes,
                               const struct lightgpt_open_options *options,
                               struct lightgpt_model **model);

/**
 * Says what the model is.
 *
 * info: not NULL, initialised with LIGHTGPT_MODEL_INFO_INIT. Any thread.
 */
LIGHTGPT_API
int32_t lightgpt_model_describe(const struct lightgpt_model *model,
                                struct lightgpt_model_info *info);

/**
 * Says how much memory the model takes with a session made with `options`.
 *
 * options: NULL for the defaults. memory: not NULL, initialised with LIGHTGPT_MEMORY_INIT. Any
 * thread. Errors: LIGHTGPT_INVALID_ARGUMENT (an option out of range),
 * LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
 */
LIGHTGPT_API
int32_t lightgpt_model_memory_estimate(const struct lightgpt_model *model,
                                       const struct lightgpt_session_options *options,
                                       struct lightgpt_memory *memory);

/**
 * Gives a model back. Sessions that use it go on; its memory and its file go with the last of
 * them.
 *
 * NULL is fine. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_model_free(struct lightgpt_model *model);

/**
 * Opens a GGUF file of `bytes` bytes that the host reads: a part of an archive, or what is
 * compressed or encrypted on the disk.
 *
 * The weights are read into memory, by pieces of up to a MiB, which come one after the other; it is
 * that of `options.allocator` if there is one. Progress and cancelling are as in
 * lightgpt_model_open. A model that is split into several files cannot be opened so.
 *
 * read_at: not NULL; not called any more when the call returns. Else as lightgpt_model_open.
 * Errors: LIGHTGPT_IO with the offset (read_at fails, or the model ends before `bytes`),
 * LIGHTGPT_INVALID_ARGUMENT (read_at answers more than was asked for), LIGHTGPT_UNSUPPORTED (a
 * split model).
 */
LIGHTGPT_API
int32_t lightgpt_model_open_reader(lightgpt_read_at_fn read_at,
                                   void *user_data,
                                   uint64_t bytes,
                                   const struct lightgpt_open_options *options,
                                   struct lightgpt_model **model);

/**
 * Says what the sessions and requests of a model share.
 *
 * What one has evaluated, others whose tokens begin the same way need not evaluate again, if
 * they keep keys and values in the same format and have the same salt. That happens by itself; it
 * can be seen in time and memory only.
 *
 * statistics: not NULL, initialised with LIGHTGPT_PREFIX_STATISTICS_INIT. Any thread.
 */
LIGHTGPT_API
int32_t lightgpt_model_prefix_statistics(const struct lightgpt_model *model,
                                         struct lightgpt_prefix_statistics *statistics);

/**
 * Gives the name of metadata key number `index`; the count is in lightgpt_model_info.
 *
 * buf, cap, needed: see TEXT above. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (there are fewer keys), LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_model_metadata_key(const struct lightgpt_model *model,
                                    uint64_t index,
                                    char *buf,
                                    size_t cap,
                                    size_t *needed);

/**
 * Gives the value of a metadata key as text: strings as they are in the file, numbers in decimal,
 * flags as true or false, arrays as their type and length such as "[string; 32000]".
 *
 * key: not NULL, ends in a zero byte. buf, cap, needed: see TEXT above. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (no such key), LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_model_metadata_text(const struct lightgpt_model *model,
                                     const char *key,
                                     char *buf,
                                     size_t cap,
                                     size_t *needed);

/**
 * Gives the value of a metadata key that holds an integer (of any type, not negative) or a flag
 * (0 or 1).
 *
 * key: not NULL, ends in a zero byte. value: not NULL. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (no such key), LIGHTGPT_INVALID_ARGUMENT (of another type).
 */
LIGHTGPT_API
int32_t lightgpt_model_metadata_u64(const struct lightgpt_model *model,
                                    const char *key,
                                    uint64_t *value);

/**
 * Gives the value of a metadata key that holds an integer of any type, or a flag (0 or 1).
 *
 * Else as lightgpt_model_metadata_u64.
 */
LIGHTGPT_API
int32_t lightgpt_model_metadata_i64(const struct lightgpt_model *model,
                                    const char *key,
                                    int64_t *value);

/**
 * Gives the value of a metadata key that holds a floating-point number.
 *
 * Else as lightgpt_model_metadata_u64.
 */
LIGHTGPT_API
int32_t lightgpt_model_metadata_f64(const struct lightgpt_model *model,
                                    const char *key,
                                    double *value);

/**
 * Says what tensor number `index` is; the count is in lightgpt_model_info.
 *
 * info: not NULL, initialised with LIGHTGPT_TENSOR_INFO_INIT. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (there are fewer tensors).
 */
LIGHTGPT_API
int32_t lightgpt_model_tensor_describe(const struct lightgpt_model *model,
                                       uint64_t index,
                                       struct lightgpt_tensor_info *info);

/**
 * Turns text into tokens.
 *
 * text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL and
 * LIGHTGPT_TEXT_PARSE_SPECIAL bits. buf, cap, needed: see TEXT above, counted in tokens. Any
 * thread.
 * Errors: LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL,
 * LIGHTGPT_OUT_OF_MEMORY.
 */
LIGHTGPT_API
int32_t lightgpt_model_tokenize(const struct lightgpt_model *model,
                                const char *text,
                                size_t text_bytes,
                                uint32_t flags,
                                uint32_t *buf,
                                size_t cap,
                                size_t *needed);

/**
 * Turns tokens into text: the bytes that they stand for, which need not be whole characters at
 * the ends of a cut.
 *
 * tokens: `tokens_len` numbers; NULL with 0. flags: LIGHTGPT_TEXT_SHOW_SPECIAL and
 * LIGHTGPT_TEXT_START bits. buf, cap, needed: see TEXT above. Any thread.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
 * tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_OUT_OF_MEMORY.
 */
LIGHTGPT_API
int32_t lightgpt_model_detokenize(const struct lightgpt_model *model,
                                  const uint32_t *tokens,
                                  size_t tokens_len,
                                  uint32_t flags,
                                  char *buf,
                                  size_t cap,
                                  size_t *needed);

/**
 * Gives a token as its vocabulary spells it.
 *
 * buf, cap, needed: see TEXT above. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
 * tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_model_token_text(const struct lightgpt_model *model,
                                  uint32_t token,
                                  char *buf,
                                  size_t cap,
                                  size_t *needed);

/**
 * Gives the LIGHTGPT_TOKEN_ bits of a token.
 *
 * attributes: not NULL. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
 * tokenizer, or an unknown one).
 */
LIGHTGPT_API
int32_t lightgpt_model_token_attributes(const struct lightgpt_model *model,
                                        uint32_t token,
                                        uint32_t *attributes);

/**
 * Gives the token that plays a part: `which` is one of LIGHTGPT_SPECIAL_.
 *
 * token: not NULL. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (the model has none), LIGHTGPT_INVALID_ARGUMENT (no such part),
 * LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one).
 */
LIGHTGPT_API
int32_t lightgpt_model_token_special(const struct lightgpt_model *model,
                                     uint32_t which,
                                     uint32_t *token);

/**
 * Gives the source of the model's chat template.
 *
 * name: of one of its templates, ending in a zero byte; NULL: the default one. buf, cap, needed:
 * see TEXT above. Any thread.
 * Errors: LIGHTGPT_NOT_FOUND (it names the key that the model lacks), LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_model_chat_template(const struct lightgpt_model *model,
                                     const char *name,
                                     char *buf,
                                     size_t cap,
                                     size_t *needed);

/**
 * Gives the prompt that a template makes of a chat, byte for byte as `transformers` does.
 *
 * It spells control tokens out: tokenize it with LIGHTGPT_TEXT_PARSE_SPECIAL, and without
 * LIGHTGPT_TEXT_ADD_SPECIAL, as most templates write the token that begins a text themselves. So
 * what messages say is read as control tokens too, where it spells some: whoever passes on what
 * others wrote looks for that first. lightgpt_model_chat_tokenize does all but the latter.
 *
 * Templates are Jinja; those of files from anywhere may be run. They have no way to anything but
 * what they are given, and limits on everything: 256 KiB of source, 10 million steps, 256 MiB of
 * text and data made on the way (or 256 bytes for each one given if that is more, at most 1 GiB),
 * 64 MiB of prompt. The thread needs 256 KiB of stack.
 *
 * chat: not NULL, initialised with LIGHTGPT_CHAT_INIT. buf, cap, needed: see TEXT above. Any
 * thread.
 * Errors: LIGHTGPT_NOT_FOUND (the model has no template; it names the key), LIGHTGPT_FORMAT (the
 * template is wrong), LIGHTGPT_INVALID_ARGUMENT (JSON is wrong, or the template refuses the chat:
 * the message is what it says), LIGHTGPT_UNSUPPORTED (the template passes a limit), all with the
 * line; LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_model_chat_render(const struct lightgpt_model *model,
                                   const struct lightgpt_chat *chat,
                                   char *buf,
                                   size_t cap,
                                   size_t *needed);

/**
 * Gives the tokens of a chat: renders it, and begins with the token that begins a text if the model
 * wants that, once, whether or not the template writes it.
 *
 * buf, cap, needed: see TEXT above, counted in tokens. Else as lightgpt_model_chat_render.
 * Errors: also LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one), LIGHTGPT_OUT_OF_MEMORY.
 */
LIGHTGPT_API
int32_t lightgpt_model_chat_tokenize(const struct lightgpt_model *model,
                                     const struct lightgpt_chat *chat,
                                     uint32_t *buf,
                                     size_t cap,
                                     size_t *needed);

/**
 * Appends the tokens of a chat to what the session will evaluate next. They are those of the whole
 * chat: the session should be new or rewound to its begin. What it or others have evaluated of an
 * earlier turn is found again.
 *
 * chat: as for lightgpt_model_chat_render. tokens: gets the number of tokens; may be NULL.
 * Errors: those of lightgpt_model_chat_tokenize and lightgpt_session_feed_text.
 */
LIGHTGPT_API
int32_t lightgpt_session_feed_chat(struct lightgpt_session *session,
                                   const struct lightgpt_chat *chat,
                                   uint64_t *tokens);

/**
 * Makes a sampler.
 *
 * options: NULL for the defaults. sampler: not NULL; gets a handle that lightgpt_sampler_free
 * gives back. Any thread.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (a member out of its range, used or not; the message names it),
 * LIGHTGPT_UNSUPPORTED (infill with a model that has no tokenizer), LIGHTGPT_OUT_OF_MEMORY.
 */
LIGHTGPT_API
int32_t lightgpt_sampler_new(const struct lightgpt_sampler_options *options,
                             struct lightgpt_sampler **sampler);

/**
 * Gives the seed, also one that was chosen at random.
 *
 * seed: not NULL. One thread at a time. Errors: LIGHTGPT_BUSY.
 */
LIGHTGPT_API int32_t lightgpt_sampler_seed(struct lightgpt_sampler *sampler, uint64_t *seed);

/**
 * Chooses a token: number `i` has the logit `logits[i]`. `step` numbers the choices of a text; the
 * same step makes the same choice again, except with mirostat and adaptive-p, which learn from
 * each choice.
 *
 * logits: `logits_len` numbers, more than 0. token: not NULL. One thread at a time. It is
 * lightgpt_sampler_sample_after with no tokens before: penalties and DRY do nothing.
 * Errors: as there.
 */
LIGHTGPT_API
int32_t lightgpt_sampler_sample(struct lightgpt_sampler *sampler,
                                const float *logits,
                                size_t logits_len,
                                uint64_t step,
                                uint32_t *token);

/**
 * Chooses a token that follows the tokens `history`, of which penalties and DRY take account.
 *
 * logits: `logits_len` numbers, more than 0; minus infinity excludes a token. history:
 * `history_len` tokens; NULL with 0. step: the new token's place in its text, as a session counts;
 * the random numbers depend on it and on the seed alone. token: not NULL. One thread at a time.
 * Errors: LIGHTGPT_NONFINITE (a logit is not a number or plus infinity, or no token is left),
 * LIGHTGPT_CANCELLED (a stage of the host's own said so), LIGHTGPT_BUSY, LIGHTGPT_OUT_OF_MEMORY,
 * LIGHTGPT_INVALID_ARGUMENT (no logits).
 */
LIGHTGPT_API
int32_t lightgpt_sampler_sample_after(struct lightgpt_sampler *sampler,
                                      const float *logits,
                                      size_t logits_len,
                                      const uint32_t *history,
                                      size_t history_len,
                                      uint64_t step,
                                      uint32_t *token);

/**
 * Forgets what mirostat and adaptive-p have learnt from lightgpt_sampler_sample and _sample_after;
 * for a new text. What a session has learnt stays; rewinding it to 0 tokens forgets that.
 *
 * One thread at a time. Errors: LIGHTGPT_BUSY.
 */
LIGHTGPT_API int32_t lightgpt_sampler_reset(struct lightgpt_sampler *sampler);

/**
 * Checks that a sampler chooses as often as it should: chooses `draws` times, at the steps from 0,
 * and compares how often each token came with the distribution that the stages leave.
 *
 * The sampler stays as it is. logits, history: as for lightgpt_sampler_sample_after. draws: 1 to
 * 100 million; the time grows with them, and more with XTC or a stage of the host's own, since
 * they may leave another distribution at each step. result: not NULL, initialised with
 * LIGHTGPT_CHI_SQUARE_INIT. One thread at a time.
 * Errors: as for lightgpt_sampler_sample_after.
 */
LIGHTGPT_API
int32_t lightgpt_sampler_check(struct lightgpt_sampler *sampler,
                               const float *logits,
                               size_t logits_len,
                               const uint32_t *history,
                               size_t history_len,
                               uint64_t draws,
                               struct lightgpt_chi_square *result);

/**
 * Gives a sampler back; NULL is fine. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_sampler_free(struct lightgpt_sampler *sampler);

/**
 * Adds a stage of the host's own to a sampler.
 *
 * before: the LIGHTGPT_STAGE_ number of the stage in front of which it stands, also if that one is
 * off; LIGHTGPT_STAGE_PICK: behind all others, where only the tokens that they left are candidates.
 * Of several in one place, the first that was added comes first.
 * stage: not NULL. It has no state but `user_data`, which all copies of the sampler share: those
 * that lightgpt_session_generate and _begin make. So it runs on several threads at once if several
 * sessions do with copies of one sampler; use a sampler for each where that is not wanted. Turns
 * that were begun before do not have it.
 * destroy: called with `user_data` when the sampler and its copies have gone; NULL: nothing to do.
 * `user_data` becomes the sampler's only if the call succeeds. One thread at a time.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (no such stage, or it is not in `order`; 64 were added
 * already), LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_sampler_add_stage(struct lightgpt_sampler *sampler,
                                   uint32_t before,
                                   lightgpt_stage_fn stage,
                                   void *user_data,
                                   lightgpt_destroy_fn destroy);

/**
 * Measures how varied sequences of tokens are: samples of a model, say, or one text.
 *
 * sequences: `sequences_len` of them, 1 to 2048. n: the length of the n-grams, 1 to 16.
 * diversity: not NULL, initialised with LIGHTGPT_DIVERSITY_INIT. Any thread.
 * Errors: LIGHTGPT_OUT_OF_MEMORY.
 */
LIGHTGPT_API
int32_t lightgpt_diversity_measure(const struct lightgpt_tokens *sequences,
                                   size_t sequences_len,
                                   uint32_t n,
                                   struct lightgpt_diversity *diversity);

/**
 * Measures how varied texts are: as lightgpt_diversity_measure, with the words of each text, which
 * white space separates.
 *
 * texts: `texts_len` of them, 1 to 2048. Else as there.
 */
LIGHTGPT_API
int32_t lightgpt_diversity_measure_texts(const struct lightgpt_text *texts,
                                         size_t texts_len,
                                         uint32_t n,
                                         struct lightgpt_diversity *diversity);

/**
 * Makes a session of a model.
 *
 * team: the threads to compute with; NULL: a team with default options that all such sessions of
 * the model share, from the first to the last of them.
 * options: NULL for the defaults. session: not NULL; gets a handle that lightgpt_session_free
 * gives back. Model and team may be freed before the session. Any thread.
 * Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_INVALID_ARGUMENT (an option out of
 * range), LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
 */
LIGHTGPT_API
int32_t lightgpt_session_new(const struct lightgpt_model *model,
                             const struct lightgpt_team *team,
                             const struct lightgpt_session_options *options,
                             struct lightgpt_session **session);

/**
 * Appends text to what the session will evaluate next: at the next lightgpt_session_prefill,
 * _begin or _generate.
 *
 * text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL and
 * LIGHTGPT_TEXT_PARSE_SPECIAL bits; a new text usually wants the former. tokens: gets the number
 * of tokens it made; may be NULL.
 * Errors: LIGHTGPT_CONTEXT_FULL, LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one),
 * LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_BUSY (also: a turn that was begun goes on).
 * LIGHTGPT_CANCELLED takes the session back to before the turn.
 */
LIGHTGPT_API
int32_t lightgpt_session_feed_text(struct lightgpt_session *session,
                                   const char *text,
                                   size_t text_bytes,
                                   uint32_t flags,
                                   uint64_t *tokens);

/**
 * Appends tokens to what the session will evaluate next.
 *
 * tokens: `tokens_len` numbers; NULL with 0.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary), LIGHTGPT_CONTEXT_FULL,
 * LIGHTGPT_BUSY (also: a turn that was begun goes on), LIGHTGPT_CANCELLED (the turn was cancelled
 * since the last call).
 */
LIGHTGPT_API
int32_t lightgpt_session_feed_tokens(struct lightgpt_session *session,
                                     const uint32_t *tokens,
                                     size_t tokens_len);

/**
 * Evaluates what was fed, for about `budget_us` microseconds; 0: until it is done.
 *
 * Answers LIGHTGPT_DONE, or LIGHTGPT_PENDING when the budget ended first: call again to go on.
 * Errors: LIGHTGPT_CANCELLED takes the session back to before the turn. LIGHTGPT_NONFINITE,
 * LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP and LIGHTGPT_FILE_CHANGED leave the tokens fed: try
 * again, or rewind. LIGHTGPT_BUSY.
 */
LIGHTGPT_API int32_t lightgpt_session_prefill(struct lightgpt_session *session, uint64_t budget_us);

/**
 * Copies out the logits after the last token: one number for each entry of the vocabulary. Evaluates
 * what was fed first.
 *
 * buf, cap, needed: see TEXT above, counted in numbers.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty), LIGHTGPT_BUFFER_TOO_SMALL, and those of
 * lightgpt_session_prefill.
 */
LIGHTGPT_API
int32_t lightgpt_session_logits(struct lightgpt_session *session,
                                float *buf,
                                size_t cap,
                                size_t *needed);

/**
 * Appends tokens and says how likely the model finds each after all that is before it.
 *
 * tokens: `tokens_len` numbers; NULL with 0. log_probabilities: gets as many natural logarithms of
 * probabilities. The tokens stay in the session, as part of the turn like fed ones; rewind it to drop
 * them.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty, so that nothing is before the first
 * token; a token outside the vocabulary), LIGHTGPT_CONTEXT_FULL, LIGHTGPT_BUSY, and those of
 * lightgpt_session_prefill.
 */
LIGHTGPT_API
int32_t lightgpt_session_score(struct lightgpt_session *session,
                               const uint32_t *tokens,
                               size_t tokens_len,
                               double *log_probabilities);

/**
 * Copies out the tokens of the session, from the first.
 *
 * buf, cap, needed: see TEXT above, counted in tokens.
 * Errors: LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_tokens(struct lightgpt_session *session,
                                uint32_t *buf,
                                size_t cap,
                                size_t *needed);

/**
 * Keeps the first `tokens` tokens and forgets the rest, also a turn in progress.
 *
 * Errors: LIGHTGPT_INVALID_ARGUMENT (it has fewer), LIGHTGPT_BUSY.
 */
LIGHTGPT_API int32_t lightgpt_session_rewind(struct lightgpt_session *session, uint64_t tokens);

/**
 * Cancels the turn that is in progress: the call that is using the session, or the next one,
 * answers LIGHTGPT_CANCELLED. A turn begins when the session is fed, and ends with its generation;
 * without one, nothing happens.
 *
 * Any thread at any time, also from a callback.
 */
LIGHTGPT_API int32_t lightgpt_session_cancel(const struct lightgpt_session *session);

/**
 * Says what the session has done and holds.
 *
 * metrics: not NULL, initialised with LIGHTGPT_METRICS_INIT. Errors: LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_metrics(struct lightgpt_session *session,
                                 struct lightgpt_metrics *metrics);

/**
 * Gives the message of the last call that failed on this session, on whatever thread; "" if none
 * did.
 *
 * buf, cap, needed: see TEXT above. Any thread at any time. Errors: LIGHTGPT_BUFFER_TOO_SMALL.
 */
LIGHTGPT_API
int32_t lightgpt_session_last_error(const struct lightgpt_session *session,
                                    char *buf,
                                    size_t cap,
                                    size_t *needed);

/**
 * Gives a session back. A call that uses it on another thread is cancelled and waited for; from a
 * callback, that is LIGHTGPT_BUSY.
 *
 * NULL is fine. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_session_free(struct lightgpt_session *session);

/**
 * Makes another session with the same tokens, logits and turn: from here on both go on by
 * themselves. They share what they have in common, so that a fork costs microseconds and little
 * memory, whatever the length of the text.
 *
 * A turn that was begun goes on in both, each with its own copy of its sampler and of text that is
 * held back, so that both make the same text; for several endings of a text, fork before the turn
 * is begun and generate with samplers of several seeds. A prompt that is partly evaluated stays so
 * in `session`; the fork evaluates again what was not finished.
 *
 * fork: not NULL; gets a handle that lightgpt_session_free gives back. `session` may be freed
 * before it.
 * Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_BUSY (another call uses it, or the
 * one whose callback this is).
 */
LIGHTGPT_API
int32_t lightgpt_session_fork(struct lightgpt_session *session,
                              struct lightgpt_session **fork);

/**
 * Makes room in a session that is full: keeps the first `keep` tokens, drops the `dropped` behind
 * them, and moves up those that follow.
 *
 * What moves up is evaluated again by the next call that needs it: afterwards the session is one
 * that was fed these tokens, to the bit. That takes as long as a prompt of so many tokens, so drop
 * many at a time. A turn that was begun goes on; cancelling it does not bring back what was dropped.
 *
 * Errors: LIGHTGPT_INVALID_ARGUMENT (it has fewer tokens, or a turn that was begun would have none
 * to go on from), LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_shift(struct lightgpt_session *session,
                               uint64_t keep,
                               uint64_t dropped);

/**
 * Saves a session to a file, which is put in its place when it is complete: there is the old file or
 * the new one.
 *
 * What is saved: tokens, keys, values and states, and the turn with its sampler, its generator and the text
 * that is held back. A prompt that is partly evaluated is saved as that. The session stays as it is.
 * path: UTF-8. flags: LIGHTGPT_SAVE_ bits.
 * Errors: LIGHTGPT_IO, LIGHTGPT_UNSUPPORTED (a turn goes on whose sampler has a stage of the host's
 * own), LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_save(struct lightgpt_session *session,
                              const char *path,
                              uint32_t flags);

/**
 * Saves a session to memory, as lightgpt_session_save does to a file.
 *
 * buf, cap, needed: see TEXT above, counted in bytes.
 * Errors: LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_UNSUPPORTED, LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_save_memory(struct lightgpt_session *session,
                                     uint32_t flags,
                                     uint8_t *buf,
                                     size_t cap,
                                     size_t *needed);

/**
 * Makes a session that goes on where a saved one was, with the same bits, on any CPU: also in the
 * middle of a turn, which goes on with lightgpt_session_step.
 *
 * model: the one it was saved with, or one whose metadata and tensors are the same. team: as for
 * lightgpt_session_new. options: NULL for the defaults; `context` and `kv_format` of 0 are those it
 * had, all others are not saved: give `memory_max`, `flags` and `salt` again. One that is restored
 * with keys and values shares them with nobody. path: UTF-8. session: not NULL; gets a handle that lightgpt_session_free gives back.
 * Errors: LIGHTGPT_FORMAT (the file is damaged or no saved session), LIGHTGPT_UNSUPPORTED (another
 * version wrote it whose numbers differ), LIGHTGPT_INVALID_ARGUMENT (another model, or options that
 * do not fit), LIGHTGPT_IO, LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP.
 */
LIGHTGPT_API
int32_t lightgpt_session_restore(const struct lightgpt_model *model,
                                 const struct lightgpt_team *team,
                                 const struct lightgpt_session_options *options,
                                 const char *path,
                                 struct lightgpt_session **session);

/**
 * As lightgpt_session_restore, from the `bytes` bytes at `data`. They may go when it returns.
 */
LIGHTGPT_API
int32_t lightgpt_session_restore_memory(const struct lightgpt_model *model,
                                        const struct lightgpt_team *team,
                                        const struct lightgpt_session_options *options,
                                        const uint8_t *data,
                                        size_t bytes,
                                        struct lightgpt_session **session);

/**
 * Evaluates what was fed and generates a turn, telling `event` what happens.
 *
 * Answers LIGHTGPT_DONE when the turn ended by itself, LIGHTGPT_STOPPED when the callback stopped
 * it; both keep its tokens. LIGHTGPT_CANCELLED, when the callback or lightgpt_session_cancel
 * wants that, takes the session back to before the turn: what was fed for it is forgotten. After
 * any other failure, rewind the session before it goes on.
 *
 * options: NULL for the defaults. event: NULL if nobody listens. Inside the callback, calls with
 * this session are LIGHTGPT_BUSY, except lightgpt_session_cancel and lightgpt_session_last_error.
 * Errors: LIGHTGPT_CANCELLED, LIGHTGPT_INVALID_ARGUMENT (the session is empty),
 * LIGHTGPT_NONFINITE, LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_FILE_CHANGED,
 * LIGHTGPT_BUSY (also: the sampler is in use, or a turn that was begun goes on).
 */
LIGHTGPT_API
int32_t lightgpt_session_generate(struct lightgpt_session *session,
                                  const struct lightgpt_generate_options *options,
                                  lightgpt_event_fn event,
                                  void *user_data);

/**
 * Begins a turn that lightgpt_session_step carries on.
 *
 * options: NULL for the defaults.
 * Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty), LIGHTGPT_BUSY (also: the sampler is in
 * use, or a turn that was begun goes on).
 */
LIGHTGPT_API
int32_t lightgpt_session_begin(struct lightgpt_session *session,
                               const struct lightgpt_generate_options *options);

/**
 * Carries a turn on until something happens, or for about `budget_us` microseconds; 0: no limit.
 * It may pause inside a token, and goes on where it stopped.
 *
 * Answers LIGHTGPT_OK with an event, LIGHTGPT_PENDING when the budget ended first, LIGHTGPT_DONE
 * with the last event of the turn. Its text is valid until the next call with the session.
 * Between steps the session may be asked, cancelled, rewound (which ends the turn) and freed.
 *
 * event: not NULL, initialised with LIGHTGPT_EVENT_INIT.
 * Errors: as lightgpt_session_generate, and with the same effect; LIGHTGPT_INVALID_ARGUMENT (no
 * turn is in progress).
 */
LIGHTGPT_API
int32_t lightgpt_session_step(struct lightgpt_session *session,
                              uint64_t budget_us,
                              struct lightgpt_event *event);

/**
 * Makes numbers of a text such that texts of like meaning have like numbers: with the length 1,
 * which is the default, compare two by the sum of the products of their numbers.
 *
 * The text is seen by itself: what the session holds does not count, and stays as it is. With an
 * encoder this is all a session does. The numbers are the same bits for any number of threads and
 * chunks, on every CPU; they depend on the session's `kv_format`.
 *
 * text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL, which models
 * expect, and LIGHTGPT_TEXT_PARSE_SPECIAL bits. options: NULL for the defaults. buf, cap, needed:
 * see TEXT above, counted in numbers: `embedding` in lightgpt_model_info, with
 * LIGHTGPT_POOLING_NONE `dim` for each token. Asking for their number computes nothing.
 * Errors: LIGHTGPT_CONTEXT_FULL (more tokens than the session can hold),
 * LIGHTGPT_INVALID_ARGUMENT (no tokens), LIGHTGPT_UNSUPPORTED (no tokenizer, or the model ranks and
 * no pooling is given), LIGHTGPT_CANCELLED, LIGHTGPT_NONFINITE, LIGHTGPT_OUT_OF_MEMORY,
 * LIGHTGPT_MEMORY_CAP, LIGHTGPT_FILE_CHANGED, LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_BUSY.
 */
LIGHTGPT_API
int32_t lightgpt_session_embed(struct lightgpt_session *session,
                               const char *text,
                               size_t text_bytes,
                               uint32_t flags,
                               const struct lightgpt_embed_options *options,
                               float *buf,
                               size_t cap,
                               size_t *needed);

/**
 * Makes numbers of a text that is tokens.
 *
 * tokens: `tokens_len` numbers; NULL with 0. Else as lightgpt_session_embed. Errors: also
 * LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary).
 */
LIGHTGPT_API
int32_t lightgpt_session_embed_tokens(struct lightgpt_session *session,
                                      const uint32_t *tokens,
                                      size_t tokens_len,
                                      const struct lightgpt_embed_options *options,
                                      float *buf,
                                      size_t cap,
                                      size_t *needed);

/**
 * Scores how well a text answers a query, by a model that was made for it: the higher, the better.
 * Sort texts by it; where a number from 0 to 1 is wanted, take 1 / (1 + exp(-score)).
 *
 * Both texts are seen together, by themselves; a decoder is asked for yes or no in the text that its
 * file has for that. The session stays as it is.
 * query: `query_bytes` bytes of UTF-8. text: `text_bytes` bytes of UTF-8. NULL with 0. Control tokens in
 * them are plain text. buf, cap, needed: see TEXT above, counted in scores: a model that ranks
 * gives one, others whose file has a classifier one for each class (`scores` in
 * lightgpt_model_info).
 * Errors: LIGHTGPT_UNSUPPORTED (the model has no classifier, no tokenizer or no such text), and those of
 * lightgpt_session_embed.
 */
LIGHTGPT_API
int32_t lightgpt_session_rerank(struct lightgpt_session *session,
                                const char *query,
                                size_t query_bytes,
                                const char *text,
                                size_t text_bytes,
                                float *buf,
                                size_t cap,
                                size_t *needed);

/**
 * Makes a queue.
 *
 * team: the threads to compute with; NULL: those that sessions of the model share by default.
 * options: NULL for the defaults. queue: not NULL; gets a handle that lightgpt_batch_queue_free
 * gives back. Model and team may be freed before the queue. Any thread.
 * Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_INVALID_ARGUMENT (an option out of
 * range), LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_new(const struct lightgpt_model *model,
                                 const struct lightgpt_team *team,
                                 const struct lightgpt_batch_queue_options *options,
                                 struct lightgpt_batch_queue **queue);

/**
 * Lets a queue without a worker work for about `budget_us` microseconds; 0: until no request is
 * there. It may pause inside a token, and goes on where it stopped. Callbacks run on this thread.
 *
 * Answers LIGHTGPT_PENDING when there is more to do (also while the queue rests or waits for
 * company), LIGHTGPT_DONE when no request is left.
 * Errors: LIGHTGPT_BUSY (the queue has a worker, another thread lets it work, or this is one of its
 * callbacks), LIGHTGPT_POISONED, LIGHTGPT_INTERNAL (a defect, which has ended all requests).
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_step(const struct lightgpt_batch_queue *queue,
                                  uint64_t budget_us);

/**
 * Lets the queue rest, from the next place where it can pause. Requests are still taken, cancelled,
 * and end at their deadlines.
 *
 * Any thread at any time, also from a callback.
 */
LIGHTGPT_API int32_t lightgpt_batch_queue_pause(const struct lightgpt_batch_queue *queue);

/**
 * Ends what lightgpt_batch_queue_pause and lightgpt_batch_queue_drain began.
 *
 * Any thread at any time, also from a callback.
 */
LIGHTGPT_API int32_t lightgpt_batch_queue_resume(const struct lightgpt_batch_queue *queue);

/**
 * Takes no more requests, until lightgpt_batch_queue_resume: submitting answers LIGHTGPT_BUSY.
 * Those that are there go on; waits for their end, for at most `timeout_us` microseconds, but not
 * in a callback.
 *
 * Answers LIGHTGPT_DONE when no request is left, else LIGHTGPT_PENDING. A queue without a worker
 * needs another thread that lets it work meanwhile. Any thread at any time.
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_drain(const struct lightgpt_batch_queue *queue,
                                   uint64_t timeout_us);

/**
 * Gives a queue back. Requests that are there are cancelled, and their callbacks hear it before
 * this call ends; its thread is joined, and calls on other threads are waited for. In a callback
 * that is LIGHTGPT_BUSY, if the queue has a thread or is in a call.
 *
 * NULL is fine. Any thread.
 */
LIGHTGPT_API int32_t lightgpt_batch_queue_free(struct lightgpt_batch_queue *queue);

/**
 * Says what the queue has done and holds.
 *
 * metrics: not NULL, initialised with LIGHTGPT_BATCH_METRICS_INIT. Any thread at any time.
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_metrics(const struct lightgpt_batch_queue *queue,
                                     struct lightgpt_batch_metrics *metrics);

/**
 * Gives the same as text for Prometheus, in the format that its servers scrape (version 0.0.4;
 * times in seconds, all names begin with "lightgpt_"). Texts of two queues have the same names:
 * serve them as two targets, or add a label of your own.
 *
 * The size may change from call to call: a buffer of 16 KiB has room for it. Any thread at any time.
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_metrics_text(const struct lightgpt_batch_queue *queue,
                                          char *buf,
                                          size_t cap,
                                          size_t *needed);

/**
 * Hands a request to the queue.
 *
 * request: not NULL; read during the call only. id: not NULL; gets the request's number, which
 * rises from 1. Its first event may come before this call returns. `user_data` becomes the
 * queue's only if the call succeeds. Any thread at any time, also from a callback.
 * Errors: LIGHTGPT_BUSY (as many requests are there as may be, the queue takes none, or the sampler
 * is in use), LIGHTGPT_INVALID_ARGUMENT (no prompt, a token outside the vocabulary, a priority out
 * of range), LIGHTGPT_CONTEXT_FULL (the prompt alone has more tokens than a request may come to),
 * LIGHTGPT_MEMORY_CAP (it does not fit into memory_max, even alone), LIGHTGPT_UNSUPPORTED (text
 * without a tokenizer), LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_POISONED, and those of
 * lightgpt_model_chat_tokenize.
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_submit(const struct lightgpt_batch_queue *queue,
                                    const struct lightgpt_batch_request *request,
                                    uint64_t *id);

/**
 * Ends a request soon: its last event has the status LIGHTGPT_CANCELLED. The others go on.
 *
 * Any thread at any time, also from a callback. Errors: LIGHTGPT_NOT_FOUND (it is over, or never
 * was).
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_cancel(const struct lightgpt_batch_queue *queue,
                                    uint64_t request);

/**
 * Gives the next event of the requests without a callback, and waits at most `timeout_us`
 * microseconds for one, but not in a callback.
 *
 * Answers LIGHTGPT_OK with an event, LIGHTGPT_PENDING if none came in time, LIGHTGPT_DONE if no
 * such request is left. What the event points to is valid until the next poll of the queue.
 * event: not NULL, initialised with LIGHTGPT_BATCH_EVENT_INIT. Any thread, one at a time.
 * Errors: LIGHTGPT_BUSY (another thread polls).
 */
LIGHTGPT_API
int32_t lightgpt_batch_queue_poll(const struct lightgpt_batch_queue *queue,
                                  uint64_t timeout_us,
                                  struct lightgpt_batch_event *event);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIGHTGPT_H */
